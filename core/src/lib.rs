//! Tidegate's machine: a reverse proxy as a pure state machine that keeps every deadline.
#![cfg_attr(not(feature = "driver"), no_std)]

extern crate alloc;

#[cfg(feature = "driver")]
pub mod driver {
    //! The generic driver.
    pub mod scope;
}
mod error;
pub mod http;
#[cfg(feature = "driver")]
pub mod runtime;
mod time;
mod timeout;

pub use crate::error::{Error, IoFailure, IoKind, Phase, Side, TimeoutError};
pub use crate::time::Instant;
pub use crate::timeout::{Deadline, DeadlineKind, Deadlines, TimeoutPolicy};
