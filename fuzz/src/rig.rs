//! The machine in memory: a driver without sockets that cuts both streams into pieces and keeps all that is emitted.

use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_core::http::{HttpDate, IdSource};
use tidegate_core::relay::{Action, Env, Op, Relay};
use tidegate_core::{BufPool, Config, Error, Instant, RequestHead, Side, TimeoutPolicy, UpstreamId};

use crate::strict::Asked;

/// How two runs of the same streams may differ.
#[derive(Clone, Debug)]
pub struct Cuts {
    /// Sizes of reads, in turn.
    pub pieces: Vec<usize>,
    /// How much a side takes in one write.
    pub drain: usize,
    /// Milliseconds between two of them.
    pub step: u64,
}

impl Cuts {
    /// Everything at once.
    pub fn none() -> Cuts {
        Cuts { pieces: vec![usize::MAX], drain: usize::MAX, step: 0 }
    }
}

/// What has come of it.
#[derive(Debug, Default)]
pub struct Emitted {
    /// To the upstream, for each attempt to send a request.
    pub to_upstream: Vec<Vec<u8>>,
    /// To the client.
    pub to_client: Vec<u8>,
    /// What each response on the client's side answers to.
    pub asked: Vec<Asked>,
    /// Status, error, body bytes of the response; the last request may have none.
    pub outcomes: Vec<(Option<u16>, Option<Error>, u64)>,
    /// Whether the client's connection is over.
    pub closed: bool,
}

/// The machine, and what a driver would hold for it.
pub struct Rig {
    /// The machine.
    pub relay: Relay,
    /// The clock.
    pub now: Instant,
    policy: Arc<TimeoutPolicy>,
    bufs: BufPool,
    ids: IdSource,
    date: HttpDate,
    /// What has come of it so far.
    pub emitted: Emitted,
    current: Option<Asked>,
    /// An attempt to connect waits for its end.
    pub connecting: bool,
    /// There is an upstream connection.
    pub upstream: bool,
    /// The pool keeps a connection.
    pub keeps: bool,
    /// It has one.
    pub pooled: bool,
}

impl Rig {
    /// A client that was just accepted.
    pub fn new(config: Config) -> Rig {
        let policy = Arc::new(config.timeouts);
        Rig {
            relay: Relay::new(Arc::new(config), Some([192, 0, 2, 7].into()), Instant::EPOCH),
            now: Instant::EPOCH,
            policy,
            bufs: BufPool::new(4),
            ids: IdSource::new(7),
            date: HttpDate::default(),
            emitted: Emitted::default(),
            current: None,
            connecting: false,
            upstream: false,
            keeps: false,
            pooled: false,
        }
    }

