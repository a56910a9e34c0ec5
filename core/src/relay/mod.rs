//! The machine: one client connection, the requests on it, and at most one upstream connection.
//!
//! [`Relay`] is a state machine without I/O. It holds no socket, reads no clock and calls nobody; a
//! driver asks what is wanted, does it, and says what happened and when:
//!
//! ```text
//! turn(now):
//!   1. take every poll_action(), then do what interest() wants, in the order of Op::PASS:
//!        read   recv_buf() -> the kernel fills it -> received(n) | not_ready() | failed()
//!        write  send_bufs() -> one writev         -> sent(n)                | failed()
//!      again while something moves, up to a bound;
//!   2. if poll_timeout() is due: one direct look at each socket that is waited for, then
//!      handle_timeout(): exactly one deadline fires;
//!   3. the actions and writes that follow from it;
//!   4. arm one timer at poll_timeout().at.
//! ```
//!
//! Inputs return nothing: what went wrong shows in [`Relay::outcome`] alone. The result is a pure
//! function of the inputs and their `env`. Early, late and repeated calls of
//! [`Relay::handle_timeout`] are safe. Nothing here may decide how bytes look (that is `http/`).

mod address;
mod client;
mod deadlines;
mod endings;
mod exchange;
mod flow;
mod lent;
mod outcome;
#[cfg(test)]
mod tests;
mod tunnel;
mod upstream;
mod verdict;

use alloc::string::String;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;
use core::mem;
use core::net::IpAddr;

pub use self::flow::MAX_SLICES;
pub use self::outcome::{Action, Env, Interest, Op, Outcome, Timing};

use self::client::{ClientConn, ClientState};
use self::exchange::{Exchange, Stage};
use self::lent::Lent;
pub(crate) use self::lent::Spares;
use self::outcome::{Actions, End, Reported};
use self::upstream::{Ended, UpstreamConn};
use crate::error::{Error, IoFailure, IoKind, Side};
use crate::http::{PeerAddr, Prefix, RequestHead};
use crate::time::Instant;
use crate::timeout::{Deadline, DeadlineKind, Deadlines, TimeoutPolicy};
use crate::upstream::{Addresses, UpstreamId};

/// What is the same for every connection of a proxy.
///
/// ```
/// use core::time::Duration;
/// use tidegate_core::{Config, TimeoutPolicy};
///
/// let config = Config {
///     timeouts: TimeoutPolicy { read: Some(Duration::from_secs(5)), ..TimeoutPolicy::default() },
///     max_body: Some(10 << 20),
///     upgrades: Vec::new(),
///     ..Config::default()
/// };
/// assert_eq!(config.max_head, 64 * 1024);
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// The limits of the connection itself, and of every request whose route names none of its own.
    pub timeouts: TimeoutPolicy,
    /// The largest request or response head, in bytes. Default 64 KiB.
    pub max_head: usize,
    /// The largest request body, in bytes. Default: no limit.
    pub max_body: Option<u64>,
    /// The protocols to which a client may upgrade, as in the field Upgrade: after the upstream's `101` bytes are passed
    /// on as they are. Compared in any case; empty: none. HTTP itself (`h2c`) never passes. Default: `websocket`.
    pub upgrades: Vec<String>,
    /// The proxies in front of this one: what they say about the hops before them (`X-Forwarded-*`, `Forwarded`) is
    /// passed on, and ours is appended; anybody else's is removed. Default: none.
    pub trusted: Vec<Prefix>,
    /// Client connections at once. When one more comes, the client that has been idle for longest makes room; if
    /// none is idle, it waits, and those behind it wait to be accepted. Default 1,000.
    pub max_client_conns: usize,
    /// Idle connections to one upstream that are kept for later at most, on each runtime instance; a further one is
    /// closed. Default 256.
    pub pool_size: usize,
    /// Socket operations of one connection in a row, before other tasks get their turn; at least one pass is made. Default
    /// 16.
    ///
    /// It is looked at after each pass over the sockets, so that neither direction waits for the other: a pass is one read
    /// and one write of each side at most. If a deadline is due, each socket that is waited for is looked at once more.
    pub turn_ops: usize,
    /// The same for bytes moved. Default 256 KiB. What a pass adds is a block for each operation: a turn moves less than
    /// this and four times [`BULK_BLOCK`](crate::BULK_BLOCK), 2 MiB, and once more as much if a deadline is due.
    pub turn_bytes: usize,
}

