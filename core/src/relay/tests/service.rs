//! What a service relies on: the queue for an upstream, a graceful end, limits, and what is reported.

use super::*;

fn ms(n: u64) -> Option<Duration> {
    Some(Duration::from_millis(n))
}

/// A rig whose request waits for an upstream.
fn queued(policy: TimeoutPolicy) -> Rig {
    let mut rig = Rig::new(policy);
    rig.full = true;
    rig.client(GET);
    rig
}

#[test]
fn p_11_the_queue_has_a_deadline_and_ends_in_503() {
    let mut rig = queued(TimeoutPolicy { queue: ms(100), ..profile() });
    assert_eq!(rig.next(), Some((100, DeadlineKind::Queue)));
    rig.actions();
    rig.at(100);
    // What leaves the queue gives its place back before the answer goes.
    assert_eq!(rig.actions(), [Action::Abort(Side::Upstream)]);
    let answer = rig.client_gets();
    assert!(answer.starts_with("HTTP/1.1 503 ") && answer.contains("details=\"queue\""), "{answer}");
    assert_eq!((rig.timeout().kind, rig.timeout().during), (DeadlineKind::Queue, Phase::Queue));
}

#[test]
fn t_07_the_total_includes_the_queue_and_a_grant_ends_the_queues_deadline() {
    let mut rig = queued(TimeoutPolicy { queue: ms(100), total: ms(200), ..profile() });
    rig.now = Instant::from_millis(80);
    rig.with(|relay, env| relay.granted(UpstreamId::new(0).unwrap(), env));
    assert_eq!(rig.next(), Some((180, DeadlineKind::Connect)));
    rig.connected();
    rig.upstream_gets();
    rig.at(200);
    rig.client_gets();
    assert_eq!(rig.timeout().kind, DeadlineKind::Total);
    assert_eq!(rig.outcome().timing.queue, Duration::from_millis(80));
    assert_eq!(rig.outcome().timing.response_head, Duration::from_millis(120));
}

#[test]
fn a_queue_limit_of_zero_lets_pass_what_need_not_wait() {
    let mut rig = Rig::relaying(TimeoutPolicy { queue: ms(0), ..profile() }, GET);
    rig.upstream_gets();
    rig.upstream(OK5);
    assert!(rig.client_gets().starts_with("HTTP/1.1 200 "));

    let mut rig = queued(TimeoutPolicy { queue: ms(0), ..profile() });
    rig.at(0);
    assert!(rig.client_gets().starts_with("HTTP/1.1 503 "));
}

#[test]
fn a_client_that_leaves_gives_its_place_up() {
    let mut rig = queued(profile());
    rig.actions();
    rig.with(|relay, env| relay.failed(Op::Read(Side::Client), RESET, env));
    assert_eq!(rig.actions()[0], Action::Abort(Side::Upstream));
}

#[test]
fn s_03_a_drain_closes_what_is_idle_at_once() {
    let mut rig = Rig::new(profile());
    rig.with(|relay, env| relay.drain(Instant::EPOCH, env));
    assert_eq!(rig.actions(), [Action::Close(Side::Client)]);
}

#[test]
fn s_01_a_drain_lets_a_request_finish_and_tells_the_client() {
    let mut rig = Rig::relaying(TimeoutPolicy { drain: ms(300), ..profile() }, GET);
    rig.upstream_gets();
    rig.with(|relay, env| relay.drain(Instant::EPOCH, env));
    rig.at(100);
    rig.actions();
    rig.upstream(OK5);
    let answer = rig.client_gets();
    assert!(answer.to_lowercase().contains("connection: close\r\n") && answer.ends_with("hello"), "{answer}");
    assert_eq!(rig.outcome().error, None);
    assert!(matches!(
        rig.actions()[..],
        [Action::Release { .. }, Action::Report, Action::ShutdownWrite(Side::Client)]
    ));
}

/// Its client has been told otherwise, and may have sent the next request: that is not begun.
#[test]
fn s_01_a_drain_after_the_head_ends_the_connection_behind_the_body() {
    let mut rig = Rig::relaying(profile(), &[GET, GET].concat());
    rig.upstream_gets();
    rig.upstream(&OK5[..OK5.len() - 3]);
    assert!(!rig.client_gets().contains("connection: close"));
    rig.with(|relay, env| relay.drain(Instant::EPOCH, env));
    rig.actions();
    rig.upstream(&OK5[OK5.len() - 3..]);
    assert_eq!(rig.client_gets(), "llo");
    let actions = rig.actions();
    assert!(
        matches!(actions[..], [Action::Release { .. }, Action::Report, Action::ShutdownWrite(Side::Client)]),
        "{actions:?}"
    );
    assert_eq!((rig.outcome().error, rig.next()), (None, Some((80, DeadlineKind::Linger))));
}

