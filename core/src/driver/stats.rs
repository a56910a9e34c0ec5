//! What a proxy has done so far: counters that cost a request a few additions, and no lock.
//!
//! Each runtime instance counts in a block of its own, so that threads do not write to each other's memory; only
//! reading adds them up. Nothing here decides what an ending is: that is the [`Outcome`]'s.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use crate::error::Error;
use crate::relay::Outcome;
use crate::timeout::DeadlineKind;

/// What a proxy has done since it was made, on all runtime instances. [`Proxy::stats`](crate::Proxy::stats) reads it.
///
/// A request that has ended was counted once: as completed, as a timeout of one kind, as aborted or as failed.
///
/// ```
/// use tidegate_core::{DeadlineKind, Stats};
///
/// /// A line for the application's own metrics.
/// fn line(stats: &Stats) -> String {
///     let ended = stats.completed + stats.timed_out() + stats.aborted + stats.failed;
///     assert_eq!(stats.started, ended + stats.in_progress());
///     format!("requests={} slow_upstream={}", stats.started, stats.timeouts(DeadlineKind::Read))
/// }
///
/// assert_eq!(line(&Stats::default()), "requests=0 slow_upstream=0");
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
#[non_exhaustive]
pub struct Stats {
    /// Client connections that were taken on.
    pub clients: u64,
    /// Requests whose head was complete, and those that ended before.
    pub started: u64,
    /// Requests that ended well, whatever their status; those that a route answered itself included.
    pub completed: u64,
    /// Requests whose client left before the end.
    pub aborted: u64,
    /// Requests that ended with any other error: of the upstream, of the request itself, or because the proxy was
    /// stopped.
    pub failed: u64,
    /// Attempts to connect to an upstream.
    pub connects: u64,
    /// Those of the attempts that were not a request's first.
    pub retries: u64,
    /// Requests that ended on an upstream connection from the idle pool.
    pub reused: u64,
    /// Body bytes of requests that the upstream's socket took; counted when the request is over.
    pub request_bytes: u64,
    /// Body bytes of responses that the client's socket took; counted when the request is over. Responses of the proxy's
    /// own count as nothing.
    pub response_bytes: u64,
    timeouts: [u64; DeadlineKind::COUNT],
}

impl Stats {
    /// Requests that a deadline of this kind ended. Idle connections that were closed are no requests.
    pub fn timeouts(&self, kind: DeadlineKind) -> u64 {
        self.timeouts[kind as usize]
    }

    /// Requests that any deadline ended.
    pub fn timed_out(&self) -> u64 {
        self.timeouts.iter().sum()
    }

    /// Requests that have started and not ended.
    pub fn in_progress(&self) -> u64 {
        self.started.saturating_sub(self.completed + self.timed_out() + self.aborted + self.failed)
    }
}

/// [`Stats`] of one runtime instance, as they grow.
#[derive(Debug, Default)]
struct Counters {
    clients: AtomicU64,
    started: AtomicU64,
    completed: AtomicU64,
    aborted: AtomicU64,
    failed: AtomicU64,
    connects: AtomicU64,
    retries: AtomicU64,
    reused: AtomicU64,
    request_bytes: AtomicU64,
    response_bytes: AtomicU64,
    timeouts: [AtomicU64; DeadlineKind::COUNT],
}

/// Adds, unless there is nothing to add.
fn add(counter: &AtomicU64, n: u64) {
    if n > 0 {
        counter.fetch_add(n, Ordering::Relaxed);
    }
}

impl Counters {
    fn add_to(&self, sum: &mut Stats) {
        let add = |to: &mut u64, counter: &AtomicU64| *to += counter.load(Ordering::Relaxed);
        // What has ended before what has started: a request that ends in between is not missed as started.
        let ended = [&self.completed, &self.aborted, &self.failed].map(|c| c.load(Ordering::Acquire));
        sum.completed += ended[0];
        sum.aborted += ended[1];
        sum.failed += ended[2];
        for (to, counter) in sum.timeouts.iter_mut().zip(&self.timeouts) {
            *to += counter.load(Ordering::Acquire);
        }
        add(&mut sum.started, &self.started);
        add(&mut sum.clients, &self.clients);
        add(&mut sum.connects, &self.connects);
        add(&mut sum.retries, &self.retries);
        add(&mut sum.reused, &self.reused);
        add(&mut sum.request_bytes, &self.request_bytes);
        add(&mut sum.response_bytes, &self.response_bytes);
    }
}

/// The counters of one runtime instance, and through it those of all.
#[derive(Debug)]
pub(crate) struct Tally {
    own: Arc<Counters>,
    all: Arc<Mutex<All>>,
}

#[derive(Debug, Default)]
struct All {
    blocks: Vec<Arc<Counters>>,
    /// Of instances that are gone.
    gone: Stats,
}

impl Default for Tally {
    fn default() -> Tally {
        Tally::of(Arc::default())
    }
}

impl Tally {
    fn of(all: Arc<Mutex<All>>) -> Tally {
        let own = Arc::new(Counters::default());
        {
            let mut all = all.lock().unwrap_or_else(PoisonError::into_inner);
            let All { blocks, gone } = &mut *all;
            blocks.retain(|block| {
                // Nobody else has it, and nobody can get it again.
                let alone = Arc::strong_count(block) == 1;
                if alone {
                    block.add_to(gone);
                }
                !alone
            });
            blocks.push(Arc::clone(&own));
        }
        Tally { own, all }
    }

    /// For another runtime instance of the same proxy.
    pub(crate) fn another(&self) -> Tally {
        Tally::of(Arc::clone(&self.all))
    }

    pub(crate) fn client(&self) {
        add(&self.own.clients, 1);
    }

    pub(crate) fn started(&self) {
        add(&self.own.started, 1);
    }

    pub(crate) fn ended(&self, outcome: &Outcome) {
        let own = &*self.own;
        add(&own.connects, outcome.attempts.into());
        add(&own.retries, outcome.attempts.saturating_sub(1).into());
        add(&own.reused, outcome.reused.into());
        add(&own.request_bytes, outcome.request_bytes);
        add(&own.response_bytes, outcome.response_bytes);
        let ending = match outcome.error {
            None => &own.completed,
            Some(Error::Timeout(timeout)) => &own.timeouts[timeout.kind as usize],
            Some(Error::ClientAbort(_)) => &own.aborted,
            Some(_) => &own.failed,
        };
        // After its start for whoever reads both.
        ending.fetch_add(1, Ordering::Release);
    }

    pub(crate) fn sum(&self) -> Stats {
        let all = self.all.lock().unwrap_or_else(PoisonError::into_inner);
        let mut sum = all.gone;
        all.blocks.iter().for_each(|block| block.add_to(&mut sum));
        sum
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gone_stays_counted_and_takes_no_room() {
        let tally = Tally::default();
        tally.client();
        for _ in 0..100 {
            let other = tally.another();
            other.client();
            other.started();
        }
        let kept = tally.another();
        kept.started();
        let stats = tally.sum();
        assert_eq!((stats.clients, stats.started, stats.in_progress()), (101, 101, 101));
        assert_eq!(stats, kept.sum());
        assert_eq!(tally.all.lock().unwrap().blocks.len(), 2);
    }
}
