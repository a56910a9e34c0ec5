//! Limits and the graceful end: who waits, who is woken, who makes room, and that nothing is lost.

use super::*;
use crate::driver::{Decision, Proxy};
use crate::driver::{Report, UpstreamLimits, Upstreams};
use crate::relay::Config;
use crate::scale::or_under_miri;
use crate::timeout::TimeoutPolicy;
use crate::upstream::Admitted;

const CLOSE5: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";

/// A proxy with one place at its one upstream.
fn narrow(fake: &Fake, timeouts: TimeoutPolicy) -> Proxy<Fake> {
    let limits = UpstreamLimits { max_conns: 1, max_queue: 9 };
    let upstreams = Upstreams::with_limits([SocketAddr::from(([127, 0, 0, 1], 1))], limits);
    Proxy::new(fake.clone(), upstreams, Config { timeouts, ..Config::default() })
}

fn connect(fake: &Fake, proxy: &Proxy<Fake>) -> (Handle, Task) {
    let client = peer();
    let route = |_: &crate::RequestHead<'_>| Decision::forward();
    let task = Task::new(proxy.serve_connection(fake.stream(&client), None, route, |_: &Report<'_>| {}));
    (client, task)
}

/// Three clients that have asked: one is served, two wait.
fn three(fake: &Fake, proxy: &Proxy<Fake>) -> Vec<(Handle, Task)> {
    let mut clients: Vec<_> = (0..3).map(|_| connect(fake, proxy)).collect();
    for (client, task) in &mut clients {
        send(client, GET);
        assert!(!task.run());
    }
    assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (1, 2));
    clients
}

#[test]
fn a_place_goes_to_whoever_has_waited_longest() {
    let fake = Fake::new();
    let proxy = narrow(&fake, TimeoutPolicy::default());
    let mut clients = three(&fake, &proxy);
    for (i, (client, task)) in clients.iter_mut().enumerate() {
        assert_eq!(task.is_woken(), i > 0, "woken by the one before it");
        task.run();
        send(&fake.upstream(0), OK5);
        task.run();
        assert!(got(client).ends_with("hello"));
    }
    assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting, proxy.gauges().idle_upstreams), (0, 0, 1));
}

/// P-10, C-19, P-09: whoever has a place or waits for one may leave at any moment, in any order.
#[test]
fn nobody_who_leaves_takes_a_place_along() {
    for order in [[0, 1, 2], [0, 2, 1], [1, 0, 2], [1, 2, 0], [2, 0, 1], [2, 1, 0]] {
        // Before and after the one that is granted has noticed it.
        for notices in [false, true] {
            let fake = Fake::new();
            let proxy = narrow(&fake, TimeoutPolicy::default());
            let mut clients = three(&fake, &proxy);
            for leaver in &order[..2] {
                clients[*leaver].1.cancel();
                if notices {
                    clients[order[2]].1.run();
                }
            }
            let (client, task) = &mut clients[order[2]];
            task.run();
            let upstream = fake.upstream(fake.0.borrow().upstreams.len() - 1);
            send(&upstream, OK5);
            task.run();
            assert!(got(client).ends_with("hello"), "{order:?} {notices}");
            assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (0, 0));
        }
    }
}

