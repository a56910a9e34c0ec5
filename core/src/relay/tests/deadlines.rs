//! The table of `docs/TIMEOUTS.md`, The deadlines and the rules T1 to T9, in exact time.

use super::*;
use crate::timeout::DeadlineKind as Kind;
use alloc::format;
use alloc::vec;

const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";

fn ms(n: u64) -> Option<Duration> {
    Some(Duration::from_millis(n))
}

fn status(rig: &mut Rig) -> String {
    rig.client_gets().split(' ').nth(1).unwrap_or("").into()
}

#[test]
fn c_01_connect_runs_from_the_miss_and_ends_in_504() {
    let mut rig = Rig::new(profile());
    rig.now = Instant::from_millis(40);
    rig.client(GET);
    assert_eq!(rig.next(), Some((140, Kind::Connect)));
    rig.actions();
    rig.at(139);
    assert_eq!(rig.actions(), []);
    rig.at(140);
    // The attempt is dropped before the answer can be sent (T6).
    assert_eq!(rig.actions()[0], Action::Abort(Side::Upstream));
    let response = rig.client_gets();
    assert!(response.starts_with("HTTP/1.1 504 "), "{response}");
    assert!(response.contains("tidegate; error=connection_timeout; details=\"connect\""), "{response}");
    let t = rig.timeout();
    assert_eq!(
        (t.kind, t.elapsed, t.during, t.blocked_on),
        (Kind::Connect, Duration::from_millis(100), Phase::Connect, Side::Upstream)
    );
    // The request was whole and the fault not the client's: the connection is kept.
    assert_eq!(rig.next(), Some((290, Kind::KeepAlive)));
}

#[test]
fn t5_a_zero_limit_starts_nothing_but_lets_what_needs_no_waiting_pass() {
    let mut rig = Rig::new(TimeoutPolicy { connect: ms(0), ..profile() });
    rig.client(GET);
    let begins = |a: &Action| matches!(a, Action::Resolve(_) | Action::Connect { .. });
    assert!(!rig.actions.iter().any(begins), "{:?}", rig.actions);
    rig.at(0);
    assert_eq!(status(&mut rig), "504");

    // C-09: with an idle connection the same request succeeds.
    let mut rig = Rig::new(TimeoutPolicy { connect: ms(0), ..profile() });
    rig.with(|relay, env| {
        let buf = relay.recv_buf(Side::Client, env);
        buf[..GET.len()].copy_from_slice(GET);
        relay.received(Side::Client, GET.len(), env);
        assert_eq!(relay.poll_action(), Some(Action::Route));
        relay.forward(Some(Arc::new(TimeoutPolicy { connect: ms(0), ..profile() })), env);
        assert_eq!(relay.poll_action(), Some(Action::Admit));
        relay.granted(UpstreamId::new(0).unwrap(), env);
        assert!(matches!(relay.poll_action(), Some(Action::Checkout(_))));
        relay.connected(true, env);
    });
    rig.upstream_gets();
    rig.upstream(OK5);
    assert_eq!(status(&mut rig), "200");

    // T-16: a total of zero never reaches an upstream.
    let mut rig = Rig::new(TimeoutPolicy { total: ms(0), ..profile() });
    rig.client(GET);
    assert_eq!(rig.actions, [Action::Route]);
    rig.at(0);
    assert_eq!(status(&mut rig), "504");
    assert_eq!(rig.timeout().kind, Kind::Total);

    // A write limit of zero: the connection is there, and not a byte is written.
    let mut rig = Rig::relaying(TimeoutPolicy { write: ms(0), ..profile() }, GET);
    assert_eq!(rig.relay.interest(), Interest::default());
    rig.at(0);
    rig.client_gets();
    assert_eq!(rig.timeout().kind, Kind::Write);
}

#[test]
fn write_is_absolute_and_blames_whom_it_waited_for() {
    // the upstream drains a little, again and again.
    let mut rig = Rig::relaying(profile(), POST);
    rig.client(b"0123456789");
    for t in [50, 100, 150] {
        rig.at(t);
        rig.take(Side::Upstream, 1);
        assert_eq!(rig.next(), Some((200, Kind::Write)));
    }
    rig.at(200);
    assert_eq!(status(&mut rig), "504");
    assert_eq!(rig.timeout().blocked_on, Side::Upstream);

    // the client drips.
    let mut rig = Rig::relaying(profile(), POST);
    rig.upstream_gets();
    for t in [50, 100, 150] {
        rig.at(t);
        rig.client(b"x");
        rig.upstream_gets();
        assert_eq!(rig.next(), Some((200, Kind::Write)));
    }
    rig.actions();
    rig.at(200);
    assert_eq!(rig.actions()[0], Action::Abort(Side::Upstream));
    assert_eq!(status(&mut rig), "408");
    assert_eq!((rig.timeout().kind, rig.timeout().blocked_on), (Kind::Write, Side::Client));
}

