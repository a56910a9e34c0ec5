//! Everything that can happen to the machine, mixed at random: requests, upgrades, names and lists of addresses, bodies of
//! any size, failures of every operation, time, drain and stop. Nothing is expected of the outcome but what must
//! always hold: what is wanted can be done, a deadline runs, and at the end all is given back.

use super::*;
use proptest::prelude::*;

const UP: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
const REQ: [&[u8]; 10] = [
    GET,
    UP,
    b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe",
    b"llo",
    b"POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
    b"0\r\n\r\n",
    b"OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n",
    b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 200000\r\n\r\n",
    b"GET / HTTP/1.0\r\n\r\n",
    b"\r\n",
];
const RES: [&[u8]; 10] = [
    OK5,
    b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
    b"HTTP/1.1 100 C\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nxx\r\n",
    b"0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\n\r\nabc",
    b"hello",
    b"HTTP/1.1 204 N\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: 700000\r\n\r\n",
    b"HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
];

proptest! {
    #![proptest_config(crate::scale::properties(ProptestConfig { cases: 1000, ..ProptestConfig::default() }))]
    #[test]
    fn whatever_happens_something_is_wanted_has_a_deadline_and_gives_all_back(
        named in any::<bool>(), upstreams in 1usize..3, addrs in 1u16..4, keeps in any::<bool>(),
        ops in proptest::collection::vec((0u8..24, any::<u8>(), 0usize..100_000), 1..80),
    ) {
        let ms = |n| Some(Duration::from_millis(n));
        let mut rig = Rig::alone(Config { timeouts: TimeoutPolicy {
            total: ms(400), drain: ms(300), queue: ms(70), write_idle: ms(90), ..profile() }, ..Config::default() });
        rig.named = named; rig.upstreams = upstreams; rig.addresses = addrs; rig.keeps = keeps;
        let mut clock = 0u64;
        let big = alloc::vec![b'x'; 100_000];
        let mut drained = false;
        for (op, a, n) in ops {
            if rig.relay.is_closed() { break; }
            let stage = rig.relay.exchange.stage;
            match op {
                0..=3 => { rig.client(REQ[a as usize % REQ.len()]); }
                4..=6 => { rig.upstream(RES[a as usize % RES.len()]); }
                7 => { rig.client(&big[..n]); }
                8 | 9 => { rig.upstream(&big[..n]); }
                10 => { rig.take(Side::Client, n % 5000 + 1); }
                11 => { rig.take(Side::Client, usize::MAX); }
                12 => { rig.take(Side::Upstream, n % 5000 + 1); }
                13 | 14 => { rig.take(Side::Upstream, usize::MAX); }
                15 => { let side = if a % 2 == 0 { Side::Client } else { Side::Upstream };
                    if rig.relay.interest().wants(Op::Read(side)) { rig.fin(side); } }
                16 => { let op = Op::PASS[a as usize % 4];
                    if rig.relay.interest().wants(op) {
                        rig.with(|r, e| r.failed(op, RESET, e)); } }
                17 | 18 => { if stage == Stage::Connecting {
                    if a % 4 == 0 { rig.with(|r, e| r.failed(Op::Connect, REFUSED, e)); }
                    else { rig.with(|r, e| r.connected(false, e)); } } }
                19 => { if stage == Stage::Resolving { rig.resolved((a % 4).into()); } }
                20 => {
                    clock += (n % 60) as u64;
                    rig.now = Instant::from_millis(clock);
                    let mut fired = 0;
                    while rig.relay.poll_timeout().is_some_and(|d| d.at <= rig.now) {
                        rig.with(|r, e| r.handle_timeout(e));
                        fired += 1;
                        prop_assert!(fired < 20, "{:?}", rig.relay);
                    }
                }
                21 => { rig.with(|r, e| { if r.interest().read_client { r.not_ready(Side::Client, e) }
                    if r.interest().read_upstream { r.not_ready(Side::Upstream, e) } }); }
                22 => if a < 20 { drained = true; rig.with(|r, e| r.drain(e.now, e)); }
                _ => if a < 10 { rig.with(|r, e| r.stop(e)); prop_assert!(rig.relay.is_closed()); }
            }
            let interest = rig.relay.interest();
            for op in Op::PASS {
                if !interest.wants(op) { continue; }
                match op {
                    Op::Read(side) => { let room = rig.with(|r, e| r.recv_buf(side, e).len()); prop_assert!(room > 0); }
                    Op::Write(side) => prop_assert!(rig.relay.send_bufs(side).map(<[u8]>::len).sum::<usize>() > 0),
                    Op::Connect => {}
                }
            }
            if drained && !rig.relay.is_closed() { prop_assert!(rig.next().is_some(), "{:?}", rig.relay); }
            if !rig.relay.is_closed() { prop_assert!(rig.next().is_some(), "no deadline {:?}", rig.relay); }
            // A tunnel or an exchange that waits for nothing and has no due deadline must want something.
            let stage = rig.relay.exchange.stage;
            if matches!(stage, Stage::Relaying | Stage::Tunnel | Stage::Draining | Stage::Answering) && !rig.relay.exchange.held {
                prop_assert!(interest != Interest::default(), "stuck {:?}", rig.relay);
            }
            if stage == Stage::Idle { prop_assert!(!rig.relay.exchange.is_some() && !rig.relay.upstream.is_some()); }
        }
        if !rig.relay.is_closed() { rig.with(|r, e| r.stop(e)); }
        prop_assert!(rig.relay.is_closed());
        prop_assert_eq!(rig.next(), None);
        prop_assert!(!rig.relay.exchange.is_some() && !rig.relay.upstream.is_some());
        prop_assert_eq!(rig.actions.iter().filter(|a| matches!(a, Action::Report)).count(), rig.outcomes.len());
    }
}
