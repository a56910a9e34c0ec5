//! A real run on tape: what a connection asked of its runtime, and what it was told, in order; and the same connection
//! played again from the tape alone, without sockets, timers or a clock (`timeouts.md` V-13).
//!
//! What is told is the input: readings of the clock, bytes, results, polls, and whether the timer woke it. What is asked is the decision: which
//! operation, with how much room or how many bytes, which instant a timer is armed for, what is closed and how, and what
//! `observe` hears. A replay that asks for anything else than the recording has decided differently. Nothing here judges.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};

use tidegate_core::Instant;
use tidegate_core::runtime::{Runtime, Stream, Timer};

use crate::board::lock;

/// What the connection asks, or is about to be asked. Streams are numbered: zero is the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Asked {
    /// The executor polls it, and its timer has rung or not.
    Polled,
    Now,
    UnixTime,
    Arm(Instant),
    Fired,
    Connect(SocketAddr),
    Connected(usize),
    /// A read, with so much room; past the runtime's readiness or not.
    Read(usize, usize, bool),
    /// A write of so many bytes; past the runtime's readiness or not.
    Write(usize, usize, bool),
    Flush(usize),
    Fin(usize),
    Abort(usize),
    Drop(usize),
    /// What `observe` hears.
    Observed(String),
}

/// What it is told.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Told {
    Nothing,
    At(Instant),
    Seconds(u64),
    Pending,
    Bytes(Vec<u8>),
    Count(usize),
    Failed(io::ErrorKind, Option<i32>),
}

/// The tape. Clones are the same one.
#[derive(Clone, Debug, Default)]
pub(crate) struct Tape(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    reel: Mutex<Reel>,
    /// The runtime's timer has woken; the connection is told at its next poll, so that it is told in order.
    rang: AtomicBool,
    /// Whom the timer is to wake.
    bell: Mutex<Option<Waker>>,
    /// Who polls the connection.
    task: Mutex<Option<Waker>>,
}

/// The waker of the connection, the same one at each of its polls.
impl Wake for Inner {
    fn wake(self: Arc<Self>) {
        let task = lock(&self.task).clone();
        task.iter().for_each(Waker::wake_by_ref);
    }
}

/// The waker of its timer.
struct Ring(Arc<Inner>);

impl Wake for Ring {
    fn wake(self: Arc<Self>) {
        self.0.rang.store(true, Ordering::Release);
        Arc::clone(&self.0).wake();
    }
}

#[derive(Debug, Default)]
struct Reel {
    events: Vec<(Asked, Told)>,
    /// Where a replay is; `None` while it is recorded.
    at: Option<usize>,
    over: bool,
    wrong: Option<String>,
}

impl Tape {
    /// From the beginning, to be played.
    pub(crate) fn rewound(&self) -> Tape {
        let events = lock(&self.0.reel).events.clone();
        let reel = Mutex::new(Reel { events, at: Some(0), ..Reel::default() });
        Tape(Arc::new(Inner { reel, ..Inner::default() }))
    }

    /// What comes from here on belongs to nobody's decisions.
    pub(crate) fn end(&self) {
        let mut reel = lock(&self.0.reel);
        let left = reel.at.map_or(0, |at| reel.events.len() - at);
        if left > 0 && reel.wrong.is_none() {
            reel.wrong = Some(format!("it ended {left} events before the recording did"));
        }
        reel.over = true;
        drop(reel);
        // It leads back to this tape.
        *lock(&self.0.bell) = None;
    }

    /// How the replay differs from the recording.
    pub(crate) fn wrong(&self) -> Option<String> {
        lock(&self.0.reel).wrong.clone()
    }

    /// Where it first connects to.
    pub(crate) fn connects_to(&self) -> Option<SocketAddr> {
        lock(&self.0.reel).events.iter().find_map(|(asked, _)| match asked {
            Asked::Connect(to) => Some(*to),
            _ => None,
        })
    }

    /// How many events it has.
    pub(crate) fn len(&self) -> usize {
        lock(&self.0.reel).events.len()
    }

    /// Polls the connection, in `cx` unless it is replayed.
    pub(crate) fn poll<F: Future>(
        &self,
        connection: Pin<&mut F>,
        cx: Option<&mut Context<'_>>,
    ) -> Poll<F::Output> {
        *lock(&self.0.task) = cx.map(|cx| cx.waker().clone());
        let rang = self.ask(Asked::Polled, || Told::Count(self.0.rang.swap(false, Ordering::AcqRel).into()));
        let bell = lock(&self.0.bell).clone().filter(|_| rang == Told::Count(1));
        bell.iter().for_each(Waker::wake_by_ref);
        connection.poll(&mut Context::from_waker(&Waker::from(Arc::clone(&self.0))))
    }

