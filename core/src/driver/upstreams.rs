//! The upstreams of a proxy, shared by all its connections and threads: where they are, and who may use them.
//!
//! It locks and wakes; who is granted what is decided by [`Admission`].

use core::fmt;
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::runtime::sync::Mutex;
use crate::time::Instant;
use crate::upstream::{Admission, Admitted, Target, Ticket, UpstreamId};

/// Where a proxy forwards to. Clones are the same list, which may change while the proxy runs.
///
/// ```
/// use std::net::SocketAddr;
/// use tidegate_core::{Target, UpstreamLimits, Upstreams};
///
/// let limits = UpstreamLimits { max_conns: 200, ..UpstreamLimits::default() };
/// let first: SocketAddr = "127.0.0.1:9000".parse()?;
/// let upstreams = Upstreams::with_limits([first], limits);
///
/// // Another takes over: first it is there, then the old ones go. This one is a name.
/// let old = upstreams.list();
/// let name: Target = "localhost:9001".parse()?;
/// let new = upstreams.add(name.clone()).ok_or("the list is full")?;
/// old.iter().for_each(|(id, _)| upstreams.remove(*id));
/// assert_eq!(upstreams.list(), [(new, name)]);
///
/// // Nothing runs on the old one any more: it may be switched off.
/// assert_eq!(upstreams.in_flight(old[0].0), 0);
///
/// // One upstream with two addresses: if the first cannot be reached, the second is, within one connect timeout.
/// let both: [SocketAddr; 2] = ["[::1]:9002".parse()?, "127.0.0.1:9002".parse()?];
/// upstreams.add(both).ok_or("the list is full")?;
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
#[derive(Clone)]
pub struct Upstreams(Arc<Mutex<State>>);

struct State {
    targets: Vec<Target>,
    admission: Admission<Waker>,
    /// Those who watch idle connections, by number: to be woken when an upstream is removed.
    keepers: Vec<(u64, Waker)>,
    /// The last number that a keeper was given.
    count: u64,
}

/// How much may be asked of the [`Upstreams`].
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct UpstreamLimits {
    /// Exchanges in flight on one upstream; idle connections do not count. Default 100.
    pub max_conns: usize,
    /// Requests that wait for an upstream, all together. Default 1,000.
    pub max_queue: usize,
}

impl Default for UpstreamLimits {
    fn default() -> UpstreamLimits {
        UpstreamLimits { max_conns: 100, max_queue: 1000 }
    }
}

impl fmt::Debug for Upstreams {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.with(|state| {
            f.debug_struct("Upstreams").field("targets", &state.targets).finish_non_exhaustive()
        })
    }
}

impl Default for Upstreams {
    /// None, under the default limits.
    fn default() -> Upstreams {
        Upstreams::new([] as [Target; 0])
    }
}

impl Upstreams {
    /// The most upstreams that one list can hold in its life; what is over it is left out.
    pub const MAX: usize = 1 << 16;

    /// A list of upstreams under the default limits: each an address, several addresses, or a name with a port. An
    /// empty list is answered 503.
    pub fn new<T: Into<Target>>(targets: impl IntoIterator<Item = T>) -> Upstreams {
        Upstreams::with_limits(targets, UpstreamLimits::default())
    }

    /// A list of upstreams, taken in turn, each for as many exchanges at once as `limits` says; further
    /// requests wait in one queue.
    pub fn with_limits<T: Into<Target>>(
        targets: impl IntoIterator<Item = T>,
        limits: UpstreamLimits,
    ) -> Upstreams {
        let admission = Admission::new(limits.max_conns, limits.max_queue);
        let state = State { targets: Vec::new(), admission, keepers: Vec::new(), count: 0 };
        let upstreams = Upstreams(Arc::new(Mutex::new(state)));
        for target in targets {
            upstreams.add(target);
        }
        upstreams
    }

    /// Adds an upstream, which takes its turn from now on. `None` if the list is full.
    pub fn add(&self, target: impl Into<Target>) -> Option<UpstreamId> {
        let target = target.into();
        let id = self.with(|state| {
            let id = state.admission.add()?;
            state.targets.push(target);
            Some(id)
        })?;
        // It is not known to be down, whatever the time.
        self.change(Instant::EPOCH, |_| {});
        Some(id)
    }

    /// Takes an upstream out: what runs on it goes on, nothing new begins, and its idle connections are closed by
    /// whoever watches them. [`Upstreams::in_flight`] says when the last exchange is over. Who waits and has
    /// nothing left to wait for is answered at once.
    pub fn remove(&self, id: UpstreamId) {
        // That something is known to be down makes no difference to who has nothing left.
        self.change(Instant::EPOCH, |admission| admission.remove(id));
        let keepers = self.with(|state| state.keepers.clone());
        keepers.into_iter().for_each(|(_, keeper)| keeper.wake());
    }

