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
    /// [`Instant::NEVER`] unless it is the first in the queue, which watches the clock for all.
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
    /// the one before it is left in its place. [`Admission::hand_over`] is to come before it once [`Ticket::until`] is due.
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

    /// The upstream could not be reached.
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
mod tests {
    use super::*;
    use proptest::prelude::*;

    const NOW: Instant = Instant::EPOCH;

    fn admission(upstreams: usize, limit: usize, queue: usize) -> Admission<usize> {
        let mut admission = Admission::new(limit, queue);
        for _ in 0..upstreams {
            admission.add().unwrap();
        }
        admission
    }

    fn granted(admitted: Admitted) -> usize {
        match admitted {
            Admitted::Granted(id) => id.index(),
            other => panic!("not granted but {other:?}"),
        }
    }

    fn ticket(admitted: Admitted) -> Ticket {
        match admitted {
            Admitted::Waits(ticket) => ticket,
            other => panic!("does not wait but {other:?}"),
        }
    }

    #[test]
    fn round_robin_skips_what_is_full_and_then_one_queue_takes_the_first_freed() {
        let mut a = admission(2, 1, 9);
        assert_eq!(granted(a.admit(&[], NOW, &0)), 0);
        assert_eq!(granted(a.admit(&[], NOW, &1)), 1);
        let first = ticket(a.admit(&[], NOW, &2));
        let second = ticket(a.admit(&[], NOW, &3));
        a.release(id(1));
        assert_eq!((a.hand_over(NOW), a.hand_over(NOW)), (Some(2), None));
        let second = ticket(a.fetch(second, NOW, &mut 3));
        assert_eq!(a.fetch(first, NOW, &mut 2), Admitted::Granted(id(1)));
        a.release(id(0));
        assert_eq!(a.hand_over(NOW), Some(3));
        assert_eq!(a.fetch(second, NOW, &mut 3), Admitted::Granted(id(0)));
        assert_eq!((a.busy(), a.waiting()), (2, 0));
    }

    #[test]
    fn p_10_a_waiter_that_leaves_just_as_it_is_granted_passes_it_on() {
        let mut a = admission(1, 1, 9);
        granted(a.admit(&[], NOW, &0));
        let tickets = [1, 2, 3].map(|w| ticket(a.admit(&[], NOW, &w)));
        let [first, middle, third] = tickets;
        a.release(id(0));
        assert_eq!(a.hand_over(NOW), Some(1));
        assert_eq!(a.fetch(first, NOW, &mut 1), Admitted::Granted(id(0)));
        a.release(id(0));
        assert_eq!(a.hand_over(NOW), Some(2));
        a.cancel(middle);
        assert_eq!(a.hand_over(NOW), Some(3));
        assert_eq!(a.fetch(third, NOW, &mut 3), Admitted::Granted(id(0)));
        assert_eq!(a.busy(), 1);
    }

    #[test]
    fn a_place_in_the_queue_is_used_again() {
        let mut a = admission(1, 1, 9);
        granted(a.admit(&[], NOW, &0));
        for n in 0..100 {
            // Whoever was granted leaves before it has fetched that, every other time.
            let waits = ticket(a.admit(&[], NOW, &n));
            if n % 2 == 0 {
                a.release(id(0));
                assert_eq!(a.hand_over(NOW), Some(n));
            }
            a.cancel(waits);
            if n % 2 == 0 {
                granted(a.admit(&[], NOW, &0));
            }
        }
        assert_eq!((a.waiters.len(), a.vacant.len()), (1, 1), "its memory is that of those who wait at once");
    }

    #[test]
    fn a_full_queue_refuses_and_what_was_tried_is_not_offered_again() {
        let mut a = admission(2, 1, 1);
        assert_eq!(granted(a.admit(&[id(0)], NOW, &0)), 1);
        let waits = ticket(a.admit(&[id(0)], NOW, &1));
        assert_eq!(a.admit(&[id(0)], NOW, &2), Admitted::Refused);
        assert_eq!(a.admit(&[id(0), id(1)], NOW, &2), Admitted::Exhausted);
        assert_eq!(granted(a.admit(&[], NOW, &3)), 0);
        a.release(id(0));
        assert_eq!(a.hand_over(NOW), None, "the one that waits has tried it");
        a.cancel(waits);
        assert_eq!((a.busy(), a.waiting()), (1, 0));
    }

