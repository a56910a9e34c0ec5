//! What the other tests left open: each of these kills a mutant of the machine that they let live.

use super::*;
use crate::timeout::DeadlineKind as Kind;

const POST: &[u8] = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";

fn ms(n: u64) -> Option<Duration> {
    Some(Duration::from_millis(n))
}

#[test]
fn the_total_does_not_cut_the_answer_that_it_has_led_to() {
    let mut rig = Rig::relaying(TimeoutPolicy { total: ms(100), ..profile() }, GET);
    rig.upstream_gets();
    rig.at(100);
    rig.take(Side::Client, 1);
    // The client is slow: only its own limit runs now.
    assert_eq!(rig.next(), Some((250, Kind::ClientWrite)));
    rig.at(240);
    assert!(rig.client_gets().contains("504"));
    assert_eq!((rig.timeout().kind, rig.outcome().status), (Kind::Total, Some(504)));
    assert_eq!(rig.next(), Some((390, Kind::KeepAlive)));
}

#[test]
fn a_drain_does_not_cut_the_answer_that_it_has_led_to() {
    let mut rig = Rig::relaying(TimeoutPolicy { drain: ms(100), ..profile() }, GET);
    rig.upstream_gets();
    rig.with(|relay, env| relay.drain(Instant::EPOCH, env));
    rig.at(100);
    rig.take(Side::Client, 1);
    assert_eq!(rig.next(), Some((250, Kind::ClientWrite)));
    rig.at(240);
    assert!(rig.client_gets().contains("504"));
    assert_eq!((rig.timeout().kind, rig.outcome().status), (Kind::Drain, Some(504)));
}

#[test]
fn a_drain_bounds_the_answers_that_others_have_led_to() {
    let policy = TimeoutPolicy { drain: ms(200), client_write: None, ..profile() };
    let mut rig = Rig::relaying(policy, GET);
    rig.upstream_gets();
    rig.with(|relay, env| relay.drain(Instant::EPOCH, env));
    rig.at(150);
    rig.take(Side::Client, 1);
    assert_eq!(rig.next(), Some((200, Kind::Drain)));
    rig.at(200);
    assert_eq!((rig.timeout().kind, rig.outcome().status), (Kind::Read, Some(504)));
}

#[test]
fn the_limits_between_requests_are_those_of_the_connection() {
    let mut rig = Rig::new(TimeoutPolicy { keep_alive: ms(1000), client_head: ms(2000), ..profile() });
    rig.policy = profile();
    rig.client(GET);
    rig.connected();
    rig.upstream_gets();
    rig.upstream(OK5);
    rig.client_gets();
    assert_eq!(rig.next(), Some((1000, Kind::KeepAlive)));
    rig.client(b"G");
    assert_eq!(rig.next(), Some((2000, Kind::ClientHead)));
    rig.at(2000);
    assert!(rig.client_gets().starts_with("HTTP/1.1 408 "));

    let mut rig = Rig::new(TimeoutPolicy { linger: ms(1000), drain: ms(2000), ..profile() });
    rig.policy = TimeoutPolicy { drain: ms(100), ..profile() };
    rig.client(POST);
    rig.connected();
    rig.with(|relay, env| relay.drain(Instant::EPOCH, env));
    assert_eq!(rig.next(), Some((200, Kind::Write)), "the drain is that of the connection");
    rig.at(150);
    assert_eq!(rig.outcomes, []);
    rig.at(200);
    rig.client_gets();
    assert_eq!(rig.next(), Some((1200, Kind::Linger)));
}

/// A hook that thinks for a while does not prolong the total.
#[test]
fn the_total_counts_from_the_head_however_late_the_route_is() {
    let mut rig = Rig::new(profile());
    let (policy, head) = (TimeoutPolicy { total: ms(100), ..profile() }, GET.len());
    rig.now = Instant::from_millis(5);
    rig.with(|relay, env| {
        relay.recv_buf(Side::Client, env)[..head].copy_from_slice(GET);
        relay.received(Side::Client, head, env);
        assert_eq!(relay.poll_action(), Some(Action::Route));
        env.now = Instant::from_millis(45);
        relay.forward(Some(Arc::new(policy)), env);
        assert_eq!(relay.poll_timeout().map(|d| d.at), Some(Instant::from_millis(105)));
    });
}

