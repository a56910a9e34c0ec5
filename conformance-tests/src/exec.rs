//! A small deterministic executor: tasks run on one thread, in the order in which they were woken.
//!
//! The virtual runtime runs everything on it; the real runs use it where the proxy and a blocking
//! neighbour must share one thread. It knows neither time nor sockets, and wakes a task only when that
//! task's own waker was called, so a lost wake-up shows as a hang here as it would anywhere.

use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::pin::{Pin, pin};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

/// Polls a future to its end on this thread: one that needs nobody's wake-up, because it blocks instead of waiting,
/// or because everything it waits for is polled with it.
pub(crate) fn block<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let mut cx = Context::from_waker(Waker::noop());
    loop {
        if let Poll::Ready(done) = future.as_mut().poll(&mut cx) {
            return done;
        }
    }
}

/// Which tasks an executor stall holds up.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Group {
    /// Tasks of the code under test.
    Proxy,
    /// Tasks of the peers.
    Peer,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// A task, taken from the ready queue.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct TaskId(u64);

/// The tasks and their ready queue.
pub(crate) struct Executor {
    tasks: RefCell<Tasks>,
    ready: Arc<Ready>,
}

#[derive(Default)]
struct Tasks {
    next: u64,
    map: BTreeMap<u64, Entry>,
}

struct Entry {
    group: Group,
    waker: Arc<TaskWaker>,
    /// Empty while the task is being polled.
    task: Option<Task>,
    /// It is dropped in place of its next poll.
    doomed: bool,
}

#[derive(Default)]
struct Ready {
    queue: Mutex<VecDeque<u64>>,
    outer: Mutex<Option<Waker>>,
}

struct TaskWaker {
    id: u64,
    queued: AtomicBool,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            self.ready.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.id);
            let outer = self.ready.outer.lock().unwrap_or_else(PoisonError::into_inner).clone();
            if let Some(outer) = outer {
                outer.wake();
            }
        }
    }
}

impl Executor {
    pub(crate) fn new() -> Executor {
        Executor { tasks: RefCell::default(), ready: Arc::default() }
    }

    /// Adds a task, ready to be polled.
    pub(crate) fn spawn(&self, group: Group, task: impl Future<Output = ()> + 'static) {
        let mut tasks = self.tasks.borrow_mut();
        let id = tasks.next;
        tasks.next += 1;
        let waker = Arc::new(TaskWaker { id, queued: AtomicBool::new(false), ready: self.ready.clone() });
        tasks
            .map
            .insert(id, Entry { group, waker: waker.clone(), task: Some(Box::pin(task)), doomed: false });
        drop(tasks);
        waker.wake();
    }

    /// Polls the first ready task outside of `stalled`; says whether there was one.
    pub(crate) fn run_one(&self, stalled: Option<Group>) -> bool {
        match self.take_ready(stalled, |_| 0) {
            Some(id) => {
                self.run(id);
                true
            }
            None => false,
        }
    }

    /// Polls a task that was taken from the ready queue.
    pub(crate) fn run(&self, id: TaskId) {
        let TaskId(id) = id;
        let mut tasks = self.tasks.borrow_mut();
        let Some(entry) = tasks.map.get_mut(&id) else { return };
        if entry.doomed {
            let entry = tasks.map.remove(&id);
            drop(tasks);
            return drop(entry);
        }
        entry.waker.queued.store(false, Ordering::Release);
        let waker = Waker::from(entry.waker.clone());
        let Some(mut task) = entry.task.take() else { return };
        // A task may spawn or wake while it runs: nothing is borrowed meanwhile.
        drop(tasks);
        let done = task.as_mut().poll(&mut Context::from_waker(&waker)).is_ready();
        let mut tasks = self.tasks.borrow_mut();
        let finished = if done {
            tasks.map.remove(&id)
        } else {
            if let Some(entry) = tasks.map.get_mut(&id) {
                entry.task = Some(task);
            }
            return;
        };
        drop(tasks);
        drop(finished);
    }