impl Default for Config {
    fn default() -> Config {
        Config {
            timeouts: TimeoutPolicy::default(),
            max_head: 64 * 1024,
            max_body: None,
            upgrades: vec![String::from("websocket")],
            trusted: Vec::new(),
            max_client_conns: 1000,
            pool_size: 256,
            turn_ops: 16,
            turn_bytes: 256 * 1024,
        }
    }
}

/// The state machine of one client connection. See the module's text for how to drive it.
#[derive(Debug)]
pub struct Relay {
    config: Arc<Config>,
    peer: Option<PeerAddr>,
    client: ClientConn,
    upstream: Lent<UpstreamConn>,
    exchange: Lent<Exchange>,
    deadlines: Deadlines,
    actions: Actions,
    reported: Lent<Reported>,
    /// When a drain was asked for.
    pub(crate) draining: Option<Instant>,
}

impl Relay {
    /// The machine for a client that was accepted at `now` from `peer`.
    pub fn new(config: Arc<Config>, peer: Option<IpAddr>, now: Instant) -> Relay {
        let mut relay = Relay {
            peer: peer.map(|addr| PeerAddr::new(addr, &config.trusted)),
            client: ClientConn::new(),
            upstream: Lent::NONE,
            exchange: Lent::NONE,
            deadlines: Deadlines::default(),
            actions: Actions::default(),
            reported: Lent::NONE,
            draining: None,
            config,
        };
        relay.sync_deadlines(now);
        relay
    }

    // ---- what it wants ---------------------------------------------------------------------------

    /// Which socket operations are wanted now. Take every [`Relay::poll_action`] first.
    pub fn interest(&self) -> Interest {
        let (client, upstream, stage) = (&self.client, &self.upstream, self.exchange.stage);
        if self.exchange.held {
            return Interest::default();
        }
        let read_client = !client.inbound.eof
            && match client.state {
                ClientState::First | ClientState::Idle | ClientState::Head => client.inbound.has_room(true),
                // Also without a body to come: a client that leaves must be noticed.
                ClientState::Exchange => {
                    !matches!(stage, Stage::Routing | Stage::Answering) && client.inbound.has_room(false)
                }
                ClientState::Linger => true,
                ClientState::Closing | ClientState::Closed => false,
            };
        let relaying = matches!(stage, Stage::Relaying | Stage::Tunnel);
        Interest {
            read_client,
            read_upstream: relaying && upstream.wants_read(&client.outbound),
            write_upstream: relaying && upstream.write_failed.is_none() && upstream.outbound.is_pending(),
            write_client: client.outbound.is_pending() && self.actions.upstream.is_none(),
        }
    }

    /// Where the next bytes from `side` go. Empty means back-pressure; never so while
    /// [`Relay::interest`] wants the read. Takes a block from the pool if there is none.
    pub fn recv_buf(&mut self, side: Side, env: &mut Env<'_>) -> &mut [u8] {
        match side {
            Side::Client => {
                let head = self.client.expects_head();
                self.client.inbound.recv_buf(head, env.bufs)
            }
            Side::Upstream => {
                let head = self.upstream.response.is_none();
                self.upstream.inbound.recv_buf(head, env.bufs)
            }
        }
    }

    /// What goes to `side`, in order: at most [`MAX_SLICES`] slices, for one vectored write.
    pub fn send_bufs(&self, side: Side) -> impl Iterator<Item = &[u8]> {
        match side {
            Side::Client => self.client.outbound.bufs(&self.upstream.inbound),
            Side::Upstream => self.upstream.outbound.bufs(&self.client.inbound),
        }
    }

