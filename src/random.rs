//! Random bytes from the operating system, with failure as an error.

use crate::error::{ErrorKind, SessionError};

/// # Errors
///
/// [`ErrorKind::IdGeneration`]. There is no weaker fallback.
pub(crate) fn random_bytes<const N: usize>() -> Result<[u8; N], SessionError> {
    let mut bytes = [0; N];
    fill(&mut bytes).map_err(|error| {
        SessionError::new(
            ErrorKind::IdGeneration,
            "the operating system gave no random numbers, so no session can be written; see the source for its reason",
        )
        .with_source(error)
    })?;
    Ok(bytes)
}

/// A random number between 0 and 1, for jitter. 0.5 if the operating system has no random numbers.
pub(crate) fn random_unit() -> f64 {
    random_bytes().map_or(0.5, |bytes| {
        f64::from(u32::from_le_bytes(bytes)) / f64::from(u32::MAX)
    })
}

#[cfg(not(test))]
use getrandom::fill;

/// The operating system, unless a test has it fail.
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
