//! The counters: that every request is counted once where it starts and once where it ends, however it ends.

use super::*;
use crate::driver::{Decision, Proxy};
use crate::driver::{Report, Upstreams};
use crate::relay::Config;
use crate::scale::or_under_miri;
use crate::timeout::{DeadlineKind, TimeoutPolicy};

const CLOSE5: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";

fn proxy(fake: &Fake) -> Proxy<Fake> {
    let limit = |ms| Some(Duration::from_millis(ms));
    let timeouts =
        TimeoutPolicy { connect: limit(50), read: limit(100), client_head: limit(100), ..TimeoutPolicy::OFF };
    let upstreams = Upstreams::new([SocketAddr::from(([127, 0, 0, 1], 1))]);
    Proxy::new(fake.clone(), upstreams, Config { timeouts, ..Config::default() })
}

/// H-15, for a mix of 500 on two runtime instances: started = completed + timeouts by kind + aborted + failed.
#[test]
fn a_mix_of_endings_adds_up() {
    let fake = Fake::new();
    let first = proxy(&fake);
    let proxies = [first.clone(), first.on(fake.clone())];
    let (mut clock, mut seed) = (0, 7u64);
    let mut mix = [0; 9];
    let all = or_under_miri(500, 90usize);
    for n in 0..all {
        seed = seed.wrapping_mul(6364136223846793005).wrapping_add(1442695040888963407);
        let kind = (seed >> 33) as usize % mix.len();
        mix[kind] += 1;
        let client = peer();
        let route = |request: &crate::RequestHead<'_>| match request.path() {
            "/here" => Decision::respond(200, "here"),
            _ => Decision::forward(),
        };
        let stream = fake.stream(&client);
        let connection = proxies[n % 2].serve_connection(stream, None, route, |_: &Report<'_>| {});
        let mut task = Task::new(connection);
        task.run();
        fake.0.borrow_mut().connects = kind != 4;
        let before = first.stats();
        send(
            &client,
            match kind {
                1 => b"GET / HTTP/1.1\r\nHost: ",
                2 => b"GET /\r\n\r\n",
                3 => b"GET /here HTTP/1.1\r\nHost: a\r\n\r\n",
                _ => GET,
            },
        );
        task.run();
        let upstream = || fake.upstream(fake.0.borrow().upstreams.len() - 1);
        let running = first.stats();
        let is_known = ![1, 2, 3].contains(&kind);
        assert_eq!(running.in_progress(), u64::from(is_known), "a request of the kind {kind}");
        assert_eq!(running.started - before.started, u64::from(kind != 1));
        match kind {
            1 | 4 | 5 => clock += 1000,
            6 => at(&client, |p| p.reset = true),
            7 => at(&upstream(), |p| p.fin = true),
            8 => task.cancel(),
            0 => send(&upstream(), CLOSE5),
            _ => {}
        }
        fake.set_clock(clock);
        if kind != 8 {
            task.run();
            task.cancel();
        }
    }
    let stats = first.stats();
    assert!(mix.iter().all(|count| *count > all as u64 / 25), "{mix:?}");
    let count = |kinds: &[usize]| kinds.iter().map(|kind| mix[*kind]).sum::<u64>();
    assert_eq!((stats.clients, stats.started, stats.in_progress()), (all as u64, all as u64, 0));
    assert_eq!(stats.started, stats.completed + stats.timed_out() + stats.aborted + stats.failed);
    assert_eq!(stats.completed, count(&[0, 3]));
    assert_eq!(stats.timeouts(DeadlineKind::ClientHead), count(&[1]));
    assert_eq!(stats.timeouts(DeadlineKind::Connect), count(&[4]));
    assert_eq!(stats.timeouts(DeadlineKind::Read), count(&[5]));
    assert_eq!(stats.timed_out(), count(&[1, 4, 5]));
    assert_eq!(stats.aborted, count(&[6]));
    assert_eq!(stats.failed, count(&[2, 7, 8]));
    assert_eq!((stats.connects, stats.retries), (count(&[0, 4, 5, 6, 7, 8]), 0));
    assert_eq!((stats.request_bytes, stats.response_bytes), (0, 5 * count(&[0])));
    assert_eq!(proxies[1].stats(), stats, "the same from each");
}

#[test]
fn reuse_and_bytes_are_counted_when_a_request_is_over() {
    let fake = Fake::new();
    let proxy = proxy(&fake);
    let client = peer();
    let route = |_: &crate::RequestHead<'_>| Decision::forward();
    let connection = proxy.serve_connection(fake.stream(&client), None, route, |_: &Report<'_>| {});
    let mut task = Task::new(connection);
    for _ in 0..3 {
        send(&client, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
        task.run();
        send(&fake.upstream(0), OK5);
        task.run();
    }
    let stats = proxy.stats();
    assert_eq!((stats.clients, stats.completed, stats.connects, stats.reused), (1, 3, 1, 2));
    assert_eq!((stats.request_bytes, stats.response_bytes), (9, 15));
}
