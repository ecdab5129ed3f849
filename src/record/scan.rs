//! Where the keys and the values of a stored object are, found in one pass.
//!
//! What is plain, a string without escapes, a whole number, a literal, is recognised here, at a fraction of what serde_json takes to find
//! the end of a value; all else is left to serde_json. Together they take for an object exactly what serde_json does, which the fuzzers
//! check.

use std::ops::{Index, Range};

use serde::Deserialize;
use serde_json::value::RawValue;

/// A part of the text, by its bytes. A session has less than 4 GiB.
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

/// Calls `found` with each key, which is a JSON string with its quotes, whether it is encoded with escapes, and its value.
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

    /// Whether it is encoded with escapes.
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

    /// Finds the end of the value that begins at `start`, whatever it is.
    #[cold]
    fn skip_with_serde(&mut self, start: usize) -> Result<(), Malformed> {
        let mut deserializer = serde_json::Deserializer::from_str(&self.text[start..]);
        let value = <&RawValue>::deserialize(&mut deserializer).map_err(|_| Malformed)?;
        self.at = start + value.get().len();
        Ok(())
    }

    fn since(&self, start: usize) -> Span {
        // Of a text with less than 4 GiB.
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

    /// The same part of a text that was moved so far.
    pub(super) fn moved(self, from: u32, to: u32) -> Self {
        Self {
            start: self.start - from + to,
            end: self.end - from + to,
        }
    }
}

/// How many bytes come before the first quote, backslash or control character. Eight at a time.
fn unescaped_len(bytes: &[u8]) -> usize {
    const EACH: u64 = u64::from_ne_bytes([1; 8]);
    const HIGHEST_BIT: u64 = EACH << 7;
    // In the lowest byte for which it is set, the highest bit says that the byte is less than `limit`, which is at most 128.
    let less = |word: u64, limit: u64| word.wrapping_sub(EACH * limit) & !word & HIGHEST_BIT;
    let mut at = 0;
    while let Some(eight) = bytes[at..].first_chunk() {
        let word = u64::from_le_bytes(*eight);
        let found = less(word ^ (EACH * u64::from(b'"')), 1)
            | less(word ^ (EACH * u64::from(b'\\')), 1)
            | less(word, 0x20);
        if found != 0 {
            return at + found.trailing_zeros() as usize / 8;
        }
        at += 8;
    }
    let is_plain = |byte: &u8| !matches!(byte, b'"' | b'\\' | 0..0x20);
    at + bytes[at..].iter().take_while(|byte| is_plain(byte)).count()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_byte_that_is_not_plain_is_found_wherever_it_is() {
        for special in (0..0x20).chain([b'"', b'\\']) {
            for at in 0..40 {
                // Whatever follows, what comes first counts, beside bytes of every kind.
                for other in [b' ', b'!', b'#', b'[', b']', 0x7f, 0x80, 0xa2, 0xdc, 0xff] {
                    let mut bytes = [other; 48];
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
