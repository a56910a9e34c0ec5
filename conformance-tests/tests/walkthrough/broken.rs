//! The adapter of the walk-through with one method of it wrong, and the words in which the suite says so.
//!
//! Each fault is one that an adapter has had.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::{SocketAddr, TcpListener};
use std::panic::{self, AssertUnwindSafe};
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_conformance::expect::Expect;
use tidegate_conformance::script::Case;
use tidegate_conformance::{Harness, Need, cases, check};
use tidegate_core::Instant;
use tidegate_core::runtime::{self, Runtime, Spawn};

use crate::tiny::{self, OnTiny, Tiny};

const NO_FIN: u8 = 1;
const NO_RST: u8 = 2;
const SPENT_TIMER: u8 = 3;
const LOST_WAKER: u8 = 4;
const OPEN_CONNECT: u8 = 5;
const LATE_TIMER: u8 = 6;
const FAST_CLOCK: u8 = 7;

/// How many seconds a fast clock counts in one.
const FAST: f64 = 1.5;

#[derive(Clone)]
struct Broken<const FAULT: u8>(Tiny);

struct Stream<const FAULT: u8>(tiny::Stream);

impl<const FAULT: u8> runtime::Stream for Stream<FAULT> {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if FAULT == LOST_WAKER {
            return match self.0.try_read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                result => Poll::Ready(result),
            };
        }
        self.0.poll_read(cx, buf)
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.poll_write_vectored(cx, bufs)
    }

    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if FAULT == NO_FIN {
            // As `close()` of async-std's `TcpStream`: it flushes.
            return self.0.poll_flush(cx);
        }
        self.0.poll_shutdown_write(cx)
    }

    fn abort(self) {
        if FAULT == NO_RST {
            return drop(self);
        }
        self.0.abort();
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.0.try_read(buf)
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }
}

struct Timer<const FAULT: u8> {
    timer: Pin<Box<tiny::Timer>>,
    fired: bool,
}

impl<const FAULT: u8> runtime::Timer for Timer<FAULT> {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        let at = match FAULT {
            LATE_TIMER => at + Duration::from_millis(400),
            FAST_CLOCK => Instant::EPOCH + at.saturating_since(Instant::EPOCH).div_f64(FAST),
            _ => at,
        };
        self.timer.as_mut().arm(at);
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if FAULT == SPENT_TIMER && self.fired {
            return Poll::Pending;
        }
        let polled = self.timer.as_mut().poll_fired(cx);
        self.fired |= polled.is_ready();
        polled
    }
}

struct Connect<const FAULT: u8>(Option<Pin<Box<tiny::Connect>>>);

impl<const FAULT: u8> Future for Connect<FAULT> {
    type Output = io::Result<Stream<FAULT>>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let Some(connect) = &mut self.0 else { return Poll::Pending };
        let polled = connect.as_mut().poll(cx);
        if polled.is_ready() {
            self.0 = None;
        }
        polled.map_ok(Stream)
    }
}

impl<const FAULT: u8> Drop for Connect<FAULT> {
    fn drop(&mut self) {
        if FAULT == OPEN_CONNECT {
            // As a task that was spawned for it and detached: it goes on.
            std::mem::forget(self.0.take());
        }
    }
}

struct Listener<const FAULT: u8>(tiny::Listener);

impl<const FAULT: u8> runtime::Listener for Listener<FAULT> {
    type Stream = Stream<FAULT>;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Self::Stream, Option<SocketAddr>)>> {
        self.0.poll_accept(cx).map_ok(|(stream, peer)| (Stream(stream), peer))
    }
}

impl<const FAULT: u8> Runtime for Broken<FAULT> {
    type Stream = Stream<FAULT>;
    type Connect = Connect<FAULT>;
    type Timer = Timer<FAULT>;

    fn now(&self) -> Instant {
        let now = self.0.now();
        if FAULT == FAST_CLOCK {
            return Instant::EPOCH + now.saturating_since(Instant::EPOCH).mul_f64(FAST);
        }
        now
    }

    fn timer(&self) -> Timer<FAULT> {
        Timer { timer: Box::pin(self.0.timer()), fired: false }
    }

    fn connect(&self, to: SocketAddr) -> Connect<FAULT> {
        Connect(Some(Box::pin(self.0.connect(to))))
    }
}

impl<F: Future<Output = ()> + 'static, const FAULT: u8> Spawn<F> for Broken<FAULT> {
    fn spawn(&self, task: F) {
        self.0.spawn(task);
    }
}

impl<const FAULT: u8> Harness for Broken<FAULT> {
    type Runtime = Broken<FAULT>;
    type Listener = Listener<FAULT>;
    const NAME: &'static str = "tiny, broken";

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Self) -> F) -> T {
        OnTiny::block_on(|tiny| main(Broken(tiny)))
    }

    fn listener(bound: TcpListener) -> io::Result<Self::Listener> {
        OnTiny::listener(bound).map(Listener)
    }
}

/// What the suite says about a case with this fault; the case must fail, and say all of these.
#[track_caller]
fn fails<const FAULT: u8>(case: Case, words: &[&str]) {
    let ran = panic::catch_unwind(AssertUnwindSafe(|| check::<Broken<FAULT>>(case, &[])));
    let panic = ran.expect_err("the suite does not notice");
    let said = panic.downcast_ref::<String>().expect("it says why");
    for words in words {
        assert!(said.contains(words), "it does not say {words:?}:\n{said}");
    }
}

#[test]
fn a_fin_that_is_not_sent() {
    fails::<NO_FIN>(
        cases::q::q_01_upstream_never_reads(),
        &["expected client 0's connection ended by Fin", "Look at `Stream::poll_shutdown_write`"],
    );
}

#[test]
fn an_rst_that_is_not_sent() {
    fails::<NO_RST>(
        cases::q::q_05_client_stalls(),
        &["expected upstream connection 0 ended by Rst; it was ended by Fin", "Look at `Stream::abort`"],
    );
}

#[test]
fn a_timer_that_fires_once() {
    fails::<SPENT_TIMER>(
        cases::upstreams::c_18_retries_use_up_the_total(),
        &["A deadline came, and the next one never did", "Look at `Timer::arm`"],
    );
}

#[test]
fn a_waker_that_is_not_kept() {
    fails::<LOST_WAKER>(
        cases::client::k_14_client_gone_while_waiting(),
        &["A task was not woken", "Look at `Stream::poll_read`"],
    );
}

#[test]
fn a_connect_that_outlives_its_future() {
    fails::<OPEN_CONNECT>(
        cases::c::c_01_hang(),
        &["A connection attempt outlived its future", "the drop of `Runtime::Connect`"],
    );
}

#[test]
fn a_timer_that_is_late() {
    fails::<LATE_TIMER>(
        cases::c::c_04_accepted_by_the_kernel_only(),
        &["later than", "Look at `Timer::arm`"],
    );
}

#[test]
fn a_clock_that_is_fast() {
    fails::<FAST_CLOCK>(cases::c::c_04_accepted_by_the_kernel_only(), &["EARLY", "look at `Runtime::now`"]);
}

#[test]
fn a_case_that_is_skipped_does_not_run() {
    let skips = [("q_05_client_stalls", "an abort is not what this is about")];
    check::<Broken<NO_RST>>(cases::q::q_05_client_stalls(), &skips);
    // Nobody could hold it; the executor is one thread.
    let never = Expect::new("what never holds", |_, _| Err("it does not".into()));
    check::<OnTiny>(Case::new("X-01", "needs threads").needs(Need::Threads).expect(never), &[]);
}
