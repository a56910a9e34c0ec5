//! V-11: after every event of a random trace the machine's earliest deadline is the one that a second, naive
//! implementation of the contract's table has (`tidegate_conformance::reference`). A failing trace is shrunk.
//!
//! `PROPTEST_CASES=1000000 cargo test --release --test reference` looks further than the default.

use std::time::Duration;

use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::{TestCaseError, TestRunner};
use tidegate_conformance::machine::{Machine, Step};
use tidegate_conformance::reference::{Client, Facts, Reference, Upstream};
use tidegate_core::relay::{Action, Op};
use tidegate_core::{DeadlineKind, Instant, IoFailure, IoKind, Side, TimeoutPolicy};

/// A message as its sender writes it, and what its bytes mean.
#[derive(Clone, Debug)]
struct Message {
    wire: Vec<u8>,
    /// Where interim responses end, and their status.
    interim: Vec<(usize, u16)>,
    /// Where the head begins: empty lines do not count.
    start: usize,
    head_end: usize,
    /// The first byte of the body itself.
    data: usize,
    /// How much of it was sent.
    at: usize,
    until_close: bool,
}

impl Message {
    fn new(before: &str, interim: &[u16], head: &str, body: Body) -> Message {
        let mut wire = before.as_bytes().to_vec();
        let mut ends = Vec::new();
        for status in interim {
            wire.extend(format!("HTTP/1.1 {status} Wait\r\n\r\n").bytes());
            ends.push((wire.len(), *status));
        }
        let start = wire.len();
        let framing = match body {
            Body::None => String::new(),
            Body::Length(n) => format!("content-length: {n}\r\n"),
            Body::Chunks(_) => "transfer-encoding: chunked\r\n".into(),
            Body::UntilClose(_) => "connection: close\r\n".into(),
        };
        wire.extend(format!("{head}\r\n{framing}\r\n").bytes());
        let (head_end, mut data) = (wire.len(), wire.len());
        match body {
            Body::None => {}
            Body::Length(n) | Body::UntilClose(n) => wire.resize(wire.len() + n, b'x'),
            Body::Chunks(sizes) => {
                for n in sizes {
                    wire.extend(format!("{n:x}\r\n").bytes());
                    data = if data == head_end { wire.len() } else { data };
                    wire.resize(wire.len() + n, b'x');
                    wire.extend(b"\r\n");
                }
                wire.extend(b"0\r\n\r\n");
            }
        }
        let until_close = matches!(body, Body::UntilClose(_));
        Message { wire, interim: ends, start, head_end, data, at: 0, until_close }
    }

    fn is_sent(&self) -> bool {
        self.at == self.wire.len()
    }

    /// The next `n` bytes, but an interim response whole and alone: before its end nobody can know what it is.
    fn next(&self, n: usize) -> &[u8] {
        let end = match self.interim.iter().find(|(end, _)| self.at < *end) {
            Some((end, _)) => *end,
            None => self.wire.len().min(self.at + n),
        };
        &self.wire[self.at..end]
    }
}

#[derive(Copy, Clone, Debug)]
enum Body {
    None,
    Length(usize),
    Chunks([usize; 2]),
    UntilClose(usize),
}

/// Larger than what the machine holds of one body.
const LARGE: usize = 100_000;

fn request(kind: u8) -> Message {
    const POST: &str = "POST / HTTP/1.1\r\nhost: a";
    match kind % 7 {
        0 | 1 => Message::new("", &[], "GET / HTTP/1.1\r\nhost: a", Body::None),
        2 => Message::new("\r\n", &[], POST, Body::Length(10)),
        3 => Message::new("", &[], POST, Body::Chunks([3, 200])),
        4 => Message::new("", &[], POST, Body::Length(LARGE)),
        5 => Message::new("", &[], &format!("{POST}\r\nexpect: 100-continue"), Body::Length(10)),
        _ => Message::new("\r\n\r\n", &[], "GET / HTTP/1.1\r\nhost: a\r\nconnection: close", Body::None),
    }
}

fn response(kind: u8) -> Message {
    const OK: &str = "HTTP/1.1 200 OK";
    match kind % 7 {
        0 => Message::new("", &[], OK, Body::Length(5)),
        1 => Message::new("", &[100], OK, Body::Length(5)),
        2 => Message::new("", &[103, 103], OK, Body::Chunks([5, 9])),
        3 => Message::new("", &[], OK, Body::Length(LARGE)),
        4 => Message::new("", &[103], OK, Body::UntilClose(50)),
        5 => Message::new("", &[100, 103], OK, Body::Chunks([40_000, 40_000])),
        _ => Message::new("", &[], "HTTP/1.1 204 None", Body::None),
    }
}

