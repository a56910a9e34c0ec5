//! Tunnels in exact time: the rows of `http.md` section 8 and the cases U of the conformance suite.

use super::*;
use crate::timeout::DeadlineKind as Kind;
use alloc::vec;
use proptest::prelude::*;

const UPGRADE: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const SWITCHING: &[u8] = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
/// As the client gets it.
const SWITCHED: &str = "HTTP/1.1 101 S\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n";
const CLOSED: [Action; 3] = [Action::Close(Side::Upstream), Action::Report, Action::Close(Side::Client)];
pub(super) const RESET_BOTH: [Action; 3] =
    [Action::Abort(Side::Upstream), Action::Report, Action::Abort(Side::Client)];
pub(super) const SIDES: [Side; 2] = [Side::Client, Side::Upstream];

fn ms(n: u64) -> Option<Duration> {
    Some(Duration::from_millis(n))
}

pub(super) fn other(side: Side) -> Side {
    if side == Side::Client { Side::Upstream } else { Side::Client }
}

/// A rig with a tunnel through which nothing has come yet.
pub(super) fn tunnel(policy: TimeoutPolicy) -> Rig {
    let mut rig = Rig::relaying(policy, UPGRADE);
    assert!(rig.upstream_gets().contains("\r\nconnection: upgrade\r\nupgrade: websocket\r\n"));
    rig.upstream(SWITCHING);
    assert_eq!(rig.client_gets(), SWITCHED);
    rig.actions();
    rig
}

pub(super) fn send(rig: &mut Rig, from: Side, bytes: &[u8]) -> usize {
    if from == Side::Client { rig.client(bytes) } else { rig.upstream(bytes) }
}

fn gets(rig: &mut Rig, side: Side) -> String {
    if side == Side::Client { rig.client_gets() } else { rig.upstream_gets() }
}

fn status(rig: &mut Rig) -> String {
    rig.client_gets().split(' ').nth(1).unwrap_or("").into()
}

#[test]
fn u_01_a_101_disarms_everything_else() {
    let mut rig = tunnel(TimeoutPolicy { total: ms(200), write: ms(100), ..profile() });
    for t in (100..=600).step_by(100) {
        rig.at(t);
        assert_eq!(rig.next(), Some((t + 50, Kind::Tunnel)));
        for from in SIDES {
            send(&mut rig, from, b"echo");
            assert_eq!(gets(&mut rig, other(from)), "echo");
        }
    }
    assert_eq!((rig.actions(), rig.outcomes.len()), (vec![], 0));
    assert_eq!(rig.next(), Some((750, Kind::Tunnel)), "the only one");
}

#[test]
fn u_02_an_idle_tunnel_is_closed() {
    let mut rig = tunnel(profile());
    rig.now = Instant::from_millis(20);
    rig.client(b"last");
    rig.upstream_gets();
    rig.at(169);
    assert_eq!(rig.actions(), []);
    rig.at(170);
    assert_eq!(rig.actions(), CLOSED);
    let t = rig.timeout();
    assert_eq!((t.kind, t.elapsed, t.during), (Kind::Tunnel, Duration::from_millis(150), Phase::Tunnel));
    assert_eq!((rig.outcome().status, t.response_started), (Some(101), true));
    assert_eq!((rig.outcome().request_bytes, rig.outcome().response_bytes), (4, 0));
    assert_eq!(rig.next(), None);
    assert!(rig.relay.is_closed());
}

#[test]
fn u_03_one_direction_keeps_both_open() {
    let mut rig = tunnel(profile());
    for t in (100..=600).step_by(100) {
        rig.at(t);
        rig.upstream(b"tick");
        assert_eq!(rig.client_gets(), "tick");
    }
    assert_eq!(rig.outcomes.len(), 0);
}

#[test]
fn u_04_each_direction_closes_on_its_own() {
    for first in SIDES {
        let second = other(first);
        let mut rig = tunnel(profile());
        send(&mut rig, first, b"the last");
        rig.fin(first);
        assert_eq!(rig.actions(), [], "not before what came before it");
        assert_eq!(gets(&mut rig, second), "the last");
        assert_eq!(rig.actions(), [Action::ShutdownWrite(second)]);
        for t in [100, 200, 300] {
            rig.at(t);
            send(&mut rig, second, b"and more");
            assert_eq!(gets(&mut rig, first), "and more");
        }
        assert_eq!(rig.actions(), [], "FIN is sent once");
        send(&mut rig, second, b"and the end");
        rig.fin(second);
        assert_eq!(rig.actions(), [], "what is left goes first");
        assert_eq!(gets(&mut rig, first), "and the end");
        assert_eq!(rig.actions(), CLOSED);
        let outcome = rig.outcome();
        assert_eq!((outcome.status, outcome.error), (Some(101), None));
        let bytes = [outcome.request_bytes, outcome.response_bytes];
        assert_eq!(bytes, if first == Side::Client { [8, 35] } else { [35, 8] });
    }
}