#[test]
fn write_idle_is_reset_by_progress_and_suspended_while_the_client_is_awaited() {
    let policy = TimeoutPolicy { write: None, write_idle: ms(60), client_body: None, ..profile() };
    let mut rig = Rig::relaying(policy, POST);
    assert_eq!(rig.next(), Some((60, Kind::WriteIdle)));
    rig.at(50);
    rig.take(Side::Upstream, 1);
    assert_eq!(rig.next(), Some((110, Kind::WriteIdle)));
    rig.at(100);
    rig.upstream_gets();
    assert_eq!(rig.next(), None);
    rig.at(500);
    rig.client(b"01234");
    assert_eq!(rig.next(), Some((560, Kind::WriteIdle)));
    rig.at(560);
    assert_eq!(status(&mut rig), "504");
}

#[test]
fn read_starts_when_the_request_is_written_and_each_read_resets_it() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.at(30);
    assert_eq!(rig.next(), Some((200, Kind::Write)));
    rig.upstream_gets();
    assert_eq!(rig.next(), Some((180, Kind::Read)));
    rig.at(100);
    rig.upstream(b"HTTP/1.1 200 OK\r\n");
    assert_eq!(rig.next(), Some((250, Kind::Read)));
    rig.at(200);
    rig.upstream(b"Content-Length: 5\r\n\r\nhe");
    rig.client_gets();
    assert_eq!(rig.next(), Some((350, Kind::Read)));
    rig.at(349);
    rig.upstream(b"llo");
    rig.client_gets();
    assert_eq!(rig.next(), Some((499, Kind::KeepAlive)));
    assert_eq!(rig.outcome().error, None);
}

#[test]
fn r_01_silence_is_504_and_the_client_stays_usable() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.actions();
    rig.at(150);
    assert_eq!(rig.actions(), [Action::Abort(Side::Upstream)]);
    let response = rig.client_gets();
    assert!(response.starts_with("HTTP/1.1 504 ") && response.contains("details=\"read\""), "{response}");
    assert!(!response.to_lowercase().contains("connection: close"), "{response}");
    assert_eq!(rig.timeout().during, Phase::ResponseHead);
    rig.client(GET);
    rig.connected();
    rig.upstream_gets();
    rig.upstream(OK5);
    assert_eq!(status(&mut rig), "200");
}

#[test]
fn r_11_an_interim_response_resets_the_read() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.at(50);
    rig.upstream(b"HTTP/1.1 103 Early Hints\r\n\r\n");
    rig.client_gets();
    assert_eq!(rig.next(), Some((200, Kind::Read)));
    rig.at(200);
    assert_eq!(status(&mut rig), "504");
}

#[test]
fn r_12_a_slow_client_suspends_the_read_and_r_13_resuming_gives_a_full_period() {
    let policy = TimeoutPolicy { client_write: None, ..profile() };
    let mut rig = Rig::relaying(policy, GET);
    rig.upstream_gets();
    rig.upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
    rig.upstream(&vec![b'x'; 1_000_000]);
    assert_eq!(rig.next(), None);
    rig.at(500);
    assert!(rig.outcomes.is_empty());
    rig.take(Side::Client, usize::MAX);
    assert_eq!(rig.next(), Some((650, Kind::Read)));
    rig.at(649);
    assert!(rig.outcomes.is_empty());
    rig.at(650);
    assert_eq!(rig.timeout().kind, Kind::Read);
    assert!(rig.timeout().response_started);
}

#[test]
fn q_08_a_final_head_stops_the_write_and_starts_the_read() {
    let mut rig = Rig::relaying(profile(), POST);
    rig.client(b"01234");
    rig.upstream_gets();
    rig.at(50);
    rig.upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe");
    rig.client_gets();
    rig.client(b"56789");
    assert_eq!(rig.next(), Some((200, Kind::Read)));
    rig.at(200);
    assert_eq!(rig.timeout().kind, Kind::Read);
    assert_eq!(rig.client_gets(), "");
}

