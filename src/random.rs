//! Random numbers from the operating system. A failure is an error, not a panic.

use crate::error::{ErrorKind, SessionError};

/// # Errors
///
/// [`ErrorKind::IdGeneration`]. There is no weaker fallback.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], SessionError> {
    let mut bytes = [0; N];
    fill(&mut bytes).map_err(|error| {
        SessionError::new(
            ErrorKind::IdGeneration,
            "the operating system provided no random numbers, so no session can be written: see this error's source for the reason",
        )
        .with_source(error)
    })?;
    Ok(bytes)
}

/// A random number from 0 to 1, for jitter; 0.5 if the operating system provides none.
pub(crate) fn random_unit() -> f64 {
    random_bytes().map_or(0.5, |bytes| {
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
    })
}

#[cfg(not(test))]
use getrandom::fill;

/// Fails if a test has set [`NO_RANDOM_NUMBERS`].
#[cfg(test)]
fn fill(bytes: &mut [u8]) -> Result<(), getrandom::Error> {
    if NO_RANDOM_NUMBERS.get() {
        return Err(getrandom::Error::UNSUPPORTED);
    }
    getrandom::fill(bytes)
}

#[cfg(test)]
thread_local! {
    pub(crate) static NO_RANDOM_NUMBERS: std::cell::Cell<bool> = const { std::cell::Cell::new(false) };
}
