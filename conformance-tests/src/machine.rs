//! The machine of the core without a driver: whoever holds a [`Machine`] plays the sockets, the upstreams and the
//! clock, and sees every action. For cases that are about time alone.
//!
//! It does what a driver must do and decides nothing about deadlines.

use std::sync::Arc;

use tidegate_core::http::{HttpDate, IdSource};
use tidegate_core::relay::{Action, Env, Op, Relay};
use tidegate_core::{
    BufPool, Config, DeadlineKind, Instant, IoFailure, IoKind, Outcome, Side, TimeoutPolicy, UpstreamId,
};

/// A `Relay` with everything around it in hand.
#[derive(Debug)]
pub struct Machine {
    /// The machine itself.
    pub relay: Relay,
    /// The clock.
    pub now: Instant,
    /// What every request is forwarded under.
    pub route: TimeoutPolicy,
    /// Upstreams that there are; each is tried in turn.
    pub upstreams: usize,
    /// None of them is free: [`Machine::grant`] frees one.
    pub full: bool,
    /// Every action so far, with its time, and what the driver answered to it (see [`Step`]).
    pub steps: Vec<(Instant, Step)>,
    /// Every outcome so far.
    pub outcomes: Vec<Outcome>,
    bufs: BufPool,
    ids: IdSource,
    date: HttpDate,
}

/// What the machine asked for, or the answer that it got at once.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// It asked.
    Action(Action),
    /// It was told to wait for a free upstream.
    Queued,
    /// It got one.
    Granted,
    /// It was told that no idle connection is there, and so must connect.
    Miss,
}

impl Machine {
    /// The machine for a client that is accepted at `now`, under `connection`'s limits; requests are forwarded
    /// under the same ones unless [`Machine::route`] says otherwise.
    pub fn new(connection: TimeoutPolicy, now: Instant) -> Machine {
        let config = Config { timeouts: connection, ..Config::default() };
        Machine {
            relay: Relay::new(Arc::new(config), None, now),
            now,
            route: connection,
            upstreams: 1,
            full: false,
            steps: Vec::new(),
            outcomes: Vec::new(),
            bufs: BufPool::new(4),
            ids: IdSource::new(1),
            date: HttpDate::default(),
        }
    }

    /// One input, and everything that it leads to at once.
    pub fn with(&mut self, input: impl FnOnce(&mut Relay, &mut Env<'_>)) {
        input(
            &mut self.relay,
            &mut Env { now: self.now, date: &self.date, bufs: &mut self.bufs, ids: &mut self.ids },
        );
        while let Some(action) = self.relay.poll_action() {
            self.steps.push((self.now, Step::Action(action)));
            let mut env = Env { now: self.now, date: &self.date, bufs: &mut self.bufs, ids: &mut self.ids };
            match action {
                Action::Close(Side::Client) => self.relay.closed(&mut env),
                Action::Report => self.outcomes.extend(self.relay.outcome()),
                Action::Route => self.relay.forward(Some(Arc::new(self.route)), &mut env),
                Action::Resolve(_) => {
                    let here = [([127, 0, 0, 1], 80).into()].into_iter().collect();
                    self.relay.resolved(Ok(here), &mut env);
                }
                Action::Admit if self.full => {
                    self.steps.push((self.now, Step::Queued));
                    self.relay.queued(&mut env);
                }
                Action::Admit => {
                    let tried = self.relay.tried().len();
                    match UpstreamId::new(tried).filter(|_| tried < self.upstreams) {
                        Some(id) => {
                            self.steps.push((self.now, Step::Granted));
                            self.relay.granted(id, &mut env);
                        }
                        None => self.relay.exhausted(&mut env),
                    }
                }
                Action::Checkout(_) => {
                    self.steps.push((self.now, Step::Miss));
                    self.relay.pool_miss(&mut env);
                }
                _ => {}
            }
        }
    }

    /// `side` sends; says how many of the bytes the machine took.
    pub fn feed(&mut self, side: Side, bytes: &[u8]) -> usize {
        let mut taken = 0;
        while taken < bytes.len() && self.relay.interest().wants(Op::Read(side)) {
            self.with(|relay, env| {
                let buf = relay.recv_buf(side, env);
                let n = buf.len().min(bytes.len() - taken);
                buf[..n].copy_from_slice(&bytes[taken..taken + n]);
                taken += n;
                relay.received(side, n, env);
            });
        }
        taken
    }

    /// `side` takes up to `max` bytes.
    pub fn take(&mut self, side: Side, max: usize) -> Vec<u8> {
        let mut taken = Vec::new();
        while taken.len() < max && self.relay.interest().wants(Op::Write(side)) {
            let mut bytes = self.relay.send_bufs(side).collect::<Vec<_>>().concat();
            bytes.truncate(max - taken.len());
            self.with(|relay, env| relay.sent(side, bytes.len(), env));
            taken.append(&mut bytes);
        }
        taken
    }

    /// Whether bytes wait to be written to `side`.
    pub fn pending(&self, side: Side) -> bool {
        self.relay.send_bufs(side).next().is_some()
    }

    /// `side` sends FIN, if anybody would see it.
    pub fn fin(&mut self, side: Side) -> bool {
        let seen = self.relay.interest().wants(Op::Read(side));
        if seen {
            self.with(|relay, env| relay.received(side, 0, env));
        }
        seen
    }

    /// The connect that was asked for succeeds.
    pub fn connected(&mut self) {
        self.with(|relay, env| relay.connected(false, env));
    }

    /// The connect that was asked for is refused.
    pub fn refused(&mut self) {
        let failure = IoFailure { kind: IoKind::Refused, os_code: None };
        self.with(|relay, env| relay.failed(Op::Connect, failure, env));
    }

    /// Whoever waits for an upstream gets one.
    pub fn grant(&mut self) {
        let tried = self.relay.tried().len();
        if let Some(id) = UpstreamId::new(tried) {
            self.steps.push((self.now, Step::Granted));
            self.with(|relay, env| relay.granted(id, env));
        }
    }

    /// Looks at the deadlines.
    pub fn handle_timeout(&mut self) {
        self.with(|relay, env| relay.handle_timeout(env));
    }

    /// Sets the clock to so many milliseconds after `start` and looks at the deadlines.
    pub fn at(&mut self, instant: Instant) {
        self.now = instant;
        self.handle_timeout();
    }

    /// The earliest deadline.
    pub fn next(&self) -> Option<(Instant, DeadlineKind)> {
        self.relay.poll_timeout().map(|d| (d.at, d.kind))
    }
}
