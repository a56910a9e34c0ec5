//! Body framing: how long a body is, and which bytes on the wire are body (RFC 9112 section 6).
//!
//! The decoder only says where body bytes lie; it copies nothing and never looks at body bytes one by
//! one. It keeps no bytes either: framing that arrives in pieces lives in its state.

use super::HttpError;
use super::chunk::{ChunkDecoder, Step};

/// What delimits a body.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is no body.
    None,
    /// So many bytes.
    Length(u64),
    /// The chunked transfer coding.
    Chunked,
    /// The end of the connection; responses only.
    UntilClose,
}

impl Framing {
    /// Whether not one byte of body is announced.
    pub(crate) const fn is_bodiless(self) -> bool {
        matches!(self, Framing::None | Framing::Length(0))
    }
}

/// What the front of the input is: `skip` bytes of framing, then `data` bytes of body.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Decoded {
    /// Bytes of framing that come first.
    pub skip: usize,
    /// Body bytes that follow them.
    pub data: usize,
}

/// Tells body bytes from framing, incrementally.
///
/// ```
/// use tidegate_core::http::{BodyDecoder, Framing, HttpError};
///
/// /// The body bytes of `input`, and what follows the body.
/// fn body(decoder: &mut BodyDecoder, mut input: &[u8]) -> Result<(Vec<u8>, Vec<u8>), HttpError> {
///     let mut body = Vec::new();
///     loop {
///         let step = decoder.decode(input)?;
///         if step.skip + step.data == 0 {
///             return Ok((body, input.to_vec()));
///         }
///         let (data, rest) = input[step.skip..].split_at(step.data);
///         body.extend_from_slice(data);
///         input = rest;
///     }
/// }
///
/// let mut decoder = BodyDecoder::new(Framing::Chunked);
/// assert_eq!(body(&mut decoder, b"4\r\nhi")?.0, b"hi");
/// assert_eq!(body(&mut decoder, b"gh\r\n0\r\n\r\nGET ")?, (b"gh".to_vec(), b"GET ".to_vec()));
/// assert!(decoder.is_complete());
/// # Ok::<(), HttpError>(())
/// ```
#[derive(Debug, Clone)]
pub struct BodyDecoder {
    framing: Framing,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// So many bytes are still to come.
    Length(u64),
    Chunked(ChunkDecoder),
    UntilClose,
    Closed,
}

impl BodyDecoder {
    /// A decoder in front of the body's first byte.
    pub const fn new(framing: Framing) -> Self {
        let state = match framing {
            Framing::None => State::Length(0),
            Framing::Length(n) => State::Length(n),
            Framing::Chunked => State::Chunked(ChunkDecoder::new()),
            Framing::UntilClose => State::UntilClose,
        };
        BodyDecoder { framing, state }
    }

    /// Looks at bytes that follow those of the last call's `skip + data`. Call again with what follows
    /// until both counts are zero: then either the input is used up or the body is complete, and what is
    /// left belongs to no body.
    ///
    /// # Errors
    ///
    /// [`HttpError::Chunk`], for ever, from the first byte on that breaks the chunked coding. Body bytes
    /// before that byte have been reported by earlier calls.
    pub fn decode(&mut self, input: &[u8]) -> Result<Decoded, HttpError> {
        match &mut self.state {
            State::Length(left) => {
                let data = take(left, input.len());
                Ok(Decoded { skip: 0, data })
            }
            State::Chunked(chunks) => {
                let mut skip = 0;
                while let Some(&byte) = input.get(skip) {
                    match chunks.step(byte)? {
                        Step::Framing => skip += 1,
                        Step::Data(left) => {
                            let data = take(left, input.len() - skip);
                            return Ok(Decoded { skip, data });
                        }
                        Step::Done => break,
                    }
                }
                Ok(Decoded { skip, data: 0 })
            }
            State::UntilClose => Ok(Decoded { skip: 0, data: input.len() }),
            State::Closed => Ok(Decoded::default()),
        }
    }

    /// Whether the body's last byte, and all framing after it, has been decoded. A body that lasts until
    /// close is complete only after [`eof`](Self::eof).
    pub fn is_complete(&self) -> bool {
        match &self.state {
            State::Length(left) => *left == 0,
            State::Chunked(chunks) => chunks.is_done(),
            State::UntilClose => false,
            State::Closed => true,
        }
    }

    /// The sender sent FIN. Returns whether the body is complete now; if not, it was cut short.
    pub fn eof(&mut self) -> bool {
        if let State::UntilClose = self.state {
            self.state = State::Closed;
        }
        self.is_complete()
    }

    /// The framing that this decoder was made for.
    pub fn framing(&self) -> Framing {
        self.framing
    }
}

/// Takes as much of `left` as lies in `available` bytes.
fn take(left: &mut u64, available: usize) -> usize {
    let n = usize::try_from(*left).unwrap_or(usize::MAX).min(available);
    *left -= n as u64;
    n
}
