//! Where two rules of `timeouts.md` meet: interim responses and slow clients, pipelines and deadlines,
//! limits of zero and faults that come at the same moment.

use super::*;
use crate::timeout::DeadlineKind as Kind;
use alloc::vec;

const HINTS: &[u8] = b"HTTP/1.1 103 Early Hints\r\n\r\n";

fn ms(n: u64) -> Option<Duration> {
    Some(Duration::from_millis(n))
}

#[test]
fn an_interim_response_that_waits_for_the_client_holds_the_upstream_back() {
    let mut rig = Rig::relaying(TimeoutPolicy { client_write: None, ..profile() }, GET);
    rig.upstream_gets();
    rig.upstream(HINTS);
    // What follows cannot be looked at yet, so it stays where it is, and no read runs meanwhile.
    let flood = vec![b'x'; 4 << 20];
    assert!(rig.upstream(&flood) <= crate::buf::BLOCK);
    assert_eq!(rig.next(), None);
    rig.at(1000);
    assert!(rig.outcomes.is_empty());
    rig.client_gets();
    assert_eq!(rig.next(), Some((1150, Kind::Read)));
    rig.upstream(OK5);
    assert!(rig.client_gets().ends_with("hello"));
}

#[test]
fn a_client_that_takes_no_interim_response_is_reset() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.upstream(HINTS);
    rig.actions();
    rig.at(150);
    assert_eq!(rig.actions(), [Action::Abort(Side::Upstream), Action::Report, Action::Abort(Side::Client)]);
    assert_eq!((rig.timeout().kind, rig.outcome().status), (Kind::ClientWrite, None));
}

#[test]
fn t_12_a_pipelined_request_that_is_answered_here_has_a_total_of_its_own() {
    let mut rig = Rig::new(TimeoutPolicy { total: ms(100), ..profile() });
    rig.client(&[GET, GET].concat());
    rig.connected();
    rig.upstream_gets();
    rig.upstream(OK5);
    rig.answers = true;
    rig.at(60);
    rig.take(Side::Client, 1);
    assert_eq!(rig.next(), Some((100, Kind::Total)));
    // The first response goes out whole; the second is begun in the same moment and not sent.
    let left: usize = rig.relay.send_bufs(Side::Client).map(<[u8]>::len).sum();
    rig.take(Side::Client, left);
    assert_eq!(rig.outcomes.len(), 1);
    assert_eq!(rig.next(), Some((160, Kind::Total)));
    rig.at(160);
    let Some(Error::Timeout(t)) = rig.outcomes[1].error else { panic!("{:?}", rig.outcomes) };
    assert_eq!((t.kind, t.elapsed), (Kind::Total, Duration::from_millis(100)));
    // T9: there is no upstream to wait for.
    assert_eq!((t.blocked_on, t.response_started), (Side::Client, true));
}

#[test]
fn a_body_that_waits_for_a_100_is_not_the_clients_delay() {
    // Both limits begin in one turn if the upstream's socket takes the head at once.
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    for policy in
        [TimeoutPolicy { write: ms(150), ..profile() }, TimeoutPolicy { total: ms(150), ..profile() }]
    {
        let mut rig = Rig::relaying(policy, head);
        rig.upstream_gets();
        rig.at(150);
        assert!(rig.client_gets().starts_with("HTTP/1.1 504 "));
        assert_eq!(rig.timeout().blocked_on, Side::Upstream);
    }
}

