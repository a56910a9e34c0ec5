//! What is known of every request, and what must hold whatever happens: the invariants of a simulation.
//!
//! The peers and the proxy's own `observe` write here; each entry is checked as it is made. The first thing that is
//! wrong is kept, with the time; nothing here changes what happens.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::fmt;
use std::rc::Rc;
use std::time::Duration;

use tidegate_core::{DeadlineKind, Error, Instant, Outcome, TimeoutError};

use super::plan::{At, Body, Break, Id, Plan, Request};
use crate::virtual_rt::World;

/// A promise that was broken.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Invariant {
    /// Every connection that waits has a timer that will fire.
    EveryWaitHasADeadline,
    /// A request has at most one outcome, and exactly one if anything came of it.
    OneOutcome,
    /// No byte is lost, repeated, or of another request; what was cut does not look whole.
    Bytes,
    /// No more exchanges at once than allowed, and no place is lost.
    Permits,
    /// Nothing is left open or running.
    NothingLeft,
    /// What lies between two peers is bounded.
    Memory,
    /// No deadline comes early.
    NotEarly,
    /// Nothing follows an outcome, and what it ended is ended.
    NothingAfter,
    /// A client that behaves gets an answer, and the right one if nothing was in its way.
    Answered,
    /// The run came to its end.
    Progress,
}

/// What went wrong, and when.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// Which promise.
    pub invariant: Invariant,
    /// In words.
    pub what: String,
    /// So long after the start.
    pub at: Duration,
}

impl Invariant {
    /// Every one.
    pub const ALL: [Invariant; 10] = [
        Invariant::EveryWaitHasADeadline,
        Invariant::OneOutcome,
        Invariant::Bytes,
        Invariant::Permits,
        Invariant::NothingLeft,
        Invariant::Memory,
        Invariant::NotEarly,
        Invariant::NothingAfter,
        Invariant::Answered,
        Invariant::Progress,
    ];
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?} at {:?}: {}", self.invariant, self.at, self.what)
    }
}

/// A request, as far as it is known.
#[derive(Clone, Debug, Default)]
pub(super) struct Record {
    /// When the client began to send it, the last time.
    pub(super) began: Option<Instant>,
    /// Body bytes that the client handed to its kernel, and whether they were all.
    pub(super) sent: u64,
    /// When its bytes were last handed to the client's kernel: the newest first.
    sent_at: [Option<Instant>; LAST],
    /// Its heads that came to an upstream.
    pub(super) seen: u32,
    /// Its body bytes that the upstream has read, until it does not want any more.
    taken: u64,
    not_taking: bool,
    /// When bytes about it were last handed to the upstream's kernel: the newest first.
    fed_at: [Option<Instant>; LAST],
    /// Response body bytes that an upstream handed to its kernel.
    pub(super) answered: u64,
    /// Response body bytes that the client read.
    pub(super) got: u64,
    /// When it did, the last time.
    got_at: Option<Instant>,
    /// The status that the client read, and whether it was the proxy's own.
    pub(super) status: Option<(u16, bool)>,
    /// The client read the whole response.
    pub(super) whole: bool,
    /// The client broke off.
    pub(super) left: bool,
    /// When a side of its tunnel that reads at once last read something.
    pub(super) moved: Option<Instant>,
    pub(super) outcome: Option<(Instant, Outcome)>,
}

/// How many moments are remembered of those who send: some of the last may still be on the wire.
const LAST: usize = 4;

/// How many lines of the trace are kept.
const KEPT: usize = 400;

pub(super) struct Ledger {
    pub(super) world: World,
    pub(super) plan: Rc<Plan>,
    epoch: Instant,
    requests: HashMap<Id, Request>,
    records: RefCell<HashMap<Id, Record>>,
    violation: RefCell<Option<Violation>>,
    /// The last lines, if they are kept at all.
    trace: Option<RefCell<VecDeque<String>>>,
    /// Clients that have not finished.
    pub(super) clients: Cell<usize>,
    /// The proxy was told to drain or to stop.
    pub(super) ending: Cell<bool>,
    /// Connections of the proxy that were dropped.
    pub(super) cuts: Cell<usize>,
}

