//! Accepting, the idle pool's keeper, and the end of both.

use super::*;
use crate::driver::{Decision, Proxy};
use crate::driver::{Report, Upstreams};
use crate::relay::Config;
use crate::upstream::UpstreamId;

fn proxy(fake: &Fake) -> Proxy<Fake> {
    let upstreams = Upstreams::new([SocketAddr::from(([127, 0, 0, 1], 1))]);
    Proxy::new(fake.clone(), upstreams, Config::default())
}

/// A proxy, its upstream, and its keeper, which has not run yet.
fn kept(fake: &Fake) -> (Proxy<Fake>, UpstreamId, Task) {
    let proxy = proxy(fake);
    let (id, keeper) = (proxy.upstreams().list()[0].0, Task::new(proxy.keeper()));
    (proxy, id, keeper)
}

fn serve(proxy: &Proxy<Fake>, listener: &FakeListener) -> Task {
    let route = |_: &crate::RequestHead<'_>| Decision::forward();
    Task::new(proxy.serve(listener.clone(), route, |_: &Report<'_>| {}))
}

/// A client, and the task of its connection.
fn accepted(fake: &Fake, listener: &FakeListener, server: &mut Task) -> (Handle, Task) {
    let client = peer();
    listener.push(Ok(fake.stream(&client)));
    server.run();
    (client, fake.spawned().remove(0))
}

#[test]
fn clients_are_accepted_in_bounded_turns_and_all_end_with_the_server() {
    let (fake, listener) = (Fake::new(), FakeListener::default());
    let proxy = proxy(&fake);
    let mut server = serve(&proxy, &listener);
    let clients: Vec<_> = (0..200).map(|_| peer()).collect();
    for client in &clients {
        listener.push(Ok(fake.stream(client)));
    }
    server.poll();
    assert!(server.is_woken(), "more wait");
    let mut tasks = fake.spawned();
    assert!(tasks.len() < 200);
    server.run();
    tasks.extend(fake.spawned());
    assert_eq!((tasks.len(), proxy.gauges().tasks), (200, 201));
    tasks.iter_mut().for_each(|task| assert!(!task.run()));
    server.cancel();
    tasks.iter_mut().for_each(|task| assert!(task.run()));
    assert_eq!((fake.open(), proxy.gauges().tasks), (0, 0));
}

#[test]
fn a_failing_accept_pauses_and_goes_on() {
    for fires in [Fires::InTime, Fires::Early(Duration::from_millis(20))] {
        let (fake, listener) = (Fake::new(), FakeListener::default());
        fake.0.borrow_mut().fires = fires;
        let proxy = proxy(&fake);
        let mut server = serve(&proxy, &listener);
        let client = peer();
        listener.push(Err(ErrorKind::ConnectionAborted.into()));
        listener.push(Err(io::Error::from_raw_os_error(24)));
        listener.push(Ok(fake.stream(&client)));
        server.run();
        assert_eq!((fake.spawned().len(), listener.0.borrow().calls), (0, 2));
        fake.set_clock(79);
        server.run();
        assert!(fake.spawned().is_empty());
        fake.set_clock(100);
        server.run();
        assert_eq!(fake.spawned().len(), 1, "{fires:?}");
    }
}

#[test]
fn a_stopped_server_ends_when_its_last_connection_has_ended() {
    let (fake, listener) = (Fake::new(), FakeListener::default());
    let proxy = proxy(&fake);
    let mut server = serve(&proxy, &listener);
    listener.push(Ok(fake.stream(&peer())));
    server.run();
    let mut task = fake.spawned().remove(0);
    task.run();
    proxy.stop();
    assert!(!server.run());
    assert!(task.run());
    assert!(server.is_woken() && server.run());
}

/// P-05, P-06, P-08: an idle connection is closed when it is due, when its upstream closes it, and when
/// that sends what nobody asked for; whatever the keeper's timer does.
#[test]
fn the_keeper_closes_what_must_not_be_used() {
    let ends: [fn(&Fake); 4] = [
        |fake| fake.set_clock(60_000),
        |fake| at(&fake.upstream(0), |p| p.fin = true),
        |fake| at(&fake.upstream(0), |p| p.reset = true),
        |fake| send(&fake.upstream(0), b"HTTP/1.1 200 OK\r\n"),
    ];
    for end in ends {
        for fires in [Fires::InTime, Fires::Early(Duration::from_millis(20))] {
            let (fake, listener) = (Fake::new(), FakeListener::default());
            fake.0.borrow_mut().fires = fires;
            let proxy = proxy(&fake);
            let mut server = serve(&proxy, &listener);
            let (client, mut task) = accepted(&fake, &listener, &mut server);
            send(&client, GET);
            task.run();
            send(&fake.upstream(0), OK5);
            task.run();
            server.run();
            task.cancel();
            server.run();
            assert_eq!((fake.open(), proxy.gauges().idle_upstreams), (1, 1));
            fake.set_clock(59_990);
            // One poll is one look, however early the timer is.
            for _ in 0..3 {
                server.poll();
            }
            assert_eq!(fake.open(), 1);
            end(&fake);
            server.run();
            assert_eq!((fake.open(), proxy.gauges().idle_upstreams), (0, 0));
        }
    }
}

/// The body of a response to HEAD that comes behind its head is nobody's answer, although the connection is there to be used
/// again: it is once nothing has come for a while.
#[test]
fn a_connection_that_may_still_get_a_body_is_kept_from_the_next_request() {
    for late in [&b""[..], b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"] {
        let (fake, listener) = (Fake::new(), FakeListener::default());
        let proxy = proxy(&fake);
        let mut server = serve(&proxy, &listener);
        let (client, mut task) = accepted(&fake, &listener, &mut server);
        send(&client, b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n");
        task.run();
        send(&fake.upstream(0), b"HTTP/1.1 200 OK\r\nContent-Length: 44\r\n\r\n");
        task.run();
        assert_eq!(proxy.gauges().idle_upstreams, 1);
        send(&client, GET);
        task.run();
        send(&fake.upstream(0), late);
        server.run();
        send(&fake.upstream(1), OK5);
        task.run();
        assert!(got(&client).ends_with("hello"));
        assert!(!got(&fake.upstream(0)).contains("GET"));
        // The one of GET, and the other unless something came.
        assert_eq!(proxy.gauges().idle_upstreams, if late.is_empty() { 2 } else { 1 });
        if late.is_empty() {
            fake.set_clock(50);
            at(&fake.upstream(1), |peer| peer.fin = true);
            server.run();
            send(&client, GET);
            task.run();
            assert!(got(&fake.upstream(0)).contains("GET"));
        }
    }
}

/// S-05: idle connections that nobody watches any more would stay open for as long as the proxy is held.
#[test]
fn a_dropped_server_closes_idle_connections_unless_another_watches_them() {
    for watched in [false, true] {
        let (fake, listener) = (Fake::new(), FakeListener::default());
        let proxy = proxy(&fake);
        let mut server = serve(&proxy, &listener);
        let mut other = Task::new(proxy.keeper());
        if watched {
            other.run();
        } else {
            other.cancel();
        }
        let (client, mut task) = accepted(&fake, &listener, &mut server);
        send(&client, GET);
        task.run();
        send(&fake.upstream(0), OK5);
        task.run();
        server.cancel();
        assert!(task.run());
        assert_eq!(proxy.gauges().idle_upstreams, usize::from(watched));
        assert_eq!(fake.open(), usize::from(watched));
    }
}

#[test]
fn the_keeper_hears_of_what_is_due_before_all_else_that_it_knows() {
    let fake = Fake::new();
    let (proxy, id, mut keeper) = kept(&fake);
    keeper.run();
    for (until, is_news) in [(100, true), (100, false), (101, false), (50, true), (70, false)] {
        let stream = fake.stream(&peer());
        let usable = Instant::EPOCH..Instant::from_millis(until);
        proxy.shared().idle.put(id, stream, usable, proxy.upstreams());
        assert_eq!(keeper.is_woken(), is_news, "{until}");
        keeper.run();
    }
    for (now, left) in [(49, 5), (50, 4), (70, 3), (99, 3), (100, 1), (101, 0)] {
        fake.set_clock(now);
        keeper.run();
        assert_eq!(proxy.gauges().idle_upstreams, left, "at {now}");
    }
}

/// Which may be other than those that were polled last.
#[test]
fn of_two_keepers_the_first_is_woken_and_then_the_other() {
    let fake = Fake::new();
    let proxy = proxy(&fake);
    let id = proxy.upstreams().list()[0].0;
    let [mut first, mut second] = [(); 2].map(|()| Task::new(proxy.keeper()));
    first.run();
    second.run();
    let put = |until| {
        let usable = Instant::EPOCH..Instant::from_millis(until);
        proxy.shared().idle.put(id, fake.stream(&peer()), usable, proxy.upstreams());
    };
    put(100);
    assert!(first.is_woken() && !second.is_woken());
    first.run();
    first.cancel();
    assert!(second.is_woken(), "the heir");
    second.run();
    put(50);
    assert!(second.is_woken());
    second.run();
    fake.set_clock(100);
    second.run();
    assert_eq!(proxy.gauges().idle_upstreams, 0);
}

/// A signal says nothing about the connection that was looked at.
#[test]
fn an_idle_connection_at_which_a_look_is_interrupted_is_kept() {
    let fake = Fake::new();
    let (proxy, id, mut keeper) = kept(&fake);
    let peer = peer();
    peer.borrow_mut().interrupted = 1;
    proxy.shared().idle.put(id, fake.stream(&peer), Instant::EPOCH..Instant::NEVER, proxy.upstreams());
    peer.borrow_mut().interrupted = 1;
    keeper.run();
    assert_eq!((proxy.gauges().idle_upstreams, peer.borrow().interrupted), (1, 0));
}

/// A look more is for another keeper alone. (That wakers which wake the same may compare as unequal is not shown here: no
/// waker that safe code can make has such clones.)
#[test]
fn an_idle_connection_is_looked_at_once_on_its_way_into_the_pool() {
    let fake = Fake::new();
    let (proxy, id, mut keeper) = kept(&fake);
    keeper.run();
    for _ in 0..4 {
        let peer = peer();
        proxy.shared().idle.put(id, fake.stream(&peer), Instant::EPOCH..Instant::NEVER, proxy.upstreams());
        assert_eq!(peer.borrow().calls, 1);
    }
}
