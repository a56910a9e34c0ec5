//! What passes when nothing goes wrong: framing, keep-alive, interim responses, both ways at once.

use super::*;
use crate::buf::REST;
use crate::scale::or_under_miri;
use alloc::format;
use alloc::string::ToString;
use alloc::vec;

fn body_of(message: &str) -> &str {
    message.split_once("\r\n\r\n").unwrap().1
}

#[test]
fn a_request_and_its_response_pass_and_both_connections_are_kept() {
    let mut rig = Rig::relaying(profile(), GET);
    let request = rig.upstream_gets();
    assert!(request.starts_with("GET / HTTP/1.1\r\n"), "{request}");
    assert!(request.contains("192.0.2.7"), "{request}");
    rig.actions();
    rig.upstream(OK5);
    let response = rig.client_gets();
    assert!(response.starts_with("HTTP/1.1 200 OK\r\n"), "{response}");
    assert_eq!(body_of(&response), "hello");
    let idle = profile().pool_idle;
    assert!(matches!(rig.actions()[..], [Action::Release { idle: i, .. }, Action::Report] if i == idle));
    let outcome = rig.outcome();
    assert_eq!(
        (outcome.status, outcome.error, outcome.attempts, outcome.response_bytes),
        (Some(200), None, 1, 5)
    );
    assert_eq!(rig.next(), Some((150, DeadlineKind::KeepAlive)));

    rig.client(GET);
    rig.connected();
    rig.upstream_gets();
    rig.upstream(OK5);
    assert_eq!(body_of(&rig.client_gets()), "hello");
    assert_eq!(rig.outcomes.len(), 2);
}

#[test]
fn chunked_bodies_are_framed_anew_in_both_directions() {
    let head = b"POST /p HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let mut rig = Rig::relaying(profile(), head);
    rig.client(b"3;x=y\r\nabc\r\n2\r\nde\r\n");
    rig.client(b"0\r\nTrailer: t\r\n\r\n");
    let request = rig.upstream_gets();
    assert!(request.to_lowercase().contains("transfer-encoding: chunked\r\n"), "{request}");
    assert_eq!(body_of(&request), "5\r\nabcde\r\n0\r\n\r\n");

    rig.upstream(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n1\r\nx\r\n");
    assert_eq!(body_of(&rig.client_gets()), "1\r\nx\r\n");
    rig.upstream(b"002\r\nyz\r\n00\r\n\r\n");
    assert_eq!(rig.client_gets(), "2\r\nyz\r\n0\r\n\r\n");
    assert_eq!(rig.outcome().response_bytes, 3);
    assert_eq!(rig.outcome().request_bytes, 5);
}

#[test]
fn many_small_chunks_become_few_slices() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    let mut response = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n".to_vec();
    for i in 0..200 {
        response.extend_from_slice(format!("2\r\n{i:02}\r\n", i = i % 100).as_bytes());
    }
    rig.upstream(&response);
    assert!(rig.relay.send_bufs(Side::Client).count() <= MAX_SLICES);
    let expected: String = (0..200).map(|i| format!("{:02}", i % 100)).collect();
    assert_eq!(body_of(&rig.client_gets()), format!("190\r\n{expected}\r\n"));
}

#[test]
fn a_close_delimited_response_is_chunked_for_a_new_client_and_plain_for_an_old_one() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.actions();
    rig.upstream(b"HTTP/1.1 200 OK\r\n\r\nabc");
    assert_eq!(body_of(&rig.client_gets()), "3\r\nabc\r\n");
    rig.fin(Side::Upstream);
    assert_eq!(rig.client_gets(), "0\r\n\r\n");
    assert_eq!(rig.actions(), [Action::Close(Side::Upstream), Action::Report]);

    let mut rig = Rig::relaying(profile(), b"GET / HTTP/1.0\r\nHost: a\r\n\r\n");
    rig.upstream_gets();
    rig.actions();
    rig.upstream(b"HTTP/1.1 200 OK\r\n\r\nabc");
    rig.fin(Side::Upstream);
    assert_eq!(body_of(&rig.client_gets()), "abc");
    assert_eq!(rig.outcome().error, None);
    // What may still come from it must not reset it before it has read all.
    let end = [Action::Close(Side::Upstream), Action::Report, Action::ShutdownWrite(Side::Client)];
    assert_eq!(rig.actions(), end);
    rig.fin(Side::Client);
    assert_eq!(rig.actions(), [Action::Close(Side::Client)]);
}

