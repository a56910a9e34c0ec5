//! What an adapter lends to the driver: sockets, timers, and a place to run tasks.
//!
//! An adapter for a runtime implements [`Runtime`], [`Stream`], [`Timer`] and usually [`Listener`] and
//! [`Spawn`]. It decides nothing: no HTTP, no expiry, no retry. What the traits promise is what the
//! conformance suite checks.
//!
//! There is no `Send`, `Sync` or `dyn` in these: auto-traits decide, so one driver is `Send` on a
//! work-stealing executor and `!Send` on a local one. Names are looked up by a [`Resolver`], which is no part of an
//! adapter: one serves all threads of a proxy, and so it is `Send + Sync`.

mod clock;
mod error;
mod futures_io;
mod resolver;
mod resolver_pool;
mod socket;
pub(crate) mod sync;
#[cfg(test)]
pub(crate) mod wakes;

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::io::IoSlice;
use std::net::SocketAddr;

pub use self::clock::{std_instant, std_now};
pub use self::futures_io::FuturesIo;
pub use self::resolver::{Answer, Found, Lookup, Resolution, Resolver};
pub use self::resolver_pool::{ResolverPool, system_lookup};
pub use self::socket::{
    abort, bind, connect_finished, inherits, set_accepted, set_bulk, shutdown_write, start_connect, try_read,
    try_write_vectored,
};

use crate::time::Instant;

/// A runtime instance: a clock, timers on that clock, and outgoing connections.
///
/// `docs/ADAPTER.md` in the repository writes one from nothing, with all the traits of this module.
pub trait Runtime {
    /// A connected byte stream.
    type Stream: Stream;
    /// A connection attempt. Dropping it cancels the attempt and closes its descriptor at once, inline.
    type Connect: Future<Output = io::Result<Self::Stream>>;
    /// A timer on this runtime's clock.
    type Timer: Timer;

    /// The clock's reading. Never goes backwards; one epoch per process and clock. Runtimes of one proxy
    /// ([`Proxy::on`](crate::Proxy::on)) must show the same time: that of [`std_now`], unless they have reason to differ.
    fn now(&self) -> Instant;

    /// Seconds since the Unix epoch, for `date` fields alone.
    fn unix_time(&self) -> u64 {
        let now = std::time::SystemTime::now();
        now.duration_since(std::time::UNIX_EPOCH).map_or(0, |d| d.as_secs())
    }

    /// What a thread's request ids follow from; asked for once a thread. It must be random, and nobody else's: only a
    /// runtime whose runs must repeat says anything else.
    fn id_seed(&self) -> u128 {
        // Keyed by the system's randomness, each with a key of its own: a secret is not needed.
        let random = || u128::from(RandomState::new().hash_one(()));
        random() << 64 | random()
    }

    /// A new timer, unarmed.
    fn timer(&self) -> Self::Timer;

    /// Starts to connect to `to`. Nothing may happen before the first poll of the returned future.
    /// Each poll looks at the socket itself, not only at cached readiness.
    fn connect(&self, to: SocketAddr) -> Self::Connect;
}

/// A re-armable timer: a hint to look at the clock, never a verdict.
pub trait Timer {
    /// Sets the instant at which the timer fires; replaces an earlier one. Arming a timer that has
    /// fired is allowed. `at` may lie in the past: then the timer fires at once.
    fn arm(self: Pin<&mut Self>, at: Instant);

    /// Ready once the armed instant has come; the driver then treats the timer as spent until it is
    /// armed again. Unarmed timers are pending. Registers the waker of the last poll only.
    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()>;
}

/// A byte stream whose two directions close separately.
///
/// `poll_*` register the context's waker when they return pending. `try_*` are one direct system call
/// each, which ignores any readiness the runtime has cached, never waits and registers nothing;
/// [`io::ErrorKind::WouldBlock`] says that there was nothing to do. Dropping a stream closes the
/// descriptor inline.
pub trait Stream: Unpin {
    /// Reads at least one byte into `buf`; zero means that the peer sent FIN. `buf` is never empty.
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>>;

