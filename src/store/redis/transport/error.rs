//! What an error of the client or the server means for a session, in words that name the hint.
//!
//! Never the server's own text: Redis echoes arguments, and with them ids, values and passwords.

use std::{error::Error, sync::Arc};

use redis::{RedisError, ServerErrorKind};

use crate::{
    config::ReplicaAcks,
    error::{ErrorKind, SessionError},
    store::outcome::Fault,
};

/// A command that got no answer of the kind that was asked for.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// The connection broke underneath: the command may have been carried out, or not.
    ConnectionLost(SessionError),
    /// Not carried out, and worth another try: over a new connection, or at another node.
    NotExecuted(SessionError),
    /// There is no connection, and the command was never sent.
    NotSent(SessionError),
    /// The server's own answer.
    Server(RedisError),
    /// Carried out, but not on as many servers as were asked for.
    NotReplicated(SessionError),
}

impl CommandError {
    /// Whether the server answered with this error.
    pub(crate) fn is(&self, kind: ServerErrorKind) -> bool {
        matches!(self, Self::Server(error) if error.kind() == redis::ErrorKind::Server(kind))
    }

    #[cfg(feature = "cluster")]
    pub(crate) fn into_error(self) -> SessionError {
        self.into_fault("").into_error()
    }

    /// `prefix` is that of the key that the command was about.
    pub(crate) fn into_fault(self, prefix: &str) -> Fault {
        match self {
            Self::ConnectionLost(error) | Self::NotExecuted(error) => Fault::ConnectionLost(error),
            Self::NotSent(error) | Self::NotReplicated(error) => Fault::Failed(error),
            Self::Server(error) => Fault::Failed(from_server_error(&error, prefix)),
        }
    }
}

/// Why no connection came about.
pub(crate) fn unreachable(error: &RedisError) -> SessionError {
    let hint = if is_tls(error) {
        "check the certificate, the CA that the client trusts, the host name in its address, and that this port speaks TLS"
    } else if let Some("WRONGPASS" | "NOAUTH") = error.code() {
        "check the client's user and password"
    } else if contains(error, "max number of clients") {
        "the server has as many connections as its maxclients allows"
    } else {
        "check the client's address and credentials, and that the server is up"
    };
    SessionError::new(
        ErrorKind::Unavailable,
        format!(
            "Redis cannot be reached ({}); the session was left alone: {hint}",
            cause(error)
        ),
    )
}

/// The connection was another one when the answer came.
pub(crate) fn replaced() -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        "the connection to Redis broke before the replicas confirmed a write; the session was left alone: try again",
    )
}

/// Why nobody tries at the moment, or tries in vain.
pub(crate) fn connect_timed_out(request_timeout: std::time::Duration) -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        format!(
            "Redis cannot be reached (no answer to connecting within {request_timeout:?}); the session was left alone: check the \
             client's address, that the server is up, and for a rediss:// address that this port speaks TLS"
        ),
    )
}

/// Why Sentinel was of no help.
#[cfg(feature = "sentinel")]
pub(crate) fn no_master(error: &RedisError) -> SessionError {
    let hint = match error.kind() {
        redis::ErrorKind::MasterNameNotFoundBySentinel => {
            "no sentinel knows a master of this name that is up: check the name, and whether a failover is under way"
        }
        _ => {
            "check the addresses and credentials of the sentinels and of the master, and that they are up"
        }
    };
    SessionError::new(
        ErrorKind::Unavailable,
        format!(
            "Sentinel gave no master ({}); the session was left alone: {hint}",
            cause(error)
        ),
    )
}

/// The cluster has nobody for a key.
#[cfg(feature = "cluster")]
pub(crate) fn no_slot() -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        "no server of the cluster has the slot of this session; it was left alone: check with `redis-cli cluster info` that all slots \
         are served, and that this is a cluster",
    )
}

