//! What client, upstream, time and whoever runs the proxy can do, in every order of a few events and in random orders of
//! many. Nothing is expected of one order; what is checked is the law of all: a wait has a deadline, and time alone ends
//! everything; each request has one outcome, which says what both sides have really got; what was cut shows as cut; nothing
//! goes to whom it is over with; a connection is kept only behind two whole messages, and given up once.

use super::messages::{EVIL, clients, read, upstreams};
use super::properties::nothing_for;
use super::*;
use crate::scale::or_under_miri;
use alloc::vec;

/// Events of which every order is tried: one more is twelve times the work.
const DEPTH: usize = or_under_miri(2, 0);

/// Random orders.
const WALKS: u64 = or_under_miri(8_000, 20);

/// Variants of the limits, after those in which one of them is zero.
const WITH_TOTAL: usize = DeadlineKind::COUNT;
const ALL_AT_ONCE: usize = WITH_TOTAL + 1;
const ANSWERED_HERE: usize = ALL_AT_ONCE + 1;
const ORDINARY: usize = ANSWERED_HERE + 1;

/// A rig, what its two sides are about to say, and what is known from outside.
struct World {
    rig: Rig,
    client: Vec<String>,
    at_client: usize,
    upstream: Vec<String>,
    at_upstream: usize,
    /// What the upstream of now has sent.
    said: Vec<u8>,
    there: bool,
    trace: Vec<&'static str>,
    seen: usize,
    routed: usize,
    client_over: bool,
    fin_client: bool,
    tunnel: bool,
    stopped: bool,
    must_reset: bool,
    /// This request has had a connection.
    had: bool,
}

impl World {
    fn new(client: &[String], upstream: &[String], setting: usize, variant: usize) -> World {
        let ms = |n| Some(Duration::from_millis(n));
        let mut timeouts = TimeoutPolicy { queue: ms(70), drain: ms(300), ..profile() };
        match variant {
            ALL_AT_ONCE => {
                let all = ms(100);
                timeouts = TimeoutPolicy { total: all, write: all, write_idle: all, read: all, ..timeouts };
                timeouts = TimeoutPolicy {
                    client_body: all,
                    client_write: all,
                    linger: all,
                    drain: all,
                    ..timeouts
                };
            }
            WITH_TOTAL => timeouts.total = ms(260),
            kind if kind < DeadlineKind::COUNT => nothing_for(&mut timeouts, DeadlineKind::ALL[kind]),
            _ => {}
        }
        let mut rig = Rig::alone(Config { timeouts, ..Config::default() });
        rig.keeps = true;
        rig.pooled = setting % 2 == 1;
        rig.full = setting == 2;
        rig.named = setting == 3;
        rig.addresses = 2;
        rig.upstreams = 2;
        rig.slow_end = setting > 2;
        rig.answers = variant == ANSWERED_HERE;
        World {
            rig,
            client: client.to_vec(),
            at_client: 0,
            upstream: upstream.to_vec(),
            at_upstream: 0,
            said: vec![],
            there: false,
            trace: vec![],
            seen: 0,
            routed: 0,
            client_over: false,
            fin_client: false,
            tunnel: false,
            stopped: false,
            must_reset: false,
            had: false,
        }
    }