#[test]
fn u_04_a_client_that_sent_fin_before_the_101_is_half_closed() {
    let mut rig = Rig::relaying(profile(), UPGRADE);
    rig.client(b"hello");
    rig.fin(Side::Client);
    rig.upstream_gets();
    rig.actions();
    rig.upstream(SWITCHING);
    assert_eq!(rig.upstream_gets(), "hello");
    assert_eq!(rig.actions(), [Action::ShutdownWrite(Side::Upstream)]);
    assert_eq!(rig.client_gets(), SWITCHED);
    rig.upstream(b"bye");
    rig.fin(Side::Upstream);
    assert_eq!(rig.client_gets(), "bye");
    assert_eq!((rig.actions(), rig.outcome().error), (CLOSED.to_vec(), None));
}

#[test]
fn u_05_a_half_closed_tunnel_has_a_limit_of_its_own() {
    for first in SIDES {
        let mut rig = tunnel(TimeoutPolicy { tunnel: ms(1000), ..profile() });
        rig.at(40);
        rig.fin(first);
        assert_eq!(rig.next(), Some((190, Kind::TunnelFin)));
        rig.actions();
        rig.at(100);
        send(&mut rig, other(first), b"x");
        assert_eq!(rig.next(), Some((190, Kind::TunnelFin)), "received is not forwarded");
        gets(&mut rig, first);
        assert_eq!(rig.next(), Some((250, Kind::TunnelFin)));
        rig.at(250);
        assert_eq!(rig.actions(), CLOSED);
        assert_eq!((rig.timeout().kind, rig.outcome().status), (Kind::TunnelFin, Some(101)));
        assert_eq!(rig.timeout().blocked_on, other(first), "who has not sent FIN");
    }
    // The second FIN stops it; what is still to be forwarded has the limit of any tunnel.
    let mut rig = tunnel(TimeoutPolicy { tunnel: ms(1000), ..profile() });
    rig.fin(Side::Client);
    rig.upstream(b"x");
    rig.fin(Side::Upstream);
    assert_eq!(rig.next(), Some((1000, Kind::Tunnel)));
    // And the earlier of the two ends a half-closed one.
    let mut rig = tunnel(TimeoutPolicy { tunnel_fin: ms(1000), ..profile() });
    rig.fin(Side::Client);
    assert_eq!(rig.next(), Some((150, Kind::Tunnel)));
}

#[test]
fn u_06_bytes_that_go_nowhere_are_no_activity() {
    for from in SIDES {
        let mut rig = tunnel(profile());
        for t in [50, 100, 149] {
            rig.at(t);
            send(&mut rig, from, b"anybody?");
        }
        rig.at(150);
        let to = other(from);
        let end = |side| if side == to { Action::Abort(side) } else { Action::Close(side) };
        assert_eq!(rig.actions(), [end(Side::Upstream), Action::Report, end(Side::Client)]);
        assert_eq!((rig.timeout().kind, rig.timeout().blocked_on), (Kind::Tunnel, to));
    }
    // A client that takes nothing is to blame also when it has said all that it will.
    let mut rig = tunnel(profile());
    rig.fin(Side::Client);
    rig.upstream(b"anybody?");
    rig.actions();
    rig.at(150);
    assert_eq!(rig.timeout().blocked_on, Side::Client);
}

