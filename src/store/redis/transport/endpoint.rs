//! Where a connection leads: one server, or the master that Sentinel names.

#[cfg(feature = "sentinel")]
use std::sync::Arc;

use redis::ConnectionInfo;

#[cfg(feature = "sentinel")]
use super::sentinel::Sentinels;
use super::{
    connect::{self, ConnectSettings, Connected},
    error,
};
use crate::error::SessionError;

#[derive(Clone)]
pub(crate) enum Endpoint {
    Server(Box<ConnectionInfo>),
    #[cfg(feature = "sentinel")]
    Master(Arc<Sentinels>),
}

pub(super) struct Opened {
    pub(super) connected: Connected,
    /// The server, if Sentinel named it.
    #[cfg(feature = "sentinel")]
    pub(super) master: Option<redis::ConnectionAddr>,
}

impl Endpoint {
    pub(crate) fn server(info: ConnectionInfo) -> Self {
        Self::Server(Box::new(info))
    }

    /// Opens a connection. `on_close` is called when the server closes it.
    pub(super) async fn open(
        &self,
        settings: &ConnectSettings,
        on_close: impl Fn() + Clone + Send + Sync + 'static,
    ) -> Result<Opened, SessionError> {
        match self {
            Self::Server(info) => {
                let opened = connect::open(info, settings, on_close).await;
                Ok(Opened {
                    connected: opened.map_err(|error| error::unreachable(&error))?,
                    #[cfg(feature = "sentinel")]
                    master: None,
                })
            }
            #[cfg(feature = "sentinel")]
            Self::Master(sentinels) => {
                let (connected, master) = sentinels.open_master(settings, on_close).await?;
                Ok(Opened {
                    connected,
                    master: Some(master),
                })
            }
        }
    }
}