/// The machine, the reference, and what the trace knows.
struct Trace {
    machine: Machine,
    reference: Reference,
    facts: Facts,
    request: Message,
    /// The request after this one, whose beginning may be sent while this one is served.
    following: Message,
    response: Message,
    kinds: std::iter::Cycle<std::vec::IntoIter<u8>>,
    dialled: bool,
    /// What is answered is half a head.
    broken: bool,
    seen: usize,
    connection: TimeoutPolicy,
    /// The deadline that the reference is to get wrong.
    wrong: Option<DeadlineKind>,
}

impl Trace {
    fn new(connection: TimeoutPolicy, route: TimeoutPolicy, start: Instant, kinds: Vec<u8>) -> Trace {
        let mut machine = Machine::new(connection, start);
        machine.route = route;
        machine.upstreams = 2;
        let facts = Facts {
            client: Client::Silent(true),
            upstream: Upstream::None,
            head_complete: None,
            body_complete: false,
            withheld: false,
            answered: false,
            response_head: false,
            drain: None,
            total_spent: false,
            drain_spent: false,
            request_waits: false,
            response_waits: false,
            reads_client: true,
            reads_upstream: false,
        };
        let mut kinds = kinds.into_iter().cycle();
        let (first, second) = (kinds.next().unwrap_or(0), kinds.next().unwrap_or(0));
        let reference = Reference::new(connection, connection);
        let (request, following, response) = (request(first), request(second), response(second));
        let mut trace = Trace {
            machine,
            reference,
            facts,
            request,
            following,
            response,
            kinds,
            dialled: false,
            broken: false,
            seen: 0,
            connection,
            wrong: None,
        };
        trace.update();
        trace
    }

    /// Takes in what the machine did, and brings the reference up to date.
    fn update(&mut self) {
        for i in self.seen..self.machine.steps.len() {
            self.did(self.machine.steps[i].1);
        }
        self.seen = self.machine.steps.len();
        self.facts.request_waits = self.machine.pending(Side::Upstream);
        self.facts.response_waits = self.machine.pending(Side::Client);
        self.facts.reads_client = self.machine.relay.interest().read_client;
        self.facts.reads_upstream = self.machine.relay.interest().read_upstream;
        self.reference.update(&self.facts, self.machine.now);
    }

    fn compare(&mut self, after: impl Fn() -> String) -> Result<(), String> {
        self.update();
        let (there, mut here) = (self.machine.next(), self.reference.earliest());
        if let Some((at, kind)) = &mut here
            && self.wrong == Some(*kind)
        {
            *at = *at + Duration::from_nanos(1);
        }
        if there == here {
            return Ok(());
        }
        Err(format!("after {}: the machine has {there:?}, the table {here:?}; {:?}", after(), self.facts))
    }

    fn did(&mut self, step: Step) {
        use DeadlineKind::{ClientHead, Connect, Queue, Read, Total, Write, WriteIdle};
        match step {
            Step::Action(Action::Route) => self.reference.route = self.machine.route,
            Step::Queued => {
                self.reference.reset(Queue);
                self.facts.upstream = Upstream::Queued;
            }
            Step::Granted => self.facts.upstream = Upstream::None,
            Step::Miss => {
                [Connect, Write, WriteIdle, Read].into_iter().for_each(|kind| self.reference.reset(kind));
                self.facts.upstream = Upstream::Connecting;
                (self.facts.answered, self.facts.response_head, self.dialled) = (false, false, false);
                self.response = response(self.kinds.next().unwrap_or(0));
            }
            Step::Action(Action::Connect { .. }) => self.dialled = true,
            Step::Action(Action::Abort(Side::Upstream) | Action::Close(Side::Upstream))
            | Step::Action(Action::Discard | Action::Release { .. }) => self.facts.upstream = Upstream::None,
            Step::Action(Action::Report) => {
                [Total, ClientHead].into_iter().for_each(|kind| self.reference.reset(kind));
                self.reference.route = self.connection;
                let next = request(self.kinds.next().unwrap_or(0));
                self.request = std::mem::replace(&mut self.following, next);
                let head = self.request.at > self.request.start;
                self.facts.client = if head { Client::Head } else { Client::Silent(false) };
                (self.facts.head_complete, self.facts.body_complete) = (None, false);
                (self.facts.total_spent, self.facts.drain_spent) = (false, false);
                self.facts.withheld = false;
                self.broken = false;
            }
            Step::Action(Action::ShutdownWrite(_)) => self.facts.client = Client::Lingering,
            Step::Action(Action::Abort(Side::Client) | Action::Close(Side::Client)) => {
                self.facts.client = Client::Closed;
            }
            Step::Action(_) => {}
        }
    }

