//! `wait_for` on a fake runtime whose clock is set by hand. Named after the cases W and T of
//! the conformance suite where there is one. No sockets, no threads, no real time.

use super::*;
use crate::runtime::Stream;
use crate::runtime::wakes::Wakes;
use core::future::{pending, poll_fn};
use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Waker;

/// A runtime with a clock that is set by hand, and timers that count. It has no sockets.
#[derive(Clone, Default)]
struct Fake(Rc<State>);

#[derive(Default)]
struct State {
    now: Cell<Instant>,
    armed: Cell<u32>,
    alive: Cell<u32>,
    /// By how much the timers fire early.
    hasty: Cell<Duration>,
    waker: RefCell<Option<Waker>>,
    log: RefCell<Vec<&'static str>>,
}

impl Fake {
    fn at(&self, millis: u64) {
        self.0.now.set(Instant::from_millis(millis));
    }

    fn log(&self, what: &'static str) {
        self.0.log.borrow_mut().push(what);
    }

    /// Logs "dropped" when it is.
    fn witness(&self) -> Witness {
        Witness(self.clone())
    }
}

struct Witness(Fake);

impl Drop for Witness {
    fn drop(&mut self) {
        self.0.log("dropped");
    }
}

struct FakeTimer {
    state: Fake,
    at: Option<Instant>,
}

impl Timer for FakeTimer {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        self.state.0.armed.update(|n| n + 1);
        self.at = Some(at);
    }

    // As async-io's: once fired, it is pending until it is armed again.
    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.at {
            Some(at) if self.state.0.now.get() + self.state.0.hasty.get() >= at => {
                self.at = None;
                Poll::Ready(())
            }
            _ => {
                *self.state.0.waker.borrow_mut() = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

impl Drop for FakeTimer {
    fn drop(&mut self) {
        self.state.0.alive.update(|n| n - 1);
    }
}

enum NoStream {}

impl Stream for NoStream {
    fn poll_read(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        match *self {}
    }
    fn poll_write_vectored(&mut self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match *self {}
    }
    fn poll_shutdown_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match *self {}
    }
    fn abort(self) {
        match self {}
    }
    fn try_read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match *self {}
    }
    fn try_write_vectored(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match *self {}
    }
}

impl Runtime for Fake {
    type Stream = NoStream;
    type Connect = core::future::Pending<io::Result<NoStream>>;
    type Timer = FakeTimer;

    fn now(&self) -> Instant {
        self.0.now.get()
    }
    fn timer(&self) -> FakeTimer {
        self.0.alive.update(|n| n + 1);
        FakeTimer { state: self.clone(), at: None }
    }
    fn connect(&self, _: SocketAddr) -> Self::Connect {
        pending()
    }
}

fn poll<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

fn elapsed(limit: u64, elapsed: u64) -> Elapsed {
    Elapsed { kind: DeadlineKind::Total, limit: ms(limit), elapsed: ms(elapsed) }
}

#[test]
fn w01_zero_never_starts() {
    let fake = Fake::default();
    let mut wait = pin!(Scope::new(fake.clone()).wait_for(Duration::ZERO, |_| {
        fake.log("started");
        pending::<()>()
    }));
    assert_eq!(poll(wait.as_mut()), Poll::Ready(Err(elapsed(0, 0))));
    assert!(poll(wait.as_mut()).is_pending(), "over is over");
    assert!(fake.0.log.borrow().is_empty());
    assert_eq!(fake.0.armed.get(), 0);
}

#[test]
fn w04_drops_and_then_reports() {
    let fake = Fake::default();
    let witness = fake.witness();
    let mut wait = pin!(Scope::new(fake.clone()).wait_for(ms(100), |_| async move {
        let _witness = witness;
        pending::<()>().await
    }));
    assert!(poll(wait.as_mut()).is_pending());
    fake.at(99);
    assert!(poll(wait.as_mut()).is_pending(), "never early");
    assert!(fake.0.log.borrow().is_empty());
    fake.at(101);
    let result = poll(wait.as_mut());
    fake.log("reported");
    assert_eq!(result, Poll::Ready(Err(elapsed(100, 101))));
    assert_eq!(*fake.0.log.borrow(), ["dropped", "reported"]);
    assert_eq!((fake.0.armed.get(), fake.0.alive.get()), (1, 0), "one timer, armed once, gone");
    assert!(poll(wait.as_mut()).is_pending(), "over is over");
}

