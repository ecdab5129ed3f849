//! JSON text as values, for forms that are not text. Integers keep all their digits.

use serde_json::value::RawValue;

use super::{contract::FormatError, object::Object};

pub(super) enum Plain {
    Null,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(String),
    List(Vec<Plain>),
    Map(Vec<(String, Plain)>),
}

impl Plain {
    /// `json` is a valid value, nested at most 127 levels deep.
    pub(super) fn parse(json: &str) -> Result<Self, FormatError> {
        let unreadable = |_| FormatError::new("a text has a surrogate without its pair");
        Ok(match json.as_bytes().first() {
            Some(b'{') => {
                let pairs = Object::parse(json)?.0.into_iter();
                let pairs = pairs.map(|(key, value)| Ok((key, Self::parse(value.get())?)));
                Self::Map(pairs.collect::<Result<_, FormatError>>()?)
            }
            Some(b'[') => {
                let items: Vec<Box<RawValue>> = serde_json::from_str(json).map_err(unreadable)?;
                let items = items.iter().map(|item| Self::parse(item.get()));
                Self::List(items.collect::<Result<_, FormatError>>()?)
            }
            Some(b'"') => Self::Text(serde_json::from_str(json).map_err(unreadable)?),
            Some(b'n') => Self::Null,
            Some(b't') => Self::Bool(true),
            Some(b'f') => Self::Bool(false),
            _ if json.contains(['.', 'e', 'E']) => {
                let number = serde_json::from_str(json);
                Self::Float(number.map_err(|_| FormatError::new("a number is too large"))?)
            }
            _ => {
                let too_large = |_| FormatError::new("an integer has more than 128 bits");
                Self::Integer(json.parse().map_err(too_large)?)
            }
        })
    }
}
