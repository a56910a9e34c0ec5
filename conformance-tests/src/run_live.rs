//! Cases about the runtime itself, with real sockets, threads and memory: what no script says. A case is a function
//! over a [`Harness`]; this module lends it a proxy in front of an upstream, and judges nothing of its own but that
//! everything is back afterwards.

use std::future::poll_fn;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use tidegate_core::runtime;
use tidegate_core::{Config, Decision, Gauges, Proxy, Stats, TimeoutPolicy, Upstreams};

use crate::attempt::{About, Failure, Lateness, Skips, Turn};
use crate::beside;
use crate::board::lock;
use crate::child;
use crate::command::Handle;
use crate::counted::{Counted, Counts, Held};
use crate::gauges;
use crate::harness::{Harness, sleep, warm_up};
use crate::run_virtual::{Observe, Route};
use crate::verdict::slack;
use crate::watch::{Machine, Watch};

/// Longer than any case takes.
const BOUND: Duration = Duration::from_secs(30);

/// What a live case is given, and where it says what is wrong.
#[derive(Debug, Default)]
pub struct Live {
    wrong: Mutex<Vec<String>>,
    certain: AtomicBool,
    /// Whether anything is wrong but that something came late.
    other: AtomicBool,
    spoil: bool,
    /// The name of its test, and of the module in which that is.
    test: Option<(&'static str, String)>,
}

/// A live case on a harness.
pub type LiveCase = fn(&Live);

impl Live {
    /// Says what must hold.
    pub fn expect(&self, holds: bool, what: impl Into<String>) {
        self.other.fetch_or(!holds, Ordering::AcqRel);
        self.expect_in_time(holds, what);
    }

    /// Says what must not be late.
    pub fn expect_in_time(&self, holds: bool, what: impl Into<String>) {
        if !holds {
            lock(&self.wrong).push(format!("expected {}", what.into()));
        }
    }

    /// Says what must hold however busy the machine is: that nothing came before it was due, that nothing is left, that bytes are
    /// those that were sent. A run in which it does not is not repeated.
    pub fn expect_certain(&self, holds: bool, what: impl Into<String>) {
        self.certain.fetch_or(!holds, Ordering::AcqRel);
        self.expect(holds, what);
    }

    /// The limits of a case: as given, or all off where it ought to fail.
    pub fn limits(&self, policy: TimeoutPolicy) -> TimeoutPolicy {
        if self.spoil { TimeoutPolicy { linger: policy.linger, ..TimeoutPolicy::OFF } } else { policy }
    }

    /// How the test is called in its program, for a case that starts it again; `None` if it runs as no test.
    pub(crate) fn test(&self) -> Option<String> {
        let (module, name) = self.test.as_ref()?;
        Some(beside::name_of(module, name))
    }

    /// Whether the case is expected to fail: what has no limit to get wrong breaks something else.
    pub fn is_spoilt(&self) -> bool {
        self.spoil
    }
}

/// Runs a live case when it is its turn; what is wrong with it, empty if nothing is. With `spoil` there ought to be
/// something.
pub fn run_live<H: Harness>(case: LiveCase, spoil: bool) -> Vec<String> {
    let _turn = Turn::take(H::NAME, true);
    let live = run::<H>(case, Live { spoil, ..Live::default() });
    live.wrong.into_inner().unwrap_or_else(PoisonError::into_inner)
}

fn run<H: Harness>(case: LiveCase, live: Live) -> Live {
    warm_up::<H>();
    let sockets = gauges::sockets();
    case(&live);
    let left = gauges::settle(Duration::from_secs(1), gauges::sockets, |n| *n <= sockets);
    live.expect_certain(
        left <= sockets,
        format!("no socket left: {left} after the case, {sockets} before it"),
    );
    live
}

/// What is wrong with a run, if anything is.
fn failure(live: &Live, place: &str, machine: Machine) -> Option<Failure> {
    let wrong = lock(&live.wrong);
    let words = format!("{place}:\n- {}", wrong.join("\n- "));
    let certain = live.certain.load(Ordering::Acquire);
    let late_only = !live.other.load(Ordering::Acquire);
    (!wrong.is_empty()).then_some(Failure { words, machine, certain, late_only })
}

/// Runs a live case unless it is skipped, while no other case runs on this machine, and panics unless it holds. `module` is
/// that of the test, with its program (`module_path!()`): some cases start the test again in a process of its own.
///
/// # Panics
///
/// If the case fails; that is its purpose.
#[track_caller]
pub fn check_live<H: Harness>(name: &str, module: &'static str, case: LiveCase, skips: &Skips) {
    if child::enter::<H>() {
        return;
    }
    About::named(name, true).attempt::<H, _>(
        skips,
        || (),
        |()| {
            let watch = Watch::start();
            let test = Some((module, name.to_owned()));
            let live = run::<H>(case, Live { test, ..Live::default() });
            let machine = watch.stop();
            let place = format!("{name} fails on {} (the machine: {machine:?})", H::NAME);
            let failed = failure(&live, &place, machine);
            failed.map_or(Ok(Lateness::new()), Err)
        },
    );
}

/// How late what is due may be: the suite's slack, and what this machine adds while `work` runs.
pub(crate) fn with_slack<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let (result, machine) = with_machine(work);
    (result, slack().slack + machine)
}

