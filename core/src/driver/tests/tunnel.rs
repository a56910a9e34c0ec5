//! A tunnel through the driver: FIN to either side, the place at the upstream, bounded turns, and what a drop does.

use super::*;
use crate::driver::{Decision, Proxy, Report, UpstreamLimits, Upstreams};
use crate::error::Error;
use crate::relay::{Config, Outcome};
use crate::timeout::{DeadlineKind, TimeoutPolicy};

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHING: &[u8] = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";

struct Rig {
    fake: Fake,
    proxy: Proxy<Fake>,
    client: Handle,
    upstream: Handle,
    task: Task,
    outcomes: Rc<RefCell<Vec<Outcome>>>,
}

/// A tunnel, to an upstream that serves one at a time.
fn tunnel(timeouts: TimeoutPolicy) -> Rig {
    let fake = Fake::new();
    let limits = UpstreamLimits { max_conns: 1, max_queue: 9 };
    let upstreams = Upstreams::with_limits([SocketAddr::from(([127, 0, 0, 1], 1))], limits);
    let proxy = Proxy::new(fake.clone(), upstreams, Config { timeouts, ..Config::default() });
    let (client, outcomes) = (peer(), Rc::<RefCell<Vec<Outcome>>>::default());
    let seen = outcomes.clone();
    let mut task = Task::new(proxy.serve_connection(
        fake.stream(&client),
        None,
        |_: &crate::RequestHead<'_>| Decision::forward(),
        move |report: &Report<'_>| {
            assert_eq!(report.request.map(|r| r.method()), Some("GET"), "the request is shown at the end");
            seen.borrow_mut().push(*report.outcome);
        },
    ));
    send(&client, UPGRADE);
    task.run();
    let upstream = fake.upstream(0);
    assert!(got(&upstream).contains("\r\nupgrade: websocket\r\n"));
    send(&upstream, SWITCHING);
    assert!(!task.run());
    assert!(got(&client).starts_with("HTTP/1.1 101 "));
    Rig { fake, proxy, client, upstream, task, outcomes }
}

#[test]
fn fin_goes_through_in_both_directions_and_the_place_is_held_to_the_end() {
    for client_first in [true, false] {
        let mut rig = tunnel(TimeoutPolicy::default());
        let sides = [rig.client.clone(), rig.upstream.clone()];
        let [first, second] = if client_first { [0, 1] } else { [1, 0] }.map(|i| &sides[i]);
        send(first, b"bytes");
        at(first, |p| p.fin = true);
        assert!(!rig.task.run());
        assert_eq!((got(second).as_str(), second.borrow().got_fin), ("bytes", true));
        assert!(!first.borrow().got_fin && !first.borrow().closed);
        send(second, b"more");
        assert!(!rig.task.run());
        assert_eq!(got(first), "more");
        assert_eq!(rig.proxy.gauges().in_flight, 1);
        at(second, |p| p.fin = true);
        assert!(rig.task.run());
        assert!(sides.iter().all(|p| p.borrow().closed && !p.borrow().aborted));
        assert_eq!((rig.proxy.gauges().in_flight, rig.proxy.gauges().idle_upstreams), (0, 0), "never pooled");
        assert_eq!(rig.fake.open(), 0);
        let outcomes = rig.outcomes.borrow();
        assert_eq!((outcomes.len(), outcomes[0].status, outcomes[0].error), (1, Some(101), None));
        let bytes = (outcomes[0].request_bytes, outcomes[0].response_bytes);
        assert_eq!(bytes, if client_first { (5, 4) } else { (4, 5) });
    }
}

/// A stream that holds bytes back (TLS) has passed them on before FIN overtakes them.
#[test]
fn fin_waits_for_what_a_stream_holds_back() {
    let mut rig = tunnel(TimeoutPolicy::default());
    at(&rig.upstream, |p| (p.wraps, p.room) = (true, 3));
    send(&rig.client, b"bytes");
    at(&rig.client, |p| p.fin = true);
    rig.task.run();
    assert_eq!((got(&rig.upstream).as_str(), rig.upstream.borrow().got_fin), ("byt", false));
    at(&rig.upstream, |p| p.room = 10);
    rig.task.run();
    assert_eq!((got(&rig.upstream).as_str(), rig.upstream.borrow().got_fin), ("es", true));
}

