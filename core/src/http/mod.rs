//! HTTP/1.1 messages: finding and validating heads, rewriting them, framing bodies.
//!
//! Pure functions and small decoders over byte slices; no sockets, no clock, no buffers of their own.
//! Tokenizing is httparse's work; what it lets through and an intermediary must not is refused here
//! (`docs/HTTP.md`). Nothing is ever copied through unparsed: a message that leaves is one that we wrote.

mod body;
mod chunk;
mod fields;
mod own;
mod request;
mod response;
mod scan;
mod target;
#[cfg(test)]
mod tests;

pub use body::{BodyDecoder, Decoded, Framing};
pub use chunk::{ChunkLine, LAST_CHUNK};
pub use own::{HttpDate, OwnResponse, reason, write_own};
pub use request::{PeerAddr, RequestHead, RequestInfo, Version, rewrite_request};
pub use response::{ResponseContext, ResponseInfo, rewrite_response};
pub use scan::{HeadScan, leading_crlf};

/// What is wrong with a message.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[non_exhaustive]
pub enum HttpError {
    /// The head does not parse: start-line or field syntax (RFC 9112 sections 3 to 5).
    #[error("malformed head")]
    Malformed,
    /// The request target is not of the form that its method asks for, or holds a forbidden byte.
    #[error("invalid request target")]
    Target,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    #[error("unsupported HTTP version")]
    Version,
    /// Host is missing, repeated or malformed (RFC 9112 section 3.2).
    #[error("missing or invalid Host")]
    Host,
    /// Content-Length or Transfer-Encoding is invalid or ambiguous (RFC 9112 section 6.3).
    #[error("invalid or ambiguous framing")]
    Framing,
    /// A transfer coding that we do not know (RFC 9112 section 6.1).
    #[error("unknown transfer coding")]
    TransferCoding,
    /// CONNECT, which a reverse proxy refuses.
    #[error("CONNECT is not supported")]
    Connect,
    /// A broken chunk line, chunk end or trailer section (RFC 9112 section 7.1).
    #[error("malformed chunked body")]
    Chunk,
    /// No end of the request line within the head limit.
    #[error("request target too long")]
    TargetTooLong,
    /// The head is larger than the limit, or has too many fields.
    #[error("head too large")]
    HeadTooLarge,
    /// The body is larger than the limit.
    #[error("body too large")]
    BodyTooLarge,
    /// A 101 that nobody asked for.
    #[error("unexpected 101")]
    UnexpectedUpgrade,
    /// More interim responses than the limit.
    #[error("too many interim responses")]
    TooManyInterim,
}

impl HttpError {
    /// The status that answers a *request* with this fault (`http.md`, status mapping).
    pub const fn status(self) -> u16 {
        match self {
            HttpError::TransferCoding | HttpError::Connect => 501,
            HttpError::Version => 505,
            HttpError::TargetTooLong => 414,
            HttpError::HeadTooLarge => 431,
            HttpError::BodyTooLarge => 413,
            _ => 400,
        }
    }
}
