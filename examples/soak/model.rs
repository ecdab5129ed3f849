//! The visitors, and a model of what each one's session must contain.

use std::{
    collections::BTreeMap,
    fmt,
    time::{Duration, Instant},
};

use axum::{
    Router,
    body::{Body, to_bytes},
    http::{Request, StatusCode, header},
    routing::get,
};
use axum_redis_sessions::{RedisSessionLayer, Session, SessionError};
use tower::ServiceExt;

use crate::faults::Rng;

/// The layer must recover within this time after the servers.
const MAX_RECOVERY: Duration = Duration::from_secs(10);

pub(crate) fn app(layer: RedisSessionLayer) -> Router {
    let visit = async |session: Session| {
        let visits = session.update("visits", |n: Option<u64>| n.unwrap_or(0) + 1)?;
        Ok::<_, SessionError>(visits.to_string())
    };
    let look = async |session: Session| {
        let visits = session.get::<u64>("visits")?;
        Ok::<_, SessionError>(visits.unwrap_or(0).to_string())
    };
    Router::new()
        .route("/", get(visit))
        .route("/look", get(look))
        .route("/cycle", get(async |session: Session| session.cycle_id()))
        .route("/destroy", get(async |session: Session| session.destroy()))
        .layer(layer)
}

/// The time until visitors can create sessions: several in a row, since a cluster has several masters.
pub(crate) async fn recovery_time(app: &Router) -> Option<Duration> {
    let start = Instant::now();
    let mut recovered = None;
    let mut in_a_row = 0;
    while start.elapsed() < MAX_RECOVERY {
        let mut visitor = Visitor::new(app.clone(), 0, 0);
        if visitor.ask("/").await.is_ok() {
            recovered.get_or_insert(start.elapsed());
            in_a_row += 1;
            if in_a_row == 12 {
                return recovered;
            }
        } else {
            recovered = None;
            in_a_row = 0;
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    None
}

/// A visitor with at most one session. A request without a successful response may or may not have been executed.
pub(crate) struct Visitor {
    app: Router,
    number: u64,
    rng: Rng,
    session: Option<Model>,
    /// Cookies of sessions that were logged out and of ids that were rotated away, with the reason.
    ended: Vec<(String, &'static str)>,
    tally: Tally,
}

/// The model of a live session.
struct Model {
    cookie: String,
    /// Acknowledged visits.
    visits: u64,
    /// Visits without a successful response, which may have been counted.
    in_doubt: u64,
    /// A rotation or a logout was not acknowledged, so the session may have ended.
    may_have_ended: bool,
}

#[derive(Default)]
pub(crate) struct Tally {
    requests: u64,
    successful: u64,
    errors: BTreeMap<String, u64>,
    longest: Duration,
    sessions: u64,
    visits: u64,
    lost: u64,
    counted_twice: u64,
    ended: u64,
    still_usable: u64,
}

impl Visitor {
    pub(crate) fn new(app: Router, number: u64, seed: u64) -> Self {
        Self {
            app,
            number,
            rng: Rng::new(seed),
            session: None,
            ended: Vec::new(),
            tally: Tally::default(),
        }
    }

    pub(crate) async fn act(&mut self) {
        self.rng.pause(2, 20).await;
        let Some(model) = &self.session else {
            return self.create().await;
        };
        if model.may_have_ended {
            return self.log_out().await;
        }
        match self.rng.below(100) {
            0..80 => self.visit().await,
            80..90 => self.look().await,
            90..95 => self.rotate().await,
            _ => self.log_out().await,
        }
    }

    async fn create(&mut self) {
        if let Ok((_, Some(cookie))) = self.ask("/").await {
            self.tally.sessions += 1;
            self.session = Some(Model {
                cookie,
                visits: 1,
                in_doubt: 0,
                may_have_ended: false,
            });
        }
    }

    async fn visit(&mut self) {
        let response = self.ask("/").await;
        let Some(model) = &mut self.session else {
            return;
        };
        let max = model.visits + model.in_doubt + 1;
        let Ok((body, _)) = response else {
            model.in_doubt += 1;
            return;
        };
        let visits = body.parse().expect("a number");
        if !(model.visits + 1..=max).contains(&visits) {
            eprintln!(
                "visitor {}: visit {visits} after {} to {max}",
                self.number, model.visits
            );
            self.tally.lost += (model.visits + 1).saturating_sub(visits);
            self.tally.counted_twice += visits.saturating_sub(max);
        }
        self.tally.visits += 1;
        // Includes earlier visits in doubt that were counted.
        model.visits = visits;
        model.in_doubt = max.saturating_sub(visits);
    }

    /// The result is not checked here, because it may come from a former master.
    async fn look(&mut self) {
        let _ = self.ask("/look").await;
    }

    async fn rotate(&mut self) {
        let response = self.ask("/cycle").await;
        let Some(model) = &mut self.session else {
            return;
        };
        match response {
            Ok((_, Some(cookie))) => {
                let old = std::mem::replace(&mut model.cookie, cookie);
                self.ended.push((old, "rotated"));
            }
            // The session was loaded from a former master, which did not have it.
            Ok((_, None)) | Err(()) => model.may_have_ended = true,
        }
    }

    async fn log_out(&mut self) {
        if self.ask("/destroy").await.is_ok()
            && let Some(model) = self.session.take()
        {
            let reason = match model.may_have_ended {
                true => "logged out, after an earlier try without acknowledgement",
                false => "logged out",
            };
            self.ended.push((model.cookie, reason));
        } else if let Some(model) = &mut self.session {
            model.may_have_ended = true;
        }
    }

    /// The body, and the new cookie if there is one.
    async fn ask(&mut self, path: &str) -> Result<(String, Option<String>), ()> {
        let cookie = self.session.as_ref().map(|model| model.cookie.clone());
        self.ask_as(path, cookie.as_deref()).await
    }

    async fn ask_as(
        &mut self,
        path: &str,
        cookie: Option<&str>,
    ) -> Result<(String, Option<String>), ()> {
        let mut request = Request::get(path);
        if let Some(cookie) = cookie {
            request = request.header(header::COOKIE, cookie);
        }
        let request = request.body(Body::empty()).expect("a request");
        let start = Instant::now();
        let response = self.app.clone().oneshot(request).await.expect("infallible");
        self.tally.longest = self.tally.longest.max(start.elapsed());
        self.tally.requests += 1;
        if response.status() != StatusCode::OK {
            let error = response.extensions().get::<SessionError>();
            let kind = error.map_or_else(
                || response.status().to_string(),
                |error| format!("{:?}", error.kind()),
            );
            *self.tally.errors.entry(kind).or_insert(0) += 1;
            return Err(());
        }
        self.tally.successful += 1;
        let cookie = response.headers().get(header::SET_COOKIE);
        let cookie = cookie.and_then(|line| line.to_str().ok()?.split(';').next());
        let cookie = cookie
            .filter(|pair| !pair.ends_with('='))
            .map(str::to_owned);
        let body = to_bytes(response.into_body(), 1 << 10)
            .await
            .expect("a body");
        Ok((String::from_utf8_lossy(&body).into_owned(), cookie))
    }

    /// Compares the stored sessions with the model, after the last fault.
    pub(crate) async fn verify(mut self, tally: &mut Tally) {
        if let Some(model) = self.session.take().filter(|model| !model.may_have_ended) {
            let visits = self.visits(&model.cookie).await;
            self.tally.lost += model.visits.saturating_sub(visits);
            self.tally.counted_twice += visits.saturating_sub(model.visits + model.in_doubt);
            if visits < model.visits {
                eprintln!(
                    "visitor {}: {visits} visits are stored, {} were acknowledged",
                    self.number, model.visits
                );
            }
        }
        for (cookie, reason) in std::mem::take(&mut self.ended) {
            self.tally.ended += 1;
            if self.visits(&cookie).await > 0 {
                self.tally.still_usable += 1;
                eprintln!(
                    "visitor {}: a session is still usable, though it was {reason}",
                    self.number
                );
            }
        }
        tally.add(&self.tally);
    }

    async fn visits(&mut self, cookie: &str) -> u64 {
        let start = Instant::now();
        loop {
            if let Ok((body, _)) = self.ask_as("/look", Some(cookie)).await {
                return body.parse().expect("a number");
            }
            assert!(
                start.elapsed() < MAX_RECOVERY,
                "no response after the servers have recovered"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.successful += other.successful;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_insert(0) += count;
        }
        self.longest = self.longest.max(other.longest);
        self.sessions += other.sessions;
        self.visits += other.visits;
        self.lost += other.lost;
        self.counted_twice += other.counted_twice;
        self.ended += other.ended;
        self.still_usable += other.still_usable;
    }

    pub(crate) fn is_good(&self, longest: Duration) -> bool {
        let is_good = self.lost == 0 && self.counted_twice == 0 && self.still_usable == 0;
        is_good && self.successful > 0 && self.longest <= longest
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "requests:            {}, of which successful {}",
            self.requests, self.successful
        )?;
        writeln!(f, "errors by kind:      {:?}", self.errors)?;
        writeln!(f, "longest response:    {:?}", self.longest)?;
        writeln!(f, "sessions created:    {}", self.sessions)?;
        writeln!(
            f,
            "visits acknowledged: {}, lost {}, counted twice {}",
            self.visits, self.lost, self.counted_twice
        )?;
        write!(
            f,
            "ids ended:           {}, still usable {}",
            self.ended, self.still_usable
        )
    }
}
