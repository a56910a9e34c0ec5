//! How a connection ends when it is not by itself: dropped after any poll, stopped, with a hook that panics; and that it ends
//! at all, whatever its peers do. Nothing of it is left but what lies in the pool.

use super::connection::{Rig, ms, profile, rig};
use super::*;
use crate::driver::{Decision, Report};
use crate::error::Error;
use crate::timeout::TimeoutPolicy;

/// What happens to one connection over time, to its end.
type Script = &'static [fn(&mut Rig)];

const KEPT_THEN_STALE: Script = &[
    |rig| send(&rig.client, &GET[..9]),
    |rig| send(&rig.client, &GET[9..]),
    |rig| rig.fake.connect(),
    |rig| send(&rig.fake.upstream(0), &OK5[..30]),
    |rig| send(&rig.fake.upstream(0), &OK5[30..]),
    |rig| send(&rig.client, GET),
    |rig| at(&rig.fake.upstream(0), |p| p.fin = true),
    |rig| send(&rig.fake.upstream(1), OK5),
    |rig| rig.fake.set_clock(150),
];

const TIMED_OUT: Script = &[
    |rig| send(&rig.client, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nab"),
    |rig| rig.fake.connect(),
    |rig| rig.fake.set_clock(150),
    |rig| send(&rig.client, b"cd"),
    |rig| rig.fake.set_clock(230),
];

const CUT: Script = &[
    |rig| send(&rig.client, b"GET / HTTP/1.0\r\n\r\n"),
    |rig| rig.fake.connect(),
    |rig| send(&rig.fake.upstream(0), b"HTTP/1.1 200 OK\r\n\r\nabc"),
    |rig| at(&rig.fake.upstream(0), |p| p.reset = true),
];

/// H-07: dropped after any poll, a connection leaves no socket but the pool's, no timer and no task.
#[test]
fn a_connection_may_be_dropped_after_any_poll() {
    for (name, script) in [("kept", KEPT_THEN_STALE), ("timed out", TIMED_OUT), ("cut", CUT)] {
        let mut k = 0;
        loop {
            let mut rig = rig(profile());
            rig.fake.0.borrow_mut().connects = false;
            let mut left = k;
            let mut cancelled = false;
            let mut run = |rig: &mut Rig| {
                while !cancelled && rig.task.is_woken() {
                    if left == 0 {
                        rig.task.cancel();
                        cancelled = true;
                    } else {
                        left -= 1;
                        rig.task.poll();
                    }
                }
                cancelled
            };
            let mut events = script.iter();
            let cancelled = loop {
                if run(&mut rig) {
                    break true;
                }
                match events.next() {
                    Some(event) => event(&mut rig),
                    None => break false,
                }
            };
            let idle = rig.proxy.gauges().idle_upstreams;
            assert_eq!(rig.fake.open(), idle, "{name} at {k}");
            let gauges = rig.proxy.gauges();
            let left = (gauges.tasks, gauges.clients, gauges.in_flight, gauges.waiting);
            assert_eq!(left, (0, 0, 0, 0), "{name} at {k}");
            assert_eq!(rig.proxy.stats().in_progress(), 0, "{name} at {k}");
            assert!(rig.fake.0.borrow().timers.is_empty(), "{name} at {k}");
            let fake = rig.fake.clone();
            drop(rig);
            assert_eq!(fake.open(), 0, "{name} at {k}");
            if !cancelled {
                break;
            }
            k += 1;
        }
        assert!(k >= script.len(), "{name}: {k} polls");
    }
}

#[test]
fn a_dropped_connection_resets_what_would_look_whole() {
    let mut rig = rig(profile());
    send(&rig.client, b"GET / HTTP/1.0\r\n\r\n");
    rig.task.run();
    send(&rig.fake.upstream(0), b"HTTP/1.1 200 OK\r\n\r\nabc");
    rig.task.run();
    assert!(got(&rig.client).ends_with("abc"));
    rig.task.cancel();
    assert!(rig.client.borrow().aborted && rig.fake.upstream(0).borrow().aborted);
}

#[test]
fn a_stop_ends_a_connection_in_one_turn() {
    let mut rig = rig(profile());
    send(&rig.client, GET);
    rig.task.run();
    rig.proxy.stop();
    assert!(rig.task.run());
    assert!(rig.fake.upstream(0).borrow().aborted);
    assert_eq!(rig.outcomes.borrow()[0].error, Some(Error::Stopped));
    assert_eq!(rig.fake.open(), 0);
}

/// H-09: a hook that panics ends its own connection and nothing else.
#[test]
fn a_panic_in_a_hook_leaves_nothing_behind() {
    for panics_at in ["route", "observe"] {
        let mut rig = rig(profile());
        let client = peer();
        let mut task = Task::new(rig.proxy.serve_connection(
            rig.fake.stream(&client),
            None,
            move |_: &crate::RequestHead<'_>| {
                assert_ne!(panics_at, "route");
                Decision::forward()
            },
            move |_: &Report<'_>| assert_ne!(panics_at, "observe"),
        ));
        send(&client, b"GET / HTTP/1.0\r\n\r\n");
        let mut run = || std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| task.run()));
        if panics_at == "observe" {
            assert!(run().is_ok());
            let upstream = rig.fake.upstream(0);
            send(&upstream, b"HTTP/1.1 200 OK\r\n\r\nabc");
            assert!(run().is_ok());
            at(&upstream, |p| p.reset = true);
        }
        assert!(run().is_err());
        task.cancel();
        assert_eq!(client.borrow().aborted, panics_at == "observe", "a response that is not whole");
        assert_eq!((rig.fake.open(), rig.proxy.gauges().tasks), (1, 1));
        send(&rig.client, GET);
        rig.task.run();
        let upstream = rig.fake.0.borrow().upstreams.last().cloned().unwrap();
        send(&upstream, OK5);
        rig.task.run();
        assert!(got(&rig.client).ends_with("hello"));
    }
}

