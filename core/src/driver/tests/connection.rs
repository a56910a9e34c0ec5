//! One connection: its turns, its timer, its wakers, and what its deadlines go by. How it ends is in `endings.rs`.

use super::*;
use crate::buf::BULK_BLOCK;
use crate::driver::{Decision, Proxy};
use crate::driver::{Report, Upstreams};
use crate::error::{Error, Side};
use crate::relay::{Config, Outcome};
use crate::scale::or_under_miri;
use crate::timeout::{DeadlineKind, TimeoutPolicy};

pub(super) fn ms(n: u64) -> Option<Duration> {
    Some(Duration::from_millis(n))
}

pub(super) fn profile() -> TimeoutPolicy {
    TimeoutPolicy {
        connect: ms(100),
        write: ms(200),
        read: ms(150),
        client_head: ms(150),
        client_body: ms(150),
        client_write: ms(150),
        keep_alive: ms(150),
        pool_idle: ms(150),
        linger: ms(80),
        ..TimeoutPolicy::OFF
    }
}

pub(super) type Outcomes = Rc<RefCell<Vec<Outcome>>>;

pub(super) struct Rig {
    pub(super) fake: Fake,
    pub(super) proxy: Proxy<Fake>,
    pub(super) client: Handle,
    pub(super) task: Task,
    pub(super) outcomes: Outcomes,
}

pub(super) fn rig(timeouts: TimeoutPolicy) -> Rig {
    let fake = Fake::new();
    let upstreams = Upstreams::new([SocketAddr::from(([127, 0, 0, 1], 1))]);
    let proxy = Proxy::new(fake.clone(), upstreams, Config { timeouts, ..Config::default() });
    let (client, outcomes) = (peer(), Outcomes::default());
    let task = Task::new(connection(&fake, &proxy, &client, &outcomes));
    Rig { fake, proxy, client, task, outcomes }
}

fn connection(
    fake: &Fake,
    proxy: &Proxy<Fake>,
    client: &Handle,
    outcomes: &Outcomes,
) -> impl Future<Output = ()> + 'static {
    let outcomes = outcomes.clone();
    proxy.serve_connection(
        fake.stream(client),
        None,
        |_: &crate::RequestHead<'_>| Decision::forward(),
        move |report: &Report<'_>| outcomes.borrow_mut().push(*report.outcome),
    )
}

impl Rig {
    pub(super) fn at(&mut self, ms: u64) -> bool {
        self.fake.set_clock(ms);
        self.task.run()
    }

    fn kind(&self) -> Option<DeadlineKind> {
        match self.outcomes.borrow().last()?.error? {
            Error::Timeout(t) => Some(t.kind),
            other => panic!("no timeout but {other:?}"),
        }
    }
}

#[test]
fn a_request_passes_and_the_connections_are_kept() {
    let mut rig = rig(profile());
    send(&rig.client, GET);
    assert!(!rig.task.run());
    let upstream = rig.fake.upstream(0);
    assert!(got(&upstream).starts_with("GET / HTTP/1.1\r\n"));
    send(&upstream, OK5);
    assert!(!rig.task.run());
    assert!(got(&rig.client).ends_with("hello"));
    assert_eq!(rig.proxy.gauges().idle_upstreams, 1);
    assert!(rig.at(150), "keep-alive");
    assert_eq!(rig.fake.open(), 1, "the pool's");
    assert_eq!(rig.proxy.gauges().tasks, 0);
}

/// What starts after a hook counts from its end: no deadline comes early because a hook took its time. The total covers the
/// hook.
#[test]
fn a_hook_that_takes_its_time_is_not_counted_to_what_comes_after_it() {
    let fake = Fake::new();
    fake.0.borrow_mut().connects = false;
    let (client, outcomes) = (peer(), Outcomes::default());
    let upstreams = Upstreams::new([SocketAddr::from(([127, 0, 0, 1], 1))]);
    let timeouts = TimeoutPolicy { total: ms(300), ..profile() };
    let proxy = Proxy::new(fake.clone(), upstreams, Config { timeouts, ..Config::default() });
    let takes = |millis: u64, fake: &Fake| {
        let now = fake.0.borrow().now.as_nanos() / 1_000_000;
        fake.set_clock(now + millis);
    };
    let (routing, observing, ended) = (fake.clone(), fake.clone(), outcomes.clone());
    let mut task = Task::new(proxy.serve_connection(
        fake.stream(&client),
        None,
        move |_: &crate::RequestHead<'_>| {
            takes(50, &routing);
            Decision::forward()
        },
        move |report: &Report<'_>| {
            ended.borrow_mut().push(*report.outcome);
            takes(20, &observing);
        },
    ));
    // The second one's head is there while the first one's end is observed.
    send(&client, &[GET, GET].concat());
    task.run();
    for (early, due) in [(149, 150), (319, 320)] {
        let before = outcomes.borrow().len();
        fake.set_clock(early);
        task.run();
        assert_eq!(outcomes.borrow().len(), before, "at {early}");
        fake.set_clock(due);
        task.run();
        let Some(Error::Timeout(t)) = outcomes.borrow()[before].error else { panic!() };
        assert_eq!((t.kind, t.elapsed), (DeadlineKind::Connect, Duration::from_millis(100)));
    }
    assert_eq!(outcomes.borrow()[1].started, Instant::from_millis(150));
}

