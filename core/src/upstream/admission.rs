//! Who may use which upstream: round robin, limits, one queue, and a memory of what has failed.
//!
//! Data alone: no semaphore, no task, no clock. A request is *granted* an upstream, *waits* in one FIFO, or is
//! refused because the queue is full. Whoever was granted gives it back exactly once; what becomes free goes to
//! the first in the queue that can use it. `granted + free` is constant, and a place in the queue or a grant that
//! was not fetched yet goes on to the next when its owner leaves.
//!
//! It drops no waker: one that nobody needs any more is handed out, for whoever guards this by a lock to drop after it.

use alloc::collections::VecDeque;
use alloc::vec::Vec;
use core::time::Duration;

use crate::time::Instant;
use crate::upstream::UpstreamId;

/// How long an upstream that could not be reached is left out while there are others.
const FAILURE_MEMORY: Duration = Duration::from_secs(5);

/// A place in the queue. Not `Clone`: it is fetched or cancelled once.
#[derive(Debug, PartialEq, Eq)]
pub struct Ticket {
    slot: usize,
    until: Instant,
}

impl Ticket {
    /// When its owner is to ask again although nothing has woken it: what has failed may be tried again then.
    /// [`Instant::NEVER`] unless it was the first in the queue when it asked, which watches the clock for all.
    pub fn until(&self) -> Instant {
        self.until
    }
}

/// What came of asking for an upstream.
#[derive(Debug, PartialEq, Eq)]
pub enum Admitted {
    /// This one; it must be given back.
    Granted(UpstreamId),
    /// None is free now.
    Waits(Ticket),
    /// None is free, and the queue is full.
    Refused,
    /// There is none that was not tried.
    Exhausted,
}

#[derive(Debug)]
struct State {
    /// Exchanges that use it.
    busy: usize,
    /// It could not be reached, and is left out until then while there are others.
    down: Instant,
    /// It takes requests.
    active: bool,
}

#[derive(Debug)]
struct Waiter<W> {
    /// Nobody once there is an answer: it was handed out to be woken.
    waker: Option<W>,
    tried: Vec<UpstreamId>,
    answer: Option<Answer>,
    /// When it will ask again, or was woken to learn that it is to.
    until: Instant,
}

/// What the queue has for a waiter.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Answer {
    Granted(UpstreamId),
    /// What it could have used was removed.
    Exhausted,
}

/// The limits and the queue of one list of upstreams. `W` is what wakes a waiter.
///
/// ```
/// use tidegate_core::{Admission, Admitted, Instant};
///
/// // One upstream, for one exchange at a time; one more may wait. What wakes is a name here.
/// let (mut admission, now) = (Admission::new(1, 1), Instant::EPOCH);
/// let id = admission.add().ok_or("too many upstreams")?;
/// assert_eq!(admission.admit(&[], now, &"first"), Admitted::Granted(id));
/// let Admitted::Waits(ticket) = admission.admit(&[], now, &"second") else { panic!("there is room in the queue") };
/// assert_eq!(admission.admit(&[], now, &"third"), Admitted::Refused);
///
/// // What the first gives back is the second's, who is told so.
/// admission.release(id);
/// assert_eq!(admission.hand_over(now), Some("second"));
/// assert_eq!(admission.fetch(ticket, now, &mut "second"), Admitted::Granted(id));
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug)]
pub struct Admission<W> {
    states: Vec<State>,
    limit: usize,
    queue_limit: usize,
    turn: usize,
    queue: VecDeque<usize>,
    waiters: Vec<Option<Waiter<W>>>,
    vacant: Vec<usize>,
    /// One was removed since the whole queue was last looked at: somebody may have nothing left to wait for.
    removed: bool,
}

impl<W: Clone> Admission<W> {
    /// No upstream yet; each for at most `limit` exchanges at once; at most `queue_limit` requests wait.
    pub fn new(limit: usize, queue_limit: usize) -> Admission<W> {
        Admission {
            states: Vec::new(),
            limit,
            queue_limit,
            turn: 0,
            queue: VecDeque::new(),
            waiters: Vec::new(),
            vacant: Vec::new(),
            removed: false,
        }
    }

    /// One more; `None` if there are too many. [`Admission::hand_over`] is to follow.
    pub fn add(&mut self) -> Option<UpstreamId> {
        let id = UpstreamId::new(self.states.len())?;
        self.states.push(State { busy: 0, down: Instant::EPOCH, active: true });
        Some(id)
    }