    #[test]
    fn a_failed_upstream_is_left_out_for_a_while_and_then_tried_by_one() {
        let mut a = admission(2, 9, 9);
        a.failed(id(0), NOW);
        for _ in 0..3 {
            assert_eq!(granted(a.admit(&[], NOW, &0)), 1);
        }
        let later = NOW + FAILURE_MEMORY;
        let both = [granted(a.admit(&[], later, &0)), granted(a.admit(&[], later, &0))];
        assert!(both.contains(&0), "it is tried again");
        assert_eq!(granted(a.admit(&[], later, &0)), 1, "by one alone");
        a.succeeded(id(0));
        let both = [granted(a.admit(&[], later, &0)), granted(a.admit(&[], later, &0))];
        assert!(both.contains(&0) && both.contains(&1));
    }

    /// What finds out whether an upstream is back may have found an idle connection to it, and connect to nothing.
    #[test]
    fn an_answer_brings_an_upstream_back_unless_it_has_failed_since_it_was_asked() {
        let mut a = admission(2, 9, 9);
        let before = granted(a.admit(&[], NOW, &0));
        assert_eq!(before, 0);
        a.failed(id(0), NOW + Duration::from_secs(1));
        a.answered(id(0), NOW);
        let three = |a: &mut Admission<usize>, now| [0; 3].map(|_| granted(a.admit(&[], now, &0)));
        assert_eq!(three(&mut a, NOW + Duration::from_secs(2)), [1; 3], "it has failed since");
        let later = NOW + Duration::from_secs(1) + FAILURE_MEMORY;
        assert_eq!(three(&mut a, later).iter().filter(|i| **i == 0).count(), 1);
        a.answered(id(0), later);
        assert!(three(&mut a, later).iter().filter(|i| **i == 0).count() > 0, "it takes its turn again");
        a.answered(id(9), later);
    }

    /// The first in the queue watches the clock for all, and hears of it if there is something to watch.
    #[test]
    fn the_first_that_waits_knows_when_what_is_left_out_may_be_tried_again() {
        let mut a = admission(3, 1, 9);
        assert_eq!([(); 3].map(|()| granted(a.admit(&[], NOW, &0))), [0, 1, 2]);
        let first = ticket(a.admit(&[id(0)], NOW, &1));
        let second = ticket(a.admit(&[], NOW, &2));
        assert_eq!([first.until(), second.until()], [Instant::NEVER; 2], "all are busy");
        let ms = Instant::from_millis;
        // One that is left out and busy is nothing to wait for: its end comes first.
        a.failed(id(1), ms(1000));
        assert_eq!(a.hand_over(ms(1000)), None);
        a.release(id(1));
        assert_eq!((a.hand_over(ms(1000)), a.hand_over(ms(1000))), (Some(1), None), "told so, once");
        let first = ticket(a.fetch(first, ms(1000), &mut 1));
        let second = ticket(a.fetch(second, ms(1000), &mut 2));
        assert_eq!([first.until(), second.until()], [ms(6000), Instant::NEVER]);
        assert_eq!(a.hand_over(ms(1001)), None, "it knows that");
        // Sooner than that is news, and later is none.
        a.failed(id(0), ms(900));
        a.release(id(0));
        assert_eq!((a.hand_over(ms(1001)), a.hand_over(ms(1001))), (Some(1), None));
        let first = ticket(a.fetch(first, ms(1001), &mut 1));
        assert_eq!(first.until(), ms(5900));
        // What the first one cannot use it watches for the others.
        assert_eq!((a.hand_over(ms(5900)), a.hand_over(ms(5900))), (Some(2), None));
        assert_eq!(granted(a.fetch(second, ms(5900), &mut 2)), 0);
        let first = ticket(a.fetch(first, ms(5900), &mut 1));
        assert_eq!(first.until(), ms(6000));
        // Whoever is first after it hears of it.
        let third = ticket(a.admit(&[id(1)], ms(5950), &3));
        assert_eq!(third.until(), Instant::NEVER);
        a.cancel(first);
        assert_eq!((a.hand_over(ms(5950)), a.hand_over(ms(5950))), (Some(3), None));
        assert_eq!(ticket(a.fetch(third, ms(5950), &mut 3)).until(), ms(6000));
        assert_eq!((a.busy(), a.waiting()), (2, 1));
        // And one that comes when nobody waits knows it from the beginning.
        let mut a = admission(2, 1, 9);
        a.failed(id(0), NOW);
        assert_eq!(granted(a.admit(&[], NOW, &0)), 1);
        let only = ticket(a.admit(&[id(0)], ms(1), &1));
        assert_eq!(only.until(), ms(5000));
        // Once it may be tried again there is nothing to watch, even for somebody who will not try it.
        assert_eq!(a.hand_over(ms(5000)), None);
        assert_eq!(ticket(a.fetch(only, ms(5000), &mut 1)).until(), Instant::NEVER);
    }