proptest::proptest! {
    #![proptest_config(crate::scale::properties(proptest::test_runner::Config::default()))]

    /// Whatever the peers do and whenever the timers fire, a connection is woken for its deadlines and ends;
    /// what is open then lies in the pool.
    #[test]
    fn every_connection_ends(
        late in 0u64..30,
        trace in proptest::collection::vec((0u8..10, 0usize..40), 0..60),
    ) {
        const REQUESTS: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n\
            POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n123456789\
            POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
        const ANSWER: &[u8] = b"HTTP/1.1 103 Early Hints\r\n\r\n\
            HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
        let mut rig = rig(TimeoutPolicy { total: ms(300), ..profile() });
        rig.fake.0.borrow_mut().fires = Fires::Late(Duration::from_millis(late));
        let (mut clock, mut sent, mut answered) = (0, 0, 0);
        for (event, size) in trace {
            let upstream = rig.fake.0.borrow().upstreams.last().cloned();
            let side = if size % 2 == 0 { Some(rig.client.clone()) } else { upstream.clone() };
            match (event, side, upstream) {
                (0 | 1, ..) => {
                    let piece = REQUESTS.iter().cycle().skip(sent).take(size);
                    sent += size;
                    send(&rig.client, &piece.copied().collect::<Vec<_>>());
                }
                (2 | 3, _, Some(upstream)) => {
                    let piece = ANSWER.iter().cycle().skip(answered).take(size);
                    answered += size;
                    send(&upstream, &piece.copied().collect::<Vec<_>>());
                }
                (4, Some(peer), _) => at(&peer, |p| p.room = [0, 5, usize::MAX][size % 3]),
                (5, Some(peer), _) => at(&peer, |p| p.asleep = !p.asleep),
                (6, Some(peer), _) if size < 8 => at(&peer, |p| p.fin = true),
                (6, Some(peer), _) if size < 12 => at(&peer, |p| p.reset = true),
                (7, ..) if size % 2 == 0 => rig.fake.connect(),
                (7, ..) => rig.fake.0.borrow_mut().connects = false,
                (8, Some(peer), _) if peer.borrow().got.is_empty() => peer.borrow_mut().wraps = true,
                _ => {
                    clock += size as u64;
                    rig.fake.set_clock(clock);
                }
            }
            rig.task.run();
        }
        let mut ended = rig.task.run();
        for _ in 0..400 {
            clock += 10;
            ended |= rig.at(clock);
        }
        proptest::prop_assert!(ended, "nobody wakes it");
        proptest::prop_assert_eq!(rig.fake.open(), rig.proxy.gauges().idle_upstreams);
        proptest::prop_assert_eq!((rig.proxy.gauges().in_flight, rig.proxy.gauges().clients), (0, 0));
    }
}