    fn events(&self) -> Vec<&'static str> {
        let (interest, stage) = (self.rig.relay.interest(), self.rig.relay.exchange.stage);
        let mut all = vec!["time", "late"];
        if interest.read_client {
            if self.at_client < self.client.len() {
                all.push("c+");
            }
            all.extend(["cfin", "crst", "wait"]);
        }
        if interest.read_upstream {
            if self.at_upstream < self.upstream.len() {
                all.push("u+");
            }
            all.extend(["ufin", "urst"]);
        }
        if interest.write_upstream {
            all.extend(["wu", "wu1", "wu9", "wux", "wup"]);
        }
        if interest.write_client {
            all.extend(["wc", "wc1", "wc9", "wcx", "wcp"]);
        }
        match stage {
            Stage::Connecting => all.extend(["conn", "refused"]),
            Stage::Resolving if self.rig.named => all.extend(["found", "nowhere"]),
            Stage::Queued if self.rig.full => all.push("granted"),
            _ => {}
        }
        if self.rig.relay.client.state == ClientState::Closing {
            all.push("closed");
        }
        if self.rig.relay.draining.is_none() {
            all.push("drain");
        }
        if !self.stopped {
            all.push("stop");
        }
        all
    }

    fn event(&mut self, event: &'static str) {
        self.trace.push(event);
        let rig = &mut self.rig;
        let (client, upstream) = (Side::Client, Side::Upstream);
        let broken = IoFailure { kind: IoKind::BrokenPipe, os_code: None };
        let before = rig.got[0].len();
        match event {
            "time" | "late" => {
                let due = rig.relay.poll_timeout().unwrap().at;
                // Late, all the others are due by then as well.
                let late = Duration::from_secs(u64::from(event == "late"));
                rig.now = rig.now.max(due + late);
                rig.with(|relay, env| relay.handle_timeout(env));
            }
            "c+" => {
                let n = rig.client(self.client[self.at_client].as_bytes());
                if n < self.client[self.at_client].len() {
                    let left = self.client[self.at_client].split_off(n);
                    self.client[self.at_client] = left;
                } else {
                    self.at_client += 1;
                }
            }
            "u+" => {
                let piece = self.upstream[self.at_upstream].clone();
                // What lies ahead of the client comes in the same packet.
                self.said.extend_from_slice(piece.as_bytes());
                let n = rig.upstream(piece.as_bytes());
                self.said.truncate(self.said.len() - (piece.len() - n));
                self.at_upstream += 1;
            }
            "cfin" => {
                let relay = &rig.relay;
                let asks = relay.exchange.stage.is_forwarding();
                let cut = asks && !relay.client.decoder.is_complete();
                let over = rig.outcomes.len();
                rig.fin(client);
                let error = rig.outcomes.get(over).and_then(|o| o.error);
                assert!(!cut || error == Some(Error::ClientAbort(None)), "{error:?}");
            }
            "crst" => rig.with(|relay, env| relay.failed(Op::Read(Side::Client), RESET, env)),
            "ufin" => rig.fin(upstream),
            "urst" => rig.with(|relay, env| relay.failed(Op::Read(Side::Upstream), RESET, env)),
            "wait" => rig.with(|relay, env| {
                for side in [Side::Client, Side::Upstream] {
                    if relay.interest().wants(Op::Read(side)) {
                        relay.recv_buf(side, env);
                        relay.not_ready(side, env);
                    }
                }
            }),
            "wu" | "wc" | "wu9" | "wc9" => {
                let side = if event.starts_with("wu") { upstream } else { client };
                let all: usize = rig.relay.send_bufs(side).map(<[u8]>::len).sum();
                rig.take(side, if event.ends_with('9') { (all - 1).max(1) } else { all });
            }
            "wu1" => drop(rig.take(upstream, 1)),
            "wux" => rig.with(|relay, env| relay.failed(Op::Write(Side::Upstream), RESET, env)),
            "wup" => rig.with(|relay, env| relay.failed(Op::Write(Side::Upstream), broken, env)),
            "wc1" => drop(rig.take(client, 1)),
            "wcx" => rig.with(|relay, env| relay.failed(Op::Write(Side::Client), RESET, env)),
            "wcp" => rig.with(|relay, env| relay.failed(Op::Write(Side::Client), broken, env)),
            "conn" => rig.with(|relay, env| relay.connected(false, env)),
            "refused" => rig.with(|relay, env| relay.failed(Op::Connect, REFUSED, env)),
            "found" => rig.resolved(2),
            "nowhere" => rig.with(|relay, env| {
                relay.resolved(Err(IoFailure { kind: IoKind::NotFound, os_code: None }), env);
            }),
            "granted" => {
                rig.full = false;
                let id = UpstreamId::new(rig.relay.tried().len()).unwrap();
                rig.with(|relay, env| relay.granted(id, env));
            }
            "closed" => rig.with(|relay, env| relay.closed(env)),
            "drain" => rig.with(|relay, env| relay.drain(env.now, env)),
            "stop" => {
                self.stopped = true;
                rig.with(|relay, env| relay.stop(env));
            }
            _ => unreachable!(),
        }
        let sent = self.rig.got[0].len() > before;
        assert!(!sent || !(self.client_over || self.fin_client), "sent after the end");
        self.check();
    }

    fn check(&mut self) {
        self.tunnel |= self.rig.relay.exchange.stage == Stage::Tunnel;
        for action in self.rig.actions() {
            match action {
                Action::Route => self.routed += 1,
                Action::Checkout(_) | Action::Resolve(_) | Action::Connect { .. } => {
                    assert!(!self.there, "another connection");
                }
                Action::Release { settle, .. } => {
                    assert!(self.there && settle.is_zero());
                    let (response, request) = (read(&self.said, true), read(&self.rig.got[1], false));
                    assert!(response.complete && response.rest == 0, "{response:?}");
                    assert!(request.complete && request.rest == 0, "{request:?}");
                    self.gone();
                }
                Action::Discard => {
                    assert!(self.there && self.said.is_empty() && !self.rig.got[1].starts_with(b"P"));
                    self.gone();
                }
                Action::Abort(Side::Upstream) | Action::Close(Side::Upstream) => self.gone(),
                Action::Close(Side::Client) => {
                    assert!(!self.must_reset);
                    self.client_over = true;
                }
                Action::Abort(Side::Client) => self.client_over = true,
                Action::ShutdownWrite(Side::Client) => {
                    assert!(!self.fin_client);
                    self.fin_client = true;
                }
                Action::ShutdownWrite(Side::Upstream) => assert!(self.tunnel && self.there),
                Action::Report => {
                    let outcome = self.rig.outcomes[self.seen];
                    self.seen += 1;
                    self.judge(&outcome);
                    (self.tunnel, self.had) = (false, false);
                    self.rig.got[0].clear();
                }
                _ => {}
            }
        }
        let stage = self.rig.relay.exchange.stage;
        if !self.there && matches!(stage, Stage::Relaying | Stage::Tunnel) {
            self.there = true;
            // A pooled connection has nothing of before.
            self.said.clear();
            self.rig.got[1].clear();
            self.at_upstream = 0;
            self.had = true;
        }
        let (interest, next) = (self.rig.relay.interest(), self.rig.relay.poll_timeout());
        assert!(self.there || !(interest.read_upstream || interest.write_upstream));
        assert!(!self.client_over || interest == Interest::default());
        assert!(!self.fin_client || !interest.write_client);
        if self.rig.relay.is_closed() {
            assert!(next.is_none() && !self.there && self.client_over && interest == Interest::default());
            assert!(!self.rig.relay.is_active() && !self.rig.relay.exchange.is_some());
        } else {
            assert!(next.is_some(), "a wait without a deadline");
        }
        for side in [Side::Client, Side::Upstream] {
            if interest.wants(Op::Write(side)) {
                assert!(self.rig.relay.send_bufs(side).next().is_some());
            }
        }
        let held = self.rig.relay.exchange.held;
        assert!(!held || next.is_some_and(|d| d.at <= self.rig.now));
    }

    fn gone(&mut self) {
        self.there = false;
        self.judged_request();
    }

    /// The request of this connection is over, as far as the upstream is concerned.
    fn judged_request(&self) {
        let request = read(&self.rig.got[1], false);
        if request.head {
            assert!(!request.start.contains("evil"), "{request:?}");
            if !self.tunnel {
                assert!(request.rest == 0, "{request:?}");
                assert!(EVIL.as_bytes().starts_with(&request.body));
            }
        }
    }

    fn judge(&mut self, outcome: &Outcome) {
        let got = read(&self.rig.got[0], true);
        let t = outcome.timing;
        let sum = t.queue + t.connect + t.request + t.response_head + t.response_body;
        let all = outcome.finished.saturating_since(outcome.started);
        assert!(sum == all || (self.tunnel && sum < all), "{outcome:?}");
        if got.head {
            let status: u16 = got.start[9..12].parse().unwrap();
            assert_eq!(outcome.status, Some(status));
        }
        let own = got.own || self.rig.answers;
        if !own {
            assert_eq!(outcome.response_bytes, got.body.len() as u64, "{got:?}");
            assert!(read(&self.said, true).body.starts_with(&got.body), "{got:?}");
        }
        match outcome.error {
            None => {
                assert!(outcome.secondary.is_none());
                assert!(got.head && got.rest == 0 && (got.complete || got.until_close), "{got:?}");
            }
            Some(_) if got.head && !own => {
                assert!(!got.complete, "{got:?}");
                // The cut of what has no end of its own shows by RST alone.
                if got.until_close && !self.tunnel {
                    assert_eq!(self.rig.relay.client.state, ClientState::Closed);
                    assert!(!self.fin_client);
                    self.must_reset = true;
                }
            }
            Some(_) => {}
        }
        let request = read(&self.rig.got[1], false);
        let taken = if self.had && request.head { request.body.len() + request.rest } else { 0 };
        assert_eq!(outcome.request_bytes, taken as u64, "{request:?}");
    }

    /// Time alone ends it.
    fn end(&mut self) {
        for _ in 0..40 {
            if self.rig.relay.is_closed() {
                let bad = self.seen - self.routed.min(self.seen);
                let own = usize::from(self.client[0].starts_with("OPTIONS"));
                assert!(self.seen >= self.routed && bad <= 1 + own, "{} {}", self.seen, self.routed);
                return;
            }
            self.event("time");
        }
        panic!("time does not end it");
    }
}