#[test]
fn a_timeout_says_in_which_phase_it_came() {
    let during = |request: &[u8], response: &[u8], written: bool, at: u64| {
        let mut rig = Rig::relaying(profile(), request);
        if written {
            rig.upstream_gets();
        }
        rig.upstream(response);
        rig.client_gets();
        rig.at(at);
        rig.client_gets();
        rig.timeout().during
    };
    let cut = b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nab";
    assert_eq!(during(POST, b"", false, 200), Phase::Request);
    assert_eq!(during(POST, b"", true, 150), Phase::Request);
    assert_eq!(during(GET, b"", true, 150), Phase::ResponseHead);
    assert_eq!(during(GET, cut, true, 150), Phase::ResponseBody);
    assert_eq!(during(POST, cut, true, 150), Phase::ResponseBody);
}

#[test]
fn q_17_no_read_runs_while_the_request_is_written() {
    let mut rig = Rig::relaying(TimeoutPolicy { write: None, ..profile() }, POST);
    for t in 0..9 {
        rig.at(100 * t);
        rig.upstream_gets();
        // The client has its own limit, for each read.
        assert_eq!(rig.next(), Some((100 * t + 150, Kind::ClientBody)));
        rig.client(b"x");
    }
    rig.client(b"x");
    rig.upstream_gets();
    assert_eq!(rig.next(), Some((950, Kind::Read)));
}

#[test]
fn c_17_a_connect_that_is_too_late_lets_the_next_upstream_have_its_turn() {
    let mut rig = Rig::new(profile());
    rig.upstreams = 2;
    rig.client(GET);
    rig.at(100);
    assert_eq!(rig.outcomes, []);
    assert_eq!(rig.next(), Some((200, Kind::Connect)));
    rig.connected();
    rig.upstream_gets();
    rig.upstream(OK5);
    assert!(rig.client_gets().ends_with("hello"));
    assert_eq!((rig.outcome().attempts, rig.outcome().error), (2, None));
}

#[test]
fn a_head_that_a_drain_cuts_is_answered_by_nothing() {
    let mut rig = Rig::new(TimeoutPolicy { drain: ms(100), ..profile() });
    rig.client(&GET[..9]);
    rig.with(|relay, env| relay.drain(Instant::EPOCH, env));
    rig.actions();
    rig.at(100);
    assert_eq!(rig.client_gets(), "");
    assert_eq!((rig.actions(), rig.outcomes.len()), (alloc::vec![Action::Close(Side::Client)], 0));
}

#[test]
fn e3_a_client_that_does_not_wait_for_the_100_is_awaited_like_any_other() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 10\r\n\r\n";
    let mut rig = Rig::relaying(profile(), head);
    rig.upstream_gets();
    assert_eq!(rig.next(), Some((150, Kind::Read)), "nothing was sent yet: the 100 is waited for");
    rig.at(10);
    rig.client(b"x");
    rig.upstream_gets();
    assert_eq!(rig.next(), Some((160, Kind::ClientBody)));
}

/// 4.9 of the limits: a queue that is full refuses, and only whoever asks for an upstream.
#[test]
fn p_12_a_full_queue_is_503_at_once_and_concerns_nobody_else() {
    let mut rig = Rig::new(profile());
    rig.full = true;
    rig.client(GET);
    rig.with(|relay, env| relay.refused(env));
    let answer = rig.client_gets();
    assert!(answer.starts_with("HTTP/1.1 503 "), "{answer}");
    assert!(answer.contains("error=connection_limit_reached; details=\"queue\"\r\n"), "{answer}");
    assert_eq!((rig.outcome().error, rig.outcome().attempts), (Some(Error::QueueFull), 0));

    let mut rig = Rig::relaying(profile(), GET);
    rig.with(|relay, env| relay.refused(env));
    rig.upstream_gets();
    rig.upstream(OK5);
    assert!(rig.client_gets().ends_with("hello"));
}

