use super::*;

fn error(reply: &str) -> RedisError {
    let reply = redis::parse_redis_value(format!("-{reply}\r\n").as_bytes());
    let reply = reply.expect("a reply");
    reply.extract_error().expect_err("an error")
}

/// Servers repeat arguments in their errors.
#[test]
fn no_text_of_a_servers_error_is_shown() {
    for reply in [
        "ERR unknown command 'GETEX', with args beginning with: 'session:sesame'",
        "ERR Error running script (call to f_1): sesame",
        "ERR value is not an integer: sesame",
        "OOM command not allowed, sesame",
        "READONLY sesame",
        "NOAUTH sesame",
        "MOVED 1 sesame:6379",
        "CLUSTERDOWN sesame",
        "BUSY sesame",
        "MISCONF sesame",
        "WRONGTYPE sesame",
        "SOMETHING sesame",
        "WRONGPASS sesame",
        "DENIED sesame",
        "NOPERM User sesame has no permissions to run the 'sesame-1' command",
        "NOPERM No permissions to access a key sesame",
        "NOPERM User sesame has no permissions to access the 'sesame' channel",
    ] {
        let error = error(reply);
        for shown in [
            from_server_error(&error, "session:"),
            unreachable(&error),
            wait_rejected(&error),
        ] {
            assert!(!shown.to_string().contains("sesame"), "{shown}");
            assert!(!format!("{shown:?}").contains("sesame"), "{shown:?}");
        }
    }
}

#[test]
fn the_command_that_an_acl_denies_is_named() {
    let denied = "NOPERM User app has no permissions to run the 'getex' command";
    let shown = from_server_error(&error(denied), "session:").to_string();
    assert!(shown.contains("the command GETEX"), "{shown}");
    assert!(shown.contains("~session:*"), "{shown}");
}

/// The server's code, what it becomes, and what the operator is told.
#[test]
fn each_error_of_a_server_has_its_kind_and_its_hint() {
    for (reply, kind, hint) in [
        ("WRONGTYPE x", ErrorKind::InvalidData, "set a prefix"),
        ("OOM x", ErrorKind::Rejected, "maxmemory"),
        (
            "OOM command not allowed when used memory > 'maxmemory'.",
            ErrorKind::Rejected,
            "it, or choose an eviction policy",
        ),
        (
            "READONLY x",
            ErrorKind::Unavailable,
            "connect to the master",
        ),
        ("NOAUTH x", ErrorKind::Rejected, "user and password"),
        ("WRONGPASS x", ErrorKind::Rejected, "user and password"),
        (
            "MOVED 1 h:1",
            ErrorKind::Rejected,
            "RedisSessionLayer::cluster",
        ),
        (
            "ASK 1 h:1",
            ErrorKind::Rejected,
            "RedisSessionLayer::cluster",
        ),
        (
            "CROSSSLOT x",
            ErrorKind::Rejected,
            "RedisSessionLayer::cluster",
        ),
        (
            "CLUSTERDOWN x",
            ErrorKind::Unavailable,
            "slots have no master",
        ),
        ("LOADING x", ErrorKind::Unavailable, "in a moment"),
        ("MASTERDOWN x", ErrorKind::Unavailable, "in a moment"),
        ("TRYAGAIN x", ErrorKind::Unavailable, "in a moment"),
        ("BUSY x", ErrorKind::Unavailable, "in a moment"),
        (
            "MISCONF x",
            ErrorKind::Rejected,
            "its disk and its replicas",
        ),
        (
            "NOREPLICAS x",
            ErrorKind::Rejected,
            "its disk and its replicas",
        ),
        ("SOMETHING x", ErrorKind::Rejected, "server's log"),
        ("NOPERM x", ErrorKind::Rejected, "the ACL does not allow"),
        (
            "ERR can't run this command",
            ErrorKind::Rejected,
            "the ACL does not allow",
        ),
        (
            "ERR no permission",
            ErrorKind::Rejected,
            "the ACL does not allow",
        ),
        (
            "ERR unknown command 'GETEX'",
            ErrorKind::Rejected,
            "GETEX: it needs Redis 6.2",
        ),
        (
            "ERR unknown command 'EVALSHA'",
            ErrorKind::Rejected,
            "EVALSHA: allow scripts",
        ),
        (
            "ERR unknown command",
            ErrorKind::Rejected,
            "does not support a command",
        ),
        (
            "NOPERM no access to key x",
            ErrorKind::Rejected,
            "the keys session:*",
        ),
        ("NOPERM denied", ErrorKind::Rejected, "one of the commands"),
        (
            "NOPERM no permissions to run the 'config|get' command",
            ErrorKind::Rejected,
            "the command CONFIG|GET",
        ),
        (
            "NOPERM no permissions to run the 'a1' command",
            ErrorKind::Rejected,
            "one of the commands",
        ),
    ] {
        let shown = from_server_error(&error(reply), "session:");
        assert_eq!(shown.kind(), kind, "{reply}");
        assert!(shown.to_string().contains(hint), "{reply}: {shown}");
    }
}

#[test]
fn what_a_server_does_not_support_is_told_from_what_it_refuses() {
    let server = |reply: &str| CommandError::Server(error(reply));
    for (reply, lacks_getex, is_syntax, is_denied) in [
        ("ERR unknown command 'GETEX'", true, true, false),
        ("ERR getex is blocked here", true, true, false),
        (
            "ERR wrong number of arguments for 'set'",
            false,
            true,
            false,
        ),
        ("NOPERM denied: getex", false, false, true),
        ("READONLY getex", false, false, false),
    ] {
        let error = server(reply);
        assert_eq!(error.is_unsupported("getex"), lacks_getex, "{reply}");
        assert_eq!(error.is_syntax_error(), is_syntax, "{reply}");
        assert_eq!(error.is_denied(), is_denied, "{reply}");
        let is_read_only = error.is(ServerErrorKind::ReadOnly);
        assert_eq!(is_read_only, reply.starts_with("READONLY"), "{reply}");
    }
    let lost = CommandError::ConnectionLost(unexpected_reply());
    assert!(!lost.is_unsupported("getex") && !lost.is_denied());
}

#[cfg(feature = "cluster")]
#[test]
fn a_server_without_cluster_slots_is_no_cluster() {
    for (reply, expected) in [
        ("ERR This instance has cluster support disabled", true),
        ("ERR unknown command 'CLUSTER'", true),
        ("READONLY x", false),
    ] {
        let shown = no_topology(CommandError::Server(error(reply))).to_string();
        assert_eq!(shown.contains("CLUSTER SLOTS"), expected, "{shown}");
    }
}

/// Texts of the operating system contain no secret, and say what is wrong.
#[test]
fn the_cause_of_a_failed_connection_is_shown() {
    let refused = RedisError::from(std::io::Error::other("no route to host"));
    assert!(cause(&refused).contains("no route to host"));
    assert_eq!(cause(&error("ERR sesame")), "ERR");
    for (io, is_tls) in [
        (
            std::io::Error::new(std::io::ErrorKind::InvalidData, "x"),
            true,
        ),
        (std::io::Error::other("invalid peer certificate"), true),
        (std::io::Error::other("no route to host"), false),
    ] {
        assert_eq!(error_text::is_tls(&RedisError::from(io)), is_tls);
    }
}
