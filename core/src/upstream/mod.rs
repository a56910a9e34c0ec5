//! Upstreams as data: which ones there are, whose turn it is, and the idle connections to them.
//!
//! No task, no timer, no socket: [`Pool`] is generic over what it keeps, and the driver's keeper lends
//! it the clock.

mod admission;
mod pool;

use alloc::sync::Arc;
use core::net::SocketAddr;
use core::sync::atomic::{AtomicUsize, Ordering};

pub use self::admission::{Admission, Admitted, Ticket};
pub use self::pool::Pool;

/// One of the [`Upstreams`].
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct UpstreamId(u16);

impl UpstreamId {
    /// Its place in the list that [`Upstreams::new`] was given.
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Where a request may go: a first upstream, and the ones after it in the ring, each tried at most once
/// (`timeouts.md` T10).
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Candidates {
    next: u16,
    left: u16,
    ring: u16,
}

impl Candidates {
    /// Nowhere.
    pub const NONE: Candidates = Candidates { next: 0, left: 0, ring: 0 };
}

impl Iterator for Candidates {
    type Item = UpstreamId;

    fn next(&mut self) -> Option<UpstreamId> {
        self.left = self.left.checked_sub(1)?;
        let id = UpstreamId(self.next);
        self.next = (self.next + 1) % self.ring;
        Some(id)
    }
}

/// A list of upstream addresses, taken in turn. Clones share the turn.
#[derive(Clone, Debug)]
pub struct Upstreams {
    addrs: Arc<[SocketAddr]>,
    turn: Arc<AtomicUsize>,
}

impl Upstreams {
    /// The most upstreams that one list may hold; what is over it is ignored.
    pub const MAX: usize = u16::MAX as usize;

    /// A list of addresses. An empty one is answered 503.
    pub fn new(addrs: impl IntoIterator<Item = SocketAddr>) -> Upstreams {
        let addrs = addrs.into_iter().take(Upstreams::MAX).collect();
        Upstreams { addrs, turn: Arc::new(AtomicUsize::new(0)) }
    }

    /// How many there are.
    pub fn len(&self) -> usize {
        self.addrs.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.addrs.is_empty()
    }

    /// The address of one of them.
    pub fn addr(&self, id: UpstreamId) -> Option<SocketAddr> {
        self.addrs.get(id.index()).copied()
    }

    /// Whose turn it is, round robin.
    pub fn pick(&self) -> Candidates {
        let ring = self.addrs.len() as u16;
        if ring == 0 {
            return Candidates::NONE;
        }
        let turn = self.turn.fetch_add(1, Ordering::Relaxed);
        Candidates { next: (turn % ring as usize) as u16, left: ring, ring }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec::Vec;

    #[test]
    fn round_robin_begins_with_each_in_turn_and_offers_each_once() {
        let addrs = (1..=3).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let upstreams = Upstreams::new(addrs);
        let order = || upstreams.pick().map(UpstreamId::index).collect::<Vec<_>>();
        assert_eq!(order(), [0, 1, 2]);
        assert_eq!(order(), [1, 2, 0]);
        assert_eq!(order(), [2, 0, 1]);
        assert_eq!(order(), [0, 1, 2]);
    }

    #[test]
    fn no_upstream_is_no_candidate() {
        assert_eq!(Upstreams::new([]).pick().next(), None);
    }
}