#[test]
fn u_07_u2_after_any_other_answer_what_was_held_back_is_http() {
    let mut rig = Rig::relaying(profile(), &[UPGRADE, b"GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"].concat());
    let sent = rig.upstream_gets();
    assert!(sent.starts_with("GET / ") && !sent.contains("/2"), "nothing passes raw: {sent}");
    rig.upstream(OK5);
    assert!(rig.client_gets().ends_with("hello"));
    assert_eq!((rig.outcome().status, rig.outcome().error), (Some(200), None));
    rig.connected();
    assert!(rig.upstream_gets().starts_with("GET /2 HTTP/1.1\r\n"), "a request of its own");
    assert_eq!(rig.next().map(|(_, kind)| kind), Some(Kind::Read), "ordinary timers");

    let mut rig = Rig::relaying(profile(), &[UPGRADE, b"\x81\x05hello\r\n\r\n"].concat());
    rig.upstream_gets();
    rig.upstream(b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n");
    let answers = rig.client_gets();
    assert!(answers.starts_with("HTTP/1.1 403 ") && answers.contains("HTTP/1.1 400 "), "{answers}");
}

#[test]
fn u2_what_is_held_back_is_bounded() {
    let mut rig = Rig::relaying(profile(), UPGRADE);
    rig.upstream_gets();
    let much = vec![b'x'; 1_000_000];
    let held = rig.client(&much);
    assert!(held <= crate::buf::BLOCK, "{held}");
    assert!(!rig.relay.interest().read_client && !rig.relay.interest().write_upstream);
    rig.upstream(SWITCHING);
    assert_eq!(rig.upstream_gets().len(), held);
    assert!(rig.relay.interest().read_client);
}

#[test]
fn u_08_what_is_glued_to_the_101_is_delivered_and_counts() {
    let mut rig = Rig::relaying(profile(), &[UPGRADE, b"early"].concat());
    rig.upstream_gets();
    rig.at(100);
    rig.upstream(&[SWITCHING, b"glued"].concat());
    rig.at(200);
    assert_eq!(rig.client_gets(), [SWITCHED, "glued"].concat());
    assert_eq!(rig.next(), Some((350, Kind::Tunnel)), "forwarding it is activity");
    assert_eq!(rig.upstream_gets(), "early");
    rig.fin(Side::Client);
    rig.fin(Side::Upstream);
    assert_eq!((rig.outcome().request_bytes, rig.outcome().response_bytes), (5, 5));
}

#[test]
fn u_09_a_reset_on_one_side_ends_the_other_at_once() {
    for op in Op::PASS {
        let (Op::Read(side) | Op::Write(side)) = op else { continue };
        let mut rig = tunnel(profile());
        // Something is under way in both directions.
        rig.client(b"x");
        rig.upstream(b"y");
        rig.with(|relay, env| relay.failed(op, RESET, env));
        assert_eq!(rig.actions(), RESET_BOTH, "{op:?}");
        let expected = match side {
            Side::Client => Error::ClientAbort(Some(RESET)),
            Side::Upstream => Error::UpstreamReset(RESET),
        };
        assert_eq!((rig.outcome().status, rig.outcome().error), (Some(101), Some(expected)));
        assert_eq!((rig.next(), rig.relay.interest()), (None, Interest::default()));
    }
}

#[test]
fn u_10_an_upgrade_that_is_never_answered_is_504() {
    let mut rig = Rig::relaying(profile(), UPGRADE);
    rig.client(b"early");
    rig.upstream_gets();
    rig.at(150);
    assert_eq!(status(&mut rig), "504");
    assert_eq!(rig.timeout().kind, Kind::Read);
}

#[test]
fn u_11_s_03_a_drain_ends_tunnels_at_its_deadline_and_no_sooner() {
    for floods in [false, true] {
        let mut rig = tunnel(TimeoutPolicy { drain: ms(300), tunnel: ms(1000), ..profile() });
        rig.with(|relay, env| relay.drain(env.now, env));
        assert_eq!((rig.actions(), rig.next()), (vec![], Some((300, Kind::Drain))));
        for t in (0..300).step_by(10).filter(|_| floods) {
            rig.at(t);
            rig.upstream(b"flood");
            rig.client_gets();
        }
        rig.at(300);
        assert_eq!(rig.actions(), RESET_BOTH, "as the total does");
        assert_eq!((rig.timeout().kind, rig.outcome().status), (Kind::Drain, Some(101)));
    }
    // A tunnel is never idle in the sense in which a drain closes at once.
    let rig = tunnel(profile());
    assert!(rig.relay.is_active() && !rig.relay.is_idle());
}

#[test]
fn a_stop_resets_both_sides() {
    let mut rig = tunnel(profile());
    rig.with(|relay, env| {
        // A FIN that nobody has sent yet is not sent after the end.
        relay.received(Side::Client, 0, env);
        relay.stop(env);
    });
    assert_eq!(rig.actions(), RESET_BOTH);
    assert_eq!((rig.outcome().status, rig.outcome().error), (Some(101), Some(Error::Stopped)));
}

#[test]
fn u1_a_101_before_the_request_is_complete_is_502() {
    let post = |length| {
        [
            b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\nContent-Length: "
                .as_slice(),
            length,
            b"\r\n\r\n",
        ]
        .concat()
    };
    // The client has not sent it all.
    let mut rig = Rig::relaying(profile(), &[&post(b"5"), b"abc".as_slice()].concat());
    assert!(rig.upstream_gets().ends_with("abc"));
    rig.upstream(SWITCHING);
    assert_eq!(status(&mut rig), "502");
    // The upstream has not taken it all.
    let mut rig = Rig::relaying(profile(), &post(b"5"));
    rig.upstream_gets();
    rig.client(b"abcde");
    rig.take(Side::Upstream, 4);
    rig.upstream(SWITCHING);
    assert_eq!(status(&mut rig), "502");
    assert_eq!(rig.outcome().error, Some(Error::UpstreamProtocol(HttpError::UnexpectedUpgrade)));
    // Not even once it is whole: with a body no upgrade is asked for (`http.md` U3).
    let chunked = b"POST / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\
        Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for request in [&[&post(b"5"), b"abcde".as_slice()].concat(), chunked.as_slice()] {
        let mut rig = Rig::relaying(profile(), request);
        assert!(!rig.upstream_gets().contains("upgrade"));
        rig.upstream(SWITCHING);
        assert_eq!(status(&mut rig), "502");
    }
    // A length of zero is no body.
    let mut rig = Rig::relaying(profile(), &post(b"0"));
    rig.upstream_gets();
    rig.upstream(b"HTTP/1.1 103 Early\r\n\r\n");
    rig.client_gets();
    rig.upstream(SWITCHING);
    assert_eq!(rig.client_gets(), SWITCHED);
}

