//! W, continued: cancelling, ties and timers of the primitive, and what outlives its runtime (S-08).
//! Written as `wait.rs` says.

use std::cell::Cell;
use std::future::{Future, pending, poll_fn};
use std::io;
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tidegate_core::runtime::{Runtime, Stream, Timer};
use tidegate_core::{Config, Decision, Instant, Proxy, Scope, TimeoutPolicy, Upstreams};

use super::wait::{EARLY, Env, beside, wait_case};
use crate::harness::sleep;
use crate::script::ms;

/// A runtime that counts its timers.
#[derive(Clone)]
struct Counting<R> {
    runtime: R,
    made: Rc<Cell<usize>>,
    left: Rc<Cell<usize>>,
}

impl<R: Runtime + Clone> Counting<R> {
    fn of(env: &Env<R>) -> Counting<R> {
        Counting { runtime: env.runtime.clone(), made: Rc::default(), left: Rc::default() }
    }
}

impl<R: Runtime> Runtime for Counting<R> {
    type Stream = R::Stream;
    type Connect = R::Connect;
    type Timer = CountedTimer<R::Timer>;

    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn timer(&self) -> Self::Timer {
        self.made.update(|n| n + 1);
        self.left.update(|n| n + 1);
        CountedTimer { timer: Box::pin(self.runtime.timer()), left: Rc::clone(&self.left) }
    }

    fn connect(&self, to: SocketAddr) -> R::Connect {
        self.runtime.connect(to)
    }
}

struct CountedTimer<T> {
    timer: Pin<Box<T>>,
    left: Rc<Cell<usize>>,
}

impl<T: Timer> Timer for CountedTimer<T> {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        self.timer.as_mut().arm(at);
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll_fired(cx)
    }
}

impl<T> Drop for CountedTimer<T> {
    fn drop(&mut self) {
        self.left.update(|n| n - 1);
    }
}

/// A waker that counts, and passes on.
struct CountingWaker(Waker, Arc<AtomicUsize>);

impl Wake for CountingWaker {
    fn wake(self: Arc<Self>) {
        self.1.fetch_add(1, Ordering::Relaxed);
        self.0.wake_by_ref();
    }
}

/// Polls once, with a waker that does nothing.
fn poll_once<F: Future + ?Sized>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// Polls `future` until `length` has passed, whether it becomes ready or not.
async fn poll_for<R: Runtime, F: Future + ?Sized>(
    runtime: &R,
    mut future: Pin<&mut F>,
    length: Duration,
) -> bool {
    let mut nap = pin!(sleep(runtime, length));
    let mut is_ready = false;
    poll_fn(|cx| {
        is_ready = is_ready || future.as_mut().poll(cx).is_ready();
        nap.as_mut().poll(cx)
    })
    .await;
    is_ready
}

fn is(ready: bool) -> &'static str {
    if ready { "ready" } else { "pending" }
}

wait_case! {
    /// No limit: three times the usual one is fine, and no timer is ever made.
    w_05_none, "W-05", "None", ms(450),
    &["wait_for: ready", "timers made: 0"],
    |env| {
        let counting = Counting::of(env);
        let result = Scope::new(counting.clone()).wait_for(None, |_| sleep(&env.runtime, ms(450))).await;
        env.log_elapsed("wait_for", &result);
        env.log(format!("timers made: {}", counting.made.get()));
        None
    }
}

wait_case! {
    /// In time: nothing of the wait is left, and nothing of it wakes anybody afterwards.
    w_06_success_just_before, "W-06", "success just before", ms(300),
    &["wait_for: ready", "timers made: 1, left: 0", "later wakes: 0"],
    |env| {
        let started = env.now();
        let counting = Counting::of(env);
        let wakes = Arc::new(AtomicUsize::new(0));
        let mut wait = Box::pin(Scope::new(counting.clone()).wait_for(ms(100), |_| sleep(&env.runtime, ms(60))));
        let result = poll_fn(|cx| {
            let waker = Arc::new(CountingWaker(cx.waker().clone(), Arc::clone(&wakes)));
            wait.as_mut().poll(&mut Context::from_waker(&waker.into()))
        })
        .await;
        env.log_elapsed("wait_for", &result);
        env.log(format!("timers made: {}, left: {}", counting.made.get(), counting.left.get()));
        let so_far = wakes.load(Ordering::Relaxed);
        let at = started + ms(300);
        sleep(&env.runtime, at.saturating_since(env.now())).await;
        env.log(format!("later wakes: {}", wakes.load(Ordering::Relaxed) - so_far));
        None
    }
}

/// Waits 100 ms for `ready`, while a neighbour blocks the thread for 180 ms, from the turn in which that begins, and then
/// does `then`.
async fn blocked<R: Runtime + Clone>(env: &Env<R>, ready: &Cell<bool>, then: impl FnOnce()) -> bool {
    let work = || poll_fn(|_| if ready.get() { Poll::Ready(()) } else { Poll::Pending });
    let mut wait = Box::pin(env.scope().wait_for(ms(100), |_| work()));
    let neighbour = async {
        // However late the machine is: the wait has begun, and nobody has looked whether it is over.
        (env.block)(ms(180));
        then();
    };
    let result = beside(wait.as_mut(), neighbour).await;
    env.log_elapsed("wait_for", &result);
    ready.set(true);
    poll_once(wait.as_mut()).is_ready()
}