    /// Nothing new begins on this one. [`Admission::hand_over`] is to follow: who waits for it alone waits in vain.
    pub fn remove(&mut self, id: UpstreamId) {
        if let Some(state) = self.states.get_mut(id.index()) {
            state.active = false;
            self.removed = true;
        }
    }

    /// Whether it takes requests.
    pub fn is_active(&self, id: UpstreamId) -> bool {
        self.states.get(id.index()).is_some_and(|state| state.active)
    }

    /// Exchanges that use it.
    pub fn in_flight(&self, id: UpstreamId) -> usize {
        self.states.get(id.index()).map_or(0, |state| state.busy)
    }

    /// Asks for an upstream that is not among `tried`. [`Admission::hand_over`] is to come before it: what was down may
    /// be due again by now, and is for whoever came first.
    pub fn admit(&mut self, tried: &[UpstreamId], now: Instant, waker: &W) -> Admitted {
        if self.is_exhausted(tried) {
            return Admitted::Exhausted;
        }
        // Who came first goes first, unless nobody who waits could use what this one can.
        if let Some(id) = self.choose(tried, now) {
            return self.grant(id, now);
        }
        if self.queue.len() >= self.queue_limit {
            return Admitted::Refused;
        }
        let until = if self.queue.is_empty() { self.lapse(now) } else { Instant::NEVER };
        let waiter = Waiter { waker: Some(waker.clone()), tried: tried.to_vec(), answer: None, until };
        let slot = match self.vacant.pop() {
            Some(slot) => {
                self.waiters[slot] = Some(waiter);
                slot
            }
            None => {
                self.waiters.push(Some(waiter));
                self.waiters.len() - 1
            }
        };
        self.queue.push_back(slot);
        Admitted::Waits(Ticket { slot, until })
    }

    /// Whether there is none that was not tried.
    fn is_exhausted(&self, tried: &[UpstreamId]) -> bool {
        (0..self.states.len()).all(|i| !self.states[i].active || tried.contains(&id(i)))
    }

    /// Whose turn it is among those that are free, were not tried, and are not known to be down; the ones
    /// that are down only if all that are left are.
    fn choose(&mut self, tried: &[UpstreamId], now: Instant) -> Option<UpstreamId> {
        let ring = self.states.len();
        let order = |turn: usize| (0..ring).map(move |k| (turn + k) % ring);
        let usable = |i: &usize| self.states[*i].active && !tried.contains(&id(*i));
        let any_up = order(self.turn).filter(usable).any(|i| self.states[i].down <= now);
        let free = |i: &usize| {
            let state = &self.states[*i];
            state.busy < self.limit && (state.down <= now || !any_up)
        };
        let chosen = order(self.turn).filter(usable).find(free)?;
        self.turn = chosen + 1;
        Some(id(chosen))
    }

    /// When the first of those that are free and left out may be tried again.
    fn lapse(&self, now: Instant) -> Instant {
        let left_out = |state: &&State| state.active && state.busy < self.limit && state.down > now;
        self.states.iter().filter(left_out).map(|state| state.down).min().unwrap_or(Instant::NEVER)
    }

    fn grant(&mut self, id: UpstreamId, now: Instant) -> Admitted {
        let state = &mut self.states[id.index()];
        state.busy += 1;
        if state.down != Instant::EPOCH && state.down <= now {
            // One request finds out whether it is back; the others wait for what that one finds.
            state.down = now + FAILURE_MEMORY;
        }
        Admitted::Granted(id)
    }

    /// What the queue has for `ticket`: never [`Admitted::Refused`]. If it still waits, `waker` is the one to wake, and
    /// the one before it is left in its place. [`Admission::hand_over`] is to come before it where [`Admission::is_due`].
    pub fn fetch(&mut self, ticket: Ticket, now: Instant, waker: &mut W) -> Admitted {
        let is_first = self.queue.front() == Some(&ticket.slot);
        let until = if is_first { self.lapse(now) } else { Instant::NEVER };
        let Some(waiter) = self.waiters.get_mut(ticket.slot).and_then(Option::as_mut) else {
            return Admitted::Waits(ticket);
        };
        let Some(answer) = waiter.answer else {
            waiter.waker.as_mut().into_iter().for_each(|before| core::mem::swap(before, waker));
            waiter.until = until;
            return Admitted::Waits(Ticket { until, ..ticket });
        };
        self.vacate(ticket.slot);
        match answer {
            Answer::Granted(id) => Admitted::Granted(id),
            Answer::Exhausted => Admitted::Exhausted,
        }
    }

