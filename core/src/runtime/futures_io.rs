//! A wrapper that drives any `futures::io` stream: TLS, a Unix socket, an in-memory pipe.
//!
//! Two things cannot be said in `futures::io`: RST, which the embedder supplies as a function, and a
//! read that bypasses readiness, which is a poll whose "pending" becomes `WouldBlock`. There is no
//! buffering here: what the wrapped stream holds back is its own affair (and `poll_flush`'s).

use core::fmt;
use core::pin::Pin;
use core::task::{Context, Poll, Waker};
use std::io::{self, IoSlice};

use futures_io::{AsyncRead, AsyncWrite};

use super::Stream;

/// A `futures::io` stream as a [`Stream`].
///
/// FIN is `poll_close`: wrap only streams whose close ends the writing direction and leaves reading open.
/// (async-io's `Async<TcpStream>` and async-std's `TcpStream` are not among them, their close only
/// flushes; both have adapters of their own.)
///
/// `try_*` poll the stream once, with the waker of the direction's last pending poll, so that they do
/// not cost the task its wake-up; before any such poll they use a waker that does nothing.
pub struct FuturesIo<S, F = fn(S)> {
    io: S,
    abort: F,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl<S, F: FnOnce(S)> FuturesIo<S, F> {
    /// Wraps `io`. `abort` must end it so that the peer cannot take the end for a complete message: RST for
    /// a socket (see [`abort`](super::abort)), no `close_notify` for TLS.
    pub fn new(io: S, abort: F) -> FuturesIo<S, F> {
        FuturesIo { io, abort, reader: None, writer: None }
    }
}

// `abort` is called by value and never pinned.
impl<S: Unpin, F> Unpin for FuturesIo<S, F> {}

impl<S, F> Stream for FuturesIo<S, F>
where
    S: AsyncRead + AsyncWrite + Unpin,
    F: FnOnce(S),
{
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_read(cx, buf);
        remember(&mut self.reader, cx, polled)
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let polled = Pin::new(&mut self.io).poll_write_vectored(cx, bufs);
        remember(&mut self.writer, cx, polled)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_flush(cx);
        remember(&mut self.writer, cx, polled)
    }

    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let polled = Pin::new(&mut self.io).poll_close(cx);
        remember(&mut self.writer, cx, polled)
    }

    fn abort(self) {
        (self.abort)(self.io);
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let io = Pin::new(&mut self.io);
        or_would_block(io.poll_read(&mut context(&self.reader), buf))
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let io = Pin::new(&mut self.io);
        or_would_block(io.poll_write_vectored(&mut context(&self.writer), bufs))
    }
}

/// Keeps the waker while its operation is pending, and no longer: a waker keeps its task alive.
fn remember<T>(waker: &mut Option<Waker>, cx: &Context<'_>, polled: Poll<T>) -> Poll<T> {
    match waker {
        _ if polled.is_ready() => *waker = None,
        Some(waker) => waker.clone_from(cx.waker()),
        None => *waker = Some(cx.waker().clone()),
    }
    polled
}

fn context(waker: &Option<Waker>) -> Context<'_> {
    Context::from_waker(waker.as_ref().unwrap_or(Waker::noop()))
}

fn or_would_block<T>(polled: Poll<io::Result<T>>) -> io::Result<T> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

impl<S: fmt::Debug, F> fmt::Debug for FuturesIo<S, F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("FuturesIo").field(&self.io).finish()
    }
}