#[test]
fn what_is_held_for_a_deadline_is_let_go_by_a_fault() {
    let mut rig = Rig::new(TimeoutPolicy { total: ms(0), ..profile() });
    rig.client(b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n");
    let answer = rig.client_gets();
    assert!(answer.starts_with("HTTP/1.1 400 "), "{answer}");
    assert_eq!(rig.outcomes.len(), 1);
}

#[test]
fn an_outcome_tells_of_a_reused_connection_also_after_a_timeout() {
    let mut rig = Rig::new(profile());
    rig.pooled = true;
    rig.client(GET);
    rig.upstream_gets();
    rig.at(150);
    rig.client_gets();
    assert_eq!((rig.timeout().kind, rig.outcome().reused), (Kind::Read, true));
}

#[test]
fn a_stop_does_not_soften_an_end_that_was_decided() {
    // A hook that panics leaves the last actions to the drop, which stops the machine.
    let mut rig = Rig::relaying(profile(), b"GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    rig.upstream_gets();
    rig.upstream(b"HTTP/1.1 200 OK\r\n\r\nabc");
    rig.client_gets();
    rig.actions();
    rig.with(|relay, env| {
        relay.failed(Op::Read(Side::Upstream), RESET, env);
        assert_eq!(relay.poll_action(), Some(Action::Abort(Side::Upstream)));
        assert_eq!(relay.poll_action(), Some(Action::Report));
        relay.stop(env);
    });
    assert_eq!(rig.actions(), [Action::Abort(Side::Client)]);
}

#[test]
fn the_total_bounds_an_error_response_that_the_client_does_not_take() {
    let mut rig = Rig::relaying(TimeoutPolicy { client_write: None, total: ms(250), ..profile() }, GET);
    rig.upstream_gets();
    rig.at(150);
    rig.take(Side::Client, 1);
    assert_eq!(rig.next(), Some((250, Kind::Total)));
    rig.actions();
    rig.at(250);
    // T7: what failed first is what is reported.
    assert_eq!(rig.timeout().kind, Kind::Read);
    assert_eq!(rig.actions(), [Action::Report, Action::ShutdownWrite(Side::Client)]);
}

/// Whether the connection is kept after an answer of our own must not depend on how much of the request's body came with
/// its head: found by fuzzing.
#[test]
fn g1_an_answer_of_our_own_to_a_request_with_a_body_ends_the_connection() {
    let max_forwards = "OPTIONS / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n";
    for (head, answers) in [(max_forwards, false), ("POST / HTTP/1.1\r\nHost: a\r\n", true)] {
        for (framing, body, kept) in [
            ("Content-Length: 5\r\n\r\n", "hello", false),
            ("Transfer-Encoding: chunked\r\n\r\n", "5\r\nhello\r\n0\r\n\r\n", false),
            ("Transfer-Encoding: chunked\r\n\r\n", "broken", false),
            ("Content-Length: 0\r\n\r\n", "", true),
            ("\r\n", "", true),
        ] {
            let whole = [head, framing, body].concat();
            for together in [true, false] {
                let mut rig = Rig::new(profile());
                rig.answers = answers;
                rig.client(
                    &whole.as_bytes()[..if together { whole.len() } else { whole.len() - body.len() }],
                );
                let got = rig.client_gets();
                assert!(got.starts_with("HTTP/1.1 200 "), "{whole:?} {got}");
                assert_eq!(!got.contains("connection: close"), kept, "{whole:?} {together}");
                assert_eq!(rig.outcome().error, None);
            }
        }
    }
}

/// C6: a client that has asked for the close may still be sending its body, and must not be reset by it.
#[test]
fn an_early_response_is_lingered_for_whatever_the_client_wished() {
    for fields in ["", "Connection: close\r\n", "Expect: 100-continue\r\nConnection: close\r\n"] {
        for (version, body) in [("1.1", ""), ("1.1", "abc"), ("1.0", "abc")] {
            let head =
                format!("POST / HTTP/{version}\r\nHost: a\r\nContent-Length: 10\r\n{fields}\r\n{body}");
            let mut rig = Rig::relaying(profile(), head.as_bytes());
            rig.upstream_gets();
            rig.actions();
            rig.upstream(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
            let response = rig.client_gets();
            assert!(response.contains("\r\nconnection: close\r\n") && response.ends_with("no"), "{response}");
            let end = [Action::Abort(Side::Upstream), Action::Report, Action::ShutdownWrite(Side::Client)];
            assert_eq!(rig.actions(), end, "{head}");
            assert_eq!(rig.next(), Some((80, DeadlineKind::Linger)), "{head}");
        }
    }
}

/// R7: whoever has begun to answer has the request.
#[test]
fn a_pooled_connection_that_closes_inside_its_answer_is_not_stale() {
    for answer in [b"H".as_slice(), b"HTTP/1.1 200 OK\r\n", HINTS] {
        let mut rig = Rig::new(profile());
        rig.pooled = true;
        rig.client(GET);
        rig.upstream_gets();
        rig.upstream(answer);
        rig.client_gets();
        rig.actions();
        rig.fin(Side::Upstream);
        assert!(rig.client_gets().starts_with("HTTP/1.1 502 "));
        assert_eq!(rig.actions(), [Action::Abort(Side::Upstream), Action::Report], "{answer:?}");
        assert_eq!((rig.outcome().error, rig.outcome().reused), (Some(Error::UpstreamClosed), true));
    }
}

/// F16: as many empty lines as may stand before a request may stand before each.
#[test]
fn empty_lines_are_counted_for_each_request_anew() {
    let mut rig = Rig::new(profile());
    for requests in 1..4 {
        rig.client(&[b"\r\n\r\n\r\n\r\n".as_slice(), GET].concat());
        rig.connected();
        rig.upstream_gets();
        rig.upstream(OK5);
        assert!(rig.client_gets().starts_with("HTTP/1.1 200 "));
        assert_eq!((rig.outcomes.len(), rig.outcomes[requests - 1].error), (requests, None));
    }
    rig.client(b"\r\n\r\n\r\n\r\n\r\n");
    assert!(rig.client_gets().starts_with("HTTP/1.1 400 "));
}

#[test]
fn no_answer_is_read_before_the_head_of_its_request_is_written() {
    let mut rig = Rig::relaying(profile(), GET);
    for _ in 0..3 {
        assert!(!rig.relay.interest().read_upstream);
        rig.take(Side::Upstream, 10);
    }
    rig.upstream_gets();
    assert!(rig.relay.interest().read_upstream);
}

/// U1: what could not be written is no whole request, though nothing of it is left to write.
#[test]
fn a_101_to_a_request_that_could_not_be_written_is_502() {
    let request = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    let mut rig = Rig::relaying(profile(), request);
    rig.take(Side::Upstream, 10);
    let failure = IoFailure { kind: IoKind::BrokenPipe, os_code: None };
    rig.with(|relay, env| relay.failed(Op::Write(Side::Upstream), failure, env));
    rig.upstream(b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw");
    let got = rig.client_gets();
    assert!(got.starts_with("HTTP/1.1 502 ") && !got.contains("raw"), "{got}");
    assert_eq!(rig.outcome().error, Some(Error::UpstreamProtocol(HttpError::UnexpectedUpgrade)));
}
