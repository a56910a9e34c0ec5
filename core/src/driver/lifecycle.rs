//! Stop as data: a flag, and the wakers of whoever must see it.
//!
//! Every task that the driver starts is registered here, so that none is left that nobody can end. A
//! stopped task closes itself when it is polled; nothing is cancelled from outside.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::task::{Context, Waker};

/// What a group of tasks shares: usually the connections of one `serve`.
#[derive(Debug, Default)]
pub(crate) struct Lifecycle {
    stopped: AtomicBool,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    members: Vec<Member>,
    free: Vec<usize>,
    groups: Vec<Weak<Lifecycle>>,
}

#[derive(Debug, Default)]
enum Member {
    #[default]
    Free,
    Present(Option<Waker>),
}

impl Lifecycle {
    /// A group that is stopped with this one.
    pub(crate) fn group(self: &Arc<Self>) -> Arc<Lifecycle> {
        let group = Arc::new(Lifecycle::default());
        self.with(|state| {
            state.groups.retain(|g| g.strong_count() > 0);
            state.groups.push(Arc::downgrade(&group));
        });
        if self.is_stopped() {
            group.stop();
        }
        group
    }

    /// Ends everything that is registered, once; later registrations find it stopped.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        let (wakers, groups) = self.with(|state| {
            // Cloned, not taken: a member registers only a changed waker, and the server waits on after this.
            let wakers: Vec<Waker> = state.members.iter().filter_map(Member::waker).collect();
            (wakers, state.groups.clone())
        });
        // Woken outside the lock: a waker may run anything.
        wakers.into_iter().for_each(Waker::wake);
        groups.iter().filter_map(Weak::upgrade).for_each(|group| group.stop());
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// How many tasks are registered, here and in the groups.
    pub(crate) fn members(&self) -> usize {
        let (own, groups) = self.with(|state| (state.members.len() - state.free.len(), state.groups.clone()));
        own + groups.iter().filter_map(Weak::upgrade).map(|group| group.members()).sum::<usize>()
    }

    /// Joins the group.
    pub(crate) fn join(self: &Arc<Self>) -> Membership {
        let slot = self.with(|state| match state.free.pop() {
            Some(slot) => {
                state.members[slot] = Member::Present(None);
                slot
            }
            None => {
                state.members.push(Member::Present(None));
                state.members.len() - 1
            }
        });
        Membership { group: Arc::clone(self), slot, waker: None }
    }

    fn with<T>(&self, f: impl FnOnce(&mut State) -> T) -> T {
        f(&mut self.state.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// A task's place in a [`Lifecycle`]; leaves it when dropped.
#[derive(Debug)]
pub(crate) struct Membership {
    group: Arc<Lifecycle>,
    slot: usize,
    /// The waker that is registered, so that an unchanged one takes no lock.
    waker: Option<Waker>,
}

impl Membership {
    /// Whether the group was stopped; if not, the context's waker is woken when it is.
    pub(crate) fn poll_stopped(&mut self, cx: &Context<'_>) -> bool {
        if !self.waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
            let waker = cx.waker().clone();
            self.group.with(|state| state.members[self.slot] = Member::Present(Some(waker.clone())));
            self.waker = Some(waker);
        }
        self.group.is_stopped()
    }
}

impl Drop for Membership {
    fn drop(&mut self) {
        let last = self.group.with(|state| {
            state.members[self.slot] = Member::Free;
            state.free.push(self.slot);
            // The one that is left is the server, which waits for the others once it is stopped.
            let left = state.members.len() - state.free.len();
            (left == 1).then(|| state.members.iter().find_map(Member::waker)).flatten()
        });
        if self.group.is_stopped() {
            last.into_iter().for_each(Waker::wake);
        }
    }
}

impl Member {
    fn waker(&self) -> Option<Waker> {
        match self {
            Member::Present(waker) => waker.clone(),
            Member::Free => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
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

        let mut server_member = group.join();
        let mut client_member = group.join();
        assert!(!server_member.poll_stopped(&Context::from_waker(&server_waker)));
        assert!(!client_member.poll_stopped(&Context::from_waker(&client_waker)));
        assert_eq!(root.members(), 2);

        root.stop();
        assert_eq!((wakes(&server), wakes(&client)), (1, 1));
        assert!(server_member.poll_stopped(&Context::from_waker(&server_waker)));
        drop(client_member);
        assert_eq!((wakes(&server), group.members()), (2, 1));
        assert!(root.group().is_stopped(), "a group that comes later finds it stopped");
    }
}