impl Ledger {
    pub(super) fn new(world: &World, plan: &Rc<Plan>, traced: bool) -> Ledger {
        Ledger {
            world: world.clone(),
            plan: Rc::clone(plan),
            epoch: world.now(),
            requests: plan.requests().map(|(_, request)| (request.id, request.clone())).collect(),
            records: RefCell::default(),
            violation: RefCell::default(),
            trace: traced.then(RefCell::default),
            clients: Cell::new(plan.clients.len()),
            ending: Cell::new(false),
            cuts: Cell::new(0),
        }
    }

    /// Notes an event: its numbers always, its words if the trace is kept.
    pub(super) fn event(&self, id: Id, number: u64, words: impl FnOnce() -> String) {
        self.world.note(u64::from(id) << 32 | number);
        if let Some(trace) = &self.trace {
            let mut trace = trace.borrow_mut();
            if trace.len() == KEPT {
                trace.pop_front();
            }
            trace.push_back(format!("{:>12.3?} {}", self.elapsed(), words()));
        }
    }

    pub(super) fn trace(&self) -> Vec<String> {
        self.trace.iter().flat_map(|trace| trace.borrow().iter().cloned().collect::<Vec<_>>()).collect()
    }

    fn elapsed(&self) -> Duration {
        self.world.now().saturating_since(self.epoch)
    }

    pub(super) fn fail(&self, invariant: Invariant, what: impl Into<String>) {
        let violation = Violation { invariant, what: what.into(), at: self.elapsed() };
        self.violation.borrow_mut().get_or_insert(violation);
    }

    pub(super) fn violation(&self) -> Option<Violation> {
        self.violation.borrow().clone()
    }

    pub(super) fn is_broken(&self) -> bool {
        self.violation.borrow().is_some()
    }

    pub(super) fn request(&self, id: Id) -> Option<&Request> {
        self.requests.get(&id)
    }

    pub(super) fn with<T>(&self, id: Id, f: impl FnOnce(&mut Record) -> T) -> T {
        f(self.records.borrow_mut().entry(id).or_default())
    }

    /// A head came to an upstream, over a connection that was over already if `late`.
    pub(super) fn seen(&self, request: &Request, late: bool) {
        let id = request.id;
        let seen = self.with(id, |r| {
            r.seen += 1;
            r.answered = 0;
            r.taken = 0;
            r.clone()
        });
        self.event(id, 1, || format!("upstream: /{id} came, for the {}. time", seen.seen));
        if request.local {
            self.fail(
                Invariant::Bytes,
                format!("/{id} came to an upstream, but it is answered by the proxy"),
            );
        }
        let again = matches!(request.body, Body::None | Body::Length(0)) && request.method != "POST";
        if seen.seen > if again { 2 } else { 1 } {
            self.fail(Invariant::Bytes, format!("/{id} came to an upstream {} times", seen.seen));
        }
        if !late && seen.outcome.is_some_and(|(at, _)| self.world.now().saturating_since(at) > self.flight())
        {
            self.fail(Invariant::NothingAfter, format!("/{id} came to an upstream after its outcome"));
        }
    }

    /// The longest that a packet takes.
    pub(super) fn flight(&self) -> Duration {
        self.plan.chaos.delay + self.plan.chaos.slow_delay + Duration::from_millis(1)
    }

    /// The whole body of a request came to an upstream.
    pub(super) fn request_whole(&self, request: &Request, got: u64) {
        let sent = self.with(request.id, |r| r.sent);
        let len = u64::from(request.body.len());
        if got != len || sent < len {
            let id = request.id;
            let what = format!("{got} bytes of /{id} came as if whole; it has {len}, its client sent {sent}");
            self.fail(Invariant::Bytes, what);
        }
    }

    /// The most bytes that can lie between a client and an upstream, one way: four kernel buffers, what each peer has in
    /// hand, and what a connection of the proxy may hold.
    fn between(&self) -> u64 {
        2 * self.plan.hop as u64 + 2 * 64 * 1024 + 512 * 1024
    }

    /// So many bytes of the request's body are on their way.
    pub(super) fn sending(&self, id: Id, bytes: u64) {
        let seen = self.with(id, |r| {
            r.sent = bytes;
            r.clone()
        });
        // Where nobody wants it any more it is thrown away, as behind the end of the connection's last answer.
        let wanted = seen.seen > 0 && !seen.not_taking && seen.outcome.is_none();
        if wanted && bytes > seen.taken + self.between() {
            let what = format!("{} bytes of the body of /{id} lie somewhere", bytes - seen.taken);
            self.fail(Invariant::Memory, what);
        }
    }

