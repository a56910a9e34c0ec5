//! The standard clock, for runtimes that have none of their own.

use std::sync::OnceLock;
use std::time::Duration;

use crate::time::Instant;

/// The standard monotonic clock since this process's epoch (the first call).
pub fn std_now() -> Instant {
    Instant::from_epoch(epoch().elapsed())
}

fn epoch() -> std::time::Instant {
    static EPOCH: OnceLock<std::time::Instant> = OnceLock::new();
    *EPOCH.get_or_init(std::time::Instant::now)
}

/// The standard instant for one of ours on this clock. One that the system cannot express becomes thirty
/// years from the epoch: a timer is a hint, so firing then costs a look at the clock and nothing else.
pub fn std_instant(at: Instant) -> std::time::Instant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    let epoch = epoch();
    epoch.checked_add(Duration::from_nanos(at.as_nanos())).or_else(|| epoch.checked_add(FAR)).unwrap_or(epoch)
}
