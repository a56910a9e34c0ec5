//! The chunked transfer coding, byte by byte (RFC 9112 section 7.1).
//!
//! The grammar is kept to the letter: CRLF alone ends a line, extensions have the form that the ABNF gives
//! them, the bytes after a chunk's data are checked, not skipped. Each leniency here has been somebody's
//! request smuggling. Extensions and trailer fields are validated, counted and dropped. No byte is kept.

use super::HttpError;
use super::fields::{is_tchar, is_value_byte};

/// Extension bytes in one body, all lines together (`http.md` B2).
const MAX_EXTENSIONS: u16 = 4 * 1024;
/// Bytes of a trailer section, line ends included.
const MAX_TRAILER_BYTES: u16 = 8 * 1024;
/// Field lines in a trailer section.
const MAX_TRAILER_LINES: u8 = 64;
/// Digits of a chunk size; sixteen fill a `u64`, so that no size can overflow.
const MAX_DIGITS: u8 = 16;

/// The last chunk and an empty trailer section.
pub const LAST_CHUNK: &[u8] = b"0\r\n\r\n";

/// What a byte is.
pub(super) enum Step<'a> {
    /// Framing; it has been taken.
    Framing,
    /// The first of so many data bytes, none of which has been taken: the caller lowers the count.
    Data(&'a mut u64),
    /// Not part of this body.
    Done,
}

/// ```text
///  Size -> (extensions) -> SizeLf -+-> Data -> DataLf -> Size
///                                  +-> TrailerLine -> TrailerName -> TrailerValue -> TrailerLf -> TrailerLine
///                                                  -> EndLf -> Done
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum State {
    Size,
    /// Blanks after a size or an extension's value: only a `;` may follow.
    Blank,
    /// Blanks after an extension's name: `;` or `=` may follow.
    BlankOrEquals,
    ExtStart,
    ExtName,
    ValueStart,
    ValueToken,
    Quoted,
    QuotedPair,
    QuotedEnd,
    SizeLf,
    Data,
    DataLf,
    TrailerLine,
    TrailerName,
    TrailerValue,
    TrailerLf,
    EndLf,
    Done,
    Broken,
}

/// Where in a chunked body we are.
#[derive(Debug, Clone)]
pub(super) struct ChunkDecoder {
    state: State,
    /// Digits of the size read so far.
    digits: u8,
    trailer_lines: u8,
    extension_bytes: u16,
    trailer_bytes: u16,
    /// The size being read, then the data bytes still to come.
    size: u64,
}

impl ChunkDecoder {
    pub(super) const fn new() -> Self {
        ChunkDecoder {
            state: State::Size,
            digits: 0,
            trailer_lines: 0,
            extension_bytes: 0,
            trailer_bytes: 0,
            size: 0,
        }
    }

    pub(super) fn is_done(&self) -> bool {
        self.state == State::Done
    }

