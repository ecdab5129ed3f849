//! The request path: request in, inner service, commit, Set-Cookie out.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use http::{Request, Response};
use pin_project_lite::pin_project;
use tokio_util::task::TaskTracker;
use tower_service::Service;

#[cfg(feature = "migration")]
use crate::commit::old_session;
use crate::{
    body::ErrorBody,
    commit::{CommitOutcome, SessionCell, commit},
    context::Context,
    error::SessionError,
    request::RequestHead,
    response::{error_response, is_for_shared_caches, replace_with_error, set_cookie, vary},
    session::{Session, lazy::LazySession},
};

/// The service that [`RedisSessionLayer`](crate::RedisSessionLayer) makes of another service.
#[derive(Clone)]
pub struct SessionService<S> {
    inner: S,
    context: Arc<Context>,
}

impl<S> SessionService<S> {
    pub(crate) fn new(inner: S, context: Arc<Context>) -> Self {
        Self { inner, context }
    }

    /// The inner service.
    pub fn get_ref(&self) -> &S {
        &self.inner
    }

    /// The inner service, mutably.
    pub fn get_mut(&mut self) -> &mut S {
        &mut self.inner
    }

    /// The inner service, without the layer.
    pub fn into_inner(self) -> S {
        self.inner
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: ErrorBody,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, ReqBody>;

    fn poll_ready(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        // The same session, by an outer layer. A layer with another cookie is another session.
        let outer = request.extensions().get::<LazySession>();
        let name = self.context.config.session_name();
        if outer.is_some_and(|outer| outer.by_cookie_name(name).is_some()) {
            return ResponseFuture {
                stage: Stage::Inner {
                    future: self.inner.call(request),
                },
                lazy: None,
            };
        }
        let outer = outer.cloned();
        if outer.is_some() {
            // That of an outer layer with eager load.
            request.extensions_mut().remove::<Session>();
        }
        let head = RequestHead::new(&request, &self.context.config);
        let lazy = LazySession::new(self.context.clone(), head, outer);
        request.extensions_mut().insert(lazy.clone());
        let stage = if self.context.config.eager {
            let load = lazy.clone();
            // The service that was polled ready must be the one that is called, so its clone stays behind.
            let clone = self.inner.clone();
            let ready = mem::replace(&mut self.inner, clone);
            Stage::Loading {
                load: Box::pin(async move { load.load().await }),
                next: Some(Box::new((ready, request))),
            }
        } else {
            Stage::Inner {
                future: self.inner.call(request),
            }
        };
        ResponseFuture {
            stage,
            lazy: Some(lazy),
        }
    }
}

impl<S: fmt::Debug> fmt::Debug for SessionService<S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SessionService")
            .field("inner", &self.inner)
            .finish_non_exhaustive()
    }
}

type Load = Pin<Box<dyn Future<Output = Result<Session, SessionError>> + Send>>;
type Commit = Pin<Box<dyn Future<Output = Result<CommitOutcome, SessionError>> + Send>>;

pin_project! {
    /// The future of a [`SessionService`].
    pub struct ResponseFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        #[pin]
        stage: Stage<S, S::Future, S::Response, S::Error, ReqBody>,
        // `None`: an outer layer handles the request.
        lazy: Option<LazySession>,
    }

    // A request that is cancelled is one that failed.
    impl<S, ReqBody> PinnedDrop for ResponseFuture<S, ReqBody>
    where
        S: Service<Request<ReqBody>>,
    {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            if let (StageProjection::Inner { .. }, Some(lazy)) = (this.stage.project(), this.lazy) {
                drop(begin_destroy(lazy));
            }
        }
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<S, F, R, E, ReqBody> {
        Loading { load: Load, next: Option<Box<(S, Request<ReqBody>)>> },
        Inner { #[pin] future: F },
        Committing { commit: DetachOnDrop, result: Option<Result<R, E>> },
    }
}

impl<S, ReqBody, ResBody> Future for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: ErrorBody,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, cx: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match (this.stage.as_mut().project(), this.lazy.as_ref()) {
                (StageProjection::Inner { future }, None) => return future.poll(cx),
                (StageProjection::Loading { load, next }, Some(lazy)) => {
                    let session = match ready!(load.as_mut().poll(cx)) {
                        Ok(session) => session,
                        Err(error) => {
                            return Poll::Ready(Ok(error_response(lazy, &error)));
                        }
                    };
                    let (mut service, mut request) = *next.take().expect(ONCE);
                    request.extensions_mut().insert(session);
                    Stage::Inner {
                        future: service.call(request),
                    }
                }
                (StageProjection::Inner { future }, Some(lazy)) => {
                    let mut result = ready!(future.poll(cx));
                    // A stream may still load the session, but can set no cookie.
                    lazy.mark_headers_sent();
                    let commit = match &mut result {
                        Ok(response) => begin_commit(lazy, response),
                        Err(_) => begin_destroy(lazy),
                    };
                    match commit {
                        None => {
                            // Nothing is left to do when this future is dropped.
                            *this.lazy = None;
                            return Poll::Ready(result);
                        }
                        Some(commit) => Stage::Committing {
                            commit,
                            result: Some(result),
                        },
                    }
                }
                (StageProjection::Committing { commit, result }, Some(lazy)) => {
                    let committed = ready!(commit.poll(cx));
                    let result = result.take().expect(ONCE);
                    return Poll::Ready(result.map(|response| finish(lazy, committed, response)));
                }
                (StageProjection::Loading { .. } | StageProjection::Committing { .. }, None) => {
                    unreachable!("only a layer that handles the request loads and commits")
                }
            };
            this.stage.set(next);
        }
    }
}

