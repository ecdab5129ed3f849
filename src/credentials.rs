use std::{error::Error, fmt, future::Future, pin::Pin, sync::Arc, time::Duration};

/// A user name and a password for Redis, from the function of
/// [`with_credentials_provider`](crate::RedisSessionLayer::with_credentials_provider).
///
/// # Examples
///
/// ```
/// use std::time::Duration;
///
/// use axum_redis_sessions::Credentials;
///
/// let token = Credentials::new("app", "token").valid_for(Duration::from_secs(15 * 60));
/// assert!(!format!("{token:?}").contains("token"));
/// ```
#[derive(Clone, PartialEq, Eq)]
pub struct Credentials {
    /// `None`: that of the address.
    pub(crate) user: Option<String>,
    pub(crate) password: String,
    pub(crate) valid_for: Option<Duration>,
}

impl Credentials {
    /// The user's name and password, or token.
    #[must_use]
    pub fn new(user: impl Into<String>, password: impl Into<String>) -> Self {
        Self {
            user: Some(user.into()),
            ..Self::password(password)
        }
    }

    /// A password, or token, for the user of the address.
    #[must_use]
    pub fn password(password: impl Into<String>) -> Self {
        Self {
            user: None,
            password: password.into(),
            valid_for: None,
        }
    }

    /// Sets for how long from now on they are valid. Default: until the server refuses them.
    ///
    /// After three quarters of this time, new ones are fetched, and open connections are authenticated anew.
    #[must_use]
    pub fn valid_for(mut self, time: Duration) -> Self {
        self.valid_for = Some(time);
        self
    }
}

/// Shows neither the user nor the password.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("valid_for", &self.valid_for)
            .finish_non_exhaustive()
    }
}

type Fetched = Result<Credentials, Box<dyn Error + Send + Sync>>;

/// Fetches the credentials.
pub(crate) type CredentialsProvider =
    Arc<dyn Fn() -> Pin<Box<dyn Future<Output = Fetched> + Send>> + Send + Sync>;
