//! The queue for an upstream: who keeps a place in it or at an upstream, and who is woken by the time alone.

use super::*;
use crate::driver::{Decision, Proxy, Report, UpstreamLimits, Upstreams};
use crate::error::Error;
use crate::relay::{Config, Outcome};
use crate::timeout::TimeoutPolicy;

type Outcomes = Rc<RefCell<Vec<Outcome>>>;

/// A proxy with one place at each of its upstreams.
fn narrow(fake: &Fake, upstreams: u16, max_queue: usize) -> Proxy<Fake> {
    let targets = (1..=upstreams).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
    let upstreams = Upstreams::with_limits(targets, UpstreamLimits { max_conns: 1, max_queue });
    Proxy::new(fake.clone(), upstreams, Config { timeouts: TimeoutPolicy::OFF, ..Config::default() })
}

/// A client that has asked.
fn asks(fake: &Fake, proxy: &Proxy<Fake>, outcomes: &Outcomes) -> (Handle, Task) {
    let (client, outcomes) = (peer(), outcomes.clone());
    let mut task = Task::new(proxy.serve_connection(
        fake.stream(&client),
        None,
        |_: &crate::RequestHead<'_>| Decision::forward(),
        move |report: &Report<'_>| outcomes.borrow_mut().push(*report.outcome),
    ));
    send(&client, GET);
    assert!(!task.run());
    (client, task)
}

/// A client that has asked for the second time, on an idle connection, and one that waits for its place. The queue has
/// room for this one alone.
fn on_an_idle_connection(fake: &Fake) -> (Proxy<Fake>, Outcomes, [(Handle, Task); 2]) {
    let (proxy, outcomes) = (narrow(fake, 1, 1), Outcomes::default());
    let mut first = asks(fake, &proxy, &outcomes);
    send(&fake.upstream(0), OK5);
    first.1.run();
    got(&first.0);
    got(&fake.upstream(0));
    send(&first.0, GET);
    first.1.run();
    assert!(got(&fake.upstream(0)).starts_with("GET "), "on the idle connection");
    let waits = asks(fake, &proxy, &outcomes);
    outcomes.borrow_mut().clear();
    assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (1, 1));
    (proxy, outcomes, [first, waits])
}

#[test]
fn a_stale_idle_connection_is_replaced_without_losing_the_place() {
    let fake = Fake::new();
    let (proxy, outcomes, [mut first, mut waits]) = on_an_idle_connection(&fake);
    at(&fake.upstream(0), |p| p.fin = true);
    first.1.run();
    assert!(fake.upstream(0).borrow().closed);
    assert!(!waits.1.is_woken(), "who came later is not served before it");
    assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (1, 1), "and the queue is not asked");
    assert!(got(&fake.upstream(1)).starts_with("GET "), "it was sent once more at once");
    send(&fake.upstream(1), OK5);
    first.1.run();
    assert!(got(&first.0).ends_with("hello"));
    waits.1.run();
    send(&fake.upstream(1), OK5);
    waits.1.run();
    assert!(got(&waits.0).ends_with("hello"));
    assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (0, 0));
    let outcomes = outcomes.borrow();
    assert!(outcomes.iter().all(|outcome| outcome.error.is_none()));
    assert_eq!((outcomes[0].attempts, outcomes[0].reused), (1, false));
}

/// Wherever the second try ends, the place is given back, once.
#[test]
fn the_place_of_a_second_try_is_given_back_however_it_ends() {
    for refused in [false, true] {
        let fake = Fake::new();
        let (proxy, outcomes, [mut first, mut waits]) = on_an_idle_connection(&fake);
        fake.0.borrow_mut().connects = false;
        fake.0.borrow_mut().refuses = refused;
        at(&fake.upstream(0), |p| p.fin = true);
        first.1.run();
        if refused {
            assert!(got(&first.0).starts_with("HTTP/1.1 502 "));
            assert!(matches!(outcomes.borrow()[0].error, Some(Error::Connect(_))));
            assert!(!outcomes.borrow()[0].reused, "it had no connection");
        } else {
            assert!(!waits.1.is_woken());
            first.1.cancel();
        }
        assert!(waits.1.is_woken());
        assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (1, 0));
        fake.0.borrow_mut().refuses = false;
        fake.0.borrow_mut().connects = true;
        waits.1.run();
        send(&fake.upstream(2), OK5);
        waits.1.run();
        assert!(got(&waits.0).ends_with("hello"));
        assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (0, 0));
    }
}