    /// The client sends `n` more bytes of its request, or of the next one's head.
    fn client_sends(&mut self, n: usize) {
        let is_active = self.facts.client == Client::Active;
        if !self.machine.relay.interest().read_client || (is_active && self.broken) {
            return;
        }
        if self.facts.client == Client::Lingering {
            self.machine.feed(Side::Client, b"late");
        } else if is_active && self.request.is_sent() {
            if self.following.at == 0 {
                let first = self.following.wire[..3].to_vec();
                self.following.at = self.machine.feed(Side::Client, &first);
            }
        } else {
            let now = self.machine.now;
            let bytes = self.request.next(n).to_vec();
            let will_be = self.request.at + bytes.len();
            // What the bytes mean is known before the machine acts on them.
            if will_be > self.request.start && self.facts.head_complete.is_none() {
                self.facts.client = Client::Head;
            }
            if will_be >= self.request.head_end && self.facts.head_complete.is_none() {
                self.facts.client = Client::Active;
                self.facts.head_complete = Some(now);
                self.facts.withheld =
                    self.request.wire[..self.request.head_end].windows(6).any(|w| w == b"expect");
            }
            let taken = self.machine.feed(Side::Client, &bytes);
            if taken > 0 {
                self.reference.reset(DeadlineKind::ClientBody);
            }
            self.request.at += taken;
            if self.request.at > self.request.data {
                self.facts.withheld = false;
            }
            self.facts.body_complete = self.request.is_sent();
        }
    }

    fn upstream_sends(&mut self, n: usize) {
        let bytes = self.response.next(n).to_vec();
        let taken = self.machine.feed(Side::Upstream, &bytes);
        if taken == 0 {
            return;
        }
        self.reference.reset(DeadlineKind::Read);
        self.response.at += taken;
        if self.response.interim.iter().any(|&(end, status)| end == self.response.at && status == 100) {
            self.facts.withheld = false;
        }
        self.facts.answered = self.response.at > self.response.start;
        self.facts.response_head = self.response.at >= self.response.head_end;
    }

    fn takes(&mut self, side: Side, n: usize) {
        if !self.machine.take(side, n).is_empty() {
            self.reference.reset(match side {
                Side::Client => DeadlineKind::ClientWrite,
                Side::Upstream => DeadlineKind::WriteIdle,
            });
        }
    }

    fn tick(&mut self) {
        let due = self.reference.earliest().filter(|(at, _)| *at <= self.machine.now);
        if let Some((_, kind)) = due {
            self.reference.reset(kind);
            match kind {
                DeadlineKind::Total => self.facts.total_spent = true,
                DeadlineKind::Drain => self.facts.drain_spent = true,
                // Half a head is answered: an exchange that begins here.
                DeadlineKind::ClientHead if self.facts.client == Client::Head => {
                    self.facts.client = Client::Active;
                    self.facts.head_complete = Some(self.machine.now);
                    self.broken = true;
                }
                _ => {}
            }
        }
        self.machine.handle_timeout();
    }

    fn event(&mut self, event: u8, n: usize) {
        match event {
            0..=3 => self.client_sends(n),
            4..=6 => self.upstream_sends(n),
            7..=8 => self.takes(Side::Upstream, n),
            9..=10 => self.takes(Side::Client, n),
            11..=12 if self.facts.upstream == Upstream::Connecting && self.dialled => {
                self.facts.upstream = Upstream::Connected;
                self.machine.connected();
            }
            13 if self.facts.upstream == Upstream::Connecting && self.dialled && n.is_multiple_of(3) => {
                self.machine.refused();
            }
            14 if self.facts.upstream == Upstream::Queued => self.machine.grant(),
            15 => self.machine.full = n.is_multiple_of(2),
            16 if self.facts.upstream == Upstream::Connected && n.is_multiple_of(4) => {
                // Bytes of an interim response that comes too late for it are no business of this trace.
                if self.response.until_close || n.is_multiple_of(8) {
                    self.machine.fin(Side::Upstream);
                } else if self.machine.relay.interest().read_upstream {
                    let reset = IoFailure { kind: IoKind::Reset, os_code: None };
                    self.machine.with(|relay, env| relay.failed(Op::Read(Side::Upstream), reset, env));
                }
            }
            17 if n.is_multiple_of(8) => drop(self.machine.fin(Side::Client)),
            18 if n.is_multiple_of(8) => {
                let since = *self.facts.drain.get_or_insert(self.machine.now);
                self.machine.with(|relay, env| relay.drain(since, env));
            }
            _ => {}
        }
    }
}