    /// Writes from the slices in order and says how many bytes were accepted. After a short write the next
    /// one waits until the kernel reports the socket writable: the crumbs that a full socket still takes are
    /// no progress of its peer, and would pass for it.
    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>>;

    /// Pushes what a wrapping stream (TLS) holds back down to the socket. A socket holds nothing back.
    fn poll_flush(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    /// A long body begins to go out fast, or no longer does. A hint: a socket may let the kernel take more unsent bytes
    /// meanwhile (see [`set_bulk`]). Few streams at a time are told so, and none when it is given back to the pool.
    fn set_bulk(&mut self, _bulk: bool) {}

    /// Sends FIN: the peer reads the end of the stream, the other direction stays open.
    ///
    /// A stream that cannot close one direction alone fails here, or stays pending. Then its peer learns of the end
    /// only when the connection ends, and what it still sends is delivered until then: a tunnel ends with the peer's own
    /// FIN or at its half-close limit, and after an error response, or a body that only FIN ends, linger ends the
    /// connection: with the linger off, only the client or a drain does.
    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>>;

    /// Says what has to be said before the stream is dropped at the end of an orderly connection. For TLS that is
    /// `close_notify`. The close of a socket is FIN by itself: it has nothing to say, and being ready at once spares it a
    /// system call. May come after [`Stream::poll_shutdown_write`], and after it was ready.
    ///
    /// A client's stream may be pending here for as long as linger, and is then dropped all the same; an upstream's has one
    /// try.
    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.poll_shutdown_write(cx)
    }

    /// Sends RST and closes: what the peer has not been sent yet is discarded.
    fn abort(self);

    /// [`Stream::poll_read`] as one direct call.
    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize>;

    /// [`Stream::poll_write_vectored`] as one direct call, if the kernel reports the socket writable.
    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize>;
}

/// A source of client streams.
///
/// ```
/// use std::io;
/// use std::net::SocketAddr;
/// use std::task::{Context, Poll, ready};
/// use tidegate_core::runtime::{Listener, Stream};
///
/// /// Of any listener the clients on this machine alone; whoever else comes is reset.
/// struct Local<L>(L);
///
/// impl<L: Listener> Listener for Local<L> {
///     type Stream = L::Stream;
///
///     fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(L::Stream, Option<SocketAddr>)>> {
///         match ready!(self.0.poll_accept(cx))? {
///             (client, Some(peer)) if !peer.ip().is_loopback() => {
///                 client.abort();
///                 // Asked again at once, after others have had their turn.
///                 cx.waker().wake_by_ref();
///                 Poll::Pending
///             }
///             client => Poll::Ready(Ok(client)),
///         }
///     }
/// }
/// ```
pub trait Listener {
    /// What a client's connection is. It may be another type than the runtime's own stream.
    type Stream: Stream;

    /// The next client, and its address where there is one (a Unix socket has none).
    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Option<SocketAddr>)>>;
}

/// Runs a task to its end. Used by `Proxy::serve` alone, which ends every task that it spawned.
///
/// ```
/// use std::cell::RefCell;
/// use std::pin::Pin;
/// use std::rc::Rc;
/// use tidegate_core::runtime::Spawn;
///
/// type Task = Pin<Box<dyn Future<Output = ()>>>;
///
/// /// Tasks of one thread, for a loop that polls them. What they run need not be `Send`, since the bound is here.
/// #[derive(Clone, Default)]
/// struct Here(Rc<RefCell<Vec<Task>>>);
///
/// impl<F: Future<Output = ()> + 'static> Spawn<F> for Here {
///     fn spawn(&self, task: F) {
///         self.0.borrow_mut().push(Box::pin(task));
///     }
/// }
///
/// let here = Here::default();
/// here.spawn(async {});
/// assert_eq!(here.0.borrow().len(), 1);
/// ```
pub trait Spawn<F> {
    /// Hands `task` to the executor.
    fn spawn(&self, task: F);
}
