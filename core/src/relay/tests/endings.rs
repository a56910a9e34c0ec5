//! What both sides see when something goes wrong (`docs/TIMEOUTS.md`, The deadlines and A visible cut; `http.md`).

use super::*;
use alloc::format;
use alloc::string::ToString;

fn status(rig: &mut Rig) -> String {
    rig.client_gets().split(' ').nth(1).unwrap_or("").into()
}

/// A response of each framing, begun and not ended, and what its client received.
fn begun(request: &str, response: &str) -> (Rig, String) {
    let mut rig = Rig::relaying(profile(), request.as_bytes());
    rig.upstream_gets();
    rig.upstream(response.as_bytes());
    let got = rig.client_gets();
    rig.actions();
    (rig, got)
}

const GET11: &str = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
const GET10: &str = "GET / HTTP/1.0\r\nHost: a\r\n\r\n";
const LENGTH: &str = "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
const CHUNKED: &str = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n5\r\nde";
const CLOSE: &str = "HTTP/1.1 200 OK\r\n\r\nabc";

#[test]
fn a_cut_response_is_visible_whatever_its_framing_and_whatever_cut_it() {
    let cuts: [State; 3] = [
        ("stall", |rig| rig.at(1000)),
        ("reset", |rig| rig.with(|relay, env| relay.failed(Op::Read(Side::Upstream), RESET, env))),
        ("fin", |rig| rig.fin(Side::Upstream)),
    ];
    for (name, cut) in cuts {
        for (request, response) in [(GET11, LENGTH), (GET11, CHUNKED), (GET11, CLOSE), (GET10, CLOSE)] {
            let (mut rig, got) = begun(request, response);
            cut(&mut rig);
            if response == CLOSE && name == "fin" {
                // That is how such a response ends.
                assert_eq!(rig.client_gets(), if request == GET11 { "0\r\n\r\n" } else { "" });
                assert_eq!(rig.outcome().error, None);
                continue;
            }
            assert_eq!(rig.client_gets(), "", "{name}: nothing follows {got:?}");
            assert_eq!(rig.actions[0], Action::Abort(Side::Upstream));
            let last = *rig.actions.last().unwrap();
            let expected = if request == GET10 {
                Action::Abort(Side::Client)
            } else {
                Action::ShutdownWrite(Side::Client)
            };
            assert_eq!(last, expected, "{name} {request:?} {response:?}");
            assert_eq!(rig.outcome().status, Some(200));
            assert!(rig.outcome().error.is_some());
        }
    }
}

/// A client that sends FIN inside its request may still read: it must not take a part for the whole.
#[test]
fn c3_half_a_request_does_not_make_half_a_response_whole() {
    for (version, response) in [("1.1", LENGTH), ("1.1", CHUNKED), ("1.1", CLOSE), ("1.0", CLOSE)] {
        let post = format!("POST / HTTP/{version}\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
        let (mut rig, _) = begun(&post, response);
        rig.fin(Side::Client);
        assert_eq!(rig.client_gets(), "");
        let end = match version {
            "1.0" => Action::Abort(Side::Client),
            _ => Action::Close(Side::Client),
        };
        assert_eq!(rig.actions(), [Action::Abort(Side::Upstream), Action::Report, end], "{post} {response}");
        assert_eq!(rig.outcome().error, Some(Error::ClientAbort(None)));
    }
}

#[test]
fn what_came_before_the_upstream_broke_off_still_reaches_a_slow_client() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.upstream(LENGTH.as_bytes());
    rig.with(|relay, env| relay.failed(Op::Read(Side::Upstream), RESET, env));
    assert!(rig.outcomes.is_empty());
    assert!(rig.client_gets().ends_with("abc"));
    assert_eq!(rig.outcome().error, Some(Error::UpstreamReset(RESET)));
}

