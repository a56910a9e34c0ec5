//! The board of a case: named events, snapshots, logs, and who is still busy. Shared by all peers of one
//! run, in either world. It holds facts and waits for nothing; each world adds its own way to wait.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::task::Waker;
use std::time::Duration;

use crate::recorder::Receives;
use crate::transcript::{Calls, ConnLog, Seen, Snapshot, Transcript};

/// A connection's log, shared by the steps that run beside each other on it.
pub(crate) type Log = Arc<Mutex<ConnLog>>;

/// Locks, whatever a panicking thread left behind.
pub(crate) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// What all peers of a run share.
#[derive(Default)]
pub(crate) struct Board {
    facts: Mutex<Facts>,
    change: Condvar,
}

#[derive(Default)]
struct Facts {
    marks: BTreeMap<&'static str, Duration>,
    snapshots: BTreeMap<&'static str, Snapshot>,
    descriptors: BTreeMap<&'static str, Option<u64>>,
    calls: Calls,
    uncounted: bool,
    clients: Vec<Log>,
    upstreams: Vec<Log>,
    outcomes: Vec<Seen>,
    order: Vec<String>,
    faults: Vec<String>,
    busy: usize,
    wakers: Vec<Waker>,
    reactions: Vec<(&'static str, Reaction)>,
}

/// What happens at once when an event does.
pub(crate) type Reaction = Box<dyn FnOnce() + Send>;

impl Board {
    /// Notes an event, once, after what is to happen at it.
    pub(crate) fn mark(&self, event: &'static str, at: Duration) {
        let now: Vec<_> = lock(&self.facts).reactions.extract_if(.., |(name, _)| *name == event).collect();
        now.into_iter().for_each(|(_, react)| react());
        let mut facts = lock(&self.facts);
        facts.marks.entry(event).or_insert(at);
        self.notify(facts);
    }

    /// Does something at an event, on the thread of whoever marks it. Before the event.
    pub(crate) fn react(&self, event: &'static str, reaction: Reaction) {
        lock(&self.facts).reactions.push((event, reaction));
    }

    /// When an event happened.
    pub(crate) fn marked(&self, event: &str) -> Option<Duration> {
        lock(&self.facts).marks.get(event).copied()
    }

    pub(crate) fn snapshot(&self, name: &'static str, snapshot: Snapshot) {
        lock(&self.facts).snapshots.insert(name, snapshot);
    }

    pub(crate) fn descriptor(&self, name: &'static str, number: Option<u64>) {
        lock(&self.facts).descriptors.insert(name, number);
    }

    /// Notes that the proxy asked for a read or a write.
    pub(crate) fn called(&self) {
        let mut facts = lock(&self.facts);
        facts.calls.sockets += u64::from(!facts.uncounted);
    }

    /// Notes that it armed a timer.
    pub(crate) fn armed(&self) {
        let mut facts = lock(&self.facts);
        facts.calls.timers += u64::from(!facts.uncounted);
    }

    /// The case is over: who waits for the rest uses the same runtime.
    pub(crate) fn count_no_more(&self) {
        lock(&self.facts).uncounted = true;
    }

    /// A new connection's log; the connection is busy until [`Board::rests`].
    pub(crate) fn connection(&self, receives: Receives) -> Log {
        let log = Arc::new(Mutex::new(ConnLog::new(receives)));
        let mut facts = lock(&self.facts);
        facts.busy += 1;
        match receives {
            Receives::Responses => facts.clients.push(log.clone()),
            Receives::Requests => facts.upstreams.push(log.clone()),
        }
        log
    }

    /// A script has ended, or only holds its connection from now on.
    pub(crate) fn rests(&self) {
        let mut facts = lock(&self.facts);
        facts.busy -= 1;
        self.notify(facts);
    }

    /// Whether every script has ended or holds.
    pub(crate) fn all_rest(&self) -> bool {
        lock(&self.facts).busy == 0
    }

    pub(crate) fn outcome(&self, seen: Seen) {
        lock(&self.facts).outcomes.push(seen);
    }

    /// Notes what the proxy itself did.
    pub(crate) fn did(&self, what: String) {
        lock(&self.facts).order.push(what);
    }

    /// Drops what the proxy did: the case does not ask for it.
    pub(crate) fn forget_order(&self) {
        lock(&self.facts).order.clear();
    }

    /// Notes what ought not to be.
    pub(crate) fn fault(&self, what: String) {
        lock(&self.facts).faults.push(what);
    }

    /// Whether anything is known to have gone wrong.
    pub(crate) fn is_faulty(&self) -> bool {
        !lock(&self.facts).faults.is_empty()
    }

    /// Wakes `waker` at every further change.
    pub(crate) fn watch(&self, waker: &Waker) {
        let mut facts = lock(&self.facts);
        if !facts.wakers.iter().any(|w| w.will_wake(waker)) {
            facts.wakers.push(waker.clone());
        }
    }

    /// Wakes whoever watches.
    pub(crate) fn changed(&self) {
        self.notify(lock(&self.facts));
    }

    fn notify(&self, mut facts: MutexGuard<'_, Facts>) {
        let wakers = std::mem::take(&mut facts.wakers);
        drop(facts);
        self.change.notify_all();
        wakers.into_iter().for_each(Waker::wake);
    }

    /// Blocks the thread until something changes, at most for `bound`.
    pub(crate) fn wait(&self, bound: Duration, done: impl Fn() -> bool) {
        let until = std::time::Instant::now() + bound;
        while !done() {
            let left = until.saturating_duration_since(std::time::Instant::now());
            if left.is_zero() {
                return;
            }
            // Short waits: `done` may look at what does not notify, and a change may come between.
            let facts = lock(&self.facts);
            let _ = self.change.wait_timeout(facts, left.min(Duration::from_millis(1)));
        }
    }

    /// Which scripts are at which step.
    pub(crate) fn steps(&self) -> String {
        let facts = lock(&self.facts);
        let mut lines = Vec::new();
        for (side, logs) in [("client", &facts.clients), ("upstream connection", &facts.upstreams)] {
            for (i, log) in logs.iter().enumerate() {
                lines.push(format!("{side} {i} is at: {}", lock(log).step));
            }
        }
        lines.join("; ")
    }

    /// A copy of everything.
    pub(crate) fn transcript(&self) -> Transcript {
        let facts = lock(&self.facts);
        let copy = |logs: &Vec<Log>| logs.iter().map(|log| lock(log).clone()).collect();
        let mut outcomes = facts.outcomes.clone();
        outcomes.sort_by_key(|seen| seen.started);
        Transcript {
            clients: copy(&facts.clients),
            upstreams: copy(&facts.upstreams),
            outcomes,
            // The run's own events are no part of what happened.
            marks: facts
                .marks
                .iter()
                .filter(|(name, _)| !name.starts_with('('))
                .map(|(k, v)| (*k, *v))
                .collect(),
            snapshots: facts.snapshots.clone(),
            descriptors: facts.descriptors.clone(),
            calls: facts.calls,
            order: facts.order.clone(),
            faults: facts.faults.clone(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::upstreams::p_09_permit_freed;
    use crate::run_virtual::run_virtual;

    #[test]
    fn outcomes_are_in_the_order_in_which_the_requests_began_whichever_was_told_first() {
        let outcomes = run_virtual(&p_09_permit_freed()).outcomes;
        let told = |order: &[usize]| {
            let board = Board::default();
            order.iter().for_each(|&i| board.outcome(outcomes[i]));
            board.transcript().outcomes
        };
        assert_eq!(told(&[0, 1]), outcomes);
        assert_eq!(told(&[1, 0]), outcomes);
    }
}
