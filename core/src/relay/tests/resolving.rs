//! Names and lists of addresses: what is one attempt to connect, and how its time is shared out.

use super::*;

const FAILED: IoFailure = IoFailure { kind: IoKind::NotFound, os_code: None };

fn named() -> Rig {
    let mut rig = Rig::new(profile());
    rig.named = true;
    rig.client(GET);
    rig
}

fn listed(addresses: u16) -> Rig {
    let mut rig = Rig::new(profile());
    rig.addresses = addresses;
    rig.client(GET);
    rig
}

/// The addresses that were begun to be connected to, in order.
fn dialled(actions: &[Action]) -> Vec<SocketAddr> {
    let addr = |a: &Action| match *a {
        Action::Connect { addr, .. } => Some(addr),
        _ => None,
    };
    actions.iter().filter_map(addr).collect()
}

fn answer(rig: &mut Rig) -> (String, String) {
    let text = rig.client_gets();
    let status = text.lines().find(|l| l.to_ascii_lowercase().starts_with("proxy-status"));
    (text[9..12].into(), status.unwrap_or_default().split_once("tidegate; ").unwrap_or_default().1.into())
}

#[test]
fn the_connect_deadline_covers_the_lookup_and_goes_on_after_it() {
    let mut rig = named();
    assert!(matches!(rig.actions.last(), Some(Action::Resolve(_))), "{:?}", rig.actions);
    assert_eq!(rig.next(), Some((100, DeadlineKind::Connect)));
    rig.at(60);
    rig.resolved(1);
    assert_eq!(dialled(&rig.actions()), [address(1)]);
    assert_eq!(rig.next(), Some((100, DeadlineKind::Connect)));
    rig.at(80);
    rig.with(|relay, env| relay.connected(false, env));
    assert!(rig.upstream_gets().starts_with("GET / "));
    rig.upstream(OK5);
    rig.client_gets();
    let outcome = rig.outcome();
    assert_eq!((outcome.error, outcome.attempts), (None, 1));
    assert_eq!(outcome.timing.connect, Duration::from_millis(80), "looking up is a part of connecting");
}

#[test]
fn c_07_a_lookup_that_is_too_slow_is_a_dns_timeout_and_a_late_answer_changes_nothing() {
    let mut rig = named();
    rig.actions();
    rig.at(100);
    assert_eq!(rig.actions()[0], Action::Abort(Side::Upstream));
    assert_eq!(answer(&mut rig), ("504".into(), "error=dns_timeout; details=\"connect\"".into()));
    assert_eq!((rig.timeout().kind, rig.timeout().during), (DeadlineKind::Connect, Phase::Dns));
    rig.actions();
    rig.at(200);
    rig.resolved(1);
    assert!(rig.actions().is_empty());
}

#[test]
fn an_answer_in_the_turn_in_which_the_deadline_is_due_starts_no_connect() {
    let mut rig = named();
    rig.actions();
    rig.now = Instant::from_millis(100);
    rig.resolved(1);
    assert!(rig.actions().is_empty(), "not begun when expired (T5)");
    rig.at(100);
    assert_eq!(answer(&mut rig).0, "504");
    assert_eq!((rig.timeout().kind, rig.timeout().during), (DeadlineKind::Connect, Phase::Connect));
}

#[test]
fn t5_with_no_time_to_connect_no_name_is_looked_up() {
    let mut rig = Rig::new(TimeoutPolicy { connect: Some(Duration::ZERO), ..profile() });
    rig.named = true;
    rig.client(GET);
    assert!(!rig.actions().iter().any(|a| matches!(a, Action::Resolve(_))));
    rig.at(0);
    assert_eq!(answer(&mut rig).0, "504");
}

#[test]
fn what_a_failed_lookup_is_called_depends_on_why_it_failed() {
    let timed_out = IoFailure { kind: IoKind::TimedOut, os_code: None };
    for (found, status, error) in [
        (Err(FAILED), "502", "error=dns_error"),
        (Ok(Addresses::from_iter([])), "502", "error=dns_error"),
        (Err(timed_out), "504", "error=dns_timeout; details=\"resolver\""),
    ] {
        let mut rig = named();
        let failure = found.clone().err().unwrap_or(FAILED);
        rig.with(|relay, env| relay.resolved(found.clone(), env));
        assert_eq!(answer(&mut rig), (status.into(), error.into()));
        assert_eq!(rig.outcome().error, Some(Error::Resolve(failure)));
        assert_eq!(rig.next().map(|n| n.1), Some(DeadlineKind::KeepAlive), "the client's connection is kept");
    }
}

#[test]
fn a_name_that_is_not_found_leads_to_the_next_upstream() {
    let mut rig = Rig::new(TimeoutPolicy { queue: Some(Duration::ZERO), ..profile() });
    rig.named = true;
    rig.upstreams = 2;
    rig.client(GET);
    rig.actions();
    rig.with(|relay, env| relay.resolved(Err(FAILED), env));
    let actions = rig.actions();
    assert!(actions[..2] == [Action::Abort(Side::Upstream), Action::Admit]);
    // A full period, and no trace of the queue's.
    rig.at(40);
    assert_eq!(rig.next(), Some((100, DeadlineKind::Connect)));
    rig.resolved(1);
    rig.connected();
    rig.upstream_gets();
    rig.upstream(OK5);
    assert!(rig.client_gets().starts_with("HTTP/1.1 200 "));
    assert_eq!(rig.outcome().attempts, 2);
}