#[test]
fn s_02_a_drain_that_runs_out_is_504_or_a_cut() {
    for begun in [false, true] {
        let policy = TimeoutPolicy { drain: ms(300), read: None, ..profile() };
        let mut rig = Rig::relaying(policy, GET);
        rig.upstream_gets();
        if begun {
            rig.upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab");
            rig.client_gets();
        }
        rig.now = Instant::from_millis(50);
        rig.with(|relay, env| relay.drain(Instant::from_millis(40), env));
        assert_eq!(rig.next(), Some((340, DeadlineKind::Drain)));
        rig.actions();
        rig.at(340);
        assert_eq!(rig.actions()[0], Action::Abort(Side::Upstream));
        let answer = rig.client_gets();
        assert_eq!(answer.starts_with("HTTP/1.1 504 "), !begun, "{answer}");
        assert_eq!(rig.timeout().kind, DeadlineKind::Drain);
        assert_eq!(rig.next(), Some((420, DeadlineKind::Linger)));
    }
}

#[test]
fn s_11_other_limits_go_on_in_a_drain() {
    let mut rig = Rig::relaying(TimeoutPolicy { drain: ms(300), ..profile() }, GET);
    rig.upstream_gets();
    rig.with(|relay, env| relay.drain(Instant::EPOCH, env));
    rig.at(150);
    assert!(rig.client_gets().starts_with("HTTP/1.1 504 "));
    assert_eq!(rig.timeout().kind, DeadlineKind::Read);
}

/// No limit, and one that the clock never comes to (T8).
const OFF: [Option<Duration>; 2] = [None, Some(Duration::MAX)];

/// With linger off nothing else would end the wait for a client that keeps its end open.
#[test]
fn a_drain_ends_a_linger_that_has_no_limit() {
    for (drains_first, linger) in [false, true].into_iter().flat_map(|first| OFF.map(|off| (first, off))) {
        let policy = TimeoutPolicy { drain: ms(300), linger, ..profile() };
        let mut rig = Rig::new(policy);
        let drain = |rig: &mut Rig| rig.with(|relay, env| relay.drain(Instant::EPOCH, env));
        rig.client(b"GET");
        if drains_first {
            drain(&mut rig);
        }
        rig.client(b" / HTTP/1.1\r\n\r\n");
        assert!(rig.client_gets().starts_with("HTTP/1.1 400 "));
        assert_eq!(rig.actions().last(), Some(&Action::ShutdownWrite(Side::Client)));
        if !drains_first {
            assert_eq!(rig.next(), None);
            drain(&mut rig);
        }
        assert_eq!(rig.next(), Some((300, DeadlineKind::Drain)));
        rig.at(300);
        assert_eq!(rig.actions(), [Action::Close(Side::Client)]);
    }
}

#[test]
fn b3_a_body_over_the_limit_is_413_whether_it_says_so_or_not() {
    let announced = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\n".as_slice();
    let chunked =
        b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n".as_slice();
    let allowed = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n0123456789".as_slice();
    for (request, refused) in [(announced, true), (chunked, true), (allowed, false)] {
        let mut rig =
            Rig::with_config(Config { timeouts: profile(), max_body: Some(10), ..Config::default() });
        rig.client(request);
        let answer = rig.client_gets();
        assert_eq!(answer.starts_with("HTTP/1.1 413 "), refused, "{answer}");
        assert_eq!(rig.actions.last() == Some(&Action::ShutdownWrite(Side::Client)), refused);
        assert!(!rig.upstream_gets().contains("0\r\n\r\n"));
    }
}

