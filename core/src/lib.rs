//! Tidegate's machine: a reverse proxy as a pure state machine that keeps every deadline, and the one
//! generic driver that runs it on any async runtime.
//!
//! Every wait has a deadline, and every deadline cancels the same way everywhere.
//!
//! * To embed a proxy, take an adapter (`tidegate-tokio`, `tidegate-smol`, `tidegate-async-std`) and
#![cfg_attr(feature = "driver", doc = "  [`Proxy`]; this crate re-exports nothing of a runtime.")]
#![cfg_attr(not(feature = "driver"), doc = "  `Proxy`, which needs the feature `driver`.")]
//! * To run the machine without an executor, drive [`relay::Relay`] yourself.
#![cfg_attr(feature = "driver", doc = "* To support another runtime, implement [`runtime`]'s traits.")]
//!
//! Without the feature `driver` the crate is `no_std` + `alloc`: it *cannot* reach a socket, a clock, a
//! thread or randomness. All decisions about HTTP and about deadlines lie in that part.
#![cfg_attr(not(feature = "driver"), no_std)]

extern crate alloc;

mod buf;
#[cfg(feature = "driver")]
mod driver;
mod error;
pub mod http;
pub mod relay;
#[cfg(feature = "driver")]
pub mod runtime;
mod time;
mod timeout;
mod upstream;

pub use crate::buf::{BLOCK, BufPool};
#[cfg(feature = "driver")]
pub use crate::driver::{
    Connection, Decision, Elapsed, Gauges, Keeper, Proxy, Report, Response, Scope, Serve, UpstreamLimits,
    Upstreams, WaitFor,
};
pub use crate::error::{Error, IoFailure, IoKind, Phase, Side, TimeoutError};
pub use crate::http::RequestHead;
pub use crate::relay::{Config, Outcome, Timing};
pub use crate::time::Instant;
pub use crate::timeout::{Deadline, DeadlineKind, Deadlines, Kinds, TimeoutPolicy};
pub use crate::upstream::{Admission, Admitted, Pool, Ticket, UpstreamId};
