//! Any adapter with one thing of it wrong: a wrapper around the runtime of a good [`Harness`], whose fault is chosen by a
//! number at compile time. [`SOUND`] changes nothing, which shows that the wrapper itself is none of the faults.
//!
//! Each fault is one that an adapter has had.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, ErrorKind, IoSlice};
use std::mem;
use std::net::{SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicU32, AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_conformance::{CountedConnection, Harness, Need};
use tidegate_core::Instant;
use tidegate_core::runtime::{self, Runtime, Spawn};

pub(crate) const SOUND: u8 = 0;
pub(crate) const FAST_CLOCK: u8 = 1;
pub(crate) const FROZEN_CLOCK: u8 = 2;
pub(crate) const EARLY_TIMER: u8 = 3;
pub(crate) const LATE_TIMER: u8 = 4;
pub(crate) const LOST_TIMER: u8 = 5;
pub(crate) const SPENT_TIMER: u8 = 6;
pub(crate) const LOST_READER: u8 = 7;
pub(crate) const LOST_WRITER: u8 = 8;
pub(crate) const NO_FIN: u8 = 9;
pub(crate) const FIN_FOR_RST: u8 = 10;
pub(crate) const RST_FOR_FIN: u8 = 11;
pub(crate) const OPEN_CONNECT: u8 = 12;
pub(crate) const CACHED_READINESS: u8 = 13;
pub(crate) const SWALLOWED_ERROR: u8 = 14;
pub(crate) const TASK_LEFT: u8 = 15;
pub(crate) const LATE_CLOSE: u8 = 16;
pub(crate) const SOME_FIN: u8 = 17;
pub(crate) const LATE_CONNECT: u8 = 18;
pub(crate) const DRIFTING_TIMER: u8 = 19;
pub(crate) const LEAKY_TIMER: u8 = 20;
pub(crate) const HALF_KEPT: u8 = 21;

/// What the harness of a fault is called: what is warmed up once is warmed up once for each.
const NAMES: [&str; 22] = [
    "an adapter in a wrapper",
    "an adapter with a fast clock",
    "an adapter with a frozen clock",
    "an adapter with early timers",
    "an adapter with late timers",
    "an adapter with lost timers",
    "an adapter with spent timers",
    "an adapter with lost readers",
    "an adapter with lost writers",
    "an adapter without FIN",
    "an adapter without RST",
    "an adapter without an orderly close",
    "an adapter with connects that go on",
    "an adapter with cached readiness",
    "an adapter with swallowed errors",
    "an adapter with tasks left behind",
    "an adapter with late closes",
    "an adapter without RST now and then",
    "an adapter with connects that are closed late",
    "an adapter with timers that drift",
    "an adapter with timers that leak",
    "an adapter that keeps what was read in part",
];

/// How many seconds a fast clock counts in one.
const FAST: f64 = 1.5;

/// How much too early, or too late, a timer is: later than the busiest machine is allowed to be.
const EARLY: Duration = Duration::from_millis(30);
const LATE: Duration = Duration::from_secs(2);

/// Every so many aborts one is forgotten.
const FORGOTTEN: usize = 5;

/// How much later each timer is than the one that was made before it.
const DRIFT: Duration = Duration::from_micros(700);

/// The harness `H`, with this fault.
pub(crate) struct Mutated<H, const FAULT: u8>(H);

impl<H: Harness, const FAULT: u8> Harness for Mutated<H, FAULT>
where
    H::Runtime: Spawn<Task<CountedConnection<Faulty<H::Runtime, FAULT>, Of<H, FAULT>>, FAULT>>,
{
    type Runtime = Faulty<H::Runtime, FAULT>;
    type Listener = Listener<H::Listener, FAULT>;
    const NAME: &'static str = NAMES[FAULT as usize];
    const LACKS: &'static [(Need, &'static str)] = H::LACKS;

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Self::Runtime) -> F) -> T {
        H::block_on(|runtime| {
            let main = main(Faulty(runtime));
            async move {
                let mut main = pin!(main);
                poll_fn(|cx| {
                    close_all();
                    main.as_mut().poll(cx)
                })
                .await
            }
        })
    }

    fn listener(bound: TcpListener) -> io::Result<Self::Listener> {
        H::listener(bound).map(Listener)
    }
}