    /// Whether what was left out may have become free by the time alone, and the owner of `ticket` watches the clock for all.
    /// It may watch for another instant than [`Ticket::until`]: that it is the first now it was woken to learn.
    pub fn is_due(&self, ticket: &Ticket, now: Instant) -> bool {
        let waiter = self.waiters.get(ticket.slot).and_then(Option::as_ref);
        waiter.is_some_and(|waiter| waiter.answer.is_none() && waiter.until <= now)
    }

    /// Uses an upstream beyond its limit if need be: for what cannot wait. To be given back like a grant.
    pub fn take(&mut self, id: UpstreamId) {
        if let Some(state) = self.states.get_mut(id.index()) {
            state.busy += 1;
        }
    }

    /// Gives an upstream back. [`Admission::hand_over`] is to follow.
    pub fn release(&mut self, id: UpstreamId) {
        if let Some(state) = self.states.get_mut(id.index()) {
            state.busy = state.busy.saturating_sub(1);
        }
    }

    /// The owner of `ticket` leaves: its place, or what it was granted and has not fetched, is for the next.
    /// [`Admission::hand_over`] is to follow. Returns what was to be woken, if it was not.
    pub fn cancel(&mut self, ticket: Ticket) -> Option<W> {
        let waiter = self.vacate(ticket.slot)?;
        match waiter.answer {
            Some(Answer::Granted(id)) => self.release(id),
            Some(Answer::Exhausted) => {}
            None => self.queue.retain(|slot| *slot != ticket.slot),
        }
        waiter.waker
    }

    /// The upstream could not be reached. That is to be said before it is given back, or the next in the queue gets it for
    /// one that is up; [`Admission::hand_over`] is to follow.
    pub fn failed(&mut self, id: UpstreamId, now: Instant) {
        if let Some(state) = self.states.get_mut(id.index()) {
            state.down = now + FAILURE_MEMORY;
        }
    }

    /// The upstream was reached. [`Admission::hand_over`] is to follow: who waits for another may use it.
    pub fn succeeded(&mut self, id: UpstreamId) {
        if let Some(state) = self.states.get_mut(id.index()) {
            state.down = Instant::EPOCH;
        }
    }

    /// The upstream has answered the exchange that it was granted to at `granted`, on whatever connection: that counts as
    /// [reached](Admission::succeeded), unless it could not be reached since then.
    pub fn answered(&mut self, id: UpstreamId, granted: Instant) {
        let down = self.states.get(id.index()).map_or(Instant::EPOCH, |state| state.down);
        if down <= granted + FAILURE_MEMORY {
            self.succeeded(id);
        }
    }

    /// The first in the queue that can use something free gets it; one for whom nothing is left to wait for is told
    /// so; and the first of all is told if it is to ask again sooner than it knows ([`Ticket::until`]). Returns whom to wake;
    /// to be called again until there is nobody.
    pub fn hand_over(&mut self, now: Instant) -> Option<W> {
        // Most often all are full, and then there is nothing in it for anybody, however many wait.
        if !self.removed && !self.states.iter().any(|state| state.active && state.busy < self.limit) {
            return None;
        }
        for place in 0..self.queue.len() {
            let slot = self.queue[place];
            let Some(tried) = self.waiters[slot].as_mut().map(|w| core::mem::take(&mut w.tried)) else {
                continue;
            };
            let answer = match self.choose(&tried, now) {
                Some(id) => {
                    self.grant(id, now);
                    Some(Answer::Granted(id))
                }
                None => self.is_exhausted(&tried).then_some(Answer::Exhausted),
            };
            if answer.is_some() {
                self.queue.remove(place);
            }
            if let Some(waiter) = self.waiters[slot].as_mut() {
                waiter.tried = tried;
                waiter.answer = answer;
                if answer.is_some() {
                    return waiter.waker.take();
                }
            }
        }
        self.removed = false;
        let first = *self.queue.front()?;
        let lapse = self.lapse(now);
        let waiter = self.waiters.get_mut(first)?.as_mut().filter(|waiter| lapse < waiter.until)?;
        waiter.until = lapse;
        waiter.waker.clone()
    }

    fn vacate(&mut self, slot: usize) -> Option<Waiter<W>> {
        let waiter = self.waiters.get_mut(slot)?.take()?;
        self.vacant.push(slot);
        Some(waiter)
    }

    /// Exchanges that use an upstream, grants that were not fetched yet among them.
    pub fn busy(&self) -> usize {
        self.states.iter().map(|state| state.busy).sum()
    }

    /// Requests that wait.
    pub fn waiting(&self) -> usize {
        self.queue.len()
    }
}

fn id(index: usize) -> UpstreamId {
    UpstreamId(index as u16)
}

#[cfg(test)]
mod tests;
