//! Stop and drain as data: a phase, and the wakers of whoever must see it; and how many clients there are.
//!
//! Every task that the driver starts is registered here, so that none is left that nobody can end. A
//! stopped task closes itself when it is polled; nothing is cancelled from outside.

use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Waker};

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
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    /// The group that this one belongs to, and that counts its clients.
    parent: Option<Arc<Lifecycle>>,
    /// [`RUNNING`], [`STOPPED`], or one more than the nanoseconds at which the drain began.
    phase: AtomicU64,
    /// Somebody waits for room for a client.
    crowded: AtomicBool,
    state: Mutex<State>,
}

const RUNNING: u64 = 0;
const STOPPED: u64 = u64::MAX;

#[derive(Debug, Default)]
struct State {
    members: Vec<Option<Arc<Member>>>,
    free: Vec<usize>,
    groups: Vec<Weak<Lifecycle>>,
    clients: usize,
    /// Who waits for room for a client.
    room: Vec<Waker>,
}

/// A registered task.
#[derive(Debug)]
struct Member {
    waker: Mutex<Option<Waker>>,
    is_client: bool,
    /// A client's connection without a request: one more than the nanoseconds since when. Zero: it has one.
    idle_since: AtomicU64,
    /// It is asked to make room if it is idle.
    shed: AtomicBool,
}

impl Member {
    fn waker(&self) -> Option<Waker> {
        lock(&self.waker).clone()
    }
}

