//! Stop and drain as data: a phase, and the wakers of whoever must see it; and which client makes room for another.
//!
//! Every task that the driver starts is registered here, so that none is left that nobody can end. A
//! stopped task closes itself when it is polled; nothing is cancelled from outside.

use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

use crate::driver::order::Order;
use crate::driver::room::{Room, Waiting};
use crate::runtime::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use crate::runtime::sync::{Mutex, MutexGuard};
use crate::time::Instant;

/// What a task is to do.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Phase {
    /// Go on.
    Running,
    /// Finish what has begun, and begin nothing. Asked for at this instant.
    Draining(Instant),
    /// End now.
    Stopped,
}

/// What a group of tasks shares: all of a proxy, or the connections of one `serve`.
#[derive(Debug)]
pub(crate) struct Lifecycle {
    /// The group that this one belongs to.
    parent: Option<Arc<Lifecycle>>,
    /// The places for clients: one limit for all groups.
    room: Arc<Room>,
    /// [`RUNNING`], [`STOPPED`], or one more than the nanoseconds at which the drain began.
    phase: AtomicU64,
    state: Mutex<State>,
}

const RUNNING: u64 = 0;
const STOPPED: u64 = u64::MAX;

#[derive(Debug, Default)]
struct State {
    members: Vec<Option<Arc<Member>>>,
    free: Vec<usize>,
    /// The clients in the order in which they became idle. One that is not idle any more stays until it is met, or is
    /// idle again: so a request moves its client once, and to begin one costs nothing.
    idle: Order,
    /// How many were looked at in search of one to ask.
    #[cfg(test)]
    looked: usize,
    groups: Vec<Weak<Lifecycle>>,
}

/// A registered task.
#[derive(Debug)]
struct Member {
    waker: Mutex<Option<Waker>>,
    is_client: bool,
    /// A client's connection without a request: one more than the nanoseconds since when. Zero: it has one.
    idle_since: AtomicU64,
    /// [`STAYS`], [`ASKED`] to make room, or [`GONE`].
    leaving: AtomicU8,
}

const STAYS: u8 = 0;
const ASKED: u8 = 1;
const GONE: u8 = 2;

impl Member {
    fn waker(&self) -> Option<Waker> {
        lock(&self.waker).clone()
    }

    /// Asks it to leave, if a place is still wanted and it is there and was not asked before.
    fn ask(&self, room: &Room) -> bool {
        if !room.ask() {
            return false;
        }
        let asked = self.leaving.compare_exchange(STAYS, ASKED, Ordering::AcqRel, Ordering::Acquire).is_ok();
        if asked {
            self.waker().into_iter().for_each(Waker::wake);
        } else {
            room.stays();
        }
        asked
    }
}

impl Lifecycle {
    /// With places for `max_clients`.
    pub(crate) fn new(max_clients: usize) -> Lifecycle {
        Lifecycle::with(None, Arc::new(Room::new(max_clients)))
    }

    fn with(parent: Option<Arc<Lifecycle>>, room: Arc<Room>) -> Lifecycle {
        Lifecycle { parent, room, phase: AtomicU64::new(RUNNING), state: Mutex::default() }
    }

    /// A group that is stopped and drained with this one.
    pub(crate) fn group(self: &Arc<Self>) -> Arc<Lifecycle> {
        let group = Arc::new(Lifecycle::with(Some(Arc::clone(self)), Arc::clone(&self.room)));
        let mut state = lock(&self.state);
        state.groups.retain(|g| g.strong_count() > 0);
        state.groups.push(Arc::downgrade(&group));
        // Read under the lock: a change of phase either sees the group or is seen here.
        group.phase.store(self.phase.load(Ordering::Acquire), Ordering::Release);
        drop(state);
        group
    }

    /// Ends everything that is registered, once; later registrations find it stopped.
    pub(crate) fn stop(&self) {
        self.enter(STOPPED);
    }

