//! What can end a request other than success: plain values, `Copy + Eq`, so that they compare across
//! runtimes. No `io::Error` lives here: an adapter's error arrives as an [`IoFailure`].

use core::fmt;
use core::time::Duration;

use crate::http::HttpError;
use crate::time::Instant;
use crate::timeout::DeadlineKind;

/// Which of the two peers.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub enum Side {
    /// The client (downstream).
    Client,
    /// The upstream.
    Upstream,
}

impl fmt::Display for Side {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Side::Client => "client",
            Side::Upstream => "upstream",
        })
    }
}

/// The class of a failed socket operation.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum IoKind {
    /// Nobody listens there.
    Refused,
    /// The peer sent RST, or the connection was aborted.
    Reset,
    /// Written to a connection that the peer has closed.
    BrokenPipe,
    /// No route to the network or host.
    Unreachable,
    /// The kernel's own timeout; for a lookup, the resolver's.
    TimedOut,
    /// The name has no address, or whoever was asked could not say.
    NotFound,
    /// Anything else; `os_code` says what.
    Other,
}

/// A failed socket operation, reduced to what compares.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct IoFailure {
    /// Its class.
    pub kind: IoKind,
    /// The system's error number, where there was one.
    pub os_code: Option<i32>,
}

impl fmt::Display for IoFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let what = match self.kind {
            IoKind::Refused => "connection refused",
            IoKind::Reset => "connection reset",
            IoKind::BrokenPipe => "broken pipe",
            IoKind::Unreachable => "unreachable",
            IoKind::TimedOut => "timed out in the system",
            IoKind::NotFound => "no address found",
            IoKind::Other => "i/o error",
        };
        match self.os_code {
            Some(code) => write!(f, "{what} (os error {code})"),
            None => f.write_str(what),
        }
    }
}

/// What an exchange was waiting for.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Phase {
    /// For the rest of the request head.
    RequestHead,
    /// For a free upstream connection.
    Queue,
    /// For the addresses of the upstream's name.
    Dns,
    /// For the connection to the upstream.
    Connect,
    /// For the request to be written, or for the client to send it.
    Request,
    /// For the response head.
    ResponseHead,
    /// For the response body, or for the client to take it.
    ResponseBody,
    /// For either side to send something through the tunnel, or to take it.
    Tunnel,
    /// For nothing: the connection is idle.
    Idle,
    /// For the client to close after our last byte.
    Linger,
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Phase::RequestHead => "request head",
            Phase::Queue => "queue",
            Phase::Dns => "dns",
            Phase::Connect => "connect",
            Phase::Request => "request",
            Phase::ResponseHead => "response head",
            Phase::ResponseBody => "response body",
            Phase::Tunnel => "tunnel",
            Phase::Idle => "idle",
            Phase::Linger => "linger",
        })
    }
}

/// A deadline ran out (`docs/TIMEOUTS.md`, The deadlines).
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} timeout after {elapsed:?} (limit {limit:?}) during {during}, blocked on the {blocked_on}")]
pub struct TimeoutError {
    /// Which deadline.
    pub kind: DeadlineKind,
    /// Its limit.
    pub limit: Duration,
    /// When it started to run (for a deadline that progress resets: when it last did).
    pub started: Instant,
    /// How long it had run when it was reported; never less than `limit`.
    pub elapsed: Duration,
    /// What the exchange was waiting for.
    pub during: Phase,
    /// Whom it was waiting for (`timeouts.md` T9).
    pub blocked_on: Side,
    /// Whether a final response head had been forwarded to the client.
    pub response_started: bool,
}

/// Why a request did not end well.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A deadline ran out.
    #[error(transparent)]
    Timeout(#[from] TimeoutError),
    /// The upstream's name could not be resolved.
    #[error("resolve the upstream's name: {0}")]
    Resolve(IoFailure),
    /// No connection to the upstream could be made.
    #[error("connect to the upstream: {0}")]
    Connect(IoFailure),
    /// The upstream sent FIN before its response was complete.
    #[error("the upstream closed before its response was complete")]
    UpstreamClosed,
    /// The upstream connection failed before the response was complete.
    #[error("the upstream connection failed: {0}")]
    UpstreamReset(IoFailure),
    /// The upstream's answer is not HTTP, or is framed ambiguously.
    #[error("the upstream's response: {0}")]
    UpstreamProtocol(HttpError),
    /// The client left: RST, a failed write to it, or FIN inside its request.
    #[error("the client left")]
    ClientAbort(Option<IoFailure>),
    /// The client's request is malformed or too large.
    #[error("the client's request: {0}")]
    BadRequest(HttpError),
    /// No upstream was free, and too many requests waited for one.
    #[error("the queue for an upstream is full")]
    QueueFull,
    /// There is no upstream to forward to.
    #[error("no upstream is configured")]
    NoUpstream,
    /// The proxy was stopped.
    #[error("the proxy was stopped")]
    Stopped,
}

impl Error {
    /// The failed socket operation behind it, if there is one.
    pub const fn io_failure(self) -> Option<IoFailure> {
        match self {
            Error::Resolve(failure) | Error::Connect(failure) | Error::UpstreamReset(failure) => {
                Some(failure)
            }
            Error::ClientAbort(failure) => failure,
            _ => None,
        }
    }
}