#[test]
fn no_body_follows_head_204_and_304() {
    // What announces a body that must not follow is followed by one from many a server: for a while its connection serves
    // nobody else.
    for (request, response, settle) in [
        ("HEAD", "200 OK\r\nContent-Length: 5", 50),
        ("HEAD", "200 OK", 50),
        ("HEAD", "200 OK\r\nContent-Length: 0", 0),
        ("GET", "204 No Content", 0),
        ("GET", "304 Not Modified", 0),
        ("GET", "304 Not Modified\r\nContent-Length: 5", 50),
    ] {
        let mut rig = Rig::relaying(profile(), format!("{request} / HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes());
        rig.upstream_gets();
        rig.upstream(format!("HTTP/1.1 {response}\r\n\r\n").as_bytes());
        assert_eq!(body_of(&rig.client_gets()), "", "{request} {response}");
        assert_eq!(rig.outcome().error, None);
        assert_eq!(rig.next(), Some((150, DeadlineKind::KeepAlive)));
        let settles = rig.actions().iter().find_map(|action| match action {
            Action::Release { settle, .. } => Some(*settle),
            _ => None,
        });
        assert_eq!(settles, Some(Duration::from_millis(settle)), "{request} {response}");
    }
}

#[test]
fn interim_responses_are_relayed_before_the_final_one() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.upstream(b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
    let interim = rig.client_gets();
    assert!(interim.starts_with("HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102"), "{interim}");
    rig.upstream(OK5);
    assert_eq!(body_of(&rig.client_gets()), "hello");
}

#[test]
fn pipelined_requests_are_answered_in_order() {
    let mut rig = Rig::new(profile());
    rig.client(&[GET, b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    rig.connected();
    assert!(rig.upstream_gets().starts_with("GET / "));
    rig.upstream(OK5);
    rig.client_gets();
    rig.connected();
    assert!(rig.upstream_gets().starts_with("GET /2 "));
    rig.upstream(OK5);
    assert_eq!(body_of(&rig.client_gets()), "hello");
    assert_eq!(rig.outcomes.len(), 2);
}

#[test]
fn a_full_block_withdraws_the_read_and_draining_brings_it_back() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1 << 20);
    rig.upstream(head.as_bytes());
    let body = vec![b'x'; 1 << 20];
    let taken = rig.upstream(&body);
    assert!(taken <= crate::buf::BLOCK, "{taken} bytes were buffered");
    assert!(!rig.relay.interest().read_upstream);
    let mut passed = rig.take(Side::Client, usize::MAX).len();
    let mut fed = taken;
    while fed < body.len() {
        fed += rig.upstream(&body[fed..]);
        passed += rig.take(Side::Client, usize::MAX).len();
    }
    assert!(passed > body.len());
    assert_eq!(rig.outcome().response_bytes, 1 << 20);
}

#[test]
fn an_early_response_is_relayed_and_the_client_closed() {
    let mut rig = Rig::relaying(profile(), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    rig.upstream_gets();
    rig.actions();
    rig.upstream(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 2\r\n\r\nno");
    let response = rig.client_gets();
    assert!(response.to_lowercase().contains("connection: close\r\n"), "{response}");
    assert!(response.ends_with("no"));
    // The unfinished request makes the connection useless, and the client may still be sending.
    assert_eq!(
        rig.actions(),
        [Action::Abort(Side::Upstream), Action::Report, Action::ShutdownWrite(Side::Client)]
    );
    assert_eq!(rig.next(), Some((80, DeadlineKind::Linger)));
    rig.client(b"defghij");
    rig.fin(Side::Client);
    assert_eq!(rig.actions(), [Action::Close(Side::Client)]);
}

#[test]
fn an_early_response_survives_a_failed_write_of_the_request() {
    let mut rig = Rig::relaying(profile(), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    rig.with(|relay, env| relay.failed(Op::Write(Side::Upstream), RESET, env));
    rig.upstream(b"HTTP/1.1 403 Forbidden\r\nContent-Length: 2\r\n\r\nno");
    assert!(rig.client_gets().starts_with("HTTP/1.1 403"));
    assert_eq!(rig.outcome().error, None);
}

#[test]
fn a_reset_that_a_write_has_met_is_no_end_of_a_body() {
    // Once a write was told of it, reading ends as if by FIN.
    for kind in [IoKind::Reset, IoKind::TimedOut, IoKind::Unreachable, IoKind::Other, IoKind::BrokenPipe] {
        let failure = IoFailure { kind, os_code: None };
        let whole = kind == IoKind::BrokenPipe;
        let mut rig =
            Rig::relaying(profile(), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
        rig.with(|relay, env| relay.failed(Op::Write(Side::Upstream), failure, env));
        rig.upstream(b"HTTP/1.1 403 Forbidden\r\n\r\nno");
        rig.fin(Side::Upstream);
        assert_eq!(rig.client_gets().ends_with("0\r\n\r\n"), whole, "{kind:?}");
        assert_eq!(rig.outcome().error, (!whole).then_some(Error::UpstreamReset(failure)));
    }
}

#[test]
fn surplus_bytes_after_a_response_are_not_relayed_and_the_connection_not_kept() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.actions();
    rig.upstream(&[OK5, b"HTTP/1.1 200 OK\r\n"].concat());
    assert_eq!(body_of(&rig.client_gets()), "hello");
    assert_eq!(rig.actions(), [Action::Close(Side::Upstream), Action::Report]);
}

/// C4: what the head says of the connection counts, however clean the exchange was.
#[test]
fn a_connection_that_its_upstream_ends_is_not_kept() {
    for (version, fields, kept) in [
        ("1.1", "", true),
        ("1.1", "Connection: keep-alive\r\n", true),
        ("1.1", "Connection: close\r\n", false),
        ("1.1", "Connection: keep-alive\r\nConnection: x, CLOSE\r\n", false),
        ("1.0", "", false),
        ("1.0", "Connection: keep-alive\r\nKeep-Alive: timeout=5\r\n", false),
    ] {
        for (request, body) in [(GET, "hello"), (b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\n", "")] {
            let mut rig = Rig::relaying(profile(), request);
            rig.upstream_gets();
            rig.actions();
            let head = format!("HTTP/{version} 200 OK\r\nContent-Length: 5\r\n{fields}\r\n{body}");
            rig.upstream(head.as_bytes());
            assert_eq!(body_of(&rig.client_gets()), body);
            let actions = rig.actions();
            assert_eq!(matches!(actions[0], Action::Release { .. }), kept, "{version} {fields}");
            assert!(kept || actions[0] == Action::Close(Side::Upstream), "{actions:?}");
            // It says nothing about the client's connection.
            assert_eq!(rig.next(), Some((150, DeadlineKind::KeepAlive)));
        }
    }
}

/// What it announces may come when the connection serves somebody else.
#[test]
fn an_interim_response_that_announces_a_body_spoils_its_connection() {
    for (fields, kept) in [
        ("", true),
        ("Content-Length: 0\r\n", true),
        ("Content-Length: 5\r\n", false),
        ("Transfer-Encoding: chunked\r\n", false),
        ("Connection: close\r\n", false),
    ] {
        for request in [GET, b"GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"] {
            let mut rig = Rig::relaying(profile(), request);
            rig.upstream_gets();
            rig.actions();
            rig.upstream(format!("HTTP/1.1 103 Early Hints\r\n{fields}\r\n").as_bytes());
            rig.client_gets();
            rig.upstream(OK5);
            assert!(rig.client_gets().ends_with("hello"), "{fields}");
            assert_eq!(matches!(rig.actions()[0], Action::Release { .. }), kept, "{fields}");
        }
    }
}

#[test]
fn a_stale_pooled_connection_is_tried_once_more_for_an_idempotent_request_alone() {
    for (request, retried) in [
        (GET, true),
        // A length of zero is no body.
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", true),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\n\r\nb", false),
        (b"PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n", false),
        (b"POST / HTTP/1.1\r\nHost: a\r\n\r\n".as_slice(), false),
        (b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n", false),
    ] {
        let mut rig = Rig::new(profile());
        rig.client(request);
        // The pool had one: as if it had answered instead of the dial.
        rig.relay.exchange.stage = Stage::Checkout;
        rig.with(|relay, env| relay.connected(true, env));
        let first = rig.upstream_gets();
        rig.actions();
        rig.fin(Side::Upstream);
        if retried {
            assert!(matches!(rig.actions[..], [Action::Discard, Action::Resolve(_), Action::Connect { .. }]));
            rig.connected();
            assert_eq!(rig.upstream_gets(), first);
            rig.fin(Side::Upstream);
        }
        assert!(rig.client_gets().starts_with("HTTP/1.1 502 "));
        assert_eq!(rig.outcome().error, Some(Error::UpstreamClosed));
        assert_eq!((rig.outcome().reused, rig.outcome().attempts), (!retried, 1 + u16::from(retried)));
    }
}

#[test]
fn the_next_upstream_is_tried_after_a_failed_connect_and_each_only_once() {
    let mut rig = Rig::new(profile());
    rig.upstreams = 2;
    rig.client(GET);
    rig.actions();
    rig.with(|relay, env| relay.failed(Op::Connect, REFUSED, env));
    assert!(matches!(
        rig.actions()[..],
        [
            Action::Abort(Side::Upstream),
            Action::Admit,
            Action::Checkout(_),
            Action::Resolve(_),
            Action::Connect { upstream, .. }
        ] if upstream.index() == 1
    ));
    rig.at(100);
    assert!(rig.client_gets().starts_with("HTTP/1.1 504 "));
    assert_eq!(rig.outcome().attempts, 2);
    assert_eq!(rig.timeout().kind, DeadlineKind::Connect);
}

#[test]
fn without_an_upstream_the_answer_is_503() {
    let mut rig = Rig::new(profile());
    rig.upstreams = 0;
    rig.client(GET);
    assert!(rig.client_gets().starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_route_may_answer_itself() {
    let mut rig = Rig::new(profile());
    let answer = |relay: &mut Relay, env: &mut Env<'_>| {
        assert_eq!(relay.poll_action(), Some(Action::Route));
        assert_eq!(relay.request().unwrap().target(), "/");
        relay.respond(418, &[("X-Tea", "green")], b"short and stout", env);
    };
    rig.with(|relay, env| {
        let buf = relay.recv_buf(Side::Client, env);
        buf[..GET.len()].copy_from_slice(GET);
        relay.received(Side::Client, GET.len(), env);
        answer(relay, env);
    });
    let response = rig.client_gets();
    assert!(response.starts_with("HTTP/1.1 418 ") && response.contains("X-Tea: green\r\n"), "{response}");
    assert_eq!(body_of(&response), "short and stout");
    assert_eq!(rig.outcome().status, Some(418));
    assert_eq!(rig.next(), Some((150, DeadlineKind::KeepAlive)));
}

#[test]
fn max_forwards_zero_is_answered_here() {
    for (method, status) in [("OPTIONS", "200"), ("TRACE", "501")] {
        let mut rig = Rig::new(profile());
        rig.client(format!("{method} / HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n").as_bytes());
        assert_eq!(rig.client_gets().split(' ').nth(1), Some(status.to_string().as_str()));
        assert_eq!(rig.outcome().upstream, None);
    }
}

#[test]
fn a_half_closed_client_gets_its_answer() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.fin(Side::Client);
    rig.upstream(OK5);
    assert_eq!(body_of(&rig.client_gets()), "hello");
    assert_eq!(rig.outcome().error, None);
    assert_eq!(rig.actions.last(), Some(&Action::Close(Side::Client)));
}

#[test]
fn an_idle_connection_holds_no_block() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.upstream(OK5);
    rig.client_gets();
    rig.with(|relay, env| {
        let _ = relay.recv_buf(Side::Client, env);
        relay.not_ready(Side::Client, env);
    });
    let text = format!("{:?}", rig.relay.client.inbound);
    assert!(text.contains("block: None"), "{text}");
    assert!(format!("{:?}", rig.relay.upstream.inbound).contains("block: None"));
}

#[test]
fn c2_nothing_after_a_request_with_close_is_served() {
    let close = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n".as_slice();
    let mut rig = Rig::relaying(profile(), &[close, GET].concat());
    rig.upstream_gets();
    rig.actions();
    rig.upstream(OK5);
    let response = rig.client_gets();
    assert!(response.contains("connection: close\r\n") && response.ends_with("hello"), "{response}");
    // The client has sent more than it may, so it is given time to read what it got.
    assert!(matches!(
        rig.actions()[..],
        [Action::Release { .. }, Action::Report, Action::ShutdownWrite(Side::Client)]
    ));
    rig.client(GET);
    assert_eq!(rig.actions(), []);
}

#[test]
fn e5_a_final_answer_to_a_withheld_body_ends_the_connection() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 28\r\nExpect: 100-continue\r\n\r\n";
    let mut rig = Rig::relaying(profile(), head);
    rig.upstream_gets();
    rig.actions();
    rig.upstream(b"HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n");
    let response = rig.client_gets();
    assert!(
        response.starts_with("HTTP/1.1 417 ") && response.contains("connection: close\r\n"),
        "{response}"
    );
    assert_eq!(
        rig.actions(),
        [Action::Abort(Side::Upstream), Action::Report, Action::ShutdownWrite(Side::Client)]
    );
    // What would be the body looks like a request, and is none.
    rig.client(GET);
    assert_eq!(rig.actions(), []);
}

#[test]
fn e6_interim_responses_are_limited() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    for _ in 0..100 {
        rig.upstream(b"HTTP/1.1 102 Processing\r\n\r\n");
        assert!(rig.client_gets().starts_with("HTTP/1.1 102 "));
    }
    rig.upstream(b"HTTP/1.1 102 Processing\r\n\r\n");
    // The one too many does not go out with it.
    assert!(rig.client_gets().starts_with("HTTP/1.1 502 "));
    assert_eq!(rig.outcome().error, Some(Error::UpstreamProtocol(HttpError::TooManyInterim)));
}

#[test]
fn b4_a_response_head_over_the_limit_is_502() {
    for start in ["HTTP/1.1 200 OK\r\nX: ", "HTTP/1.1 200 "] {
        let mut rig = Rig::relaying(profile(), GET);
        rig.upstream_gets();
        rig.actions();
        // No end of it has to come.
        rig.upstream(format!("{start}{}", "x".repeat(9000)).as_bytes());
        assert_eq!(rig.actions(), [Action::Abort(Side::Upstream)]);
        let answer = rig.client_gets();
        assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("head too large"), "{answer}");
        assert_eq!(rig.outcome().error, Some(Error::UpstreamProtocol(HttpError::HeadTooLarge)));
    }
}

#[test]
fn a_body_that_fills_its_block_gets_a_larger_one_and_a_slow_one_does_not() {
    let all = or_under_miri(4 << 20, 5 << 18);
    for slow in [false, true] {
        // How much one read gives is the question, so nobody follows in other pieces.
        let mut rig = alone(profile());
        rig.client(GET);
        rig.connected();
        rig.upstream_gets();
        rig.upstream(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", all).as_bytes());
        rig.client_gets();
        let piece = vec![b'x'; if slow { 1000 } else { all }];
        let (mut fed, mut most) = (0, 0);
        while fed < all {
            let taken = rig.upstream(&piece[..piece.len().min(all - fed)]);
            fed += taken;
            most = most.max(taken);
            rig.client_gets();
        }
        assert_eq!(most, if slow { 1000 } else { crate::BULK_BLOCK });
        assert_eq!(rig.outcome().response_bytes, all as u64);
    }
}

/// Thousands of clients may take their time over their heads: what has come is kept, in little memory.
#[test]
fn who_waits_for_the_rest_of_a_head_holds_little() {
    let waits = |rig: &mut Rig, side| {
        rig.with(|relay, env| relay.not_ready(side, env));
        let side = if side == Side::Client { &rig.relay.client.inbound } else { &rig.relay.upstream.inbound };
        side.held()
    };
    let mut rig = Rig::new(profile());
    rig.client(&GET[..1]);
    assert_eq!(rig.relay.client.inbound.held(), crate::BLOCK);
    assert_eq!(waits(&mut rig, Side::Client), REST);
    rig.client(&GET[1..10]);
    // And again, with what came before.
    assert_eq!(waits(&mut rig, Side::Client), REST);
    rig.client(&GET[10..]);
    assert_eq!(waits(&mut rig, Side::Client), 0);
    rig.connected();
    assert!(rig.upstream_gets().starts_with("GET / HTTP/1.1\r\n"));

    // The next request, which comes with this one, is not lost meanwhile; nor is a response's head, or a chunk's line.
    let second = b"POST /2 HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nabcd";
    rig.client(second);
    assert_eq!(waits(&mut rig, Side::Client), REST);
    let head = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    for part in [&head[..20], &head[20..], b"3\r\nabc\r\n1", b"0\r\n", b"0123456789abcdef\r\n0\r\n\r\n"] {
        rig.upstream(part);
        rig.take(Side::Client, usize::MAX);
        assert!(waits(&mut rig, Side::Upstream) <= REST);
    }
    assert_eq!(rig.outcomes.len(), 1, "{:?}", rig.outcomes);
    rig.connected();
    assert!(rig.upstream_gets().ends_with("\r\n\r\nabcd"));

    // More than fits stays where it is.
    let mut rig = Rig::new(profile());
    rig.client(&[&GET[..16], b"X: ", &[b'x'; REST]].concat());
    assert_eq!(waits(&mut rig, Side::Client), crate::BLOCK);
}

#[test]
fn c2_an_error_ends_a_pipeline_after_the_earlier_ones_were_answered() {
    let faulty = b"GET /2 HTTP/1.1\r\nHost: a\r\nA : b\r\n\r\n".as_slice();
    let mut rig = Rig::relaying(profile(), &[GET, faulty, GET].concat());
    rig.upstream_gets();
    rig.upstream(OK5);
    let answers = rig.client_gets();
    let statuses: Vec<_> =
        answers.match_indices("HTTP/1.1 ").map(|(at, _)| &answers[at + 9..at + 12]).collect();
    assert_eq!(statuses, ["200", "400"], "{answers}");
    assert_eq!(rig.outcomes.len(), 2);
    assert_eq!(rig.actions.last(), Some(&Action::ShutdownWrite(Side::Client)));
}

#[test]
fn c3_a_half_closed_pipeline_is_answered_to_its_end() {
    let mut rig = Rig::relaying(profile(), &[GET, GET].concat());
    rig.fin(Side::Client);
    for _ in 0..2 {
        rig.upstream_gets();
        rig.upstream(OK5);
        assert_eq!(body_of(&rig.client_gets()), "hello");
        if rig.outcomes.len() == 1 {
            rig.connected();
        }
    }
    assert!(rig.outcomes.iter().all(|outcome| outcome.error.is_none()) && rig.relay.is_closed());
}
