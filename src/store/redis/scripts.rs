//! The Lua scripts: operations that must read before they write.

use redis::Script;

use super::transport::command_pool::Command;

pub(super) struct Scripts {
    pub(super) save: CachedScript,
    pub(super) delete: CachedScript,
    pub(super) destroy: CachedScript,
    pub(super) rotate: CachedScript,
    pub(super) add_to_index: CachedScript,
    #[cfg(feature = "local-cache")]
    pub(super) tracked: TrackedScripts,
}

/// Scripts that read the key after they wrote it, so that the server reports its next change. Deliberately not by EXISTS, which an ACL that
/// suffices without the cache does not allow.
#[cfg(feature = "local-cache")]
pub(super) struct TrackedScripts {
    pub(super) create: CachedScript,
    pub(super) save: CachedScript,
    pub(super) rotate: CachedScript,
}

/// A script that is called by its hash.
pub(super) struct CachedScript {
    source: &'static str,
    hash: String,
}

/// Every session that this crate wrote begins with its revision, which has 26 bytes. The index of the last one is written as text, because
/// Lua converts a number by `sprintf`, which is an eighth of the script's cost.
///
/// GETRANGE compares the revision without copying a large session into Lua. A key with an empty string counts as missing. If the own
/// new version is stored already, the reply to a first try was lost; in another framework's format, which does not begin with a revision, the
/// whole value shows that. Its TTL is set again, because WAIT only covers the writes of its own connection.
macro_rules! save {
    ($after_write:literal) => {
        concat!(
            "\
local head = redis.call('GETRANGE', KEYS[1], '0', #ARGV[1] == 26 and '25' or #ARGV[1] - 1)
if head == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
",
            $after_write,
            "\
  return 1
end
if head == '' then return 0 end
local stored = redis.call('GET', KEYS[1])
local compared = string.sub(ARGV[2], 1, 9) == '{\"_rev\":\"' and 26 or -1
if string.sub(stored, 1, compared) ~= string.sub(ARGV[2], 1, compared) then return stored end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
",
            $after_write,
            "return 1"
        )
    };
}

const SAVE: &str = save!("");

#[cfg(feature = "local-cache")]
const SAVE_TRACKED: &str = save!("  redis.call('GETRANGE', KEYS[1], '0', '0')\n");

/// If the own version is stored already, the reply to a first try was lost.
#[cfg(feature = "local-cache")]
const CREATE_TRACKED: &str = "\
if redis.call('SET', KEYS[1], ARGV[1], 'PX', ARGV[2], 'NX') then
  redis.call('GETRANGE', KEYS[1], '0', '0')
  return 1
end
if redis.call('GETRANGE', KEYS[1], '0', '25') == string.sub(ARGV[1], 1, 26) then return 1 end
return 0";

const DELETE: &str = "\
local head = redis.call('GETRANGE', KEYS[1], '0', #ARGV[1] == 26 and '25' or #ARGV[1] - 1)
if head == ARGV[1] then
  redis.call('DEL', KEYS[1])
  return 1
end
if head == '' then return 0 end
return redis.call('GET', KEYS[1])";

/// Only in a tombstone does `,\"_rotated\":` follow the revision. A key of another type, such as a list, is deleted as well: an app that ends
/// a session which cannot be loaded must get rid of it, whatever it is.
///
/// With an argument, the reply is followed by WAIT, which only covers writes of its own connection. If there is nothing to delete, a first
/// try over a broken connection may have deleted it, so a temporary value is written. For the same reason the TTL of a tombstone is set again.
const DESTROY: &str = "\
local mark = redis.pcall('GETRANGE', KEYS[1], '26', '37')
if mark.err and not string.find(mark.err, 'WRONGTYPE', 1, true) then return mark end
if mark == ',\"_rotated\":' then
  local left = redis.call('PTTL', KEYS[1])
  if not ARGV[1] or left < 1 then return 0 end
  redis.call('PEXPIRE', KEYS[1], left)
  return 2
end
if redis.call('DEL', KEYS[1]) == 0 and ARGV[1] then
  redis.call('SET', KEYS[1], '', 'PX', '1000')
  redis.call('DEL', KEYS[1])
end
return 1";

macro_rules! rotate {
    ($after_write:literal, $again:literal) => {
        concat!(
            "\
local head = redis.call('GETRANGE', KEYS[1], '0', #ARGV[1] == 26 and '25' or #ARGV[1] - 1)
if head == ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
",
            $after_write,
            "\
  return 1
end
if head == '' then return 0 end
local stored = redis.call('GET', KEYS[1])
if stored ~= ARGV[4] then return stored end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return ",
            $again
        )
    };
}

const ROTATE: &str = rotate!("", "1");

/// Returns 2 if the reply to a first try was lost: the new key was not read.
#[cfg(feature = "local-cache")]
const ROTATE_TRACKED: &str = rotate!("  redis.call('GETRANGE', KEYS[2], '0', '0')\n", "2");

/// At the limit (ARGV[5]), a session is added only if it is in the index already, under this name or the one that it replaces (ARGV[4]). The
/// index then lives for at least ARGV[3] milliseconds.
const ADD_TO_INDEX: &str = "\
if ARGV[5] and not redis.call('ZSCORE', KEYS[1], ARGV[1]) and not redis.call('ZSCORE', KEYS[1], ARGV[4]) \
and redis.call('ZCARD', KEYS[1]) >= tonumber(ARGV[5]) then return 0 end
redis.call('ZADD', KEYS[1], ARGV[2], ARGV[1])
if redis.call('PTTL', KEYS[1]) < tonumber(ARGV[3]) then redis.call('PEXPIRE', KEYS[1], ARGV[3]) end
return 1";

impl Scripts {
    pub(super) fn new() -> Self {
        Self {
            save: CachedScript::new(SAVE),
            delete: CachedScript::new(DELETE),
            destroy: CachedScript::new(DESTROY),
            rotate: CachedScript::new(ROTATE),
            add_to_index: CachedScript::new(ADD_TO_INDEX),
            #[cfg(feature = "local-cache")]
            tracked: TrackedScripts {
                create: CachedScript::new(CREATE_TRACKED),
                save: CachedScript::new(SAVE_TRACKED),
                rotate: CachedScript::new(ROTATE_TRACKED),
            },
        }
    }
}

impl CachedScript {
    fn new(source: &'static str) -> Self {
        Self {
            source,
            hash: Script::new(source).get_hash().to_owned(),
        }
    }

    pub(super) fn command(&self, keys: &[&str], arguments: &[&[u8]]) -> Command {
        Command::evalsha(self.source, &self.hash, keys, arguments)
    }
}
