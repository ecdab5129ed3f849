//! Finds what serde_json writes as `null` and does not read back: floats that are not finite, and `Some` of what is `null` itself.

use std::{error, fmt};

use serde::ser::{self, Serialize, Serializer};

/// # Errors
///
/// Why the value would not be read back unchanged.
pub(super) fn check_nulls<T: Serialize>(value: &T) -> Result<(), &'static str> {
    match value.serialize(NullCheck) {
        Ok(_) => Ok(()),
        Err(Lost(why)) => Err(why),
    }
}

/// A serializer without output. The result of each value is whether it is `null` in JSON.
struct NullCheck;

#[derive(Debug)]
struct Lost(&'static str);

const NOT_FINITE: &str = "it contains a floating-point number that is infinite or not a number, which JSON cannot express: store \
                          another value, or a text";
const NESTED: &str =
    "it contains a `Some` of `None` or of `()`, which JSON cannot tell from `None`: use an enum";
const FAILED: &str = "its Serialize failed";

impl NullCheck {
    fn float(is_finite: bool) -> Result<bool, Lost> {
        match is_finite {
            true => Ok(false),
            false => Err(Lost(NOT_FINITE)),
        }
    }
}

macro_rules! never_null {
    ($($method:ident: $type:ty,)*) => {
        $(fn $method(self, _: $type) -> Result<bool, Lost> {
            Ok(false)
        })*
    };
}

impl Serializer for NullCheck {
    type Ok = bool;
    type Error = Lost;
    type SerializeSeq = Self;
    type SerializeTuple = Self;
    type SerializeTupleStruct = Self;
    type SerializeTupleVariant = Self;
    type SerializeMap = Self;
    type SerializeStruct = Self;
    type SerializeStructVariant = Self;

    never_null! {
        serialize_bool: bool,
        serialize_i8: i8,
        serialize_i16: i16,
        serialize_i32: i32,
        serialize_i64: i64,
        serialize_i128: i128,
        serialize_u8: u8,
        serialize_u16: u16,
        serialize_u32: u32,
        serialize_u64: u64,
        serialize_u128: u128,
        serialize_char: char,
        serialize_str: &str,
        serialize_bytes: &[u8],
    }

    fn serialize_f32(self, value: f32) -> Result<bool, Lost> {
        Self::float(value.is_finite())
    }

    fn serialize_f64(self, value: f64) -> Result<bool, Lost> {
        Self::float(value.is_finite())
    }

    fn serialize_none(self) -> Result<bool, Lost> {
        Ok(true)
    }

    fn serialize_some<T: ?Sized + Serialize>(self, value: &T) -> Result<bool, Lost> {
        match value.serialize(Self)? {
            true => Err(Lost(NESTED)),
            false => Ok(false),
        }
    }

    fn serialize_unit(self) -> Result<bool, Lost> {
        Ok(true)
    }

    fn serialize_unit_struct(self, _: &'static str) -> Result<bool, Lost> {
        Ok(true)
    }

    fn serialize_unit_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
    ) -> Result<bool, Lost> {
        Ok(false)
    }

    fn serialize_newtype_struct<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        value: &T,
    ) -> Result<bool, Lost> {
        value.serialize(self)
    }

    fn serialize_newtype_variant<T: ?Sized + Serialize>(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        value: &T,
    ) -> Result<bool, Lost> {
        value.serialize(self).map(|_| false)
    }

    fn serialize_seq(self, _: Option<usize>) -> Result<Self, Lost> {
        Ok(self)
    }

    fn serialize_tuple(self, _: usize) -> Result<Self, Lost> {
        Ok(self)
    }

    fn serialize_tuple_struct(self, _: &'static str, _: usize) -> Result<Self, Lost> {
        Ok(self)
    }

    fn serialize_tuple_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Lost> {
        Ok(self)
    }

    fn serialize_map(self, _: Option<usize>) -> Result<Self, Lost> {
        Ok(self)
    }

    fn serialize_struct(self, _: &'static str, _: usize) -> Result<Self, Lost> {
        Ok(self)
    }

    fn serialize_struct_variant(
        self,
        _: &'static str,
        _: u32,
        _: &'static str,
        _: usize,
    ) -> Result<Self, Lost> {
        Ok(self)
    }

    fn collect_str<T: ?Sized + fmt::Display>(self, _: &T) -> Result<bool, Lost> {
        Ok(false)
    }
}

macro_rules! elements {
    ($($trait:ident::$method:ident($($name:ident)?),)*) => {
        $(impl ser::$trait for NullCheck {
            type Ok = bool;
            type Error = Lost;

            fn $method<T: ?Sized + Serialize>(
                &mut self,
                $($name: &'static str,)?
                value: &T,
            ) -> Result<(), Lost> {
                $(let _ = $name;)?
                value.serialize(Self).map(drop)
            }

            fn end(self) -> Result<bool, Lost> {
                Ok(false)
            }
        })*
    };
}

elements! {
    SerializeSeq::serialize_element(),
    SerializeTuple::serialize_element(),
    SerializeTupleStruct::serialize_field(),
    SerializeTupleVariant::serialize_field(),
    SerializeStruct::serialize_field(name),
    SerializeStructVariant::serialize_field(name),
}

impl ser::SerializeMap for NullCheck {
    type Ok = bool;
    type Error = Lost;

    /// serde_json refuses keys that it cannot read back.
    fn serialize_key<T: ?Sized + Serialize>(&mut self, _: &T) -> Result<(), Lost> {
        Ok(())
    }

    fn serialize_value<T: ?Sized + Serialize>(&mut self, value: &T) -> Result<(), Lost> {
        value.serialize(Self).map(drop)
    }

    fn end(self) -> Result<bool, Lost> {
        Ok(false)
    }
}

impl ser::Error for Lost {
    fn custom<T: fmt::Display>(_: T) -> Self {
        Self(FAILED)
    }
}

impl fmt::Display for Lost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0)
    }
}

impl error::Error for Lost {}
