//! Blocks: the memory that the kernel reads into, and the pool that lends it.
//!
//! A block is taken when a read is about to be made and given back as soon as it is empty, so that an
//! idle connection holds none, and one that waits for the rest of a head holds a small one. The pool bounds what it
//! keeps, not what it lends: how many blocks a connection may hold is the relay's business (two: one a side).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::relay::Spares;

/// The size of a block. One read fills at most one block; a head that is larger grows its block.
pub const BLOCK: usize = 64 * 1024;

/// The size of a block that holds the beginning of a head, or of a chunk's line, while nothing more comes: thousands of
/// clients may take their time over that.
pub(crate) const REST: usize = 2 * 1024;

/// The size of a block for a body that fills plain ones and of which 512 KiB have passed: a read and a write cost the kernel
/// about the same whatever they move.
pub const BULK_BLOCK: usize = 512 * 1024;

/// A body gets its first bulk block after so many bytes: who takes them reads, since that is several times what the
/// kernel holds for a peer that takes nothing (`runtime::set_accepted`). Else whoever asks for much and reads nothing had all of them.
pub(crate) const BULK_AFTER: u32 = 512 * 1024;

/// Bulk blocks that one pool lends at once, those that it keeps for later among them: 16 MiB at most. Whoever comes
/// later gets on with plain ones.
///
/// Fewer are kept than lent, since what is kept is kept for good: of either kind as much as `keep` plain blocks are.
/// The driver keeps 64, so that a thread at rest holds 4 MiB of each. Those beyond that go back to the allocator once
/// nobody needs them, which a body pays for that has moved half a mebibyte with each of them, and no short one.
pub const BULK_BLOCKS: usize = 32;

/// How many separate pieces of body one block may hold.
pub(crate) const RUNS: usize = 16;

/// Memory with a filled part `[..end]`, and which pieces of it are body. A pointer to whoever holds one.
#[derive(Debug)]
pub(crate) struct Block(Box<Memory>);

#[derive(Debug)]
struct Memory {
    bytes: Box<[u8]>,
    end: usize,
    runs: [(u32, u32); RUNS],
    /// Of a bulk block: a reference to what its pool counts them by, on whatever thread it ends.
    bulk: Option<Arc<()>>,
}

impl Block {
    fn new(size: usize, bulk: Option<Arc<()>>) -> Block {
        let bytes = vec![0; size].into_boxed_slice();
        Block(Box::new(Memory { bytes, end: 0, runs: [(0, 0); RUNS], bulk }))
    }

    /// Whether it is one of [`BULK_BLOCK`] bytes.
    pub(crate) fn is_bulk(&self) -> bool {
        self.0.bulk.is_some()
    }

    /// Whether it is one of [`REST`] bytes, which nothing is read into.
    pub(crate) fn is_rest(&self) -> bool {
        self.0.bytes.len() == REST
    }

    #[cfg(test)]
    pub(crate) fn size(&self) -> usize {
        self.0.bytes.len()
    }

    /// Takes over what `other` holds from `from` on, and its runs if that is everything.
    pub(crate) fn take_over(&mut self, other: &Block, from: usize) {
        let rest = &other.filled()[from..];
        self.0.bytes[..rest.len()].copy_from_slice(rest);
        self.0.end = rest.len();
        self.0.runs = other.0.runs;
    }

    /// What has been filled.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.0.bytes[..self.0.end]
    }

    /// Where pieces of body lie, as offset and length. How many of them count is its holder's to know.
    pub(crate) fn runs(&self) -> &[(u32, u32); RUNS] {
        &self.0.runs
    }

    pub(crate) fn runs_mut(&mut self) -> &mut [(u32, u32); RUNS] {
        &mut self.0.runs
    }

    /// Where the next bytes go.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.0.bytes[self.0.end..]
    }

    pub(crate) fn is_full(&self) -> bool {
        self.0.end == self.0.bytes.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.0.end
    }

    pub(crate) fn extend(&mut self, n: usize) {
        self.0.end = (self.0.end + n).min(self.0.bytes.len());
    }

    pub(crate) fn clear(&mut self) {
        self.0.end = 0;
    }

    /// Moves `[from..end]` to the front.
    pub(crate) fn shift(&mut self, from: usize) {
        let end = self.0.end;
        self.0.bytes.copy_within(from..end, 0);
        self.0.end -= from;
    }

    /// Moves `len` bytes at `from` down to `to`; what lay between is lost.
    pub(crate) fn pack(&mut self, from: usize, len: usize, to: usize) {
        self.0.bytes.copy_within(from..from + len, to);
    }

    /// Doubles the memory; for heads alone.
    pub(crate) fn grow(&mut self) {
        let mut bytes = core::mem::take(&mut self.0.bytes).into_vec();
        bytes.resize(bytes.len() * 2, 0);
        self.0.bytes = bytes.into_boxed_slice();
    }
}

