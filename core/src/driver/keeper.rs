//! The idle pool of one runtime instance, and the future that watches it.
//!
//! The [`Keeper`] closes an idle upstream connection when its deadline is due, when the upstream closes
//! it or sends bytes that nobody asked for, and at the stop. It hands nothing out: that is done by the
//! connections, which look once more.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::io::ErrorKind;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::driver::alarm::Alarm;
use crate::driver::lifecycle::{Membership, Phase};
use crate::driver::proxy::Shared;
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
    count: u64,
}

impl<S> Idle<S> {
    /// Keeps so many connections to one upstream at most.
    pub(crate) fn new(most: usize) -> Idle<S> {
        let (pool, keepers) = (Pool::new(most), Vec::new());
        Idle(Mutex::new(State { pool, closed: false, next: Instant::NEVER, keepers, count: 0 }))
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

impl<S: Stream> Idle<S> {
    fn with<T>(&self, f: impl FnOnce(&mut State<S>) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// Takes in a connection that became idle.
    pub(crate) fn put(&self, id: UpstreamId, mut stream: S, until: Instant) {
        let wake = self.with(|state| {
            if state.closed {
                return None;
            }
            let keeper = state.keepers.first().and_then(|(_, waker)| waker.clone());
            if keeper.as_ref().is_some_and(|k| is_dead(&mut stream, &mut Context::from_waker(k))) {
                return None;
            }
            let earlier = until < state.next;
            if state.pool.put(id, stream, until).is_err() || !earlier {
                return None;
            }
            state.next = until;
            keeper
        });
        wake.into_iter().for_each(Waker::wake);
    }

    /// Hands out a connection that is alive as far as one look can tell.
    pub(crate) fn take(&self, id: UpstreamId, now: Instant, cx: &mut Context<'_>) -> Option<S> {
        loop {
            let mut stream = self.with(|state| state.pool.take(id, now))?;
            if !is_dead(&mut stream, cx) {
                return Some(stream);
            }
        }
    }

    /// Closes everything, also what a connection that has not seen the stop yet would put here.
    pub(crate) fn close(&self) {
        self.with(|state| {
            state.closed = true;
            state.pool.clear();
        });
    }

    pub(crate) fn len(&self) -> usize {
        self.with(|state| state.pool.len())
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
        #[pin]
        alarm: Alarm<R::Timer>,
    }

    impl<R: Runtime> PinnedDrop for Keeper<R> {
        fn drop(this: Pin<&mut Self>) {
            let number = this.number;
            let heir = this.shared.idle.with(|state| {
                state.keepers.retain(|(n, _)| *n != number);
                state.keepers.first().and_then(|(_, waker)| waker.clone())
            });
            heir.into_iter().for_each(Waker::wake);
        }
    }
}

impl<R: Runtime> Keeper<R> {
    pub(crate) fn new(shared: Arc<Shared<R>>, membership: Option<Membership>) -> Keeper<R> {
        let number = shared.idle.with(|state| {
            state.count += 1;
            state.keepers.push((state.count, None));
            state.count
        });
        let alarm = Alarm::new(shared.runtime.timer());
        Keeper { shared, membership, number, alarm }
    }
}

impl<R: Runtime> Keeper<R> {
    /// Closes what is idle unless another keeper is there to watch it.
    pub(crate) fn abandon(&self) {
        self.shared.idle.with(|state| {
            if state.keepers.iter().all(|(n, _)| *n == self.number) {
                state.pool.clear();
            }
        });
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
        let now = this.shared.runtime.now();
        let next = this.shared.idle.with(|state| {
            let first = state.keepers.first().is_some_and(|(n, _)| n == this.number);
            for (n, waker) in &mut state.keepers {
                if n == this.number && !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                    *waker = Some(cx.waker().clone());
                }
            }
            if first {
                let upstreams = &this.shared.upstreams;
                state.next =
                    state.pool.sweep(now, |id, stream| !upstreams.is_active(id) || is_dead(stream, cx));
                state.next
            } else {
                Instant::NEVER
            }
        });
        this.alarm.set(next, cx);
        Poll::Pending
    }
}