    /// Lends the machine what it needs, and then does what it asks for.
    pub fn with<T>(&mut self, f: impl FnOnce(&mut Relay, &mut Env<'_>) -> T) -> T {
        let Rig { relay, now, date, bufs, ids, .. } = self;
        let result = f(relay, &mut Env { now: *now, date, bufs, ids });
        while let Some(action) = self.relay.poll_action() {
            self.act(action);
        }
        result
    }

    fn act(&mut self, action: Action) {
        let Rig { relay, now, date, bufs, ids, emitted, .. } = self;
        let mut env = Env { now: *now, date, bufs, ids };
        match action {
            Action::Route => {
                self.current = relay.request().map(|head| Asked {
                    head: head.method() == "HEAD",
                    old: head.version() == tidegate_core::http::Version::Http10,
                });
                relay.forward(Some(Arc::clone(&self.policy)), &mut env);
            }
            Action::Admit => match UpstreamId::new(relay.tried().len()) {
                Some(id) if relay.tried().len() < 2 => relay.granted(id, &mut env),
                _ => relay.exhausted(&mut env),
            },
            Action::Checkout(_) => {
                assert!(!self.upstream && !self.connecting, "two upstream connections");
                if std::mem::take(&mut self.pooled) {
                    emitted.to_upstream.push(Vec::new());
                    self.upstream = true;
                    relay.connected(true, &mut env);
                } else {
                    relay.pool_miss(&mut env);
                }
            }
            // An address each; a name would have to be looked up.
            Action::Resolve(_) => {
                let addrs = [SocketAddr::from(([192, 0, 2, 8], 80))];
                relay.resolved(Ok(addrs.into_iter().collect()), &mut env);
            }
            Action::Connect { .. } => {
                assert!(!self.upstream && !self.connecting, "two upstream connections");
                self.connecting = true;
            }
            Action::Release { .. } => {
                assert!(self.upstream, "nothing to release");
                self.upstream = false;
                self.pooled |= self.keeps;
            }
            Action::Abort(Side::Upstream) | Action::Close(Side::Upstream) | Action::Discard => {
                self.upstream = false;
                self.connecting = false;
            }
            Action::Close(Side::Client) => relay.closed(&mut env),
            Action::Report => {
                let outcome = relay.outcome().expect("an outcome to report");
                emitted.outcomes.push((outcome.status, outcome.error, outcome.response_bytes));
                let asked = relay.reported().map(asked).or(self.current).unwrap_or_default();
                emitted.asked.push(asked);
                self.current = None;
            }
            _ => {}
        }
    }

    /// The attempt to connect has succeeded.
    pub fn connected(&mut self) {
        self.connecting = false;
        self.upstream = true;
        self.emitted.to_upstream.push(Vec::new());
        self.with(|relay, env| relay.connected(false, env));
    }

    /// One read of at most `max` bytes; says how many it took. Nothing happens unless it is wanted.
    pub fn read(&mut self, side: Side, bytes: &[u8], max: usize) -> usize {
        if bytes.is_empty() || !self.relay.interest().wants(Op::Read(side)) {
            return 0;
        }
        self.with(|relay, env| {
            let room = relay.recv_buf(side, env);
            assert!(!room.is_empty(), "a wanted read must have room");
            let n = room.len().min(bytes.len()).min(max);
            room[..n].copy_from_slice(&bytes[..n]);
            relay.received(side, n, env);
            n
        })
    }

    /// FIN from a side, if somebody would see it.
    pub fn fin(&mut self, side: Side) -> bool {
        let seen = self.relay.interest().wants(Op::Read(side));
        if seen {
            self.with(|relay, env| relay.received(side, 0, env));
        }
        seen
    }

    /// One write of at most `max` bytes; says how many went.
    pub fn write(&mut self, side: Side, max: usize) -> usize {
        if !self.relay.interest().wants(Op::Write(side)) {
            return 0;
        }
        let mut bytes: Vec<u8> = self.relay.send_bufs(side).flatten().copied().collect();
        assert!(!bytes.is_empty(), "a wanted write must have bytes");
        bytes.truncate(max);
        match side {
            Side::Client => self.emitted.to_client.extend_from_slice(&bytes),
            Side::Upstream => {
                self.emitted.to_upstream.last_mut().expect("a connection").extend_from_slice(&bytes);
            }
        }
        self.with(|relay, env| relay.sent(side, bytes.len(), env));
        bytes.len()
    }

    /// The end: what came of it.
    pub fn done(mut self) -> Emitted {
        self.emitted.closed = self.relay.is_closed();
        self.emitted.asked.extend(self.current);
        self.emitted
    }
}

/// What the head says, as it was written for the upstream.
fn asked(head: RequestHead<'_>) -> Asked {
    let via = head.fields().filter(|(name, _)| name.eq_ignore_ascii_case("via")).last();
    Asked { head: head.method() == "HEAD", old: via.is_some_and(|(_, value)| value == b"1.0 tidegate") }
}

/// Relays `client`, and an answer of `answers` to each request, until nothing moves any more; both sides then send FIN.
/// An answer begins when its request is written, so that the cuts alone decide nothing.
pub fn relay(config: Config, client: &[u8], answers: &[Vec<u8>], cuts: &Cuts) -> Emitted {
    let mut rig = Rig::new(config);
    let mut pieces = cuts.pieces.iter().copied().cycle();
    let mut piece = move || pieces.next().unwrap_or(usize::MAX);
    let (mut sent, mut answered) = (0, 0);
    let mut exchange = 0;
    for turn in 0..4_000_000 {
        rig.now = Instant::from_millis(turn * cuts.step);
        rig.with(|relay, env| relay.handle_timeout(env));
        let mut moved = rig.read(Side::Client, &client[sent..], piece());
        sent += moved;
        if rig.connecting {
            rig.connected();
            moved += 1;
        }
        if exchange != rig.emitted.to_upstream.len() {
            exchange = rig.emitted.to_upstream.len();
            answered = 0;
        }
        let interest = rig.relay.interest();
        let whole = !interest.write_upstream && (sent == client.len() || !interest.read_client);
        let answer =
            answers.get(exchange.wrapping_sub(1)).map_or(&[][..], |a| a.get(answered..).unwrap_or_default());
        if whole {
            let n = rig.read(Side::Upstream, answer, piece());
            answered += n;
            moved += n;
        }
        moved += rig.write(Side::Upstream, cuts.drain);
        moved += rig.write(Side::Client, cuts.drain);
        if rig.relay.is_closed() {
            break;
        }
        // Nothing moves any more: the upstream ends first, then the client.
        if moved == 0 && !rig.fin(Side::Upstream) && (sent < client.len() || !rig.fin(Side::Client)) {
            break;
        }
    }
    rig.done()
}
