//! Admission by hand: turns, limits, the queue and what has failed, each alone; and that no place is lost or made in any order.

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

/// Whoever is first after another learns it by a wake, and may come too late to watch for what it was woken for.
#[test]
fn who_comes_first_and_comes_late_misses_nothing_that_may_be_tried_again() {
    let (mut a, ms) = (admission(2, 1, 9), Instant::from_millis);
    a.failed(id(0), NOW);
    assert_eq!(granted(a.admit(&[], NOW, &0)), 1);
    let first = ticket(a.admit(&[], ms(1), &1));
    let second = ticket(a.admit(&[], ms(1), &2));
    assert_eq!([first.until(), second.until()], [ms(5000), Instant::NEVER]);
    assert_eq!([4999, 5000].map(|now| a.is_due(&first, ms(now))), [false, true]);
    a.cancel(first);
    assert_eq!((a.hand_over(ms(4999)), a.hand_over(ms(4999))), (Some(2), None));
    assert_eq!([4999, 5001].map(|now| a.is_due(&second, ms(now))), [false, true]);
    assert_eq!((a.hand_over(ms(5001)), a.hand_over(ms(5001))), (Some(2), None));
    assert!(!a.is_due(&second, ms(9999)), "it has its answer");
    assert_eq!(granted(a.fetch(second, ms(5001), &mut 2)), 0);
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

/// Whatever happens in whatever order, no permit is lost and none is made; and who is to ask again knows it, or is
        /// woken, however late it does.
        #[test]
        fn permits_are_conserved(events in proptest::collection::vec((0u8..7, 0usize..8), 1..200)) {
            let (upstreams, limit) = (3, 2);
            let mut a = admission(upstreams, limit, 5);
            // Those that wait: what they are woken by, and whether they were and have not run since.
            let (mut held, mut waiting) = (Vec::new(), Vec::<(Ticket, usize, bool)>::new());
            let mut now = NOW;
            let hand_over = |a: &mut Admission<usize>, waiting: &mut Vec<(Ticket, usize, bool)>, now| {
                while let Some(who) = a.hand_over(now) {
                    waiting.iter_mut().filter(|w| w.1 == who).for_each(|w| w.2 = true);
                }
            };
            for (who, (event, n)) in events.into_iter().enumerate() {
                match event {
                    0 | 1 => {
                        hand_over(&mut a, &mut waiting, now);
                        match a.admit(&[], now, &who) {
                            Admitted::Granted(id) => held.push(id),
                            Admitted::Waits(ticket) => waiting.push((ticket, who, false)),
                            Admitted::Refused => prop_assert_eq!(a.waiting(), 5),
                            Admitted::Exhausted => prop_assert!(false),
                        }
                    }
                    2 if !held.is_empty() => {
                        a.release(held.swap_remove(n % held.len()));
                    },
                    3 if !waiting.is_empty() => {
                        let (ticket, who, _) = waiting.swap_remove(n % waiting.len());
                        if a.is_due(&ticket, now) {
                            hand_over(&mut a, &mut waiting, now);
                        }
                        match a.fetch(ticket, now, &mut who.clone()) {
                            Admitted::Granted(id) => held.push(id),
                            Admitted::Waits(ticket) => waiting.push((ticket, who, false)),
                            other => prop_assert!(false, "{other:?}"),
                        }
                    }
                    4 if !waiting.is_empty() => {
                        a.cancel(waiting.swap_remove(n % waiting.len()).0);
                    },
                    5 => {
                        now = now + Duration::from_secs(n as u64);
                        a.failed(id(n % upstreams), now);
                        if n % 2 == 0 {
                            a.succeeded(id(n % upstreams));
                        }
                    }
                    6 => now = now + Duration::from_secs(n as u64),
                    _ => {}
                }
                // The time alone, and whoever asks for what it has, tell nobody.
                let is_told = ![3, 6].contains(&event);
                if is_told {
                    hand_over(&mut a, &mut waiting, now);
                }
                prop_assert!(a.states.iter().all(|s| s.busy <= limit));
                // Nobody waits for what is free, unless it is known to be down while another is up.
                let up_and_free = a.states.iter().any(|s| s.down <= now && s.busy < limit);
                prop_assert!(a.waiting() == 0 || !up_and_free || !is_told);
                // Somebody asks again when what is left out may be tried again.
                if let Some(waiter) = a.queue.front().and_then(|slot| a.waiters[*slot].as_ref()) {
                    let (ticket, _, is_woken) = waiting.iter().find(|w| Some(w.1) == waiter.waker).unwrap();
                    let due = if up_and_free { now } else { a.lapse(now) };
                    prop_assert!(*is_woken || ticket.until() <= due);
                }
                prop_assert_eq!(a.busy() + a.waiting(), held.len() + waiting.len());
            }
            for (ticket, ..) in waiting {
                a.cancel(ticket);
            }
            for id in held {
                a.release(id);
            }
            prop_assert_eq!((a.busy(), a.waiting()), (0, 0));
        }
    }