    /// The client's kernel took bytes of the request.
    pub(super) fn sent(&self, id: Id) {
        let now = self.world.now();
        self.with(id, |r| remember(&mut r.sent_at, now));
    }

    /// The upstream read so many bytes of the request's body.
    pub(super) fn taking(&self, id: Id, bytes: u64) {
        self.with(id, |r| r.taken = bytes);
    }

    /// The upstream reads no more of it, and is gone or says so.
    pub(super) fn not_taking(&self, id: Id) {
        self.with(id, |r| r.not_taking = true);
    }

    /// The upstream's kernel took bytes about the request.
    pub(super) fn fed(&self, id: Id) {
        let now = self.world.now();
        self.with(id, |r| remember(&mut r.fed_at, now));
    }

    /// The client read so many bytes of the answer's body.
    pub(super) fn getting(&self, id: Id, bytes: u64) {
        let now = self.world.now();
        self.with(id, |r| (r.got, r.got_at) = (bytes, Some(now)));
    }

    /// Whether what follows an outcome at once ought to be here by now.
    pub(super) fn is_overdue(&self, id: Id, slack: Duration) -> bool {
        let outcome = self.with(id, |r| r.outcome);
        outcome.is_some_and(|(at, _)| self.world.now().saturating_since(at) > self.flight() + slack)
    }

    /// So many bytes of the answer are on their way.
    pub(super) fn answering(&self, id: Id, bytes: u64) {
        let got = self.with(id, |r| {
            r.answered = bytes;
            r.got
        });
        if bytes > got + self.between() {
            self.fail(
                Invariant::Memory,
                format!("{} bytes of the answer to /{id} lie somewhere", bytes - got),
            );
        }
    }

    /// An upstream that fell silent saw how the proxy ended its connection.
    pub(super) fn stalled_end(&self, id: Id, by_rst: bool) {
        let (now, outcome) = (self.world.now(), self.with(id, |r| r.outcome));
        self.event(id, 2, || format!("upstream: the stalled connection of /{id} ends, RST {by_rst}"));
        match outcome {
            Some((at, _)) if now.saturating_since(at) > self.flight() => {
                let late = now.saturating_since(at);
                self.fail(
                    Invariant::NothingAfter,
                    format!("the upstream of /{id} was closed {late:?} after its outcome"),
                );
            }
            _ if !by_rst => {
                self.fail(
                    Invariant::NothingAfter,
                    format!("the unfinished exchange of /{id} ended with FIN"),
                );
            }
            _ => {}
        }
    }

    /// What the proxy says became of a request.
    pub(super) fn outcome(&self, id: Id, outcome: &Outcome) {
        let now = self.world.now();
        let before = self.with(id, |r| {
            let before = r.clone();
            r.outcome = Some((now, *outcome));
            before
        });
        self.event(id, 3, || format!("outcome: /{id} {:?} {:?}", outcome.status, outcome.error));
        if before.outcome.is_some() {
            self.fail(Invariant::OneOutcome, format!("/{id} has two outcomes"));
        }
        if let Some(error) = outcome.error
            && outcome.status == Some(101)
            && self.plan.is_steady()
            && self.request(id).and_then(|request| request.tunnel).is_some_and(|tunnel| tunnel.is_orderly())
        {
            let what = format!("the tunnel of /{id} ends with {error}, though both sides ended it");
            self.fail(Invariant::Answered, what);
        }
        if let Some(Error::Timeout(t)) = outcome.error {
            let began = before.began.unwrap_or(now);
            // Drain's clock is the proxy's, not the request's.
            let since = now.saturating_since(began);
            if t.elapsed < t.limit || (since < t.limit && t.kind.name() != "drain") {
                let what = format!("{t}, but /{id} was sent {since:?} ago");
                self.fail(Invariant::NotEarly, what);
            }
            self.check_limit(id, &before, t);
        }
    }