    /// Whether what goes to `side` is a long body that comes fast, and lies in one of the few larger blocks: its socket may take
    /// more at a time than others.
    pub fn is_bulk(&self, side: Side) -> bool {
        match side {
            Side::Client => self.upstream.inbound.is_bulk(),
            Side::Upstream => self.client.inbound.is_bulk(),
        }
    }

    /// The next thing that must be done before any socket operation, if there is one.
    pub fn poll_action(&mut self) -> Option<Action> {
        self.actions.pop(self.exchange.address())
    }

    /// The earliest deadline. Its instant is exact; nothing before it needs a timer.
    pub fn poll_timeout(&self) -> Option<Deadline> {
        self.deadlines.earliest()
    }

    /// The client's connection is over; once the actions are taken, so is the machine.
    pub fn is_closed(&self) -> bool {
        self.client.state == ClientState::Closed
    }

    /// A request is being served.
    pub fn is_active(&self) -> bool {
        self.exchange.stage != Stage::Idle
    }

    // ---- what happened ---------------------------------------------------------------------------

    /// `n` bytes were read from `side` into [`Relay::recv_buf`]; zero says that the side sent FIN.
    pub fn received(&mut self, side: Side, n: usize, env: &mut Env<'_>) {
        match (side, n) {
            (Side::Client, 0) => self.client.inbound.eof = true,
            (Side::Client, _) => {
                self.client.inbound.received(n);
                self.progress(DeadlineKind::ClientBody);
            }
            (Side::Upstream, 0) => self.upstream.fin(),
            (Side::Upstream, _) => {
                self.upstream.inbound.received(n);
                self.upstream.answered = true;
                self.progress(DeadlineKind::Read);
            }
        }
        self.settle(env);
    }

    /// A read from `side` found nothing: an empty block goes back to the pool, and one that holds only the beginning of a
    /// head is exchanged for one of 2 KiB until more comes.
    pub fn not_ready(&mut self, side: Side, env: &mut Env<'_>) {
        match side {
            Side::Client => {
                self.client.inbound.wait(env.bufs);
                if self.reported.is_some() {
                    env.bufs.give_head(mem::take(&mut self.reported.head));
                    self.reported.give_back(&mut env.bufs.spares.reports);
                }
            }
            Side::Upstream => self.upstream.inbound.wait(env.bufs),
        }
    }

    /// `side` took the first `n` bytes of [`Relay::send_bufs`]. `n` is not zero.
    pub fn sent(&mut self, side: Side, n: usize, env: &mut Env<'_>) {
        match side {
            Side::Client => {
                let body = self.client.outbound.sent(n, &mut self.upstream.inbound);
                self.exchange.response_bytes += body as u64;
                // Nobody may ask for a read for a long time.
                self.upstream.inbound.release(env.bufs);
                self.forwarded(DeadlineKind::ClientWrite);
            }
            Side::Upstream => {
                let body = self.upstream.outbound.sent(n, &mut self.client.inbound);
                self.exchange.request_bytes += body as u64;
                self.client.inbound.release(env.bufs);
                self.forwarded(DeadlineKind::WriteIdle);
            }
        }
        self.settle(env);
    }

    /// The upstreams that this request has failed to reach.
    pub fn tried(&self) -> &[UpstreamId] {
        &self.exchange.tried
    }

    /// Where the upstream was believed to be that [`Action::Admit`] says could not be reached, if that was known: not one
    /// of these addresses can be connected to. Stands until the next attempt.
    pub fn unreached(&self) -> Option<&Addresses> {
        let failed = self.exchange.stage == Stage::Queued && !self.exchange.tried.is_empty();
        self.exchange.addresses.as_ref().filter(|_| failed)
    }

    /// The request may use this upstream.
    pub fn granted(&mut self, id: UpstreamId, env: &mut Env<'_>) {
        if self.exchange.stage == Stage::Queued {
            self.begin_upstream(id, env);
            self.settle(env);
        }
    }

