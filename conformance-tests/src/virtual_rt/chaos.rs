//! What a seed may do to a world: delays on the wire, short reads and writes, late and needless wake-ups, late timers,
//! and any order of the tasks that are ready.
//!
//! All of it is what real kernels and schedulers do. Nothing here breaks a promise of the runtime's traits, so
//! that code which fails under it is wrong. Without it a world is exact and has no randomness.

use std::time::Duration;

use crate::sim::Rng;

/// How likely each disturbance is; `Default` is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Chaos {
    /// A packet takes up to so much longer.
    pub delay: Duration,
    /// Of a thousand packets, how many take up to [`Chaos::slow_delay`] longer.
    pub slow: u32,
    /// See [`Chaos::slow`].
    pub slow_delay: Duration,
    /// Of a thousand reads and writes of the proxy, how many move only some of what they could.
    pub short: u32,
    /// Of a thousand wake-ups, how many come up to [`Chaos::late_by`] late.
    pub late: u32,
    /// See [`Chaos::late`].
    pub late_by: Duration,
    /// Of a thousand events, how many wake a task for no reason.
    pub spurious: u32,
    /// Of a thousand timers, how many fire up to [`Chaos::late_by`] late.
    pub timers: u32,
    /// Of a thousand reads and writes of the proxy, how many are interrupted by a signal.
    pub interrupted: u32,
    /// Of a thousand reads and writes of the proxy, how many are pending for no reason, and wake their task.
    pub not_yet: u32,
    /// Ready tasks run in any order instead of the order in which they were woken.
    pub shuffle: bool,
}

impl Chaos {
    /// The longest that one wake-up, one timer or one packet can be late.
    pub fn longest(&self) -> Duration {
        self.late_by.max(self.delay + self.slow_delay)
    }
}

/// What may come in between an operation.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Hitch {
    /// `EINTR`.
    Interrupted,
    /// Pending, and woken at once.
    NotYet,
}

/// [`Chaos`] with its seed.
#[derive(Debug)]
pub(super) struct Dice {
    pub(super) chaos: Chaos,
    pub(super) rng: Rng,
}

impl Dice {
    fn up_to(&mut self, most: Duration) -> Duration {
        Duration::from_nanos(self.rng.between(0, most.as_nanos() as u64))
    }

    pub(super) fn packet_delay(&mut self) -> Duration {
        let mut delay = self.up_to(self.chaos.delay);
        if self.rng.permille(self.chaos.slow) {
            delay += self.up_to(self.chaos.slow_delay);
        }
        delay
    }

    /// How many of `len` bytes one operation moves.
    pub(super) fn portion(&mut self, len: usize) -> usize {
        if len > 1 && self.rng.permille(self.chaos.short) {
            // Often very few: that is where the mistakes are.
            let most = self.rng.pick(&[1, 2, 7, len]).min(len);
            self.rng.between(1, most as u64) as usize
        } else {
            len
        }
    }

    /// What comes in between an operation that goes through the runtime, if anything does.
    pub(super) fn hitch(&mut self) -> Option<Hitch> {
        if self.rng.permille(self.chaos.interrupted) {
            Some(Hitch::Interrupted)
        } else {
            self.rng.permille(self.chaos.not_yet).then_some(Hitch::NotYet)
        }
    }

    pub(super) fn late_wake(&mut self) -> Option<Duration> {
        self.rng.permille(self.chaos.late).then(|| self.up_to(self.chaos.late_by))
    }

    pub(super) fn late_timer(&mut self) -> Duration {
        if self.rng.permille(self.chaos.timers) { self.up_to(self.chaos.late_by) } else { Duration::ZERO }
    }

    pub(super) fn spurious(&mut self) -> bool {
        self.rng.permille(self.chaos.spurious)
    }

    /// Which of `ready` tasks runs next.
    pub(super) fn next(&mut self, ready: usize) -> usize {
        if self.chaos.shuffle { self.rng.below(ready as u64) as usize } else { 0 }
    }
}