#[test]
fn c_05_each_address_has_an_equal_share_of_what_is_left() {
    let mut rig = listed(3);
    assert_eq!(dialled(&rig.actions()), [address(1)]);
    assert_eq!(rig.next(), Some((33, DeadlineKind::ConnectAddress)));
    rig.at(33);
    assert!(rig.actions().is_empty(), "33.3 ms are not over");
    rig.at(34);
    let actions = rig.actions();
    assert!(matches!(actions[..], [Action::Connect { .. }]), "the same attempt goes on: {actions:?}");
    // It fired at 34: half of the 66 that are left.
    assert_eq!(rig.next(), Some((67, DeadlineKind::ConnectAddress)));
    rig.at(67);
    assert_eq!(dialled(&rig.actions()), [address(3)]);
    assert_eq!(rig.next(), Some((100, DeadlineKind::Connect)), "the last one has the rest");
    rig.at(99);
    rig.with(|relay, env| relay.connected(false, env));
    rig.upstream_gets();
    rig.upstream(OK5);
    assert!(rig.client_gets().starts_with("HTTP/1.1 200 "));
    assert_eq!((rig.outcome().error, rig.outcome().attempts), (None, 1));
}

#[test]
fn c_06_addresses_that_all_hang_have_one_connect_deadline_together() {
    let mut rig = listed(3);
    for ms in [34, 67] {
        rig.at(ms);
    }
    rig.at(99);
    assert!(rig.outcomes.is_empty());
    rig.actions();
    rig.at(100);
    assert_eq!(rig.actions()[0], Action::Abort(Side::Upstream));
    assert_eq!(answer(&mut rig), ("504".into(), "error=connection_timeout; details=\"connect\"".into()));
    let timeout = rig.timeout();
    assert_eq!((timeout.kind, timeout.elapsed), (DeadlineKind::Connect, Duration::from_millis(100)));
    assert_eq!((timeout.during, rig.outcome().attempts), (Phase::Connect, 1));
}

#[test]
fn a_refused_address_leads_to_the_next_at_once_and_the_last_error_is_reported() {
    let mut rig = listed(3);
    rig.actions();
    for n in [2, 3] {
        rig.with(|relay, env| relay.failed(Op::Connect, RESET, env));
        assert_eq!(dialled(&rig.actions()), [address(n)]);
    }
    rig.with(|relay, env| relay.failed(Op::Connect, REFUSED, env));
    assert_eq!(answer(&mut rig), ("502".into(), "error=connection_refused".into()));
    assert_eq!(rig.outcome().error, Some(Error::Connect(REFUSED)));
}

#[test]
fn the_shares_are_of_the_total_where_that_ends_sooner_and_without_a_limit_there_are_none() {
    let ms = |n| Some(Duration::from_millis(n));
    for (connect, total, share) in [
        (ms(200), ms(80), Some(40)),
        (None, ms(80), Some(40)),
        (ms(60), ms(80), Some(30)),
        (None, None, None),
    ] {
        let mut rig = Rig::new(TimeoutPolicy { connect, total, ..TimeoutPolicy::OFF });
        rig.addresses = 2;
        rig.client(GET);
        assert_eq!(rig.next(), share.map(|at| (at, DeadlineKind::ConnectAddress)), "{connect:?} {total:?}");
    }
}

#[test]
fn a_drain_that_begins_later_and_leaves_less_shortens_the_share_and_never_lengthens_it() {
    let ms = |n| Some(Duration::from_millis(n));
    // Three addresses share 90 ms from 0 on. A drain at 10 leaves 30, or more than there was, or was asked for before.
    for (drain, since, shares) in
        [(ms(30), 10, [20, 30]), (ms(300), 10, [30, 60]), (None, 10, [30, 60]), (ms(34), 6, [20, 30])]
    {
        let mut rig = Rig::new(TimeoutPolicy { connect: ms(90), drain, ..TimeoutPolicy::OFF });
        rig.addresses = 3;
        rig.client(GET);
        assert_eq!(rig.next(), Some((30, DeadlineKind::ConnectAddress)));
        rig.at(10);
        rig.with(|relay, env| relay.drain(Instant::from_millis(since), env));
        for share in shares {
            assert_eq!(rig.next(), Some((share, DeadlineKind::ConnectAddress)), "{drain:?}");
            rig.at(share);
        }
        assert_eq!(dialled(&rig.actions()).len(), 3, "each has had its turn");
    }
}

#[test]
fn t_19_a_jump_past_every_share_is_one_error() {
    let mut rig = listed(3);
    // The earliest is due first: the share. Then nothing is begun any more, and the whole is over.
    for _ in 0..2 {
        rig.at(5000);
    }
    assert_eq!(answer(&mut rig).0, "504");
    assert_eq!(rig.timeout().kind, DeadlineKind::Connect);
    assert_eq!(dialled(&rig.actions()), [address(1)]);
}

#[test]
fn what_was_resolved_does_not_outlive_the_attempt() {
    // Two requests on one connection: the second looks the name up again.
    let mut rig = named();
    for port in [1, 2] {
        rig.resolved(port);
        rig.connected();
        rig.upstream_gets();
        rig.upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\nConnection: close\r\n\r\n");
        rig.client_gets();
        assert_eq!(rig.relay.exchange.address(), None);
        rig.actions();
        rig.client(GET);
        assert!(matches!(rig.actions.last(), Some(Action::Resolve(_))), "{:?}", rig.actions);
    }
}