/// A-02, T-13: no operation is ever pending; turns end all the same, and the total fires.
#[test]
fn a_flood_neither_holds_the_thread_nor_outruns_the_total() {
    for size in [1usize, 64 * 1024] {
        static BYTES: [u8; 64 * 1024] = [b'x'; 64 * 1024];
        let mut rig = rig(TimeoutPolicy { total: ms(100), ..profile() });
        send(&rig.client, GET);
        rig.task.run();
        let upstream = rig.fake.upstream(0);
        upstream.borrow_mut().floods = Some(&BYTES[..size]);
        send(&upstream, b"HTTP/1.1 200 OK\r\nContent-Length: 1000000000\r\n\r\n");
        let mut clock = 0;
        while rig.outcomes.borrow().is_empty() {
            assert!(rig.task.is_woken(), "a turn that was cut short wakes its task");
            let before = upstream.borrow().calls;
            clock += 1;
            rig.fake.set_clock(clock);
            rig.task.poll();
            assert!(upstream.borrow().calls - before <= 32, "a turn is bounded");
            rig.client.borrow_mut().got.clear();
            assert!(clock <= 100);
        }
        assert_eq!((clock, rig.kind()), (100, Some(DeadlineKind::Total)));
        assert!(upstream.borrow().aborted && upstream.borrow().closed);
        assert!(rig.client.borrow().got_fin, "fewer bytes than announced, then FIN");
    }
}

/// However fast both sides are, and whatever else a turn has to do: it moves less than its bound and one pass, which is
/// a block for each read and each write. `BULK_BLOCK` is what a block has when bytes come as fast as this.
#[test]
fn a_turn_moves_no_more_than_its_bound_and_one_pass() {
    static BYTES: [u8; BULK_BLOCK] = [b'x'; BULK_BLOCK];
    let mut rig = rig(TimeoutPolicy { drain: ms(10_000), ..TimeoutPolicy::OFF });
    let head = format!("POST / HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", 1u64 << 40);
    send(&rig.client, head.as_bytes());
    rig.task.run();
    let upstream = rig.fake.upstream(0);
    send(&upstream, format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1u64 << 40).as_bytes());
    rig.task.run();
    let sides = [rig.client.clone(), upstream];
    sides.iter().for_each(|side| at(side, |p| p.floods = Some(&BYTES)));
    // What has begun goes on, and each turn looks at the drain as well.
    rig.proxy.drain();
    let (turn, block) = (Config::default().turn_bytes, BULK_BLOCK);
    let mut most = 0;
    for _ in 0..20 {
        sides.iter().for_each(|side| side.borrow_mut().got.clear());
        assert!(!rig.task.poll() && rig.task.is_woken());
        let written: usize = sides.iter().map(|side| side.borrow().got.len()).sum();
        assert!(written < turn + 2 * block, "{written}");
        most = most.max(written);
    }
    assert!(most >= block, "it did move in blocks of that size");
}

