//! How one connection is opened: its settings, and the protocol version that the server speaks.

use std::{
    io,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::Relaxed},
    },
    time::Duration,
};

use redis::{
    AsyncConnectionConfig, Client, ConnectionInfo, ProtocolVersion, PushInfo, PushKind, RedisError,
    aio::MultiplexedConnection,
    io::tcp::{TcpSettings, socket2::TcpKeepalive},
};

#[cfg(feature = "local-cache")]
use super::tracking::{self, Reports, TrackingGuard};
use super::{authentication::CredentialSource, error_text};
#[cfg(feature = "local-cache")]
use crate::cache::Cache;
use crate::{credentials::Credentials, stats::Counters};

/// How long connecting may take: a DNS lookup with one dead name server, TCP, TLS, and AUTH.
pub(crate) const DEFAULT_CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// An idle connection whose peer is gone is detected after this time and then three unanswered probes.
const KEEPALIVE: Duration = Duration::from_secs(10);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
const KEEPALIVE_PROBES: u32 = 3;
/// TCP closes a connection if sent data is not acknowledged for this long.
#[cfg(any(target_os = "android", target_os = "fuchsia", target_os = "linux"))]
const USER_TIMEOUT: Duration = Duration::from_secs(10);

/// The commands that may wait to be written. With redis-rs' 50, the commands of one turn of a busy event loop wait for each other.
const QUEUE: usize = 1024;
/// The bytes that are written at once. With redis-rs' 8 KiB, one turn's saves of 2 kB take several system calls, which is a twentieth
/// of the CPU time.
const MAX_WRITE: usize = 64 * 1024;

/// What all connections of a layer have in common.
#[derive(Clone)]
pub(crate) struct ConnectSettings {
    pub(crate) credentials: Option<Arc<CredentialSource>>,
    /// For one attempt to connect, whatever the deadline of the requests that wait for it.
    pub(crate) timeout: Duration,
    pub(crate) capabilities: Arc<Capabilities>,
    pub(crate) counters: Arc<Counters>,
    /// Translates the addresses that the nodes of a cluster announce.
    #[cfg(feature = "cluster")]
    pub(crate) address_map: Option<AddressMap>,
    /// Gets the server's reports of changes.
    #[cfg(feature = "local-cache")]
    pub(crate) cache: Option<Arc<Cache>>,
}

/// An open connection.
pub(super) struct Connected {
    pub(super) connection: MultiplexedConnection,
    /// If the server reports changes.
    #[cfg(feature = "local-cache")]
    pub(super) tracking: Option<TrackingGuard>,
}

/// From an announced host and port to those that this process can reach.
#[cfg(feature = "cluster")]
pub(crate) type AddressMap = Arc<dyn Fn(&str, u16) -> (String, u16) + Send + Sync>;

/// What the server is known not to support. Found out by trying, and forgotten at the next connect, since the server may have been
/// upgraded or replaced.
#[derive(Default)]
pub(crate) struct Capabilities(AtomicU8);

#[derive(Clone, Copy, Debug)]
pub(crate) enum Feature {
    /// `SET … IFEQ`: Valkey 8.1, Redis 8.4.
    SetIfEq = 1,
    /// Redis 6.2.
    GetEx = 2,
    /// Not if the ACL denies it.
    PExpire = 4,
    /// A script with keys in two slots. Not if the server is, or stands for, a cluster.
    CrossSlot = 8,
    /// `HELLO 3`. Not if a proxy in between does not support it.
    Resp3 = 16,
}

impl Default for ConnectSettings {
    fn default() -> Self {
        Self {
            credentials: None,
            timeout: DEFAULT_CONNECT_TIMEOUT,
            capabilities: Arc::default(),
            counters: Arc::default(),
            #[cfg(feature = "cluster")]
            address_map: None,
            #[cfg(feature = "local-cache")]
            cache: None,
        }
    }
}

impl Capabilities {
    /// Whether the feature is worth a try.
    pub(crate) fn may_support(&self, feature: Feature) -> bool {
        self.0.load(Relaxed) & feature as u8 == 0
    }

    /// Returns whether that is news.
    pub(crate) fn mark_unsupported(&self, feature: Feature) -> bool {
        self.0.fetch_or(feature as u8, Relaxed) & feature as u8 == 0
    }

    /// Which protocol version works is known from connecting.
    fn reset(&self) {
        self.0.fetch_and(Feature::Resp3 as u8, Relaxed);
    }

    fn reset_protocol(&self) {
        self.0.fetch_and(!(Feature::Resp3 as u8), Relaxed);
    }
}

/// Opens a connection. `on_close` is called when the server closes it.
pub(super) async fn open(
    info: &ConnectionInfo,
    settings: &ConnectSettings,
    on_close: impl Fn() + Clone + Send + Sync + 'static,
) -> Result<Connected, RedisError> {
    let source = settings.credentials.as_ref();
    let credentials = match source {
        Some(source) => Some(source.get().await?),
        None => None,
    };
    let info = with_settings(info.clone(), credentials.as_ref());
    let opened = negotiate_protocol(info, settings, on_close).await;
    if let (Err(error), Some(source)) = (&opened, source)
        && !error.is_io_error()
    {
        // The next attempt has new ones.
        source.discard();
    }
    let opened = opened?;
    settings.capabilities.reset();
    Ok(opened)
}

