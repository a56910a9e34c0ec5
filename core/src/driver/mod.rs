//! The one generic driver: it lends the machine the sockets and timers of any [`Runtime`] and decides
//! nothing.
//!
//! [`Proxy::serve`] accepts and spawns; [`Proxy::serve_connection`] is one client, a named future, for
//! whoever accepts on their own. Dropping a future is cancellation: what it held is closed inline.
//!
//! [`Runtime`]: crate::runtime::Runtime

mod alarm;
mod connection;
mod keeper;
mod lifecycle;
mod memory;
mod order;
mod proxy;
mod room;
mod scope;
mod serve;
mod stats;
#[cfg(test)]
mod tests;
mod transfer;
mod upstreams;

pub use self::connection::Connection;
pub use self::keeper::Keeper;
pub use self::proxy::{Decision, Gauges, Proxy, Report, Response};
pub use self::scope::{Elapsed, Scope, WaitFor};
pub use self::serve::Serve;
pub use self::stats::Stats;
pub use self::upstreams::{UpstreamLimits, Upstreams};
