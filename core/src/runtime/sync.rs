//! The lock and the atomics of what threads share: std's, and those of a model checker in its own tests.
//!
//! Nothing else differs there, so what is checked is what runs.

#[cfg(not(all(test, shuttle)))]
pub(crate) use std::sync::{Mutex, MutexGuard, atomic};

#[cfg(all(test, shuttle))]
pub(crate) use shuttle::sync::{Mutex, MutexGuard, atomic};