#[test]
fn at_the_client_limit_the_oldest_idle_client_makes_room_and_then_the_rest_waits() {
    let (fake, listener) = (Fake::new(), FakeListener::default());
    let config = Config { max_client_conns: 2, ..Config::default() };
    let upstreams = Upstreams::new([SocketAddr::from(([127, 0, 0, 1], 1))]);
    let proxy = Proxy::new(fake.clone(), upstreams, config);
    let route = |_: &crate::RequestHead<'_>| Decision::forward();
    let mut server = Task::new(proxy.serve(listener.clone(), route, |_: &Report<'_>| {}));
    let clients: Vec<_> = (0..4).map(|_| peer()).collect();
    clients[..2].iter().for_each(|client| listener.push(Ok(fake.stream(client))));

    server.run();
    let mut tasks = fake.spawned();
    tasks.iter_mut().for_each(|task| assert!(!task.run()));
    server.run();
    tasks.iter_mut().for_each(|task| assert!(!task.run(), "nobody needs room"));
    clients[2..].iter().for_each(|client| listener.push(Ok(fake.stream(client))));
    server.run();
    assert!(tasks.len() == 2 && fake.spawned().is_empty(), "the others wait");
    // Who has not asked yet is not idle, nor is who waits for an answer; who has had one makes room.
    tasks.iter_mut().for_each(|task| assert!(!task.run()));
    send(&clients[1], GET);
    tasks[1].run();
    send(&fake.upstream(0), OK5);
    assert!(!tasks[0].run() && tasks[1].run());
    server.run();
    let mut third = fake.spawned();
    assert_eq!((third.len(), proxy.gauges().clients), (1, 2));
    send(&clients[2], GET);
    third[0].run();
    server.run();
    assert!(fake.spawned().is_empty(), "nobody is idle");
    third[0].cancel();
    server.run();
    assert_eq!((fake.spawned().len(), proxy.gauges().clients), (1, 2));
}

/// Two threads' servers: the limit is one, who came first is served first at whichever of them it came, and a server
/// that ends leaves what it waited for to the other.
#[test]
fn two_servers_share_one_limit_and_one_queue() {
    let (fake, upstreams) = (Fake::new(), Upstreams::new([SocketAddr::from(([127, 0, 0, 1], 1))]));
    let proxy = Proxy::new(fake.clone(), upstreams, Config { max_client_conns: 2, ..Config::default() });
    let listeners = [FakeListener::default(), FakeListener::default()];
    let route = |_: &crate::RequestHead<'_>| Decision::forward();
    let serve = |proxy: Proxy<Fake>, i: usize| {
        Task::new(proxy.serve(FakeListener::clone(&listeners[i]), route, |_: &Report<'_>| {}))
    };
    let mut servers = [serve(proxy.clone(), 0), serve(proxy.on(fake.clone()), 1)];
    // The second one's third client comes before the first one's.
    for i in [0, 1, 1, 0, 0] {
        listeners[i].push(Ok(fake.stream(&peer())));
        servers[i].run();
    }
    let mut tasks = fake.spawned();
    tasks.iter_mut().for_each(|task| assert!(!task.run()));
    assert_eq!((tasks.len(), proxy.gauges().clients), (2, 2));

    tasks[0].cancel();
    assert!(!servers[0].is_woken() && servers[1].is_woken(), "only the one whose turn it is");
    servers[1].run();
    let mut third = fake.spawned();
    assert_eq!((third.len(), proxy.gauges().clients), (1, 2));
    third[0].cancel();
    assert!(servers[0].is_woken());
    servers[0].run();
    let fourth = fake.spawned();
    assert_eq!((fourth.len(), proxy.gauges().clients), (1, 2));
    // The first one goes while its last client waits: the place is free for whoever comes to the second one.
    servers[0].cancel();
    tasks[1].cancel();
    listeners[1].push(Ok(fake.stream(&peer())));
    servers[1].run();
    assert_eq!((fourth.len(), fake.spawned().len()), (1, 1));
}

#[test]
fn a_drain_answers_what_was_queued_and_ends_the_server() {
    let (fake, listener) = (Fake::new(), FakeListener::default());
    let proxy = narrow(&fake, TimeoutPolicy::default());
    let route = |_: &crate::RequestHead<'_>| Decision::forward();
    let mut server = Task::new(proxy.serve(listener.clone(), route, |_: &Report<'_>| {}));
    let (idle, busy) = (peer(), peer());
    listener.push(Ok(fake.stream(&idle)));
    server.run();
    let mut tasks = fake.spawned();
    tasks[0].run();

    listener.push(Ok(fake.stream(&busy)));
    send(&busy, GET);
    proxy.drain();
    assert!(!server.run());
    tasks.extend(fake.spawned());
    assert!(tasks[0].run(), "idle");
    assert!(!tasks[1].run());
    send(&fake.upstream(0), OK5);
    tasks[1].run();
    let answer = got(&busy);
    assert!(answer.to_lowercase().contains("connection: close") && answer.ends_with("hello"), "{answer}");
    at(&busy, |p| p.fin = true);
    assert!(tasks[1].run());
    assert!(server.run());
    assert_eq!((fake.open(), proxy.gauges().tasks, proxy.gauges().idle_upstreams), (0, 0, 0));
}

#[test]
fn a_client_that_was_just_answered_is_not_the_longest_idle() {
    let (fake, listener) = (Fake::new(), FakeListener::default());
    let config = Config { max_client_conns: 2, ..Config::default() };
    let proxy = Proxy::new(fake.clone(), Upstreams::default(), config);
    let route = |_: &crate::RequestHead<'_>| Decision::respond(200, "well");
    let mut server = Task::new(proxy.serve(listener.clone(), route, |_: &Report<'_>| {}));
    let clients: Vec<_> = (0..3).map(|_| peer()).collect();
    clients[..2].iter().for_each(|client| listener.push(Ok(fake.stream(client))));
    server.run();
    let mut tasks = fake.spawned();
    // 0 at 1 s, 1 at 2 s, and 0 again at 3 s.
    for (i, s) in [(0, 1000), (1, 2000), (0, 3000)] {
        fake.set_clock(s);
        send(&clients[i], GET);
        assert!(!tasks[i].run());
        assert!(got(&clients[i]).ends_with("well"));
    }
    listener.push(Ok(fake.stream(&clients[2])));
    server.run();
    let ended: Vec<bool> = tasks.iter_mut().map(|t| t.run()).collect();
    assert_eq!(ended, [false, true], "client 1 has been idle for longest");
}

#[test]
fn who_waits_for_an_upstream_that_is_removed_is_told_so() {
    let fake = Fake::new();
    let proxy = narrow(&fake, TimeoutPolicy::OFF);
    let mut clients = three(&fake, &proxy);
    let id = proxy.upstreams().list()[0].0;
    proxy.upstreams().remove(id);
    clients[0].1.cancel();
    for (client, task) in &mut clients[1..] {
        task.run();
        let answer = got(client);
        assert!(answer.starts_with("HTTP/1.1 503 "), "waits for ever: {answer:?}");
    }
}

#[test]
fn an_idle_connection_is_closed_when_its_upstream_is_removed() {
    let fake = Fake::new();
    // No limit would ever end it.
    let proxy = narrow(&fake, TimeoutPolicy::OFF);
    let mut keeper = Task::new(proxy.keeper());
    keeper.run();
    let client = peer();
    let route = |_: &crate::RequestHead<'_>| Decision::forward();
    let mut task = Task::new(proxy.serve_connection(fake.stream(&client), None, route, |_: &Report<'_>| {}));
    send(&client, GET);
    task.run();
    send(&fake.upstream(0), OK5);
    task.run();
    keeper.run();
    assert_eq!(proxy.gauges().idle_upstreams, 1);

    // The keeper may run in another task than before.
    let before = keeper.swap_waker();
    keeper.poll();
    assert_eq!(Arc::strong_count(&before), 1, "the task before is held by nobody");
    proxy.upstreams().remove(proxy.upstreams().list()[0].0);
    keeper.run();
    assert_eq!(proxy.gauges().idle_upstreams, 0);
    assert!(fake.upstream(0).borrow().closed);

    // The peer of a closed connection wakes nobody any more.
    at(&fake.upstream(0), |_| {});
    let waker = keeper.swap_waker();
    keeper.cancel();
    assert_eq!(Arc::strong_count(&waker), 1, "and so is one that has ended");

    // As one that has left connections behind is once they are closed.
    let mut keeper = Task::new(proxy.keeper());
    keeper.run();
    let id = proxy.upstreams().add([SocketAddr::from(([127, 0, 0, 1], 2))]).unwrap();
    let usable = Instant::EPOCH..Instant::NEVER;
    proxy.shared().idle.put(id, fake.stream(&peer()), usable, proxy.upstreams());
    let waker = keeper.swap_waker();
    keeper.cancel();
    assert_eq!(proxy.gauges().idle_upstreams, 1);
    proxy.stop();
    assert_eq!(Arc::strong_count(&waker), 1);
}

#[test]
fn no_descriptors_in_a_drain_is_no_spin() {
    let (fake, listener) = (Fake::new(), FakeListener::default());
    let proxy = narrow(&fake, TimeoutPolicy::default());
    let route = |_: &crate::RequestHead<'_>| Decision::forward();
    let mut server = Task::new(proxy.serve(listener.clone(), route, |_: &Report<'_>| {}));
    server.run();
    (0..or_under_miri(4000, 100)).for_each(|_| listener.push(Err(io::Error::from_raw_os_error(24))));
    proxy.drain();
    let before = server.polls;
    for _ in 0..5000 {
        if !server.is_woken() {
            break;
        }
        server.poll();
    }
    let polls = server.polls - before;
    assert!(polls < 10, "{polls} polls in a row");
}

#[test]
fn who_stays_because_its_request_came_is_not_asked_again() {
    let (fake, listener) = (Fake::new(), FakeListener::default());
    let upstreams = Upstreams::new([SocketAddr::from(([127, 0, 0, 1], 1))]);
    let proxy = Proxy::new(fake.clone(), upstreams, Config { max_client_conns: 2, ..Config::default() });
    let route = |_: &crate::RequestHead<'_>| Decision::forward();
    let mut server = Task::new(proxy.serve(listener.clone(), route, |_: &Report<'_>| {}));
    let clients: Vec<_> = (0..3).map(|_| peer()).collect();
    clients[..2].iter().for_each(|client| listener.push(Ok(fake.stream(client))));
    server.run();
    let mut tasks = fake.spawned();
    for i in 0..2 {
        fake.set_clock(1000 * (i as u64 + 1));
        send(&clients[i], GET);
        tasks[i].run();
        send(&fake.upstream(0), OK5);
        assert!(!tasks[i].run());
    }
    listener.push(Ok(fake.stream(&clients[2])));
    server.run();
    assert!(tasks[0].is_woken() && !tasks[1].is_woken());
    send(&clients[0], GET);
    tasks[0].poll();
    assert!(tasks[1].is_woken(), "the other one is asked");
    assert!(!tasks[0].is_woken(), "it was woken for nothing");
}

/// One that could not be reached for a moment comes back, although whoever finds that out meets an idle connection.
#[test]
fn an_upstream_that_answers_on_an_idle_connection_takes_its_turn_again() {
    let fake = Fake::new();
    let both = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let proxy = Proxy::new(fake.clone(), Upstreams::new(both), Config::default());
    let ask = || {
        let (client, mut task) = connect(&fake, &proxy);
        send(&client, GET);
        task.run();
        let all = fake.0.borrow().upstreams.len();
        let asked = (0..all).find(|n| !got(&fake.upstream(*n)).is_empty());
        (asked.expect("one of those that are connected"), client, task)
    };
    let answer = |(n, client, mut task): (usize, Handle, Task)| {
        send(&fake.upstream(n), OK5);
        task.run();
        assert!(got(&client).ends_with("hello"));
        n
    };
    // Each gets an idle connection, and the first is busy with it when another cannot be had.
    assert_eq!([answer(ask()), answer(ask())], [0, 1]);
    let busy = ask();
    assert_eq!((busy.0, answer(ask())), (0, 1));
    fake.set_clock(1000);
    fake.0.borrow_mut().refuses = true;
    assert_eq!(answer(ask()), 1, "the first was tried");
    answer(busy);
    assert_eq!([(); 3].map(|()| answer(ask())), [1; 3], "what was asked before says nothing about now");
    fake.set_clock(6000);
    let turns = [(); 6].map(|()| answer(ask()));
    assert_eq!(turns.iter().sum::<usize>(), 3, "each has its turn: {turns:?}");

    // So it is if the answer ends that connection.
    let first = || loop {
        match ask() {
            asked @ (0, ..) => return asked,
            asked => answer(asked),
        };
    };
    let busy = first();
    fake.set_clock(7000);
    assert_eq!([(); 2].map(|()| answer(ask())), [1; 2], "the first was tried");
    answer(busy);
    fake.set_clock(12_000);
    fake.0.borrow_mut().refuses = false;
    let (_, client, mut task) = first();
    send(&fake.upstream(0), CLOSE5);
    task.run();
    assert!(got(&client).ends_with("hello") && fake.upstream(0).borrow().closed);
    let turns = [(); 6].map(|()| answer(ask()));
    assert_eq!(turns.iter().filter(|n| **n == 1).count(), 3, "each has its turn: {turns:?}");
}

/// Who came first goes first, also where nothing has happened since but that a failure was forgotten.
#[test]
fn what_may_be_tried_again_is_for_whoever_has_waited_longest() {
    let limits = UpstreamLimits { max_conns: 1, max_queue: 9 };
    let both = [1, 2].map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let upstreams = Upstreams::with_limits(both, limits);
    let ask = |s: u64, wakes: &Arc<Wakes>| {
        upstreams.admit(&[], Instant::from_millis(1000 * s), &Waker::from(Arc::clone(wakes)))
    };
    let [first, second] = [Arc::<Wakes>::default(), Arc::default()];
    let Admitted::Granted(down) = ask(0, &first) else { panic!("all are free") };
    assert!(matches!(ask(0, &first), Admitted::Granted(_)));
    let noop = Waker::noop();
    upstreams.release(down, true, Instant::EPOCH);
    let Admitted::Waits(ticket) = ask(4, &first) else { panic!("it is down") };
    assert!(matches!(ask(6, &second), Admitted::Waits(_)), "somebody waits for it");
    assert_eq!((first.count(), second.count()), (1, 0));
    assert_eq!(upstreams.fetch(ticket, Instant::from_millis(6000), noop), Admitted::Granted(down));
}
