//! The commands of which several operations make use. Building one is deliberately not part of an async function, which would keep the parts.

use std::time::Duration;

use super::{
    scripts::CachedScript,
    transport::command_pool::{Command, command},
};
use crate::{record::revision, store::outcome::Rotation};

/// `condition`: NX or XX.
pub(super) fn set_if(condition: &str, key: &str, value: &[u8], lifetime: Duration) -> Command {
    let mut set = command("SET", &[key.as_bytes(), value]);
    set.arg("PX").arg(millis(lifetime)).arg(condition);
    set
}

pub(super) fn set_if_equal(
    key: &str,
    expected: &[u8],
    value: &[u8],
    lifetime: Duration,
) -> Command {
    let mut set = command("SET", &[key.as_bytes(), value]);
    set.arg("IFEQ").arg(expected);
    set.arg("PX").arg(millis(lifetime));
    set
}

#[cfg(feature = "local-cache")]
pub(super) fn create_command(
    script: &CachedScript,
    key: &str,
    value: &[u8],
    lifetime: Duration,
) -> Command {
    let mut digits = itoa::Buffer::new();
    let lifetime = digits.format(millis(lifetime)).as_bytes();
    script.command(&[key], &[value, lifetime])
}

pub(super) fn save_command(
    script: &CachedScript,
    key: &str,
    expected: &[u8],
    value: &[u8],
    lifetime: Duration,
) -> Command {
    let mut digits = itoa::Buffer::new();
    let lifetime = digits.format(millis(lifetime)).as_bytes();
    script.command(&[key], &[expected, value, lifetime])
}

pub(super) fn rotate_command(script: &CachedScript, rotation: &Rotation<'_>) -> Command {
    let mut digits = [itoa::Buffer::new(); 2];
    let [lifetime, tombstone_lifetime] = &mut digits;
    let arguments = [
        revision(rotation.expected),
        rotation.value,
        lifetime.format(millis(rotation.lifetime)).as_bytes(),
        rotation.tombstone,
        tombstone_lifetime
            .format(millis(rotation.tombstone_lifetime))
            .as_bytes(),
    ];
    script.command(&[rotation.from, rotation.to], &arguments)
}

pub(super) fn getex(key: &str, lifetime: Duration) -> Command {
    let mut getex = command("GETEX", &[key.as_bytes()]);
    getex.arg("PX").arg(millis(lifetime));
    getex
}

pub(super) fn pexpire(key: &str, lifetime: Duration) -> Command {
    let mut pexpire = command("PEXPIRE", &[key.as_bytes()]);
    pexpire.arg(millis(lifetime));
    pexpire
}

/// Redis does not accept a lifetime of 0.
pub(super) fn millis(lifetime: Duration) -> u64 {
    u64::try_from(lifetime.as_millis())
        .unwrap_or(u64::MAX)
        .max(1)
}