impl Lifecycle {
    /// A group that is stopped and drained with this one.
    pub(crate) fn group(self: &Arc<Self>) -> Arc<Lifecycle> {
        let group = Arc::new(Lifecycle { parent: Some(Arc::clone(self)), ..Lifecycle::default() });
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

    /// How many clients there are, here and in the groups.
    pub(crate) fn clients(&self) -> usize {
        lock(&self.root().state).clients
    }

    fn root(&self) -> &Lifecycle {
        let mut root = self;
        while let Some(parent) = &root.parent {
            root = parent;
        }
        root
    }

    /// Whether there is room for another client among `max`. If not, the client that has been idle for longest is
    /// asked to leave, and the context's waker is woken when it is worth asking again.
    pub(crate) fn has_room(&self, max: usize, cx: &Context<'_>) -> bool {
        let root = self.root();
        {
            let mut state = lock(&root.state);
            if state.clients < max {
                return true;
            }
            root.crowded.store(true, Ordering::Release);
            if !state.room.iter().any(|waker| waker.will_wake(cx.waker())) {
                state.room.push(cx.waker().clone());
            }
        }
        let mut members = Vec::new();
        root.collect_clients(&mut members);
        if !members.iter().any(|member| member.shed.load(Ordering::Acquire)) {
            let idle = members.into_iter().filter(|m| m.idle_since.load(Ordering::Acquire) > 0);
            if let Some(oldest) = idle.min_by_key(|m| m.idle_since.load(Ordering::Acquire)) {
                oldest.shed.store(true, Ordering::Release);
                oldest.waker().into_iter().for_each(Waker::wake);
            }
        }
        false
    }

    fn collect_clients(&self, members: &mut Vec<Arc<Member>>) {
        let groups = {
            let state = lock(&self.state);
            members.extend(state.members.iter().flatten().filter(|m| m.is_client).cloned());
            state.groups.clone()
        };
        groups.iter().filter_map(Weak::upgrade).for_each(|group| group.collect_clients(members));
    }

    /// Wakes whoever waits for room for a client.
    fn make_room(&self) {
        let root = self.root();
        if root.crowded.swap(false, Ordering::AcqRel) {
            let wakers = std::mem::take(&mut lock(&root.state).room);
            wakers.into_iter().for_each(Waker::wake);
        }
    }

    /// Joins the group; clients are counted.
    pub(crate) fn join(self: &Arc<Self>, is_client: bool) -> Membership {
        if is_client {
            lock(&self.root().state).clients += 1;
        }
        let member = Arc::new(Member {
            waker: Mutex::new(None),
            is_client,
            idle_since: AtomicU64::new(0),
            shed: AtomicBool::new(false),
        });
        let mut state = lock(&self.state);
        let slot = state.free.pop().unwrap_or(state.members.len());
        if slot == state.members.len() {
            state.members.push(None);
        }
        state.members[slot] = Some(Arc::clone(&member));
        drop(state);
        Membership { group: Arc::clone(self), slot, member, waker: None, idle: false }
    }
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
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
            *lock(&self.member.waker) = Some(cx.waker().clone());
            self.waker = Some(cx.waker().clone());
        }
        self.group.phase()
    }

    /// Says whether the client's connection is idle, and since when.
    pub(crate) fn set_idle(&mut self, idle: bool, now: Instant) {
        if idle != self.idle {
            self.idle = idle;
            let since = if idle { now.as_nanos().saturating_add(1) } else { 0 };
            self.member.idle_since.store(since, Ordering::Release);
            if idle && self.group.root().crowded.load(Ordering::Acquire) {
                self.group.make_room();
            }
        }
    }

    /// Whether the client is asked to make room, once. If it is not idle any more, another one may be.
    pub(crate) fn take_shed(&self) -> bool {
        if !self.member.shed.load(Ordering::Acquire) {
            return false;
        }
        self.member.shed.store(false, Ordering::Release);
        self.group.make_room();
        self.idle
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let last = {
            let mut state = lock(&self.group.state);
            state.members[self.slot] = None;
            state.free.push(self.slot);
            // The one that is left is the server, which waits for the others once it is to end.
            let left = state.members.len() - state.free.len();
            (left == 1).then(|| state.members.iter().flatten().find_map(|m| m.waker())).flatten()
        };
        if !self.group.is_running() {
            last.into_iter().for_each(Waker::wake);
        }
        if self.member.is_client {
            lock(&self.group.root().state).clients -= 1;
            self.group.make_room();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use core::time::Duration;
    use std::sync::atomic::AtomicUsize;
    use std::task::Wake;

    #[derive(Default)]
    struct Count(AtomicUsize);

    impl Wake for Count {
        fn wake(self: Arc<Self>) {
            self.0.fetch_add(1, Ordering::Relaxed);
        }
    }

    #[test]
    fn the_last_member_of_a_stopped_group_is_woken_when_the_others_have_left() {
        let root = Arc::new(Lifecycle::default());
        let group = root.group();
        let (server, client) = (Arc::new(Count::default()), Arc::new(Count::default()));
        let wakes = |count: &Arc<Count>| count.0.load(Ordering::Relaxed);
        let (server_waker, client_waker) = (Waker::from(server.clone()), Waker::from(client.clone()));

        let mut server_member = group.join(false);
        let mut client_member = group.join(false);
        assert_eq!(server_member.poll_phase(&Context::from_waker(&server_waker)), Phase::Running);
        assert_eq!(client_member.poll_phase(&Context::from_waker(&client_waker)), Phase::Running);
        assert_eq!(root.members(), 2);

        root.stop();
        assert_eq!((wakes(&server), wakes(&client)), (1, 1));
        assert_eq!(server_member.poll_phase(&Context::from_waker(&server_waker)), Phase::Stopped);
        drop(client_member);
        assert_eq!((wakes(&server), group.members()), (2, 1));
        assert_eq!(root.group().phase(), Phase::Stopped, "a group that comes later finds it stopped");
    }

    #[test]
    fn a_drain_is_seen_with_its_first_instant_and_does_not_undo_a_stop() {
        let root = Arc::new(Lifecycle::default());
        let group = root.group();
        let at = |secs| Instant::EPOCH + Duration::from_secs(secs);
        root.drain(at(3));
        root.drain(at(4));
        assert_eq!(group.phase(), Phase::Draining(at(3)));
        root.stop();
        root.drain(at(5));
        assert_eq!((root.phase(), group.phase()), (Phase::Stopped, Phase::Stopped));
    }

    #[test]
    fn at_the_limit_the_client_that_is_idle_for_longest_makes_room() {
        let root = Arc::new(Lifecycle::default());
        let (first, second) = (root.group(), root.group());
        let server = Arc::new(Count::default());
        let waker = Waker::from(server.clone());
        let cx = Context::from_waker(&waker);
        let wakes = || server.0.load(Ordering::Relaxed);
        let at = |secs| Instant::EPOCH + Duration::from_secs(secs);

        let (mut busy, mut old, mut new) = (first.join(true), second.join(true), first.join(true));
        old.set_idle(true, at(1));
        new.set_idle(true, at(2));
        assert!(first.has_room(4, &cx));
        assert!(!first.has_room(3, &cx));
        assert_eq!([&busy, &old, &new].map(Membership::take_shed), [false, true, false]);
        assert_eq!(wakes(), 1);
        assert!(!second.has_room(3, &cx));
        drop(old);
        assert_eq!(wakes(), 2);
        assert!(second.has_room(3, &cx));

        // Nobody idle: whoever becomes so next is asked.
        new.set_idle(false, at(3));
        assert!(!second.has_room(2, &cx));
        assert!(!busy.take_shed() && !new.take_shed());
        busy.set_idle(true, at(4));
        assert_eq!(wakes(), 3);
        assert!(!second.has_room(2, &cx));
        assert!(busy.take_shed());
        assert_eq!(root.clients(), 2);
    }
}
