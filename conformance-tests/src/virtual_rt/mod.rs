//! A runtime in virtual time: the traits of [`tidegate_core::runtime`] over a simulated network.
//!
//! A [`World`] holds a manual clock, an event queue, a kernel model of loopback TCP (`net.rs`) and a
//! deterministic executor. Code under test and its peers run as tasks; when no task is ready, the clock
//! jumps to the next event. There is no real time, no thread and no randomness here: the same tasks give
//! the same run. The network has a delay ([`LATENCY`]), so that even an endless flood makes time pass.

mod chaos;
mod kernel;
mod net;
mod runtime;

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::future::{Future, poll_fn};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidegate_core::Instant;

pub use self::chaos::Chaos;
use self::chaos::{Dice, Hitch};
use self::net::{Net, Packet};
pub use self::runtime::{VirtualConnect, VirtualListener, VirtualRuntime, VirtualStream, VirtualTimer};
use crate::exec::{Executor, Group, TaskId};
use crate::sim::Rng;

/// One way through the virtual network.
pub const LATENCY: Duration = Duration::from_micros(100);

/// What each direction of a virtual connection can hold: half of it in the sender's buffer, half in the
/// receiver's.
pub const HOP: usize = 128 * 1024;

/// Polls at one instant after which a run counts as spinning.
const SPIN_LIMIT: u32 = 200_000;

/// Steps before a world yields to the executor that polls it.
const STEPS_A_TURN: usize = 64;

/// Whose end of a connection it is.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// The code under test.
    Proxy,
    /// A scripted peer.
    Peer,
}

impl Owner {
    fn group(self) -> Group {
        match self {
            Owner::Proxy => Group::Proxy,
            Owner::Peer => Group::Peer,
        }
    }
}

/// A simulated machine: clock, network and tasks. Cheap to clone; one thread.
#[derive(Clone)]
pub struct World {
    inner: Rc<Inner>,
}

struct Inner {
    now: Cell<Instant>,
    sequence: Cell<u64>,
    events: RefCell<BTreeMap<EventKey, Event>>,
    net: RefCell<Net>,
    tasks: Executor,
    stalled_until: Cell<Option<Instant>>,
    broken_at: Cell<Option<Instant>>,
    /// Chance, if there is any.
    dice: RefCell<Option<Dice>>,
    /// Tasks of each owner whose wake-up is late.
    late: [Cell<usize>; 2],
    /// Timers of each owner that will fire.
    armed: [Cell<usize>; 2],
    /// All that happened, in one number.
    digest: Cell<u64>,
}

/// Events at the same instant happen in the order in which they were scheduled.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct EventKey {
    at: Instant,
    sequence: u64,
}

enum Event {
    Wake(Waker),
    Packet(Packet),
    EndOfStall,
    /// A task whose wake-up is late.
    Ready(TaskId, Owner),
}

/// Why a run ended.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Ran {
    /// The condition came true.
    Done,
    /// The instant came first.
    OutOfTime,
    /// No task is ready and nothing is scheduled: a lost wake-up, or an end without an event.
    Deadlock,
    /// Tasks ran again and again without letting time pass.
    Spinning,
}

impl Default for World {
    fn default() -> World {
        World::new()
    }
}

impl World {
    /// An empty world. Its clock does not start at the epoch, so that code which mistakes an unset
    /// instant for the start of time is found out.
    pub fn new() -> World {
        World {
            inner: Rc::new(Inner {
                now: Cell::new(Instant::from_millis(1_000_000)),
                sequence: Cell::new(0),
                events: RefCell::default(),
                net: RefCell::new(Net::new()),
                tasks: Executor::new(),
                stalled_until: Cell::new(None),
                broken_at: Cell::new(None),
                dice: RefCell::new(None),
                late: Default::default(),
                armed: Default::default(),
                digest: Cell::new(0xcbf2_9ce4_8422_2325),
            }),
        }
    }

    /// Changes what each direction of a connection can hold, for those that are opened from now on.
    pub fn set_hop(&self, hop: usize) {
        self.inner.net.borrow_mut().set_hop(hop);
    }

    /// From now on the runtimes' clock stands still and no timer fires: for showing that a case needs them.
    pub fn break_clocks(&self) {
        self.inner.broken_at.set(Some(self.now()));
    }

