//! The request path, top to bottom.

use std::{
    fmt,
    future::Future,
    mem,
    pin::Pin,
    sync::Arc,
    task::{Context as TaskContext, Poll, ready},
};

use http::{
    HeaderMap, HeaderValue, Request, Response,
    header::{self, Entry},
};
use pin_project_lite::pin_project;
use tokio_util::task::TaskTracker;
use tower_service::Service;

use crate::{
    commit::{
        CommitOutcome, commit,
        state::{CookieAction, Status},
    },
    context::Context,
    cookie::{self, CookieHeaders},
    error::SessionError,
    expiry,
    session::{Session, lazy::LazySession},
};

/// The service that [`RedisSessionLayer`](crate::RedisSessionLayer) makes of another one.
#[derive(Clone)]
pub struct SessionService<S> {
    inner: S,
    context: Arc<Context>,
}

impl<S> SessionService<S> {
    pub(crate) fn new(inner: S, context: Arc<Context>) -> Self {
        Self { inner, context }
    }
}

impl<S, ReqBody, ResBody> Service<Request<ReqBody>> for SessionService<S>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>> + Clone,
    ResBody: From<String>,
{
    type Response = S::Response;
    type Error = S::Error;
    type Future = ResponseFuture<S, ReqBody>;

    fn poll_ready(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<(), Self::Error>> {
        self.inner.poll_ready(task)
    }

    fn call(&mut self, mut request: Request<ReqBody>) -> Self::Future {
        // A layer further out has this request in hand.
        if request.extensions().get::<LazySession>().is_some() {
            return ResponseFuture {
                stage: Stage::Inner {
                    future: self.inner.call(request),
                },
                lazy: None,
            };
        }
        let lazy = LazySession::new(
            self.context.clone(),
            CookieHeaders::from_headers(request.headers()),
        );
        request.extensions_mut().insert(lazy.clone());
        let stage = if self.context.config.eager {
            // The service that was polled ready is the one to call, and its clone is not; so that one goes along.
            let clone = self.inner.clone();
            let ready = mem::replace(&mut self.inner, clone);
            let load = {
                let lazy = lazy.clone();
                Box::pin(async move { lazy.load().await })
            };
            Stage::Loading {
                load,
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
        stage: Stage<S, S::Future, S::Response, ReqBody>,
        // `None`: this layer has nothing to do with the request.
        lazy: Option<LazySession>,
    }
}

pin_project! {
    #[project = StageProjection]
    enum Stage<S, F, R, ReqBody> {
        Loading { load: Load, next: Option<Box<(S, Request<ReqBody>)>> },
        Inner { #[pin] future: F },
        Committing { commit: DetachOnDrop, response: Option<R> },
    }
}

impl<S, ReqBody, ResBody> Future for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>, Response = Response<ResBody>>,
    ResBody: From<String>,
{
    type Output = Result<S::Response, S::Error>;

    fn poll(self: Pin<&mut Self>, task: &mut TaskContext<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        loop {
            let next = match this.stage.as_mut().project() {
                StageProjection::Loading { load, next } => {
                    let loaded = ready!(load.as_mut().poll(task));
                    let lazy = this.lazy.as_ref().expect("only a layer that acts loads");
                    let session = match loaded {
                        Ok(session) => session,
                        Err(error) => {
                            let mut response = error_response(lazy.context(), &error);
                            vary_by_cookie(response.headers_mut());
                            return Poll::Ready(Ok(response));
                        }
                    };
                    let (mut service, mut request) =
                        *next.take().expect("not polled again once loaded");
                    request.extensions_mut().insert(session);
                    Stage::Inner {
                        future: service.call(request),
                    }
                }
                StageProjection::Inner { future } => {
                    let response = ready!(future.poll(task));
                    // In another layer's hand.
                    let Some(lazy) = this.lazy.as_ref() else {
                        return Poll::Ready(response);
                    };
                    // Untouched: nothing more to do. But a stream may look yet.
                    lazy.mark_headers_sent();
                    if !lazy.was_accessed() {
                        return Poll::Ready(response);
                    }
                    let mut response = response?;
                    if let Some(error) = response.extensions().get::<SessionError>().cloned()
                        && lazy.context().config.error_response.is_some()
                    {
                        response = error_response(lazy.context(), &error);
                    }
                    vary_by_cookie(response.headers_mut());
                    let Some(session) = lazy.loaded() else {
                        return Poll::Ready(Ok(response));
                    };
                    if !session.inner().state().is_dirty(lazy.context()) {
                        set_cookie(&session, response.headers_mut());
                        return Poll::Ready(Ok(response));
                    }
                    let inner = session.inner().clone();
                    let commit = DetachOnDrop {
                        detached_commits: lazy.context().shared.detached_commits.clone(),
                        commit: Some(Box::pin(async move { commit(&inner).await })),
                    };
                    Stage::Committing {
                        commit,
                        response: Some(response),
                    }
                }
                StageProjection::Committing { commit, response } => {
                    let committed = ready!(commit.poll(task));
                    let lazy = this.lazy.as_ref().expect("only a layer that acts commits");
                    let mut response = response.take().expect("not polled again once committed");
                    match (committed, lazy.loaded()) {
                        (Ok(_), Some(session)) => set_cookie(&session, response.headers_mut()),
                        (Ok(_), None) => {}
                        // What the handler says did not happen; so nobody gets to read it, nor a cookie.
                        (Err(error), _) => {
                            response = error_response(lazy.context(), &error);
                            vary_by_cookie(response.headers_mut());
                        }
                    }
                    return Poll::Ready(Ok(response));
                }
            };
            this.stage.set(next);
        }
    }
}

impl<S, ReqBody> fmt::Debug for ResponseFuture<S, ReqBody>
where
    S: Service<Request<ReqBody>>,
{
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResponseFuture").finish_non_exhaustive()
    }
}

/// A commit that, once begun, is carried through: if the client goes away and the response's future with it, on a task.
struct DetachOnDrop {
    commit: Option<Commit>,
    detached_commits: TaskTracker,
}

impl DetachOnDrop {
    fn poll(&mut self, task: &mut TaskContext<'_>) -> Poll<Result<CommitOutcome, SessionError>> {
        let commit = self
            .commit
            .as_mut()
            .expect("not polled again once committed");
        let result = ready!(commit.as_mut().poll(task));
        self.commit = None;
        Poll::Ready(result)
    }
}

impl Drop for DetachOnDrop {
    fn drop(&mut self) {
        let (Some(commit), Ok(runtime)) =
            (self.commit.take(), tokio::runtime::Handle::try_current())
        else {
            return;
        };
        let finish = async move {
            if let Err(error) = commit.await {
                tracing::debug!(%error, "a session was not saved, and its client is gone");
            }
        };
        self.detached_commits.spawn_on(finish, &runtime);
    }
}

/// Adds what the browser is to be told.
fn set_cookie(session: &Session, headers: &mut HeaderMap) {
    let inner = session.inner();
    let config = &inner.context.config;
    let mut state = inner.state();
    state.headers_sent = true;
    let line = match (
        mem::replace(&mut state.cookie, CookieAction::Keep),
        state.status,
    ) {
        (CookieAction::Issue, Status::Persisted(id)) => {
            let max_age =
                expiry::max_age(&inner.context.config, state.changes.metadata(&state.base));
            cookie::issue(&config.cookie, id, max_age)
        }
        (CookieAction::Remove, _) => cookie::remove(&config.cookie),
        (CookieAction::Issue, Status::New | Status::Rotated | Status::Gone)
        | (CookieAction::Keep, _) => return,
    };
    drop(state);
    headers.append(header::SET_COOKIE, line);
    // RFC 9111, section 7.3: a cache may store a response with Set-Cookie unless told otherwise.
    no_store(headers);
}

/// Unless the app says how it may be stored.
fn no_store(headers: &mut HeaderMap) {
    if !headers.contains_key(header::CACHE_CONTROL) {
        headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    }
}

/// The answer depends on who asks (Flask, CVE-2026-27205).
fn vary_by_cookie(headers: &mut HeaderMap) {
    let varies = |value: &HeaderValue| {
        value.as_bytes().split(|byte| *byte == b',').any(|name| {
            let name = name.trim_ascii();
            name == b"*" || name.eq_ignore_ascii_case(b"cookie")
        })
    };
    let cookie = HeaderValue::from_static("Cookie");
    match headers.entry(header::VARY) {
        Entry::Vacant(entry) => {
            entry.insert(cookie);
        }
        Entry::Occupied(mut entry) => {
            if !entry.iter().any(varies) {
                entry.append(cookie);
            }
        }
    }
}

fn error_response<ResBody: From<String>>(
    context: &Context,
    error: &SessionError,
) -> Response<ResBody> {
    let mut response = match &context.config.error_response {
        Some(respond) => respond(error),
        None => error.to_response(),
    };
    // What went wrong is of this moment, whatever status the app gave it.
    no_store(response.headers_mut());
    response.map(ResBody::from)
}