#[test]
fn the_request_is_there_for_whoever_observes_its_end() {
    let target = |rig: &Rig| rig.relay.reported().map(|head| String::from(head.target()));
    let mut rig = Rig::relaying(profile(), b"GET /x?y HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.upstream_gets();
    rig.upstream(OK5);
    rig.client_gets();
    assert_eq!(target(&rig).as_deref(), Some("/x?y"));

    // Also if the answer was ours, and not if there was no sound head.
    rig.client(b"GET /z HTTP/1.1\r\nHost: a\r\n\r\n");
    rig.with(|relay, env| relay.failed(Op::Connect, REFUSED, env));
    rig.client_gets();
    assert_eq!(target(&rig).as_deref(), Some("/z"));
    rig.client(b"GET / HTTP/1.1\r\n\r\n");
    rig.client_gets();
    assert_eq!(target(&rig), None);
    assert_eq!(rig.outcomes.len(), 3);
}

/// Over TLS a connection ends with `close_notify` and not with a mere close (RFC 9112 section 9.8): the machine waits for the
/// client's stream to say so, and no longer than linger.
#[test]
fn every_orderly_end_waits_for_its_stream_no_longer_than_linger() {
    const CLOSE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";
    const OLD: &[u8] = b"GET / HTTP/1.0\r\n\r\n";
    fn answered(rig: &mut Rig, answer: &[u8]) {
        rig.connected();
        rig.upstream_gets();
        rig.upstream(answer);
    }
    fn kept(rig: &mut Rig) {
        rig.client(GET);
        answered(rig, OK5);
        rig.client_gets();
    }
    let ends: [State; 9] = [
        ("a whole answer, with a length", |rig| {
            rig.client(CLOSE);
            answered(rig, OK5);
            rig.client_gets();
        }),
        ("a body that only the end ends, to one that has sent FIN", |rig| {
            rig.client(OLD);
            rig.fin(Side::Client);
            answered(rig, b"HTTP/1.1 200 OK\r\n\r\nabc");
            rig.fin(Side::Upstream);
            rig.client_gets();
        }),
        ("FIN of a client that lingers", |rig| {
            rig.client(OLD);
            answered(rig, b"HTTP/1.1 200 OK\r\n\r\nabc");
            rig.fin(Side::Upstream);
            rig.client_gets();
            rig.fin(Side::Client);
        }),
        ("FIN of an idle client", |rig| {
            kept(rig);
            rig.fin(Side::Client);
        }),
        ("FIN of one that never asked", |rig| rig.fin(Side::Client)),
        ("keep-alive", |rig| {
            kept(rig);
            rig.at(150);
        }),
        ("nothing was asked", |rig| rig.at(150)),
        ("drain", |rig| {
            kept(rig);
            rig.with(|relay, env| relay.drain(env.now, env));
        }),
        ("room for another", |rig| {
            kept(rig);
            rig.with(|relay, env| relay.close_idle(env));
        }),
    ];
    for (name, end) in ends {
        let began = |linger| {
            let mut rig = Rig::new(TimeoutPolicy { linger, ..profile() });
            rig.slow_end = true;
            end(&mut rig);
            assert_eq!(rig.actions().last(), Some(&Action::Close(Side::Client)), "{name}");
            assert_eq!(rig.relay.interest(), Interest::default(), "{name}");
            rig
        };
        // Its stream has said it.
        let mut rig = began(profile().linger);
        assert!(!rig.relay.is_closed(), "{name}");
        rig.with(|relay, env| relay.closed(env));
        assert!(rig.relay.is_closed() && rig.next().is_none(), "{name}");
        // It never does.
        let mut rig = began(profile().linger);
        let now = rig.now.as_nanos() / 1_000_000;
        assert_eq!(rig.next(), Some((now + 80, DeadlineKind::Linger)), "{name}");
        rig.at(now + 79);
        assert_eq!(rig.actions(), [], "{name}");
        rig.at(now + 80);
        assert_eq!(rig.actions(), [Action::Close(Side::Client)], "{name}");
        assert!(rig.relay.is_closed() && rig.next().is_none(), "{name}");
        // A stop waits for nobody.
        let mut rig = began(profile().linger);
        rig.with(|relay, env| relay.stop(env));
        assert_eq!(rig.actions(), [Action::Close(Side::Client)], "{name}");
        assert!(rig.relay.is_closed(), "{name}");
        // Where nothing limits it, nobody waits.
        for off in OFF {
            let rig = began(off);
            assert!(rig.relay.is_closed() && rig.next().is_none(), "{name}");
        }
    }
}

/// Both are one limit: a client whose FIN comes late in its linger has what is left of it.
#[test]
fn what_is_left_of_linger_is_all_that_a_stream_has_to_say_its_end() {
    let mut rig = Rig::new(profile());
    rig.slow_end = true;
    rig.client(b"GET / HTTP/1.1\r\nHost: a b\r\n\r\n");
    rig.client_gets();
    assert_eq!(rig.next(), Some((80, DeadlineKind::Linger)));
    rig.at(50);
    rig.fin(Side::Client);
    assert_eq!(rig.actions().last(), Some(&Action::Close(Side::Client)));
    assert_eq!((rig.relay.is_closed(), rig.next()), (false, Some((80, DeadlineKind::Linger))));
}
