//! What a runtime under test holds for the proxy, counted: tasks, armed timers, wakers.
//!
//! [`Counted`] goes around a runtime and changes nothing of what it does. After a case everything must be back where
//! it was. A timer's or a socket's waker may be let go of a turn of the reactor later than the timer or the socket
//! itself; whoever looks must let the runtime take one.

use std::cell::RefCell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::task::{Context, Poll, Wake, Waker};

use tidegate_core::runtime::{Runtime, Spawn, Timer};
use tidegate_core::{Connection, Instant};

use crate::board::lock;
use crate::run_virtual::{Observe, Route};

/// Timers that a server may have armed, and nobody else: one that watches the idle connections, and one for its pause when
/// there is no descriptor left.
const SERVER_TIMERS: usize = 2;

thread_local! {
    /// The timers of the task that is being polled.
    static POLLED: RefCell<Option<Arc<TaskTimers>>> = const { RefCell::new(None) };
}

/// The timers that one task has armed.
#[derive(Debug)]
struct TaskTimers {
    armed: AtomicUsize,
    allowed: usize,
}

impl TaskTimers {
    fn new(allowed: usize) -> Arc<TaskTimers> {
        Arc::new(TaskTimers { armed: AtomicUsize::new(0), allowed })
    }
}

/// While a task is polled. Another one may be polled inside it, and a poll may panic.
struct Polls(Option<Arc<TaskTimers>>);

impl Polls {
    fn enter(task: &Arc<TaskTimers>) -> Polls {
        Polls(POLLED.replace(Some(Arc::clone(task))))
    }
}

impl Drop for Polls {
    fn drop(&mut self) {
        POLLED.set(self.0.take());
    }
}

/// What the proxy spawns on a counted runtime `R`, for a client's stream `C`.
pub type CountedConnection<R, C> = CountedTask<Connection<Counted<R>, C, Route, Observe>>;

/// The counters of one run. Clones are the same counters.
#[derive(Clone, Debug, Default)]
pub(crate) struct Counts(Arc<Inner>);

#[derive(Debug, Default)]
struct Inner {
    tasks: AtomicUsize,
    /// By [`Spawn`], ever.
    spawned: AtomicUsize,
    timers: AtomicUsize,
    armed: AtomicUsize,
    /// Timers that were armed beyond what there may be, at worst.
    surplus: AtomicUsize,
    /// Of whoever is no counted task.
    outside: OnceLock<Arc<TaskTimers>>,
    wakers: Mutex<Vec<Weak<TaskWaker>>>,
    /// At so many of them, those that are gone are thrown out.
    crowd: AtomicUsize,
    late_wakes: AtomicUsize,
}

/// What was counted at one moment.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Held {
    /// Tasks that have not ended.
    pub(crate) tasks: usize,
    /// Timers that exist.
    pub(crate) timers: usize,
    /// Timers that are armed.
    pub(crate) armed: usize,
    /// Wakers of tasks that have ended, which the runtime still holds.
    pub(crate) wakers: usize,
}

impl Held {
    /// What there is more of than in `before`, in words.
    pub(crate) fn beyond(self, before: Held, when: &str) -> Vec<String> {
        let mut out = Vec::new();
        let mut check = |what: &str, hint: &str, now: usize, then: usize| {
            if now > then {
                out.push(format!("{what}: {now} {when}, {then} before the case; {hint}"));
            }
        };
        check(
            "tasks that were spawned and are still there",
            "the executor has not polled a task that was woken, or has not dropped one that is over",
            self.tasks,
            before.tasks,
        );
        check("timers", "a timer outlives the connection that made it", self.timers, before.timers);
        check("armed timers", "a timer outlives the connection that armed it", self.armed, before.armed);
        check(
            "wakers of tasks that are over",
            "the timer or the socket does not let go of its waker when it is dropped",
            self.wakers,
            before.wakers,
        );
        out
    }
}

impl Counts {
    /// What is held now.
    pub(crate) fn held(&self) -> Held {
        let inner = &self.0;
        let is_left = |waker: &&Weak<TaskWaker>| waker.upgrade().is_some_and(|w| w.ended());
        Held {
            tasks: inner.tasks.load(Ordering::Acquire),
            timers: inner.timers.load(Ordering::Acquire),
            armed: inner.armed.load(Ordering::Acquire),
            wakers: lock(&inner.wakers).iter().filter(is_left).count(),
        }
    }

    /// How many timers a task had armed at once beyond its own, at worst: one, or the server's. Who is no counted task counts as a
    /// server. Zero is right.
    pub(crate) fn surplus_timers(&self) -> usize {
        self.0.surplus.load(Ordering::Acquire)
    }

    /// How many tasks were handed to the executor.
    pub(crate) fn spawned(&self) -> usize {
        self.0.spawned.load(Ordering::Acquire)
    }

