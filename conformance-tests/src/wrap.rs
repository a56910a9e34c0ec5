//! Wrappers around a runtime under test: [`Logged`] notes what the proxy does to its sockets and in which
//! order, counts how often it asks them and its timers, and makes them take little at a time where a case wants that; [`Inline`] runs the proxy's tasks inside one
//! future, so that a neighbour can block their thread.
//!
//! Neither changes otherwise what an operation does.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use tidegate_core::Instant;
use tidegate_core::runtime::{Listener, Runtime, Spawn, Stream, Timer};

use crate::board::Board;
use crate::exec::{Executor, Group};
use crate::script::Pace;

/// A runtime whose connections are logged.
#[derive(Clone)]
pub(crate) struct Logged<R> {
    runtime: R,
    log: Arc<Board>,
    connects: Arc<AtomicUsize>,
    pace: Option<(Pace, Block)>,
}

/// Blocks the thread.
pub(crate) type Block = Rc<dyn Fn(Duration)>;

impl<R> Logged<R> {
    pub(crate) fn new(
        runtime: R,
        log: Arc<Board>,
        pace: Option<Pace>,
        block: impl Fn(Duration) + 'static,
    ) -> Logged<R> {
        let pace = pace.map(|pace| (pace, Rc::new(block) as Block));
        Logged { runtime, log, connects: Arc::default(), pace }
    }
}

impl<R: Runtime> Runtime for Logged<R> {
    type Stream = LoggedStream<R::Stream>;
    type Connect = LoggedConnect<R::Connect>;
    type Timer = LoggedTimer<R::Timer>;

    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn timer(&self) -> LoggedTimer<R::Timer> {
        LoggedTimer { timer: Box::pin(self.runtime.timer()), log: Arc::clone(&self.log) }
    }

    fn connect(&self, to: SocketAddr) -> LoggedConnect<R::Connect> {
        let number = self.connects.fetch_add(1, Ordering::Relaxed);
        let connect = Some(Box::pin(self.runtime.connect(to)));
        let label = Label::new("upstream", number, &self.log);
        label.note(CONNECTS);
        LoggedConnect { connect, label: Some(label), pace: self.pace.clone() }
    }
}

impl<F, R: Spawn<F>> Spawn<F> for Logged<R> {
    fn spawn(&self, task: F) {
        self.runtime.spawn(task);
    }
}

/// A timer of which is counted how often it is armed.
pub(crate) struct LoggedTimer<T> {
    timer: Pin<Box<T>>,
    log: Arc<Board>,
}

impl<T: Timer> Timer for LoggedTimer<T> {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        self.log.armed();
        self.timer.as_mut().arm(at);
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll_fired(cx)
    }
}

/// What is noted of a connect that is begun.
pub(crate) const CONNECTS: &str = "connects";

struct Label {
    name: String,
    log: Arc<Board>,
}

impl Label {
    fn new(side: &str, number: usize, log: &Arc<Board>) -> Label {
        Label { name: format!("{side} {number}"), log: Arc::clone(log) }
    }

    fn note(&self, what: &str) {
        self.log.did(format!("{}: {what}", self.name));
    }
}

pub(crate) struct LoggedConnect<C> {
    /// Taken when it ends.
    connect: Option<Pin<Box<C>>>,
    label: Option<Label>,
    pace: Option<(Pace, Block)>,
}

impl<S, C: Future<Output = io::Result<S>>> Future for LoggedConnect<C> {
    type Output = io::Result<LoggedStream<S>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(connect) = &mut self.connect else { return Poll::Pending };
        let stream = ready!(connect.as_mut().poll(cx))?;
        let Some(label) = self.label.take() else { return Poll::Pending };
        let pace = self.pace.take();
        Poll::Ready(Ok(LoggedStream { stream: Some(stream), label, wrote: false, pace }))
    }
}

impl<C> Drop for LoggedConnect<C> {
    fn drop(&mut self) {
        self.connect = None;
        self.label.iter().for_each(|label| label.note("given up"));
    }
}