/// Lends blocks, vectors for rewritten heads, and the state of exchanges. One a thread is enough: it is borrowed for a turn.
///
/// ```
/// use std::sync::Arc;
/// use tidegate_core::http::{HttpDate, IdSource};
/// use tidegate_core::relay::{Env, Relay};
/// use tidegate_core::{BLOCK, BufPool, Config, Instant, Side};
///
/// let (mut bufs, date, mut ids) = (BufPool::new(64), HttpDate::from_unix(0), IdSource::new(1));
/// let (config, now) = (Arc::new(Config::default()), Instant::EPOCH);
/// let mut clients: Vec<Relay> = (0..1000).map(|_| Relay::new(Arc::clone(&config), None, now)).collect();
///
/// // Each turn borrows it. A thousand idle connections read into one block, one after the other.
/// let mut used = Vec::new();
/// for client in &mut clients {
///     let mut env = Env { now, date: &date, bufs: &mut bufs, ids: &mut ids };
///     let block = client.recv_buf(Side::Client, &mut env);
///     assert_eq!(block.len(), BLOCK);
///     used.push(block.as_ptr());
///     client.not_ready(Side::Client, &mut env);
/// }
/// used.dedup();
/// assert_eq!(used.len(), 1);
/// ```
#[derive(Debug)]
pub struct BufPool {
    blocks: Vec<Block>,
    rests: Vec<Block>,
    bulk: Vec<Block>,
    /// One reference for each bulk block that there is, and our own.
    bulk_count: Arc<()>,
    heads: Vec<Vec<u8>>,
    pub(crate) spares: Spares,
    keep: usize,
}

impl BufPool {
    /// A pool that keeps for later at most `keep` plain blocks, as much memory in bulk blocks, and `keep` of everything
    /// else that it lends.
    pub fn new(keep: usize) -> BufPool {
        BufPool {
            blocks: Vec::new(),
            rests: Vec::new(),
            bulk: Vec::new(),
            bulk_count: Arc::new(()),
            heads: Vec::new(),
            spares: Spares::new(keep),
            keep,
        }
    }

    pub(crate) fn take_block(&mut self) -> Block {
        self.blocks.pop().unwrap_or_else(|| Block::new(BLOCK, None))
    }

    /// A small one, of [`REST`] bytes.
    pub(crate) fn take_rest(&mut self) -> Block {
        self.rests.pop().unwrap_or_else(|| Block::new(REST, None))
    }

    /// A larger one, unless too many of them are lent.
    pub(crate) fn take_bulk(&mut self) -> Option<Block> {
        let fresh = || {
            let there = Arc::strong_count(&self.bulk_count) - 1;
            (there < BULK_BLOCKS).then(|| Block::new(BULK_BLOCK, Some(Arc::clone(&self.bulk_count))))
        };
        self.bulk.pop().or_else(fresh)
    }

    pub(crate) fn give_block(&mut self, mut block: Block) {
        block.clear();
        // A block that a large head made grow is not worth keeping, nor is one that another pool counts.
        match (&block.0.bulk, block.0.bytes.len()) {
            (None, BLOCK) if self.blocks.len() < self.keep => self.blocks.push(block),
            (None, REST) if self.rests.len() < self.keep => self.rests.push(block),
            (Some(count), BULK_BLOCK)
                if self.bulk.len() < self.keep * BLOCK / BULK_BLOCK
                    && Arc::ptr_eq(count, &self.bulk_count) =>
            {
                self.bulk.push(block);
            }
            _ => {}
        }
    }

    pub(crate) fn take_head(&mut self) -> Vec<u8> {
        self.heads.pop().unwrap_or_default()
    }

    pub(crate) fn give_head(&mut self, mut head: Vec<u8>) {
        const LARGEST: usize = 16 * 1024;
        head.clear();
        if self.heads.len() < self.keep && head.capacity() > 0 && head.capacity() <= LARGEST {
            self.heads.push(head);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_lent_is_bounded_and_what_is_kept_is_the_same_memory_of_each_kind() {
        let mut pool = BufPool::new(64);
        let bulk: Vec<Block> = core::iter::from_fn(|| pool.take_bulk()).take(100).collect();
        let plain: Vec<Block> = (0..100).map(|_| pool.take_block()).collect();
        assert_eq!((bulk.len(), bulk.len() * BULK_BLOCK), (BULK_BLOCKS, 16 << 20));
        bulk.into_iter().chain(plain).for_each(|block| pool.give_block(block));
        let bytes = |blocks: &[Block]| blocks.iter().map(|block| block.0.bytes.len()).sum::<usize>();
        assert_eq!([bytes(&pool.bulk), bytes(&pool.blocks)], [4 << 20, 4 << 20]);
        // What is kept counts: there are never more of them.
        let again: Vec<Block> = core::iter::from_fn(|| pool.take_bulk()).take(100).collect();
        assert_eq!((again.len(), pool.bulk.len()), (BULK_BLOCKS, 0));
    }
}