    /// How often a task was woken that was over.
    pub(crate) fn late_wakes(&self) -> usize {
        self.0.late_wakes.load(Ordering::Acquire)
    }

    /// A task whose life, wakers and timers are counted.
    pub(crate) fn task<F>(&self, future: F) -> CountedTask<F> {
        self.with_timers(future, 1)
    }

    /// Likewise a server's.
    pub(crate) fn server<F>(&self, future: F) -> CountedTask<F> {
        self.with_timers(future, SERVER_TIMERS)
    }

    fn with_timers<F>(&self, future: F, allowed: usize) -> CountedTask<F> {
        self.0.tasks.fetch_add(1, Ordering::AcqRel);
        CountedTask {
            future: Some(Box::pin(future)),
            counts: self.clone(),
            ended: Arc::default(),
            waker: None,
            timers: TaskTimers::new(allowed),
        }
    }

    fn waker(&self, task: Waker, ended: &Arc<AtomicBool>) -> Arc<TaskWaker> {
        let waker = Arc::new(TaskWaker { task, ended: Arc::clone(ended), counts: self.clone() });
        let mut wakers = lock(&self.0.wakers);
        if wakers.len() >= self.0.crowd.load(Ordering::Acquire) {
            wakers.retain(|waker| waker.strong_count() > 0);
            self.0.crowd.store(2 * wakers.len() + 64, Ordering::Release);
        }
        wakers.push(Arc::downgrade(&waker));
        waker
    }
}

/// A runtime that counts what it is asked for.
#[derive(Clone, Debug)]
pub struct Counted<R> {
    runtime: R,
    counts: Counts,
}

impl<R> Counted<R> {
    pub(crate) fn new(runtime: R, counts: &Counts) -> Counted<R> {
        Counted { runtime, counts: counts.clone() }
    }
}

impl<R: Runtime> Runtime for Counted<R> {
    type Stream = R::Stream;
    type Connect = R::Connect;
    type Timer = CountedTimer<R::Timer>;

    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn id_seed(&self) -> u128 {
        self.runtime.id_seed()
    }

    fn unix_time(&self) -> u64 {
        self.runtime.unix_time()
    }

    fn timer(&self) -> CountedTimer<R::Timer> {
        self.counts.0.timers.fetch_add(1, Ordering::AcqRel);
        let timer = Box::pin(self.runtime.timer());
        CountedTimer { timer, armed: false, armed_by: None, counts: self.counts.clone() }
    }

    fn connect(&self, to: SocketAddr) -> R::Connect {
        self.runtime.connect(to)
    }
}

impl<F, R: Spawn<CountedTask<F>>> Spawn<F> for Counted<R> {
    fn spawn(&self, task: F) {
        self.counts.0.spawned.fetch_add(1, Ordering::AcqRel);
        self.runtime.spawn(self.counts.task(task));
    }
}

/// A task of a [`Counted`] runtime.
#[derive(Debug)]
pub struct CountedTask<F> {
    /// Taken when it is dropped.
    future: Option<Pin<Box<F>>>,
    counts: Counts,
    /// It is ready, or dropped.
    ended: Arc<AtomicBool>,
    waker: Option<Arc<TaskWaker>>,
    timers: Arc<TaskTimers>,
}

impl<F> CountedTask<F> {
    fn end(&mut self) {
        self.waker = None;
        self.ended.store(true, Ordering::Release);
    }
}

impl<F: Future<Output = ()>> Future for CountedTask<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = &mut *self;
        let Some(future) = this.future.as_mut().filter(|_| !this.ended.load(Ordering::Acquire)) else {
            return Poll::Ready(());
        };
        // A waker of its own for each one of the executor's, so that a runtime which keeps an old one is found out.
        let known = this.waker.take().filter(|waker| waker.task.will_wake(cx.waker()));
        let waker = known.unwrap_or_else(|| this.counts.waker(cx.waker().clone(), &this.ended));
        let polls = Polls::enter(&this.timers);
        let polled = future.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&waker))));
        drop(polls);
        this.waker = Some(waker);
        if polled.is_ready() {
            // The future is left to the executor: that it drops what is over is part of what is counted.
            this.end();
        }
        polled
    }
}

impl<F> Drop for CountedTask<F> {
    fn drop(&mut self) {
        self.future = None;
        self.end();
        self.counts.0.tasks.fetch_sub(1, Ordering::AcqRel);
    }
}

/// A task's waker: whoever still holds one when the task is over is seen.
#[derive(Debug)]
struct TaskWaker {
    task: Waker,
    ended: Arc<AtomicBool>,
    counts: Counts,
}

impl TaskWaker {
    fn ended(&self) -> bool {
        self.ended.load(Ordering::Acquire)
    }
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if self.ended() {
            self.counts.0.late_wakes.fetch_add(1, Ordering::AcqRel);
        }
        self.task.wake_by_ref();
    }
}

