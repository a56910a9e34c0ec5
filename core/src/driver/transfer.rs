//! One read or one write, through the runtime or past it. It knows no machine, and counts nothing but what a stream
//! holds back.

use core::mem;
use core::task::{Context, Poll, ready};
use std::io::{self, ErrorKind, IoSlice};

use crate::relay::MAX_SLICES;
use crate::runtime::Stream;

/// How a pass asks the sockets.
#[derive(Copy, Clone, PartialEq, Eq)]
pub(super) enum Look {
    /// Through the runtime, which wakes the task when there is something.
    Poll,
    /// Directly, once, whatever the runtime believes.
    Direct,
}

/// Reads what there is into `buf`.
pub(super) fn read<S: Stream>(
    stream: Option<&mut S>,
    buf: &mut [u8],
    look: Look,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let Some(stream) = stream else { return Poll::Pending };
    if buf.is_empty() {
        return Poll::Pending;
    }
    match look {
        Look::Poll => stream.poll_read(cx, buf),
        Look::Direct => direct(stream.try_read(buf)),
    }
}

/// Writes, and says how many bytes have reached the socket: those that a wrapping stream holds back are
/// `unflushed`, count as not sent, and keep further ones away.
pub(super) fn write<'a, S: Stream>(
    stream: Option<&mut S>,
    bufs: impl Iterator<Item = &'a [u8]>,
    unflushed: &mut usize,
    look: Look,
    cx: &mut Context<'_>,
) -> Poll<io::Result<usize>> {
    let Some(stream) = stream else { return Poll::Pending };
    if *unflushed == 0 {
        let mut slices = [IoSlice::new(&[]); MAX_SLICES];
        let mut count = 0;
        for (slot, buf) in slices.iter_mut().zip(bufs) {
            *slot = IoSlice::new(buf);
            count += 1;
        }
        let written = match look {
            Look::Poll => stream.poll_write_vectored(cx, &slices[..count]),
            Look::Direct => direct(stream.try_write_vectored(&slices[..count])),
        };
        *unflushed = ready!(written)?;
    }
    ready!(stream.poll_flush(cx))?;
    Poll::Ready(Ok(mem::take(unflushed)))
}

/// A direct call that would block has found nothing to do.
fn direct(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Poll::Pending,
        other => Poll::Ready(other),
    }
}