#[test]
fn an_upstream_that_says_nothing_useful_is_502() {
    for (response, token) in [
        ("", "connection_terminated"),
        ("HTTP/1.1 200 OK\r\nConten", "connection_terminated"),
        ("HTTP/1.1 103 Early Hints\r\n\r\n", "connection_terminated"),
        ("SSH-2.0-OpenSSH\r\n\r\n", "http_protocol_error"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\n", "http_protocol_error"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "http_protocol_error"),
        ("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\n\r\n", "http_protocol_error"),
    ] {
        let mut rig = Rig::relaying(profile(), GET);
        rig.upstream_gets();
        rig.upstream(response.as_bytes());
        let mut answer = rig.client_gets();
        if rig.relay.interest().read_upstream {
            rig.fin(Side::Upstream);
            answer = rig.client_gets();
        }
        assert!(answer.starts_with("HTTP/1.1 502 "), "{response:?}: {answer:?}");
        assert!(answer.contains(&format!("tidegate; error={token}")), "{answer}");
        // The fault is not the client's.
        assert_eq!(rig.next().unwrap().1, DeadlineKind::KeepAlive);
    }
}

#[test]
fn a_refused_connect_is_502_at_once() {
    let mut rig = Rig::new(profile());
    rig.client(GET);
    rig.with(|relay, env| relay.failed(Op::Connect, REFUSED, env));
    let answer = rig.client_gets();
    assert!(answer.starts_with("HTTP/1.1 502 ") && answer.contains("connection_refused"), "{answer}");
    assert_eq!(rig.outcome().error, Some(Error::Connect(REFUSED)));
}

#[test]
fn a_faulty_request_is_answered_and_nothing_of_it_goes_upstream() {
    let long = format!("GET /{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(9000));
    let large = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "x".repeat(9000));
    for (request, expected) in [
        ("GET / HTTP/1.1\r\n\r\n", "400"),
        ("GET / HTTP/1.1\nHost: a\n\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n", "400"),
        ("POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip\r\n\r\n", "501"),
        ("CONNECT a:1 HTTP/1.1\r\nHost: a:1\r\n\r\n", "501"),
        ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "505"),
        (&long, "414"),
        (&large, "431"),
        ("\r\n\r\n\r\n\r\n\r\n", "400"),
    ] {
        let mut rig = Rig::new(profile());
        rig.client(request.as_bytes());
        assert_eq!(status(&mut rig), expected, "{request:.60?}");
        assert_eq!(rig.actions(), [Action::Report, Action::ShutdownWrite(Side::Client)], "{request:.60?}");
        assert!(matches!(rig.outcome().error, Some(Error::BadRequest(_))));
        assert_eq!(rig.outcome().status.unwrap().to_string(), expected);
    }
}

#[test]
fn a_broken_chunk_is_400_and_the_upstream_sees_a_cut_request() {
    let mut rig = Rig::relaying(
        profile(),
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    );
    let sent = rig.upstream_gets();
    assert!(sent.ends_with("3\r\nabc\r\n"));
    rig.actions();
    rig.client(b"zz\r\n");
    assert_eq!(rig.actions(), [Action::Abort(Side::Upstream)]);
    assert_eq!(status(&mut rig), "400");
    assert_eq!(rig.upstream_gets(), "");
}

#[test]
fn a_client_that_leaves_takes_its_upstream_with_it() {
    let stages: [State; 4] = [
        ("connecting", |_| {}),
        ("writing", |rig| rig.connected()),
        ("waiting", |rig| {
            rig.connected();
            rig.upstream_gets();
        }),
        ("in the response", |rig| {
            rig.connected();
            rig.upstream_gets();
            rig.upstream(LENGTH.as_bytes());
            rig.client_gets();
        }),
    ];
    for (name, reach) in stages {
        let mut rig = Rig::new(profile());
        rig.client(GET);
        reach(&mut rig);
        rig.actions();
        rig.with(|relay, env| relay.failed(Op::Read(Side::Client), RESET, env));
        assert_eq!(
            rig.actions(),
            [Action::Abort(Side::Upstream), Action::Report, Action::Close(Side::Client)],
            "{name}"
        );
        assert_eq!(rig.outcome().error, Some(Error::ClientAbort(Some(RESET))));
        assert!(rig.relay.is_closed());
        assert_eq!(rig.next(), None);
    }
}