#[test]
fn u1_any_other_101_is_502_and_nothing_of_the_tunnel_passes() {
    let (plain, off) = (GET, UPGRADE);
    let empty = Config { timeouts: profile(), upgrades: vec![], ..Config::default() };
    for (request, config, answer) in [
        (plain, Config { timeouts: profile(), ..Config::default() }, SWITCHING),
        (off, empty, SWITCHING),
        (
            UPGRADE,
            Config { timeouts: profile(), ..Config::default() },
            b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: other\r\n\r\n",
        ),
    ] {
        let mut rig = Rig::with_config(config);
        rig.client(&[request, b"raw"].concat());
        rig.connected();
        assert!(!rig.upstream_gets().contains("raw"));
        rig.actions();
        rig.upstream(&[answer, b"raw"].concat());
        assert_eq!(rig.actions()[0], Action::Abort(Side::Upstream));
        let got = rig.client_gets();
        assert!(got.starts_with("HTTP/1.1 502 ") && !got.contains("raw"), "{got}");
    }
}

#[test]
fn u5_a_tunnel_holds_no_more_than_a_block_a_side_and_none_when_idle() {
    let much = vec![b'x'; 1_000_000];
    for from in SIDES {
        let mut rig = tunnel(profile());
        let taken = send(&mut rig, from, &much);
        assert_eq!(taken, crate::buf::BLOCK);
        assert!(!rig.relay.interest().wants(Op::Read(from)), "back-pressure");
        assert_eq!(gets(&mut rig, other(from)).len(), taken);
        assert!(rig.relay.interest().wants(Op::Read(from)));
        rig.with(|relay, env| SIDES.into_iter().for_each(|side| relay.not_ready(side, env)));
        assert!(rig.relay.client.outbound.head.capacity() == 0);
        assert!(
            rig.relay.client.inbound.unparsed().is_empty()
                && rig.relay.upstream.inbound.unparsed().is_empty()
        );
    }
}

#[test]
fn the_limits_of_a_route_hold_in_its_tunnels() {
    let mut rig = Rig::new(profile());
    rig.policy.tunnel = ms(70);
    rig.client(UPGRADE);
    rig.connected();
    rig.upstream_gets();
    rig.upstream(SWITCHING);
    rig.client_gets();
    assert_eq!(rig.next(), Some((70, Kind::Tunnel)));
    // Off is off.
    let mut rig = tunnel(TimeoutPolicy::OFF);
    rig.fin(Side::Client);
    assert_eq!(rig.next(), None);
}