    /// Lets everything that has begun finish. Does nothing if that was asked before, or if it is stopped.
    pub(crate) fn drain(&self, now: Instant) {
        self.enter(now.as_nanos().saturating_add(1).min(STOPPED - 1));
    }

    fn enter(&self, phase: u64) {
        let (wakers, groups) = {
            let state = lock(&self.state);
            if phase == STOPPED {
                self.phase.store(STOPPED, Ordering::Release);
            } else if self.phase.load(Ordering::Acquire) == RUNNING {
                self.phase.store(phase, Ordering::Release);
            }
            // Cloned, not taken: a member registers only a changed waker, and the server waits on after this.
            let wakers: Vec<Waker> = state.members.iter().flatten().filter_map(|m| m.waker()).collect();
            (wakers, state.groups.clone())
        };
        // Woken outside the lock: a waker may run anything.
        wakers.into_iter().for_each(Waker::wake);
        groups.iter().filter_map(Weak::upgrade).for_each(|group| group.enter(phase));
    }

    pub(crate) fn phase(&self) -> Phase {
        match self.phase.load(Ordering::Acquire) {
            RUNNING => Phase::Running,
            STOPPED => Phase::Stopped,
            since => Phase::Draining(Instant::from_nanos(since - 1)),
        }
    }

    pub(crate) fn is_running(&self) -> bool {
        self.phase() == Phase::Running
    }

    /// How many tasks are registered, here and in the groups.
    pub(crate) fn members(&self) -> usize {
        let (own, groups) = {
            let state = lock(&self.state);
            (state.members.len() - state.free.len(), state.groups.clone())
        };
        own + groups.iter().filter_map(Weak::upgrade).map(|group| group.members()).sum::<usize>()
    }

    /// How many clients there are in all groups, those whose place waits to be fetched included.
    pub(crate) fn clients(&self) -> usize {
        self.room.taken()
    }

    #[cfg(test)]
    pub(crate) fn is_locked(&self) -> bool {
        self.state.try_lock().is_err() || self.room.is_locked()
    }

    fn root(&self) -> &Lifecycle {
        let mut root = self;
        while let Some(parent) = &root.parent {
            root = parent;
        }
        root
    }

    /// Joins as a client once there is a place. Until then `waiting` is the place in the queue, the context's waker
    /// is woken when it is worth asking again, and the client that has been idle for longest is asked to leave.
    pub(crate) fn poll_join(
        self: &Arc<Self>,
        waiting: &mut Option<Waiting>,
        cx: &Context<'_>,
    ) -> Poll<Membership> {
        if let Some(place) = waiting {
            if !place.fetch(cx.waker()) {
                return Poll::Pending;
            }
            *waiting = None;
        } else if let Err(place) = self.room.admit(cx.waker()) {
            *waiting = Some(place);
            self.ask_idle();
            return Poll::Pending;
        }
        Poll::Ready(self.member(true))
    }

    /// Asks idle clients to leave, longest idle first, until as many were asked as places are wanted.
    fn ask_idle(&self) {
        while self.room.is_wanted() {
            let Some((_, oldest)) = self.root().oldest_idle() else { return };
            oldest.ask(&self.room);
        }
    }

    /// The client that has been idle for longest and was not asked to leave, and since when.
    fn oldest_idle(&self) -> Option<(u64, Arc<Member>)> {
        let (own, groups) = {
            let mut state = lock(&self.state);
            (state.oldest_idle(), state.groups.clone())
        };
        let others = groups.iter().filter_map(Weak::upgrade).filter_map(|group| group.oldest_idle());
        own.into_iter().chain(others).min_by_key(|idle| idle.0)
    }

    /// Joins the group; a client takes a place, whether there is one or not.
    pub(crate) fn join(self: &Arc<Self>, is_client: bool) -> Membership {
        if is_client {
            self.room.enter();
        }
        self.member(is_client)
    }

