//! The standard clock, for runtimes that have none of their own.

use std::sync::OnceLock;

use crate::time::Instant;

/// The standard monotonic clock since this process's epoch (the first call).
pub fn std_now() -> Instant {
    Instant::from_epoch(epoch().elapsed())
}

fn epoch() -> std::time::Instant {
    static EPOCH: OnceLock<std::time::Instant> = OnceLock::new();
    *EPOCH.get_or_init(std::time::Instant::now)
}