    /// A deadline must be that of the request's own limits, and one that progress puts off must have been put off.
    fn check_limit(&self, id: Id, record: &Record, t: TimeoutError) {
        let Some(request) = self.request(id) else { return };
        let limit = self.plan.policy_of(request).limit(t.kind);
        if limit != Some(t.limit) {
            self.fail(Invariant::NotEarly, format!("{t}, but the limit of /{id} is {limit:?}"));
        }
        let (now, flight) = (self.world.now(), self.flight());
        // What came before the deadline puts it off, even if nobody had looked at it.
        let came: &[Option<Instant>] = match t.kind {
            DeadlineKind::Read => &record.fed_at,
            DeadlineKind::ClientBody => &record.sent_at,
            _ => &[],
        };
        for since in came.iter().flatten().map(|at| now.saturating_since(*at)) {
            if since > flight && since < t.limit {
                self.fail(Invariant::NotEarly, format!("{t}, but bytes of /{id} were sent {since:?} ago"));
            }
        }
        // Whoever reads makes room, and the next bytes are taken.
        if let (DeadlineKind::ClientWrite, Some(got_at)) = (t.kind, record.got_at) {
            let since = now.saturating_since(got_at);
            if since > Duration::ZERO && since < t.limit {
                self.fail(Invariant::NotEarly, format!("{t}, but the client of /{id} read {since:?} ago"));
            }
        }
        if let Some(moved) = record.moved
            && matches!(t.kind, DeadlineKind::Tunnel | DeadlineKind::TunnelFin)
        {
            let since = self.world.now().saturating_since(moved);
            if since + self.flight() < t.limit {
                self.fail(Invariant::NotEarly, format!("{t}, but bytes of /{id} arrived {since:?} ago"));
            }
        }
    }

    /// The client has a whole response, if `whole`; or else it ended where it could be seen.
    pub(super) fn response(&self, id: Id, status: u16, own: bool, whole: bool, got: u64) {
        self.with(id, |r| {
            r.status = Some((status, own));
            r.whole = whole;
            r.got = got;
        });
        self.event(id, 4, || format!("client: /{id} has {status}, own {own}, whole {whole}, {got} bytes"));
        let Some(request) = self.request(id) else { return };
        if whole && self.with(id, |r| r.outcome.is_none()) {
            self.fail(Invariant::OneOutcome, format!("/{id} is over, and has no outcome yet"));
        }
        if !whole || own {
            return;
        }
        let answer = &request.answer;
        let bodiless = request.method == "HEAD" || matches!(answer.status, 204 | 304);
        let expected = match answer.fault {
            _ if bodiless => Some(0),
            None => Some(u64::from(answer.body.len())),
            // Where only the end of the connection ends a body, it is an end.
            Some(fault) => match (fault.at, fault.kind, answer.body) {
                (At::Body(n), Break::Fin, Body::Close(len)) => Some(u64::from(n.min(len))),
                // Nothing was missing yet.
                (At::Body(n), _, Body::Length(len)) if n >= len => Some(u64::from(len)),
                _ => None,
            },
        };
        if status != answer.status || expected != Some(got) {
            let what = format!("/{id} has a whole {status} of {got} bytes, but its answer is {answer:?}");
            self.fail(Invariant::Bytes, what);
        }
    }

    /// What must hold of every request when all is over.
    pub(super) fn close(&self) {
        let records = self.records.borrow();
        let mut ids: Vec<_> = records.keys().copied().collect();
        ids.sort_unstable();
        // A connection that is dropped takes the one that it is busy with along.
        let mut cut = self.cuts.get();
        for id in ids {
            let record = &records[&id];
            let Some(request) = self.request(id) else { continue };
            if record.outcome.is_none() && (record.seen > 0 || record.status.is_some()) {
                if cut > 0 {
                    cut -= 1;
                    continue;
                }
                self.fail(Invariant::OneOutcome, format!("/{id} has no outcome: {record:?}"));
            }
            if let Some((_, outcome)) = record.outcome
                && record.whole
                && outcome.error.is_none()
                && outcome.response_bytes != record.got
                // What the proxy says itself is not counted.
                && !request.local
                && record.status.is_some_and(|(_, own)| !own)
            {
                let what =
                    format!("/{id}: {} bytes by its outcome, {} came", outcome.response_bytes, record.got);
                self.fail(Invariant::Bytes, what);
            }
        }
    }
}

/// Puts a moment in front of those before it, of which the oldest is forgotten.
fn remember(last: &mut [Option<Instant>; LAST], now: Instant) {
    if last[0] != Some(now) {
        last.rotate_right(1);
        last[0] = Some(now);
    }
}