    /// No upstream is free: the queue's deadline starts.
    pub fn queued(&mut self, env: &mut Env<'_>) {
        self.exchange.waiting = self.exchange.stage == Stage::Queued;
        self.settle(env);
    }

    /// No upstream is free, and too many wait already.
    pub fn refused(&mut self, env: &mut Env<'_>) {
        if self.exchange.stage == Stage::Queued {
            self.fail(Error::QueueFull, env);
            self.settle(env);
        }
    }

    /// There is no upstream that was not tried.
    pub fn exhausted(&mut self, env: &mut Env<'_>) {
        if self.exchange.stage == Stage::Queued {
            self.give_up(env);
            self.settle(env);
        }
    }

    /// A pooled (`reused`) or new connection to the upstream is there.
    pub fn connected(&mut self, reused: bool, env: &mut Env<'_>) {
        if matches!(self.exchange.stage, Stage::Checkout | Stage::Connecting) {
            self.begin_relaying(reused, env);
        }
    }

    /// There is no idle connection to the upstream.
    pub fn pool_miss(&mut self, env: &mut Env<'_>) {
        if self.exchange.stage == Stage::Checkout {
            self.dial(env);
        }
    }

    /// The upstream is a name, and its addresses have to be waited for: from now on that is what the connect deadline
    /// is spent on.
    pub fn resolving(&mut self, env: &mut Env<'_>) {
        if self.exchange.stage == Stage::Resolving {
            self.exchange.waiting = true;
            self.settle(env);
        }
    }

    /// The upstream's addresses: they are tried in order, within one connect deadline. Or why there are none; so says
    /// an empty list, too.
    pub fn resolved(&mut self, found: Result<Addresses, IoFailure>, env: &mut Env<'_>) {
        if self.exchange.stage == Stage::Resolving {
            self.begin_addresses(found, env);
            self.settle(env);
        }
    }

    /// A socket operation failed.
    pub fn failed(&mut self, op: Op, failure: IoFailure, env: &mut Env<'_>) {
        match op {
            Op::Connect if self.exchange.stage == Stage::Connecting => {
                self.address_failed(Error::Connect(failure), env);
            }
            Op::Read(Side::Upstream) => self.upstream.ended = Some(Ended::Failed(failure)),
            // A broken pipe says that its FIN came first: all that it said before is still delivered (RFC 9110
            // section 9.3.6).
            Op::Write(Side::Upstream)
                if self.exchange.stage == Stage::Tunnel
                    && self.upstream.ended.is_none()
                    && failure.kind != IoKind::BrokenPipe =>
            {
                self.upstream.ended = Some(Ended::Failed(failure));
            }
            Op::Write(Side::Upstream) if self.exchange.stage == Stage::Tunnel => {
                self.stop_writing(Side::Upstream, failure);
            }
            // The answer to a request that was not read to its end may still be on its way.
            Op::Write(Side::Upstream) => {
                self.upstream.write_failed = Some(failure);
                self.upstream.outbound.cut();
            }
            // So it is for a client that has the 101; if its FIN was read, whatever the failure is.
            Op::Write(Side::Client)
                if self.exchange.stage == Stage::Tunnel
                    && self.client.outbound.head_sent()
                    && (self.client.inbound.eof || failure.kind == IoKind::BrokenPipe) =>
            {
                self.stop_writing(Side::Client, failure);
            }
            Op::Read(Side::Client) | Op::Write(Side::Client) => {
                if self.is_active() {
                    self.fail(Error::ClientAbort(Some(failure)), env);
                } else {
                    self.close_client(End::Close);
                }
            }
            Op::Connect => {}
        }
        self.settle(env);
    }

    /// Looks at the deadlines: the earliest that is due fires, exactly one. Early calls do nothing.
    pub fn handle_timeout(&mut self, env: &mut Env<'_>) {
        if let Some(due) = self.deadlines.due(env.now) {
            self.expire(due, env);
            self.settle(env);
        }
    }