    #[test]
    fn a_lone_upstream_is_always_tried() {
        let mut a = admission(1, 9, 9);
        a.failed(id(0), NOW);
        assert_eq!(granted(a.admit(&[], NOW, &0)), 0);
    }

    #[test]
    fn what_was_removed_is_granted_to_nobody_and_counted_to_its_end() {
        let mut a = admission(2, 2, 9);
        assert_eq!(granted(a.admit(&[], NOW, &0)), 0);
        a.remove(id(0));
        assert_eq!([a.is_active(id(0)), a.is_active(id(1))], [false, true]);
        for _ in 0..2 {
            assert_eq!(granted(a.admit(&[], NOW, &0)), 1);
        }
        assert_eq!([a.in_flight(id(0)), a.in_flight(id(1))], [1, 2]);
        let waits = ticket(a.admit(&[], NOW, &0));
        a.release(id(0));
        assert_eq!((a.hand_over(NOW), a.in_flight(id(0))), (None, 0));
        a.cancel(waits);
        a.remove(id(1));
        assert_eq!(a.admit(&[], NOW, &0), Admitted::Exhausted);
        assert!(!a.is_active(id(9)) && a.in_flight(id(9)) == 0, "one that there never was");
    }

    proptest! {
        #![proptest_config(crate::scale::properties(ProptestConfig::default()))]

        /// Whatever happens in whatever order, no permit is lost and none is made.
        #[test]
        fn permits_are_conserved(events in proptest::collection::vec((0u8..6, 0usize..8), 1..200)) {
            let (upstreams, limit) = (3, 2);
            let mut a = admission(upstreams, limit, 5);
            let (mut held, mut waiting) = (Vec::new(), Vec::new());
            let mut now = NOW;
            for (event, n) in events {
                match event {
                    0 | 1 => match a.admit(&[], now, &n) {
                        Admitted::Granted(id) => held.push(id),
                        Admitted::Waits(ticket) => waiting.push(ticket),
                        Admitted::Refused => prop_assert_eq!(a.waiting(), 5),
                        Admitted::Exhausted => prop_assert!(false),
                    },
                    2 if !held.is_empty() => {
                        a.release(held.swap_remove(n % held.len()));
                    },
                    3 if !waiting.is_empty() => {
                        let ticket = waiting.swap_remove(n % waiting.len());
                        match a.fetch(ticket, now, &mut n.clone()) {
                            Admitted::Granted(id) => held.push(id),
                            Admitted::Waits(ticket) => waiting.push(ticket),
                            other => prop_assert!(false, "{other:?}"),
                        }
                    }
                    4 if !waiting.is_empty() => {
                        a.cancel(waiting.swap_remove(n % waiting.len()));
                    },
                    5 => {
                        now = now + Duration::from_secs(n as u64);
                        a.failed(id(n % upstreams), now);
                        if n % 2 == 0 {
                            a.succeeded(id(n % upstreams));
                        }
                    }
                    _ => {}
                }
                while a.hand_over(now).is_some() {}
                prop_assert!(a.states.iter().all(|s| s.busy <= limit));
                // Nobody waits for what is free, unless it is known to be down while another is up.
                let up_and_free = a.states.iter().any(|s| s.down <= now && s.busy < limit);
                prop_assert!(a.waiting() == 0 || !up_and_free);
                // Somebody asks again when what is left out may be tried again.
                let first = a.queue.front().and_then(|slot| a.waiters[*slot].as_ref());
                prop_assert!(first.is_none_or(|waiter| waiter.until <= a.lapse(now)));
                prop_assert_eq!(a.busy() + a.waiting(), held.len() + waiting.len());
            }
            for ticket in waiting {
                a.cancel(ticket);
            }
            for id in held {
                a.release(id);
            }
            prop_assert_eq!((a.busy(), a.waiting()), (0, 0));
        }
    }
}
