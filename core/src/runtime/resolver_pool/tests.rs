//! The pool with lookups that end when they are told to.

use super::*;
use core::future::Future;
use core::pin::pin;
use core::task::{Context, Poll, Waker};
use std::sync::mpsc;
use std::task::Wake;

/// Longer than any step takes.
const BOUND: Duration = Duration::from_secs(10);

fn name(text: &str) -> Name {
    text.parse().unwrap()
}

fn addr(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], port))
}

fn found(port: u16) -> Found {
    Ok([addr(port)].into_iter().collect())
}

/// A pool whose lookups report that they have begun and wait to be told what to say.
struct Rig {
    pool: ResolverPool,
    begun: mpsc::Receiver<Name>,
    say: mpsc::Sender<io::Result<Vec<SocketAddr>>>,
}

fn rig(threads: usize, keep: Duration) -> Rig {
    let (begins, begun) = mpsc::channel();
    let (say, said) = mpsc::channel();
    let said = Mutex::new(said);
    let pool = ResolverPool::with_lookup(threads, keep, move |name| {
        begins.send(name.clone()).unwrap();
        said.lock().unwrap().recv().unwrap()
    });
    Rig { pool, begun, say }
}

impl Rig {
    fn ask(&self, text: &str) -> Lookup {
        match self.pool.resolve(&name(text)) {
            Resolution::Waits(lookup) => lookup,
            Resolution::Known(found) => panic!("it is known: {found:?}"),
        }
    }

    fn begun(&self) -> String {
        self.begun.recv_timeout(BOUND).unwrap().to_string()
    }
}

struct Unpark(thread::Thread);