/// A connection that is logged: its first write, that it was closed, and how often it was asked.
pub(crate) struct LoggedStream<S> {
    /// Taken when it ends.
    stream: Option<S>,
    label: Label,
    wrote: bool,
    pace: Option<(Pace, Block)>,
}

/// What a stream of this pace is given of `bufs`.
fn first<'a>(pace: &Option<(Pace, Block)>, bufs: &'a [IoSlice<'_>]) -> Option<IoSlice<'a>> {
    let (pace, _) = pace.as_ref()?;
    let buf = bufs.iter().find(|buf| !buf.is_empty())?;
    Some(IoSlice::new(&buf[..buf.len().min(pace.at_most)]))
}

impl<S> LoggedStream<S> {
    fn stream(&mut self) -> io::Result<&mut S> {
        self.stream.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// For a read or a write.
    fn called(&mut self) -> io::Result<&mut S> {
        self.label.log.called();
        self.stream()
    }

    fn note_write(&mut self, result: &io::Result<usize>) {
        if result.is_ok() && !self.wrote {
            self.wrote = true;
            self.label.note("first write");
        }
        if let (Ok(_), Some((pace, block))) = (result, &self.pace) {
            block(pace.taking);
        }
    }
}

impl<S: Stream> Stream for LoggedStream<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.called()?.poll_read(cx, buf)
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let few = first(&self.pace, bufs);
        let bufs = few.as_ref().map_or(bufs, std::slice::from_ref);
        let result = ready!(self.called()?.poll_write_vectored(cx, bufs));
        self.note_write(&result);
        Poll::Ready(result)
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_flush(cx)
    }

    fn set_bulk(&mut self, bulk: bool) {
        self.stream.iter_mut().for_each(|stream| stream.set_bulk(bulk));
    }

    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_shutdown_write(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_close(cx)
    }

    fn abort(mut self) {
        if let Some(stream) = self.stream.take() {
            stream.abort();
            self.label.note("closed");
        }
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.called()?.try_read(buf)
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let few = first(&self.pace, bufs);
        let bufs = few.as_ref().map_or(bufs, std::slice::from_ref);
        let result = self.called()?.try_write_vectored(bufs);
        self.note_write(&result);
        result
    }
}

impl<S> Drop for LoggedStream<S> {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            drop(stream);
            self.label.note("closed");
        }
    }
}

/// A listener whose connections are logged.
pub(crate) struct LoggedListener<L> {
    listener: L,
    log: Arc<Board>,
    accepts: usize,
}

impl<L> LoggedListener<L> {
    pub(crate) fn new(listener: L, log: Arc<Board>) -> LoggedListener<L> {
        LoggedListener { listener, log, accepts: 0 }
    }
}

impl<L: Listener> Listener for LoggedListener<L> {
    type Stream = LoggedStream<L::Stream>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Option<SocketAddr>)>> {
        let (stream, peer) = ready!(self.listener.poll_accept(cx))?;
        let label = Label::new("client", self.accepts, &self.log);
        self.accepts += 1;
        Poll::Ready(Ok((LoggedStream { stream: Some(stream), label, wrote: false, pace: None }, peer)))
    }
}

/// A runtime that spawns into the future that uses it.
#[derive(Clone)]
pub(crate) struct Inline<R> {
    runtime: R,
    tasks: Rc<Executor>,
}

impl<R> Inline<R> {
    pub(crate) fn new(runtime: R) -> Inline<R> {
        Inline { runtime, tasks: Rc::new(Executor::new()) }
    }

    /// The tasks, to be polled by whoever owns the thread.
    pub(crate) fn tasks(&self) -> &Rc<Executor> {
        &self.tasks
    }
}

impl<R: Runtime> Runtime for Inline<R> {
    type Stream = R::Stream;
    type Connect = R::Connect;
    type Timer = R::Timer;

    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn timer(&self) -> R::Timer {
        self.runtime.timer()
    }

    fn connect(&self, to: SocketAddr) -> R::Connect {
        self.runtime.connect(to)
    }
}

impl<F: Future<Output = ()> + 'static, R> Spawn<F> for Inline<R> {
    fn spawn(&self, task: F) {
        self.tasks.spawn(Group::Proxy, task);
    }
}
