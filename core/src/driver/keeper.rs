//! The idle pool of one runtime instance, and the future that watches it.
//!
//! The [`Keeper`] closes an idle upstream connection when its deadline is due, when the upstream closes
//! it or sends bytes that nobody asked for, when its upstream is removed, and at the stop. It hands
//! nothing out: that is done by the connections, which look once more.
//!
//! No connection and no last handle of a task is dropped under the pool's lock, since that may run anything. The one
//! thing of the runtime's that does run under it is a sweep's look at each connection, and what that replaces is a
//! clone of a keeper's waker that is held here.

use core::future::Future;
use core::mem;
use core::ops::Range;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io::ErrorKind;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::driver::alarm::Alarm;
use crate::driver::lifecycle::{Membership, Phase};
use crate::driver::proxy::Shared;
use crate::driver::upstreams::Upstreams;
use crate::runtime::sync::Mutex;
use crate::runtime::{Runtime, Stream};
use crate::time::Instant;
use crate::upstream::{Pool, UpstreamId};

/// The pool and whoever watches it.
#[derive(Debug)]
pub(crate) struct Idle<S>(Mutex<State<S>>);

#[derive(Debug)]
struct State<S> {
    pool: Pool<S>,
    /// The proxy was stopped: nothing is taken in any more.
    closed: bool,
    /// The earliest deadline that the keeper knows of.
    next: Instant,
    /// Keepers by number; the first one keeps, the others stand by.
    keepers: Vec<(u64, Option<Waker>)>,
    /// How often the first has looked at all connections, for whatever task, or one of them has gone. Wakers cannot be
    /// compared for that: `will_wake` may always say no.
    changes: u64,
    /// The wakers of keepers before, with which idle connections may be registered until the next one has swept.
    former: Vec<Waker>,
}

impl<S> Idle<S> {
    /// Keeps so many connections to one upstream at most.
    pub(crate) fn new(most: usize) -> Idle<S> {
        Idle(Mutex::new(State {
            pool: Pool::new(most),
            closed: false,
            next: Instant::NEVER,
            keepers: Vec::new(),
            changes: 0,
            former: Vec::new(),
        }))
    }
}

/// Whether an idle connection has died: FIN, an error, or bytes that nobody asked for. Otherwise the
/// context's waker is registered for the day it does.
fn is_dead<S: Stream>(stream: &mut S, cx: &mut Context<'_>) -> bool {
    loop {
        match stream.poll_read(cx, &mut [0]) {
            // A signal came in between, which says nothing about the connection.
            Poll::Ready(Err(e)) if e.kind() == ErrorKind::Interrupted => {}
            looked => return looked.is_ready(),
        }
    }
}

/// What came of putting a connection into the pool.
enum Put<S> {
    /// It is there, with an earlier deadline than any or not.
    Done(bool),
    /// It is not wanted: to be dropped outside the lock.
    Over(S),
    /// It has to be looked at for this keeper first, the one after so many changes.
    Again(S, Option<Waker>, u64),
}

impl<S> State<S> {
    /// What wakes the one that keeps.
    fn keeper(&self) -> Option<&Waker> {
        self.keepers.first().and_then(|(_, waker)| waker.as_ref())
    }
}

