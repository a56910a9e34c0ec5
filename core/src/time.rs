//! The machine's own instant: nanoseconds since an epoch that the embedder chooses.
//!
//! `std::time::Instant` cannot be used here: the pure part of this crate is `no_std`, its traces must
//! print and compare exactly, and no arithmetic on time may panic. Everything saturates;
//! [`Instant::NEVER`] lies after every other instant and means "no deadline" (`timeouts.md` T8).
//!
//! This module reads no clock. There is one epoch per process and clock, so that instants taken on
//! different threads compare.

use core::fmt;
use core::ops::{Add, Sub};
use core::time::Duration;

/// A point in time, in nanoseconds since the clock's epoch.
#[derive(Copy, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Default)]
pub struct Instant(u64);

impl Instant {
    /// The clock's epoch.
    pub const EPOCH: Instant = Instant(0);
    /// Later than every instant that a clock can show.
    pub const NEVER: Instant = Instant(u64::MAX);

    /// The instant `nanos` nanoseconds after the epoch.
    pub const fn from_nanos(nanos: u64) -> Instant {
        Instant(nanos)
    }

    /// The instant `millis` milliseconds after the epoch; saturates at [`Instant::NEVER`].
    pub const fn from_millis(millis: u64) -> Instant {
        Instant(millis.saturating_mul(1_000_000))
    }

    /// The instant that lies `since_epoch` after the epoch; saturates at [`Instant::NEVER`].
    pub fn from_epoch(since_epoch: Duration) -> Instant {
        Instant(nanos(since_epoch))
    }

    /// Nanoseconds since the epoch.
    pub const fn as_nanos(self) -> u64 {
        self.0
    }

    /// How long after `earlier` this instant lies; zero if it does not.
    pub fn saturating_since(self, earlier: Instant) -> Duration {
        Duration::from_nanos(self.0.saturating_sub(earlier.0))
    }
}

/// Whole nanoseconds of a duration, saturating (584 years fit).
fn nanos(d: Duration) -> u64 {
    u64::try_from(d.as_nanos()).unwrap_or(u64::MAX)
}

impl Add<Duration> for Instant {
    type Output = Instant;

    /// Saturates at [`Instant::NEVER`]; never panics.
    fn add(self, d: Duration) -> Instant {
        Instant(self.0.saturating_add(nanos(d)))
    }
}

impl Sub<Duration> for Instant {
    type Output = Instant;

    /// Saturates at the epoch; never panics.
    fn sub(self, d: Duration) -> Instant {
        Instant(self.0.saturating_sub(nanos(d)))
    }
}

impl fmt::Display for Instant {
    /// Seconds with nine decimals, or `never`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match *self {
            Instant::NEVER => f.write_str("never"),
            Instant(n) => write!(f, "{}.{:09}s", n / 1_000_000_000, n % 1_000_000_000),
        }
    }
}

impl fmt::Debug for Instant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::string::ToString;

    #[test]
    fn arithmetic_saturates_and_never_panics() {
        assert_eq!(Instant::EPOCH + Duration::MAX, Instant::NEVER);
        assert_eq!(Instant::NEVER + Duration::from_secs(1), Instant::NEVER);
        assert_eq!(Instant::EPOCH - Duration::MAX, Instant::EPOCH);
        assert_eq!(Instant::from_millis(u64::MAX), Instant::NEVER);
        assert_eq!(Instant::EPOCH.saturating_since(Instant::NEVER), Duration::ZERO);
    }

    #[test]
    fn prints_seconds_and_never() {
        assert_eq!(Instant::from_millis(1_500).to_string(), "1.500000000s");
        assert_eq!(Instant::NEVER.to_string(), "never");
    }
}
