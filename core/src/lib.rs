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
//! One request by hand, in memory; `examples/bare_loop.rs` is the same with sockets:
//!
//! ```
//! use std::sync::Arc;
//! use tidegate_core::http::{HttpDate, IdSource};
//! use tidegate_core::relay::{Action, Env, Relay};
//! use tidegate_core::{BufPool, Config, DeadlineKind, Instant, Side, TimeoutPolicy, UpstreamId};
//!
//! let (date, mut bufs, mut ids) = (HttpDate::from_unix(784_111_777), BufPool::new(2), IdSource::new(1));
//! let mut env = Env { now: Instant::EPOCH, date: &date, bufs: &mut bufs, ids: &mut ids };
//! let mut relay = Relay::new(Arc::new(Config::default()), None, env.now);
//!
//! /// The kernel's part: bytes come from a side.
//! fn comes(relay: &mut Relay, side: Side, bytes: &[u8], env: &mut Env<'_>) {
//!     relay.recv_buf(side, env)[..bytes.len()].copy_from_slice(bytes);
//!     relay.received(side, bytes.len(), env);
//! }
//! /// The kernel's part: a side takes all that is there for it.
//! fn goes(relay: &mut Relay, side: Side, env: &mut Env<'_>) -> String {
//!     let bytes: Vec<u8> = relay.send_bufs(side).flatten().copied().collect();
//!     relay.sent(side, bytes.len(), env);
//!     String::from_utf8_lossy(&bytes).into_owned()
//! }
//! /// The driver's part: what must be done before the next socket operation.
//! fn act(relay: &mut Relay, env: &mut Env<'_>) {
//!     while let Some(action) = relay.poll_action() {
//!         match action {
//!             Action::Route => relay.forward(None, env),
//!             Action::Admit => relay.granted(UpstreamId::new(0).unwrap(), env),
//!             Action::Checkout(_) => relay.pool_miss(env),
//!             Action::Resolve(_) => relay.resolved(Ok([([192, 0, 2, 1], 80).into()].into_iter().collect()), env),
//!             Action::Connect { .. } => relay.connected(false, env),
//!             _ => {}
//!         }
//!     }
//! }
//!
//! comes(&mut relay, Side::Client, b"GET /tide HTTP/1.1\r\nHost: example.org\r\n\r\n", &mut env);
//! act(&mut relay, &mut env);
//! assert!(goes(&mut relay, Side::Upstream, &mut env).starts_with("GET /tide HTTP/1.1\r\n"));
//!
//! // Now the response is awaited, and a deadline runs.
//! let next = relay.poll_timeout().unwrap();
//! assert_eq!((next.kind, next.at), (DeadlineKind::Read, Instant::from_millis(15_000)));
//!
//! comes(&mut relay, Side::Upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nhigh", &mut env);
//! act(&mut relay, &mut env);
//! assert!(goes(&mut relay, Side::Client, &mut env).ends_with("\r\n\r\nhigh"));
//! act(&mut relay, &mut env);
//! let outcome = relay.outcome().unwrap();
//! assert_eq!((outcome.status, outcome.error, outcome.response_bytes), (Some(200), None, 4));
//! ```
//!
//! Without the feature `driver` the crate is `no_std` + `alloc`: it *cannot* reach a socket, a clock, a
//! thread or randomness. All decisions about HTTP and about deadlines lie in that part.
// Tests may use `std`, also those of the pure part alone.
#![cfg_attr(not(any(feature = "driver", test)), no_std)]

extern crate alloc;

mod buf;
#[cfg(feature = "driver")]
mod driver;
mod error;
pub mod http;
pub mod relay;
#[cfg(feature = "driver")]
pub mod runtime;
#[cfg(test)]
mod scale;
mod time;
mod timeout;
mod upstream;

pub use crate::buf::{BLOCK, BULK_BLOCK, BULK_BLOCKS, BufPool};
#[cfg(feature = "driver")]
pub use crate::driver::{
    Connection, Decision, Elapsed, Gauges, Keeper, Proxy, Report, Response, Scope, Serve, Stats,
    UpstreamLimits, Upstreams, WaitFor,
};
pub use crate::error::{Error, IoFailure, IoKind, Phase, Side, TimeoutError};
pub use crate::http::{Prefix, RequestHead};
pub use crate::relay::{Config, Outcome, Timing};
pub use crate::time::Instant;
pub use crate::timeout::{Deadline, DeadlineKind, Deadlines, Kinds, TimeoutPolicy};
pub use crate::upstream::{
    Addresses, Admission, Admitted, Name, Pool, Target, TargetError, Ticket, UpstreamId,
};
