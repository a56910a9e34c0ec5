//! The machine alone, in exact time: a rig that plays the driver, the client and the upstream.
//!
//! Every rig is followed by others that get the same bytes in other pieces, or later on their connection
//! (`twins.rs`): whatever a test does is replayed by itself, and must come to the same.

mod catalogue;
mod corners;
mod deadlines;
mod endings;
mod exchanges;
mod messages;
mod mixed;
mod model;
mod mutants;
mod properties;
mod relaying;
mod resolving;
mod service;
mod tunnel;
mod tunnel_ends;
mod twins;
mod verdicts;

use self::twins::Twin;
use alloc::string::String;
use alloc::vec::Vec;
use core::net::SocketAddr;
use core::time::Duration;

use super::*;
use crate::buf::BufPool;
use crate::error::{Phase, TimeoutError};
use crate::http::{HttpDate, HttpError, IdSource};
use crate::upstream::{Addresses, UpstreamId};

pub(super) const RESET: IoFailure = IoFailure { kind: IoKind::Reset, os_code: None };
pub(super) const REFUSED: IoFailure = IoFailure { kind: IoKind::Refused, os_code: None };
pub(super) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
pub(super) const OK5: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// A name, and how a rig comes to be in the state of that name.
pub(super) type State = (&'static str, fn(&mut Rig));

/// The limits of the conformance suite: the default ones, scaled to a fraction of a second.
pub(super) fn profile() -> TimeoutPolicy {
    let ms = |n| Some(Duration::from_millis(n));
    TimeoutPolicy {
        connect: ms(100),
        write: ms(200),
        read: ms(150),
        total: None,
        client_head: ms(150),
        client_body: ms(150),
        client_write: ms(150),
        keep_alive: ms(150),
        pool_idle: ms(150),
        tunnel: ms(150),
        tunnel_fin: ms(150),
        linger: ms(80),
        ..TimeoutPolicy::OFF
    }
}

/// The n-th address of every upstream.
pub(super) fn address(n: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], n))
}

fn addresses(n: u16) -> Addresses {
    (1..=n).map(address).collect()
}

/// The machine with a client, an upstream and a clock in hand.
pub(super) struct Rig {
    pub(super) relay: Relay,
    pub(super) now: Instant,
    pub(super) policy: TimeoutPolicy,
    /// How many there are; each is tried in turn.
    pub(super) upstreams: usize,
    /// None of them is free.
    pub(super) full: bool,
    bufs: BufPool,
    ids: IdSource,
    date: HttpDate,
    /// Every action that was taken since it was last looked at.
    pub(super) actions: Vec<Action>,
    pub(super) outcomes: Vec<Outcome>,
    /// Requests are answered by the route.
    pub(super) answers: bool,
    /// The pool keeps what it is given.
    pub(super) keeps: bool,
    /// The pool has an idle connection.
    pub(super) pooled: bool,
    /// How many addresses each upstream has.
    pub(super) addresses: u16,
    /// The upstreams are names, and it takes time until [`Rig::resolved`].
    pub(super) named: bool,
    /// The client's stream has to wait before it can say its end.
    pub(super) slow_end: bool,
    /// What `side` took from the connection of now.
    got: [Vec<u8>; 2],
    twins: Vec<Twin>,
}

/// A rig without followers.
pub(super) fn alone(policy: TimeoutPolicy) -> Rig {
    Rig::alone(Config { timeouts: policy, max_head: 8192, ..Config::default() })
}

impl Rig {
    pub(super) fn new(policy: TimeoutPolicy) -> Rig {
        Rig::with_config(Config { timeouts: policy, max_head: 8192, ..Config::default() })
    }

    pub(super) fn with_config(config: Config) -> Rig {
        let twins = Twin::all(&config);
        Rig { twins, ..Rig::alone(config) }
    }