/// RESP3, which reports a closed connection at once, or RESP2 if a server or a proxy does not support HELLO. The version that worked is
/// tried first the next time.
async fn negotiate_protocol(
    info: ConnectionInfo,
    settings: &ConnectSettings,
    on_close: impl Fn() + Clone + Send + Sync + 'static,
) -> Result<Connected, RedisError> {
    // The caller has a timeout for the whole.
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(None)
        .set_response_timeout(None)
        .set_pipeline_buffer_size(QUEUE)
        .set_write_backpressure_boundary(MAX_WRITE);
    let client = |protocol| {
        let settings = info.redis_settings().clone().set_protocol(protocol);
        Client::open(info.clone().set_redis_settings(settings))
    };
    let capabilities = &settings.capabilities;
    let mut is_refused = true;
    if capabilities.may_support(Feature::Resp3) {
        #[cfg(feature = "local-cache")]
        let reports = settings.cache.as_ref().map(Reports::new);
        #[cfg(feature = "local-cache")]
        let handler = reports.clone();
        let with_close_event = config.clone().set_push_sender(move |push: PushInfo| {
            #[cfg(feature = "local-cache")]
            if let Some(handler) = &handler {
                handler.handle(&push);
            }
            if push.kind == PushKind::Disconnection {
                on_close();
            }
            Ok::<(), ()>(())
        });
        let opened = client(ProtocolVersion::RESP3)?
            .get_multiplexed_async_connection_with_config(&with_close_event)
            .await;
        match opened {
            Err(error) if may_lack_resp3(&error, &info) => is_refused = is_reply(&error),
            opened => {
                #[cfg_attr(not(feature = "local-cache"), expect(unused_mut))]
                let mut connection = opened?;
                return Ok(Connected {
                    #[cfg(feature = "local-cache")]
                    tracking: match reports {
                        Some(reports) => reports.begin(&mut connection).await,
                        None => None,
                    },
                    connection,
                });
            }
        }
    }
    let opened = client(ProtocolVersion::RESP2)?
        .get_multiplexed_async_connection_with_config(&config)
        .await;
    #[cfg(feature = "local-cache")]
    if let (Ok(_), Some(cache)) = (&opened, &settings.cache) {
        tracking::warn_without_resp3(cache);
    }
    match &opened {
        // A connection that was only closed may have met a server that was restarting.
        Ok(_) if is_refused => {
            capabilities.mark_unsupported(Feature::Resp3);
        }
        Ok(_) => {}
        Err(_) => capabilities.reset_protocol(),
    }
    opened.map(|connection| Connected {
        connection,
        #[cfg(feature = "local-cache")]
        tracking: None,
    })
}

/// Whether the server answered, and did not only close the connection.
fn is_reply(error: &RedisError) -> bool {
    use redis::ErrorKind::{Extension, RESP3NotSupported, Server};
    matches!(error.kind(), Server(_) | Extension | RESP3NotSupported)
}

/// Proxies refuse HELLO in many ways, and some close the connection. Not if TCP or TLS did not open, or the password is wrong.
fn may_lack_resp3(error: &RedisError, info: &ConnectionInfo) -> bool {
    if error.is_io_error() {
        return error_text::io_error(error).is_some_and(|error| {
            matches!(
                error.kind(),
                io::ErrorKind::UnexpectedEof
                    | io::ErrorKind::BrokenPipe
                    | io::ErrorKind::ConnectionReset
                    | io::ErrorKind::ConnectionAborted
            )
        });
    }
    let is_final = error.kind() == redis::ErrorKind::AuthenticationFailed
        || matches!(error.code(), Some("WRONGPASS" | "DENIED"))
        // With a password, a proxy may mean that AUTH must come before HELLO.
        || error.code() == Some("NOAUTH") && info.redis_settings().password().is_none()
        || error_text::contains(error, "max number of clients")
        || error_text::contains(error, "switch database");
    !is_final
}

fn with_settings(info: ConnectionInfo, credentials: Option<&Credentials>) -> ConnectionInfo {
    let tcp = tcp_settings(info.tcp_settings().clone());
    let mut redis = info.redis_settings().clone();
    if let Some(Credentials { user, password, .. }) = credentials {
        if let Some(user) = user {
            redis = redis.set_username(user);
        }
        redis = redis.set_password(password);
    }
    // CLIENT SETINFO would be logged as an ACL violation for a user with few rights.
    if redis.lib_name().is_none() {
        redis = redis.set_skip_set_lib_name();
    }
    #[cfg(feature = "tls-rustls")]
    install_crypto_provider(info.addr());
    info.set_tcp_settings(tcp).set_redis_settings(redis)
}

/// Sets what redis-rs leaves at the system's default. The app's own settings are kept.
fn tcp_settings(settings: TcpSettings) -> TcpSettings {
    // Nagle's algorithm delays small commands until the last one is acknowledged.
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

/// rustls panics if it is used before the process has installed a crypto provider. If the app has installed none, this installs the one
/// of the feature `tls-rustls`.
#[cfg(feature = "tls-rustls")]
fn install_crypto_provider(address: &redis::ConnectionAddr) {
    if matches!(address, redis::ConnectionAddr::TcpTls { .. })
        && rustls::crypto::CryptoProvider::get_default().is_none()
    {
        // An error means that another thread installed one first.
        let _ = rustls::crypto::ring::default_provider().install_default();
    }
}

/// The same kind of address with another host and port.
#[cfg(any(feature = "cluster", feature = "sentinel"))]
pub(super) fn with_host(
    address: &redis::ConnectionAddr,
    host: String,
    port: u16,
) -> redis::ConnectionAddr {
    match address {
        redis::ConnectionAddr::TcpTls {
            insecure,
            tls_params,
            ..
        } => redis::ConnectionAddr::TcpTls {
            host,
            port,
            insecure: *insecure,
            tls_params: tls_params.clone(),
        },
        _ => redis::ConnectionAddr::Tcp(host, port),
    }
}

#[cfg(test)]
mod tests;