/// A socket that a long body goes to may hold more of it, until that is over: no upstream comes to the pool like that.
#[test]
fn a_stream_hears_when_a_long_body_begins_and_ends() {
    let mut rig = rig(profile());
    let body = vec![b'x'; 4 << 20];
    let head = |first: &str| format!("{first}\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
    let long = |first: &str| [head(first).as_bytes(), &body].concat();
    let told = |peer: &Handle| core::mem::take(&mut peer.borrow_mut().bulk);
    send(&rig.client, &long("POST / HTTP/1.1"));
    rig.task.run();
    let upstream = rig.fake.upstream(0);
    assert_eq!(told(&upstream), [true]);
    send(&upstream, &long("HTTP/1.1 200 OK"));
    rig.task.run();
    assert_eq!((told(&rig.client), told(&upstream)), (vec![true], vec![false]));
    assert_eq!(rig.proxy.gauges().idle_upstreams, 1);

    // The next one is short, and so is the one after it.
    for told_now in [vec![false], Vec::new()] {
        send(&rig.client, GET);
        rig.task.run();
        send(&upstream, OK5);
        rig.task.run();
        assert_eq!((told(&rig.client), told(&upstream)), (told_now, Vec::new()));
    }
    assert_eq!(rig.outcomes.borrow().len(), 3);
}

/// Many upstreams that refuse at once are tried in as many turns as that takes.
#[test]
fn attempts_that_fail_at_once_do_not_hold_the_thread() {
    const UPSTREAMS: usize = or_under_miri(500, 80);
    let fake = Fake::new();
    fake.0.borrow_mut().refuses = true;
    let upstreams = Upstreams::new((0..UPSTREAMS).map(|n| SocketAddr::from(([127, 0, 0, 1], 1 + n as u16))));
    let proxy = Proxy::new(fake.clone(), upstreams, Config::default());
    let (client, outcomes) = (peer(), Outcomes::default());
    let mut task = Task::new(connection(&fake, &proxy, &client, &outcomes));
    send(&client, GET);
    let tried = || fake.0.borrow().upstreams.len();
    while outcomes.borrow().is_empty() {
        assert!(task.is_woken(), "a turn that was cut short wakes its task");
        let before = tried();
        task.poll();
        assert!(tried() - before <= Config::default().turn_ops, "{}", tried() - before);
    }
    task.run();
    assert_eq!((tried(), fake.open()), (UPSTREAMS, 1));
    assert!(got(&client).starts_with("HTTP/1.1 502 "));
}

/// whatever the timer does, no deadline is early, lost, or late by more than the timer is.
#[test]
fn timers_that_are_early_late_or_spent_lose_no_deadline() {
    let by = Duration::from_millis(20);
    for (fires, read, linger) in [
        (Fires::InTime, 150, 230),
        (Fires::Late(by), 170, 270),
        (Fires::Early(by), 150, 230),
        (Fires::Early(Duration::from_secs(9)), 150, 230),
    ] {
        let mut rig = rig(profile());
        rig.fake.0.borrow_mut().fires = fires;
        // A body that does not come: the connection lingers after the answer.
        send(&rig.client, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n");
        let mut answered = None;
        let mut closed = None;
        for clock in 0..400 {
            rig.fake.set_clock(clock);
            // A timer that is far too early makes the task look again and again, a turn at a time.
            for _ in 0..3 {
                if rig.task.is_woken() && rig.task.poll() {
                    closed.get_or_insert(clock);
                }
            }
            if !rig.client.borrow().got.is_empty() {
                answered.get_or_insert(clock);
            }
        }
        assert_eq!((answered, closed), (Some(read), Some(linger)), "{fires:?}");
        assert_eq!(rig.kind(), Some(DeadlineKind::Read));
        assert_eq!(rig.fake.open(), 0);
    }
}

/// the last waker counts, for the timer, the sockets, the attempt to connect and the stop.
#[test]
fn a_waker_that_was_swapped_is_the_one_that_is_woken() {
    let events: [fn(&mut Rig); 4] = [
        |rig| rig.fake.set_clock(100),
        |rig| send(&rig.client, b"x"),
        |rig| rig.fake.connect(),
        |rig| rig.proxy.stop(),
    ];
    for event in events {
        let mut rig = rig(profile());
        rig.fake.0.borrow_mut().connects = false;
        send(&rig.client, GET);
        rig.task.run();
        let old = rig.task.swap_waker();
        rig.task.poll();
        assert!(!rig.task.is_woken());
        let before = old.count();
        event(&mut rig);
        assert!(rig.task.is_woken());
        assert_eq!(old.count(), before);
    }
}

/// A readiness that the runtime has not noticed does not become a timeout.
#[test]
fn a_deadline_that_is_due_looks_at_the_sockets_first() {
    let mut rig = rig(profile());
    send(&rig.client, GET);
    rig.task.run();
    let upstream = rig.fake.upstream(0);
    upstream.borrow_mut().asleep = true;
    send(&upstream, OK5);
    assert!(!rig.at(150));
    assert!(got(&rig.client).ends_with("hello"));
    assert_eq!(rig.outcomes.borrow()[0].error, None);
}

/// Nor does it decide who is blamed (T9). The upstream takes what was left of a block, and no more; the client's next bytes have
/// lain in the kernel all the time, though the runtime has not noticed: it is the upstream that is slow.
#[test]
fn a_deadline_that_is_due_blames_nobody_whose_bytes_are_here() {
    let mut rig = rig(TimeoutPolicy { total: ms(100), ..TimeoutPolicy::OFF });
    send(&rig.client, b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\n");
    rig.task.run();
    let upstream = rig.fake.upstream(0);
    got(&upstream);
    at(&upstream, |p| p.room = 0);
    let sent = 4 * BULK_BLOCK;
    send(&rig.client, &vec![b'x'; sent]);
    rig.task.run();
    let taken = sent - rig.client.borrow().sends.len();
    assert!((1..sent).contains(&taken), "it is full, and the client is ahead: {taken}");
    [&rig.client, &upstream].into_iter().for_each(|side| side.borrow_mut().asleep = true);
    upstream.borrow_mut().room = taken;
    rig.at(100);
    assert_eq!(upstream.borrow().got.len(), taken);
    rig.client.borrow_mut().asleep = false;
    at(&rig.client, |_| ());
    rig.task.run();
    match rig.outcomes.borrow()[..] {
        [Outcome { error: Some(Error::Timeout(t)), status: Some(504), .. }] => {
            assert_eq!((t.kind, t.blocked_on), (DeadlineKind::Total, Side::Upstream));
        }
        ref other => panic!("{other:?}"),
    }
}

/// wake-ups without a cause fire nothing and cost a bounded look.
#[test]
fn a_wake_storm_changes_nothing() {
    let mut rig = rig(profile());
    send(&rig.client, GET);
    rig.task.run();
    let upstream = rig.fake.upstream(0);
    let before = upstream.borrow().calls;
    rig.fake.set_clock(149);
    let polls = or_under_miri(1000, 50);
    for _ in 0..polls {
        rig.task.poll();
    }
    assert!(upstream.borrow().calls - before <= polls);
    assert!(!rig.task.is_woken() && rig.outcomes.borrow().is_empty());
    rig.at(150);
    assert_eq!(rig.kind(), Some(DeadlineKind::Read));
}

#[test]
fn without_a_keeper_what_is_due_makes_room_when_it_is_met() {
    let mut rig = rig(profile());
    send(&rig.client, GET);
    rig.task.run();
    send(&rig.fake.upstream(0), OK5);
    rig.task.run();
    rig.at(149);
    send(&rig.client, b"G");
    rig.at(151);
    assert_eq!(rig.proxy.gauges().idle_upstreams, 1);
    send(&rig.client, &GET[1..]);
    rig.task.run();
    assert_eq!(rig.fake.0.borrow().upstreams.len(), 2, "not handed out");
    assert!(rig.fake.upstream(0).borrow().closed);
}

#[test]
fn a_stop_closes_idle_connections_with_nobody_to_keep_them() {
    let mut rig = rig(profile());
    send(&rig.client, GET);
    rig.task.run();
    send(&rig.fake.upstream(0), OK5);
    rig.task.run();
    assert_eq!(rig.fake.open(), 2);
    rig.proxy.stop();
    assert_eq!((rig.fake.open(), rig.proxy.gauges().idle_upstreams), (1, 0));
    assert!(rig.task.run());
    assert_eq!(rig.fake.open(), 0);
}

/// Q-01, K-10 through a stream that takes everything in: what was not flushed was not sent.
#[test]
fn what_a_wrapping_stream_holds_back_counts_as_unsent() {
    let mut rig = rig(profile());
    let stuck = peer();
    (stuck.borrow_mut().wraps, stuck.borrow_mut().room) = (true, 10);
    rig.fake.0.borrow_mut().next = Some(stuck.clone());
    send(&rig.client, GET);
    rig.task.run();
    assert_eq!(got(&stuck), "GET / HTTP");
    rig.at(200);
    assert!(got(&rig.client).starts_with("HTTP/1.1 504 "));
    assert_eq!(rig.kind(), Some(DeadlineKind::Write));
    assert!(stuck.borrow().aborted);

    // Nothing of it is left for the next upstream, which flushes a piece at a time.
    let slow = peer();
    (slow.borrow_mut().wraps, slow.borrow_mut().room) = (true, 10);
    rig.fake.0.borrow_mut().next = Some(slow.clone());
    send(&rig.client, GET);
    rig.task.run();
    at(&slow, |p| p.room = 10);
    rig.task.run();
    assert_eq!(got(&slow), "GET / HTTP/1.1\r\nhost");
    at(&slow, |p| p.room = usize::MAX);
    rig.task.run();
    assert!(got(&slow).ends_with("\r\n\r\n"));

    (rig.client.borrow_mut().wraps, rig.client.borrow_mut().room) = (true, 3);
    send(&slow, OK5);
    rig.task.run();
    rig.at(350);
    assert_eq!(got(&rig.client), "HTT");
    assert_eq!(rig.kind(), Some(DeadlineKind::ClientWrite));
    assert_eq!(rig.outcomes.borrow()[1].response_bytes, 0);
    assert!(rig.client.borrow().aborted);
    assert!(rig.task.run());
}
