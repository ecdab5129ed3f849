//! Python's pickle, written: plain data by instructions of protocol 4, which Python 3.4 and later read, or of protocol 5 for a `bytearray`.

use std::collections::HashMap;

use super::{
    contract::FormatError,
    object::{Json, Object},
    pickle::{Id, Machine, Sequence, Value},
    plain::Plain,
};

/// The session over the version before it, or an empty slice. What did not change keeps its Python type.
pub(super) fn write_over(previous: &[u8], object: &Object) -> Result<Vec<u8>, FormatError> {
    let mut rest: HashMap<&str, &str> = object.pairs().collect();
    let mut pickle = Pickle::default();
    pickle.0.extend([0x80, 4, b'}', b'(']);
    if !previous.is_empty() {
        let (machine, result) = Machine::read(previous)?;
        for (key, value) in dict(&machine, result) {
            let name = machine.name(*key);
            let Some(json) = name.and_then(|name| rest.remove(name.as_ref())) else {
                continue;
            };
            pickle.value(&machine, *key);
            let mut before = Json::default();
            match machine.write(&mut before, *value, 0) {
                Ok(()) if before.0 == json => pickle.value(&machine, *value),
                _ => pickle.plain(&Plain::parse(json)?)?,
            }
        }
    }
    for (name, json) in object.pairs().filter(|(name, _)| rest.contains_key(name)) {
        pickle.text(name);
        pickle.plain(&Plain::parse(json)?)?;
    }
    pickle.0.extend(b"u.");
    Ok(pickle.0)
}

fn dict<'m>(machine: &'m Machine<'_>, id: Id) -> &'m [(Id, Id)] {
    match &machine.values[id] {
        Value::Dict(pairs) => pairs,
        _ => &[],
    }
}

#[derive(Default)]
struct Pickle(Vec<u8>);

impl Pickle {
    /// A value that was read, and written as JSON: so it does not contain itself, and is not deeper or longer than that allows.
    fn value(&mut self, machine: &Machine<'_>, id: Id) {
        match &machine.values[id] {
            Value::None => self.0.push(b'N'),
            Value::Bool(value) => self.bool(*value),
            Value::Integer(number) => self.integer(*number),
            Value::Float(number) => self.float(*number),
            Value::Text(text) => self.text(text),
            // BINBYTES8
            Value::Bytes(bytes) => self.counted(0x8e, bytes),
            Value::ByteArray(bytes) => {
                // BYTEARRAY8 is of protocol 5.
                self.0[1] = 5;
                self.counted(0x96, bytes);
            }
            Value::Sequence(kind, items) => {
                // EMPTY_LIST, EMPTY_SET; then MARK
                self.0.extend(match kind {
                    Sequence::List => &b"]("[..],
                    Sequence::Set => &b"\x8f("[..],
                    Sequence::Tuple | Sequence::FrozenSet => &b"("[..],
                });
                for item in items {
                    self.value(machine, *item);
                }
                // APPENDS, ADDITEMS, TUPLE, FROZENSET
                self.0.push(match kind {
                    Sequence::List => b'e',
                    Sequence::Set => 0x90,
                    Sequence::Tuple => b't',
                    Sequence::FrozenSet => 0x91,
                });
            }
            Value::Dict(pairs) => {
                // EMPTY_DICT, MARK … SETITEMS
                self.0.extend(b"}(");
                for (key, value) in pairs {
                    self.value(machine, *key);
                    self.value(machine, *value);
                }
                self.0.push(b'u');
            }
        }
    }

    fn plain(&mut self, value: &Plain) -> Result<(), FormatError> {
        match value {
            Plain::Null => self.0.push(b'N'),
            Plain::Bool(value) => self.bool(*value),
            Plain::Integer(number) => self.integer(*number),
            Plain::Float(number) => self.float(*number),
            Plain::Text(text) => self.text(text),
            Plain::List(items) => {
                self.0.extend(b"](");
                for item in items {
                    self.plain(item)?;
                }
                self.0.push(b'e');
            }
            Plain::Map(pairs) => {
                self.0.extend(b"}(");
                for (key, value) in pairs {
                    self.text(key);
                    self.plain(value)?;
                }
                self.0.push(b'u');
            }
        }
        Ok(())
    }

    fn bool(&mut self, value: bool) {
        self.0.push(if value { 0x88 } else { 0x89 });
    }

    /// BININT1, BININT, or LONG1: two's complement, the least significant byte first.
    fn integer(&mut self, number: i128) {
        if let Ok(number) = u8::try_from(number) {
            self.0.extend([b'K', number]);
        } else if let Ok(number) = i32::try_from(number) {
            self.0.push(b'J');
            self.0.extend(number.to_le_bytes());
        } else {
            self.0.extend([0x8a, 16]);
            self.0.extend(number.to_le_bytes());
        }
    }

    /// BINFLOAT
    fn float(&mut self, number: f64) {
        self.0.push(b'G');
        self.0.extend(number.to_be_bytes());
    }

    /// SHORT_BINUNICODE or BINUNICODE8
    fn text(&mut self, text: &str) {
        match u8::try_from(text.len()) {
            Ok(length) => {
                self.0.extend([0x8c, length]);
                self.0.extend(text.as_bytes());
            }
            Err(_) => self.counted(0x8d, text.as_bytes()),
        }
    }

    fn counted(&mut self, instruction: u8, bytes: &[u8]) {
        self.0.push(instruction);
        self.0.extend((bytes.len() as u64).to_le_bytes());
        self.0.extend(bytes);
    }
}
