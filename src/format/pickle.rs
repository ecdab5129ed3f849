//! Python's pickle, as JSON: plain data of protocols 2 to 5, without running code.
//!
//! A pickle is a program for a stack machine. This one knows the instructions that build text, numbers, lists, tuples, sets and dictionaries. It has
//! none that name a class or call a function, so a value such as a `datetime` is refused.
//!
//! Deliberately not `serde-pickle`: a pickle may name one value many times, and that crate copies the value each time, so a kilobyte can
//! stand for any number of gigabytes. Here, memory is linear in the input until JSON is written, which is bounded.

use std::{borrow::Cow, collections::HashMap};

use super::{
    contract::FormatError,
    object::{Json, check_depth},
};

/// Indexes of `Machine::values`: dropping nested values does not recurse.
pub(super) type Id = usize;

pub(super) enum Value<'a> {
    None,
    Bool(bool),
    Integer(i128),
    Float(f64),
    Text(&'a str),
    Bytes(&'a [u8]),
    ByteArray(&'a [u8]),
    Sequence(Sequence, Vec<Id>),
    Dict(Vec<(Id, Id)>),
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Sequence {
    List,
    Tuple,
    Set,
    FrozenSet,
}

pub(super) struct Machine<'a> {
    rest: &'a [u8],
    pub(super) values: Vec<Value<'a>>,
    /// `None`: a mark.
    stack: Vec<Option<Id>>,
    memo: HashMap<u32, Id>,
}

pub(crate) fn decode(stored: &[u8]) -> Result<String, FormatError> {
    let (machine, result) = Machine::read(stored)?;
    let mut json = Json::default();
    machine.write(&mut json, result, 0)?;
    Ok(json.0)
}

impl<'a> Machine<'a> {
    /// Also returns the dictionary that the pickle stands for.
    pub(super) fn read(stored: &'a [u8]) -> Result<(Self, Id), FormatError> {
        let mut machine = Self {
            rest: stored,
            values: Vec::new(),
            stack: Vec::new(),
            memo: HashMap::new(),
        };
        let result = machine.run()?;
        match machine.values[result] {
            Value::Dict(_) => Ok((machine, result)),
            _ => Err(FormatError::new("the pickle is not one of a dictionary")),
        }
    }

    /// The instructions and their codes are those of Python's `pickletools`.
    fn run(&mut self) -> Result<Id, FormatError> {
        loop {
            match self.byte()? {
                // STOP
                b'.' => return self.pop(),
                // PROTO, FRAME
                0x80 => drop(self.byte()?),
                0x95 => drop(self.take(8)?),
                // MARK, POP, POP_MARK, DUP
                b'(' => self.stack.push(None),
                b'0' => drop(self.stack.pop().ok_or_else(malformed)?),
                b'1' => drop(self.pop_to_mark()?),
                b'2' => {
                    let top = self.top()?;
                    self.stack.push(Some(top));
                }
                // NONE, NEWTRUE, NEWFALSE
                b'N' => self.push(Value::None),
                0x88 => self.push(Value::Bool(true)),
                0x89 => self.push(Value::Bool(false)),
                // BININT, BININT1, BININT2, LONG1, LONG4
                b'J' => {
                    let number = i32::from_le_bytes(self.array()?);
                    self.push(Value::Integer(number.into()));
                }
                b'K' => {
                    let number = self.byte()?;
                    self.push(Value::Integer(number.into()));
                }
                b'M' => {
                    let number = u16::from_le_bytes(self.array()?);
                    self.push(Value::Integer(number.into()));
                }
                0x8a => self.long(1)?,
                0x8b => self.long(4)?,
                // BINFLOAT
                b'G' => {
                    let number = f64::from_be_bytes(self.array()?);
                    self.push(Value::Float(number));
                }
                // SHORT_BINUNICODE, BINUNICODE, BINUNICODE8
                0x8c => self.text(1)?,
                b'X' => self.text(4)?,
                0x8d => self.text(8)?,
                // SHORT_BINBYTES, BINBYTES, BINBYTES8, BYTEARRAY8
                b'C' => self.bytes(1, Value::Bytes)?,
                b'B' => self.bytes(4, Value::Bytes)?,
                0x8e => self.bytes(8, Value::Bytes)?,
                0x96 => self.bytes(8, Value::ByteArray)?,
                // EMPTY_LIST, EMPTY_TUPLE, EMPTY_SET
                b']' => self.push(Value::Sequence(Sequence::List, Vec::new())),
                b')' => self.push(Value::Sequence(Sequence::Tuple, Vec::new())),
                0x8f => self.push(Value::Sequence(Sequence::Set, Vec::new())),
                // APPEND
                b'a' => {
                    let item = self.pop()?;
                    self.list()?.push(item);
                }
                // APPENDS, ADDITEMS
                b'e' | 0x90 => {
                    let items = self.pop_to_mark()?;
                    self.list()?.extend(items);
                }
                // LIST, TUPLE, FROZENSET
                code @ (b'l' | b't' | 0x91) => {
                    let items = self.pop_to_mark()?;
                    let kind = match code {
                        b'l' => Sequence::List,
                        b't' => Sequence::Tuple,
                        _ => Sequence::FrozenSet,
                    };
                    self.push(Value::Sequence(kind, items));
                }
                // TUPLE1, TUPLE2, TUPLE3
                code @ 0x85..=0x87 => {
                    let count = usize::from(code - 0x84);
                    let start = self.stack.len().checked_sub(count).ok_or_else(malformed)?;
                    let items: Option<Vec<Id>> = self.stack.drain(start..).collect();
                    let items = items.ok_or_else(malformed)?;
                    self.push(Value::Sequence(Sequence::Tuple, items));
                }
                // EMPTY_DICT, SETITEM, SETITEMS, DICT
                b'}' => self.push(Value::Dict(Vec::new())),
                b's' => {
                    let (value, key) = (self.pop()?, self.pop()?);
                    self.dict()?.push((key, value));
                }
                b'u' => {
                    let items = self.pop_to_mark()?;
                    self.dict()?.extend(pairs(&items)?);
                }
                b'd' => {
                    let items = self.pop_to_mark()?;
                    let pairs = pairs(&items)?.collect();
                    self.push(Value::Dict(pairs));
                }
                // BINPUT, LONG_BINPUT, MEMOIZE
                b'q' => {
                    let key = self.byte()?;
                    self.put(key.into())?;
                }
                b'r' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.put(key)?;
                }
                0x94 => {
                    let key = u32::try_from(self.memo.len()).map_err(|_| malformed())?;
                    self.put(key)?;
                }
                // BINGET, LONG_BINGET
                b'h' => {
                    let key = self.byte()?;
                    self.get(key.into())?;
                }
                b'j' => {
                    let key = u32::from_le_bytes(self.array()?);
                    self.get(key)?;
                }
                code => return Err(refused(code)),
            }
        }
    }

    pub(super) fn write(&self, json: &mut Json, id: Id, depth: usize) -> Result<(), FormatError> {
        // Also ends at a list that contains itself.
        check_depth(depth)?;
        match &self.values[id] {
            Value::None => json.0.push_str("null"),
            Value::Bool(value) => json.display(value),
            Value::Integer(number) => json.display(number),
            Value::Float(number) => json.float(*number)?,
            Value::Text(text) => json.string(text),
            Value::Bytes(bytes) | Value::ByteArray(bytes) => json.bytes(bytes)?,
            Value::Sequence(_, items) => {
                json.0.push('[');
                for (index, item) in items.iter().enumerate() {
                    json.comma(index);
                    self.write(json, *item, depth + 1)?;
                }
                json.0.push(']');
            }
            Value::Dict(pairs) => {
                json.0.push('{');
                for (index, (key, value)) in pairs.iter().enumerate() {
                    json.comma(index);
                    let name = self.name(*key);
                    json.string(
                        &name.ok_or(FormatError::new("a key is neither text nor an integer"))?,
                    );
                    json.0.push(':');
                    self.write(json, *value, depth + 1)?;
                }
                json.0.push('}');
            }
        }
        json.check_len()
    }

    /// The text of a dictionary's key, as Python's `json` writes it.
    pub(super) fn name(&self, key: Id) -> Option<Cow<'a, str>> {
        match &self.values[key] {
            Value::Text(text) => Some(Cow::Borrowed(text)),
            Value::Integer(number) => Some(number.to_string().into()),
            _ => None,
        }
    }

    fn take(&mut self, length: usize) -> Result<&'a [u8], FormatError> {
        let (taken, rest) = self.rest.split_at_checked(length).ok_or_else(malformed)?;
        self.rest = rest;
        Ok(taken)
    }

    fn byte(&mut self) -> Result<u8, FormatError> {
        Ok(self.take(1)?[0])
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], FormatError> {
        let bytes = self.take(N)?;
        Ok(bytes.try_into().expect("of this length"))
    }

    /// What a length of `width` bytes, the least significant first, precedes.
    fn counted(&mut self, width: usize) -> Result<&'a [u8], FormatError> {
        let length = self.take(width)?.iter().rev();
        let length = length.fold(0, |length, byte| length << 8 | u64::from(*byte));
        self.take(usize::try_from(length).map_err(|_| malformed())?)
    }

    fn text(&mut self, width: usize) -> Result<(), FormatError> {
        let text = std::str::from_utf8(self.counted(width)?)
            .map_err(|_| FormatError::new("a text is not UTF-8"))?;
        self.push(Value::Text(text));
        Ok(())
    }

    fn bytes(
        &mut self,
        width: usize,
        value: impl FnOnce(&'a [u8]) -> Value<'a>,
    ) -> Result<(), FormatError> {
        let bytes = self.counted(width)?;
        self.push(value(bytes));
        Ok(())
    }

    /// An integer in two's complement, the least significant byte first.
    fn long(&mut self, width: usize) -> Result<(), FormatError> {
        let bytes = self.counted(width)?;
        if bytes.len() > 16 {
            return Err(FormatError::new("an integer has more than 128 bits"));
        }
        let is_negative = bytes.last().is_some_and(|byte| *byte >= 0x80);
        let mut number = [if is_negative { 0xff } else { 0 }; 16];
        number[..bytes.len()].copy_from_slice(bytes);
        self.push(Value::Integer(i128::from_le_bytes(number)));
        Ok(())
    }

    fn push(&mut self, value: Value<'a>) {
        self.stack.push(Some(self.values.len()));
        self.values.push(value);
    }

    fn top(&self) -> Result<Id, FormatError> {
        self.stack.last().copied().flatten().ok_or_else(malformed)
    }

    fn pop(&mut self) -> Result<Id, FormatError> {
        self.stack.pop().flatten().ok_or_else(malformed)
    }

    fn pop_to_mark(&mut self) -> Result<Vec<Id>, FormatError> {
        let mark = self.stack.iter().rposition(Option::is_none);
        let mark = mark.ok_or_else(malformed)?;
        let items = self.stack.drain(mark..).flatten().collect();
        Ok(items)
    }

    fn list(&mut self) -> Result<&mut Vec<Id>, FormatError> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::Sequence(Sequence::List | Sequence::Set, items) => Ok(items),
            _ => Err(malformed()),
        }
    }

    fn dict(&mut self) -> Result<&mut Vec<(Id, Id)>, FormatError> {
        let top = self.top()?;
        match &mut self.values[top] {
            Value::Dict(pairs) => Ok(pairs),
            _ => Err(malformed()),
        }
    }

    fn put(&mut self, key: u32) -> Result<(), FormatError> {
        let top = self.top()?;
        self.memo.insert(key, top);
        Ok(())
    }

    fn get(&mut self, key: u32) -> Result<(), FormatError> {
        let id = *self.memo.get(&key).ok_or_else(malformed)?;
        self.stack.push(Some(id));
        Ok(())
    }
}

fn pairs(items: &[Id]) -> Result<impl Iterator<Item = (Id, Id)>, FormatError> {
    match items.as_chunks() {
        (pairs, []) => Ok(pairs.iter().map(|[key, value]| (*key, *value))),
        _ => Err(malformed()),
    }
}

fn malformed() -> FormatError {
    FormatError::new("it is not a complete pickle")
}

fn refused(code: u8) -> FormatError {
    FormatError::new(match code {
        // GLOBAL, STACK_GLOBAL, INST, OBJ, REDUCE, BUILD, NEWOBJ, NEWOBJ_EX, EXT1, EXT2, EXT4, PERSID, BINPERSID
        b'c' | 0x93 | b'i' | b'o' | b'R' | b'b' | 0x81 | 0x92 | 0x82..=0x84 | b'P' | b'Q' => {
            "the pickle names a class or a function, as that of a datetime or a Decimal does, and code of a pickle is never run: let the old \
             app store text, numbers, lists and dictionaries only"
        }
        _ => "the pickle has an instruction that protocols 2 to 5 do not use for plain data",
    })
}
