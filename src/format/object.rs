//! JSON objects whose values stay text, and a writer of JSON that is bounded in depth and length.

use std::{collections::HashSet, fmt::Write};

use serde::{
    Deserialize, Deserializer,
    de::{MapAccess, Visitor},
};
use serde_json::value::RawValue;

use super::contract::FormatError;

/// In bytes. A short pickle can stand for a long text, since it can name a value many times.
const MAX_LEN: usize = 16 * 1024 * 1024;

/// serde_json reads this many levels.
pub(super) const MAX_DEPTH: usize = 127;

/// Flask's name for it.
pub(super) const PERMANENT: &str = "_permanent";

/// The pairs of a JSON object, in order.
#[derive(Default)]
pub(super) struct Object(pub(super) Vec<(String, Box<RawValue>)>);

impl Object {
    /// # Errors
    ///
    /// For everything but one JSON object with distinct keys.
    pub(super) fn parse(text: &str) -> Result<Self, FormatError> {
        let object: Self = serde_json::from_str(text)
            .map_err(|_| FormatError::new("it is not a JSON object as RFC 8259 has it"))?;
        let mut seen = HashSet::with_capacity(object.0.len());
        if object.0.iter().all(|(key, _)| seen.insert(key.as_str())) {
            Ok(object)
        } else {
            Err(FormatError::new("a key occurs twice"))
        }
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        let mut pairs = self.0.iter();
        let (_, value) = pairs.find(|(name, _)| name == key)?;
        Some(value.get())
    }

    pub(super) fn pairs(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0
            .iter()
            .map(|(key, value)| (key.as_str(), value.get()))
    }

    /// Sets `key` to this JSON, in its place or at the end; `None` removes it.
    pub(super) fn set(&mut self, key: &str, json: Option<String>) {
        let Some(json) = json else {
            return self.0.retain(|(name, _)| name != key);
        };
        let value = RawValue::from_string(json).expect("valid JSON");
        match self.0.iter_mut().find(|(name, _)| name == key) {
            Some((_, present)) => *present = value,
            None => self.0.push((key.to_owned(), value)),
        }
    }

    pub(super) fn extend(&mut self, other: Self) {
        self.0.extend(other.0);
    }

    /// The object whose values are JSON in these texts.
    pub(super) fn unquoted(self) -> Result<Self, FormatError> {
        let unquote = |(key, value): (String, Box<RawValue>)| {
            let text: String = serde_json::from_str(value.get()).ok()?;
            Some((key, RawValue::from_string(text).ok()?))
        };
        let pairs: Option<Vec<_>> = self.0.into_iter().map(unquote).collect();
        let pairs = pairs.ok_or(FormatError::new("a value is not JSON in a text"))?;
        Ok(Self(pairs))
    }

    /// Sets the key by which a format says so.
    pub(super) fn set_permanent(&mut self, is_permanent: bool) {
        self.0.retain(|(key, _)| key != PERMANENT);
        let value = serde_json::value::to_raw_value(&is_permanent).expect("a boolean");
        self.0.push((PERMANENT.to_owned(), value));
    }

    /// As Python takes the value of that key for true.
    pub(super) fn is_permanent(&self) -> bool {
        self.get(PERMANENT)
            .is_some_and(|value| !matches!(value, "false" | "null" | "0"))
    }

    pub(super) fn to_json(&self) -> String {
        let mut json = Json::default();
        json.object(self.pairs());
        json.0
    }
}

impl<'de> Deserialize<'de> for Object {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Pairs;
        impl<'de> Visitor<'de> for Pairs {
            type Value = Object;

            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Object, A::Error> {
                let mut pairs = Vec::new();
                while let Some(pair) = map.next_entry()? {
                    pairs.push(pair);
                }
                Ok(Object(pairs))
            }
        }
        deserializer.deserialize_map(Pairs)
    }
}

/// JSON text that is being written.
#[derive(Default)]
pub(super) struct Json(pub(super) String);

impl Json {
    pub(super) fn object<'a>(&mut self, pairs: impl Iterator<Item = (&'a str, &'a str)>) {
        self.0.push('{');
        for (index, (key, value)) in pairs.enumerate() {
            self.comma(index);
            self.string(key);
            self.0.push(':');
            self.0.push_str(value);
        }
        self.0.push('}');
    }

    pub(super) fn comma(&mut self, index: usize) {
        if index > 0 {
            self.0.push(',');
        }
    }

    pub(super) fn string(&mut self, text: &str) {
        self.0
            .push_str(&serde_json::to_string(text).expect("a string serializes"));
    }

    pub(super) fn display(&mut self, value: impl std::fmt::Display) {
        write!(self.0, "{value}").expect("writing to a String does not fail");
    }

    /// # Errors
    ///
    /// For an infinite number and NaN, which JSON does not have.
    pub(super) fn float(&mut self, value: f64) -> Result<(), FormatError> {
        if !value.is_finite() {
            return Err(FormatError::new("JSON has no infinite numbers and no NaN"));
        }
        self.0
            .push_str(&serde_json::to_string(&value).expect("a finite number"));
        Ok(())
    }

    /// As serde writes a `Vec<u8>`.
    pub(super) fn bytes(&mut self, bytes: &[u8]) -> Result<(), FormatError> {
        self.0.push('[');
        for (index, byte) in bytes.iter().enumerate() {
            self.comma(index);
            self.display(byte);
        }
        self.0.push(']');
        self.check_len()
    }

    pub(super) fn check_len(&self) -> Result<(), FormatError> {
        if self.0.len() > MAX_LEN {
            return Err(FormatError::new("it is longer than 16 MiB as JSON"));
        }
        Ok(())
    }
}

pub(super) fn check_depth(depth: usize) -> Result<(), FormatError> {
    if depth > MAX_DEPTH {
        return Err(FormatError::new(
            "it is nested more than 127 levels deep, which is more than JSON is read",
        ));
    }
    Ok(())
}