    fn member(self: &Arc<Self>, is_client: bool) -> Membership {
        let member = Arc::new(Member {
            waker: Mutex::new(None),
            is_client,
            idle_since: AtomicU64::new(0),
            leaving: AtomicU8::new(STAYS),
        });
        let mut state = lock(&self.state);
        let slot = state.free.pop().unwrap_or(state.members.len());
        if slot == state.members.len() {
            state.members.push(None);
        }
        state.members[slot] = Some(Arc::clone(&member));
        let slots = state.members.len();
        state.idle.reserve(slots);
        drop(state);
        Membership { group: Arc::clone(self), slot, member, waker: None, idle: false }
    }
}

impl State {
    /// The first in the order that is idle and was not asked to leave, and since when. A client that is met and is not
    /// idle goes out of the order, which its becoming idle has paid for; of those that were asked there are no more
    /// than wait for a place, one for each server.
    fn oldest_idle(&mut self) -> Option<(u64, Arc<Member>)> {
        let mut before = None;
        while let Some(slot) = self.idle.next(before) {
            #[cfg(test)]
            (self.looked += 1);
            let member = self.members[slot].as_ref();
            match member.map(|m| (m.idle_since.load(Ordering::SeqCst), m)) {
                None | Some((0, _)) => self.idle.remove(slot),
                Some((since, member)) if member.leaving.load(Ordering::Acquire) == STAYS => {
                    return Some((since, Arc::clone(member)));
                }
                Some(_) => before = Some(slot),
            }
        }
        None
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A task's place in a [`Lifecycle`]; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    group: Arc<Lifecycle>,
    slot: usize,
    member: Arc<Member>,
    /// The waker that is registered, so that an unchanged one takes no lock.
    waker: Option<Waker>,
    idle: bool,
}

impl Membership {
    /// The group's phase; the context's waker is woken when it changes.
    pub(crate) fn poll_phase(&mut self, cx: &Context<'_>) -> Phase {
        if !self.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            // What it replaces may be the last handle of a task: it is let go after the lock.
            let _before = lock(&self.member.waker).replace(cx.waker().clone());
            self.waker = Some(cx.waker().clone());
        }
        self.group.phase()
    }

    /// Says whether the client's connection is idle, and since when.
    pub(crate) fn set_idle(&mut self, idle: bool, now: Instant) {
        if idle != self.idle {
            self.idle = idle;
            let since = if idle { now.as_nanos().saturating_add(1) } else { 0 };
            if idle {
                let mut state = lock(&self.group.state);
                self.member.idle_since.store(since, Ordering::SeqCst);
                state.idle.put_last(self.slot);
                drop(state);
                // Whoever was idle for longer has been asked already, so it is this one's turn.
                if self.group.room.is_wanted() && !self.member.ask(&self.group.room) {
                    self.group.ask_idle();
                }
            } else {
                self.member.idle_since.store(since, Ordering::Release);
            }
        }
    }

    /// Whether the client was asked to make room and is to leave now. One that is not idle any more stays; another
    /// may be asked then.
    pub(crate) fn is_to_leave(&self, idle: bool) -> bool {
        if self.member.leaving.load(Ordering::Acquire) != ASKED {
            return false;
        }
        if idle && self.group.room.is_needed() {
            return true;
        }
        self.member.leaving.store(STAYS, Ordering::Release);
        self.group.room.stays();
        self.group.ask_idle();
        false
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let last = {
            let mut state = lock(&self.group.state);
            state.members[self.slot] = None;
            state.idle.remove(self.slot);
            state.free.push(self.slot);
            // The one that is left is the server, which waits for the others once it is to end.
            let left = state.members.len() - state.free.len();
            (left == 1).then(|| state.members.iter().flatten().find_map(|m| m.waker())).flatten()
        };
        if !self.group.is_running() {
            last.into_iter().for_each(Waker::wake);
        }
        if self.member.is_client {
            let asked = self.member.leaving.swap(GONE, Ordering::AcqRel) == ASKED;
            self.group.room.leave(asked);
            self.group.ask_idle();
        }
    }
}

#[cfg(test)]
mod tests;
