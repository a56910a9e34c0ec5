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
/// Every orderly end of a client's connection is said by `poll_close` (TLS: `close_notify`, RFC 9112 section 9.8), which may take
/// as long as linger; with the linger off it has one try, and so has an upstream's connection that is done with. What is dropped
/// without it ends as the wrapped stream's own drop has it: a client's whose peer has failed or which is dropped with the
/// proxy, and an upstream's that was idle.
///
/// `try_*` poll the stream once, with the waker of the direction's last pending poll, so that they do
/// not cost the task its wake-up; before any such poll they use a waker that does nothing.
pub struct FuturesIo<S, F = fn(S)> {
    io: S,
    abort: F,
    /// `poll_close` has come to its end, and is not to be asked again.
    closed: bool,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl<S, F: FnOnce(S)> FuturesIo<S, F> {
    /// Wraps `io`. `abort` must end it so that the peer cannot take the end for a complete message: RST for
    /// a socket (see [`abort`](super::abort)), no `close_notify` for TLS.
    pub fn new(io: S, abort: F) -> FuturesIo<S, F> {
        FuturesIo { io, abort, closed: false, reader: None, writer: None }
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
        if self.closed {
            return Poll::Ready(Ok(()));
        }
        let polled = Pin::new(&mut self.io).poll_close(cx);
        self.closed = polled.is_ready();
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::runtime::wakes::Wakes;
    use std::cell::RefCell;
    use std::rc::Rc;
    use std::sync::Arc;

    /// One end of an in-memory pipe: reads what was put there, writes into room for four bytes, and
    /// remembers the waker of its last pending poll.
    #[derive(Default)]
    struct Pipe {
        incoming: Vec<u8>,
        written: Vec<u8>,
        closed: bool,
        waker: Option<Waker>,
    }

    #[derive(Clone, Default)]
    struct End(Rc<RefCell<Pipe>>);

    impl AsyncRead for End {
        fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
            let mut pipe = self.0.borrow_mut();
            if pipe.incoming.is_empty() {
                pipe.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            let n = buf.len().min(pipe.incoming.len());
            buf[..n].copy_from_slice(&pipe.incoming[..n]);
            pipe.incoming.drain(..n);
            Poll::Ready(Ok(n))
        }
    }

    impl AsyncWrite for End {
        fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
            let mut pipe = self.0.borrow_mut();
            let n = buf.len().min(4 - pipe.written.len());
            if n == 0 {
                pipe.waker = Some(cx.waker().clone());
                return Poll::Pending;
            }
            pipe.written.extend_from_slice(&buf[..n]);
            Poll::Ready(Ok(n))
        }
        fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            Poll::Ready(Ok(()))
        }
        fn poll_close(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
            self.0.borrow_mut().closed = true;
            Poll::Ready(Ok(()))
        }
    }

    #[test]
    fn a_try_is_one_poll_and_keeps_the_waker_of_a_pending_one() {
        let end = End::default();
        let mut stream = FuturesIo::new(end.clone(), drop);
        let would_block = |e: io::Error| e.kind() == io::ErrorKind::WouldBlock;
        let mut buf = [0; 8];
        assert!(stream.try_read(&mut buf).is_err_and(would_block));

        let nobody = Arc::new(Wakes::default());
        let waker = Waker::from(nobody.clone());
        let mut cx = Context::from_waker(&waker);
        // `will_wake` may say no of two that wake the same.
        let registered = || {
            let before = nobody.count();
            end.0.borrow().waker.as_ref().is_some_and(|w| {
                w.wake_by_ref();
                nobody.count() > before
            })
        };
        assert!(stream.poll_read(&mut cx, &mut buf).is_pending());
        assert!(stream.try_read(&mut buf).is_err_and(would_block));
        assert!(registered());
        end.0.borrow_mut().incoming.extend_from_slice(b"ab");
        assert_eq!(stream.try_read(&mut buf).unwrap(), 2);

        assert_eq!(stream.try_write_vectored(&[IoSlice::new(b"12345")]).unwrap(), 4);
        end.0.borrow_mut().waker = None;
        assert!(stream.poll_write_vectored(&mut cx, &[IoSlice::new(b"5")]).is_pending());
        assert!(stream.try_write_vectored(&[IoSlice::new(b"5")]).is_err_and(would_block));
        assert!(registered());
    }

    #[test]
    fn fin_is_close_and_rst_is_the_embedders() {
        let end = End::default();
        let aborted = RefCell::new(false);
        let mut stream = FuturesIo::new(end.clone(), |_end: End| *aborted.borrow_mut() = true);
        let mut cx = Context::from_waker(Waker::noop());
        assert!(stream.poll_shutdown_write(&mut cx).is_ready());
        assert!(core::mem::take(&mut end.0.borrow_mut().closed));
        // Not every stream likes to be closed twice.
        assert!(stream.poll_close(&mut cx).is_ready() && !end.0.borrow().closed);
        assert!(FuturesIo::new(end.clone(), drop).poll_close(&mut cx).is_ready() && end.0.borrow().closed);
        stream.abort();
        assert!(aborted.take());
        assert_eq!(Rc::strong_count(&end.0), 1, "dropped by the abort");
    }

    #[test]
    fn a_waker_is_kept_no_longer_than_its_operation_is_pending() {
        let end = End::default();
        let mut stream = FuturesIo::new(end.clone(), drop);
        let nobody = Arc::new(Wakes::default());
        let waker = Waker::from(nobody.clone());
        let mut cx = Context::from_waker(&waker);
        assert!(stream.poll_read(&mut cx, &mut [0; 8]).is_pending());
        end.0.borrow_mut().waker = None;
        assert_eq!(Arc::strong_count(&nobody), 3);
        end.0.borrow_mut().incoming.push(7);
        assert!(stream.poll_read(&mut cx, &mut [0; 8]).is_ready());
        assert_eq!(Arc::strong_count(&nobody), 2);
    }
}
