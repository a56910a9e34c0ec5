//! Blocks: the memory that the kernel reads into, and the pool that lends it.
//!
//! A block is taken when a read is about to be made and given back as soon as it is empty, so that an
//! idle connection holds none. The pool bounds what it keeps, not what it lends: how many blocks a
//! connection may hold is the relay's business (two: one a side).

use alloc::boxed::Box;
use alloc::sync::Arc;
use alloc::vec;
use alloc::vec::Vec;

use crate::relay::Spares;

/// The size of a block. One read fills at most one block; a head that is larger grows its block.
pub const BLOCK: usize = 64 * 1024;

/// The size of a block for a body that has filled one: a read and a write cost the kernel about the same
/// whatever they move.
pub const BULK_BLOCK: usize = 512 * 1024;

/// Bulk blocks that one pool lends at once. Whoever comes later gets on with plain ones.
pub const BULK_BLOCKS: usize = 32;

/// Bulk blocks that a pool keeps for later.
const KEPT_BULK: usize = 8;

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
#[derive(Debug)]
pub struct BufPool {
    blocks: Vec<Block>,
    bulk: Vec<Block>,
    /// One reference for each bulk block that there is, and our own.
    bulk_count: Arc<()>,
    heads: Vec<Vec<u8>>,
    pub(crate) spares: Spares,
    keep: usize,
}

impl BufPool {
    /// A pool that keeps at most `keep` blocks, and as many of everything else that it lends, for later.
    pub fn new(keep: usize) -> BufPool {
        BufPool {
            blocks: Vec::new(),
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
            (Some(count), BULK_BLOCK)
                if self.bulk.len() < KEPT_BULK && Arc::ptr_eq(count, &self.bulk_count) =>
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
