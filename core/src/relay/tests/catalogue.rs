//! Cases of the conformance suite's catalogue that need the machine alone: a table over all phases, and what no
//! kernel can be made to show, since its buffers are larger than ours.

use super::*;

/// A body larger than what the machine holds.
const MUCH: usize = 1_000_000;

/// A phase's name, the status that it ends in if a head can still be sent, whether the client's connection is usable
/// afterwards (the request was read to its end), and how a rig comes to be in it.
type Reached = (&'static str, &'static str, bool, fn(&mut Rig));

fn post(fields: &str) -> Vec<u8> {
    alloc::format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {MUCH}\r\n{fields}\r\n").into_bytes()
}

#[test]
fn t_18_the_total_cancels_the_whole_inner_operation_in_every_phase() {
    let phases: [Reached; 10] = [
        ("queue", "504", true, |rig| {
            rig.full = true;
            rig.client(GET);
        }),
        ("dns", "504", true, |rig| {
            rig.named = true;
            rig.client(GET);
        }),
        ("connect", "504", true, |rig| {
            rig.client(GET);
        }),
        ("write, upstream slow", "504", false, |rig| {
            rig.client(&post(""));
            rig.connected();
            rig.client(&[b'x'; MUCH]);
            rig.take(Side::Upstream, 10);
        }),
        ("write, client slow", "408", false, |rig| {
            rig.client(&post(""));
            rig.connected();
            rig.upstream_gets();
        }),
        ("100-wait", "504", false, |rig| {
            rig.client(&post("Expect: 100-continue\r\n"));
            rig.connected();
            rig.upstream_gets();
        }),
        ("read head", "504", true, |rig| {
            rig.client(GET);
            rig.connected();
            rig.upstream_gets();
            rig.upstream(b"HTTP/1.1 2");
        }),
        ("read body", "", false, |rig| {
            rig.client(GET);
            rig.connected();
            rig.upstream_gets();
            rig.upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab");
            rig.client_gets();
        }),
        ("client write", "", false, |rig| {
            rig.client(GET);
            rig.connected();
            rig.upstream_gets();
            rig.upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
            rig.upstream(&[b'x'; MUCH]);
        }),
        ("client write, nothing more to come", "", false, |rig| {
            rig.client(GET);
            rig.connected();
            rig.upstream_gets();
            rig.upstream(OK5);
            rig.take(Side::Client, 20);
        }),
    ];
    for (name, status, kept, reach) in phases {
        let total = Some(Duration::from_millis(100));
        let mut rig = Rig::new(TimeoutPolicy { total, ..TimeoutPolicy::OFF });
        reach(&mut rig);
        let had_upstream = !rig.actions().iter().any(|a| matches!(a, Action::Release { .. }));
        assert_eq!(rig.next(), Some((100, DeadlineKind::Total)), "{name}: the only timer");
        rig.at(99);
        assert!(rig.actions().is_empty(), "{name}");

        rig.at(100);
        let answer = rig.client_gets();
        let actions = rig.actions();
        // The upstream first; then, once, the client.
        let upstream: Vec<_> =
            actions.iter().position(|a| *a == Action::Abort(Side::Upstream)).into_iter().collect();
        assert_eq!(upstream, if had_upstream { [0].as_slice() } else { &[] }, "{name}: {actions:?}");
        let client = [Action::Report, Action::ShutdownWrite(Side::Client)];
        assert_eq!(actions[upstream.len()..], client[..2 - usize::from(kept)], "{name}: {actions:?}");
        assert_eq!(answer.get(9..12).unwrap_or_default(), status, "{name}: {answer}");
        assert_eq!(rig.timeout().kind, DeadlineKind::Total, "{name}");
        assert_eq!(rig.timeout().response_started, status.is_empty(), "{name}");
        let interest = rig.relay.interest();
        assert!(Op::PASS.into_iter().all(|op| !interest.wants(op) || op == Op::Read(Side::Client)), "{name}");
        assert_eq!(rig.next(), None, "{name}: no timer is left");
        rig.at(10_000_000);
        assert!(rig.actions().is_empty(), "{name}");
    }
}

/// A kernel swallows more than our buffers do, so only here can the client be the slow one of a response that has
/// come whole.
#[test]
fn p_15_a_slow_client_does_not_keep_a_connection_whose_response_has_come() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.actions();
    rig.upstream(OK5);
    let released = rig.actions();
    assert!(matches!(released[..], [Action::Release { .. }]), "{released:?}");
    assert_eq!(rig.next(), Some((150, DeadlineKind::ClientWrite)));
    rig.at(150);
    assert_eq!(
        rig.actions(),
        [Action::Report, Action::Abort(Side::Client)],
        "the upstream's serves another by now"
    );
    assert_eq!(rig.timeout().kind, DeadlineKind::ClientWrite);
}
