//! What must hold for every trace: segmentation and time do not change an outcome, nothing panics,
//! every wait has a deadline, and no request has two outcomes.

use super::twins::decoded;
use super::*;
use alloc::vec;
use proptest::prelude::*;

/// Everything that a pair of byte streams leads to when both arrive in pieces.
#[derive(Debug, PartialEq)]
struct Result {
    to_upstream: Vec<u8>,
    to_client: Vec<u8>,
    outcomes: Vec<(Option<u16>, Option<Error>, u64, u64)>,
    closed: bool,
}

/// In pieces, and `step` milliseconds between two of them, under limits that no piece exceeds.
fn run(request: &[u8], response: &[u8], pieces: &[usize], drain: usize, step: u64) -> Result {
    let hour = Some(Duration::from_secs(3600));
    let limits = TimeoutPolicy {
        connect: hour,
        write: hour,
        write_idle: hour,
        read: hour,
        total: hour,
        client_head: hour,
        client_body: hour,
        client_write: hour,
        keep_alive: hour,
        linger: hour,
        ..TimeoutPolicy::OFF
    };
    let mut clock = 0;
    let mut rig = alone(limits);
    let (mut sent, mut answered) = (0, 0);
    let (mut to_upstream, mut to_client) = (vec![], vec![]);
    let mut pieces = pieces.iter().cycle();
    let mut dialled = 0;
    loop {
        clock += step;
        rig.at(clock);
        let mut moved = false;
        let n = (*pieces.next().unwrap()).min(request.len() - sent);
        let n = rig.client(&request[sent..sent + n]);
        sent += n;
        moved |= n > 0;
        let connects = rig.actions.iter().filter(|a| matches!(a, Action::Connect { .. })).count();
        if connects > dialled {
            dialled = connects;
            rig.with(|relay, env| relay.connected(false, env));
            moved = true;
        }
        // An answer that overtakes its request closes the connection, so it waits for the whole request.
        let whole = sent == request.len() && !rig.relay.interest().write_upstream;
        let ready = if whole { response.len() - answered } else { 0 };
        let n = (*pieces.next().unwrap()).min(ready);
        let n = rig.upstream(&response[answered..answered + n]);
        answered += n;
        moved |= n > 0;
        let up = rig.take(Side::Upstream, drain);
        let down = rig.take(Side::Client, drain);
        moved |= !up.is_empty() || !down.is_empty();
        to_upstream.extend(up);
        to_client.extend(down);
        if !moved && (sent == request.len() || !rig.relay.interest().read_client) {
            break;
        }
    }
    if answered == response.len() && rig.relay.interest().read_upstream {
        rig.fin(Side::Upstream);
        to_client.extend(rig.take(Side::Client, usize::MAX));
    }
    // How much of a request had gone before its fault was found depends on when it came.
    let sent = |o: &Outcome| if o.error.is_none() { o.request_bytes } else { 0 };
    let outcomes = rig.outcomes.iter().map(|o| (o.status, o.error, sent(o), o.response_bytes)).collect();
    Result { to_upstream, to_client, outcomes, closed: rig.relay.is_closed() }
}

const REQUESTS: [&[u8]; 8] = [
    b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nto the upstream",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nExpect: 100-continue\r\n\r\nhello",
    b"GET / HTTP/1.1\r\nHost: a\r\n\r\n",
    b"\r\nGET /x?y HTTP/1.0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6;a=b\r\n world\r\n0\r\nX: y\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n",
    b"GET / HTTP/1.1\r\nHost: a\r\nBad Name: x\r\n\r\n",
];

/// What surplus of the first answer the second request meets depends on when it came.
const PIPELINE: &[u8] =
    b"HEAD / HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n";

const RESPONSES: [&[u8]; 9] = [
    b"HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nto the client",
    b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
    b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nuntil the end",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhelloX\r\n",
    b"HTTP/1.1 999999 OK\r\n\r\n",
];

