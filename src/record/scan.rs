//! Finds the positions of all keys and values of a stored object in one pass.
//!
//! Strings without escapes, integers and literals are scanned here, several times faster than serde_json finds the end of a value.
//! Every other value is skipped with serde_json. Both together accept exactly the objects that serde_json accepts; a fuzz target
//! checks this.

use std::ops::{Index, Range};

use serde::Deserialize;
use serde_json::value::RawValue;

/// A range of bytes. 32 bits suffice, since longer texts are rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Span {
    pub(super) start: u32,
    pub(super) end: u32,
}

/// Not a JSON object with distinct keys.
#[derive(Debug)]
pub(super) struct Malformed;

struct Scanner<'a> {
    text: &'a str,
    at: usize,
}

/// Calls `found` for each field, with the key including its quotes, whether the key has escapes, and the value.
pub(super) fn scan(
    text: &str,
    mut found: impl FnMut(Span, bool, Span) -> Result<(), Malformed>,
) -> Result<(), Malformed> {
    u32::try_from(text.len()).map_err(|_| Malformed)?;
    let mut scanner = Scanner { text, at: 0 };
    scanner.skip_space();
    scanner.token(b'{')?;
    scanner.skip_space();
    if scanner.peek() == Some(b'}') {
        scanner.at += 1;
    } else {
        loop {
            scanner.skip_space();
            let start = scanner.at;
            let is_escaped = scanner.string()?;
            let key = scanner.since(start);
            scanner.skip_space();
            scanner.token(b':')?;
            scanner.skip_space();
            let start = scanner.at;
            scanner.value()?;
            found(key, is_escaped, scanner.since(start))?;
            scanner.skip_space();
            match scanner.peek() {
                Some(b',') => scanner.at += 1,
                Some(b'}') => break scanner.at += 1,
                _ => return Err(Malformed),
            }
        }
    }
    scanner.skip_space();
    match scanner.peek() {
        None => Ok(()),
        Some(_) => Err(Malformed),
    }
}

impl Scanner<'_> {
    fn peek(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn skip_space(&mut self) {
        while let Some(b' ' | b'\n' | b'\t' | b'\r') = self.peek() {
            self.at += 1;
        }
    }

    fn token(&mut self, token: u8) -> Result<(), Malformed> {
        if self.peek() != Some(token) {
            return Err(Malformed);
        }
        self.at += 1;
        Ok(())
    }

    /// Returns whether the string has escapes.
    fn string(&mut self) -> Result<bool, Malformed> {
        let start = self.at;
        self.token(b'"')?;
        self.at += unescaped_len(&self.text.as_bytes()[self.at..]);
        match self.peek() {
            Some(b'"') => {
                self.at += 1;
                Ok(false)
            }
            Some(b'\\') => self.skip_with_serde(start).map(|()| true),
            _ => Err(Malformed),
        }
    }

    fn value(&mut self) -> Result<(), Malformed> {
        let start = self.at;
        let rest = &self.text.as_bytes()[start..];
        match rest.first() {
            Some(b'"') => return self.string().map(drop),
            Some(b'0') => self.at += 1,
            Some(b'1'..=b'9') => {
                let digits = rest.iter().position(|byte| !byte.is_ascii_digit());
                self.at += digits.unwrap_or(rest.len());
            }
            Some(b't') if rest.starts_with(b"true") => self.at += 4,
            Some(b'f') if rest.starts_with(b"false") => self.at += 5,
            Some(b'n') if rest.starts_with(b"null") => self.at += 4,
            _ => return self.skip_with_serde(start),
        }
        match self.peek() {
            Some(b'.' | b'e' | b'E') => self.skip_with_serde(start),
            _ => Ok(()),
        }
    }

    #[cold]
    fn skip_with_serde(&mut self, start: usize) -> Result<(), Malformed> {
        let mut deserializer = serde_json::Deserializer::from_str(&self.text[start..]);
        let value = <&RawValue>::deserialize(&mut deserializer).map_err(|_| Malformed)?;
        self.at = start + value.get().len();
        Ok(())
    }

    fn since(&self, start: usize) -> Span {
        // `scan` has checked that the text is shorter than 4 GiB.
        Span {
            start: start as u32,
            end: self.at as u32,
        }
    }
}

