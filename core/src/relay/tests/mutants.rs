//! What the other tests left open: each of these kills a mutant of the machine that they let live.

use super::*;
use crate::scale::or_under_miri;
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

/// Whoever lends the sockets may hear of an attempt after the machine has gone on.
#[test]
fn an_attempt_that_fails_when_it_was_given_up_says_nothing() {
    let late = |rig: &mut Rig| rig.with(|relay, env| relay.failed(Op::Connect, REFUSED, env));
    let mut rig = Rig::new(TimeoutPolicy { connect: ms(50), ..profile() });
    rig.client(GET);
    rig.at(50);
    late(&mut rig);
    assert!(rig.client_gets().contains("504"));
    assert_eq!((rig.timeout().kind, rig.outcome().secondary), (Kind::Connect, None));
    rig.actions();
    late(&mut rig);
    assert_eq!(rig.actions(), []);

    let mut rig = Rig::relaying(profile(), GET);
    rig.upstream_gets();
    rig.actions();
    late(&mut rig);
    assert_eq!(rig.actions(), []);
    rig.upstream(OK5);
    assert!(rig.client_gets().ends_with("hello"));
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
    let all = or_under_miri(4 << 20, 5 << 18);
    let head = alloc::format!("POST / HTTP/1.1\r\nHost: a\r\nX: {field}\r\nContent-Length: {all}\r\n\r\n");
    // Alone: how much is read at once is what differs between its followers.
    let mut rig = Rig::alone(Config { timeouts: profile(), max_head: 256 * 1024, ..Config::default() });
    assert_eq!(rig.client(head.as_bytes()), head.len());
    rig.connected();
    assert!(rig.upstream_gets().contains(&field));
    let body = alloc::vec![b'x'; all];
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
    assert_eq!(rig.outcome().request_bytes, all as u64);
}

