//! What the machine wants and what it reports: plain values.

use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use crate::error::{Error, IoFailure, Phase, Side};
use crate::http::{HttpDate, IdSource};
use crate::relay::lent::Rest;
use crate::time::Instant;
use crate::upstream::UpstreamId;

/// What a turn lends to the machine: the time, the date to write into heads, memory, and new ids.
#[derive(Debug)]
pub struct Env<'a> {
    /// The time at which what is reported happened. Never goes backwards within a turn.
    pub now: Instant,
    /// The wall clock's date, for `date` fields.
    pub date: &'a HttpDate,
    /// Where blocks come from and go to.
    pub bufs: &'a mut crate::buf::BufPool,
    /// Where the ids of requests come from that bring none.
    pub ids: &'a mut IdSource,
}

/// Which socket operations the machine wants now. Everything not wanted must not be done: an absent
/// read is the only back-pressure.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub struct Interest {
    /// Read from the client.
    pub read_client: bool,
    /// Read from the upstream.
    pub read_upstream: bool,
    /// Write to the upstream.
    pub write_upstream: bool,
    /// Write to the client.
    pub write_client: bool,
}

impl Interest {
    /// Whether `op` is wanted.
    pub const fn wants(self, op: Op) -> bool {
        match op {
            Op::Read(Side::Client) => self.read_client,
            Op::Read(Side::Upstream) => self.read_upstream,
            Op::Write(Side::Client) => self.write_client,
            Op::Write(Side::Upstream) => self.write_upstream,
            Op::Connect => false,
        }
    }
}

/// A socket operation.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Op {
    /// Connecting to the upstream.
    Connect,
    /// Reading from a side.
    Read(Side),
    /// Writing to a side.
    Write(Side),
}

impl Op {
    /// The order in which one pass of a turn serves the sockets (`docs/TIMEOUTS.md`, Rules).
    pub const PASS: [Op; 4] = [
        Op::Read(Side::Client),
        Op::Read(Side::Upstream),
        Op::Write(Side::Upstream),
        Op::Write(Side::Client),
    ];
}

/// What the driver must do, in this order, before any further socket operation.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Action {
    /// Send RST on the side's connection and close it. For the upstream also: drop the lookup or the attempt to
    /// connect, leave the queue, and, as at each end of the upstream's part, give back what was granted. What is among
    /// [`Relay::tried`](super::Relay::tried) could not be reached, and is given back as such, before another gets it.
    Abort(Side),
    /// Close the side's connection: FIN, and before it what a wrapping stream has to say (TLS: `close_notify`). The
    /// client's stream may have to wait for that, as long as the machine is not [closed](super::Relay::is_closed): linger
    /// ends the wait, and this action comes once more then. When it is done, call
    /// [`Relay::closed`](super::Relay::closed).
    Close(Side),
    /// Send RST on the upstream connection and close it, and keep what was granted: it was an idle one that turned out to
    /// be dead, and another is made in its place.
    Discard,
    /// Put the upstream connection into the pool, to be closed after `idle`.
    Release {
        /// Whose connection it is.
        upstream: UpstreamId,
        /// How long nobody must get it: what comes meanwhile came of the last request, and the connection is closed. Zero
        /// unless there is reason to fear that something does.
        settle: Duration,
        /// The pool idle limit of the request's policy.
        idle: Option<Duration>,
    },
    /// An exchange is over: show [`Relay::outcome`](super::Relay::outcome) to whoever observes.
    Report,
    /// Ask for an upstream that was not [`tried`](super::Relay::tried), then call
    /// [`Relay::granted`](super::Relay::granted) (later, if it has to wait: [`Relay::queued`](super::Relay::queued)),
    /// [`Relay::refused`](super::Relay::refused) or [`Relay::exhausted`](super::Relay::exhausted). The last that was tried
    /// could not be reached just now, at none of [`Relay::unreached`](super::Relay::unreached).
    Admit,
    /// A request head is complete: read [`Relay::request`](super::Relay::request), then call
    /// [`Relay::forward`](super::Relay::forward) or [`Relay::respond`](super::Relay::respond).
    Route,
    /// Look for an idle connection in the pool, then call
    /// [`Relay::connected`](super::Relay::connected) or [`Relay::pool_miss`](super::Relay::pool_miss).
    Checkout(UpstreamId),
    /// Find out where the upstream is, then call [`Relay::resolved`](super::Relay::resolved); before that, if it is a
    /// name and the answer has to be waited for, [`Relay::resolving`](super::Relay::resolving).
    Resolve(UpstreamId),
    /// Start to connect, then call [`Relay::connected`](super::Relay::connected) or
    /// [`Relay::failed`](super::Relay::failed). An attempt that still goes on, at another address, is dropped first.
    Connect {
        /// To which upstream.
        upstream: UpstreamId,
        /// At which of its addresses.
        addr: SocketAddr,
    },
    /// Send FIN to the side; the other direction stays open.
    ShutdownWrite(Side),
}

