//! Upstreams as data: where they are, who may use which one, and the idle connections to them.
//!
//! No task, no timer, no socket: [`Admission`] and [`Pool`] are generic over what they keep, and whoever shares
//! them between connections lends them the clock.

mod admission;
mod pool;
mod target;

pub use self::admission::{Admission, Admitted, Ticket};
pub use self::pool::Pool;
pub use self::target::{Addresses, Name, Target, TargetError};

/// One of the upstreams of a proxy: its place in the order in which they were added.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(u16);

impl UpstreamId {
    /// Its place.
    pub const fn index(self) -> usize {
        self.0 as usize
    }

    /// The upstream at `index`; `None` beyond the 65,536th.
    pub fn new(index: usize) -> Option<UpstreamId> {
        u16::try_from(index).ok().map(UpstreamId)
    }
}