#[test]
fn w05_no_limit_arms_no_timer() {
    for limit in [None, Some(Duration::MAX), Some(Duration::from_secs(u64::MAX))] {
        let fake = Fake::default();
        fake.at(5);
        let mut calls = 0;
        let work = poll_fn(|_| {
            calls += 1;
            if calls == 2 { Poll::Ready(7) } else { Poll::Pending }
        });
        let mut wait = pin!(Scope::new(fake.clone()).wait_for(limit, |scope| {
            assert_eq!(scope.deadline(), None);
            work
        }));
        assert!(poll(wait.as_mut()).is_pending());
        fake.at(1_000_000_000);
        assert_eq!(poll(wait.as_mut()), Poll::Ready(Ok(7)));
        assert_eq!(fake.0.armed.get(), 0);
    }
}

#[test]
fn w07_completion_wins_the_tie() {
    let fake = Fake::default();
    let done = Cell::new(false);
    let work = || poll_fn(|_| if done.get() { Poll::Ready(7) } else { Poll::Pending });
    let mut in_time = pin!(Scope::new(fake.clone()).wait_for(ms(100), |_| work()));
    let mut late = pin!(Scope::new(fake.clone()).wait_for(ms(100), |_| work()));
    assert!(poll(in_time.as_mut()).is_pending());
    assert!(poll(late.as_mut()).is_pending());
    fake.at(200);
    assert_eq!(poll(late.as_mut()), Poll::Ready(Err(elapsed(100, 200))));
    done.set(true);
    assert_eq!(poll(in_time.as_mut()), Poll::Ready(Ok(7)));
    assert_eq!(fake.0.alive.get(), 0);
    assert!(poll(in_time.as_mut()).is_pending());
    assert!(poll(late.as_mut()).is_pending(), "late readiness is not looked at");
}

#[test]
fn w10_dropping_the_waiter_drops_the_work() {
    let fake = Fake::default();
    let witness = fake.witness();
    let mut wait = Box::pin(Scope::new(fake.clone()).wait_for(ms(100), |_| async move {
        let _witness = witness;
        pending::<()>().await
    }));
    assert!(poll(wait.as_mut()).is_pending());
    assert_eq!(fake.0.alive.get(), 1);
    fake.at(50);
    drop(wait);
    assert_eq!(*fake.0.log.borrow(), ["dropped"]);
    assert_eq!(fake.0.alive.get(), 0);
}

#[test]
fn w17_the_clock_starts_at_the_first_poll() {
    let fake = Fake::default();
    let mut wait = pin!(Scope::new(fake.clone()).wait_for(ms(100), |_| {
        fake.log("started");
        pending::<()>()
    }));
    fake.at(80);
    assert!(fake.0.log.borrow().is_empty());
    assert!(poll(wait.as_mut()).is_pending());
    assert_eq!(*fake.0.log.borrow(), ["started"]);
    fake.at(179);
    assert!(poll(wait.as_mut()).is_pending());
    fake.at(180);
    assert_eq!(poll(wait.as_mut()), Poll::Ready(Err(elapsed(100, 100))));
}

#[test]
fn ready_at_once_makes_no_timer() {
    let fake = Fake::default();
    let mut wait = pin!(Scope::new(fake.clone()).wait_for(ms(100), |_| async { 7 }));
    assert_eq!(poll(wait.as_mut()), Poll::Ready(Ok(7)));
    assert_eq!((fake.0.armed.get(), fake.0.alive.get()), (0, 0));
}

/// Starts three nested waits with the given limits, outermost first, and lets the clock jump to `jump`.
/// What comes back is the result at each level: the first that failed names its limit.
fn nest(limits: [u64; 3], jump: u64) -> Result<Result<Result<(), u128>, u128>, u128> {
    let fake = Fake::default();
    let [a, b, c] = limits.map(ms);
    let millis = |e: Elapsed| e.limit.as_millis();
    let mut wait = pin!(Scope::new(fake.clone()).wait_for(a, |scope| async move {
        let inner = scope
            .wait_for(b, |scope| async move { scope.wait_for(c, |_| pending::<()>()).await.map_err(millis) });
        inner.await.map_err(millis)
    }));
    assert!(poll(wait.as_mut()).is_pending());
    fake.at(jump);
    match poll(wait.as_mut()) {
        Poll::Ready(done) => {
            assert_eq!(fake.0.alive.get(), 0, "every timer is gone");
            done.map_err(millis)
        }
        Poll::Pending => panic!("nobody reported"),
    }
}

#[test]
fn t03_equal_the_outer_reports() {
    for jump in [100, 500] {
        assert_eq!(nest([100, 100, 100], jump), Err(100));
        assert_eq!(nest([900, 100, 100], jump), Ok(Err(100)));
    }
}

