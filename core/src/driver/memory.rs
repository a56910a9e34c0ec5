//! What a thread lends to the connections that take their turns on it: memory, and a source of request ids.
//!
//! It is taken out for a turn, so there is no lock. It decides nothing.

use std::cell::Cell;

use crate::buf::BufPool;
use crate::http::IdSource;
use crate::runtime::Runtime;

/// Blocks that a thread keeps for later.
const KEPT_BLOCKS: usize = 64;

thread_local! {
    /// What this thread lends to its turns. Taken out for the turn, so that a hook may run another one.
    static LENT: Cell<Option<Box<Lent>>> = const { Cell::new(None) };
}

/// Memory, and ids that no other thread or process has.
pub(super) struct Lent {
    pub(super) bufs: BufPool,
    pub(super) ids: IdSource,
}

impl Lent {
    fn new(id_seed: u128) -> Lent {
        Lent { bufs: BufPool::new(KEPT_BLOCKS), ids: IdSource::new(id_seed) }
    }
}

/// Takes what this thread has to lend, for a turn on `runtime`.
pub(super) fn borrow(runtime: &impl Runtime) -> Box<Lent> {
    // A thread that is ending has nothing left to lend; a connection may still be dropped on it.
    let lent = LENT.try_with(Cell::take).ok().flatten();
    lent.unwrap_or_else(|| Box::new(Lent::new(runtime.id_seed())))
}

/// Puts it back for the next turn.
pub(super) fn give_back(lent: Box<Lent>) {
    let _ = LENT.try_with(|cell| cell.set(Some(lent)));
}