/// Nothing happens but that five seconds are over.
#[test]
fn an_upstream_that_is_left_out_is_for_whoever_waits_as_soon_as_it_may_be_tried_again() {
    for leaves in [false, true] {
        let fake = Fake::new();
        let (proxy, outcomes) = (narrow(&fake, 2, 9), Outcomes::default());
        // The first attempt is refused: that upstream is left out, and the other one is busy.
        fake.0.borrow_mut().then = Some((0, Came::Refused));
        let _busy = asks(&fake, &proxy, &outcomes);
        fake.set_clock(1000);
        let mut first = asks(&fake, &proxy, &outcomes);
        let mut second = asks(&fake, &proxy, &outcomes);
        assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (1, 2));
        if leaves {
            fake.set_clock(2000);
            first.1.cancel();
            second.1.run();
            first = asks(&fake, &proxy, &outcomes);
            core::mem::swap(&mut first, &mut second);
        }
        fake.set_clock(4999);
        assert!(!first.1.is_woken() && !second.1.is_woken());
        assert_eq!(proxy.gauges().in_flight, 1);
        fake.set_clock(5000);
        assert!(first.1.is_woken() && !second.1.is_woken());
        first.1.run();
        assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (2, 1));
        // One request finds out whether it is back.
        let n = fake.0.borrow().upstreams.len() - 1;
        assert_eq!(n, 2);
        assert!(got(&fake.upstream(n)).starts_with("GET "));
        send(&fake.upstream(n), OK5);
        first.1.run();
        assert!(got(&first.0).ends_with("hello"));
        assert!(second.1.is_woken(), "it is back");
    }
}

/// Who is first in the queue once another has left is woken, and that may take longer than what it is woken for.
#[test]
fn who_becomes_the_first_that_waits_and_runs_late_gets_what_may_be_tried_again() {
    let fake = Fake::new();
    let (proxy, outcomes) = (narrow(&fake, 2, 9), Outcomes::default());
    fake.0.borrow_mut().then = Some((0, Came::Refused));
    let _busy = asks(&fake, &proxy, &outcomes);
    let (_, mut first) = asks(&fake, &proxy, &outcomes);
    let (_client, mut second) = asks(&fake, &proxy, &outcomes);
    fake.set_clock(4999);
    first.cancel();
    assert!(second.is_woken());
    fake.set_clock(5001);
    second.run();
    assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (2, 0));
}

/// What is given back because it could not be reached is not for the next in the queue, who can have another that is up.
#[test]
fn who_waits_is_not_given_what_could_not_be_reached_just_now() {
    let fake = Fake::new();
    let (proxy, outcomes) = (narrow(&fake, 2, 9), Outcomes::default());
    fake.0.borrow_mut().connects = false;
    let mut first = asks(&fake, &proxy, &outcomes);
    fake.0.borrow_mut().connects = true;
    let mut other = asks(&fake, &proxy, &outcomes);
    let mut waits = asks(&fake, &proxy, &outcomes);
    assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (2, 1));
    fake.0.borrow_mut().refuses = true;
    fake.connect();
    first.1.run();
    fake.0.borrow_mut().refuses = false;
    // It hears when that may be tried again, and no more: the other one is up.
    waits.1.run();
    assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (1, 2));
    // Nobody else has come to it: who waited is before the one that was refused.
    send(&fake.upstream(1), OK5);
    other.1.run();
    first.1.run();
    waits.1.run();
    assert_eq!((proxy.gauges().in_flight, proxy.gauges().waiting), (1, 1));
    assert!(got(&fake.upstream(1)).matches("GET ").count() == 2, "on the idle connection");
    assert_eq!(fake.0.borrow().upstreams.len(), 2);
}