/// F16: four empty lines are skipped in front of a request, however they come; the fifth is one too many.
#[test]
fn f16_four_empty_lines_are_skipped_and_no_fifth() {
    for together in [true, false] {
        for (lines, status) in [(1, "200"), (4, "200"), (5, "400"), (6, "400")] {
            let mut rig = Rig::new(profile());
            rig.answers = true;
            let whole = [b"\r\n".repeat(lines).as_slice(), GET].concat();
            let pieces = if together { whole.len() } else { 1 };
            whole.chunks(pieces).for_each(|piece| {
                rig.client(piece);
            });
            assert_eq!(rig.client_gets().get(9..12), Some(status), "{lines} {together}");
        }
    }
}

#[test]
fn the_queues_deadline_does_not_run_while_a_name_is_looked_up() {
    let mut rig = Rig::new(TimeoutPolicy { queue: ms(50), ..profile() });
    rig.named = true;
    rig.client(GET);
    assert_eq!(rig.next(), Some((100, Kind::Connect)));
}

/// T5: a lookup that was not begun is nothing that was waited for.
#[test]
fn t5_a_connect_that_may_not_start_is_no_dns_timeout() {
    let mut rig = Rig::new(TimeoutPolicy { connect: ms(0), ..profile() });
    rig.client(GET);
    rig.at(0);
    let answer = rig.client_gets();
    assert!(answer.contains("error=connection_timeout; details=\"connect\""), "{answer}");
    assert_eq!((rig.timeout().kind, rig.timeout().during), (Kind::Connect, Phase::Connect));
}

#[test]
fn an_answer_of_our_own_comes_behind_what_is_left_of_an_interim_response() {
    let hints = "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n";
    for taken in [0, 1, hints.len() - 1] {
        let mut rig = Rig::relaying(TimeoutPolicy { total: ms(100), ..profile() }, GET);
        rig.upstream_gets();
        rig.upstream(hints.as_bytes());
        let mut got = rig.take(Side::Client, taken);
        rig.at(100);
        got.extend(rig.take(Side::Client, usize::MAX));
        let got = String::from_utf8(got).unwrap();
        let answer = got.strip_prefix(hints).unwrap_or_else(|| panic!("{got}"));
        assert!(answer.starts_with("HTTP/1.1 504 ") && answer.ends_with("(total)\n"), "{answer}");
    }
}

/// C6: the end comes with the byte that fills the cap.
#[test]
fn c6_linger_ends_at_its_cap() {
    let mut rig = Rig::new(profile());
    rig.answers = true;
    rig.client(POST);
    rig.client_gets();
    rig.actions();
    let cap = 1 << 20;
    assert_eq!(rig.client(&alloc::vec![b'x'; cap - 1]), cap - 1);
    assert_eq!(rig.actions(), []);
    rig.client(b"x");
    assert_eq!(rig.actions(), [Action::Close(Side::Client)]);
}

/// The client's memory: a head may be larger than a block, and an upload that fills one gets a larger one.
#[test]
fn a_large_head_has_room_and_a_large_upload_a_larger_block() {
    let field = "x".repeat(100_000);
    let head =
        alloc::format!("POST / HTTP/1.1\r\nHost: a\r\nX: {field}\r\nContent-Length: {}\r\n\r\n", 4 << 20);
    let mut rig = Rig::with_config(Config { timeouts: profile(), max_head: 256 * 1024, ..Config::default() });
    assert_eq!(rig.client(head.as_bytes()), head.len());
    rig.connected();
    assert!(rig.upstream_gets().contains(&field));
    let body = alloc::vec![b'x'; 4 << 20];
    let (mut fed, mut most) = (0, 0);
    while fed < body.len() {
        let taken = rig.client(&body[fed..]);
        assert_ne!(taken, 0);
        (fed, most) = (fed + taken, most.max(taken));
        rig.upstream_gets();
    }
    assert_eq!(most, crate::BULK_BLOCK);
    rig.upstream(OK5);
    rig.client_gets();
    assert_eq!(rig.outcome().request_bytes, 4 << 20);
}