wait_case! {
    /// Ready, and past its limit, in one turn: it is ready.
    w_07_tie, "W-07", "tie", ms(180),
    &["wait_for: ready"],
    |env| {
        let ready = Cell::new(false);
        blocked(env, &ready, || ready.set(true)).await;
        None
    }
}

wait_case! {
    /// Ready one turn after the one in which the limit was found to be past: nobody looks.
    w_07_tie_one_turn_too_late, "W-07", "tie, one turn too late", ms(180),
    &["wait_for: total timeout of 100ms", "then: pending"],
    |env| {
        let late = blocked(env, &Cell::new(false), || {}).await;
        env.log(format!("then: {}", is(late)));
        None
    }
}

/// Owns a connection until `ready`, and says so if it gets that far.
async fn owner<R: Runtime + Clone>(env: &Env<R>, ready: &Cell<bool>) {
    let _destroyed = env.on_drop("destroyed");
    let socket = env.runtime.connect(env.listener).await;
    env.log(if socket.is_ok() { "connected" } else { "not connected" });
    poll_fn(|_| if ready.get() { Poll::Ready(()) } else { Poll::Pending }).await;
    env.log("the result was used");
}

wait_case! {
    /// Dropping the wait is cancelling: at once, whole, and for good.
    w_10_dropping_the_waiter_cancels, "W-10", "dropping the waiter cancels", ms(200),
    &["connected", "destroyed", "established: 0, timers left: 0", "nothing later"],
    |env| {
        let counting = Counting::of(env);
        let ready = Cell::new(false);
        let mut wait = Box::pin(Scope::new(counting.clone()).wait_for(ms(100), |_| owner(env, &ready)));
        poll_for(&env.runtime, wait.as_mut(), ms(50)).await;
        drop(wait);
        env.log(format!("established: {}, timers left: {}", (env.established)(), counting.left.get()));
        ready.set(true);
        sleep(&env.runtime, ms(150)).await;
        env.log("nothing later");
        None
    }
}

wait_case! {
    /// The result is there and the wait is cancelled before anybody looked, in both orders: it is cancelled, nobody
    /// gets the result, and its socket is closed.
    w_11_cancellation_not_swallowed, "W-11", "cancellation not swallowed", ms(40),
    &["connected", "destroyed", "established: 0", "connected", "destroyed", "established: 0"],
    |env| {
        for result_first in [true, false] {
            let ready = Cell::new(false);
            let mut wait = Box::pin(env.scope().wait_for(ms(100), |_| owner(env, &ready)));
            poll_for(&env.runtime, wait.as_mut(), ms(20)).await;
            ready.set(result_first);
            drop(wait);
            ready.set(true);
            env.log(format!("established: {}", (env.established)()));
        }
        None
    }
}

/// Arms a timer for `first`, lets `meanwhile` pass, arms it for `second`, both counted from now, and waits for it.
async fn rearmed<R>(env: &Env<R>, first: Duration, meanwhile: impl AsyncFnOnce(), second: Duration)
where
    R: Runtime + Clone,
{
    let started = env.now();
    let mut timer = pin!(env.runtime.timer());
    timer.as_mut().arm(started + first);
    // Registered with the runtime by a poll, as in use.
    let _ = poll_fn(|cx| Poll::Ready(timer.as_mut().poll_fired(cx))).await;
    meanwhile().await;
    timer.as_mut().arm(started + second);
    poll_fn(|cx| timer.as_mut().poll_fired(cx)).await;
    let at = env.now().saturating_since(started);
    env.log(if at < second { format!("{EARLY}, after {at:?}") } else { "fired".into() });
}

wait_case! {
    /// A timer that is armed again for an earlier instant fires then. (The first instant is further away than the
    /// catalogue's 100 ms: who fires at that one is not just late.)
    w_14_re_arm_earlier, "W-14", "re-arm earlier", ms(50),
    &["fired"],
    |env| {
        rearmed(env, ms(1000), async || {}, ms(50)).await;
        None
    }
}

wait_case! {
    /// A timer that is armed again for a later instant does not fire before.
    w_14_re_arm_later, "W-14", "re-arm later", ms(100),
    &["fired"],
    |env| {
        rearmed(env, ms(50), async || sleep(&env.runtime, ms(30)).await, ms(100)).await;
        None
    }
}

wait_case! {
    /// Nor if the first instant passed unobserved while the thread was blocked.
    w_14_re_arm_after_a_stall, "W-14", "re-arm after a stall", ms(150),
    &["fired"],
    |env| {
        rearmed(env, ms(50), async || (env.block)(ms(90)), ms(150)).await;
        None
    }
}

