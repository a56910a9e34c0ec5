//! Phases, places, and who makes room: with wakers that count, and on real threads.

use super::*;
use crate::runtime::wakes::Wakes;
use crate::scale::or_under_miri;
use core::time::Duration;
use proptest::prelude::*;
use std::collections::VecDeque;
use std::sync::atomic::AtomicUsize;
use std::task::Wake;

#[test]
fn the_last_member_of_a_stopped_group_is_woken_when_the_others_have_left() {
    let root = Arc::new(Lifecycle::new(9));
    let group = root.group();
    let (server, client) = (Arc::new(Wakes::default()), Arc::new(Wakes::default()));
    let wakes = |waker: &Arc<Wakes>| waker.count();
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
    woken: Arc<Wakes>,
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
        self.woken.count()
    }
}

#[test]
fn at_the_limit_the_client_that_is_idle_for_longest_makes_room() {
    let root = Arc::new(Lifecycle::new(3));
    let (mut first, mut second) = (Server::new(&root), Server::new(&root));
    let [mut busy, mut old, mut new] = [first.join(), second.join(), first.join()].map(|m| m.expect("room"));
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
    #![proptest_config(crate::scale::properties(ProptestConfig::default()))]

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
                for turn in 0..or_under_miri(2000, 10u64) {
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

proptest! {
    #![proptest_config(crate::scale::properties(ProptestConfig::default()))]

    /// Whoever became idle first is the one to be asked, whatever became of those before it.
    #[test]
    fn the_order_is_that_of_becoming_idle(
        events in proptest::collection::vec((0u8..4, 0usize..8), 1..80),
    ) {
        let root = Arc::new(Lifecycle::new(99));
        let groups = [root.group(), root.group()];
        let mut clients: Vec<(Membership, u64)> = Vec::new();
        for ((event, i), now) in events.into_iter().zip(1..) {
            match event {
                0 => clients.push((groups[i % 2].join(true), 0)),
                1 | 2 if !clients.is_empty() => {
                    let i = i % clients.len();
                    if event == 1 && clients[i].1 == 0 {
                        clients[i].1 = now;
                    } else if event == 2 {
                        clients[i].1 = 0;
                    }
                    clients[i].0.set_idle(event == 1, at(now));
                }
                3 if !clients.is_empty() => drop(clients.swap_remove(i % clients.len())),
                _ => {}
            }
            let longest = clients.iter().map(|(_, since)| *since).filter(|since| *since > 0).min();
            let found = root.oldest_idle().map(|(since, _)| since);
            prop_assert_eq!(found, longest.map(|since| at(since).as_nanos() + 1));
        }
    }
}

/// A flood at the limit: 2,000 idle clients make room for 2,000 others one by one, and all of that looks at each a few
/// times, not at all of them each time.
#[test]
fn to_find_whoever_makes_room_does_not_cost_a_look_at_everybody() {
    const CLIENTS: usize = or_under_miri(2000, 50);
    let root = Arc::new(Lifecycle::new(CLIENTS));
    let mut server = Server::new(&root);
    let mut clients: VecDeque<Membership> = (0..CLIENTS).map(|_| server.join().expect("room")).collect();
    for (client, now) in clients.iter_mut().zip(1..) {
        client.set_idle(true, at(now));
        // Every second one serves a request after that, and is idle again at once.
        if now % 2 == 0 {
            client.set_idle(false, at(now));
            client.set_idle(true, at(now));
        }
    }
    for now in 1..=CLIENTS {
        assert!(server.join().is_none());
        let asked = clients.pop_front().expect("one for each");
        assert!(asked.is_to_leave(true), "the longest idle, number {now}");
        drop(asked);
        let mut new = server.join().expect("its place");
        new.set_idle(true, at((CLIENTS + now) as u64));
        clients.push_back(new);
    }
    let looked = lock(&server.group.state).looked;
    assert!(looked <= 2 * CLIENTS, "{looked}");
}