    /// A number that no other keeper of idle connections has.
    pub(crate) fn keeper_number(&self) -> u64 {
        self.with(|state| {
            state.count += 1;
            state.count
        })
    }

    /// From now on `waker` is woken when an upstream is removed, in the place of the one that the keeper had before.
    pub(crate) fn watch(&self, number: u64, waker: &Waker) {
        let waker = waker.clone();
        let _before = self.with(|state| match state.keepers.iter_mut().find(|(n, _)| *n == number) {
            Some((_, known)) => Some(core::mem::replace(known, waker)),
            None => {
                state.keepers.push((number, waker));
                None
            }
        });
    }

    /// The keeper watches no longer.
    pub(crate) fn unwatch(&self, number: u64) {
        let _before = self.with(|state| {
            let place = state.keepers.iter().position(|(n, _)| *n == number);
            place.map(|place| state.keepers.swap_remove(place))
        });
    }

    /// How many exchanges are in flight on one upstream.
    pub fn in_flight(&self, id: UpstreamId) -> usize {
        self.with(|state| state.admission.in_flight(id))
    }

    /// How many requests wait for an upstream.
    pub fn waiting(&self) -> usize {
        self.with(|state| state.admission.waiting())
    }

    /// How many exchanges are in flight on all of them.
    pub(crate) fn busy(&self) -> usize {
        self.with(|state| state.admission.busy())
    }

    /// The upstreams that take requests, in the order in which they were added.
    pub fn list(&self) -> Vec<(UpstreamId, Target)> {
        self.with(|state| {
            let active = |id: &UpstreamId| state.admission.is_active(*id);
            let ids = (0..state.targets.len()).filter_map(UpstreamId::new).filter(active);
            ids.map(|id| (id, state.targets[id.index()].clone())).collect()
        })
    }

    /// Where one of them is.
    pub fn target(&self, id: UpstreamId) -> Option<Target> {
        self.with(|state| state.targets.get(id.index()).cloned())
    }

    pub(crate) fn is_active(&self, id: UpstreamId) -> bool {
        self.with(|state| state.admission.is_active(id))
    }

    pub(crate) fn admit(&self, tried: &[UpstreamId], now: Instant, waker: &Waker) -> Admitted {
        let mut wakers = Vec::new();
        let admitted = self.with(|state| {
            wakers.extend(core::iter::from_fn(|| state.admission.hand_over(now)));
            state.admission.admit(tried, now, waker)
        });
        wakers.into_iter().for_each(Waker::wake);
        admitted
    }

    pub(crate) fn fetch(&self, ticket: Ticket, now: Instant, waker: &Waker) -> Admitted {
        let mut wakers = Vec::new();
        // The one before it comes back in its place, and is dropped here: it may be the last handle of a task.
        let mut waker = waker.clone();
        let fetched = self.with(|state| {
            if state.admission.is_due(&ticket, now) {
                wakers.extend(core::iter::from_fn(|| state.admission.hand_over(now)));
            }
            state.admission.fetch(ticket, now, &mut waker)
        });
        wakers.into_iter().for_each(Waker::wake);
        fetched
    }

    pub(crate) fn reached(&self, id: UpstreamId, now: Instant) {
        self.change(now, |admission| admission.succeeded(id));
    }

    /// Gives an upstream back that could not be reached, if it `is_down`: for the others that is so before it is free.
    pub(crate) fn release(&self, id: UpstreamId, is_down: bool, now: Instant) {
        self.change(now, |admission| {
            if is_down {
                admission.failed(id, now);
            }
            admission.release(id);
        });
    }

    /// The same after a whole answer to what was granted at `granted`.
    pub(crate) fn release_answered(&self, id: UpstreamId, granted: Instant, now: Instant) {
        self.change(now, |admission| {
            admission.answered(id, granted);
            admission.release(id);
        });
    }

    pub(crate) fn cancel(&self, ticket: Ticket, now: Instant) {
        drop(self.change(now, |admission| admission.cancel(ticket)));
    }

    /// Makes a change and wakes everybody in the queue for whom there is something then; outside the lock, since
    /// a waker may run anything.
    fn change<T>(&self, now: Instant, change: impl FnOnce(&mut Admission<Waker>) -> T) -> T {
        let (result, mut next) =
            self.with(|state| (change(&mut state.admission), state.admission.hand_over(now)));
        while let Some(waker) = next {
            waker.wake();
            next = self.with(|state| state.admission.hand_over(now));
        }
        result
    }

    #[cfg(test)]
    pub(crate) fn is_locked(&self) -> bool {
        self.0.try_lock().is_err()
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
