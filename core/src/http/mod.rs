//! HTTP/1.1 messages: finding and validating heads, rewriting them, framing bodies.
//!
//! Pure functions and small decoders over byte slices; no sockets, no clock, no buffers of their own.
//! Tokenizing is httparse's work; what it lets through and an intermediary must not is refused here
//! (`docs/HTTP.md`). Nothing is ever copied through unparsed: a message that leaves is one that we wrote.
//!
//! ```
//! use tidegate_core::http::{HttpError, IdSource, rewrite_request};
//!
//! let mut ids = IdSource::new(1);
//! let mut rewrite = |head: &str| -> Result<String, HttpError> {
//!     let mut out = Vec::new();
//!     rewrite_request(head.as_bytes(), None, &[], &mut ids, &mut out)?;
//!     Ok(String::from_utf8_lossy(&out).into_owned())
//! };
//!
//! let head = "GET http://example.org/a HTTP/1.1\r\nHost: b\r\nConnection: secret\r\nSecret: c\r\n\r\n";
//! let ours = rewrite(head)?;
//! assert!(ours.starts_with("GET /a HTTP/1.1\r\nhost: example.org\r\n") && !ours.contains("ecret"), "{ours}");
//!
//! let two_lengths = "POST / HTTP/1.1\r\nHost: b\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n";
//! assert_eq!(rewrite(two_lengths), Err(HttpError::Framing));
//! # Ok::<(), HttpError>(())
//! ```

mod body;
mod chunk;
mod fields;
mod ids;
mod own;
mod request;
mod response;
mod scan;
mod target;
#[cfg(test)]
mod tests;
mod trust;

pub use body::{BodyDecoder, Decoded, Framing};
pub use chunk::{ChunkLine, LAST_CHUNK};
pub use ids::IdSource;
pub use own::{HttpDate, OwnResponse, reason, write_own};
pub use request::{RequestHead, RequestInfo, Version, rewrite_request};
pub use response::{ResponseContext, ResponseInfo, rewrite_response};
pub use scan::{HeadScan, leading_crlf};
pub use trust::{PeerAddr, Prefix, PrefixError};

/// What is wrong with a message.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, thiserror::Error)]
#[error("{}", self.reason())]
#[non_exhaustive]
pub enum HttpError {
    /// The head does not parse: start-line or field syntax (RFC 9112 sections 3 to 5).
    Malformed,
    /// The request target is not of the form that its method asks for, or holds a forbidden byte.
    Target,
    /// Neither HTTP/1.0 nor HTTP/1.1.
    Version,
    /// Host is missing, repeated or malformed (RFC 9112 section 3.2).
    Host,
    /// Content-Length or Transfer-Encoding is invalid or ambiguous (RFC 9112 section 6.3).
    Framing,
    /// A transfer coding that we do not know (RFC 9112 section 6.1).
    TransferCoding,
    /// CONNECT, which a reverse proxy refuses.
    Connect,
    /// A broken chunk line, chunk end or trailer section (RFC 9112 section 7.1).
    Chunk,
    /// No end of the request line within the head limit.
    TargetTooLong,
    /// The head is larger than the limit, or has too many fields.
    HeadTooLarge,
    /// The body is larger than the limit.
    BodyTooLarge,
    /// A 101 that nobody asked for, or that is not what was asked for.
    UnexpectedUpgrade,
    /// More interim responses than the limit.
    TooManyInterim,
}

impl HttpError {
    /// What is wrong, in words: the `details` of `Proxy-Status`.
    pub const fn reason(self) -> &'static str {
        match self {
            HttpError::Malformed => "malformed head",
            HttpError::Target => "invalid request target",
            HttpError::Version => "unsupported HTTP version",
            HttpError::Host => "missing or invalid Host",
            HttpError::Framing => "invalid or ambiguous framing",
            HttpError::TransferCoding => "unknown transfer coding",
            HttpError::Connect => "CONNECT is not supported",
            HttpError::Chunk => "malformed chunked body",
            HttpError::TargetTooLong => "request target too long",
            HttpError::HeadTooLarge => "head too large",
            HttpError::BodyTooLarge => "body too large",
            HttpError::UnexpectedUpgrade => "unexpected 101",
            HttpError::TooManyInterim => "too many interim responses",
        }
    }

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