impl Span {
    pub(super) fn new(start: usize, end: usize) -> Self {
        Self {
            start: Self::at(start),
            end: Self::at(end),
        }
    }

    pub(super) fn at(index: usize) -> u32 {
        u32::try_from(index).expect("a session has less than 4 GiB")
    }

    pub(super) fn of<T: ?Sized + Index<Range<usize>>>(self, text: &T) -> &T::Output {
        &text[self.range()]
    }

    pub(super) fn range(self) -> Range<usize> {
        self.start as usize..self.end as usize
    }

    pub(super) fn within_quotes(self) -> Self {
        Self {
            start: self.start + 1,
            end: self.end - 1,
        }
    }

    /// The span of the same bytes after a copy from offset `from` to offset `to`.
    pub(super) fn moved(self, from: u32, to: u32) -> Self {
        Self {
            start: self.start - from + to,
            end: self.end - from + to,
        }
    }
}

/// The number of bytes before the first quote, backslash or control character. Looks at eight bytes at a time, and in a longer string at 64, which
/// the compiler turns into vector instructions: 0.7 instructions a byte instead of 2.6.
fn unescaped_len(bytes: &[u8]) -> usize {
    let mut at = match skip_words(bytes, 0, LONG) {
        Ok(found) => return found,
        Err(at) => at,
    };
    while let Some(chunk) = bytes[at..].first_chunk::<64>()
        // Deliberately not `any`, which would look at one byte after the other.
        && !chunk.iter().fold(false, |found, byte| found | is_special(*byte))
    {
        at += chunk.len();
    }
    match skip_words(bytes, at, usize::MAX) {
        Ok(found) => found,
        Err(at) => {
            let rest = bytes[at..].iter();
            at + rest.take_while(|byte| !is_special(**byte)).count()
        }
    }
}

/// Without branches, which a vector has none of.
fn is_special(byte: u8) -> bool {
    (byte == b'"') | (byte == b'\\') | (byte < 0x20)
}

/// Most strings are shorter, and for them a chunk would be looked at twice.
const LONG: usize = 128;

/// The index of the first special byte from `at` on, or as an error, where it was not searched any more: at `end`, or because less than eight bytes
/// are left.
fn skip_words(bytes: &[u8], mut at: usize, end: usize) -> Result<usize, usize> {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST_BIT: u64 = EACH << 7;
    // Sets the highest bit of the lowest byte that is less than `limit` (at most 128). Bits above that byte are not reliable.
    let less = |word: u64, limit: u64| word.wrapping_sub(EACH * limit) & !word & HIGHEST_BIT;
    while at < end
        && let Some(eight) = bytes[at..].first_chunk()
    {
        let word = u64::from_le_bytes(*eight);
        let found = less(word ^ (EACH * u64::from(b'"')), 1)
            | less(word ^ (EACH * u64::from(b'\\')), 1)
            | less(word, 0x20);
        if found != 0 {
            return Ok(at + found.trailing_zeros() as usize / 8);
        }
        at += 8;
    }
    Err(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_special_byte_is_found_at_every_offset() {
        for special in (0..0x20).chain([b'"', b'\\']) {
            // Within the words, the chunks of a long string, and behind them.
            for at in (0..40).chain(120..136).chain(185..200).chain(250..264) {
                // Among bytes next to each limit, and with another special byte behind it.
                for other in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                    let mut bytes = [other; 272];
                    bytes[at] = special;
                    assert_eq!(unescaped_len(&bytes), at, "{special:#x} among {other:#x}");
                    bytes[at + 3] = b'"';
                    assert_eq!(unescaped_len(&bytes), at);
                    assert_eq!(unescaped_len(&bytes[..at]), at);
                }
            }
        }
    }
}