/// A stream that cannot close one direction alone: nothing is cut off, and it is over at the half-close limit, which each
/// byte on its way starts anew.
#[test]
fn a_side_that_cannot_be_sent_fin_gets_all_until_the_half_close_limit() {
    for no_fin in [Poll::Ready(()), Poll::Pending] {
        for client_first in [true, false] {
            let limit = Some(Duration::from_millis(100));
            let mut rig = tunnel(TimeoutPolicy { tunnel_fin: limit, ..TimeoutPolicy::OFF });
            let sides = [rig.client.clone(), rig.upstream.clone()];
            let [first, second] = if client_first { [0, 1] } else { [1, 0] }.map(|i| &sides[i]);
            at(second, |p| p.no_fin = Some(no_fin));
            send(first, b"bytes");
            at(first, |p| p.fin = true);
            assert!(!rig.task.run());
            assert_eq!((got(second).as_str(), second.borrow().got_fin), ("bytes", false));
            rig.fake.set_clock(60);
            send(second, b"more");
            assert!(!rig.task.run());
            assert_eq!(got(first), "more");
            rig.fake.set_clock(159);
            assert!(!rig.task.run());
            rig.fake.set_clock(160);
            assert!(rig.task.run());
            assert!(
                sides.iter().all(|p| p.borrow().closed && !p.borrow().aborted),
                "there was nothing left to send"
            );
            let error = rig.outcomes.borrow()[0].error;
            assert!(
                matches!(error, Some(Error::Timeout(t)) if t.kind == DeadlineKind::TunnelFin),
                "{error:?}"
            );
            assert_eq!((rig.fake.open(), rig.proxy.gauges().in_flight), (0, 0));
        }
    }
    // One that ends by itself need not wait for the limit.
    let mut rig = tunnel(TimeoutPolicy::default());
    at(&rig.upstream, |p| p.no_fin = Some(Poll::Ready(())));
    at(&rig.client, |p| p.fin = true);
    assert!(!rig.task.run());
    at(&rig.upstream, |p| p.fin = true);
    assert!(rig.task.run());
    assert_eq!(rig.outcomes.borrow()[0].error, None);
}

/// U-11: turns are bounded in tunnels too, so that the drain's deadline is in time.
#[test]
fn a_flood_outruns_no_drain() {
    let ms = |n| Some(Duration::from_millis(n));
    let mut rig = tunnel(TimeoutPolicy { drain: ms(100), ..TimeoutPolicy::OFF });
    at(&rig.upstream, |p| p.floods = Some(&[b'x'; 4096]));
    rig.proxy.drain();
    let mut clock = 0;
    while rig.outcomes.borrow().is_empty() {
        assert!(rig.task.is_woken(), "a turn that was cut short wakes its task");
        let before = rig.upstream.borrow().calls;
        clock += 1;
        rig.fake.set_clock(clock);
        rig.task.poll();
        assert!(rig.upstream.borrow().calls - before <= 64, "a turn is bounded");
        rig.client.borrow_mut().got.clear();
        assert!(clock <= 100);
    }
    assert_eq!(clock, 100);
    let outcome = rig.outcomes.borrow()[0];
    assert!(matches!(outcome.error, Some(Error::Timeout(t)) if t.kind == DeadlineKind::Drain), "{outcome:?}");
    assert!(rig.client.borrow().aborted && rig.upstream.borrow().aborted);
    assert_eq!(rig.fake.open(), 0);
}

#[test]
fn an_idle_tunnel_ends_at_its_limit_and_a_dropped_one_at_once() {
    let mut rig = tunnel(TimeoutPolicy { read: Some(Duration::from_secs(1)), ..TimeoutPolicy::default() });
    rig.fake.set_clock(3_599_999);
    assert!(!rig.task.run());
    rig.fake.set_clock(3_600_000);
    assert!(rig.task.run());
    assert!(!rig.client.borrow().aborted && !rig.upstream.borrow().aborted, "there was nothing left to send");
    assert_eq!((rig.fake.open(), rig.proxy.gauges().in_flight), (0, 0));

    let mut rig = tunnel(TimeoutPolicy::default());
    rig.task.cancel();
    assert!(rig.client.borrow().aborted && rig.upstream.borrow().aborted);
    assert_eq!((rig.fake.open(), rig.proxy.gauges().in_flight), (0, 0));
}