/// `http.md` G1: every pair, one byte at a time in both directions.
#[test]
fn g1_every_pair_of_messages_comes_to_the_same_one_byte_at_a_time() {
    let every = crate::scale::or_under_miri(1, RESPONSES.len());
    for (first, request) in REQUESTS.into_iter().enumerate() {
        for response in RESPONSES.into_iter().skip(first % every).step_by(every) {
            let whole = run(request, response, &[usize::MAX], usize::MAX, 0);
            let split = run(request, response, &[1], 1, 250);
            assert_eq!(whole.outcomes, split.outcomes, "{request:?} {response:?}");
            assert_eq!(decoded(&whole.to_client), decoded(&split.to_client));
            assert_eq!(whole.closed, split.closed);
        }
    }
}

proptest! {
    #![proptest_config(crate::scale::properties(ProptestConfig::default()))]

    /// `http.md` G1, V-14 of the conformance suite.
    #[test]
    fn the_outcome_does_not_depend_on_segmentation(
        request in 0..REQUESTS.len(),
        response in 0..RESPONSES.len(),
        pieces in proptest::collection::vec(1usize..40, 1..8),
        drain in 1usize..200,
        step in 0u64..500,
    ) {
        let (request, response) = (REQUESTS[request], RESPONSES[response]);
        let whole = run(request, response, &[usize::MAX], usize::MAX, 0);
        let split = run(request, response, &pieces, drain, step);
        prop_assert_eq!(&whole.outcomes, &split.outcomes);
        prop_assert_eq!(decoded(&whole.to_client), decoded(&split.to_client));
        if whole.outcomes.iter().all(|o| o.1.is_none()) {
            prop_assert_eq!(decoded(&whole.to_upstream), decoded(&split.to_upstream));
        }
        prop_assert_eq!(whole.closed, split.closed);
    }

    /// Any events in any order, at any times, under any limits: no panic, no wait without a deadline, no
    /// state that nothing can end, at most one outcome per request and one upstream connection at a time,
    /// nothing after the end.
    #[test]
    fn no_trace_breaks_an_invariant(
        limits in 0usize..4,
        zero in 0..DeadlineKind::COUNT,
        addresses in 0u16..4,
        seed in proptest::collection::vec((0u8..15, 0u64..400, 1usize..300), 1..120),
    ) {
        let mut policy = match limits {
            0 => TimeoutPolicy::OFF,
            _ => TimeoutPolicy { total: Some(Duration::from_millis(300)), ..profile() },
        };
        if limits > 1 {
            nothing_for(&mut policy, DeadlineKind::ALL[zero]);
        }
        let mut rig = alone(policy);
        rig.keeps = limits % 2 == 0;
        rig.addresses = addresses.max(1);
        rig.named = addresses == 0;
        let mut busy = false;
        let mut clock = 0;
        let (mut heads, mut tail) = (0, [0usize; 2]);
        for (event, time, size) in seed {
            clock += time / 4;
            rig.now = Instant::from_millis(clock);
            let (interest, before) = (rig.relay.interest(), rig.relay.exchange.stage);
            match event {
                0..=3 => {
                    let bytes = REQUESTS.get(size % (REQUESTS.len() + 1)).unwrap_or(&PIPELINE);
                    let from = tail[0] % bytes.len();
                    tail[0] += rig.client(&bytes[from..(from + size).min(bytes.len())]);
                }
                4..=6 => {
                    let bytes = RESPONSES[size % RESPONSES.len()];
                    let from = tail[1] % bytes.len();
                    tail[1] += rig.upstream(&bytes[from..(from + size).min(bytes.len())]);
                }
                7 => drop(rig.take(Side::Client, size)),
                8 => drop(rig.take(Side::Upstream, size)),
                9 => rig.with(|relay, env| relay.connected(size % 2 == 0, env)),
                10 if interest.read_client => rig.with(|relay, env| relay.received(Side::Client, 0, env)),
                11 if interest.read_upstream => rig.with(|relay, env| relay.received(Side::Upstream, 0, env)),
                12 => {
                    let ops = [Op::Connect, Op::PASS[0], Op::PASS[1], Op::PASS[2], Op::PASS[3]];
                    let op = ops[size % ops.len()];
                    if op == Op::Connect || interest.wants(op) {
                        rig.with(|relay, env| relay.failed(op, RESET, env));
                    }
                }
                13 => rig.resolved(size as u16 % 4),
                _ => {
                    rig.with(|relay, env| {
                        for side in [Side::Client, Side::Upstream] {
                            relay.not_ready(side, env);
                        }
                        relay.handle_timeout(env);
                    });
                }
            }
            let actions = rig.actions();
            for action in &actions {
                match action {
                    Action::Connect { .. } => {
                        // An attempt at another address takes the place of the one before.
                        let next_address = before == Stage::Connecting && actions.len() == 1;
                        prop_assert!(!busy || next_address, "two upstream connections: {:?}", actions);
                        busy = true;
                    }
                    Action::Checkout(_) => prop_assert!(!busy, "{:?}", actions),
                    Action::Abort(Side::Upstream)
                    | Action::Close(Side::Upstream)
                    | Action::Discard
                    | Action::Release { .. } => busy = false,
                    _ => {}
                }
            }
            let stage = rig.relay.exchange.stage;
            busy |= matches!(stage, Stage::Connecting | Stage::Relaying | Stage::Tunnel) && !rig.relay.exchange.held;
            heads += actions.iter().filter(|a| matches!(a, Action::Route)).count();
            // A head that never was complete may have an outcome too: one more at most.
            prop_assert!(rig.outcomes.len() <= heads + 1);
            let (interest, next) = (rig.relay.interest(), rig.relay.poll_timeout());
            if rig.relay.is_closed() {
                prop_assert_eq!((next, interest, busy), (None, Interest::default(), false));
                break;
            }
            prop_assert!(next.is_some() || limits == 0, "a wait without a deadline: {:?}", rig.relay);
            let due = next.is_some_and(|d| d.at <= rig.now);
            let asks = matches!(stage, Stage::Resolving | Stage::Connecting);
            let awaited = interest != Interest::default() || asks;
            prop_assert!(awaited || due, "nothing can end this: {:?}", rig.relay);
            for side in [Side::Client, Side::Upstream] {
                let write = rig.relay.send_bufs(side).next().is_some();
                prop_assert!(write || !interest.wants(Op::Write(side)), "nothing to write: {:?}", rig.relay);
                if interest.wants(Op::Read(side)) {
                    let room = rig.with(|relay, env| relay.recv_buf(side, env).len());
                    prop_assert!(room > 0, "no room to read into: {:?}", rig.relay);
                }
            }
        }
    }
}

/// Makes one limit zero.
pub(super) fn nothing_for(policy: &mut TimeoutPolicy, kind: DeadlineKind) {
    let zero = Some(Duration::ZERO);
    match kind {
        DeadlineKind::Total => policy.total = zero,
        DeadlineKind::Connect => policy.connect = zero,
        DeadlineKind::Write => policy.write = zero,
        DeadlineKind::WriteIdle => policy.write_idle = zero,
        DeadlineKind::Read => policy.read = zero,
        DeadlineKind::ClientHead => policy.client_head = zero,
        DeadlineKind::ClientBody => policy.client_body = zero,
        DeadlineKind::ClientWrite => policy.client_write = zero,
        DeadlineKind::KeepAlive => policy.keep_alive = zero,
        DeadlineKind::Linger => policy.linger = zero,
        DeadlineKind::Tunnel => policy.tunnel = zero,
        DeadlineKind::TunnelFin => policy.tunnel_fin = zero,
        DeadlineKind::Queue => policy.queue = zero,
        DeadlineKind::Drain => policy.drain = zero,
        _ => {}
    }
}
