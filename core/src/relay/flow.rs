//! The two ends of a body's way through the machine, and nothing of HTTP's rules.
//!
//! [`Inbound`] is what came from one side: a block, how far it was decoded, and the *runs* of it that
//! are body bytes. [`Outbound`] is what goes to the other side: a rewritten head, our own chunk lines,
//! and the runs of the opposite `Inbound`. A body byte stays where the kernel put it until the kernel
//! takes it again; only when more than [`RUNS`] pieces lie in one block are the short ones moved
//! together, inside that block.

use alloc::vec::Vec;
use core::mem;

use crate::buf::{BLOCK, BULK_AFTER, Block, BufPool, REST, RUNS};
use crate::http::{BodyDecoder, ChunkLine, Decoded, HttpError};

/// How many slices one write has at most: head, chunk line, runs, chunk end.
pub const MAX_SLICES: usize = RUNS + 3;

/// Reads in a row that come short before a body counts as slow. One does not: who sends a block and a half at a time leaves
/// half a block behind the first plain one, and would have a plain one for ever.
const PATIENCE: u8 = 2;

/// Bytes that came from one side.
#[derive(Debug)]
pub(crate) struct Inbound {
    block: Option<Block>,
    /// Everything before this was consumed: a head, chunk lines, or a run.
    parsed: usize,
    /// The body bytes that wait to be sent are the first so many runs of the block, in order, without overlap.
    count: usize,
    pending: usize,
    /// The side sent FIN.
    pub(crate) eof: bool,
    /// It fills whole blocks: a larger one is worth its memory, once enough has come. After so many reads that come short of
    /// a block it is not.
    bulk: u8,
    /// Bytes that have come since the last head.
    came: u32,
}

impl Inbound {
    /// Nothing came yet.
    pub(crate) const NONE: Inbound =
        Inbound { block: None, parsed: 0, count: 0, pending: 0, eof: false, bulk: 0, came: 0 };

    /// Whether a read could be made without overwriting anything: back-pressure is its absence. A head
    /// may grow its block (its length is limited by whoever scans it).
    pub(crate) fn has_room(&self, for_head: bool) -> bool {
        match &self.block {
            None => true,
            Some(block) => {
                !block.is_full()
                    || for_head
                    || block.is_rest()
                    || (self.count == 0 && self.parsed == block.len())
            }
        }
    }

    /// Where the next read goes: never empty if [`Inbound::has_room`].
    pub(crate) fn recv_buf(&mut self, for_head: bool, pool: &mut BufPool) -> &mut [u8] {
        if self.bulk > 0 && self.came >= BULK_AFTER && !for_head && self.block.is_none() {
            self.block = pool.take_bulk();
        }
        if self.block.as_ref().is_some_and(Block::is_rest) {
            self.move_to(0, BufPool::take_block, pool);
        }
        let block = self.block.get_or_insert_with(|| pool.take_block());
        if self.count == 0 && (self.parsed == block.len() || (for_head && block.is_full())) {
            block.shift(self.parsed);
            self.parsed = 0;
        }
        if block.is_full() && for_head {
            block.grow();
        }
        block.room()
    }

    /// `n` bytes were read into [`Inbound::recv_buf`].
    pub(crate) fn received(&mut self, n: usize) {
        if let Some(block) = &mut self.block {
            block.extend(n);
            let is_fast = block.is_full() || (self.bulk > 0 && n >= BLOCK);
            self.bulk = if is_fast { PATIENCE } else { self.bulk.saturating_sub(1) };
            self.came = self.came.saturating_add(u32::try_from(n).unwrap_or(u32::MAX));
        }
    }

    /// Gives an empty block back.
    pub(crate) fn release(&mut self, pool: &mut BufPool) {
        if self.count == 0 && self.unparsed().is_empty() {
            self.parsed = 0;
            if let Some(block) = self.block.take() {
                pool.give_block(block);
            }
        }
    }

    /// Nothing comes for now: gives an empty block back, and one that holds little but the beginning of something in exchange
    /// for a small one.
    pub(crate) fn wait(&mut self, pool: &mut BufPool) {
        self.release(pool);
        let rest = self.unparsed().len();
        if self.count == 0 && rest <= REST {
            self.move_to(self.parsed, BufPool::take_rest, pool);
            self.parsed = 0;
        }
    }

