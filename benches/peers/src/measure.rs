//! CPU time and commands per request of an app and of Redis.

use crate::{Failure, load::Outcome, process::Process, redis_info, results::Sample};

/// The counters before the load.
pub struct Counters<'a> {
    app: &'a Process,
    redis: &'a [&'a Process],
    before: (f64, f64, f64),
}

impl<'a> Counters<'a> {
    pub fn read(
        app: &'a Process,
        redis: &'a [&'a Process],
        connections: &mut [redis::Connection],
    ) -> Result<Self, Failure> {
        let before = now(app, redis, connections)?;
        Ok(Self { app, redis, before })
    }

    /// The difference per request.
    pub fn since(
        &self,
        outcome: &Outcome,
        connections: &mut [redis::Connection],
    ) -> Result<Sample, Failure> {
        let after = now(self.app, self.redis, connections)?;
        Ok(Sample {
            app_cpu: (after.0 - self.before.0) / outcome.requests,
            redis_cpu: (after.1 - self.before.1) / outcome.requests,
            per_second: outcome.requests / outcome.seconds,
            p50: outcome.p50,
            p99: outcome.p99,
            calls: (after.2 - self.before.2) / outcome.requests,
        })
    }
}

fn now(
    app: &Process,
    redis: &[&Process],
    connections: &mut [redis::Connection],
) -> Result<(f64, f64, f64), Failure> {
    let mut redis_cpu = 0.0;
    for server in redis {
        redis_cpu += server.cpu()?;
    }
    let mut calls = 0.0;
    for connection in connections {
        calls += redis_info::calls(connection)?.values().sum::<f64>();
    }
    Ok((app.cpu()?, redis_cpu, calls))
}