thread_local! {
    /// What a close was left to: the executor does it when it comes round again.
    static CLOSES: RefCell<Vec<Box<dyn FnOnce()>>> = RefCell::default();
}

/// Leaves a close to the executor.
fn close_later<T: 'static>(held: T, close: impl FnOnce(T) + 'static) {
    CLOSES.with_borrow_mut(|closes| closes.push(Box::new(move || close(held))));
}

fn close_all() {
    CLOSES.take().into_iter().for_each(|close| close());
}

/// The client's stream of a harness with this fault.
pub(crate) type Of<H, const FAULT: u8> =
    Stream<<<H as Harness>::Listener as runtime::Listener>::Stream, FAULT>;

#[derive(Clone)]
pub(crate) struct Faulty<R, const FAULT: u8>(R);

impl<R: Runtime + 'static, const FAULT: u8> Runtime for Faulty<R, FAULT> {
    type Stream = Stream<R::Stream, FAULT>;
    type Connect = Connect<R::Connect, FAULT>;
    type Timer = Timer<R::Timer, FAULT>;

    fn now(&self) -> Instant {
        static FROZEN: OnceLock<Instant> = OnceLock::new();
        let now = self.0.now();
        match FAULT {
            FAST_CLOCK => Instant::EPOCH + now.saturating_since(Instant::EPOCH).mul_f64(FAST),
            FROZEN_CLOCK => *FROZEN.get_or_init(|| now),
            _ => now,
        }
    }

    fn timer(&self) -> Self::Timer {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = if FAULT == DRIFTING_TIMER { MADE.fetch_add(1, Ordering::Relaxed) } else { 0 };
        Timer { timer: Box::pin(self.0.timer()), fired: false, number }
    }

    fn connect(&self, to: SocketAddr) -> Self::Connect {
        Connect(Some(Box::pin(self.0.connect(to))))
    }
}

pub(crate) struct Timer<T, const FAULT: u8> {
    timer: Pin<Box<T>>,
    fired: bool,
    number: u32,
}

impl<T, const FAULT: u8> Drop for Timer<T, FAULT> {
    fn drop(&mut self) {
        if FAULT == LEAKY_TIMER {
            // As an entry in a heap that nobody takes out.
            mem::forget(Box::new([1_u8; 64]));
        }
    }
}

impl<T: runtime::Timer, const FAULT: u8> runtime::Timer for Timer<T, FAULT> {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        let at = match FAULT {
            EARLY_TIMER => at - EARLY,
            LATE_TIMER => at + LATE,
            FAST_CLOCK => Instant::EPOCH + at.saturating_since(Instant::EPOCH).div_f64(FAST),
            DRIFTING_TIMER if at != Instant::NEVER => at + DRIFT * self.number,
            _ => at,
        };
        self.timer.as_mut().arm(at);
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if FAULT == LOST_TIMER || (FAULT == SPENT_TIMER && self.fired) {
            return Poll::Pending;
        }
        let polled = self.timer.as_mut().poll_fired(cx);
        self.fired |= polled.is_ready();
        polled
    }
}

pub(crate) struct Connect<C: 'static, const FAULT: u8>(Option<Pin<Box<C>>>);

impl<S: runtime::Stream + 'static, C: Future<Output = io::Result<S>>, const FAULT: u8> Future
    for Connect<C, FAULT>
{
    type Output = io::Result<Stream<S, FAULT>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(connect) = &mut self.0 else { return Poll::Pending };
        let polled = connect.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled.map_ok(Stream::new)
    }
}

impl<C: 'static, const FAULT: u8> Drop for Connect<C, FAULT> {
    fn drop(&mut self) {
        if FAULT == OPEN_CONNECT {
            // As a task that was spawned for it and detached: it goes on.
            mem::forget(self.0.take());
        }
        if FAULT == LATE_CONNECT {
            close_later(self.0.take(), drop);
        }
    }
}

pub(crate) struct Listener<L, const FAULT: u8>(L);