/// How one request ended: all that a log line or a metric needs.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Outcome {
    /// The status of the final response that was sent to the client, if any was begun; 101 of a tunnel.
    pub status: Option<u16>,
    /// What went wrong, if something did.
    pub error: Option<Error>,
    /// What failed after the error above; it never replaces it (`timeouts.md` T7). In a tunnel that a limit or a stop has
    /// ended, the side that had failed before.
    pub secondary: Option<IoFailure>,
    /// The upstream that was used or tried last.
    pub upstream: Option<UpstreamId>,
    /// Attempts to connect; all addresses of an upstream are one.
    pub attempts: u16,
    /// Whether it ended on a connection from the pool; no if that was dead and another was to be made.
    pub reused: bool,
    /// Body bytes of the request, and of a tunnel after it, that the upstream's socket took.
    pub request_bytes: u64,
    /// Body bytes of the response, or of the tunnel, that the client's socket took. A response of the proxy's own counts
    /// as nothing.
    pub response_bytes: u64,
    /// How long it was in each phase.
    pub timing: Timing,
    /// When the request head was complete (or, without one, when that was found out).
    pub started: Instant,
    /// When the exchange was over. Both are readings of the clock that a turn takes once, so they are equal if the
    /// whole exchange fell into one turn.
    pub finished: Instant,
}

/// How long a request was in each phase; what it skipped is zero, and what it entered again is added up. The time
/// in a tunnel is in none of them: it is the rest.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Timing {
    /// Waiting for a free upstream.
    pub queue: Duration,
    /// Asking the route, looking up the name, and connecting.
    pub connect: Duration,
    /// Writing the request, or waiting for the client to send it.
    pub request: Duration,
    /// Waiting for the response head.
    pub response_head: Duration,
    /// Relaying the response body, or sending an answer of our own.
    pub response_body: Duration,
}

impl Timing {
    pub(crate) const ZERO: Timing = Timing {
        queue: Duration::ZERO,
        connect: Duration::ZERO,
        request: Duration::ZERO,
        response_head: Duration::ZERO,
        response_body: Duration::ZERO,
    };

    pub(crate) fn add(&mut self, phase: Phase, time: Duration) {
        match phase {
            Phase::Queue => self.queue += time,
            Phase::Dns | Phase::Connect => self.connect += time,
            Phase::Request => self.request += time,
            Phase::ResponseHead => self.response_head += time,
            Phase::ResponseBody => self.response_body += time,
            Phase::RequestHead | Phase::Tunnel | Phase::Idle | Phase::Linger => {}
        }
    }
}

/// What there is to say of the request that was served last.
#[derive(Debug)]
pub(crate) struct Reported {
    pub(crate) outcome: Option<Outcome>,
    /// Its head as it was written for the upstream.
    pub(crate) head: Vec<u8>,
}

impl Rest for Reported {
    const REST: Reported = Reported { outcome: None, head: Vec::new() };

    fn at_rest() -> &'static Reported {
        static REST: Reported = Reported::REST;
        &REST
    }
}

/// The actions that wait to be taken.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Actions {
    pub(crate) upstream: Option<End>,
    pub(crate) report: bool,
    pub(crate) step: Option<Step>,
    /// Whose turn it is to get FIN.
    pub(crate) fin_upstream: bool,
    pub(crate) fin_client: bool,
    pub(crate) client: Option<End>,
}

/// How a connection is to end.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum End {
    Abort,
    Close,
    /// Of the upstream alone: it is replaced.
    Discard,
    Release {
        upstream: UpstreamId,
        settle: Duration,
        idle: Option<Duration>,
    },
}

/// What the exchange needs next from outside.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Step {
    Route,
    Admit,
    Checkout(UpstreamId),
    Resolve(UpstreamId),
    /// To the address whose turn it is.
    Connect(UpstreamId),
}

impl Actions {
    /// Takes the first one: teardown of the upstream always comes first (`timeouts.md` T6). `addr` is the address whose
    /// turn it is.
    pub(crate) fn pop(&mut self, addr: Option<SocketAddr>) -> Option<Action> {
        if let Some(end) = self.upstream.take() {
            return Some(match end {
                End::Abort => Action::Abort(Side::Upstream),
                End::Close => Action::Close(Side::Upstream),
                End::Discard => Action::Discard,
                End::Release { upstream, settle, idle } => Action::Release { upstream, settle, idle },
            });
        }
        if core::mem::take(&mut self.report) {
            return Some(Action::Report);
        }
        if let Some(step) = self.step.take() {
            return Some(match step {
                Step::Route => Action::Route,
                Step::Admit => Action::Admit,
                Step::Checkout(id) => Action::Checkout(id),
                Step::Resolve(id) => Action::Resolve(id),
                Step::Connect(upstream) => Action::Connect { upstream, addr: addr? },
            });
        }
        if core::mem::take(&mut self.fin_upstream) {
            return Some(Action::ShutdownWrite(Side::Upstream));
        }
        if core::mem::take(&mut self.fin_client) {
            return Some(Action::ShutdownWrite(Side::Client));
        }
        match self.client.take()? {
            End::Abort => Some(Action::Abort(Side::Client)),
            End::Close | End::Discard | End::Release { .. } => Some(Action::Close(Side::Client)),
        }
    }
}