    /// A rig that nothing follows, for a test that compares by itself, or whose events have no fixed order.
    pub(super) fn alone(config: Config) -> Rig {
        let policy = config.timeouts;
        Rig {
            relay: Relay::new(Arc::new(config), Some(IpAddr::from([192, 0, 2, 7])), Instant::EPOCH),
            now: Instant::EPOCH,
            policy,
            upstreams: 1,
            full: false,
            bufs: BufPool::new(8),
            ids: IdSource::new(7),
            date: HttpDate::default(),
            actions: Vec::new(),
            outcomes: Vec::new(),
            answers: false,
            keeps: false,
            pooled: false,
            addresses: 1,
            named: false,
            slow_end: false,
            got: [Vec::new(), Vec::new()],
            twins: Vec::new(),
        }
    }

    /// A rig whose request was sent by the client and whose upstream is connected.
    pub(super) fn relaying(policy: TimeoutPolicy, request: &[u8]) -> Rig {
        let mut rig = Rig::new(policy);
        rig.client(request);
        rig.connected();
        rig
    }

    /// Does something to the machine, and the same to those that follow it.
    pub(super) fn with<T>(&mut self, f: impl Fn(&mut Relay, &mut Env<'_>) -> T) -> T {
        self.lead();
        self.follow(|twin| twin.with(&f));
        let result = self.step(f);
        self.check();
        result
    }

    fn step<T>(&mut self, f: impl FnOnce(&mut Relay, &mut Env<'_>) -> T) -> T {
        let Rig { relay, now, date, bufs, ids, .. } = self;
        let result = f(relay, &mut Env { now: *now, date, bufs, ids });
        self.act();
        result
    }

    /// Plays the driver's part: routes to the upstreams, and finds the pool empty, unless told otherwise.
    fn act(&mut self) {
        while let Some(action) = self.relay.poll_action() {
            self.actions.push(action);
            let mut env = Env { now: self.now, date: &self.date, bufs: &mut self.bufs, ids: &mut self.ids };
            match action {
                Action::Route if self.answers => self.relay.respond(200, &[], b"here", &mut env),
                Action::Route => self.relay.forward(Some(Arc::new(self.policy)), &mut env),
                Action::Admit => {
                    let tried = self.relay.tried().len();
                    if self.full {
                        self.relay.queued(&mut env);
                        continue;
                    }
                    match UpstreamId::new(tried).filter(|_| tried < self.upstreams) {
                        Some(id) => self.relay.granted(id, &mut env),
                        None => self.relay.exhausted(&mut env),
                    }
                }
                Action::Release { .. } => self.pooled |= self.keeps,
                Action::Checkout(_) if core::mem::take(&mut self.pooled) => {
                    self.relay.connected(true, &mut env);
                }
                Action::Checkout(_) => self.relay.pool_miss(&mut env),
                Action::Resolve(_) if self.named => self.relay.resolving(&mut env),
                Action::Resolve(_) => self.relay.resolved(Ok(addresses(self.addresses)), &mut env),
                Action::Close(Side::Client) if !self.slow_end => self.relay.closed(&mut env),
                Action::Report => self.outcomes.extend(self.relay.outcome()),
                _ => {}
            }
        }
    }

    /// Feeds as much as is wanted, in pieces of at most `piece()` bytes.
    fn feed(&mut self, side: Side, mut bytes: &[u8], mut piece: impl FnMut() -> usize) -> usize {
        let all = bytes.len();
        while !bytes.is_empty() && self.relay.interest().wants(Op::Read(side)) {
            let n = self.step(|relay, env| {
                let buf = relay.recv_buf(side, env);
                assert!(!buf.is_empty(), "a wanted read must have room");
                let n = buf.len().min(bytes.len()).min(piece());
                buf[..n].copy_from_slice(&bytes[..n]);
                relay.received(side, n, env);
                n
            });
            bytes = &bytes[n..];
        }
        all - bytes.len()
    }

    fn sends(&mut self, side: Side, bytes: &[u8]) -> usize {
        self.lead();
        let n = self.feed(side, bytes, || usize::MAX);
        self.follow(|twin| twin.sends(side, &bytes[..n]));
        self.check();
        n
    }

    /// The client sends; says how many bytes the machine took.
    pub(super) fn client(&mut self, bytes: &[u8]) -> usize {
        self.sends(Side::Client, bytes)
    }

    /// The upstream sends; says how many bytes the machine took.
    pub(super) fn upstream(&mut self, bytes: &[u8]) -> usize {
        self.sends(Side::Upstream, bytes)
    }

    pub(super) fn fin(&mut self, side: Side) {
        assert!(self.relay.interest().wants(Op::Read(side)), "nobody would see the FIN");
        self.lead();
        self.follow(|twin| twin.fin(side));
        self.step(|relay, env| relay.received(side, 0, env));
        self.check();
    }

    /// The lookup of the upstream's name finds so many addresses.
    pub(super) fn resolved(&mut self, n: u16) {
        self.with(|relay, env| relay.resolved(Ok(addresses(n)), env));
    }

    pub(super) fn connected(&mut self) {
        assert!(matches!(self.actions.last(), Some(Action::Connect { .. })), "{:?}", self.actions);
        self.lead();
        self.follow(Twin::connected);
        self.got[Side::Upstream as usize].clear();
        self.step(|relay, env| relay.connected(false, env));
        self.check();
    }

    /// `side` takes up to `max` bytes.
    pub(super) fn take(&mut self, side: Side, max: usize) -> Vec<u8> {
        self.lead();
        let taken = self.pull(side, max, || usize::MAX);
        let all = max == usize::MAX;
        self.follow(|twin| twin.takes(side, if all { max } else { taken.len() }));
        self.check();
        taken
    }

    /// Takes what is wanted, in pieces of at most `piece()` bytes.
    fn pull(&mut self, side: Side, max: usize, mut piece: impl FnMut() -> usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while taken.len() < max && self.relay.interest().wants(Op::Write(side)) {
            let most = piece().min(max - taken.len());
            let before = taken.len();
            for buf in self.relay.send_bufs(side) {
                let room = most - (taken.len() - before);
                taken.extend_from_slice(&buf[..buf.len().min(room)]);
            }
            let n = taken.len() - before;
            assert!(n > 0, "a wanted write must have bytes");
            self.step(|relay, env| relay.sent(side, n, env));
        }
        self.got[side as usize].extend_from_slice(&taken);
        taken
    }

    pub(super) fn upstream_gets(&mut self) -> String {
        String::from_utf8(self.take(Side::Upstream, usize::MAX)).unwrap()
    }

    pub(super) fn client_gets(&mut self) -> String {
        String::from_utf8(self.take(Side::Client, usize::MAX)).unwrap()
    }

    /// Sets the clock and lets at most one deadline fire.
    pub(super) fn at(&mut self, ms: u64) {
        self.now = Instant::from_millis(ms);
        if !self.relay.is_active() {
            self.follow(Twin::idles);
        }
        self.with(|relay, env| relay.handle_timeout(env));
    }

    /// When and which the earliest deadline is, in milliseconds.
    pub(super) fn next(&self) -> Option<(u64, DeadlineKind)> {
        self.relay.poll_timeout().map(|d| (d.at.as_nanos() / 1_000_000, d.kind))
    }

    pub(super) fn actions(&mut self) -> Vec<Action> {
        core::mem::take(&mut self.actions)
    }

    /// The one outcome so far.
    pub(super) fn outcome(&self) -> Outcome {
        assert_eq!(self.outcomes.len(), 1, "{:?}", self.outcomes);
        self.outcomes[0]
    }

    /// The timeout that ended the one request so far.
    pub(super) fn timeout(&self) -> TimeoutError {
        match self.outcome().error {
            Some(Error::Timeout(t)) => t,
            other => panic!("no timeout but {other:?}"),
        }
    }
}
