//! Places for clients: one limit that holds exactly over all threads, and a queue for whoever comes at it.
//!
//! It locks and wakes; who gets a place is decided by [`Admission`], for which the clients' limit is one more
//! upstream: `granted + free` is constant, a place that becomes free is handed to the one that has waited longest,
//! and only that one is woken. Which client is asked to make room is not decided here but in `lifecycle.rs`.

use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::runtime::sync::Mutex;
use crate::runtime::sync::atomic::{AtomicBool, Ordering};
use crate::time::Instant;
use crate::upstream::{Admission, Admitted, Ticket, UpstreamId};

/// The places of a proxy's clients.
#[derive(Debug)]
pub(crate) struct Room {
    state: Mutex<State>,
    /// More wait for a place than clients were asked to leave. Written under the lock.
    wanted: AtomicBool,
}

#[derive(Debug)]
struct State {
    places: Admission<Waker>,
    /// What the places are called there.
    id: Option<UpstreamId>,
    /// Idle clients that were asked to leave and have not left yet.
    asked: usize,
}

impl Room {
    pub(crate) fn new(max: usize) -> Room {
        // Each server waits with one client at most: that is what bounds the queue.
        let mut places = Admission::new(max, usize::MAX);
        let id = places.add();
        Room { state: Mutex::new(State { places, id, asked: 0 }), wanted: AtomicBool::new(false) }
    }

    /// Takes a place, or one in the queue: then the waker is woken once there is a place to fetch.
    pub(crate) fn admit(self: &Arc<Self>, waker: &Waker) -> Result<(), Waiting> {
        self.change(|state| match state.places.admit(&[], Instant::EPOCH, waker) {
            Admitted::Waits(ticket) => Err(Waiting { room: Arc::clone(self), ticket: Some(ticket) }),
            _ => Ok(()),
        })
    }

    /// Takes a place whether there is one or not.
    pub(crate) fn enter(&self) {
        self.change(|state| state.id.into_iter().for_each(|id| state.places.take(id)));
    }

    /// Gives a place back; `asked` if its client was asked to.
    pub(crate) fn leave(&self, asked: bool) {
        self.change(|state| {
            state.asked -= usize::from(asked);
            state.id.into_iter().for_each(|id| state.places.release(id));
        });
    }

    /// Whether a client is to be asked to leave.
    pub(crate) fn is_wanted(&self) -> bool {
        // In one order with the clients' becoming idle: either they see that a place is wanted, or they are
        // seen to be idle by whoever wants it.
        self.wanted.load(Ordering::SeqCst)
    }

    /// Counts a client as asked, if one still is to be.
    pub(crate) fn ask(&self) -> bool {
        self.change(|state| {
            let wanted = state.is_wanted();
            state.asked += usize::from(wanted);
            wanted
        })
    }

    /// A client that was asked does not leave.
    pub(crate) fn stays(&self) {
        self.change(|state| state.asked -= 1);
    }

    /// Whether a client that was asked is still to leave: if nobody waits any more, it need not.
    pub(crate) fn is_needed(&self) -> bool {
        self.change(|state| state.asked <= state.places.waiting())
    }

    /// Places that are taken.
    pub(crate) fn taken(&self) -> usize {
        self.change(|state| state.places.busy())
    }

    #[cfg(test)]
    pub(crate) fn is_locked(&self) -> bool {
        self.state.try_lock().is_err()
    }

    /// Makes a change and wakes those who got a place by it; outside the lock, since a waker may run anything.
    fn change<T>(&self, change: impl FnOnce(&mut State) -> T) -> T {
        let mut wakers = Vec::new();
        let result = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            let result = change(&mut state);
            wakers.extend(std::iter::from_fn(|| state.places.hand_over(Instant::EPOCH)));
            self.wanted.store(state.is_wanted(), Ordering::SeqCst);
            result
        };
        wakers.into_iter().for_each(Waker::wake);
        result
    }
}

impl State {
    fn is_wanted(&self) -> bool {
        self.places.waiting() > self.asked
    }
}

/// A place in the queue, and then one that is taken; given up when dropped.
#[derive(Debug)]
pub(crate) struct Waiting {
    room: Arc<Room>,
    ticket: Option<Ticket>,
}

impl Waiting {
    /// Whether the place is there, and then it is the caller's. If not, `waker` is the one to wake.
    pub(crate) fn fetch(&mut self, waker: &Waker) -> bool {
        let Some(ticket) = self.ticket.take() else { return false };
        // The one before it comes back in its place, and is dropped here: it may be the last handle of a task.
        let mut waker = waker.clone();
        let fetched = self.room.change(|state| state.places.fetch(ticket, Instant::EPOCH, &mut waker));
        if let Admitted::Waits(ticket) = fetched {
            self.ticket = Some(ticket);
        }
        self.ticket.is_none()
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        let Some(ticket) = self.ticket.take() else { return };
        drop(self.room.change(|state| state.places.cancel(ticket)));
    }
}