#[test]
fn q_09_q_10_expect_runs_the_read_until_the_100() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nExpect: 100-continue\r\n\r\n";
    let mut rig = Rig::relaying(TimeoutPolicy { write: ms(1000), ..profile() }, head);
    rig.upstream_gets();
    assert_eq!(rig.next(), Some((150, Kind::Read)));
    // Another interim response does not let the client go on.
    rig.at(20);
    rig.upstream(b"HTTP/1.1 103 Early Hints\r\n\r\n");
    rig.client_gets();
    assert_eq!(rig.next(), Some((170, Kind::Read)));
    rig.at(120);
    rig.upstream(b"HTTP/1.1 100 Continue\r\n\r\n");
    assert!(rig.client_gets().starts_with("HTTP/1.1 100 Continue\r\n"));
    // Now the client is awaited.
    assert_eq!(rig.next(), Some((270, Kind::ClientBody)));
    rig.at(200);
    rig.client(b"0123456789");
    rig.upstream_gets();
    assert_eq!(rig.next(), Some((350, Kind::Read)));

    let mut rig = Rig::relaying(profile(), head);
    rig.upstream_gets();
    rig.at(150);
    assert_eq!(status(&mut rig), "504");
    assert_eq!(rig.timeout().kind, Kind::Read);
}

/// The upstream never hears of it, so nobody but the client is waited for.
#[test]
fn an_expectation_that_stays_here_does_not_run_the_read() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\nConnection: expect\r\nExpect: 100-continue\r\n\r\n";
    let mut rig = Rig::relaying(profile(), head);
    assert!(!rig.upstream_gets().contains("100-continue"));
    assert_eq!(rig.next(), Some((150, Kind::ClientBody)));
    rig.at(150);
    assert_eq!(status(&mut rig), "408");
}

#[test]
fn total_starts_at_the_complete_head_and_is_not_dodged() {
    let policy = TimeoutPolicy { total: ms(100), ..profile() };
    let mut rig = Rig::new(policy);
    rig.client(&GET[..4]);
    rig.now = Instant::from_millis(40);
    rig.client(&GET[4..]);
    rig.connected();
    rig.upstream_gets();
    assert_eq!(rig.next(), Some((140, Kind::Total)));
    // T2: an endless fast response is progress, not completion.
    rig.upstream(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    for t in (41..140).step_by(crate::scale::or_under_miri(1, 14)) {
        rig.at(t);
        rig.upstream(b"5\r\nhello\r\n");
        assert!(rig.client_gets().ends_with("5\r\nhello\r\n"));
    }
    rig.actions();
    rig.at(140);
    assert_eq!(
        rig.actions(),
        [Action::Abort(Side::Upstream), Action::Report, Action::ShutdownWrite(Side::Client)]
    );
    assert_eq!(rig.client_gets(), "", "no last chunk, no second status line");
    assert_eq!(rig.timeout().kind, Kind::Total);
}

/// What it did not take lies unsent for ever, whatever the client still sends.
#[test]
fn t9_a_total_spent_on_an_upstream_that_broke_off_is_504() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\n01234";
    let mut rig = Rig::relaying(TimeoutPolicy { total: ms(100), ..profile() }, head);
    rig.upstream_gets();
    rig.client(b"56789");
    rig.with(|relay, env| relay.failed(Op::Write(Side::Upstream), RESET, env));
    rig.at(50);
    rig.client(b"56789");
    rig.at(100);
    assert_eq!(status(&mut rig), "504");
    assert_eq!((rig.timeout().kind, rig.timeout().blocked_on), (Kind::Total, Side::Upstream));
}

#[test]
fn t9_a_total_spent_on_the_client_is_408() {
    let policy = TimeoutPolicy { write: None, client_body: None, total: ms(100), ..profile() };
    let mut rig = Rig::relaying(policy, POST);
    rig.upstream_gets();
    rig.at(100);
    let response = rig.client_gets();
    assert!(response.starts_with("HTTP/1.1 408 ") && response.contains("details=\"total\""), "{response}");
    assert_eq!((rig.timeout().kind, rig.timeout().blocked_on), (Kind::Total, Side::Client));
}

#[test]
fn t1_completion_wins_however_late() {
    let mut rig = Rig::relaying(TimeoutPolicy { total: ms(100), ..profile() }, GET);
    rig.upstream_gets();
    // The executor was stalled over every deadline; the answer lay in the kernel.
    rig.now = Instant::from_millis(5000);
    rig.upstream(OK5);
    assert_eq!(status(&mut rig), "200");
    rig.at(5000);
    assert_eq!(rig.outcome().error, None);
}

