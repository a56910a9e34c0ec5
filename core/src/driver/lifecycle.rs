//! Stop and drain as data: a phase, and the wakers of whoever must see it; and which client makes room for another.
//!
//! Every task that the driver starts is registered here, so that none is left that nobody can end. A
//! stopped task closes itself when it is polled; nothing is cancelled from outside.

use std::sync::{Arc, PoisonError, Weak};
use std::task::{Context, Poll, Waker};

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
            let state = lock(&self.state);
            let idle = |member: &&Arc<Member>| match member.idle_since.load(Ordering::SeqCst) {
                0 => None,
                since => (member.leaving.load(Ordering::Acquire) == STAYS).then_some(since),
            };
            let idle = state.members.iter().flatten().filter_map(|m| idle(&m).map(|since| (since, m)));
            (idle.min_by_key(|i| i.0).map(|(since, m)| (since, Arc::clone(m))), state.groups.clone())
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
        drop(state);
        Membership { group: Arc::clone(self), slot, member, waker: None, idle: false }
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
                self.member.idle_since.store(since, Ordering::SeqCst);
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
mod tests {
    use super::*;
    use core::time::Duration;
    use proptest::prelude::*;
    use std::collections::VecDeque;
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
        let root = Arc::new(Lifecycle::new(9));
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
        let root = Arc::new(Lifecycle::new(9));
        let group = root.group();
        root.drain(at(3));
        root.drain(at(4));
        assert_eq!(group.phase(), Phase::Draining(at(3)));
        root.stop();
        root.drain(at(5));
        assert_eq!((root.phase(), group.phase()), (Phase::Stopped, Phase::Stopped));
    }

    fn at(secs: u64) -> Instant {
        Instant::EPOCH + Duration::from_secs(secs)
    }

    /// A server at which clients arrive: it holds one that waits, as `Serve` does.
    struct Server {
        group: Arc<Lifecycle>,
        waiting: Option<Waiting>,
        woken: Arc<Count>,
    }

    impl Server {
        fn new(root: &Arc<Lifecycle>) -> Server {
            Server { group: root.group(), waiting: None, woken: Arc::default() }
        }

        fn join(&mut self) -> Option<Membership> {
            let waker = Waker::from(Arc::clone(&self.woken));
            match self.group.poll_join(&mut self.waiting, &Context::from_waker(&waker)) {
                Poll::Ready(member) => Some(member),
                Poll::Pending => None,
            }
        }

        fn wakes(&self) -> usize {
            self.woken.0.load(Ordering::Relaxed)
        }
    }

    #[test]
    fn at_the_limit_the_client_that_is_idle_for_longest_makes_room() {
        let root = Arc::new(Lifecycle::new(3));
        let (mut first, mut second) = (Server::new(&root), Server::new(&root));
        let [mut busy, mut old, mut new] =
            [first.join(), second.join(), first.join()].map(|m| m.expect("room"));
        old.set_idle(true, at(1));
        new.set_idle(true, at(2));
        assert!(![&busy, &old, &new].iter().any(|m| m.is_to_leave(true)), "nobody needs room");
        assert!(first.join().is_none());
        assert_eq!(
            [(&busy, false), (&old, true), (&new, true)].map(|(m, idle)| m.is_to_leave(idle)),
            [false, true, false]
        );
        // One more that waits: one more is asked.
        assert!(second.join().is_none());
        assert!(new.is_to_leave(true));
        // It has begun a request in between: it stays, and the next that is idle is asked.
        new.set_idle(false, at(3));
        assert!(!new.is_to_leave(false));
        drop(old);
        assert_eq!((first.wakes(), second.wakes()), (1, 0), "only the one whose place it is");
        assert!(second.join().is_none(), "the place is not there for who came later");
        let _third = first.join().expect("its place");
        busy.set_idle(true, at(4));
        assert!(busy.is_to_leave(true));
        drop(busy);
        assert_eq!((first.wakes(), second.wakes()), (1, 1));
        assert!(second.join().is_some());
        assert_eq!(root.clients(), 2);
    }

    #[test]
    fn a_client_that_was_asked_for_nothing_stays() {
        let root = Arc::new(Lifecycle::new(2));
        let (mut one, mut two) = (Server::new(&root), Server::new(&root));
        let (mut idle, busy) = (one.join().expect("room"), one.join().expect("room"));
        idle.set_idle(true, at(1));
        assert!(one.join().is_none());
        drop(busy);
        assert!(one.join().is_some(), "another has left before");
        assert!(!idle.is_to_leave(true));
        // Nor does what was asked then count later.
        let _other = two.join().expect("room");
        assert!(two.join().is_none());
        assert!(idle.is_to_leave(true));
    }

    #[test]
    fn a_server_that_goes_leaves_its_place_to_the_next() {
        for granted in [false, true] {
            let root = Arc::new(Lifecycle::new(1));
            let (mut first, mut second) = (Server::new(&root), Server::new(&root));
            let member = first.join().expect("room");
            assert!(first.join().is_none() && second.join().is_none());
            if granted {
                drop(member);
                assert_eq!((first.wakes(), second.wakes()), (1, 0));
                drop(first);
            } else {
                drop(first);
                drop(member);
            }
            assert_eq!((second.wakes(), root.clients()), (1, 1));
            assert!(second.join().is_some());
            assert_eq!(root.clients(), 0);
        }
    }

    #[test]
    fn who_cannot_wait_is_counted_and_delays_the_others() {
        let root = Arc::new(Lifecycle::new(1));
        let mut server = Server::new(&root);
        let (first, second) = (root.join(true), root.join(true));
        assert_eq!(root.clients(), 2);
        assert!(server.join().is_none());
        drop(first);
        assert!(server.wakes() == 0 && server.join().is_none());
        drop(second);
        assert!(server.wakes() == 1 && server.join().is_some());
    }

    proptest! {
        /// Whatever happens in whatever order: never more clients than places; who came first is first; nobody is
        /// woken for nothing; and when everybody has done what they were woken for, nobody waits while there is a
        /// free place or an idle client.
        #[test]
        fn places_are_conserved(
            max in 1usize..5,
            events in proptest::collection::vec((0u8..6, 0usize..8), 1..150),
        ) {
            let root = Arc::new(Lifecycle::new(max));
            let mut servers: Vec<Server> = (0..3).map(|_| Server::new(&root)).collect();
            let mut clients: Vec<(Membership, bool)> = Vec::new();
            // Who waits, by server; and how often each server has had a place by waiting.
            let (mut queue, mut got) = (VecDeque::new(), [0; 3]);
            for ((event, i), now) in events.into_iter().zip(1..) {
                match event {
                    // One comes.
                    0 | 1 => {
                        let i = i % servers.len();
                        if servers[i].waiting.is_none() {
                            match servers[i].join() {
                                Some(member) => clients.push((member, false)),
                                None => queue.push_back(i),
                            }
                        }
                    }
                    2 if !clients.is_empty() => {
                        let i = i % clients.len();
                        drop(clients.swap_remove(i));
                    }
                    3 | 4 if !clients.is_empty() => {
                        let i = i % clients.len();
                        clients[i].1 = event == 3;
                        clients[i].0.set_idle(event == 3, at(now));
                    }
                    // The server of the one that has waited longest, or another one, ends, and a new one begins.
                    5 if i < 3 => {
                        queue.retain(|waits| *waits != i);
                        got[i] = 0;
                        servers[i] = Server::new(&root);
                    }
                    // Everybody gets to run.
                    _ => loop {
                        // One that stays may pass it on to another, which then runs.
                        for _ in 0..=clients.len() {
                            clients.retain(|(member, idle)| !member.is_to_leave(*idle));
                        }
                        let Some(&first) = queue.front() else { break };
                        let Some(member) = servers[first].join() else {
                            prop_assert!(clients.len() == max && clients.iter().all(|(_, idle)| !idle));
                            break;
                        };
                        got[first] += 1;
                        prop_assert_eq!(servers[first].wakes(), got[first]);
                        queue.pop_front();
                        clients.push((member, false));
                    },
                }
                prop_assert!(clients.len() <= root.clients() && root.clients() <= max);
                let granted: Vec<usize> = queue.iter().map(|i| servers[*i].wakes() - got[*i]).collect();
                prop_assert_eq!(granted.iter().sum::<usize>(), root.clients() - clients.len());
                prop_assert!(granted.iter().all(|n| *n <= 1) && granted.is_sorted_by(|a, b| a >= b));
            }
            drop((clients, servers));
            prop_assert_eq!(root.clients(), 0);
        }
    }

    /// On real threads: the limit holds at every moment, and everybody gets a place although they only run when they
    /// are woken. A lost wake-up would be a hang.
    #[test]
    fn the_limit_is_exact_on_several_threads() {
        struct Unpark(std::thread::Thread);
        impl Wake for Unpark {
            fn wake(self: Arc<Self>) {
                self.0.unpark();
            }
        }
        const MAX: usize = 3;
        let root = Arc::new(Lifecycle::new(MAX));
        let (there, most) = (AtomicUsize::new(0), AtomicUsize::new(0));
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    let waker = Waker::from(Arc::new(Unpark(std::thread::current())));
                    let cx = Context::from_waker(&waker);
                    let (group, mut waiting, mut clients) = (root.group(), None, VecDeque::new());
                    for turn in 0..2000u64 {
                        let mut member = loop {
                            if let Poll::Ready(member) = group.poll_join(&mut waiting, &cx) {
                                break member;
                            }
                            // What it has is idle: it leaves if it is asked to, and then only.
                            let had = clients.len();
                            clients.retain(|member: &Membership| {
                                let leaves = member.is_to_leave(true);
                                there.fetch_sub(usize::from(leaves), Ordering::SeqCst);
                                !leaves
                            });
                            if had == clients.len() {
                                std::thread::park();
                            }
                        };
                        most.fetch_max(there.fetch_add(1, Ordering::SeqCst) + 1, Ordering::SeqCst);
                        let _ = member.poll_phase(&cx);
                        member.set_idle(true, at(turn));
                        clients.push_back(member);
                    }
                    there.fetch_sub(clients.len(), Ordering::SeqCst);
                });
            }
        });
        assert_eq!((most.into_inner(), root.clients()), (MAX, 0));
    }
}
