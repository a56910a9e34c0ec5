//! A timer that is re-armed lazily, so that a deadline that moves later costs nothing.
//!
//! It wakes; it decides nothing. Whoever set it looks at the clock.

use core::pin::Pin;
use core::task::Context;
use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::runtime::Timer;
use crate::runtime::sync::atomic::{AtomicBool, Ordering};
use crate::time::Instant;

pin_project_lite::pin_project! {
    /// Wakes a task at an instant or before it.
    pub(crate) struct Alarm<T> {
        #[pin]
        timer: T,
        // What the timer is armed for; `NEVER` if it is unarmed or spent.
        armed: Instant,
        // What the armed timer wakes.
        bell: Option<Arc<Bell>>,
    }
}

/// A task's waker, with a note that it was the timer that woke: a turn that something else woke need not ask
/// the timer.
#[derive(Debug)]
struct Bell {
    rang: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::Release);
        self.task.wake_by_ref();
    }
}

impl<T: Timer> Alarm<T> {
    pub(crate) fn new(timer: T) -> Alarm<T> {
        Alarm { timer, armed: Instant::NEVER, bell: None }
    }

    /// Sees to it that the task is woken at `next` or before; [`Instant::NEVER`] asks for nothing. The timer is
    /// touched only if `next` lies before what it is armed for, if it has rung, or if the task's waker is
    /// another one.
    pub(crate) fn set(self: Pin<&mut Self>, next: Instant, cx: &mut Context<'_>) {
        let mut this = self.project();
        for _ in 0..2 {
            let earlier = next < *this.armed;
            if earlier {
                *this.armed = next;
                this.timer.as_mut().arm(next);
            }
            if *this.armed == Instant::NEVER {
                return;
            }
            let known = this.bell.take().filter(|bell| bell.task.will_wake(cx.waker()));
            let news = earlier || known.as_ref().is_none_or(|bell| bell.rang.load(Ordering::Acquire));
            let bell = this.bell.insert(known.unwrap_or_else(|| {
                Arc::new(Bell { rang: AtomicBool::new(false), task: cx.waker().clone() })
            }));
            if !news {
                return;
            }
            bell.rang.store(false, Ordering::Release);
            let waker = Waker::from(Arc::clone(bell));
            if this.timer.as_mut().poll_fired(&mut Context::from_waker(&waker)).is_pending() {
                return;
            }
            // Spent. If it rang before its time, it is armed for the rest.
            *this.armed = Instant::NEVER;
        }
        // It fires although its time has not come: look at the clock again in a turn of its own.
        cx.waker().wake_by_ref();
    }
}