    /// Whether the recording goes on with a poll.
    pub(crate) fn polls(&self) -> bool {
        let reel = lock(&self.0.reel);
        let next = reel.at.and_then(|at| reel.events.get(at));
        reel.wrong.is_none() && next.is_some_and(|(asked, _)| *asked == Asked::Polled)
    }

    /// Asks the runtime and notes what it says, or says what was noted.
    pub(crate) fn ask(&self, asked: Asked, live: impl FnOnce() -> Told) -> Told {
        let replays = lock(&self.0.reel).at.is_some();
        // Unlocked: what is asked may lead to further questions, such as a drop.
        let told = if replays { Told::Pending } else { live() };
        let mut reel = lock(&self.0.reel);
        if reel.over {
            return told;
        }
        let Some(at) = reel.at else {
            reel.events.push((asked, told.clone()));
            return told;
        };
        if reel.wrong.is_some() {
            return told;
        }
        match reel.events.get(at).cloned() {
            Some((then, told)) if then == asked => {
                reel.at = Some(at + 1);
                told
            }
            then => {
                let then = then.map(|(then, _)| then);
                reel.wrong = Some(format!("event {at} was {then:?}, and is {asked:?} in the replay"));
                told
            }
        }
    }
}

fn count(polled: Poll<io::Result<usize>>) -> Told {
    match polled {
        Poll::Pending => Told::Pending,
        Poll::Ready(Ok(n)) => Told::Count(n),
        Poll::Ready(Err(e)) => Told::Failed(e.kind(), e.raw_os_error()),
    }
}

fn error(kind: io::ErrorKind, os: Option<i32>) -> io::Error {
    os.map_or_else(|| kind.into(), io::Error::from_raw_os_error)
}

fn counted(told: Told) -> Poll<io::Result<usize>> {
    match told {
        Told::Count(n) => Poll::Ready(Ok(n)),
        Told::Failed(kind, os) => Poll::Ready(Err(error(kind, os))),
        _ => Poll::Pending,
    }
}

/// What would block as an error, where nothing can be pending.
fn direct(polled: Poll<io::Result<usize>>) -> io::Result<usize> {
    match polled {
        Poll::Ready(done) => done,
        Poll::Pending => Err(io::ErrorKind::WouldBlock.into()),
    }
}

/// A runtime that is recorded, or one that is played: then there is none.
#[derive(Clone)]
pub(crate) struct Taped<R> {
    pub(crate) runtime: Option<R>,
    pub(crate) tape: Tape,
    pub(crate) connects: Arc<Mutex<usize>>,
}

impl<R> Taped<R> {
    pub(crate) fn new(runtime: Option<R>, tape: &Tape) -> Taped<R> {
        Taped { runtime, tape: tape.clone(), connects: Arc::default() }
    }
}

impl<R: Runtime> Runtime for Taped<R> {
    type Stream = TapedStream<R::Stream>;
    type Connect = TapedConnect<R::Connect>;
    type Timer = TapedTimer<R::Timer>;

    fn now(&self) -> Instant {
        let live = || Told::At(self.runtime.as_ref().map_or(Instant::EPOCH, R::now));
        match self.tape.ask(Asked::Now, live) {
            Told::At(at) => at,
            _ => Instant::EPOCH,
        }
    }

    fn unix_time(&self) -> u64 {
        match self.tape.ask(Asked::UnixTime, || Told::Seconds(self.runtime.as_ref().map_or(0, R::unix_time)))
        {
            Told::Seconds(seconds) => seconds,
            _ => 0,
        }
    }

    fn timer(&self) -> Self::Timer {
        let timer = self.runtime.as_ref().map(|runtime| Box::pin(runtime.timer()));
        TapedTimer { timer, tape: self.tape.clone() }
    }

    fn connect(&self, to: SocketAddr) -> Self::Connect {
        let mut number = lock(&self.connects);
        *number += 1;
        self.tape.ask(Asked::Connect(to), || Told::Nothing);
        let connect = self.runtime.as_ref().map(|runtime| Box::pin(runtime.connect(to)));
        TapedConnect { connect, tape: self.tape.clone(), number: *number }
    }
}

pub(crate) struct TapedTimer<T> {
    timer: Option<Pin<Box<T>>>,
    tape: Tape,
}

