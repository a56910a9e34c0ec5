//! Several listeners as one, so that `--listen` can be repeated and one `serve` accepts for all.
//!
//! It looks at them in turn, starting after the one that had a client last, so that a busy address cannot
//! starve a quiet one.

use std::io;
use std::net::SocketAddr;
use std::task::{Context, Poll};

use tidegate_core::runtime::Listener;

/// Listeners of one kind; accepts from whichever has a client.
#[derive(Debug)]
pub(crate) struct Listeners<L> {
    all: Vec<L>,
    next: usize,
}

impl<L> Listeners<L> {
    pub(crate) fn new(all: Vec<L>) -> Listeners<L> {
        Listeners { all, next: 0 }
    }
}

impl<L: Listener> Listener for Listeners<L> {
    type Stream = L::Stream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(L::Stream, Option<SocketAddr>)>> {
        let count = self.all.len();
        for turn in 0..count {
            let at = (self.next + turn) % count;
            if let Poll::Ready(accepted) = self.all[at].poll_accept(cx) {
                self.next = at + 1;
                return Poll::Ready(accepted);
            }
        }
        Poll::Pending
    }
}