/// A timer of a [`Counted`] runtime.
#[derive(Debug)]
pub struct CountedTimer<T> {
    timer: Pin<Box<T>>,
    armed: bool,
    /// In whose poll.
    armed_by: Option<Arc<TaskTimers>>,
    counts: Counts,
}

impl<T> CountedTimer<T> {
    fn set_armed(&mut self, armed: bool) {
        if armed == self.armed {
            return;
        }
        self.armed = armed;
        let inner = &self.counts.0;
        if armed {
            inner.armed.fetch_add(1, Ordering::AcqRel);
            let task = POLLED
                .with_borrow(Option::clone)
                .unwrap_or_else(|| Arc::clone(inner.outside.get_or_init(|| TaskTimers::new(SERVER_TIMERS))));
            let its = task.armed.fetch_add(1, Ordering::AcqRel) + 1;
            inner.surplus.fetch_max(its.saturating_sub(task.allowed), Ordering::AcqRel);
            self.armed_by = Some(task);
        } else {
            inner.armed.fetch_sub(1, Ordering::AcqRel);
            self.armed_by.take().inspect(|task| _ = task.armed.fetch_sub(1, Ordering::AcqRel));
        }
    }
}

impl<T: Timer> Timer for CountedTimer<T> {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        self.set_armed(at != Instant::NEVER);
        self.timer.as_mut().arm(at);
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let fired = self.timer.as_mut().poll_fired(cx);
        if fired.is_ready() {
            self.set_armed(false);
        }
        fired
    }
}

impl<T> Drop for CountedTimer<T> {
    fn drop(&mut self) {
        self.set_armed(false);
        self.counts.0.timers.fetch_sub(1, Ordering::AcqRel);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::future::pending;
    use std::pin::pin;

    use tidegate_core::Instant;

    use crate::virtual_rt::{Owner, World};

    /// A gauge that sees nothing shows nothing: each of them is left behind once.
    #[test]
    fn what_is_left_is_said_in_words() {
        let counts = Counts::default();
        let said = |before| counts.held().beyond(before, "afterwards").join("; ");
        assert_eq!(said(Held::default()), "");

        let runtime = Counted::new(World::new().runtime(Owner::Proxy), &counts);
        let mut timer = Box::pin(runtime.timer());
        timer.as_mut().arm(Instant::NEVER);
        assert!(said(Held::default()).starts_with("timers: 1 afterwards, 0 before the case"));
        timer.as_mut().arm(Instant::EPOCH);
        assert!(said(Held { timers: 1, ..Held::default() }).starts_with("armed timers: 1"));
        drop(timer);

        let mut kept = None;
        let mut task = counts.task(std::future::poll_fn(|cx| {
            kept.get_or_insert(cx.waker().clone());
            Poll::<()>::Pending
        }));
        assert!(pin!(&mut task).poll(&mut Context::from_waker(Waker::noop())).is_pending());
        assert!(said(Held::default()).starts_with("tasks that were spawned and are still there: 1"));
        drop(task);
        assert!(said(Held::default()).starts_with("wakers of tasks that are over: 1"));
        kept.into_iter().for_each(Waker::wake);
        assert_eq!((said(Held::default()), counts.late_wakes()), (String::new(), 1));

        // Two of the server's.
        let mut timers: Vec<_> = (0..3).map(|_| Box::pin(runtime.timer())).collect();
        timers.iter_mut().for_each(|timer| timer.as_mut().arm(Instant::EPOCH));
        assert_eq!(counts.surplus_timers(), 1);
    }

    #[test]
    fn a_task_has_one_timer_however_many_others_have_none() {
        let counts = Counts::default();
        let runtime = Counted::new(World::new().runtime(Owner::Proxy), &counts);
        let _others: Vec<_> = (0..10).map(|_| counts.task(pending::<()>())).collect();
        let arms = |n: usize| {
            let runtime = runtime.clone();
            async move {
                let mut timers: Vec<_> = (0..n).map(|_| Box::pin(runtime.timer())).collect();
                timers.iter_mut().for_each(|timer| timer.as_mut().arm(Instant::EPOCH));
                // Again is no further one, and neither is one in the place of another.
                timers.iter_mut().for_each(|timer| timer.as_mut().arm(Instant::NEVER));
                timers.iter_mut().for_each(|timer| timer.as_mut().arm(Instant::EPOCH));
                pending::<()>().await;
            }
        };
        let surplus = |task: CountedTask<_>| {
            assert!(pin!(task).poll(&mut Context::from_waker(Waker::noop())).is_pending());
            counts.surplus_timers()
        };
        assert_eq!(surplus(counts.task(arms(1))), 0);
        assert_eq!(surplus(counts.server(arms(SERVER_TIMERS))), 0);
        assert_eq!(surplus(counts.task(arms(2))), 1);
    }
}