#[test]
fn t04_stall_past_both_the_outer_was_earlier() {
    assert_eq!(nest([100, 120, 900], 200), Err(100));
    assert_eq!(nest([900, 100, 120], 200), Ok(Err(100)));
    assert_eq!(nest([10, 20, 30], 200), Err(10));
}

#[test]
fn t05_stall_past_both_the_inner_was_earlier() {
    assert_eq!(nest([120, 900, 100], 200), Ok(Ok(Err(100))));
    assert_eq!(nest([30, 20, 10], 200), Ok(Ok(Err(10))));
    assert_eq!(nest([20, 10, 30], 200), Ok(Err(10)));
}

#[test]
fn t05_a_stall_between_two_levels_changes_nothing() {
    // The thread is held up after the inner level looked at the clock and before the outer one is back
    // in charge. Nobody decides in that turn; in the next one the earlier limit does.
    let fake = Fake::default();
    let mut wait = pin!(Scope::new(fake.clone()).wait_for(ms(120), |scope| {
        let mut inner = Box::pin(scope.wait_for(ms(100), |_| pending::<()>()));
        let (fake, mut clock) = (fake.clone(), [1, 200].into_iter());
        poll_fn(move |cx| {
            let polled = inner.as_mut().poll(cx);
            clock.next().into_iter().for_each(|millis| fake.at(millis));
            polled
        })
    }));
    assert!(poll(wait.as_mut()).is_pending());
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    assert_eq!(wakes.count(), 1, "another turn was asked for");
    assert_eq!(poll(wait.as_mut()), Poll::Ready(Ok(Err(elapsed(100, 200)))));
}

#[test]
fn an_outer_deadline_already_due_starts_nothing() {
    let fake = Fake::default();
    let mut wait = pin!(Scope::new(fake.clone()).wait_for(ms(100), |scope| async move {
        fake.at(100);
        // A zero limit does not report either: it is due no earlier than the outer one.
        scope.wait_for(Duration::ZERO, |_| async { unreachable!("started") }).await
    }));
    assert!(poll(wait.as_mut()).is_pending());
    assert_eq!(poll(wait.as_mut()), Poll::Ready(Err::<Result<(), _>, _>(elapsed(100, 100))));
}

#[test]
fn one_level_reports_and_the_next_goes_on() {
    let fake = Fake::default();
    let mut wait = pin!(Scope::new(fake.clone()).wait_for(ms(100), |scope| async move {
        let first = scope.wait_for(ms(30), |_| pending::<()>()).await;
        let second = scope.wait_for(ms(30), |_| async { 7 }).await;
        (first, second)
    }));
    assert!(poll(wait.as_mut()).is_pending());
    assert_eq!(fake.0.armed.get(), 2);
    fake.at(30);
    assert_eq!(poll(wait.as_mut()), Poll::Ready(Ok((Err(elapsed(30, 30)), Ok(7)))));
}

#[test]
fn a06_a_hasty_timer_is_no_verdict_and_is_armed_again() {
    let fake = Fake::default();
    fake.0.hasty.set(ms(1));
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    let mut cx = Context::from_waker(&waker);
    let mut wait = pin!(Scope::new(fake.clone()).wait_for(ms(100), |_| pending::<()>()));
    assert!(wait.as_mut().poll(&mut cx).is_pending());
    fake.at(99);
    assert!(wait.as_mut().poll(&mut cx).is_pending());
    assert_eq!((fake.0.armed.get(), wakes.count()), (1, 1));
    fake.0.hasty.set(Duration::ZERO);
    assert!(wait.as_mut().poll(&mut cx).is_pending());
    assert_eq!((fake.0.armed.get(), wakes.count()), (2, 1));
    fake.at(100);
    assert!(wait.as_mut().poll(&mut cx).is_ready());
}

#[test]
fn a08_the_last_waker_is_the_one_that_is_woken() {
    let fake = Fake::default();
    let mut wait = pin!(Scope::new(fake.clone()).wait_for(ms(100), |_| pending::<()>()));
    assert!(poll(wait.as_mut()).is_pending());
    let wakes = Arc::new(Wakes::default());
    let waker = Waker::from(wakes.clone());
    assert!(wait.as_mut().poll(&mut Context::from_waker(&waker)).is_pending());
    // `will_wake` may say no of two that wake the same.
    fake.0.waker.borrow().as_ref().into_iter().for_each(Waker::wake_by_ref);
    assert_eq!((fake.0.armed.get(), wakes.count()), (1, 1));
}