    /// Moves what the block holds from `from` on into another one.
    fn move_to(&mut self, from: usize, take: impl Fn(&mut BufPool) -> Block, pool: &mut BufPool) {
        if let Some(old) = self.block.take() {
            let mut block = take(pool);
            block.take_over(&old, from);
            pool.give_block(old);
            self.block = Some(block);
        }
    }

    /// Forgets everything.
    pub(crate) fn discard(&mut self, pool: &mut BufPool) {
        let eof = self.eof;
        if let Some(block) = self.block.take() {
            pool.give_block(block);
        }
        *self = Inbound { eof, ..Inbound::NONE };
    }

    /// Forgets the body bytes that wait, and keeps what was not decoded.
    pub(crate) fn discard_runs(&mut self) {
        self.count = 0;
        self.pending = 0;
    }

    /// What was not decoded yet.
    pub(crate) fn unparsed(&self) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.filled()[self.parsed..])
    }

    /// The `len` bytes before what was not decoded yet: a head that was just consumed.
    pub(crate) fn just_parsed(&self, len: usize) -> &[u8] {
        self.block.as_ref().map_or(&[], |block| &block.filled()[self.parsed - len..self.parsed])
    }

    /// The size of its block, zero if there is none.
    #[cfg(test)]
    pub(crate) fn held(&self) -> usize {
        self.block.as_ref().map_or(0, Block::size)
    }

    /// Consumes a head of `n` bytes, or what lies before one. However long it is, it says nothing of the body.
    pub(crate) fn skip(&mut self, n: usize) {
        self.parsed += n;
        (self.bulk, self.came) = (0, 0);
    }

    /// Decodes what can be decoded, into runs.
    pub(crate) fn decode(&mut self, decoder: &mut BodyDecoder) -> Result<u64, HttpError> {
        let mut body = 0;
        loop {
            let step = decoder.decode(self.unparsed())?;
            if step == Decoded::default() {
                return Ok(body);
            }
            self.parsed += step.skip;
            if step.data > 0 {
                self.push_run(step.data);
                body += step.data as u64;
            }
        }
    }

    fn push_run(&mut self, len: usize) {
        let Some(block) = &mut self.block else { return };
        let start = self.parsed;
        self.parsed += len;
        self.pending += len;
        if let Some(last) = self.count.checked_sub(1) {
            let (at, had) = block.runs()[last];
            let end = (at + had) as usize;
            if end == start || self.count == RUNS {
                block.pack(start, len, end);
                block.runs_mut()[last].1 += len as u32;
                return;
            }
        }
        block.runs_mut()[self.count] = (start as u32, len as u32);
        self.count += 1;
    }

    /// Whether what waits lies in a larger block.
    pub(crate) fn is_bulk(&self) -> bool {
        self.block.as_ref().is_some_and(Block::is_bulk)
    }

    /// Body bytes that wait to be sent.
    pub(crate) fn pending(&self) -> usize {
        self.pending
    }

    /// The first `limit` waiting body bytes, as slices; what lies behind them is empty.
    fn run_slices(&self, limit: usize) -> impl Iterator<Item = &[u8]> {
        let (filled, runs) = match &self.block {
            Some(block) => (block.filled(), &block.runs()[..self.count]),
            None => (&[][..], &[][..]),
        };
        let mut left = limit;
        runs.iter().map(move |&(at, len)| {
            let take = (len as usize).min(left);
            left -= take;
            &filled[at as usize..at as usize + take]
        })
    }

    /// The first `n` waiting body bytes were sent.
    fn consume(&mut self, mut n: usize) {
        self.pending -= n;
        let Some(block) = &mut self.block else { return };
        let runs = &mut block.runs_mut()[..self.count];
        let mut gone = 0;
        for run in runs.iter_mut() {
            let take = n.min(run.1 as usize);
            run.0 += take as u32;
            run.1 -= take as u32;
            n -= take;
            if run.1 > 0 {
                break;
            }
            gone += 1;
        }
        runs.copy_within(gone.., 0);
        self.count -= gone;
    }
}

