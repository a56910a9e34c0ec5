//! A on the runtime itself, continued: its timers, many of them and in many hands. What one timer owes to a waiter is in
//! `wait.rs`.

use std::future::{Future, poll_fn};
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tidegate_core::runtime::{self, Listener, Runtime, Timer};
use tidegate_core::{Config, Decision, Proxy, Report, RequestHead, TimeoutPolicy, Upstreams};

use crate::board::lock;
use crate::counted::{Counts, Held};
use crate::exec::{Executor, Group};
use crate::gauges;
use crate::harness::{Harness, sleep};
use crate::run_live::{Live, with_slack};
use crate::script::ms;

/// A waker that forwards to another, and says whether it was called.
struct Named {
    outer: Waker,
    called: AtomicBool,
}

impl Wake for Named {
    fn wake(self: Arc<Self>) {
        self.called.store(true, Ordering::Release);
        self.outer.wake_by_ref();
    }
}

/// Polls with two wakers, one after the other, and from then on with the second one whenever that is called: whether each was,
/// when it is ready; nothing if it never is.
async fn swapped<R: Runtime>(
    runtime: &R,
    mut poll: impl FnMut(&mut Context<'_>) -> Poll<()>,
) -> Option<[bool; 2]> {
    let mut limit = pin!(sleep(runtime, ms(500)));
    let mut both: Option<[Arc<Named>; 2]> = None;
    let mut poll =
        |named: &Arc<Named>| poll(&mut Context::from_waker(&Waker::from(Arc::clone(named)))).is_ready();
    poll_fn(|cx| {
        let [first, second] = both.get_or_insert_with(|| {
            let named = || Arc::new(Named { outer: cx.waker().clone(), called: AtomicBool::new(false) });
            let both = [named(), named()];
            both.iter().for_each(|named| _ = poll(named));
            both
        });
        let called = second.called.swap(false, Ordering::AcqRel);
        if called && poll(second) {
            return Poll::Ready(Some([first.called.load(Ordering::Acquire), true]));
        }
        limit.as_mut().poll(cx).map(|()| None)
    })
    .await
}

/// What was polled with one waker and then with another wakes the other when its time has come: a timer of the runtime's, and a
/// connection with its deadline, as when it moves into another future.
pub fn a_08_waker_swapped<H: Harness>(live: &Live) {
    let limit = ms(if live.is_spoilt() { 60_000 } else { 40 });
    let Ok(front) = runtime::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) else {
        return live.expect(false, "to be able to listen");
    };
    let client = front.local_addr().and_then(TcpStream::connect);
    let (timer, connection) = H::block_on(|runtime| async move {
        let mut timer = pin!(runtime.timer());
        timer.as_mut().arm(runtime.now() + limit);
        let fired = swapped(&runtime, |cx| timer.as_mut().poll_fired(cx)).await;

        let Ok(mut listener) = H::listener(front) else { return (fired, None) };
        let Ok((stream, peer)) = poll_fn(|cx| listener.poll_accept(cx)).await else { return (fired, None) };
        let timeouts = TimeoutPolicy { client_head: Some(limit), ..TimeoutPolicy::OFF };
        let config = Config { timeouts, ..Config::default() };
        let proxy = Proxy::new(runtime.clone(), Upstreams::default(), config);
        let route = |_: &RequestHead<'_>| Decision::forward();
        let mut connection = Box::pin(proxy.serve_connection(stream, peer, route, |_: &Report<'_>| {}));
        (fired, swapped(&runtime, |cx| connection.as_mut().poll(cx)).await)
    });
    live.expect(client.is_ok(), "a client");
    for (what, called) in [("timer", timer), ("connection", connection)] {
        let called_second = called.is_some_and(|[_, second]| second);
        live.expect(called_second, format!("the waker of a {what}'s last poll to be called: {called:?}"));
    }
}

/// Ten thousand timers for one instant, four times: all fire within 100 ms of each other, none early, and nothing is left: no
/// waker, and no memory beyond what the first two times took. (One thread or another may be the first to need it.)
pub fn a_14_ten_thousand_equal_deadlines<H: Harness>(live: &Live) {
    const TIMERS: usize = 10_000;
    const TIMES: usize = 4;
    let counts = Counts::default();
    let counted = counts.clone();
    let (rounds, slack) = with_slack(|| {
        H::block_on(|runtime| async move {
            let mut rounds = Vec::new();
            for _ in 0..TIMES {
                rounds.push(fire_at_once(&runtime, TIMERS, &counted, live.is_spoilt()).await);
                // What a reactor lets go of a turn later.
                sleep(&runtime, ms(2)).await;
                rounds.iter_mut().last().into_iter().for_each(|round| round.resident = gauges::resident());
            }
            rounds
        })
    });
    // Ten thousand polls take their time where nothing is optimized.
    let most = ms(if cfg!(debug_assertions) { 200 } else { 100 });
    for Round { fired, early, spread, .. } in &rounds {
        live.expect(*fired == TIMERS, format!("all timers to fire, not {fired}"));
        live.expect_certain(*early == 0, format!("no timer to fire early, as {early} did"));
        live.expect_in_time(*spread < most + slack, format!("all within {most:?}, not {spread:?}"));
    }
    if let ([first, second, ..], Some(last)) = (&rounds[..], rounds.last()) {
        let (first, last) = (first.resident.max(second.resident), last.resident);
        live.expect_certain(last <= first + GROWS, format!("memory back: {first} bytes once, then {last}"));
    }
    let held = gauges::settle(Duration::from_secs(1), || counts.held(), |h| *h == Held::default());
    live.expect_certain(held == Held::default(), format!("no waker left: {held:?}"));
}

/// How much memory may grow by where it ought not to: what an allocator keeps for reasons of its own.
const GROWS: usize = 2 << 20;

#[derive(Debug)]
struct Round {
    fired: usize,
    early: usize,
    /// From the first to the last.
    spread: Duration,
    /// Memory afterwards.
    resident: usize,
}

async fn fire_at_once<R>(runtime: &R, timers: usize, counts: &Counts, spoilt: bool) -> Round
where
    R: Runtime + Clone + 'static,
{
    let tasks = Executor::new();
    let fired = Arc::new(Mutex::new((0, 0, None)));
    let at = runtime.now() + ms(300);
    for _ in 0..timers {
        let (runtime, fired) = (runtime.clone(), Arc::clone(&fired));
        tasks.spawn(
            Group::Proxy,
            counts.task(async move {
                let mut timer = pin!(runtime.timer());
                timer.as_mut().arm(at);
                poll_fn(|cx| timer.as_mut().poll_fired(cx)).await;
                let mut fired = lock(&fired);
                fired.0 += 1;
                fired.1 += usize::from(runtime.now() < at);
                fired.2.get_or_insert(Instant::now());
            }),
        );
    }
    let mut limit = pin!(sleep(runtime, ms(if spoilt { 50 } else { 5000 })));
    poll_fn(|cx| {
        let _ = tasks.poll_tasks(cx);
        if tasks.count(Group::Proxy) == 0 { Poll::Ready(()) } else { limit.as_mut().poll(cx) }
    })
    .await;
    let (fired, early, first) = *lock(&fired);
    let spread = first.map_or(Duration::ZERO, |first: Instant| first.elapsed());
    Round { fired, early, spread, resident: 0 }
}

/// A hundred thousand timers that are armed and dropped before they fire: after a turn of the reactor nothing is left
/// of them, and memory is what it was after the first ten thousand.
pub fn a_15_arm_cancel_churn<H: Harness>(live: &Live) {
    const TIMES: usize = 100_000;
    let counts = Counts::default();
    let counted = counts.clone();
    H::block_on(|runtime| async move {
        let runtime = crate::counted::Counted::new(runtime, &counted);
        let churn = |times: usize| {
            let runtime = runtime.clone();
            counted.task(async move {
                for i in 0..times {
                    let mut timer = pin!(runtime.timer());
                    timer.as_mut().arm(runtime.now() + Duration::from_secs(3600));
                    poll_fn(|cx| Poll::Ready(timer.as_mut().poll_fired(cx).is_pending())).await;
                    if i % 1000 == 999 {
                        sleep(&runtime, Duration::from_micros(100)).await;
                    }
                }
            })
        };
        churn(TIMES / 10).await;
        sleep(&runtime, ms(2)).await;
        let first = gauges::resident();
        churn(if live.is_spoilt() { 0 } else { TIMES }).await;
        sleep(&runtime, ms(2)).await;
        let last = gauges::resident();
        live.expect_certain(last <= first + GROWS, format!("no growth: {first} bytes, then {last}"));
        live.expect(!live.is_spoilt(), "the churn");
    });
    let held = gauges::settle(Duration::from_secs(1), || counts.held(), |h| *h == Held::default());
    live.expect_certain(held == Held::default(), format!("no timer and no waker left: {held:?}"));
}