proptest! {
    #![proptest_config(crate::scale::properties(ProptestConfig::default()))]

    /// `http.md` G1 for tunnels: what passes, and how it ends, does not depend on the pieces in which it comes and goes.
    #[test]
    fn a_tunnel_does_not_depend_on_segmentation(
        up in proptest::collection::vec(any::<u8>(), 0..300),
        down in proptest::collection::vec(any::<u8>(), 0..300),
        pieces in proptest::collection::vec(1usize..60, 1..8),
        first in 0usize..2,
    ) {
        for pieces in [pieces, vec![1], vec![usize::MAX]] {
            let mut rig = alone(TimeoutPolicy::OFF);
            let sent = [[UPGRADE, &up].concat(), [SWITCHING, &down].concat()];
            let (mut from, mut got, mut ended) = ([0usize; 2], [vec![], vec![]], [false; 2]);
            let mut pieces = pieces.iter().copied().cycle();
            // Whoever comes first, an answer comes after its request.
            for turn in first.. {
                let side = SIDES[turn % 2];
                let (me, piece) = (turn % 2, pieces.next().unwrap_or(1));
                let asked = rig.relay.exchange.stage == Stage::Tunnel
                    || (rig.relay.exchange.stage == Stage::Relaying && !rig.relay.interest().write_upstream);
                if me == 0 || asked {
                    let end = sent[me].len().min(from[me].saturating_add(piece));
                    from[me] += send(&mut rig, side, &sent[me][from[me]..end]);
                }
                if matches!(rig.actions.last(), Some(Action::Connect { .. })) {
                    rig.connected();
                    rig.actions();
                }
                let taken = rig.take(other(side), piece);
                got[1 - me].extend(taken);
                if from[me] == sent[me].len() && !ended[me] && rig.relay.interest().wants(Op::Read(side)) {
                    rig.fin(side);
                    ended[me] = true;
                }
                if rig.relay.is_closed() {
                    break;
                }
                prop_assert!(turn < 5000, "it never ends: {:?}", rig.relay);
            }
            prop_assert_eq!((rig.outcome().status, rig.outcome().error), (Some(101), None));
            prop_assert_eq!(rig.outcome().request_bytes, up.len() as u64);
            prop_assert_eq!(rig.outcome().response_bytes, down.len() as u64);
            prop_assert!(got[0].starts_with(SWITCHED.as_bytes()) && got[0][SWITCHED.len()..] == down);
            let head = got[1].len() - up.len();
            prop_assert!(got[1][..head].ends_with(b"\r\n\r\n") && got[1][head..] == up);
            prop_assert_eq!(rig.actions.iter().filter(|a| matches!(a, Action::Report)).count(), 1);
        }
    }
}

#[test]
fn outstanding_bytes_of_a_closed_upstream_reach_the_client() {
    let mut rig = tunnel(profile());
    rig.upstream(b"the last words");
    rig.fin(Side::Upstream);
    rig.client(b"ping");
    let broken = IoFailure { kind: IoKind::BrokenPipe, os_code: None };
    rig.with(|relay, env| relay.failed(Op::Write(Side::Upstream), broken, env));
    assert_eq!(rig.client_gets(), "the last words", "{:?}", rig.actions);
}

#[test]
fn a_client_that_does_not_take_the_101_has_the_client_write_limit() {
    let mut rig =
        Rig::relaying(TimeoutPolicy { total: ms(200), tunnel: ms(3_600_000), ..profile() }, UPGRADE);
    rig.upstream_gets();
    rig.upstream(SWITCHING);
    // Nothing of the 101 was taken.
    assert_eq!(rig.next(), Some((150, Kind::ClientWrite)));
}

#[test]
fn an_idle_tunnel_holds_no_block() {
    let mut rig = tunnel(profile());
    // Turn 1: it reads, and the client takes a part.
    rig.upstream(b"0123456789");
    rig.take(Side::Client, 4);
    rig.with(|relay, env| relay.not_ready(Side::Upstream, env));
    // Turn 2, in the order of Op::PASS: the read waits, then the write goes through; what waits is not asked again.
    rig.with(|relay, env| relay.not_ready(Side::Upstream, env));
    assert_eq!(rig.client_gets(), "456789");
    assert_eq!(rig.relay.upstream.inbound.held(), 0);
}