#[test]
fn fin_inside_a_request_ends_it_unfinished() {
    let mut rig = Rig::relaying(profile(), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nabc");
    rig.upstream_gets();
    rig.actions();
    rig.fin(Side::Client);
    assert_eq!(rig.actions(), [Action::Abort(Side::Upstream), Action::Report, Action::Close(Side::Client)]);
    assert_eq!(rig.outcome().error, Some(Error::ClientAbort(None)));

    let mut rig = Rig::new(profile());
    rig.client(b"GET / HT");
    rig.fin(Side::Client);
    assert_eq!(rig.actions(), [Action::Close(Side::Client)]);
    assert!(rig.outcomes.is_empty());
}

#[test]
fn a_stop_ends_every_state_at_once() {
    let mut rig = Rig::new(profile());
    rig.with(|relay, env| relay.stop(env));
    assert_eq!(rig.actions(), [Action::Close(Side::Client)]);

    for (request, end) in [(GET11, Action::Close(Side::Client)), (GET10, Action::Abort(Side::Client))] {
        let (mut rig, _) = begun(request, CLOSE);
        rig.with(|relay, env| relay.stop(env));
        assert_eq!(rig.actions(), [Action::Abort(Side::Upstream), Action::Report, end]);
        assert_eq!(rig.outcome().error, Some(Error::Stopped));
        rig.with(|relay, env| relay.stop(env));
        assert_eq!(rig.outcomes.len(), 1);
    }
}

/// The value of a field; `None` if there is none.
fn field<'a>(head: &'a str, name: &str) -> Option<&'a str> {
    head.split("\r\n").find_map(|line| line.strip_prefix(name)?.strip_prefix(": "))
}

#[test]
fn one_id_goes_upstream_to_the_client_and_to_the_observer() {
    let trace = "4bf92f3577b34da6a3ce929d0e0e4736";
    let fields = format!("X-Request-Id: mine\r\nTraceparent: 00-{trace}-00f067aa0ba902b7-00\r\n");
    for (fields, id) in [(fields.as_str(), Some("mine")), ("", None)] {
        let request = format!("GET / HTTP/1.1\r\nHost: a\r\n{fields}\r\n");
        let mut rig = Rig::relaying(profile(), request.as_bytes());
        let sent = rig.upstream_gets();
        let sent_id = field(&sent, "x-request-id").unwrap();
        let parent = field(&sent, "traceparent").unwrap();
        rig.at(150);
        let answer = rig.client_gets();
        assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
        assert_eq!(field(&answer, "x-request-id"), Some(sent_id));
        let reported = rig.relay.reported().unwrap();
        assert_eq!(reported.request_id(), Some(sent_id));
        assert_eq!(reported.trace_id(), parent.get(3..35));
        match id {
            Some(id) => assert_eq!((sent_id, &parent[3..35]), (id, trace)),
            None => assert_eq!(sent_id, &parent[3..35]),
        }

        // The next request on the connection is another one.
        rig.client(GET);
        rig.connected();
        let next = rig.upstream_gets();
        assert_ne!(field(&next, "x-request-id"), Some(sent_id));
        assert_ne!(field(&next, "traceparent"), Some(parent));
    }
}

#[test]
fn a_retry_has_the_id_of_the_request() {
    let mut rig = Rig::new(profile());
    (rig.keeps, rig.upstreams) = (true, 2);
    rig.client(GET);
    rig.with(|relay, env| relay.failed(Op::Connect, REFUSED, env));
    rig.connected();
    let first = rig.upstream_gets();
    rig.upstream(OK5);
    rig.client_gets();
    // From the pool, where it was stale.
    rig.client(GET);
    let second = rig.upstream_gets();
    assert_ne!(field(&second, "x-request-id"), field(&first, "x-request-id"));
    rig.fin(Side::Upstream);
    rig.connected();
    assert_eq!(rig.upstream_gets(), second);
}

#[test]
fn what_the_route_answers_has_an_id_and_what_is_no_request_has_none() {
    let mut rig = Rig::new(profile());
    rig.answers = true;
    rig.client(b"GET / HTTP/1.1\r\nHost: a\r\nX-Request-Id: mine\r\n\r\n");
    assert_eq!(field(&rig.client_gets(), "x-request-id"), Some("mine"));
    rig.client(b"GET / HTTP/1.1\r\nHost: a b\r\nX-Request-Id: mine\r\n\r\n");
    let refused = rig.client_gets();
    assert!(refused.starts_with("HTTP/1.1 400 "), "{refused}");
    assert_eq!(field(&refused, "x-request-id"), None);
    assert!(rig.relay.reported().is_none());
}
