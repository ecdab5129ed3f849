//! Credentials that are fetched, and open connections that are authenticated anew before theirs end.
//!
//! 1. Credentials that are valid for a time are kept for three quarters of it, for all connections of the layer. Others are fetched for each
//!    new connection.
//! 2. After that time, each open connection sends AUTH with new ones. It stays authenticated by the former ones until then, so no request
//!    waits or fails.
//! 3. If fetching or AUTH fails, it is tried again until the former ones end. Then the server closes or refuses the connection, and a new
//!    one is opened.

use std::{
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
    time::Duration,
};

use redis::{RedisError, aio::MultiplexedConnection, cmd};
use tokio::time::Instant;

use crate::{
    credentials::{Credentials, CredentialsProvider},
    random::random_unit,
};

/// What `RedisError` says if the app's function failed. Not with its error, which may contain a token.
pub(super) const FAILED: &str = "the credentials provider returned an error";

/// Between two attempts, of credentials that are valid for long.
const MAX_RETRY: Duration = Duration::from_secs(5);
/// A server that does not answer AUTH for this long is left to the commands of requests.
const REPLY_TIMEOUT: Duration = Duration::from_secs(5);

pub(crate) struct CredentialSource {
    provider: CredentialsProvider,
    /// Held while they are fetched, so that they are fetched once.
    fetching: tokio::sync::Mutex<()>,
    current: Mutex<Option<Current>>,
}

#[derive(Clone)]
struct Current {
    credentials: Credentials,
    renew_at: Instant,
    ends_at: Instant,
}

/// An open connection, as long as it is in use.
pub(super) trait Open: Send + Sync + 'static {
    fn open_connection(&self, generation: u64) -> Option<MultiplexedConnection>;
}

impl CredentialSource {
    pub(crate) fn new(provider: CredentialsProvider) -> Self {
        Self {
            provider,
            fetching: tokio::sync::Mutex::default(),
            current: Mutex::default(),
        }
    }

    /// Those that are valid, fetched if it is time.
    pub(super) async fn get(&self) -> Result<Credentials, RedisError> {
        let _fetching = self.fetching.lock().await;
        let current = self.current().clone();
        if let Some(current) = &current
            && Instant::now() < current.renew_at
        {
            return Ok(current.credentials.clone());
        }
        let begun = Instant::now();
        match (self.provider)().await {
            Ok(credentials) => {
                *self.current() = credentials.valid_for.map(|time| Current {
                    credentials: credentials.clone(),
                    renew_at: begun + time * 3 / 4,
                    ends_at: begun + time,
                });
                Ok(credentials)
            }
            Err(_) => match current.filter(|current| Instant::now() < current.ends_at) {
                Some(current) => Ok(current.credentials),
                None => Err(RedisError::from((
                    redis::ErrorKind::AuthenticationFailed,
                    FAILED,
                ))),
            },
        }
    }

    /// The server refused them.
    pub(super) fn discard(&self) {
        *self.current() = None;
    }

    /// Authenticates an open connection anew each time, as long as it is in use.
    pub(super) async fn keep_authenticated<C: Open>(
        self: Arc<Self>,
        connection: Weak<C>,
        generation: u64,
    ) {
        let Some(mut used) = self.current().clone() else {
            return;
        };
        let mut wake_at = used.renew_at;
        loop {
            // Not all connections of a fleet at once.
            let spread = used.ends_at.saturating_duration_since(used.renew_at) / 10;
            tokio::time::sleep_until(wake_at + spread.mul_f64(random_unit())).await;
            let open = || Weak::upgrade(&connection)?.open_connection(generation);
            if open().is_none() {
                return;
            }
            let fetched = self.get().await;
            let (Some(open), next) = (open(), self.current().clone()) else {
                return;
            };
            match (fetched, next) {
                // From now on until the server refuses them.
                (Ok(credentials), None) => {
                    if authenticate(open, &credentials).await.is_ok() {
                        return;
                    }
                }
                (Ok(credentials), Some(next)) if next.renew_at > used.renew_at => {
                    if authenticate(open, &credentials).await.is_ok() {
                        wake_at = next.renew_at;
                        used = next;
                        continue;
                    }
                    self.discard();
                }
                // Fetching failed.
                (Ok(_) | Err(_), _) => {}
            }
            tracing::debug!(
                "an open connection could not be authenticated anew; it is tried again"
            );
            let time = used.credentials.valid_for.unwrap_or(MAX_RETRY);
            wake_at = Instant::now() + (time / 50).min(MAX_RETRY);
        }
    }

    fn current(&self) -> MutexGuard<'_, Option<Current>> {
        self.current.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn authenticate(
    mut connection: MultiplexedConnection,
    credentials: &Credentials,
) -> Result<(), ()> {
    let mut auth = cmd("AUTH");
    if let Some(user) = &credentials.user {
        auth.arg(user);
    }
    auth.arg(&credentials.password);
    let sent = connection.send_packed_command(&auth);
    match tokio::time::timeout(REPLY_TIMEOUT, sent).await {
        Ok(Ok(reply)) => reply.extract_error().map(drop).map_err(drop),
        Ok(Err(_)) | Err(_) => Err(()),
    }
}

#[cfg(test)]
mod tests;