    /// Takes one byte, unless it is data or lies behind the end.
    pub(super) fn step(&mut self, byte: u8) -> Result<Step<'_>, HttpError> {
        match self.state {
            State::Data if self.size > 0 => return Ok(Step::Data(&mut self.size)),
            State::Done => return Ok(Step::Done),
            state => match self.next(state, byte) {
                Some(next) => self.state = next,
                None => {
                    self.state = State::Broken;
                    return Err(HttpError::Chunk);
                }
            },
        }
        Ok(Step::Framing)
    }

    /// The state after a framing byte; `None` if the byte may not stand there.
    fn next(&mut self, state: State, byte: u8) -> Option<State> {
        match state {
            State::Size => self.size_byte(byte),
            State::Blank
            | State::BlankOrEquals
            | State::ExtStart
            | State::ExtName
            | State::ValueStart
            | State::ValueToken
            | State::Quoted
            | State::QuotedPair
            | State::QuotedEnd => self.extension_byte(state, byte),
            State::SizeLf => match (byte, self.size) {
                (b'\n', 0) => Some(State::TrailerLine),
                (b'\n', _) => Some(State::Data),
                _ => None,
            },
            // All data has been taken, so that this byte is the one after it.
            State::Data => (byte == b'\r').then_some(State::DataLf),
            State::DataLf => {
                self.digits = 0;
                (byte == b'\n').then_some(State::Size)
            }
            State::TrailerLine
            | State::TrailerName
            | State::TrailerValue
            | State::TrailerLf
            | State::EndLf => self.trailer_byte(state, byte),
            State::Done | State::Broken => None,
        }
    }

    fn size_byte(&mut self, byte: u8) -> Option<State> {
        let digit = match byte {
            b'0'..=b'9' => byte - b'0',
            b'a'..=b'f' => byte - b'a' + 10,
            b'A'..=b'F' => byte - b'A' + 10,
            _ if self.digits == 0 => return None,
            b'\r' => return Some(State::SizeLf),
            _ => return self.extension_byte(State::Blank, byte),
        };
        if self.digits == MAX_DIGITS {
            return None;
        }
        self.size = (self.size << 4) | u64::from(digit);
        self.digits += 1;
        Some(State::Size)
    }

    /// `chunk-ext = *( BWS ";" BWS chunk-ext-name [ BWS "=" BWS chunk-ext-val ] )`
    fn extension_byte(&mut self, state: State, byte: u8) -> Option<State> {
        let ended = matches!(state, State::ExtName | State::ValueToken | State::QuotedEnd);
        if ended && byte == b'\r' {
            return Some(State::SizeLf);
        }
        self.extension_bytes += 1;
        if self.extension_bytes > MAX_EXTENSIONS {
            return None;
        }
        let blank = matches!(byte, b' ' | b'\t');
        match state {
            State::Blank | State::QuotedEnd if blank => Some(State::Blank),
            State::Blank | State::QuotedEnd if byte == b';' => Some(State::ExtStart),
            State::BlankOrEquals if blank => Some(State::BlankOrEquals),
            State::BlankOrEquals if byte == b';' => Some(State::ExtStart),
            State::BlankOrEquals if byte == b'=' => Some(State::ValueStart),
            State::ExtStart if blank => Some(State::ExtStart),
            State::ExtStart | State::ExtName if is_tchar(byte) => Some(State::ExtName),
            State::ExtName if blank => Some(State::BlankOrEquals),
            State::ExtName if byte == b';' => Some(State::ExtStart),
            State::ExtName if byte == b'=' => Some(State::ValueStart),
            State::ValueStart if blank => Some(State::ValueStart),
            State::ValueStart if byte == b'"' => Some(State::Quoted),
            State::ValueStart | State::ValueToken if is_tchar(byte) => Some(State::ValueToken),
            State::ValueToken if blank => Some(State::Blank),
            State::ValueToken if byte == b';' => Some(State::ExtStart),
            State::Quoted if byte == b'"' => Some(State::QuotedEnd),
            State::Quoted if byte == b'\\' => Some(State::QuotedPair),
            State::Quoted | State::QuotedPair if is_value_byte(byte) => Some(State::Quoted),
            _ => None,
        }
    }

    /// `trailer-section = *( field-line CRLF )`, and the CRLF that ends the body.
    fn trailer_byte(&mut self, state: State, byte: u8) -> Option<State> {
        self.trailer_bytes += 1;
        if self.trailer_bytes > MAX_TRAILER_BYTES {
            return None;
        }
        match (state, byte) {
            (State::TrailerLine, b'\r') => Some(State::EndLf),
            (State::TrailerLine, _) if is_tchar(byte) => {
                self.trailer_lines += 1;
                (self.trailer_lines <= MAX_TRAILER_LINES).then_some(State::TrailerName)
            }
            (State::TrailerName, b':') => Some(State::TrailerValue),
            (State::TrailerName, _) if is_tchar(byte) => Some(State::TrailerName),
            (State::TrailerValue, b'\r') => Some(State::TrailerLf),
            (State::TrailerValue, _) if is_value_byte(byte) => Some(State::TrailerValue),
            (State::TrailerLf, b'\n') => Some(State::TrailerLine),
            (State::EndLf, b'\n') => Some(State::Done),
            _ => None,
        }
    }
}

/// A chunk line of our own: the size in hexadecimal and CRLF.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ChunkLine {
    /// The text stands at the end.
    buf: [u8; 18],
    start: u8,
}

impl Default for ChunkLine {
    fn default() -> Self {
        ChunkLine::new(0)
    }
}

impl ChunkLine {
    /// The line in front of `len` bytes of data.
    pub const fn new(len: usize) -> Self {
        let mut buf = [b'\r'; 18];
        buf[17] = b'\n';
        let mut start = 16;
        let mut rest = len as u64;
        loop {
            start -= 1;
            buf[start] = b"0123456789abcdef"[(rest & 15) as usize];
            rest >>= 4;
            if rest == 0 {
                break;
            }
        }
        ChunkLine { buf, start: start as u8 }
    }

    /// The bytes to send.
    pub fn as_bytes(&self) -> &[u8] {
        &self.buf[usize::from(self.start)..]
    }
}
