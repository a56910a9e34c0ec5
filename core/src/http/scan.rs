//! Finding the end of a head as its bytes arrive, without looking at any byte twice.
//!
//! Only CRLF ends a line here: a bare LF, which RFC 9112 section 2.2 would let us accept, is where two
//! parsers start to disagree. What the lines say is not looked at; that is done once, when the head is
//! complete. What comes out depends on the bytes alone, never on how they were split (`http.md` G1).

use memchr::{memchr, memchr_iter};

use super::HttpError;

/// How much of a head has been searched for the blank line that ends it.
#[derive(Default, Copy, Clone, Debug)]
pub struct HeadScan {
    /// All bytes before this one have been looked at.
    scanned: usize,
    /// Where the line that is not complete yet begins.
    line: usize,
}

impl HeadScan {
    /// A scan that has seen nothing.
    pub const fn new() -> Self {
        HeadScan { scanned: 0, line: 0 }
    }

    /// Goes on where the last call stopped. `head` holds everything from the head's first byte on, and may
    /// hold bytes that follow the head. Only its first `max` bytes are looked at.
    ///
    /// Returns the head's length, blank line included, or `None` if more bytes are needed.
    ///
    /// # Errors
    ///
    /// [`HttpError::Malformed`] at a LF that no CR precedes, and if the first line is empty (see
    /// [`leading_crlf`]). Once `max` bytes are there and hold no end: [`HttpError::HeadTooLarge`] if a line
    /// ended in them, [`HttpError::TargetTooLong`] if none did, [`HttpError::Malformed`] if there is not even
    /// a space after a method (`http.md` B1).
    pub fn advance(&mut self, head: &[u8], max: usize) -> Result<Option<usize>, HttpError> {
        let seen = &head[..head.len().min(max)];
        let from = self.scanned;
        for at in memchr_iter(b'\n', seen.get(from..).unwrap_or_default()) {
            let lf = from + at;
            if lf == 0 || seen[lf - 1] != b'\r' {
                return Err(HttpError::Malformed);
            }
            if lf == self.line + 1 {
                return if self.line == 0 { Err(HttpError::Malformed) } else { Ok(Some(lf + 1)) };
            }
            self.line = lf + 1;
        }
        self.scanned = self.scanned.max(seen.len());
        if seen.len() < max {
            Ok(None)
        } else if self.line > 0 {
            Err(HttpError::HeadTooLarge)
        } else if memchr(b' ', seen).is_some() {
            Err(HttpError::TargetTooLong)
        } else {
            Err(HttpError::Malformed)
        }
    }
}

/// How many bytes of complete CRLF pairs `buf` starts with. A server skips an empty line or two before a
/// request-line (RFC 9112 section 2.2); the caller bounds how many.
pub fn leading_crlf(buf: &[u8]) -> usize {
    buf.chunks_exact(2).take_while(|pair| *pair == b"\r\n").count() * 2
}
