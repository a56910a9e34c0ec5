//! Blocks: the memory that the kernel reads into, and the pool that lends it.
//!
//! A block is taken when a read is about to be made and given back as soon as it is empty, so that an
//! idle connection holds none. The pool bounds what it keeps, not what it lends: how many blocks a
//! connection may hold is the relay's business (two: one a side).

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

use crate::relay::Spares;

/// The size of a block. One read fills at most one block; a head that is larger grows its block.
pub const BLOCK: usize = 64 * 1024;

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
}

impl Block {
    fn new() -> Block {
        Block(Box::new(Memory { bytes: vec![0; BLOCK].into_boxed_slice(), end: 0, runs: [(0, 0); RUNS] }))
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
    heads: Vec<Vec<u8>>,
    pub(crate) spares: Spares,
    keep: usize,
}

impl BufPool {
    /// A pool that keeps at most `keep` blocks, and as many of everything else that it lends, for later.
    pub const fn new(keep: usize) -> BufPool {
        BufPool { blocks: Vec::new(), heads: Vec::new(), spares: Spares::new(keep), keep }
    }

    pub(crate) fn take_block(&mut self) -> Block {
        self.blocks.pop().unwrap_or_else(Block::new)
    }

    pub(crate) fn give_block(&mut self, mut block: Block) {
        block.clear();
        // A block that a large head made grow is not worth keeping.
        if self.blocks.len() < self.keep && block.0.bytes.len() == BLOCK {
            self.blocks.push(block);
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
