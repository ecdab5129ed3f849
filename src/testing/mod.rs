//! What the tests of the crate stand on, and the checks that the fuzz targets in `tests/fuzz/` call.

#[cfg(test)]
mod conformance;
pub mod fuzzing;
#[cfg(test)]
mod interleavings;
#[cfg(test)]
pub(crate) mod stepped;
