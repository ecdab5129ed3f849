//! Translates errors of the client and of the server into [`SessionError`]s that say what to do.
//!
//! Never with the server's own text: Redis repeats arguments in its errors, and with them ids, values and passwords.

use std::time::Duration;

use redis::{RedisError, ServerErrorKind};

use super::{
    authentication::FAILED,
    error_text::{
        self, code_or_kind, contains, contains_ignoring_case, has_no_code, io_error, is_tls,
        is_unsupported, text_of,
    },
};
use crate::{
    config::ReplicaAcks,
    error::{ErrorKind, SessionError},
    store::outcome::Fault,
};

/// Why a command failed.
#[derive(Debug)]
pub(crate) enum CommandError {
    /// The connection broke: the command may have been executed, or not.
    ConnectionLost(SessionError),
    /// Not executed, but another connection may lead to a server that does.
    NotExecuted(SessionError),
    /// Never sent, since there is no connection.
    NotSent(SessionError),
    /// The server answered with an error.
    Server(RedisError),
    /// Executed, but too few replicas confirmed it.
    NotReplicated(SessionError),
}

impl CommandError {
    /// Whether the server answered with this error.
    pub(crate) fn is(&self, kind: ServerErrorKind) -> bool {
        matches!(self, Self::Server(error) if error.kind() == redis::ErrorKind::Server(kind))
    }

    /// Whether the server, or a proxy in front of it, does not support the command of this name.
    pub(crate) fn is_unsupported(&self, name: &str) -> bool {
        let Self::Server(error) = self else {
            return false;
        };
        is_unsupported(error) || has_no_code(error) && contains_ignoring_case(error, name)
    }

    /// Whether the server, or a proxy in front of it, does not accept the command's arguments.
    pub(crate) fn is_syntax_error(&self) -> bool {
        matches!(self, Self::Server(error) if has_no_code(error))
    }

    /// Whether the ACL denies the command.
    pub(crate) fn is_denied(&self) -> bool {
        matches!(self, Self::Server(error) if error_text::is_denied(error))
    }

    /// `prefix` is the prefix of the command's key.
    pub(crate) fn into_fault(self, prefix: &str) -> Fault {
        match self {
            Self::ConnectionLost(error) | Self::NotExecuted(error) => Fault::ConnectionLost(error),
            Self::NotSent(error) => Fault::NotSent(error),
            Self::NotReplicated(error) => Fault::Failed(error),
            Self::Server(error) => Fault::Failed(from_server_error(&error, prefix)),
        }
    }
}

/// A connection could not be opened, or it broke.
pub(crate) fn unreachable(error: &RedisError) -> SessionError {
    let hint = if is_tls(error) {
        "check the certificate, the CA that the client trusts, the host name in the address, and that this port speaks TLS"
    } else if let Some("WRONGPASS" | "NOAUTH") = error.code() {
        "check the user and password"
    } else if contains(error, FAILED) {
        "the function of with_credentials_provider returned an error: let it log the reason"
    } else if contains(error, "switch database") {
        "the server does not have the database of the address (redis://host:port/DATABASE): use another number, or 0, the only one in a \
         cluster"
    } else if contains(error, "max number of clients") {
        "the server has as many connections as its maxclients allows"
    } else if let Some("DENIED") = error.code() {
        "the server is in protected mode, which allows connections from its own machine only: set a password for it"
    } else {
        "check the address and credentials, and that the server is up"
    };
    SessionError::new(
        ErrorKind::Unavailable,
        format!(
            "Redis cannot be reached ({}); the session was not changed: {hint}",
            cause(error)
        ),
    )
}

/// A proxy answered, but not the server behind it.
pub(crate) fn upstream_failure() -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        "a proxy answered that it cannot reach Redis: check the proxy's log, and that the server behind it is up",
    )
}

/// The result of WAIT is about another connection than the write.
pub(crate) fn replaced() -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        "the connection to Redis broke before the replicas confirmed a write: try again",
    )
}

/// An attempt to connect reached its timeout.
pub(crate) fn connect_timed_out(timeout: Duration) -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        format!(
            "Redis cannot be reached (no answer to connecting within {timeout:?}); the session was not changed: check the address, that \
             the server is up, and for a rediss:// address that this port speaks TLS"
        ),
    )
}

/// No sentinel knows the name.
#[cfg(feature = "sentinel")]
pub(crate) fn unknown_master_name() -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        "no sentinel knows a master of this name; the session was not changed: check the name, and whether a failover is running",
    )
}

#[cfg(feature = "sentinel")]
pub(crate) fn sentinel_unreachable(error: &RedisError) -> SessionError {
    let hint = match is_unsupported(error) {
        true => {
            "what listens there is not a sentinel: give the addresses of the sentinels, whose port is usually 26379"
        }
        false => "check the addresses and credentials of the sentinels, and that they are up",
    };
    SessionError::new(
        ErrorKind::Unavailable,
        format!(
            "no sentinel can be reached ({}); the session was not changed: {hint}",
            cause(error)
        ),
    )
}

/// The server that Sentinel names is a replica.
#[cfg(feature = "sentinel")]
pub(crate) fn not_a_master() -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        "the server that Sentinel names is not a master yet, as during a failover; the session was not changed: try again in a moment",
    )
}

/// No node of the cluster has the slot of a key.
#[cfg(feature = "cluster")]
pub(crate) fn no_slot() -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        "no node of the cluster has the slot of this session; the session was not changed: check with `redis-cli cluster info` that all \
         slots are served, and that this is a cluster",
    )
}