/// How long this machine holds somebody up while `work` runs. That is one wait for a core: nobody else has a part in such a
/// case, and a thread that is never idle waits again and again.
pub(crate) fn with_machine<T>(work: impl FnOnce() -> T) -> (T, Duration) {
    let watch = Watch::start();
    let result = work();
    (result, watch.stop().at_once)
}

/// What a proxy that served a live case left.
#[derive(Debug)]
pub(crate) struct Left {
    /// Tasks that were spawned.
    pub(crate) spawned: usize,
    pub(crate) gauges: Option<Gauges>,
    /// What the proxy counted.
    pub(crate) stats: Stats,
    pub(crate) held: Held,
    pub(crate) surplus_timers: usize,
    /// Wakes of tasks that were over.
    pub(crate) late_wakes: usize,
}

impl Left {
    /// Says that nothing is left.
    pub(crate) fn check(&self, live: &Live) {
        let Some(gauges) = self.gauges else { return live.expect(false, "the server to run") };
        let rest = [gauges.clients, gauges.in_flight, gauges.waiting];
        live.expect_certain(
            rest == [0; 3],
            format!("no client, permit or place in the queue left: {gauges:?}"),
        );
        let held = self.held.beyond(Held::default(), "after the end");
        live.expect_certain(held.is_empty(), format!("nothing left: {held:?}"));
        live.expect_certain(self.surplus_timers == 0, "one armed timer a connection at most");
    }
}

/// An upstream that serves each connection on a thread of its own.
pub(crate) struct Origin {
    pub(crate) at: SocketAddr,
    over: Arc<AtomicBool>,
    acceptor: JoinHandle<()>,
}

impl Origin {
    pub(crate) fn start(serve: impl Fn(TcpStream) + Send + Sync + 'static) -> io::Result<Origin> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
        let at = listener.local_addr()?;
        let over = Arc::new(AtomicBool::new(false));
        let (is_over, serve) = (Arc::clone(&over), Arc::new(serve));
        let acceptor = thread::spawn(move || {
            let mut threads: Vec<JoinHandle<()>> = Vec::new();
            while let Ok((stream, _)) = listener.accept() {
                if is_over.load(Ordering::Acquire) {
                    break;
                }
                let _ = stream.set_read_timeout(Some(Duration::from_secs(10)));
                // A thread that has ended keeps its stack until somebody asks for it, and some cases weigh memory.
                threads.extract_if(.., |thread| thread.is_finished()).for_each(|t| drop(t.join()));
                let serve = Arc::clone(&serve);
                threads.push(thread::spawn(move || serve(stream)));
            }
            threads.into_iter().for_each(|t| drop(t.join()));
        });
        Ok(Origin { at, over, acceptor })
    }

    /// When its last connection has ended.
    pub(crate) fn end(self) {
        self.over.store(true, Ordering::Release);
        drop(TcpStream::connect(self.at));
        let _ = self.acceptor.join();
    }
}