wait_case! {
    /// A wait that has ended cannot be started again; it says nothing a second time.
    w_15_re_arm_after_firing, "W-15", "re-arm after firing", ms(150),
    &["wait_for: total timeout of 50ms", "again: pending"],
    |env| {
        let mut wait = Box::pin(env.scope().wait_for(ms(50), |_| pending::<()>()));
        let result = wait.as_mut().await;
        env.log_elapsed("wait_for", &result);
        let again = poll_for(&env.runtime, wait.as_mut(), ms(100)).await;
        env.log(format!("again: {}", is(again)));
        None
    }
}

wait_case! {
    /// A timer that has fired is spent; armed again, it fires again. That is what a second deadline needs which runs
    /// during the cleanup of the first.
    w_16_second_deadline_of_one_timer, "W-16", "second deadline of one timer", ms(100),
    &["fired", "fired"],
    |env| {
        let mut timer = pin!(env.runtime.timer());
        let started = env.now();
        for at in [started + ms(50), started + ms(100)] {
            timer.as_mut().arm(at);
            poll_fn(|cx| timer.as_mut().poll_fired(cx)).await;
            env.log(if env.now() < at { EARLY } else { "fired" });
        }
        None
    }
}

wait_case! {
    /// What timed out is gone although its handle still exists. Work that is lent by reference is stopped, and lives
    /// on with its owner: Rust lets nobody else end it.
    w_18_inner_by_reference, "W-18", "inner by reference", ms(100),
    &[
        "destroyed",
        "by value: total timeout of 50ms",
        "its handle: pending",
        "by reference: total timeout of 50ms",
        "lent",
        "destroyed",
    ],
    |env| {
        let work = |line| {
            let guard = env.on_drop(line);
            async move {
                pending::<()>().await;
                drop(guard);
            }
        };
        let mut wait = Box::pin(env.scope().wait_for(ms(50), |_| work("destroyed")));
        let result = wait.as_mut().await;
        env.log_elapsed("by value", &result);
        env.log(format!("its handle: {}", is(poll_once(wait.as_mut()).is_ready())));
        let mut lent = Box::pin(work("destroyed"));
        let result = env.scope().wait_for(ms(50), |_| lent.as_mut()).await;
        env.log_elapsed("by reference", &result);
        env.log("lent");
        drop(lent);
        None
    }
}

wait_case! {
    /// What is held beyond the end of its runtime reports errors, or nothing; it does not panic, and gives its sockets
    /// back when it is dropped.
    s_08_timers_after_the_runtime_is_gone, "S-08", "timers after the runtime is gone", ms(20),
    &[
        "connected",
        "afterwards",
        "wait_for: total timeout of 10ms",
        "the connection: ready",
        "established: 0",
    ],
    |env| {
        let runtime = env.runtime.clone();
        let connect = || runtime.connect(env.listener);
        let (Ok(mut stream), Ok(client)) = (connect().await, connect().await) else { return Duration::ZERO };
        env.log("connected");
        let timeouts = TimeoutPolicy { client_head: Some(ms(10)), ..TimeoutPolicy::OFF };
        let config = Config { timeouts, ..Config::default() };
        let proxy = Proxy::new(runtime.clone(), Upstreams::default(), config);
        let mut connection = Box::pin(proxy.serve_connection(client, None, |_| Decision::forward(), |_| {}));
        let mut wait = Box::pin(env.scope().wait_for(ms(10), |_| pending::<()>()));
        let mut timer = Box::pin(runtime.timer());
        timer.as_mut().arm(env.now() + ms(10));
        poll_fn(|cx| {
            let _ = (connection.as_mut().poll(cx), wait.as_mut().poll(cx), timer.as_mut().poll_fired(cx));
            let _ = stream.poll_read(cx, &mut [0; 1]);
            Poll::Ready(())
        })
        .await;
        // Its limits end while the runtime does.
        (env.block)(ms(20));
        let lines = env.lines();
        let established = Rc::clone(&env.established);
        env.afterwards(move || {
            lines.log("afterwards");
            let mut cx = Context::from_waker(Waker::noop());
            let read = stream.poll_read(&mut cx, &mut [0; 1]);
            if let Poll::Ready(Ok(n)) = read {
                lines.log(format!("{n} bytes were read that nobody sent"));
            }
            let _ = timer.as_mut().poll_fired(&mut cx);
            timer.as_mut().arm(runtime.now() + ms(10));
            let _ = timer.as_mut().poll_fired(&mut cx);
            let mut connect = Box::pin(runtime.connect(SocketAddr::from(([127, 0, 0, 1], 1))));
            let _: Poll<io::Result<_>> = connect.as_mut().poll(&mut cx);
            if let Poll::Ready(result) = wait.as_mut().poll(&mut cx) {
                lines.log_elapsed("wait_for", &result);
            }
            lines.log(format!("the connection: {}", is(connection.as_mut().poll(&mut cx).is_ready())));
            drop((stream, timer, connect, wait, connection, proxy));
            lines.log(format!("established: {}", established()));
        });
        None
    }
}
