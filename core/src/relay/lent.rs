//! State that a connection has only while it serves a request: lent by the thread's pool, and given back.
//!
//! Between two requests it reads as its resting value and takes eight bytes. It decides nothing. The upstream's half is
//! lent when a request head is complete (`client.rs`) and the exchange when it begins (`exchange.rs`); both are given back
//! when it is reported (`endings.rs`), and the report when the client has nothing more to say for now (`mod.rs`).

use alloc::boxed::Box;
use alloc::vec::Vec;
use core::ops::{Deref, DerefMut};

use crate::relay::exchange::Exchange;
use crate::relay::outcome::Reported;
use crate::relay::upstream::UpstreamConn;

/// What a connection that serves no request shows in place of its own.
pub(crate) trait Rest: Sized + 'static {
    /// The resting value. It owns no memory.
    const REST: Self;
    /// Where it lies.
    fn at_rest() -> &'static Self;
}

/// A `T` of its own, or the resting one.
///
/// Writing to it without having asked for one works, but takes memory from the allocator and not from the pool.
#[derive(Debug)]
pub(crate) struct Lent<T: Rest>(Option<Box<T>>);

impl<T: Rest> Lent<T> {
    /// The resting one.
    pub(crate) const NONE: Lent<T> = Lent(None);

    /// Whether it has one of its own.
    pub(crate) fn is_some(&self) -> bool {
        self.0.is_some()
    }

    /// Sees to it that it has one of its own.
    pub(crate) fn lend(&mut self, shelf: &mut Shelf<T>) -> &mut T {
        if self.0.is_none() {
            self.0 = shelf.spares.pop().and_then(|spare| spare.0);
        }
        self
    }

    /// Gives it back, emptied.
    pub(crate) fn give_back(&mut self, shelf: &mut Shelf<T>) {
        let Some(mut own) = self.0.take() else { return };
        *own = T::REST;
        if shelf.spares.len() < shelf.keep {
            shelf.spares.push(Lent(Some(own)));
        }
    }
}

impl<T: Rest> Deref for Lent<T> {
    type Target = T;

    fn deref(&self) -> &T {
        match &self.0 {
            Some(own) => own,
            None => T::at_rest(),
        }
    }
}

impl<T: Rest> DerefMut for Lent<T> {
    fn deref_mut(&mut self) -> &mut T {
        self.0.get_or_insert_with(|| Box::new(T::REST))
    }
}

/// Those that nobody has now.
#[derive(Debug)]
pub(crate) struct Shelf<T: Rest> {
    spares: Vec<Lent<T>>,
    keep: usize,
}

/// What a thread has to lend.
#[derive(Debug)]
pub(crate) struct Spares {
    pub(crate) exchanges: Shelf<Exchange>,
    pub(crate) upstreams: Shelf<UpstreamConn>,
    pub(crate) reports: Shelf<Reported>,
}

impl Spares {
    /// Keeps at most `keep` of each for later.
    pub(crate) const fn new(keep: usize) -> Spares {
        Spares {
            exchanges: Shelf { spares: Vec::new(), keep },
            upstreams: Shelf { spares: Vec::new(), keep },
            reports: Shelf { spares: Vec::new(), keep },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shelf_keeps_no_more_than_it_may_and_lends_what_it_keeps_emptied() {
        let mut shelf = Spares::new(2).reports;
        let mut lent: Vec<Lent<Reported>> = (0..3).map(|_| Lent::NONE).collect();
        for own in &mut lent {
            own.lend(&mut shelf).head = Vec::from(*b"head");
        }
        for (own, kept) in lent.iter_mut().zip([1, 2, 2]) {
            own.give_back(&mut shelf);
            assert!(!own.is_some());
            assert_eq!(shelf.spares.len(), kept);
        }
        assert!(lent[0].lend(&mut shelf).head.is_empty());
        assert!(lent[0].is_some());
        assert_eq!(shelf.spares.len(), 1);
    }
}
