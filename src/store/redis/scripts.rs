//! The scripts: what a step must look at before it writes, on the server.

use redis::{Arg, Script};

use super::transport::command_pool::{Command, size_of};

pub(super) struct Scripts {
    pub(super) save: CachedScript,
    pub(super) delete: CachedScript,
    pub(super) destroy: CachedScript,
    pub(super) rotate: CachedScript,
    pub(super) enter: CachedScript,
}

/// A script with its size on the wire, so that a command is allocated once.
pub(super) struct CachedScript {
    source: &'static str,
    hash: String,
}

/// 26 is the length of the revision that every version of ours begins with. Its last index is text already, since Lua would make
/// text of a number by `sprintf`, an eighth of what this costs the server.
///
/// Compares by GETRANGE, so that a large session does not pass through Lua only to have its first 26 bytes looked at.
/// A key that holds an empty string counts as gone. Our own version is there when the answer to a first try was lost; it is touched
/// again, since WAIT on another connection than the first try's knows only of what that one writes.
const SAVE: &str = "\
local head = redis.call('GETRANGE', KEYS[1], '0', #ARGV[1] == 26 and '25' or #ARGV[1] - 1)
if head == ARGV[1] then
  redis.call('SET', KEYS[1], ARGV[2], 'PX', ARGV[3])
  return 1
end
if head == '' then return 0 end
local stored = redis.call('GET', KEYS[1])
if string.sub(stored, 1, 26) ~= string.sub(ARGV[2], 1, 26) then return stored end
redis.call('PEXPIRE', KEYS[1], ARGV[3])
return 1";

const DELETE: &str = "\
local head = redis.call('GETRANGE', KEYS[1], '0', #ARGV[1] == 26 and '25' or #ARGV[1] - 1)
if head == ARGV[1] then
  redis.call('DEL', KEYS[1])
  return 1
end
if head == '' then return 0 end
return redis.call('GET', KEYS[1])";

/// `,\"_rotated\":` follows the revision of a tombstone, and of nothing else.
///
/// With an argument, replicas will be asked to confirm it. Where there is nothing to delete, our own first try may have done so over a
/// connection that broke since, and WAIT would know nothing of it. So something is encoded that nobody gets to see. Nor does it know whether a
/// tombstone is with the replicas, so that is touched.
const DESTROY: &str = "\
if redis.call('GETRANGE', KEYS[1], '26', '37') == ',\"_rotated\":' then
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

const ROTATE: &str = "\
local head = redis.call('GETRANGE', KEYS[1], '0', #ARGV[1] == 26 and '25' or #ARGV[1] - 1)
if head == ARGV[1] then
  redis.call('SET', KEYS[2], ARGV[2], 'PX', ARGV[3])
  redis.call('SET', KEYS[1], ARGV[4], 'PX', ARGV[5])
  return 1
end
if head == '' then return 0 end
local stored = redis.call('GET', KEYS[1])
if stored ~= ARGV[4] then return stored end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 1";

/// Where the limit is reached nothing is entered, unless the session is there already, under this name or its replaces one. The set then
/// lives for ARGV[3] milliseconds at least.
const ENTER: &str = "\
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
            enter: CachedScript::new(ENTER),
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

    /// By its hash.
    pub(super) fn evalsha(&self, keys: &[&str], arguments: &[&[u8]]) -> Command {
        let parts = 3 + keys.len() + arguments.len();
        let size = 8 + self.hash.len() + size_of(keys) + size_of(arguments);
        let mut command = Command::new("EVALSHA", parts, size);
        command.arg(&self.hash).arg(keys.len());
        command.arg(keys).arg(arguments);
        command
    }

    /// The same with its text.
    pub(super) fn eval(&self, short: &Command) -> Command {
        let mut command = Command::new("EVAL", 8, self.source.len() + short.size());
        command.arg(self.source);
        for part in short.args_iter().skip(2) {
            if let Arg::Simple(part) = part {
                command.arg(part);
            }
        }
        command
    }
}