#[test]
fn t3_the_earlier_instant_wins_and_the_total_wins_a_tie() {
    for (read, total, kind) in [(100, 100, Kind::Total), (120, 100, Kind::Total), (100, 120, Kind::Read)] {
        let mut rig = Rig::relaying(TimeoutPolicy { read: ms(read), total: ms(total), ..profile() }, GET);
        rig.upstream_gets();
        // Both passed in a stall.
        rig.at(5000);
        rig.client_gets();
        assert_eq!(rig.timeout().kind, kind);
        // Exactly one fires, whatever else is due.
        rig.at(5000);
        assert_eq!(rig.outcomes.len(), 1);
    }
}

#[test]
fn client_head_is_absolute_and_silent_if_nothing_came() {
    let mut rig = Rig::new(profile());
    assert_eq!(rig.next(), Some((150, Kind::ClientHead)));
    rig.at(150);
    assert_eq!(rig.actions(), [Action::Close(Side::Client)]);
    assert!(rig.outcomes.is_empty());

    // K-03: a byte now and then does not help.
    let mut rig = Rig::new(profile());
    for (i, t) in [40, 80, 120].into_iter().enumerate() {
        rig.at(t);
        rig.client(&GET[i..=i]);
        assert_eq!(rig.next(), Some((150, Kind::ClientHead)));
    }
    rig.at(150);
    let response = rig.client_gets();
    assert!(
        response.starts_with("HTTP/1.1 408 ") && response.contains("details=\"client-head\""),
        "{response}"
    );
    assert_eq!(rig.actions(), [Action::Report, Action::ShutdownWrite(Side::Client)]);
}

#[test]
fn k_04_a_later_head_runs_from_its_first_byte_and_k_05_idleness_from_the_response() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.upstream(OK5);
    rig.client_gets();
    rig.actions();
    rig.at(100);
    // An empty line is no request.
    rig.client(b"\r\n");
    assert_eq!(rig.next(), Some((150, Kind::KeepAlive)));
    rig.client(b"G");
    assert_eq!(rig.next(), Some((250, Kind::ClientHead)));
    rig.at(250);
    assert_eq!(status(&mut rig), "408");
}

#[test]
fn keep_alive_ends_in_silence() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.upstream(OK5);
    rig.client_gets();
    rig.actions();
    rig.at(150);
    assert_eq!(rig.actions(), [Action::Close(Side::Client)]);
    assert_eq!(rig.outcomes.len(), 1);
}

#[test]
fn client_body_is_reset_by_bytes_and_suspended_while_the_upstream_is_slow() {
    let policy = TimeoutPolicy { write: None, ..profile() };
    let mut rig = Rig::relaying(policy, POST);
    assert_eq!(rig.next(), None, "the head waits for the upstream");
    rig.at(400);
    rig.upstream_gets();
    assert_eq!(rig.next(), Some((550, Kind::ClientBody)));
    rig.at(500);
    rig.client(b"0");
    rig.upstream_gets();
    assert_eq!(rig.next(), Some((650, Kind::ClientBody)));
    rig.actions();
    rig.at(650);
    // the upstream must see that the request is cut.
    assert_eq!(rig.actions(), [Action::Abort(Side::Upstream)]);
    assert_eq!(status(&mut rig), "408");
    assert_eq!(rig.timeout().kind, Kind::ClientBody);
}

#[test]
fn client_write_is_reset_by_progress_and_ends_in_rst() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n");
    rig.upstream(&vec![b'x'; 1_000_000]);
    assert_eq!(rig.next(), Some((150, Kind::ClientWrite)));
    rig.at(100);
    rig.take(Side::Client, 1);
    assert_eq!(rig.next(), Some((250, Kind::ClientWrite)));
    rig.actions();
    rig.at(250);
    assert_eq!(rig.actions(), [Action::Abort(Side::Upstream), Action::Report, Action::Abort(Side::Client)]);
    assert_eq!((rig.timeout().kind, rig.timeout().blocked_on), (Kind::ClientWrite, Side::Client));
}

#[test]
fn linger_reads_on_for_a_while_and_no_further_than_its_cap() {
    let bad = b"GET / HTTP/1.1\r\n\r\n";
    let mut rig = Rig::new(profile());
    rig.client(bad);
    assert_eq!(status(&mut rig), "400");
    assert_eq!(rig.actions(), [Action::Report, Action::ShutdownWrite(Side::Client)]);
    assert_eq!(rig.next(), Some((80, Kind::Linger)));
    rig.at(79);
    rig.client(b"more");
    assert_eq!(rig.next(), Some((80, Kind::Linger)));
    rig.at(80);
    assert_eq!(rig.actions(), [Action::Close(Side::Client)]);

    let mut rig = Rig::new(profile());
    rig.client(bad);
    status(&mut rig);
    rig.actions();
    let flood = vec![b'x'; 4 << 20];
    let read_on = rig.client(&flood);
    assert!((1 << 20..flood.len()).contains(&read_on), "{read_on}");
    assert_eq!(rig.actions(), [Action::Close(Side::Client)]);

    // What was refused does not count, however large: the client gets to read why.
    let mut rig = Rig::with_config(Config { timeouts: profile(), max_head: 1 << 20, ..Config::default() });
    rig.client(&[b"GET / HTTP/1.1\r\nA: ", &flood[..1 << 20]].concat());
    assert_eq!(status(&mut rig), "431");
    assert_eq!(rig.actions(), [Action::Report, Action::ShutdownWrite(Side::Client)]);
    assert_eq!(rig.next(), Some((80, Kind::Linger)));
}