/// One walk through the choices that `choose` makes.
fn walk(world: &mut World, length: usize, mut choose: impl FnMut(usize) -> usize) {
    for _ in 0..length {
        if world.rig.relay.is_closed() {
            break;
        }
        let events = world.events();
        let event = events[choose(events.len())];
        world.event(event);
    }
    world.end();
}

/// Says what led to a failure.
struct Told<'a>(&'a mut World);

impl Drop for Told<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            std::eprintln!(
                "{:?} {:?} {:?} {:?}",
                self.0.rig.policy,
                self.0.client,
                self.0.upstream,
                self.0.trace
            );
        }
    }
}

/// How far an exchange has come before everything is tried.
const BEGUN: [&[&str]; 4] =
    [&["c+"], &["c+", "conn", "wu"], &["c+", "conn", "wu", "u+"], &["c+", "conn", "wu", "u+", "wc", "u+"]];

#[test]
fn every_order_of_a_few_events_keeps_the_law() {
    let pairs = clients().into_iter().flat_map(|c| upstreams().into_iter().map(move |u| (c.clone(), u)));
    for (client, upstream) in pairs.step_by(or_under_miri(1, 12)) {
        for begun in BEGUN {
            // Each digit is a choice, and out of how many.
            let mut digits: Vec<(usize, usize)> = vec![];
            loop {
                let mut world = World::new(&client, &upstream, 0, ORDINARY);
                let told = Told(&mut world);
                for event in begun {
                    if told.0.events().contains(event) {
                        told.0.event(event);
                    }
                }
                let mut place = 0;
                walk(told.0, DEPTH, |n| {
                    if place == digits.len() {
                        digits.push((0, n));
                    }
                    place += 1;
                    digits[place - 1].0
                });
                while digits.last().is_some_and(|d| d.0 + 1 == d.1) {
                    digits.pop();
                }
                match digits.last_mut() {
                    Some(d) => d.0 += 1,
                    None => break,
                }
            }
        }
    }
}

#[test]
fn random_orders_of_many_events_keep_the_law() {
    let (clients, upstreams) = (clients(), upstreams());
    for seed in 1..=WALKS {
        let mut dice = seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        let mut roll = |n: usize| {
            dice ^= dice << 13;
            dice ^= dice >> 7;
            dice ^= dice << 17;
            (dice >> 20) as usize % n
        };
        let (c, u, setting) = (roll(clients.len()), roll(upstreams.len()), roll(4));
        let variant = roll(ORDINARY + 6);
        let mut world = World::new(&clients[c], &upstreams[u], setting, variant);
        let told = Told(&mut world);
        // What ends everything is rarer.
        for _ in 0..30 {
            if told.0.rig.relay.is_closed() {
                break;
            }
            let mut events = told.0.events();
            if roll(8) != 0 {
                events.retain(|e| {
                    !matches!(*e, "stop" | "drain" | "crst" | "urst" | "time" | "late" | "wux" | "wcx")
                });
            }
            if events.is_empty() {
                events.push("time");
            }
            let event = events[roll(events.len())];
            told.0.event(event);
        }
        told.0.end();
    }
}
