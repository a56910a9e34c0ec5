//! The small concurrent parts under a model checker: the order in which threads run is the checker's, at every lock and
//! every atomic. A wake-up that is lost is a deadlock, which it reports with a schedule that repeats it.
//!
//! `RUSTFLAGS="--cfg shuttle" cargo test -p tidegate-core --lib model`. Without the flag nothing of it is built.

use core::future::{Pending, pending, poll_fn};
use core::pin::{Pin, pin};
use core::task::{Context, Poll};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::task::{Wake, Waker};

use shuttle::future::block_on;
use shuttle::sync::atomic::{AtomicUsize, Ordering};
use shuttle::sync::{Condvar, Mutex, MutexGuard};
use shuttle::thread;

use crate::driver::alarm::Alarm;
use crate::driver::keeper::{Idle, Keeper};
use crate::driver::lifecycle::{Lifecycle, Membership, Phase};
use crate::driver::proxy::Shared as Proxied;
use crate::driver::stats::Tally;
use crate::driver::{UpstreamLimits, Upstreams};
use crate::relay::Config;
use crate::runtime::{Lookup, ResolverPool, Runtime, Stream, Timer};
use crate::time::Instant;
use crate::upstream::{Admitted, Ticket, UpstreamId};

const NOW: Instant = Instant::from_millis(5);

/// Many schedules at random, and many that run few threads long, which finds what few switches are enough for.
fn check(model: impl Fn() + Send + Sync + 'static) {
    let model = Arc::new(model);
    let other = Arc::clone(&model);
    shuttle::check_random(move || model(), 1000);
    shuttle::check_pct(move || other(), 1000, 3);
}