fn limit() -> impl Strategy<Value = Option<Duration>> {
    prop_oneof![
        4 => (5u64..300).prop_map(|n| Some(Duration::from_millis(n))),
        2 => Just(None),
        1 => Just(Some(Duration::from_millis(100))),
        1 => Just(Some(Duration::from_nanos(1))),
        1 => Just(Some(Duration::ZERO)),
        1 => Just(Some(Duration::MAX)),
    ]
}

fn policy() -> impl Strategy<Value = TimeoutPolicy> {
    proptest::collection::vec(limit(), 13).prop_map(|l| TimeoutPolicy {
        connect: l[0],
        write: l[1],
        write_idle: l[2],
        read: l[3],
        total: l[4],
        queue: l[5],
        client_head: l[6],
        client_body: l[7],
        client_write: l[8],
        keep_alive: l[9],
        linger: l[10],
        drain: l[11],
        pool_idle: l[12],
        ..TimeoutPolicy::OFF
    })
}

fn cases() -> u32 {
    std::env::var("PROPTEST_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(10_000)
}

/// Everything that makes a trace.
#[derive(Clone, Debug)]
struct Input {
    connection: TimeoutPolicy,
    route: TimeoutPolicy,
    start: Instant,
    kinds: Vec<u8>,
    /// What happens, after how many milliseconds, and how much of it.
    events: Vec<(u8, u64, usize)>,
}

fn input() -> impl Strategy<Value = Input> {
    let start = prop_oneof![
        4 => Just(Instant::from_millis(12_345)),
        1 => Just(Instant::EPOCH),
        1 => Just(Instant::NEVER - Duration::from_secs(1)),
    ];
    let size = prop_oneof![4 => 1usize..9, 4 => 20usize..400, 1 => Just(LARGE)];
    let events = proptest::collection::vec((0u8..20, 0u64..60, size), 1..60);
    let kinds = proptest::collection::vec(0u8..7, 4..9);
    (policy(), policy(), start, kinds, events).prop_map(|(connection, route, start, kinds, events)| Input {
        connection,
        route,
        start,
        kinds,
        events,
    })
}

/// Runs a trace; with `wrong`, against a reference that has a nanosecond too much for that deadline.
fn run(input: Input, wrong: Option<DeadlineKind>) -> Result<(), String> {
    let mut trace = Trace::new(input.connection, input.route, input.start, input.kinds);
    trace.wrong = wrong;
    for (i, (event, pause, n)) in input.events.into_iter().enumerate() {
        trace.machine.now = trace.machine.now + Duration::from_millis(pause.saturating_sub(30));
        trace.event(event, n);
        trace.compare(|| format!("event {i} ({event}, {n})"))?;
        if pause % 3 != 0 {
            trace.tick();
            trace.compare(|| format!("the deadlines were looked at behind event {i}"))?;
        }
    }
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: cases(), failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn v_11_armed_value_is_exact(input in input()) {
        run(input, None).map_err(TestCaseError::fail)?;
    }
}

/// The traces reach every row of the table: a reference that is wrong by a nanosecond in one is found out.
#[test]
fn v_11_every_row_can_fail() {
    for kind in DeadlineKind::ALL {
        use DeadlineKind::{ConnectAddress, PoolIdle, Tunnel, TunnelFin};
        if matches!(kind, PoolIdle | Tunnel | TunnelFin | ConnectAddress) {
            // The pool's own, and those of tunnels and of lists of addresses, which these traces have none of.
            continue;
        }
        let mut runner = TestRunner::deterministic();
        let found = (0..5_000).any(|_| {
            let tree = input().new_tree(&mut runner).unwrap_or_else(|e| panic!("{e}"));
            run(tree.current(), Some(kind)).is_err()
        });
        assert!(found, "no trace looks at the {kind} deadline");
    }
}