/// Bytes that go to one side; the body bytes lie in the opposite side's [`Inbound`].
#[derive(Debug)]
pub(crate) struct Outbound {
    /// Rewritten heads, or a whole response of our own.
    pub(crate) head: Vec<u8>,
    head_sent: usize,
    /// Whether body bytes leave in chunks of ours.
    chunked: bool,
    line: ChunkLine,
    line_sent: usize,
    /// Body bytes of the open chunk, or of an unchunked body, that may be sent now.
    body: usize,
    tail: &'static [u8],
    /// The end of the message was queued.
    finished: bool,
    /// [`Outbound::take_end`] has told that it was sent.
    ended: bool,
}

impl Outbound {
    /// Nothing to send.
    pub(crate) const NONE: Outbound = Outbound {
        head: Vec::new(),
        head_sent: 0,
        chunked: false,
        line: ChunkLine::new(0),
        line_sent: 0,
        body: 0,
        tail: &[],
        finished: false,
        ended: false,
    };

    /// A new message body begins, behind the head that lies in `head`.
    pub(crate) fn begin_body(&mut self, chunked: bool) {
        self.chunked = chunked;
        self.finished = false;
    }

    /// Queues what lies ready in `from`; `complete` says that nothing will follow it.
    pub(crate) fn queue(&mut self, from: &Inbound, complete: bool) {
        if self.finished {
            return;
        }
        if !self.chunked {
            self.body = from.pending();
            self.finished = complete;
        } else if self.body == 0 && self.tail.is_empty() {
            self.body = from.pending();
            self.finished = complete;
            if self.body > 0 {
                self.line = ChunkLine::new(self.body);
                self.line_sent = 0;
                self.tail = if complete { b"\r\n0\r\n\r\n" } else { b"\r\n" };
            } else if complete {
                self.tail = b"0\r\n\r\n";
            }
        }
    }

    /// Everything of the head was sent.
    pub(crate) fn head_sent(&self) -> bool {
        self.head_sent == self.head.len()
    }

    /// Whether there is something to send.
    pub(crate) fn is_pending(&self) -> bool {
        !self.head_sent() || self.body > 0 || !self.tail.is_empty()
    }

    /// The whole message was sent.
    pub(crate) fn is_done(&self) -> bool {
        self.finished && !self.is_pending()
    }

    /// The whole message was sent: says so once.
    pub(crate) fn take_end(&mut self) -> bool {
        self.is_done() && !mem::replace(&mut self.ended, true)
    }

    /// What is to be sent, in order.
    pub(crate) fn bufs<'a>(&'a self, from: &'a Inbound) -> impl Iterator<Item = &'a [u8]> {
        let line = if self.chunked && self.body > 0 { &self.line.as_bytes()[self.line_sent..] } else { &[] };
        [&self.head[self.head_sent..], line]
            .into_iter()
            .chain(from.run_slices(self.body))
            .chain([self.tail])
            .filter(|slice| !slice.is_empty())
    }

    /// The first `n` bytes of [`Outbound::bufs`] were sent; says how many of them were body.
    pub(crate) fn sent(&mut self, n: usize, from: &mut Inbound) -> usize {
        let mut left = n;
        let mut take = |have: usize| {
            let taken = have.min(left);
            left -= taken;
            taken
        };
        self.head_sent += take(self.head.len() - self.head_sent);
        if self.chunked && self.body > 0 {
            self.line_sent += take(self.line.as_bytes().len() - self.line_sent);
        }
        let body = take(self.body);
        self.body -= body;
        from.consume(body);
        let tail = take(self.tail.len());
        self.tail = &self.tail[tail..];
        body
    }

    /// The head is to be sent again, from its first byte.
    pub(crate) fn rewind(&mut self) {
        self.head_sent = 0;
    }

    /// Keeps a head of which nothing is to be sent.
    pub(crate) fn keep_sent(&mut self, head: Vec<u8>) {
        self.head_sent = head.len();
        self.head = head;
    }

    /// Forgets what was not sent of the body; the message stays unfinished for ever.
    pub(crate) fn cut(&mut self) {
        self.body = 0;
        self.tail = &[];
        self.finished = false;
    }

    /// Gives the head's memory back if all of it was sent.
    pub(crate) fn release_head(&mut self, pool: &mut BufPool) {
        if self.head_sent() {
            self.head_sent = 0;
            pool.give_head(mem::take(&mut self.head));
        }
    }

    /// Forgets everything.
    pub(crate) fn reset(&mut self, pool: &mut BufPool) {
        pool.give_head(mem::take(&mut self.head));
        *self = Outbound::NONE;
    }
}