    /// Takes one of the ready tasks outside of `stalled`: of so many, the one that `pick` names.
    pub(crate) fn take_ready(
        &self,
        stalled: Option<Group>,
        pick: impl FnOnce(usize) -> usize,
    ) -> Option<TaskId> {
        let tasks = self.tasks.borrow();
        let mut queue = self.ready.queue.lock().unwrap_or_else(PoisonError::into_inner);
        let position = match stalled {
            None if queue.is_empty() => None,
            None => Some(pick(queue.len())),
            Some(_) => {
                let runs = |id: &u64| tasks.map.get(id).is_none_or(|entry| Some(entry.group) != stalled);
                let count = queue.iter().filter(|id| runs(id)).count();
                let nth = if count == 0 { 0 } else { pick(count) };
                queue.iter().enumerate().filter(|(_, id)| runs(id)).nth(nth).map(|(at, _)| at)
            }
        };
        queue.remove(position?).map(TaskId)
    }

    /// Puts a task that was taken back at the end of the ready queue.
    pub(crate) fn put_ready(&self, TaskId(id): TaskId) {
        self.ready.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(id);
    }

    /// Whose task it is; `None` if it has ended.
    pub(crate) fn group(&self, TaskId(id): TaskId) -> Option<Group> {
        self.tasks.borrow().map.get(&id).map(|entry| entry.group)
    }

    /// Wakes one of the tasks, for no reason: of so many, the one that `pick` names.
    pub(crate) fn wake_any(&self, pick: impl FnOnce(usize) -> usize) {
        let tasks = self.tasks.borrow();
        if !tasks.map.is_empty() {
            let nth = pick(tasks.map.len());
            tasks.map.values().nth(nth).into_iter().for_each(|entry| entry.waker.wake_by_ref());
        }
    }

    /// Whether a task of `group` is in the ready queue.
    pub(crate) fn has_ready(&self, group: Group) -> bool {
        let tasks = self.tasks.borrow();
        let queue = self.ready.queue.lock().unwrap_or_else(PoisonError::into_inner);
        queue.iter().any(|id| tasks.map.get(id).is_some_and(|entry| entry.group == group))
    }

    /// Wakes every task, for no reason.
    pub(crate) fn wake_all(&self) {
        let wakers: Vec<_> = self.tasks.borrow().map.values().map(|entry| entry.waker.clone()).collect();
        wakers.iter().for_each(Wake::wake_by_ref);
    }

    /// How many tasks of `group` there are.
    pub(crate) fn count(&self, group: Group) -> usize {
        self.tasks.borrow().map.values().filter(|entry| entry.group == group).count()
    }

    /// Drops one task of `group`, not the first nor one that is being polled: at once, or `in_place` of its next poll,
    /// when something has woken it that it has not seen yet. False if there is none.
    pub(crate) fn cut(&self, group: Group, nth: usize, in_place: bool) -> bool {
        let mut tasks = self.tasks.borrow_mut();
        let later = tasks.map.iter().filter(|(_, e)| e.group == group).skip(1);
        let ids: Vec<u64> = later.filter(|(_, e)| e.task.is_some() && !e.doomed).map(|(id, _)| *id).collect();
        let Some(id) = ids.get(nth % ids.len().max(1)) else { return false };
        if in_place {
            tasks.map.get_mut(id).into_iter().for_each(|entry| entry.doomed = true);
            return true;
        }
        let cut = tasks.map.remove(id);
        drop(tasks);
        cut.is_some()
    }

    /// Drops every task of `group`.
    pub(crate) fn clear(&self, group: Group) {
        let mut tasks = self.tasks.borrow_mut();
        let ids: Vec<u64> = tasks.map.iter().filter(|(_, e)| e.group == group).map(|(id, _)| *id).collect();
        let dropped: Vec<Option<Entry>> = ids.iter().map(|id| tasks.map.remove(id)).collect();
        drop(tasks);
        drop(dropped);
    }

    /// Runs as a part of another executor's task: polls what is ready, a bounded number of times.
    pub(crate) fn poll_tasks(&self, cx: &mut Context<'_>) -> Poll<()> {
        *self.ready.outer.lock().unwrap_or_else(PoisonError::into_inner) = Some(cx.waker().clone());
        for _ in 0..64 {
            if !self.run_one(None) {
                return Poll::Pending;
            }
        }
        // More may be ready: give the outer executor a turn and come back.
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}