impl<S: Stream> Idle<S> {
    fn with<T>(&self, f: impl FnOnce(&mut State<S>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in a connection that became idle, unless its upstream was removed. It is handed out while it is `usable`.
    pub(crate) fn put(&self, id: UpstreamId, mut stream: S, usable: Range<Instant>, upstreams: &Upstreams) {
        let (mut keeper, mut changes) = self.with(|state| (state.keeper().cloned(), state.changes));
        loop {
            // Without a keeper nobody is to be woken, and the task that used it is not to be kept alive.
            if is_dead(&mut stream, &mut Context::from_waker(keeper.as_ref().unwrap_or(Waker::noop()))) {
                return;
            }
            // That is asked under the lock: what is removed later wakes a keeper, which finds the connection here.
            let put = self.with(|state| match state.closed || !upstreams.is_active(id) {
                // Another may keep since the look; or the same one was woken by it and has looked for what is not there yet.
                _ if state.changes != changes => Put::Again(stream, state.keeper().cloned(), state.changes),
                true => Put::Over(stream),
                false => {
                    let until = usable.end;
                    let earlier = until < state.next;
                    match state.pool.put(id, stream, usable.clone()) {
                        Err(stream) => Put::Over(stream),
                        Ok(()) => {
                            state.next = state.next.min(until);
                            Put::Done(earlier)
                        }
                    }
                }
            });
            match put {
                Put::Again(again, other, now) => (stream, keeper, changes) = (again, other, now),
                Put::Done(true) => return keeper.into_iter().for_each(Waker::wake),
                Put::Done(false) | Put::Over(_) => return,
            }
        }
    }

    /// Hands out a connection that is alive as far as one look can tell.
    pub(crate) fn take(&self, id: UpstreamId, now: Instant, cx: &mut Context<'_>) -> Option<S> {
        let mut gone = Vec::new();
        loop {
            let mut stream = self.with(|state| state.pool.take(id, now, &mut gone))?;
            if !is_dead(&mut stream, cx) {
                return Some(stream);
            }
        }
    }

    /// Closes everything, also what a connection that has not seen the stop yet would put here.
    pub(crate) fn close(&self) {
        drop(self.with(|state| {
            state.closed = true;
            // Nothing is registered with them any more.
            (state.pool.clear(), mem::take(&mut state.former))
        }));
    }

    pub(crate) fn len(&self) -> usize {
        self.with(|state| state.pool.len())
    }

    #[cfg(test)]
    pub(crate) fn is_locked(&self) -> bool {
        self.0.try_lock().is_err()
    }
}

pin_project_lite::pin_project! {
    /// Watches the idle upstream connections of a [`Proxy`](crate::Proxy). Ends when the proxy is
    /// stopped or drained.
    ///
    /// [`Proxy::serve`](crate::Proxy::serve) polls one of its own; users of
    /// [`Proxy::serve_connection`](crate::Proxy::serve_connection) run this one. Dropping it is safe:
    /// idle connections are then looked at only when they are about to be used.
    #[must_use = "a keeper does nothing unless it is polled"]
    pub struct Keeper<R: Runtime> {
        shared: Arc<Shared<R>>,
        membership: Option<Membership>,
        number: u64,
        // The waker that a removal wakes, so that an unchanged one takes no lock.
        watches: Option<Waker>,
        #[pin]
        alarm: Alarm<R::Timer>,
    }

    impl<R: Runtime> PinnedDrop for Keeper<R> {
        fn drop(this: Pin<&mut Self>) {
            let number = this.number;
            this.shared.upstreams.unwatch(number);
            let (heir, _own) = this.shared.idle.with(|state| {
                let place = state.keepers.iter().position(|(n, _)| *n == number);
                let mut own = place.and_then(|place| state.keepers.remove(place).1);
                state.changes += 1;
                if place == Some(0) && !state.pool.is_empty() {
                    state.former.extend(own.take());
                }
                (state.keeper().cloned(), own)
            });
            heir.into_iter().for_each(Waker::wake);
        }
    }
}

impl<R: Runtime> Keeper<R> {
    pub(crate) fn new(shared: Arc<Shared<R>>, membership: Option<Membership>) -> Keeper<R> {
        let number = shared.upstreams.keeper_number();
        shared.idle.with(|state| state.keepers.push((number, None)));
        let alarm = Alarm::new(shared.runtime.timer());
        Keeper { shared, membership, number, watches: None, alarm }
    }
}

impl<R: Runtime> Keeper<R> {
    /// Closes what is idle unless another keeper is there to watch it.
    pub(crate) fn abandon(&self) {
        drop(self.shared.idle.with(|state| {
            let alone = state.keepers.iter().all(|(n, _)| *n == self.number);
            alone.then(|| state.pool.clear())
        }));
    }
}

impl<R: Runtime> Future for Keeper<R> {
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let this = self.project();
        if this.membership.as_mut().is_some_and(|m| m.poll_phase(cx) != Phase::Running) {
            this.shared.idle.close();
            return Poll::Ready(());
        }
        // Before the sweep: what is removed after it wakes, and what was before is seen.
        if !this.watches.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            this.shared.upstreams.watch(*this.number, cx.waker());
            *this.watches = Some(cx.waker().clone());
        }
        let now = this.shared.runtime.now();
        // What is over lives until after the lock.
        let (mut before, mut former, mut gone) = (None, Vec::new(), Vec::new());
        let next = this.shared.idle.with(|state| {
            let first = state.keepers.first().is_some_and(|(n, _)| n == this.number);
            for (n, waker) in &mut state.keepers {
                if n == this.number && !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                    before = waker.replace(cx.waker().clone());
                }
            }
            if first {
                let upstreams = &this.shared.upstreams;
                state.changes += 1;
                state.next = state
                    .pool
                    .sweep(now, &mut gone, |id, stream| !upstreams.is_active(id) || is_dead(stream, cx));
                former = mem::take(&mut state.former);
                state.next
            } else {
                Instant::NEVER
            }
        });
        drop((before, former, gone));
        this.alarm.set(next, cx);
        Poll::Pending
    }
}