const ONCE: &str = "a future is not polled after it is ready";

/// The commit that the handler's changes call for. Without one, the response gets its headers here.
fn begin_commit<B: ErrorBody>(
    lazy: &LazySession,
    response: &mut Response<B>,
) -> Option<DetachOnDrop> {
    if !lazy.was_accessed() {
        return None;
    }
    // Before the app's form of an error, which may have any status.
    let mut has_failed = !lazy.config().saves_after(response.status());
    if let Some(error) = response.extensions().get::<SessionError>() {
        has_failed = true;
        lazy.failures().report("a request failed", error);
        if lazy.config().error_response.is_some() {
            replace_with_error(response, lazy, &error.clone());
        }
    }
    vary(response.headers_mut(), lazy.config());
    let session = lazy.loaded()?;
    let cell = session.cell();
    let is_dirty = {
        let mut state = cell.state();
        if state.cookie_needs_renewal(&cell.context) {
            state.defers_renewal = is_for_shared_caches(response.headers());
        }
        if has_failed || cell.has_panicked() {
            state.discard_unsaved();
        }
        #[cfg(feature = "migration")]
        old_session::destroy_with_ours(
            &mut state,
            &lazy.config().migrations,
            &lazy.head().presented,
        );
        state.is_dirty(&cell.context)
    };
    if !is_dirty {
        set_cookie(lazy, cell, response.headers_mut());
        return None;
    }
    Some(DetachOnDrop::new(cell.clone()))
}

/// The commit of a request that ended without a response: of what `destroy` asked for, if it was called.
fn begin_destroy(lazy: &LazySession) -> Option<DetachOnDrop> {
    let session = lazy.loaded()?;
    let cell = session.cell();
    let mut state = cell.state();
    #[cfg(feature = "migration")]
    old_session::destroy_with_ours(
        &mut state,
        &lazy.config().migrations,
        &lazy.head().presented,
    );
    if state.pending_deletes.is_empty() && !state.old.has_deletes() {
        return None;
    }
    state.discard_unsaved();
    drop(state);
    Some(DetachOnDrop::new(cell.clone()))
}

/// The response to send once the commit has ended. An error replaces it, since the handler's response reports changes that were
/// not saved.
fn finish<B: ErrorBody>(
    lazy: &LazySession,
    committed: Result<CommitOutcome, SessionError>,
    mut response: Response<B>,
) -> Response<B> {
    match (committed, lazy.loaded()) {
        (Ok(_), Some(session)) => set_cookie(lazy, session.cell(), response.headers_mut()),
        (Ok(_), None) => {}
        (Err(error), session) => {
            replace_with_error(&mut response, lazy, &error);
            // What was stored before the failure, by `save`, may have a new id.
            if let Some(session) = session {
                set_cookie(lazy, session.cell(), response.headers_mut());
            }
        }
    }
    response
}

impl<S, ReqBody> fmt::Debug for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// A commit that is completed even if the client leaves: if the response's future is dropped, the commit continues in a task.
struct DetachOnDrop {
    commit: Option<Commit>,
    detached_commits: TaskTracker,
}

impl DetachOnDrop {
    fn new(session: Arc<SessionCell>) -> Self {
        Self {
            detached_commits: session.context.shared.detached_commits.clone(),
            commit: Some(Box::pin(async move { commit(&session).await })),
        }
    }

    fn poll(&mut self, cx: &mut TaskContext<'_>) -> Poll<Result<CommitOutcome, SessionError>> {
        let commit = self.commit.as_mut().expect(ONCE);
        let result = ready!(commit.as_mut().poll(cx));
        self.commit = None;
        Poll::Ready(result)
    }
}

impl Drop for DetachOnDrop {
    fn drop(&mut self) {
        let runtime = tokio::runtime::Handle::try_current();
        let (Some(commit), Ok(runtime)) = (self.commit.take(), runtime) else {
            return;
        };
        // `commit` logs its errors.
        self.detached_commits.spawn_on(commit, &runtime);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::{MAX_CACHED_ALLOCATION, lazy_in_memory};

    #[test]
    fn a_commit_fits_into_the_allocators_cache() {
        let lazy = lazy_in_memory();
        lazy.destroy();
        let session = lazy.loaded().expect("an empty one");
        let commit = DetachOnDrop::new(session.cell().clone());
        let size = size_of_val(&**commit.commit.as_ref().expect("not polled"));
        assert!(size <= MAX_CACHED_ALLOCATION, "{size} bytes");
    }
}
