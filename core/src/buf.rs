//! Blocks: the memory that the kernel reads into, and the pool that lends it.
//!
//! A block is taken when a read is about to be made and given back as soon as it is empty, so that an
//! idle connection holds none. The pool bounds what it keeps, not what it lends: how many blocks a
//! connection may hold is the relay's business (two: one a side).

use alloc::boxed::Box;
use alloc::vec;
use alloc::vec::Vec;

/// The size of a block. One read fills at most one block; a head that is larger grows its block.
pub const BLOCK: usize = 64 * 1024;

/// Memory with a filled part `[..end]`.
#[derive(Debug)]
pub(crate) struct Block {
    bytes: Box<[u8]>,
    end: usize,
}

impl Block {
    fn new() -> Block {
        Block { bytes: vec![0; BLOCK].into_boxed_slice(), end: 0 }
    }

    /// What has been filled.
    pub(crate) fn filled(&self) -> &[u8] {
        &self.bytes[..self.end]
    }

    /// Where the next bytes go.
    pub(crate) fn room(&mut self) -> &mut [u8] {
        &mut self.bytes[self.end..]
    }

    pub(crate) fn is_full(&self) -> bool {
        self.end == self.bytes.len()
    }

    pub(crate) fn len(&self) -> usize {
        self.end
    }

    pub(crate) fn extend(&mut self, n: usize) {
        self.end = (self.end + n).min(self.bytes.len());
    }

    pub(crate) fn clear(&mut self) {
        self.end = 0;
    }

    /// Moves `[from..end]` to the front.
    pub(crate) fn shift(&mut self, from: usize) {
        self.bytes.copy_within(from..self.end, 0);
        self.end -= from;
    }

    /// Moves `len` bytes at `from` down to `to`; what lay between is lost.
    pub(crate) fn pack(&mut self, from: usize, len: usize, to: usize) {
        self.bytes.copy_within(from..from + len, to);
    }

    /// Doubles the memory; for heads alone.
    pub(crate) fn grow(&mut self) {
        let mut bytes = core::mem::take(&mut self.bytes).into_vec();
        bytes.resize(bytes.len() * 2, 0);
        self.bytes = bytes.into_boxed_slice();
    }
}

/// Lends blocks, and vectors for rewritten heads. One a thread is enough: it is borrowed for a turn.
#[derive(Debug)]
pub struct BufPool {
    blocks: Vec<Block>,
    heads: Vec<Vec<u8>>,
    keep: usize,
}

impl BufPool {
    /// A pool that keeps at most `keep` blocks, and as many head vectors, for later.
    pub const fn new(keep: usize) -> BufPool {
        BufPool { blocks: Vec::new(), heads: Vec::new(), keep }
    }

    pub(crate) fn take_block(&mut self) -> Block {
        self.blocks.pop().unwrap_or_else(Block::new)
    }

    pub(crate) fn give_block(&mut self, mut block: Block) {
        block.clear();
        // A block that a large head made grow is not worth keeping.
        if self.blocks.len() < self.keep && block.bytes.len() == BLOCK {
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
