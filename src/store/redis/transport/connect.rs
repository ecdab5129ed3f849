//! How a connection is opened: to whom, and with which settings.

use std::{sync::Arc, time::Duration};

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

use super::error;
use crate::error::SessionError;

/// Makes the password anew at each connecting.
pub(crate) type PasswordProvider = Arc<dyn Fn() -> String + Send + Sync>;

/// An idle connection whose other end is gone is noticed after this, and then three probes that go unanswered.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// What was sent and not acknowledged for this long will not be.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// Commands that wait to be encoded. With redis-rs' 50, those of one turn of a busy event loop wait for each other.
const QUEUE: usize = 1024;
/// Bytes that are encoded at once. With redis-rs' 8 KiB, a turn's saves of 2 kB take several system calls, which is a twentieth of the CPU.
const MAX_WRITE: usize = 64 * 1024;

/// Whom to connect to.
#[derive(Clone)]
pub(crate) struct ConnectOptions {
    pub(crate) servers: Endpoint,
    pub(crate) password: Option<PasswordProvider>,
}

#[derive(Clone)]
pub(crate) enum Endpoint {
    One(Box<ConnectionInfo>),
    /// The master that the sentinels name.
    #[cfg(feature = "sentinel")]
    Master(Arc<super::sentinel::Sentinels>),
}

pub(crate) struct Connected {
    pub(crate) connection: MultiplexedConnection,
    /// To a master that Sentinel named, and may name no longer.
    #[cfg(feature = "sentinel")]
    pub(crate) master: Option<(Arc<super::sentinel::Sentinels>, redis::ConnectionAddr)>,
}

impl Endpoint {
    pub(crate) fn one(info: ConnectionInfo) -> Self {
        Self::One(Box::new(info))
    }
}

impl ConnectOptions {
    pub(crate) fn new(servers: Endpoint) -> Self {
        Self {
            servers,
            password: None,
        }
    }

    pub(crate) fn with_password(self, password: PasswordProvider) -> Self {
        Self {
            password: Some(password),
            ..self
        }
    }
}

/// A new connection. `closed` is called when its other end closes it.
pub(crate) async fn open(
    source: &ConnectOptions,
    closed: impl Fn() + Clone + Send + Sync + 'static,
) -> Result<Connected, SessionError> {
    let info = match &source.servers {
        Endpoint::One(info) => (**info).clone(),
        #[cfg(feature = "sentinel")]
        Endpoint::Master(sentinels) => sentinels.master().await?,
    };
    #[cfg(feature = "sentinel")]
    let master = match &source.servers {
        Endpoint::One(_) => None,
        Endpoint::Master(sentinels) => Some((sentinels.clone(), info.addr().clone())),
    };
    let info = settings(info, source.password.as_ref());
    let connection = with_newest_protocol(info, closed)
        .await
        .map_err(|error| error::unreachable(&error))?;
    #[cfg(feature = "sentinel")]
    if master.is_some() {
        super::sentinel::check_role(&connection).await?;
    }
    Ok(Connected {
        connection,
        #[cfg(feature = "sentinel")]
        master,
    })
}

/// RESP3, by which the server's closing the connection is noticed at once, or RESP2 where the server does not know HELLO.
async fn with_newest_protocol(
    info: ConnectionInfo,
    closed: impl Fn() + Clone + Send + Sync + 'static,
) -> Result<MultiplexedConnection, RedisError> {
    // Bounded by whoever waits.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE)
        .set_write_backpressure_boundary(MAX_WRITE);
    let speaking = |protocol| {
        let settings = info.redis_settings().clone().set_protocol(protocol);
        Client::open(info.clone().set_redis_settings(settings))
    };
    let noticing = config.clone().set_push_sender(move |push: PushInfo| {
        if push.kind == PushKind::Disconnection {
            closed();
        }
        Ok::<(), ()>(())
    });
    let newest = speaking(ProtocolVersion::RESP3)?
        .get_multiplexed_async_connection_with_config(&noticing)
        .await;
    match newest {
        Err(error) if lacks_resp3(&error) => {
            speaking(ProtocolVersion::RESP2)?
                .get_multiplexed_async_connection_with_config(&config)
                .await
        }
        opened => opened,
    }
}

/// Whether the server, or a proxy in front of it, does not know HELLO 3.
fn lacks_resp3(error: &RedisError) -> bool {
    if error.kind() == redis::ErrorKind::RESP3NotSupported || error.code() == Some("NOPROTO") {
        return true;
    }
    // Looked into, and never shown.
    let text = error.to_string().to_ascii_lowercase();
    matches!(error.kind(), redis::ErrorKind::Server(_))
        && (text.contains("unknown command") || text.contains("hello"))
}

fn settings(info: ConnectionInfo, password: Option<&PasswordProvider>) -> ConnectionInfo {
    let tcp = tcp_settings(info.tcp_settings().clone());
    let mut redis = info.redis_settings().clone();
    if let Some(password) = password {
        redis = redis.set_password(password());
    }
    #[cfg(feature = "tls-rustls")]
    choose_cryptography(info.addr());
    info.set_tcp_settings(tcp).set_redis_settings(redis)
}

/// What redis-rs leaves off. What the client's own settings say already stays.
fn tcp_settings(settings: TcpSettings) -> TcpSettings {
    // Nagle's algorithm holds small commands back for the acknowledgement of the last.
    let mut settings = settings.set_nodelay(true);
    if settings.keepalive().is_none() {
        let keepalive = TcpKeepalive::new()
            .with_time(KEEPALIVE)
            .with_interval(KEEPALIVE_INTERVAL)
            .with_retries(KEEPALIVE_PROBES);
        settings = settings.set_keepalive(keepalive);
    }
    #[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
    if settings.user_timeout().is_none() {
        settings = settings.set_user_timeout(USER_TIMEOUT);
    }
    settings
}

/// rustls panics when it is used before the process has chosen its cryptography. Where the app has not, this chooses the one that comes
/// with the feature.
#[cfg(feature = "tls-rustls")]
fn choose_cryptography(address: &redis::ConnectionAddr) {
    if matches!(address, redis::ConnectionAddr::TcpTls { .. })
        && rustls::crypto::CryptoProvider::get_default().is_none()
    {
        // Lost to another thread that chose at the same time, which is as good.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}