impl<L: runtime::Listener + 'static, const FAULT: u8> runtime::Listener for Listener<L, FAULT> {
    type Stream = Stream<L::Stream, FAULT>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Option<SocketAddr>)>> {
        self.0.poll_accept(cx).map_ok(|(stream, peer)| (Stream::new(stream), peer))
    }
}

pub(crate) struct Stream<S: runtime::Stream, const FAULT: u8> {
    /// Taken when it ends.
    stream: Option<S>,
    /// The last polls found nothing to read, and no room to write.
    drained: bool,
    filled: bool,
    /// Something came.
    came: bool,
}

impl<S: runtime::Stream, const FAULT: u8> Stream<S, FAULT> {
    fn new(stream: S) -> Self {
        Stream { stream: Some(stream), drained: false, filled: false, came: false }
    }

    fn inner(&mut self) -> io::Result<&mut S> {
        self.stream.as_mut().ok_or_else(|| ErrorKind::NotConnected.into())
    }
}

/// What came of a direct call, as a poll that registers nobody.
fn polled(result: io::Result<usize>) -> Poll<io::Result<usize>> {
    match result {
        Err(e) if e.kind() == ErrorKind::WouldBlock => Poll::Pending,
        result => Poll::Ready(result),
    }
}

impl<S: runtime::Stream + 'static, const FAULT: u8> runtime::Stream for Stream<S, FAULT> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if FAULT == LOST_READER {
            return polled(self.inner()?.try_read(buf));
        }
        let read = self.inner()?.poll_read(cx, buf);
        self.drained = read.is_pending();
        self.came |= matches!(read, Poll::Ready(Ok(1..)));
        match read {
            Poll::Ready(Err(_)) if FAULT == SWALLOWED_ERROR => Poll::Ready(Ok(0)),
            read => read,
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if FAULT == LOST_WRITER {
            return polled(self.inner()?.try_write_vectored(bufs));
        }
        let written = self.inner()?.poll_write_vectored(cx, bufs);
        self.filled = written.is_pending();
        written
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_flush(cx)
    }

    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if FAULT == NO_FIN {
            // As `close()` of async-std's `TcpStream`: it flushes.
            return self.inner()?.poll_flush(cx);
        }
        self.inner()?.poll_shutdown_write(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner()?.poll_close(cx)
    }

    fn abort(mut self) {
        static ABORTS: AtomicUsize = AtomicUsize::new(0);
        let Some(stream) = self.stream.take() else { return };
        match FAULT {
            FIN_FOR_RST => {}
            SOME_FIN if ABORTS.fetch_add(1, Ordering::Relaxed) % FORGOTTEN == FORGOTTEN - 1 => {}
            // As by a buffer of the adapter's that refers to it.
            HALF_KEPT if self.came => mem::forget(stream),
            LATE_CLOSE => close_later(stream, S::abort),
            _ => stream.abort(),
        }
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if FAULT == CACHED_READINESS && self.drained {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.inner()?.try_read(buf)
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        if FAULT == CACHED_READINESS && self.filled {
            return Err(ErrorKind::WouldBlock.into());
        }
        self.inner()?.try_write_vectored(bufs)
    }
}

impl<S: runtime::Stream, const FAULT: u8> Drop for Stream<S, FAULT> {
    fn drop(&mut self) {
        if FAULT == RST_FOR_FIN {
            self.stream.take().into_iter().for_each(runtime::Stream::abort);
        }
    }
}

/// What is spawned.
pub(crate) struct Task<T, const FAULT: u8>(Option<Pin<Box<T>>>);

impl<T: Future<Output = ()>, const FAULT: u8> Future for Task<T, FAULT> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().map_or(Poll::Pending, |task| task.as_mut().poll(cx))
    }
}

impl<T, const FAULT: u8> Drop for Task<T, FAULT> {
    fn drop(&mut self) {
        if FAULT == TASK_LEFT {
            // As in a list of tasks that nobody clears.
            mem::forget(self.0.take());
        }
    }
}

impl<T: Future<Output = ()>, R: Spawn<Task<T, FAULT>>, const FAULT: u8> Spawn<T> for Faulty<R, FAULT> {
    fn spawn(&self, task: T) {
        self.0.spawn(Task(Some(Box::pin(task))));
    }
}