/// A proxy on the harness's runtime, in front of an upstream that runs `origin` for each connection on a thread of
/// its own, while `clients` runs on this one.
pub(crate) fn site<H: Harness>(
    live: &Live,
    policy: TimeoutPolicy,
    origin: impl Fn(TcpStream) + Send + Sync + 'static,
    observe: Observe,
    clients: impl FnOnce(SocketAddr),
) -> Left {
    let counts = Counts::default();
    let mut left = Left {
        spawned: 0,
        gauges: None,
        stats: Stats::default(),
        held: Held::default(),
        surplus_timers: 0,
        late_wakes: 0,
    };
    let setup = || -> io::Result<_> {
        let bound = runtime::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))?;
        Ok((bound.local_addr()?, bound, Origin::start(origin)?))
    };
    let (front, bound, origin) = match setup() {
        Ok(it) => it,
        Err(e) => {
            live.expect(false, format!("to be able to listen: {e}"));
            return left;
        }
    };
    let behind = origin.at;
    let (started, start) = mpsc::channel();
    let (ended, end) = mpsc::channel();
    let config = Config { timeouts: live.limits(policy), ..Config::default() };
    let counted = counts.clone();
    let server = thread::spawn(move || {
        H::block_on(|runtime| async move {
            let Ok(listener) = H::listener(bound) else { return };
            let counted = Counted::new(runtime.clone(), &counted);
            let proxy = Proxy::new(counted, Upstreams::new([behind]), config);
            let forward: Route = Box::new(|_| Decision::forward());
            let mut server = pin!(proxy.serve(listener, forward, observe));
            let mut first = Some(started);
            poll_fn(|cx| {
                let polled = server.as_mut().poll(cx);
                if let Some(started) = first.take() {
                    let _ = started.send(Handle::of(&proxy));
                }
                polled
            })
            .await;
            // What a reactor lets go of a turn later.
            sleep(&runtime, Duration::from_millis(2)).await;
        });
        let _ = ended.send(());
    });
    if let Ok(handle) = start.recv_timeout(BOUND) {
        clients(front);
        let rest = |g: &Gauges| (g.clients, g.in_flight, g.waiting) == (0, 0, 0);
        left.gauges = Some(gauges::settle(Duration::from_secs(2), || handle.gauges(), rest));
        left.stats = handle.stats();
        handle.stop();
    }
    let came_back = !matches!(end.recv_timeout(BOUND), Err(mpsc::RecvTimeoutError::Timeout));
    live.expect(came_back, "the runtime to come back");
    if came_back {
        live.expect_certain(server.join().is_ok(), "no panic that reaches whoever runs the runtime");
    }
    origin.end();
    left.held = gauges::settle(Duration::from_secs(1), || counts.held(), |held| *held == Held::default());
    left.spawned = counts.spawned();
    left.surplus_timers = counts.surplus_timers();
    left.late_wakes = counts.late_wakes();
    left
}

/// Sends a GET and reads what comes to the end of the connection.
pub(crate) fn get(at: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_secs(1)))?;
    write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\nconnection: close\r\n\r\n")?;
    let mut text = Vec::new();
    let _ = stream.read_to_end(&mut text);
    Ok(String::from_utf8_lossy(&text).into_owned())
}

/// Reads one request head; false at the end of the connection.
pub(crate) fn read_head(stream: &mut TcpStream) -> Option<String> {
    let (mut head, mut byte) = (Vec::new(), [0]);
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read(&mut byte).ok()? == 0 {
            return None;
        }
        head.push(byte[0]);
    }
    Some(String::from_utf8_lossy(&head).into_owned())
}

/// An upstream that answers `/` at once and nothing else ever.
pub(crate) fn answers_the_root(mut stream: TcpStream) {
    while let Some(head) = read_head(&mut stream) {
        if !head.starts_with("GET / ") {
            let _ = stream.read(&mut [0]);
            return;
        }
        if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello").is_err() {
            return;
        }
    }
}

/// What observes nothing.
pub(crate) fn unseen() -> Observe {
    Box::new(|_| {})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn early_is_early_on_any_machine() {
        let live = Live::default();
        let failed = || failure(&live, "a case fails", Machine::default());
        live.expect_certain(true, "nothing early");
        assert!(failed().is_none());
        let found = || failed().map(|f| (f.certain, f.late_only));
        live.expect_in_time(true, "an answer in time");
        assert_eq!(found(), None);
        live.expect_in_time(false, "an answer in time");
        assert_eq!(found(), Some((false, true)));
        live.expect(false, "an answer");
        assert_eq!(found(), Some((false, false)));
        live.expect_certain(false, "the total after its limit");
        let failed = failed().expect("three things are wrong");
        assert!(failed.certain);
        let words =
            "- expected an answer in time\n- expected an answer\n- expected the total after its limit";
        assert_eq!(failed.words, format!("a case fails:\n{words}"));
    }
}