/// Asks for an upstream and waits for it; gives up instead of its poll number `patience`.
async fn acquire(upstreams: &Upstreams, patience: usize) -> Option<UpstreamId> {
    let (mut ticket, mut polls) = (None::<Ticket>, 0);
    poll_fn(|cx| {
        polls += 1;
        if polls > patience {
            ticket.take().into_iter().for_each(|ticket| upstreams.cancel(ticket, NOW));
            return Poll::Ready(None);
        }
        match ticket.take() {
            None => match upstreams.admit(&[], NOW, cx.waker()) {
                Admitted::Granted(id) => return Poll::Ready(Some(id)),
                Admitted::Waits(waits) => ticket = Some(waits),
                other => panic!("{other:?}"),
            },
            Some(waits) => match upstreams.fetch(waits, NOW, cx.waker()) {
                Admitted::Granted(id) => return Poll::Ready(Some(id)),
                Admitted::Waits(waits) => ticket = Some(waits),
                other => panic!("{other:?}"),
            },
        }
        if polls == patience {
            // Leaves at some moment, which may be the one at which it is granted.
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await
}

#[test]
fn a_place_in_the_queue_is_handed_over_whoever_leaves_when() {
    check(|| {
        let limits = UpstreamLimits { max_conns: 1, max_queue: 9 };
        let upstreams = Upstreams::with_limits([SocketAddr::from(([192, 0, 2, 1], 1))], limits);
        let (held, served) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let threads = [usize::MAX, 1, usize::MAX].map(|patience| {
            let (upstreams, held, served) = (upstreams.clone(), Arc::clone(&held), Arc::clone(&served));
            thread::spawn(move || {
                let Some(id) = block_on(acquire(&upstreams, patience)) else { return };
                assert_eq!(held.fetch_add(1, Ordering::SeqCst), 0, "the limit is exact");
                thread::yield_now();
                held.fetch_sub(1, Ordering::SeqCst);
                served.fetch_add(1, Ordering::SeqCst);
                upstreams.release(id, false, NOW);
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert!(served.load(Ordering::SeqCst) >= 2, "those who wait are served");
        assert_eq!((upstreams.busy(), upstreams.waiting()), (0, 0));
    });
}

/// Waits until the group is stopped.
async fn stopped(member: &mut Membership) {
    poll_fn(|cx| match member.poll_phase(cx) {
        Phase::Stopped => Poll::Ready(()),
        _ => Poll::Pending,
    })
    .await;
}

#[test]
fn a_stop_reaches_whoever_registers_meanwhile_and_the_server_the_end_of_the_last() {
    check(|| {
        let root = Arc::new(Lifecycle::new(9));
        let group = root.group();
        let mut server = group.join(false);
        let client = {
            let group = Arc::clone(&group);
            thread::spawn(move || block_on(async { stopped(&mut group.join(true)).await }))
        };
        let later = {
            let root = Arc::clone(&root);
            // A group that is made while the stop is under way.
            thread::spawn(move || block_on(async { stopped(&mut root.group().join(false)).await }))
        };
        let stop = {
            let root = Arc::clone(&root);
            thread::spawn(move || root.stop())
        };
        block_on(poll_fn(|cx| match server.poll_phase(cx) {
            // As `Serve` ends: when it is alone.
            Phase::Stopped if group.members() == 1 => Poll::Ready(()),
            _ => Poll::Pending,
        }));
        [client, later, stop].into_iter().for_each(|thread| thread.join().unwrap());
        drop(server);
        assert_eq!((root.members(), root.clients()), (0, 0));
    });
}

#[test]
fn at_the_limit_an_idle_client_makes_room_and_the_one_that_waits_is_woken() {
    const CLIENTS: usize = 3;
    check(|| {
        let root = Arc::new(Lifecycle::new(1));
        let (there, joined) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
        let threads = [(); CLIENTS].map(|()| {
            let (root, there, joined) = (Arc::clone(&root), Arc::clone(&there), Arc::clone(&joined));
            thread::spawn(move || {
                let (group, mut waiting) = (root.group(), None);
                let mut member = block_on(poll_fn(|cx| group.poll_join(&mut waiting, cx)));
                assert_eq!(there.fetch_add(1, Ordering::SeqCst), 0, "the limit is exact");
                if joined.fetch_add(1, Ordering::SeqCst) + 1 == CLIENTS {
                    // Nobody comes who would ask this one to leave.
                    root.stop();
                }
                block_on(poll_fn(|cx| {
                    // As a turn: asked before it is idle, while it becomes so, or later.
                    let is_stopped = member.poll_phase(cx) == Phase::Stopped;
                    if is_stopped || member.is_to_leave(true) {
                        return Poll::Ready(());
                    }
                    member.set_idle(true, NOW);
                    Poll::Pending
                }));
                there.fetch_sub(1, Ordering::SeqCst);
            })
        });
        threads.into_iter().for_each(|thread| thread.join().unwrap());
        assert_eq!((root.clients(), root.members()), (0, 0));
    });
}

/// A timer that another thread lets fire: too early at first, and in time once it was armed again.
#[derive(Clone, Default)]
struct Shared(Arc<(Mutex<Inner>, Condvar)>);

#[derive(Default)]
struct Inner {
    waker: Option<Waker>,
    arms: usize,
    fired: bool,
    due: bool,
}

impl Shared {
    fn inner(&self) -> MutexGuard<'_, Inner> {
        self.0.0.lock().unwrap()
    }

    /// Fires once it was armed so many times.
    fn fire(&self, arms: usize, due: bool) {
        let mut inner = self.inner();
        while inner.arms < arms {
            inner = self.0.1.wait(inner).unwrap();
        }
        (inner.fired, inner.due) = (true, due);
        let waker = inner.waker.take();
        drop(inner);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Timer for Shared {
    fn arm(self: Pin<&mut Self>, _at: Instant) {
        let mut inner = self.inner();
        inner.arms += 1;
        inner.fired = false;
        self.0.1.notify_all();
    }

    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut inner = self.inner();
        if inner.fired {
            return Poll::Ready(());
        }
        inner.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

#[test]
fn a_timer_that_fires_on_another_thread_and_too_early_is_armed_again_and_loses_no_deadline() {
    check(|| {
        let timer = Shared::default();
        let driver = {
            let timer = timer.clone();
            thread::spawn(move || {
                timer.fire(1, false);
                timer.fire(2, true);
            })
        };
        let mut alarm = pin!(Alarm::new(timer.clone()));
        let mut turns = 0;
        block_on(poll_fn(|cx| {
            turns += 1;
            // The clock is read, then the alarm is set: the deadline may come in between.
            if timer.inner().due {
                return Poll::Ready(());
            }
            alarm.as_mut().set(NOW, cx);
            if turns == 1 {
                // Woken by something else, too: the alarm is not touched again.
                cx.waker().wake_by_ref();
            }
            Poll::Pending
        }));
        driver.join().unwrap();
    });
}

#[test]
fn an_answer_reaches_whoever_waits_for_it_last_and_nobody_who_left() {
    check(|| {
        let (answer, lookup) = Lookup::new();
        let (other, left) = Lookup::new();
        let gives = thread::spawn(move || {
            answer.give(Ok([SocketAddr::from(([192, 0, 2, 1], 1))].into_iter().collect()));
            // Lost, and nobody was told: that is a failure, and not a wait without end.
            drop(other);
        });
        let leaves = thread::spawn(move || {
            let mut left = left;
            let _ = Pin::new(&mut left).poll(&mut Context::from_waker(Waker::noop()));
        });
        // Polled by another task first, as one that has moved on.
        let mut lookup = lookup;
        let _ = Pin::new(&mut lookup).poll(&mut Context::from_waker(Waker::noop()));
        assert!(block_on(lookup).is_ok());
        [gives, leaves].into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// An idle connection, which its upstream closes from another thread.
#[derive(Clone, Default)]
struct Quiet(Arc<Mutex<(bool, Option<Waker>)>>);

impl Quiet {
    fn close(&self) {
        let mut state = self.0.lock().unwrap();
        state.0 = true;
        let waker = state.1.take();
        drop(state);
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Stream for Quiet {
    fn poll_read(&mut self, cx: &mut Context<'_>, _buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut state = self.0.lock().unwrap();
        if state.0 {
            return Poll::Ready(Ok(0));
        }
        state.1 = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_write_vectored(&mut self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn poll_shutdown_write(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Pending
    }

    fn abort(self) {}

    fn try_read(&mut self, _buf: &mut [u8]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }

    fn try_write_vectored(&mut self, _bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        Err(io::ErrorKind::WouldBlock.into())
    }
}

/// A runtime that makes no connections, and whose clock stands still.
#[derive(Clone)]
struct Still;

impl Runtime for Still {
    type Stream = Quiet;
    type Connect = Pending<io::Result<Quiet>>;
    type Timer = Shared;

    fn now(&self) -> Instant {
        NOW
    }

    fn timer(&self) -> Shared {
        Shared::default()
    }

    fn connect(&self, _to: SocketAddr) -> Self::Connect {
        pending()
    }
}

/// A proxy with one upstream.
fn proxied() -> (UpstreamId, Arc<Proxied<Still>>) {
    let upstreams = Upstreams::new([SocketAddr::from(([192, 0, 2, 1], 1))]);
    let id = upstreams.list()[0].0;
    let shared = Proxied {
        runtime: Still,
        upstreams,
        config: Arc::new(Config::default()),
        idle: Idle::new(9),
        lifecycle: Arc::new(Lifecycle::new(9)),
        resolver: Arc::new(ResolverPool::default()),
        tally: Tally::default(),
    };
    (id, Arc::new(shared))
}

#[test]
fn a_keeper_closes_what_dies_while_it_is_put_to_it_and_its_heir_what_dies_later() {
    check(|| {
        let (id, shared) = proxied();
        let streams = [Quiet::default(), Quiet::default()];
        let puts = {
            let (shared, streams) = (Arc::clone(&shared), streams.clone());
            thread::spawn(move || {
                let put = |stream: Quiet| {
                    Idle::put(&shared.idle, id, stream, Instant::EPOCH..Instant::NEVER, &shared.upstreams)
                };
                streams.into_iter().for_each(put);
            })
        };
        let closes = thread::spawn(move || streams.iter().for_each(Quiet::close));
        let first = {
            let mut keeper = Box::pin(Keeper::new(Arc::clone(&shared), None));
            // It looks once, and is gone: another one has to go on.
            thread::spawn(move || {
                let _ = keeper.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            })
        };
        let mut heir = pin!(Keeper::new(Arc::clone(&shared), None));
        let mut put = Some(puts);
        block_on(poll_fn(|cx| {
            let _ = heir.as_mut().poll(cx);
            if let Some(puts) = put.take() {
                puts.join().unwrap();
                cx.waker().wake_by_ref();
                return Poll::Pending;
            }
            if shared.idle.len() == 0 { Poll::Ready(()) } else { Poll::Pending }
        }));
        [closes, first].into_iter().for_each(|thread| thread.join().unwrap());
    });
}

/// Whether its task was woken.
#[derive(Default)]
struct Woken(AtomicUsize);

impl Wake for Woken {
    fn wake(self: Arc<Self>) {
        self.0.store(1, Ordering::SeqCst);
    }
}

/// An idle connection does not stay in the pool if that happens to it, or to its upstream, while it is put there; and nothing
/// else wakes the keeper.
fn put_while(ends: impl Fn(&Proxied<Still>, UpstreamId, &Quiet) + Copy + Send + Sync + 'static) {
    check(move || {
        let (id, shared) = proxied();
        let mut keeper = pin!(Keeper::new(Arc::clone(&shared), None));
        let woken = Arc::new(Woken::default());
        // Only if it is woken does it look again.
        let mut run = || {
            while woken.0.swap(0, Ordering::SeqCst) == 1 {
                let _ = keeper.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&woken))));
            }
        };
        woken.0.store(1, Ordering::SeqCst);
        run();
        let stream = Quiet::default();
        let puts = {
            let (shared, stream) = (Arc::clone(&shared), stream.clone());
            thread::spawn(move || {
                shared.idle.put(id, stream, Instant::EPOCH..Instant::NEVER, &shared.upstreams)
            })
        };
        let ended = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || ends(&shared, id, &stream))
        };
        for _ in 0..3 {
            thread::yield_now();
            run();
        }
        [puts, ended].into_iter().for_each(|thread| thread.join().unwrap());
        run();
        assert_eq!(shared.idle.len(), 0);
    });
}

#[test]
fn an_idle_connection_whose_upstream_is_removed_while_it_is_put_to_the_pool_does_not_stay_there() {
    put_while(|shared, id, _| shared.upstreams.remove(id));
}

#[test]
fn an_idle_connection_that_dies_while_it_is_put_to_the_pool_does_not_stay_there() {
    put_while(|_, _, stream| stream.close());
}

/// A task that says where its last handle is let go.
struct Last(Arc<Proxied<Still>>, AtomicUsize);

impl Wake for Last {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Last {
    fn drop(&mut self) {
        // Others may hold the lock, until there are no others.
        assert!(self.1.load(Ordering::SeqCst) > 0 || !self.0.idle.is_locked(), "under the lock");
    }
}

#[test]
fn a_connection_that_is_put_while_its_keeper_goes_lets_go_of_its_task_outside_the_lock() {
    check(|| {
        let (id, shared) = proxied();
        let task = Arc::new(Last(Arc::clone(&shared), AtomicUsize::new(1)));
        let mut keeper = Box::pin(Keeper::new(Arc::clone(&shared), None));
        let _ = keeper.as_mut().poll(&mut Context::from_waker(&Waker::from(Arc::clone(&task))));
        let puts = {
            let shared = Arc::clone(&shared);
            thread::spawn(move || {
                shared.idle.put(id, Quiet::default(), Instant::EPOCH..Instant::NEVER, &shared.upstreams)
            })
        };
        drop(keeper);
        puts.join().unwrap();
        task.1.store(0, Ordering::SeqCst);
        drop(task);
        let mut heir = pin!(Keeper::new(Arc::clone(&shared), None));
        let _ = heir.as_mut().poll(&mut Context::from_waker(Waker::noop()));
        assert_eq!(shared.idle.len(), 1);
    });
}