    /// An empty world with disturbances; the same seed gives the same ones.
    pub fn with_chaos(chaos: Chaos, seed: u64) -> World {
        let world = World::new();
        *world.inner.dice.borrow_mut() = Some(Dice { chaos, rng: Rng::new(seed) });
        world
    }

    /// All that has happened until now, in one number: equal for equal histories.
    pub fn digest(&self) -> u64 {
        self.inner.digest.get()
    }

    /// Adds something to the history.
    pub fn note(&self, what: u64) {
        // FNV-1a, a word at a time.
        self.inner.digest.set((self.inner.digest.get() ^ what).wrapping_mul(0x0000_0100_0000_01b3));
    }

    /// Timers of `owner` that will fire.
    pub fn armed_timers(&self, owner: Owner) -> usize {
        self.inner.armed[owner as usize].get()
    }

    /// Whether no task of `owner` is about to run: each waits for an event.
    pub fn is_at_rest(&self, owner: Owner) -> bool {
        self.inner.late[owner as usize].get() == 0 && !self.inner.tasks.has_ready(owner.group())
    }

    /// How many of `len` bytes one operation of the proxy moves.
    fn portion(&self, owner: Owner, len: usize) -> usize {
        match &mut *self.inner.dice.borrow_mut() {
            Some(dice) if owner == Owner::Proxy => dice.portion(len),
            _ => len,
        }
    }

    /// What comes in between an operation of the proxy.
    fn hitch(&self, owner: Owner) -> Option<Hitch> {
        match &mut *self.inner.dice.borrow_mut() {
            Some(dice) if owner == Owner::Proxy => dice.hitch(),
            _ => None,
        }
    }

    /// How late a timer of the proxy fires.
    fn late_timer(&self, owner: Owner) -> Duration {
        match &mut *self.inner.dice.borrow_mut() {
            Some(dice) if owner == Owner::Proxy => dice.late_timer(),
            _ => Duration::ZERO,
        }
    }

    /// Polls a ready task, or makes its wake-up late. False if none is ready.
    fn run_task(&self) -> bool {
        let stalled = self.inner.stalled_until.get().map(|_| Group::Proxy);
        let mut dice = self.inner.dice.borrow_mut();
        let Some(dice_now) = dice.as_mut() else {
            drop(dice);
            return self.inner.tasks.run_one(stalled);
        };
        let Some(task) = self.inner.tasks.take_ready(stalled, |ready| dice_now.next(ready)) else {
            return false;
        };
        let late = dice_now.late_wake();
        drop(dice);
        match (late, self.inner.tasks.group(task)) {
            (Some(by), Some(Group::Proxy)) => {
                self.inner.late[Owner::Proxy as usize].update(|n| n + 1);
                self.schedule(self.now() + by, Event::Ready(task, Owner::Proxy));
            }
            _ => {
                self.note(0x100);
                self.inner.tasks.run(task);
            }
        }
        true
    }

    /// The virtual clock.
    pub fn now(&self) -> Instant {
        self.inner.now.get()
    }

    /// A runtime in this world for `owner`.
    pub fn runtime(&self, owner: Owner) -> VirtualRuntime {
        VirtualRuntime::new(self.clone(), owner)
    }

    /// Adds a task.
    pub fn spawn(&self, owner: Owner, task: impl Future<Output = ()> + 'static) {
        self.inner.tasks.spawn(owner.group(), task);
    }

    /// How many tasks `owner` has.
    pub fn tasks(&self, owner: Owner) -> usize {
        self.inner.tasks.count(owner.group())
    }

    /// Drops one of the tasks of `owner`, not the first: in the order in which they began, the `nth` of them, and on
    /// from the beginning if there are not so many. At once, or `in_place` of its next poll. False if there is none.
    pub fn cut_task(&self, owner: Owner, nth: usize, in_place: bool) -> bool {
        self.inner.tasks.cut(owner.group(), nth, in_place)
    }

    /// Drops all tasks of `owner`.
    pub fn cancel_tasks(&self, owner: Owner) {
        self.inner.tasks.clear(owner.group());
    }