impl Wake for Unpark {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn wait(lookup: Lookup) -> Found {
    let mut lookup = pin!(lookup);
    let waker = Waker::from(Arc::new(Unpark(thread::current())));
    let until = Instant::now() + BOUND;
    loop {
        if let Poll::Ready(found) = lookup.as_mut().poll(&mut Context::from_waker(&waker)) {
            return found;
        }
        assert!(Instant::now() < until, "nobody woke the lookup");
        thread::park_timeout(BOUND);
    }
}

#[test]
fn no_thread_before_the_first_lookup_and_one_lookup_for_all_who_ask_for_the_same() {
    let rig = rig(4, BOUND);
    assert_eq!(rig.pool.threads(), 0);
    let both = [rig.ask("a.test:80"), rig.ask("a.test:80")];
    assert_eq!(rig.begun(), "a.test:80");
    assert_eq!(rig.pool.threads(), 1);
    rig.say.send(Ok(vec![addr(1)])).unwrap();
    for lookup in both {
        assert_eq!(wait(lookup), found(1));
    }
    assert!(rig.begun.try_recv().is_err());
}

#[test]
fn what_was_found_is_kept_for_a_while_and_what_was_not_is_not() {
    let rig = rig(1, BOUND);
    let failed = rig.ask("a.test:80");
    rig.say.send(Err(io::Error::other("no such name"))).unwrap();
    assert_eq!(wait(failed), Err(NOT_FOUND));
    let second = rig.ask("a.test:80");
    rig.say.send(Ok(vec![addr(1), addr(2)])).unwrap();
    assert_eq!(wait(second), Ok([addr(1), addr(2)].into_iter().collect()));
    assert!(matches!(rig.pool.resolve(&name("a.test:80")), Resolution::Known(Ok(a)) if a.len() == 2));
    // The port is a part of the question.
    drop(rig.ask("a.test:81"));

    let forgets = self::rig(1, Duration::ZERO);
    for port in [1, 2] {
        let lookup = forgets.ask("a.test:80");
        forgets.say.send(Ok(vec![addr(port)])).unwrap();
        assert_eq!(wait(lookup), found(port));
    }

    // For longer than the clock can say.
    let remembers = self::rig(1, Duration::MAX);
    let lookup = remembers.ask("a.test:80");
    remembers.say.send(Ok(vec![addr(1)])).unwrap();
    assert_eq!(wait(lookup), found(1));
    assert!(
        matches!(remembers.pool.resolve(&name("a.test:80")), Resolution::Known(found) if found == self::found(1))
    );
}

#[test]
fn what_could_not_be_reached_is_looked_up_again_once_for_all_who_ask() {
    let rig = rig(4, BOUND);
    let known = |rig: &Rig| match rig.pool.resolve(&name("a.test:80")) {
        Resolution::Known(found) => found.unwrap(),
        Resolution::Waits(_) => panic!("it is not known"),
    };
    let first = rig.ask("a.test:80");
    rig.say.send(Ok(vec![addr(1)])).unwrap();
    let first = wait(first).unwrap();
    // Three use it, and fail one after the other.
    rig.pool.unreached(&name("a.test:80"), &first);
    rig.begun();
    let both = [rig.ask("a.test:80"), rig.ask("a.test:80")];
    rig.begun();
    rig.pool.unreached(&name("a.test:80"), &first);
    // The upstream has not moved.
    rig.say.send(Ok(vec![addr(1)])).unwrap();
    for lookup in both {
        assert_eq!(wait(lookup), found(1));
    }
    rig.pool.unreached(&name("a.test:80"), &first);
    let second = known(&rig);
    assert!(rig.begun.try_recv().is_err(), "the answer since then is not the one that failed");
    // Nor is it a matter of another name.
    rig.pool.unreached(&name("b.test:80"), &second);
    known(&rig);
    rig.pool.unreached(&name("a.test:80"), &second);
    let moved = rig.ask("a.test:80");
    rig.say.send(Ok(vec![addr(2)])).unwrap();
    assert_eq!(wait(moved), found(2));
}

#[test]
fn c_08_a_queued_lookup_that_nobody_waits_for_is_never_run() {
    let rig = rig(2, BOUND);
    let hang = [rig.ask("a.test:80"), rig.ask("b.test:80")];
    let mut running = [rig.begun(), rig.begun()];
    running.sort();
    assert_eq!(running, ["a.test:80", "b.test:80"]);
    drop(rig.ask("c.test:80"));
    let last = rig.ask("d.test:80");
    assert_eq!(rig.pool.threads(), 2);
    drop(hang);
    rig.say.send(Ok(vec![])).unwrap();
    assert_eq!(rig.begun(), "d.test:80");
    rig.say.send(Ok(vec![addr(1)])).unwrap();
    rig.say.send(Ok(vec![addr(1)])).unwrap();
    assert_eq!(wait(last), found(1));
    assert!(rig.begun.try_recv().is_err());
}

#[test]
fn h_12_a_hundred_lookups_that_hang_take_no_more_threads_than_there_may_be() {
    let rig = rig(3, BOUND);
    for n in 0..100 {
        drop(rig.ask(&format!("host-{n}.test:80")));
        assert!(rig.pool.threads() <= 3);
    }
    let waiting: Vec<Lookup> = (0..100).map(|n| rig.ask(&format!("other-{n}.test:80"))).collect();
    assert_eq!(rig.pool.threads(), 3);
    let waits = |pool: &ResolverPool| pool.0.lock().names.values().map(|e| e.waiting.len()).sum::<usize>();
    // Those who give up one after the other do not pile up.
    let before = waits(&rig.pool);
    for _ in 0..crate::scale::or_under_miri(1000, 30) {
        drop(rig.ask("other-99.test:80"));
    }
    assert!(waits(&rig.pool) < before + 10, "{} wait, {before} before", waits(&rig.pool));
    drop(waiting);
}

#[test]
fn a_lookup_that_panics_has_failed_and_costs_no_thread() {
    let pool = ResolverPool::with_lookup(1, BOUND, |name| match name.host() {
        "bad.test" => panic!("on purpose"),
        _ => Ok(vec![addr(1)]),
    });
    for (host, expected) in [("bad.test:80", Err(NOT_FOUND)), ("good.test:80", found(1))] {
        let Resolution::Waits(lookup) = pool.resolve(&name(host)) else { panic!("nothing is known") };
        assert_eq!(wait(lookup), expected);
    }
    assert_eq!(pool.threads(), 1);
}

#[test]
fn the_end_of_the_pool_waits_for_no_lookup_and_wakes_who_waits() {
    let Rig { pool, begun, say } = rig(1, BOUND);
    let ask = |text| match pool.resolve(&name(text)) {
        Resolution::Waits(lookup) => lookup,
        Resolution::Known(_) => panic!("nothing is known"),
    };
    let (running, queued) = (ask("a.test:80"), ask("b.test:80"));
    begun.recv_timeout(BOUND).unwrap();
    let shared = Arc::downgrade(&pool.0);
    drop(pool);
    assert_eq!(wait(running), Err(NOT_FOUND));
    assert_eq!(wait(queued), Err(NOT_FOUND));
    // The thread leaves when its lookup comes back.
    say.send(Ok(vec![addr(1)])).unwrap();
    let until = Instant::now() + BOUND;
    while shared.strong_count() > 0 {
        assert!(Instant::now() < until, "the thread stays");
        thread::yield_now();
    }
}

#[test]
#[cfg_attr(miri, ignore = "Miri has no getaddrinfo")]
fn the_system_knows_its_own_name_and_not_every_other() {
    let pool = ResolverPool::default();
    let ask = |text| match pool.resolve(&name(text)) {
        Resolution::Waits(lookup) => wait(lookup),
        Resolution::Known(found) => found,
    };
    let here = ask("localhost:80").unwrap();
    assert!(here.iter().all(|a| a.ip().is_loopback() && a.port() == 80) && !here.is_empty(), "{here:?}");
    assert_eq!(ask("no-such-host.invalid:80").map_err(|f| f.kind), Err(IoKind::NotFound));
}