#[test]
fn the_policy_names_the_limit() {
    let fake = Fake::default();
    let scope = Scope::new(fake.clone());
    let policy = TimeoutPolicy {
        connect: Some(ms(1)),
        write: Some(ms(2)),
        read: Some(ms(3)),
        total: Some(ms(4)),
        ..TimeoutPolicy::OFF
    };
    let mut connect = pin!(scope.with_connect_timeout(&policy, |_| pending::<()>()));
    let mut write = pin!(scope.with_write_timeout(&policy, |_| pending::<()>()));
    let mut read = pin!(scope.with_read_timeout(&policy, |_| pending::<()>()));
    let mut total = pin!(scope.with_total_timeout(&policy, |_| pending::<()>()));
    let mut poll_all = || {
        [poll(connect.as_mut()), poll(write.as_mut()), poll(read.as_mut()), poll(total.as_mut())].map(|p| {
            match p {
                Poll::Ready(Err(e)) => Some((e.kind, e.limit)),
                _ => None,
            }
        })
    };
    assert_eq!(poll_all(), [None; 4]);
    fake.at(10);
    use DeadlineKind::{Connect, Read, Total, Write};
    assert_eq!(poll_all(), [(Connect, ms(1)), (Write, ms(2)), (Read, ms(3)), (Total, ms(4))].map(Some));

    let error = io::Error::from(elapsed(4, 10));
    assert_eq!(error.kind(), io::ErrorKind::TimedOut);
    assert!(error.get_ref().is_some_and(|source| source.is::<Elapsed>()));
}

#[test]
fn w06_success_just_before_leaves_no_timer() {
    let fake = Fake::default();
    let done = Cell::new(false);
    let work = poll_fn(|_| if done.get() { Poll::Ready(7) } else { Poll::Pending });
    let mut wait = pin!(Scope::new(fake.clone()).wait_for(ms(100), |_| work));
    assert!(poll(wait.as_mut()).is_pending());
    fake.at(80);
    done.set(true);
    assert_eq!(poll(wait.as_mut()), Poll::Ready(Ok(7)));
    assert_eq!(fake.0.alive.get(), 0);
    fake.at(300);
    assert!(poll(wait.as_mut()).is_pending(), "no late report");
}

#[test]
fn w11_a_result_does_not_swallow_a_cancellation() {
    let fake = Fake::default();
    let (done, witness) = (Cell::new(false), fake.witness());
    let work = poll_fn(|_| if done.get() { Poll::Ready(()) } else { Poll::Pending });
    let mut wait = Box::pin(Scope::new(fake.clone()).wait_for(ms(100), |_| async {
        let _witness = witness;
        work.await;
        fake.log("went on");
    }));
    assert!(poll(wait.as_mut()).is_pending());
    // Ready and cancelled at the same moment: what comes after the wait does not happen.
    done.set(true);
    drop(wait);
    assert_eq!(*fake.0.log.borrow(), ["dropped"]);
}

#[test]
fn w13_what_is_lent_outlives_its_wait() {
    let fake = Fake::default();
    let done = Cell::new(false);
    let mut work = pin!(poll_fn(|_| if done.get() { Poll::Ready(7) } else { Poll::Pending }));
    {
        let mut wait = pin!(Scope::new(fake.clone()).wait_for(ms(100), |_| work.as_mut()));
        assert!(poll(wait.as_mut()).is_pending());
        fake.at(100);
        assert_eq!(poll(wait.as_mut()), Poll::Ready(Err(elapsed(100, 100))));
    }
    done.set(true);
    assert_eq!(poll(work.as_mut()), Poll::Ready(7));
}

#[test]
fn an_error_of_the_work_is_its_result() {
    let fake = Fake::default();
    let mut wait = pin!(Scope::new(fake.clone()).wait_for(ms(100), |_| async { Err::<(), _>("refused") }));
    assert_eq!(poll(wait.as_mut()), Poll::Ready(Ok(Err("refused"))));
}

#[test]
fn the_next_wait_after_a_timeout_has_its_own_time() {
    let fake = Fake::default();
    let scope = Scope::new(fake.clone());
    let mut both = pin!(async {
        let first = scope.wait_for(ms(100), |_| pending::<()>()).await;
        let second = scope.wait_for(ms(100), |_| pending::<()>()).await;
        (first, second)
    });
    assert!(poll(both.as_mut()).is_pending());
    fake.at(150);
    assert!(poll(both.as_mut()).is_pending());
    fake.at(249);
    assert!(poll(both.as_mut()).is_pending());
    fake.at(250);
    assert_eq!(poll(both.as_mut()), Poll::Ready((Err(elapsed(100, 150)), Err(elapsed(100, 100)))));
}
