//! A runtime with bad habits: every one of them is allowed by the traits, and none may change what happens.
//!
//! `Hostile` goes around any runtime, in virtual time or real.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tidegate_core::Instant;
use tidegate_core::runtime::{Listener, Runtime, Spawn, Stream, Timer};

/// What a runtime does that it need not do.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Habits {
    /// A read or a write moves one byte at most.
    pub one_byte: bool,
    /// Every other operation is interrupted by a signal first.
    pub interrupted: bool,
    /// So often does each stream wake a task that waits for it, although there is nothing.
    pub spurious: u32,
    /// An upstream's stream takes nothing, and says so by a write of zero bytes.
    pub takes_nothing: bool,
    /// A client's stream does so.
    pub client_takes_nothing: bool,
    /// Timers fire so much later.
    pub late: Duration,
    /// Every other time, timers fire so much earlier.
    pub early: Duration,
    /// Timers know whole multiples of this alone, and fire at the next one.
    pub grain: Duration,
}

impl Habits {
    /// None at all.
    pub(crate) fn is_none(self) -> bool {
        self == Habits::default()
    }
}

/// A runtime with bad habits.
#[derive(Clone, Debug)]
pub(crate) struct Hostile<R> {
    runtime: R,
    habits: Habits,
}

impl<R> Hostile<R> {
    pub(crate) fn new(runtime: R, habits: Habits) -> Hostile<R> {
        Hostile { runtime, habits }
    }
}

impl<R: Runtime> Runtime for Hostile<R> {
    type Stream = HostileStream<R::Stream>;
    type Connect = HostileConnect<R::Connect>;
    type Timer = HostileTimer<R::Timer>;

    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn timer(&self) -> HostileTimer<R::Timer> {
        HostileTimer { timer: Box::pin(self.runtime.timer()), habits: self.habits, hasty: false }
    }

    fn connect(&self, to: SocketAddr) -> HostileConnect<R::Connect> {
        HostileConnect { connect: Box::pin(self.runtime.connect(to)), habits: self.habits }
    }
}

impl<F, R: Spawn<F>> Spawn<F> for Hostile<R> {
    fn spawn(&self, task: F) {
        self.runtime.spawn(task);
    }
}

pub(crate) struct HostileConnect<C> {
    connect: Pin<Box<C>>,
    habits: Habits,
}

impl<S, C: Future<Output = io::Result<S>>> Future for HostileConnect<C> {
    type Output = io::Result<HostileStream<S>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let stream = ready!(self.connect.as_mut().poll(cx))?;
        Poll::Ready(Ok(HostileStream::new(stream, self.habits)))
    }
}

pub(crate) struct HostileStream<S> {
    stream: S,
    habits: Habits,
    wakes_left: u32,
    interrupts: bool,
}

impl<S> HostileStream<S> {
    fn new(stream: S, habits: Habits) -> HostileStream<S> {
        HostileStream { stream, habits, wakes_left: habits.spurious, interrupts: habits.interrupted }
    }

    /// Whether this operation is interrupted.
    fn interrupt(&mut self) -> io::Result<()> {
        let now = self.interrupts;
        self.interrupts = self.habits.interrupted && !now;
        if now { Err(io::ErrorKind::Interrupted.into()) } else { Ok(()) }
    }

    fn waits<T>(&mut self, result: Poll<T>, cx: &Context<'_>) -> Poll<T> {
        if result.is_pending() && self.wakes_left > 0 {
            self.wakes_left -= 1;
            cx.waker().wake_by_ref();
        }
        result
    }

    fn cut<'a>(&self, bufs: &'a [IoSlice<'a>]) -> Option<IoSlice<'a>> {
        let first = bufs.iter().find(|buf| !buf.is_empty())?;
        self.habits.one_byte.then(|| IoSlice::new(&first[..1]))
    }
}

impl<S: Stream> Stream for HostileStream<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.interrupt()?;
        let len = if self.habits.one_byte { 1 } else { buf.len() };
        let result = self.stream.poll_read(cx, &mut buf[..len]);
        self.waits(result, cx)
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.interrupt()?;
        if self.habits.takes_nothing {
            return Poll::Ready(Ok(0));
        }
        let result = match self.cut(bufs) {
            Some(byte) => self.stream.poll_write_vectored(cx, &[byte]),
            None => self.stream.poll_write_vectored(cx, bufs),
        };
        self.waits(result, cx)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_flush(cx)
    }

    fn set_bulk(&mut self, bulk: bool) {
        self.stream.set_bulk(bulk);
    }

    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_shutdown_write(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream.poll_close(cx)
    }

    fn abort(self) {
        self.stream.abort();
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.interrupt()?;
        let len = if self.habits.one_byte { 1 } else { buf.len() };
        self.stream.try_read(&mut buf[..len])
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.interrupt()?;
        if self.habits.takes_nothing {
            return Ok(0);
        }
        match self.cut(bufs) {
            Some(byte) => self.stream.try_write_vectored(&[byte]),
            None => self.stream.try_write_vectored(bufs),
        }
    }
}

pub(crate) struct HostileTimer<T> {
    timer: Pin<Box<T>>,
    habits: Habits,
    hasty: bool,
}

impl<T: Timer> Timer for HostileTimer<T> {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        self.hasty = !self.hasty;
        let early = if self.hasty { self.habits.early } else { Duration::ZERO };
        let grain = u64::try_from(self.habits.grain.as_nanos()).unwrap_or(u64::MAX).max(1);
        let at = match at {
            Instant::NEVER => at,
            at => Instant::from_nanos(at.as_nanos().div_ceil(grain).saturating_mul(grain)),
        };
        let at = if at == Instant::NEVER { at } else { at + self.habits.late - early };
        self.timer.as_mut().arm(at);
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll_fired(cx)
    }
}

/// A listener whose streams have bad habits.
pub(crate) struct HostileListener<L> {
    listener: L,
    habits: Habits,
}

impl<L> HostileListener<L> {
    pub(crate) fn new(listener: L, habits: Habits) -> HostileListener<L> {
        HostileListener { listener, habits: Habits { takes_nothing: habits.client_takes_nothing, ..habits } }
    }
}

impl<L: Listener> Listener for HostileListener<L> {
    type Stream = HostileStream<L::Stream>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Option<SocketAddr>)>> {
        let (stream, peer) = ready!(self.listener.poll_accept(cx))?;
        Poll::Ready(Ok((HostileStream::new(stream, self.habits), peer)))
    }
}