/// The server answered with an error. `prefix` is the prefix of the command's key.
pub(crate) fn from_server_error(error: &RedisError, prefix: &str) -> SessionError {
    let code = error.code().unwrap_or_default();
    let hint = match code {
        "NOPERM" => return permission_denied(error, prefix),
        // The form of these errors inside scripts before Redis 7.
        _ if contains(error, "can't run this command") || contains(error, "no permission") => {
            return permission_denied(error, prefix);
        }
        "WRONGTYPE" => {
            "the session's key holds a list, a hash or another type: set a prefix that only this layer uses"
        }
        _ if is_unsupported(error) => return unsupported_command(error),
        "OOM" => "the server has reached maxmemory: raise it, or choose an eviction policy",
        "READONLY" => "this server is a replica: connect to the master",
        "NOAUTH" | "WRONGPASS" => "check the user and password",
        "MOVED" | "ASK" | "CROSSSLOT" => {
            "this server is a node of a cluster: use RedisSessionLayer::cluster"
        }
        "CLUSTERDOWN" => {
            "some slots have no master at the moment: try again, or set `cluster-require-full-coverage no` to serve the other slots meanwhile"
        }
        "LOADING" | "MASTERDOWN" | "TRYAGAIN" | "BUSY" => "try again in a moment",
        "MISCONF" | "NOREPLICAS" => {
            "the server rejects writes that it could not persist or replicate: check its disk and its replicas"
        }
        _ => "see the server's log",
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

pub(crate) fn unexpected_reply() -> SessionError {
    SessionError::new(
        ErrorKind::Rejected,
        "the server sent a reply that Redis and Valkey do not send: check what listens at this address",
    )
}

pub(crate) fn not_replicated(confirmed: usize, acks: ReplicaAcks) -> SessionError {
    let ReplicaAcks {
        replicas, timeout, ..
    } = acks;
    SessionError::new(
        ErrorKind::NotReplicated,
        format!(
            "the change was made, but only {confirmed} of {replicas} replicas confirmed it within {timeout:?}, so a failover may \
             undo it: try again, and check the replicas"
        ),
    )
}

/// The replicas were not asked.
pub(crate) fn wait_rejected(error: &RedisError) -> SessionError {
    let error = match is_unsupported(error) {
        true => "the server does not support it".to_owned(),
        false => from_server_error(error, "").to_string(),
    };
    SessionError::new(
        ErrorKind::NotReplicated,
        format!(
            "the change was made, but a failover may undo it: with_replica_acks needs the command WAIT, and {error}"
        ),
    )
}

/// The server, or a proxy in front of it, lacks a command. Not all of them say which.
fn unsupported_command(error: &RedisError) -> SessionError {
    let (command, hint) = match () {
        () if contains_ignoring_case(error, "getex") => {
            ("GETEX", "it needs Redis 6.2 or later, or Valkey")
        }
        () if contains_ignoring_case(error, "eval") => (
            "EVALSHA",
            "allow scripts, or use with_last_write_wins, without which parallel requests keep each other's changes",
        ),
        () => (
            "a command",
            "the layer needs Redis 6.2 or later, or Valkey; allow scripts (EVALSHA, EVAL), or use with_last_write_wins",
        ),
    };
    SessionError::new(
        ErrorKind::Rejected,
        format!("the server does not support {command}: {hint}"),
    )
}

/// The answer to CLUSTER SLOTS.
#[cfg(feature = "cluster")]
pub(crate) fn no_topology(error: CommandError) -> SessionError {
    match error {
        CommandError::Server(error) if is_unsupported(&error) => SessionError::new(
            ErrorKind::Rejected,
            "the server does not support CLUSTER SLOTS: for one server, or one address in front of a cluster, use \
             RedisSessionLayer::new",
        ),
        error => error.into_fault("").into_error(),
    }
}

/// Each node says that another one has the slot.
#[cfg(feature = "cluster")]
pub(crate) fn too_many_redirections() -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        "the nodes of the cluster redirect to each other without end, so no node has this slot; the session was not changed: check the \
         cluster with `redis-cli --cluster check`, and repair it with `redis-cli --cluster fix`",
    )
}

/// The deadline passed before there was a connection.
pub(crate) fn still_connecting(deadline: Duration) -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        format!(
            "no connection to Redis within {deadline:?}, and the attempt goes on; the session was not changed: check the address, that the \
             server is up, and for a rediss:// address that this port speaks TLS"
        ),
    )
}

/// A node that only the cluster named cannot be reached.
#[cfg(feature = "cluster")]
pub(crate) fn announced_node(host: &str, port: u16, error: &SessionError) -> SessionError {
    SessionError::new(
        ErrorKind::Unavailable,
        format!(
            "the cluster announced a node at {host}:{port}, which cannot be reached from here: {error}; if this process knows the node by \
             another address, use with_cluster_address_map"
        ),
    )
}

/// Names the missing permission: the command, or the keys.
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
        None => "one of the commands listed here".to_owned(),
    };
    SessionError::new(
        ErrorKind::Rejected,
        format!(
            "Redis answered with an error (NOPERM): the ACL does not allow this user {missing}; the layer needs ~{prefix}* +getex \
             +get +getrange +set +del +pexpire +eval +evalsha, and for the sessions of users +zadd +zrange +zrem +zcard +zscore +pttl"
        ),
    )
}

/// The cause of a failed connection. Errors of the operating system contain no secret; the server's may.
fn cause(error: &RedisError) -> String {
    if error.is_io_error()
        && let Some(source) = io_error(error)
    {
        return source.to_string();
    }
    code_or_kind(error)
}

#[cfg(test)]
mod tests;