#[test]
fn v_03_v_05_early_and_repeated_calls_change_nothing() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    for t in [0, 10, 5, 149] {
        rig.at(t);
        assert_eq!(rig.next(), Some((150, Kind::Read)));
    }
    rig.at(150);
    rig.client_gets();
    let (actions, next) = (rig.actions.len(), rig.next());
    rig.at(150);
    rig.at(151);
    assert_eq!((rig.actions.len(), rig.next()), (actions, next));
}

#[test]
fn t8_without_limits_nothing_is_ever_armed() {
    for limit in [None, Some(Duration::MAX)] {
        let policy = TimeoutPolicy {
            connect: limit,
            write: limit,
            read: limit,
            total: limit,
            client_head: limit,
            client_body: limit,
            client_write: limit,
            keep_alive: limit,
            linger: limit,
            ..TimeoutPolicy::OFF
        };
        let mut rig = Rig::new(policy);
        assert_eq!(rig.next(), None);
        rig.client(POST);
        assert_eq!(rig.next(), None);
        rig.connected();
        rig.upstream_gets();
        assert_eq!(rig.next(), None);
        rig.client(b"0123456789");
        rig.upstream_gets();
        rig.upstream(OK5);
        assert_eq!(rig.next(), None);
        rig.client_gets();
        assert_eq!(rig.next(), None);
    }
}

#[test]
fn a_failed_teardown_does_not_replace_the_timeout() {
    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.at(150);
    rig.with(|relay, env| relay.failed(Op::Write(Side::Client), RESET, env));
    assert_eq!(rig.timeout().kind, Kind::Read);
    assert_eq!(rig.outcome().secondary, Some(RESET));
    assert_eq!(rig.actions.last(), Some(&Action::Close(Side::Client)));
}

#[test]
fn t_19_a_connect_that_was_due_first_is_reported_though_there_is_no_time_to_try_again() {
    for (total, kind) in [(99, Kind::Total), (100, Kind::Total), (101, Kind::Connect), (300, Kind::Connect)] {
        // There is another upstream, and no time for it.
        let mut rig = Rig::new(TimeoutPolicy { total: ms(total), ..profile() });
        rig.upstreams = 2;
        rig.client(GET);
        rig.at(10_000);
        assert!(rig.client_gets().starts_with("HTTP/1.1 504"));
        assert_eq!((rig.timeout().kind, rig.outcome().attempts), (kind, 1), "total {total}");
        rig.at(20_000);
        assert_eq!(rig.outcomes.len(), 1);
    }
}

#[test]
fn a_route_may_have_limits_of_its_own() {
    let mut rig = Rig::new(TimeoutPolicy { total: ms(100), ..profile() });
    rig.policy = TimeoutPolicy { total: ms(1000), read: ms(2000), ..profile() };
    rig.now = Instant::from_millis(5);
    rig.client(GET);
    rig.connected();
    rig.upstream_gets();
    assert_eq!(rig.next(), Some((1005, Kind::Total)));
}

#[test]
fn every_wait_of_a_default_policy_has_a_deadline() {
    let states: [State; 6] = [
        ("accepted", |_| {}),
        ("in the head", |rig| assert_eq!(rig.client(&GET[..3]), 3)),
        ("connecting", |rig| assert_eq!(rig.client(POST), POST.len())),
        ("writing", |rig| {
            rig.client(POST);
            rig.connected();
        }),
        ("body", |rig| {
            rig.client(POST);
            rig.connected();
            rig.upstream_gets();
        }),
        ("idle", |rig| {
            rig.client(GET);
            rig.connected();
            rig.upstream_gets();
            rig.upstream(OK5);
            rig.client_gets();
        }),
    ];
    for (name, reach) in states {
        let mut rig = Rig::new(TimeoutPolicy::default());
        reach(&mut rig);
        assert!(rig.relay.poll_timeout().is_some(), "{}", format!("{name} waits without a deadline"));
    }
}