    /// Blocks the proxy's executor thread from now on for `length`; peers and network go on.
    pub fn stall(&self, length: Duration) {
        let until = self.now() + length;
        self.inner.stalled_until.set(Some(until));
        self.schedule(until, Event::EndOfStall);
    }

    /// Lets time pass while the calling task runs, as a task does that blocks its thread: what falls due
    /// meanwhile happens after it.
    pub fn block(&self, length: Duration) {
        self.inner.now.set(self.now() + length);
    }

    /// Waits until `at`.
    pub fn sleep_until(&self, at: Instant) -> Sleep {
        Sleep { timer: VirtualTimer::new(self.clone(), Owner::Peer), at, armed: false }
    }

    /// Runs tasks and lets time pass until `done`, at most until `limit`. The future never waits for anything
    /// outside of this world; it yields now and then to whatever executor polls it.
    pub async fn run_until(&self, limit: Instant, mut done: impl FnMut() -> bool) -> Ran {
        let mut polls_at_this_instant = 0;
        poll_fn(|cx| {
            for _ in 0..STEPS_A_TURN {
                if let Some(ran) = self.step(limit, &mut done, &mut polls_at_this_instant) {
                    return Poll::Ready(ran);
                }
            }
            cx.waker().wake_by_ref();
            Poll::Pending
        })
        .await
    }

    /// Polls one task, or lets time pass to the next event. Says how the run ended, if it did.
    fn step(&self, limit: Instant, done: &mut impl FnMut() -> bool, polls: &mut u32) -> Option<Ran> {
        if done() {
            return Some(Ran::Done);
        }
        if self.run_task() {
            *polls += 1;
            return (*polls > SPIN_LIMIT).then_some(Ran::Spinning);
        }
        let Some((key, event)) = self.inner.events.borrow_mut().pop_first() else {
            return Some(Ran::Deadlock);
        };
        if key.at > limit {
            self.inner.events.borrow_mut().insert(key, event);
            self.inner.now.set(limit);
            return Some(Ran::OutOfTime);
        }
        if key.at > self.now() {
            self.inner.now.set(key.at);
            *polls = 0;
        }
        self.note(key.at.as_nanos());
        match event {
            Event::Wake(waker) => waker.wake(),
            Event::Packet(packet) => self.deliver(packet),
            Event::EndOfStall => self.inner.stalled_until.set(None),
            Event::Ready(task, owner) => {
                self.inner.late[owner as usize].update(|n| n - 1);
                self.inner.tasks.put_ready(task);
            }
        }
        if let Some(dice) = &mut *self.inner.dice.borrow_mut()
            && dice.spurious()
        {
            self.inner.tasks.wake_any(|tasks| dice.rng.below(tasks as u64) as usize);
        }
        None
    }

    fn schedule(&self, at: Instant, event: Event) -> EventKey {
        let sequence = self.inner.sequence.get();
        self.inner.sequence.set(sequence + 1);
        let key = EventKey { at: at.max(self.now()), sequence };
        self.inner.events.borrow_mut().insert(key, event);
        key
    }

    fn cancel(&self, key: EventKey) {
        self.inner.events.borrow_mut().remove(&key);
    }

    fn deliver(&self, packet: Packet) {
        let sent = self.inner.net.borrow_mut().deliver(packet);
        self.transmit(sent);
    }

    /// Puts packets on the wire.
    fn transmit(&self, packets: Vec<(Duration, Packet)>) {
        for (mut delay, packet) in packets {
            if let Some(dice) = &mut *self.inner.dice.borrow_mut() {
                delay += dice.packet_delay();
            }
            let at = self.inner.net.borrow_mut().arrival(&packet, self.now() + delay);
            self.schedule(at, Event::Packet(packet));
        }
    }
}

impl fmt::Debug for World {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("World").field("now", &self.now()).finish_non_exhaustive()
    }
}

/// Waits for an instant. Cancel safe.
#[derive(Debug)]
pub struct Sleep {
    timer: VirtualTimer,
    at: Instant,
    armed: bool,
}

impl Future for Sleep {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        use tidegate_core::runtime::Timer;
        let at = self.at;
        if !self.armed {
            self.armed = true;
            Pin::new(&mut self.timer).arm(at);
        }
        Pin::new(&mut self.timer).poll_fired(cx)
    }
}