/// What the server's own error says. `prefix` is that of the key that the command was about.
pub(crate) fn from_server_error(error: &RedisError, prefix: &str) -> SessionError {
    let code = error.code().unwrap_or_default();
    let hint = match code {
        "NOPERM" => return permission_denied(error, prefix),
        // How scripts were told before Redis 7.
        _ if contains(error, "can't run this command") || contains(error, "no permission") => {
            return permission_denied(error, prefix);
        }
        "WRONGTYPE" => {
            "the session's key holds a list, a hash or the like: give the layer a prefix of its own"
        }
        "OOM" => "the server is at its maxmemory: raise it, or choose an eviction policy",
        "READONLY" => "this server is a replica: connect to the master",
        "NOAUTH" | "WRONGPASS" => "check the client's user and password",
        "MOVED" | "ASK" | "CROSSSLOT" => {
            "this server is part of a cluster: use RedisSessionLayer::cluster"
        }
        "CLUSTERDOWN" => {
            "some slots have no master at the moment; with `cluster-require-full-coverage no` the others are served meanwhile"
        }
        "LOADING" | "MASTERDOWN" | "TRYAGAIN" | "BUSY" => "try again in a moment",
        "MISCONF" | "NOREPLICAS" => {
            "the server refuses writes that it could not keep: look at its disk and its replicas"
        }
        _ => "look into the server's log",
    };
    let kind = match code {
        "WRONGTYPE" => ErrorKind::InvalidData,
        "LOADING" | "MASTERDOWN" | "CLUSTERDOWN" | "TRYAGAIN" | "BUSY" | "READONLY" => {
            ErrorKind::Unavailable
        }
        _ => ErrorKind::Rejected,
    };
    SessionError::new(
        kind,
        format!(
            "Redis answered with an error ({}): {hint}",
            code_or_kind(error)
        ),
    )
}

pub(crate) fn unexpected() -> SessionError {
    SessionError::new(
        ErrorKind::Rejected,
        "the server answered in a way that Redis and Valkey do not: check what listens at the address of the client",
    )
}

pub(crate) fn unconfirmed(confirmed: usize, acks: ReplicaAcks) -> SessionError {
    let ReplicaAcks {
        replicas, timeout, ..
    } = acks;
    SessionError::new(
        ErrorKind::NotReplicated,
        format!(
            "the change was made, but only {confirmed} of {replicas} replicas confirmed it within {timeout:?}, so a failover may \
             undo it: try again, and look at the replicas"
        ),
    )
}

/// Names the permission: the command, or the keys.
fn permission_denied(error: &RedisError, prefix: &str) -> SessionError {
    let text = text_of(error);
    // `… no permissions to run the 'getex' command`; from a script it may read `… can't run this command`.
    let command = text
        .split_once("run the '")
        .and_then(|(_, rest)| rest.split('\'').next())
        .filter(|name| {
            name.bytes()
                .all(|byte| byte.is_ascii_alphabetic() || byte == b'|')
        });
    let missing = match command {
        Some(command) => format!("the command {}", command.to_ascii_uppercase()),
        None if text.contains("key") => format!("the keys {prefix}*"),
        None => "one of the commands below".to_owned(),
    };
    SessionError::new(
        ErrorKind::Rejected,
        format!(
            "Redis answered with an error (NOPERM): the ACL forbids this user {missing}; the layer needs ~{prefix}* +getex \
             +get +getrange +set +del +pexpire +eval +evalsha, and for the sessions of users +zadd +zrange +zrem +zcard +zscore +pttl"
        ),
    )
}

/// The cause of a failed connection. Errors of this side hold no secret; the server's may.
fn cause(error: &RedisError) -> String {
    if error.is_io_error()
        && let Some(source) = io_error(error)
    {
        return source.to_string();
    }
    code_or_kind(error)
}

/// The error's code or kind.
fn code_or_kind(error: &RedisError) -> String {
    match error.kind() {
        redis::ErrorKind::Server(ServerErrorKind::ResponseError) => "ERR".to_owned(),
        _ => match error.code() {
            Some(code) => code.to_owned(),
            None => error.category().to_owned(),
        },
    }
}

fn is_tls(error: &RedisError) -> bool {
    io_error(error).is_some_and(|error| {
        error.kind() == std::io::ErrorKind::InvalidData || error.to_string().contains("certificate")
    })
}

fn io_error(error: &RedisError) -> Option<&std::io::Error> {
    let source = error.source()?;
    // redis-rs keeps its cause in an `Arc`, which is an error itself.
    match source.downcast_ref::<Arc<dyn Error + Send + Sync>>() {
        Some(shared) => shared.downcast_ref(),
        None => source.downcast_ref(),
    }
}

fn contains(error: &RedisError, words: &str) -> bool {
    text_of(error).contains(words)
}

/// For looking into, never for showing.
fn text_of(error: &RedisError) -> String {
    error.to_string()
}
