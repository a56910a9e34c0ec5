//! A on the runtime itself, continued: its timers, many of them and in many hands. What one timer owes to a waiter is in
//! `wait.rs`.

use std::future::{Future, poll_fn};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tidegate_core::runtime::{Runtime, Timer};

use crate::board::lock;
use crate::counted::{Counts, Held};
use crate::exec::{Executor, Group};
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

/// A timer that was polled with one waker and then with another wakes the other.
pub fn a_08_waker_swapped<H: Harness>(live: &Live) {
    let called = H::block_on(|runtime| async move {
        let at = runtime.now() + ms(if live.is_spoilt() { 60_000 } else { 40 });
        let mut timer = pin!(runtime.timer());
        let mut limit = pin!(sleep(&runtime, ms(500)));
        timer.as_mut().arm(at);
        let mut wakers: Option<[Arc<Named>; 2]> = None;
        poll_fn(|cx| {
            if limit.as_mut().poll(cx).is_ready() {
                return Poll::Ready(None);
            }
            if wakers.is_none() {
                let named = || Arc::new(Named { outer: cx.waker().clone(), called: AtomicBool::new(false) });
                let both = [named(), named()];
                for waker in &both {
                    let waker = Waker::from(Arc::clone(waker));
                    let _ = timer.as_mut().poll_fired(&mut Context::from_waker(&waker));
                }
                wakers = Some(both);
            }
            let called =
                wakers.as_ref().map(|both| both.each_ref().map(|w| w.called.load(Ordering::Acquire)));
            if runtime.now() >= at && called.is_some_and(|c| c[1]) {
                Poll::Ready(called)
            } else {
                Poll::Pending
            }
        })
        .await
    });
    live.expect(called.is_some_and(|c| c[1]), format!("the waker of the last poll to be called: {called:?}"));
}

/// Ten thousand timers for one instant: all fire within 100 ms of each other, none early, and nothing is left.
pub fn a_14_ten_thousand_equal_deadlines<H: Harness>(live: &Live) {
    const TIMERS: usize = 10_000;
    let counts = Counts::default();
    let counted = counts.clone();
    let ((fired, early, spread), slack) = with_slack(|| {
        H::block_on(|runtime| async move {
            let tasks = Executor::new();
            let fired = Arc::new(Mutex::new((0, 0, None)));
            let at = runtime.now() + ms(300);
            for _ in 0..TIMERS {
                let (runtime, fired) = (runtime.clone(), Arc::clone(&fired));
                tasks.spawn(
                    Group::Proxy,
                    counted.task(async move {
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
            let mut limit = pin!(sleep(&runtime, ms(if live.is_spoilt() { 50 } else { 5000 })));
            poll_fn(|cx| {
                let _ = tasks.poll_tasks(cx);
                if tasks.count(Group::Proxy) == 0 { Poll::Ready(()) } else { limit.as_mut().poll(cx) }
            })
            .await;
            let (n, early, first) = *lock(&fired);
            (n, early, first.map_or(Duration::ZERO, |first: Instant| first.elapsed()))
        })
    });
    live.expect(fired == TIMERS, format!("all timers to fire, not {fired}"));
    live.expect_not_early(early == 0, format!("no timer to fire early, as {early} did"));
    // Ten thousand polls take their time where nothing is optimized.
    let most = ms(if cfg!(debug_assertions) { 1000 } else { 100 });
    live.expect(spread < most + slack, format!("all within {most:?}, not {spread:?}"));
    let held = crate::gauges::settle(Duration::from_secs(1), || counts.held(), |h| *h == Held::default());
    live.expect(held == Held::default(), format!("no waker left: {held:?}"));
}

/// A hundred thousand timers that are armed and dropped before they fire: after a turn of the reactor nothing is left
/// of them.
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
        churn(if live.is_spoilt() { 0 } else { TIMES }).await;
        sleep(&runtime, ms(2)).await;
        live.expect(!live.is_spoilt(), "the churn");
    });
    let held = crate::gauges::settle(Duration::from_secs(1), || counts.held(), |h| *h == Held::default());
    live.expect(held == Held::default(), format!("no timer and no waker left: {held:?}"));
}