#[test]
fn outstanding_bytes_that_were_not_read_yet_do_too() {
    let broken = IoFailure { kind: IoKind::BrokenPipe, os_code: None };
    for fin_first in [true, false] {
        let mut rig = tunnel(profile());
        rig.upstream(b"the last ");
        rig.client(b"ping");
        if !fin_first {
            rig.with(|relay, env| relay.failed(Op::Write(Side::Upstream), broken, env));
            assert_eq!(rig.actions(), []);
        }
        rig.upstream(b"words");
        rig.fin(Side::Upstream);
        if fin_first {
            rig.with(|relay, env| relay.failed(Op::Write(Side::Upstream), RESET, env));
        }
        rig.client(b"ping");
        assert_eq!(rig.client_gets(), "the last words");
        assert_eq!(rig.actions(), CLOSED, "all of it was delivered");
        assert!(matches!(rig.outcome().error, Some(Error::UpstreamReset(_))));
    }
}

/// A client that closes for good after its last words resets whoever still talks to it: that must not take from the
/// upstream what it said.
#[test]
fn outstanding_bytes_of_a_closed_client_reach_the_upstream() {
    let broken = IoFailure { kind: IoKind::BrokenPipe, os_code: None };
    for (fin_first, failure) in [(true, broken), (true, RESET), (false, broken)] {
        let mut rig = tunnel(profile());
        rig.client(b"the last ");
        rig.upstream(b"ping");
        if !fin_first {
            rig.with(|relay, env| relay.failed(Op::Write(Side::Client), failure, env));
            assert_eq!(rig.actions(), []);
        }
        rig.client(b"words");
        rig.fin(Side::Client);
        if fin_first {
            rig.with(|relay, env| relay.failed(Op::Write(Side::Client), failure, env));
        }
        rig.upstream(b"ping");
        assert_eq!(rig.next(), Some((150, Kind::Tunnel)), "and it takes no longer than any other");
        assert_eq!(rig.upstream_gets(), "the last words");
        assert_eq!(rig.actions(), CLOSED, "all of it was delivered");
        assert_eq!(rig.outcome().error, Some(Error::ClientAbort(Some(failure))));
    }
}

#[test]
fn a_closed_client_waits_for_its_upstream_no_longer_than_half_a_tunnel_may() {
    let mut rig = tunnel(TimeoutPolicy { tunnel_fin: ms(100), ..profile() });
    rig.client(b"the last words");
    rig.fin(Side::Client);
    rig.upstream(b"ping");
    rig.with(|relay, env| relay.failed(Op::Write(Side::Client), RESET, env));
    rig.at(99);
    assert_eq!(rig.take(Side::Upstream, 3), b"the");
    assert_eq!(rig.next(), Some((199, Kind::TunnelFin)));
    rig.at(199);
    assert_eq!(
        rig.actions(),
        [Action::Abort(Side::Upstream), Action::Report, Action::Close(Side::Client)],
        "it must not take a part for the whole"
    );
    assert_eq!(rig.timeout().blocked_on, Side::Upstream);
}

/// One that was reset before it said that this was all, and one that has not got the 101, are gone.
#[test]
fn a_client_that_is_reset_before_its_fin_resets_the_upstream() {
    let mut rig = tunnel(profile());
    rig.client(b"words");
    rig.upstream(b"ping");
    rig.with(|relay, env| relay.failed(Op::Write(Side::Client), RESET, env));
    assert_eq!(rig.actions(), RESET_BOTH);

    // The same if it took no more before.
    let mut rig = tunnel(profile());
    rig.client(b"words");
    rig.upstream_gets();
    let broken = IoFailure { kind: IoKind::BrokenPipe, os_code: None };
    rig.with(|relay, env| relay.failed(Op::Write(Side::Client), broken, env));
    assert_eq!(rig.actions(), []);
    rig.with(|relay, env| relay.failed(Op::Read(Side::Client), RESET, env));
    assert_eq!(rig.actions()[0], Action::Abort(Side::Upstream), "its words end in the middle");

    let mut rig = Rig::relaying(profile(), UPGRADE);
    rig.upstream_gets();
    rig.client(b"words");
    rig.fin(Side::Client);
    rig.upstream(SWITCHING);
    rig.actions();
    rig.with(|relay, env| relay.failed(Op::Write(Side::Client), RESET, env));
    assert_eq!(rig.actions(), RESET_BOTH);
}