impl<T: Timer> Timer for TapedTimer<T> {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        self.tape.ask(Asked::Arm(at), || Told::Nothing);
        if let Some(timer) = &mut self.timer {
            timer.as_mut().arm(at);
        }
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        *lock(&this.tape.0.bell) = Some(cx.waker().clone());
        let ring = Waker::from(Arc::new(Ring(Arc::clone(&this.tape.0))));
        let mut cx = Context::from_waker(&ring);
        let live = || match this.timer.as_mut().map(|timer| timer.as_mut().poll_fired(&mut cx)) {
            Some(Poll::Ready(())) => Told::Nothing,
            _ => Told::Pending,
        };
        if this.tape.ask(Asked::Fired, live) == Told::Nothing { Poll::Ready(()) } else { Poll::Pending }
    }
}

pub(crate) struct TapedConnect<C> {
    connect: Option<Pin<Box<C>>>,
    tape: Tape,
    number: usize,
}

impl<S, C: Future<Output = io::Result<S>>> Future for TapedConnect<C> {
    type Output = io::Result<TapedStream<S>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let (this, mut stream) = (&mut *self, None);
        let live = || {
            let polled = this.connect.as_mut().map_or(Poll::Pending, |connect| connect.as_mut().poll(cx));
            count(polled.map_ok(|connected| {
                stream = Some(connected);
                0
            }))
        };
        let told = this.tape.ask(Asked::Connected(this.number), live);
        let (tape, number) = (this.tape.clone(), this.number);
        counted(told).map_ok(|_| TapedStream { stream, tape, number, ended: false })
    }
}

/// A stream that is recorded, or played.
pub(crate) struct TapedStream<S> {
    stream: Option<S>,
    tape: Tape,
    number: usize,
    ended: bool,
}

impl<S> TapedStream<S> {
    /// The client's.
    pub(crate) fn client(stream: Option<S>, tape: &Tape) -> TapedStream<S> {
        TapedStream { stream, tape: tape.clone(), number: 0, ended: false }
    }

    fn read(
        &mut self,
        buf: &mut [u8],
        is_direct: bool,
        read: impl FnOnce(&mut S, &mut [u8]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let room = buf.len();
        let live = || match self.stream.as_mut().map(|stream| read(stream, buf)) {
            Some(Poll::Ready(Ok(n))) => Told::Bytes(buf[..n].to_vec()),
            other => count(other.unwrap_or(Poll::Pending)),
        };
        match self.tape.ask(Asked::Read(self.number, room, is_direct), live) {
            Told::Bytes(bytes) => {
                // As it is already, while it is recorded.
                buf[..bytes.len()].copy_from_slice(&bytes);
                Poll::Ready(Ok(bytes.len()))
            }
            told => counted(told),
        }
    }

    fn write(
        &mut self,
        bufs: &[IoSlice<'_>],
        is_direct: bool,
        write: impl FnOnce(&mut S) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<usize>> {
        let len = bufs.iter().map(|buf| buf.len()).sum();
        let live = || count(self.stream.as_mut().map_or(Poll::Pending, write));
        counted(self.tape.ask(Asked::Write(self.number, len, is_direct), live))
    }
}

impl<S: Stream> Stream for TapedStream<S> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.read(buf, false, |stream, buf| stream.poll_read(cx, buf))
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.write(bufs, false, |stream| stream.poll_write_vectored(cx, bufs))
    }

    fn set_bulk(&mut self, bulk: bool) {
        self.stream.iter_mut().for_each(|stream| stream.set_bulk(bulk));
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let live = || {
            count(self.stream.as_mut().map_or(Poll::Pending, |stream| stream.poll_flush(cx).map_ok(|()| 0)))
        };
        counted(self.tape.ask(Asked::Flush(self.number), live)).map_ok(drop)
    }

    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let live = || {
            let polled = self.stream.as_mut().map_or(Poll::Pending, |stream| stream.poll_shutdown_write(cx));
            count(polled.map_ok(|()| 0))
        };
        counted(self.tape.ask(Asked::Fin(self.number), live)).map_ok(drop)
    }

    fn abort(mut self) {
        self.ended = true;
        self.tape.ask(Asked::Abort(self.number), || Told::Nothing);
        if let Some(stream) = self.stream.take() {
            stream.abort();
        }
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        direct(self.read(buf, true, |stream, buf| Poll::Ready(stream.try_read(buf))))
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        direct(self.write(bufs, true, |stream| Poll::Ready(stream.try_write_vectored(bufs))))
    }
}

impl<S> Drop for TapedStream<S> {
    fn drop(&mut self) {
        if !self.ended {
            self.tape.ask(Asked::Drop(self.number), || Told::Nothing);
        }
    }
}