/// A head that ends with its block leaves room for the body, and the next head's beginning does for its rest.
#[test]
fn a_block_that_is_used_up_is_begun_anew() {
    let block = crate::BLOCK;
    let config = Config { timeouts: profile(), max_head: block, ..Config::default() };
    let head = "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 70000\r\nX: ";
    let head = alloc::format!("{head}{}\r\n\r\n", "x".repeat(block - head.len() - 4));
    let body = "0123456789".repeat(7000);
    let mut rig = Rig::with_config(config.clone());
    assert_eq!(rig.client(head.as_bytes()), block);
    assert_eq!(rig.client(body.as_bytes()), block, "what has come waits for the upstream");
    rig.connected();
    let mut sent = rig.upstream_gets();
    assert_eq!(rig.client(&body.as_bytes()[block..]), body.len() - block);
    sent += &rig.upstream_gets();
    assert!(sent.ends_with(&alloc::format!("\r\n\r\n{body}")));

    // The same for the response's.
    let head = "HTTP/1.1 200 OK\r\nContent-Length: 70000\r\nX: ";
    let head = alloc::format!("{head}{}\r\n\r\n", "x".repeat(block - head.len() - 4));
    rig.upstream(head.as_bytes());
    rig.upstream(body.as_bytes());
    let mut got = rig.client_gets();
    rig.upstream(&body.as_bytes()[block..]);
    got += &rig.client_gets();
    assert!(got.ends_with(&alloc::format!("\r\n\r\n{body}")));

    // A head that begins near the end of the block behind another is not held up there.
    let mut rig = Rig::with_config(config);
    rig.answers = true;
    let first = "GET / HTTP/1.1\r\nHost: a\r\nX: ";
    let first = alloc::format!("{first}{}\r\n\r\n", "x".repeat(block - first.len() - 4 - 10));
    assert_eq!(rig.client(alloc::format!("{first}{}", text(&GET[..10])).as_bytes()), block);
    assert!(rig.client_gets().ends_with("here"));
    assert_eq!(rig.client(&GET[10..]), GET.len() - 10);
    assert!(rig.client_gets().ends_with("here"));
    assert_eq!(rig.outcomes.len(), 2);
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// What an early answer leaves of a request is not sent with the next one.
#[test]
fn q_08_nothing_of_a_request_that_was_answered_early_reaches_the_next() {
    let post = |body: &str| alloc::format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\n{body}");
    let mut rig = Rig::relaying(profile(), post("hello").as_bytes());
    let head = rig.relay.send_bufs(Side::Upstream).next().map_or(0, <[u8]>::len);
    rig.take(Side::Upstream, head + 1);
    rig.upstream(OK5);
    assert!(rig.client_gets().ends_with("hello"));
    rig.client(post("world").as_bytes());
    rig.connected();
    let sent = rig.upstream_gets();
    assert!(sent.ends_with("\r\n\r\nworld"), "{sent}");
    assert_eq!(rig.outcomes.len(), 1);
}

/// RFC 9112 section 9.5: what an upstream no longer takes is still read, until its answer comes or a limit ends it.
#[test]
fn an_upload_that_its_upstream_does_not_take_is_read_on() {
    let head = b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    let mut rig = Rig::relaying(profile(), head);
    rig.upstream_gets();
    rig.with(|relay, env| relay.failed(Op::Write(Side::Upstream), RESET, env));
    assert_eq!(rig.client(&alloc::vec![b'x'; 900_000]), 900_000);
    rig.upstream(b"HTTP/1.1 413 Content Too Large\r\nContent-Length: 0\r\n\r\n");
    assert!(rig.client_gets().starts_with("HTTP/1.1 413 "));
}

/// A larger block is for a body that fills it: one that has become slow has a plain one again.
#[test]
fn a_body_that_becomes_slow_gives_its_larger_block_back() {
    // Alone: how much is read at once is what differs between its followers.
    let mut rig = Rig::alone(Config { timeouts: profile(), ..Config::default() });
    rig.client(GET);
    rig.connected();
    rig.upstream_gets();
    rig.upstream(b"HTTP/1.1 200 OK\r\nContent-Length: 9000000\r\n\r\n");
    rig.client_gets();
    let flood = alloc::vec![b'x'; 2 << 20];
    let turn = |rig: &mut Rig, n: usize| {
        let taken = rig.upstream(&flood[..n]);
        rig.client_gets();
        taken
    };
    // Nor is one who may have taken nothing yet.
    for came in (0..crate::buf::BULK_AFTER as usize).step_by(crate::BLOCK) {
        assert_eq!(turn(&mut rig, 2 << 20), crate::BLOCK, "after {came}");
    }
    assert_eq!(turn(&mut rig, 2 << 20), crate::BULK_BLOCK);
    assert_eq!(turn(&mut rig, crate::BLOCK), crate::BLOCK);
    assert_eq!(turn(&mut rig, 2 << 20), crate::BULK_BLOCK, "a block's worth at once is no reason");
    assert_eq!(turn(&mut rig, crate::BLOCK - 1), crate::BLOCK - 1);
    assert_eq!(turn(&mut rig, crate::BLOCK), crate::BLOCK);
    assert_eq!(turn(&mut rig, crate::BLOCK - 1), crate::BLOCK - 1);
    assert_eq!(turn(&mut rig, 2 << 20), crate::BULK_BLOCK, "it came short once");
    assert_eq!(turn(&mut rig, crate::BLOCK - 1), crate::BLOCK - 1);
    assert_eq!(turn(&mut rig, crate::BLOCK - 1), crate::BLOCK - 1);
    assert_eq!(turn(&mut rig, 2 << 20), crate::BLOCK, "twice in a row");
    assert_eq!(turn(&mut rig, 2 << 20), crate::BULK_BLOCK);
}

/// What comes a block and a half at a time is read at once, each time.
#[test]
fn a_body_that_comes_in_pieces_of_more_than_a_block_has_a_larger_one() {
    let mut rig = Rig::alone(Config { timeouts: profile(), ..Config::default() });
    rig.client(b"PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 9000000\r\n\r\n");
    rig.connected();
    rig.upstream_gets();
    let piece = alloc::vec![b'x'; crate::BLOCK + crate::BLOCK / 2];
    let reads = |rig: &mut Rig| {
        let (mut taken, mut reads) = (0, 0);
        while taken < piece.len() {
            taken += rig.client(&piece[taken..]);
            rig.upstream_gets();
            reads += 1;
        }
        reads
    };
    let counts: Vec<_> = (0..20).map(|_| reads(&mut rig)).collect();
    assert!(counts.starts_with(&[2; 6]) && counts.ends_with(&[1; 12]), "{counts:?}");
}

/// Each upload of a connection begins with plain blocks, whatever the one before was like.
#[test]
fn an_upload_begins_with_plain_blocks() {
    let mut rig = Rig::alone(Config { timeouts: profile(), ..Config::default() });
    let body = alloc::vec![b'x'; 1 << 20];
    let head = alloc::format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    for _ in 0..2 {
        rig.client(head.as_bytes());
        rig.connected();
        let (mut fed, mut sizes) = (0, Vec::new());
        while fed < body.len() {
            sizes.push(rig.client(&body[fed..]));
            fed += sizes[sizes.len() - 1];
            rig.upstream_gets();
        }
        assert_eq!(sizes.iter().position(|n| *n == crate::BULK_BLOCK), Some(8), "{sizes:?}");
        rig.upstream(OK5);
        rig.client_gets();
    }
    assert_eq!(rig.outcomes.len(), 2);
}

/// Body bytes are written from where the kernel put them: what is adjacent in one piece, what is not in several.
#[test]
fn body_bytes_are_not_moved_together_without_need() {
    let slices = |response: &[&[u8]]| {
        let mut rig = Rig::relaying(profile(), GET);
        rig.upstream_gets();
        response.iter().for_each(|part| {
            rig.upstream(part);
        });
        let all: Vec<String> = rig.relay.send_bufs(Side::Client).map(text).collect();
        all[1..].to_vec()
    };
    let chunked = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let got = slices(&[chunked, b"3\r\nabc\r\n", b"3\r\nd", b"ef\r\n3\r\nghi\r\n"]);
    assert_eq!(got, ["3\r\n", "abc", "\r\n"], "our chunk is what came first");
    let got = slices(&[&[chunked.as_slice(), b"3\r\nabc\r\n3\r\ndef\r\n2\r\ngh\r\n"].concat()]);
    assert_eq!(got, ["8\r\n", "abc", "def", "gh", "\r\n"]);
    let length = b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc";
    assert_eq!(slices(&[length, b"def", b"gh"]), ["abcdefgh"]);
    // More pieces than one write may have: the head, which was left out above, is one of them.
    let got = slices(&[&[chunked.as_slice(), &b"1\r\nx\r\n".repeat(40)].concat()]);
    assert_eq!((got.len() + 1, got.concat()), (MAX_SLICES, alloc::format!("28\r\n{}\r\n", "x".repeat(40))));
}

/// F13: an empty body is the last chunk and nothing else, whether it leaves with its head or after it.
#[test]
fn f13_an_empty_chunked_body_is_one_last_chunk() {
    let (head, end) = ("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n", "0\r\n\r\n");
    for together in [true, false] {
        let mut rig = Rig::relaying(profile(), GET);
        rig.upstream_gets();
        rig.upstream(head.as_bytes());
        let mut got = if together { String::new() } else { rig.client_gets() };
        rig.upstream(end.as_bytes());
        got += &rig.client_gets();
        assert_eq!(got.split_once("\r\n\r\n").map(|(_, body)| body), Some(end), "{together}");

        let request = b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        let mut rig = Rig::relaying(profile(), request);
        let mut got = if together { String::new() } else { rig.upstream_gets() };
        rig.client(end.as_bytes());
        got += &rig.upstream_gets();
        assert_eq!(got.split_once("\r\n\r\n").map(|(_, body)| body), Some(end), "{together}");
    }
}

/// What could not be reached is told while the next upstream is asked for, and what is tried now is not among it.
#[test]
fn what_is_tried_now_was_not_found_unreachable() {
    let mut rig = Rig::new(profile());
    rig.upstreams = 2;
    rig.client(GET);
    assert_eq!(rig.relay.unreached(), None);
    rig.full = true;
    rig.with(|relay, env| relay.failed(Op::Connect, REFUSED, env));
    assert_eq!(rig.relay.unreached(), Some(&addresses(1)));
    rig.with(|relay, env| relay.granted(UpstreamId::new(1).unwrap(), env));
    assert!(matches!(rig.actions.last(), Some(Action::Connect { .. })), "{:?}", rig.actions);
    assert_eq!(rig.relay.unreached(), None);
}

/// C-05: no address has a share while none is tried, though some of the upstream that failed are left.
#[test]
fn no_share_runs_while_the_next_upstream_is_waited_for() {
    let mut rig = Rig::new(TimeoutPolicy { total: ms(1000), ..profile() });
    (rig.upstreams, rig.addresses) = (2, 2);
    rig.client(GET);
    assert_eq!(rig.next(), Some((50, Kind::ConnectAddress)));
    rig.full = true;
    rig.at(100);
    assert_eq!(rig.next(), Some((1000, Kind::Total)));
}
