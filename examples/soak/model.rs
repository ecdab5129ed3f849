//! The visitors, and what each knows of its session.

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

use crate::trouble::Dice;

/// How long the servers may be well again before the layer has to be.
const RETURN: Duration = Duration::from_secs(10);

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

/// How long it takes until a visitor can begin a session.
pub(crate) async fn returns(app: &Router) -> Option<Duration> {
    let asked = Instant::now();
    while asked.elapsed() < RETURN {
        let mut visitor = Visitor::new(app.clone(), 0);
        if visitor.ask("/").await.is_ok() {
            return Some(asked.elapsed());
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    None
}

/// A visitor with a session at a time. What it is told is true, as far as it is told something.
pub(crate) struct Visitor {
    app: Router,
    number: usize,
    dice: Dice,
    session: Option<Known>,
    /// Cookies of sessions that were logged out, and of ids that were rotated away; and how it was.
    dead: Vec<(String, &'static str)>,
    tally: Tally,
}

/// A session that is alive.
struct Known {
    cookie: String,
    /// Visits that were acknowledged, and those that may have been made beyond them.
    visits: u64,
    uncertain: u64,
    /// A rotation or a logout was not acknowledged, so it may be over.
    may_be_over: bool,
}

#[derive(Default)]
pub(crate) struct Tally {
    requests: u64,
    good: u64,
    errors: BTreeMap<String, u64>,
    longest: Duration,
    sessions: u64,
    visits: u64,
    lost: u64,
    invented: u64,
    ended: u64,
    alive: u64,
}

impl Visitor {
    pub(crate) fn new(app: Router, number: usize) -> Self {
        Self {
            app,
            number,
            dice: Dice::new(),
            session: None,
            dead: Vec::new(),
            tally: Tally::default(),
        }
    }

    pub(crate) async fn act(&mut self) {
        self.dice.pause(2, 20).await;
        let Some(known) = &self.session else {
            return self.begin().await;
        };
        if known.may_be_over {
            return self.log_out().await;
        }
        match self.dice.below(100) {
            0..80 => self.visit().await,
            80..90 => self.look().await,
            90..95 => self.rotate().await,
            _ => self.log_out().await,
        }
    }

    async fn begin(&mut self) {
        if let Ok((_, Some(cookie))) = self.ask("/").await {
            self.tally.sessions += 1;
            self.session = Some(Known {
                cookie,
                visits: 1,
                uncertain: 0,
                may_be_over: false,
            });
        }
    }

    async fn visit(&mut self) {
        let answer = self.ask("/").await;
        let Some(known) = &mut self.session else {
            return;
        };
        let most = known.visits + known.uncertain + 1;
        let Ok((body, _)) = answer else {
            known.uncertain += 1;
            return;
        };
        let visits = body.parse().expect("a number");
        if !(known.visits + 1..=most).contains(&visits) {
            eprintln!(
                "visitor {}: visit {visits} after {} to {most}",
                self.number, known.visits
            );
            self.tally.lost += (known.visits + 1).saturating_sub(visits);
            self.tally.invented += visits.saturating_sub(most);
        }
        self.tally.visits += 1;
        // More than this if it was done again on top of one whose answer never came.
        known.visits = visits;
        known.uncertain = most.saturating_sub(visits);
    }

    /// What it reads may be on a master of the past, so it counts only in the end.
    async fn look(&mut self) {
        let _ = self.ask("/look").await;
    }

    async fn rotate(&mut self) {
        let answer = self.ask("/cycle").await;
        let Some(known) = &mut self.session else {
            return;
        };
        match answer {
            Ok((_, Some(cookie))) => {
                let old = std::mem::replace(&mut known.cookie, cookie);
                self.dead.push((old, "rotated"));
            }
            // The session was read from a master of the past, which did not have it.
            Ok((_, None)) | Err(()) => known.may_be_over = true,
        }
    }

    async fn log_out(&mut self) {
        if self.ask("/destroy").await.is_ok()
            && let Some(known) = self.session.take()
        {
            let how = match known.may_be_over {
                true => "logged out, and not for the first time",
                false => "logged out",
            };
            self.dead.push((known.cookie, how));
        } else if let Some(known) = &mut self.session {
            known.may_be_over = true;
        }
    }

    /// The body, and the cookie if there is a new one.
    async fn ask(&mut self, path: &str) -> Result<(String, Option<String>), ()> {
        let cookie = self.session.as_ref().map(|known| known.cookie.clone());
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
        let asked = Instant::now();
        let response = self.app.clone().oneshot(request).await.expect("infallible");
        self.tally.longest = self.tally.longest.max(asked.elapsed());
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
        self.tally.good += 1;
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

    /// Compares what is there with what was said, now that all is well.
    pub(crate) async fn settle(mut self, tally: &mut Tally) {
        if let Some(known) = self.session.take().filter(|known| !known.may_be_over) {
            let visits = self.visits(&known.cookie).await;
            self.tally.lost += known.visits.saturating_sub(visits);
            self.tally.invented += visits.saturating_sub(known.visits + known.uncertain);
            if visits < known.visits {
                eprintln!(
                    "visitor {}: {visits} visits, of {} that were acknowledged",
                    self.number, known.visits
                );
            }
        }
        for (cookie, how) in std::mem::take(&mut self.dead) {
            self.tally.ended += 1;
            if self.visits(&cookie).await > 0 {
                self.tally.alive += 1;
                eprintln!("visitor {}: alive, though {how}", self.number);
            }
        }
        tally.add(&self.tally);
    }

    async fn visits(&mut self, cookie: &str) -> u64 {
        let asked = Instant::now();
        loop {
            if let Ok((body, _)) = self.ask_as("/look", Some(cookie)).await {
                return body.parse().expect("a number");
            }
            assert!(
                asked.elapsed() < RETURN,
                "all is well, and it does not answer"
            );
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
}

impl Tally {
    fn add(&mut self, other: &Self) {
        self.requests += other.requests;
        self.good += other.good;
        for (kind, count) in &other.errors {
            *self.errors.entry(kind.clone()).or_insert(0) += count;
        }
        self.longest = self.longest.max(other.longest);
        self.sessions += other.sessions;
        self.visits += other.visits;
        self.lost += other.lost;
        self.invented += other.invented;
        self.ended += other.ended;
        self.alive += other.alive;
    }

    pub(crate) fn is_good(&self, longest: Duration) -> bool {
        let is_good = self.lost == 0 && self.invented == 0 && self.alive == 0;
        is_good && self.good > 0 && self.longest <= longest
    }
}

impl fmt::Display for Tally {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "requests:            {}, of which good {}",
            self.requests, self.good
        )?;
        writeln!(f, "errors by kind:      {:?}", self.errors)?;
        writeln!(f, "longest answer:      {:?}", self.longest)?;
        writeln!(f, "sessions begun:      {}", self.sessions)?;
        writeln!(
            f,
            "visits acknowledged: {}, lost {}, counted twice {}",
            self.visits, self.lost, self.invented
        )?;
        write!(
            f,
            "ids ended:           {}, alive {}",
            self.ended, self.alive
        )
    }
}
