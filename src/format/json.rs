//! JSON as it is stored.

use super::contract::FormatError;

pub(super) fn decode(stored: &[u8]) -> Result<String, FormatError> {
    let text = std::str::from_utf8(stored).map_err(|_| FormatError::new("it is not UTF-8"))?;
    Ok(text.to_owned())
}