    /// Ends everything at once: the upstream is reset, the client closed (reset where only that shows
    /// that its response is not whole).
    pub fn stop(&mut self, env: &mut Env<'_>) {
        if self.is_active() {
            self.fail(Error::Stopped, env);
        } else if !self.is_closed() {
            self.close_client(End::Close);
        }
        self.settle(env);
    }

    /// Finishes what has begun, and begins nothing: an idle connection is closed, a running request has until the
    /// drain deadline counted from `since`, and its response says `Connection: close`. May be called again.
    pub fn drain(&mut self, since: Instant, env: &mut Env<'_>) {
        self.draining.get_or_insert(since);
        if self.is_idle() || self.client.state == ClientState::First {
            self.finish_client(env.now);
        }
        self.settle(env);
    }

    /// Closes the connection if it is idle.
    pub fn close_idle(&mut self, env: &mut Env<'_>) {
        if self.is_idle() {
            self.finish_client(env.now);
        }
        self.settle(env);
    }

    /// A request was answered, and nothing of another has come. (A client that was just accepted is not idle: its
    /// request may be on its way.)
    pub fn is_idle(&self) -> bool {
        self.client.state == ClientState::Idle
    }

    // ---- routing ---------------------------------------------------------------------------------

    /// The head of the request that waits for [`Relay::forward`] or [`Relay::respond`].
    pub fn request(&self) -> Option<RequestHead<'_>> {
        (self.exchange.stage == Stage::Routing).then(|| RequestHead::new(self.client.head()))
    }

    /// The request goes to an upstream, under `policy` or the proxy's own limits: [`Action::Admit`] follows.
    pub fn forward(&mut self, policy: Option<Arc<TimeoutPolicy>>, env: &mut Env<'_>) {
        if self.exchange.stage == Stage::Routing {
            self.begin_forward(policy, env);
            self.settle(env);
        }
    }

    /// The request is answered here: `body` whole, with our own framing fields besides `fields`. If the request has a
    /// body, the client's connection ends after it.
    pub fn respond(&mut self, status: u16, fields: &[(&str, &str)], body: &[u8], env: &mut Env<'_>) {
        if self.exchange.stage == Stage::Routing {
            self.begin_answer(status, fields, body, env);
            self.settle(env);
        }
    }

    /// How the last exchange ended. Stands from [`Action::Report`] to the next read from the client that finds
    /// nothing.
    pub fn outcome(&self) -> Option<&Outcome> {
        self.reported.outcome.as_ref()
    }

    /// The request of [`Relay::outcome`], as it was written for the upstream; `None` if no head was complete and
    /// sound. Stands as long as that.
    pub fn reported(&self) -> Option<RequestHead<'_>> {
        (!self.reported.head.is_empty()).then(|| RequestHead::new(&self.reported.head))
    }

    // ---- the client's end ------------------------------------------------------------------------

    /// The end at once.
    fn close_client(&mut self, end: End) {
        self.client.state = ClientState::Closed;
        self.actions.fin_client = false;
        self.actions.client = Some(end);
    }

    /// The end in order: if the client's stream has to wait before it can say so, that may take as long as linger. Where
    /// nothing limits it, nobody waits.
    fn finish_client(&mut self, now: Instant) {
        self.close_client(End::Close);
        if self.is_limited(DeadlineKind::Linger, now) {
            self.client.state = ClientState::Closing;
        }
    }

    /// [`Action::Close`] of the client was taken to its end.
    pub fn closed(&mut self, env: &mut Env<'_>) {
        if self.client.state == ClientState::Closing {
            self.client.state = ClientState::Closed;
            self.sync_deadlines(env.now);
        }
    }

    /// FIN, and then reading on for a while (`http.md` C6); at once the end if the client has closed. What was read before
    /// is not read on: a head that is too large would be all of what may be.
    fn linger(&mut self, env: &mut Env<'_>) {
        self.client.inbound.discard(env.bufs);
        if self.client.inbound.eof {
            self.finish_client(env.now);
        } else {
            self.client.state = ClientState::Linger;
            self.actions.fin_client = true;
        }
    }
}
