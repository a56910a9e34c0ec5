//! A case on a real runtime: the proxy on a thread of its own, peers on theirs, and a watchdog over all.

use std::cell::Cell;
use std::fs;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::{Pin, pin};
use std::sync::{Arc, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use socket2::SockRef;
use tidegate_core::runtime::{self, Listener, Runtime, Spawn};
use tidegate_core::{Gauges, Proxy, Upstreams};

use crate::board::Board;
use crate::command::{Handle, govern};
use crate::counted::{Counted, CountedConnection, Counts, Held};
use crate::gauges;
use crate::harness::{Clocks, Harness, nap, sleep, warm_up};
use crate::hostile::{Hostile, HostileListener};
use crate::names;
use crate::peers::{SMALL, Stage};
use crate::run_virtual::{check_left, config, observe, route};
use crate::script::{BLOCKED, Case, FREED};
use crate::transcript::Transcript;
use crate::watch::{Machine, Watch};
use crate::wrap::{Inline, Logged, LoggedListener};

/// Longer than any case takes; then the watchdog gives up.
const BOUND: Duration = Duration::from_secs(10);

/// How long sockets and connections may take to go when everybody has left: the proxy's own linger and
/// idle limits run then.
const SETTLE: Duration = Duration::from_secs(1);

/// How faults begin that say nothing of what is left.
pub(crate) const UNFINISHED: &str = "the scripts did not end";
pub(crate) const NOT_SET_UP: &str = "the suite could not set the case up";

/// Events of the run itself; no script can name them.
const SERVING: &str = "(the proxy serves)";
const PEERS_GONE: &str = "(the peers are gone)";

/// What a real run gave.
pub(crate) struct Run {
    pub(crate) transcript: Transcript,
    /// Those of the rounds before it.
    pub(crate) earlier: Vec<Transcript>,
    /// What this machine did by itself (`watch.rs`).
    pub(crate) machine: Machine,
}

/// Runs a case on the harness's runtime.
pub(crate) fn run_real<H: Harness>(case: &Arc<Case>) -> Run {
    warm_up::<H>();
    let sockets = gauges::sockets();
    let watch = Watch::start();
    let _limit = case.few_descriptors.map(gauges::limit_descriptors);
    let port = if case.rounds > 1 { undialled() } else { 0 };
    let mut at = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let (mut earlier, mut round) = (Vec::new(), 1);
    loop {
        let board = Arc::new(Board::default());
        if let Err(e) = act::<H>(case, &board, sockets, &mut at, &watch) {
            board.fault(format!("{NOT_SET_UP}: {e}"));
        }
        let left = gauges::settle(SETTLE, gauges::sockets, |n| *n <= sockets);
        if left > sockets {
            board.fault(format!("sockets: {left} after the end of the runtime, {sockets} before the case"));
        }
        if !case.logged {
            board.forget_order();
        }
        let transcript = board.transcript();
        if round == case.rounds || board.is_faulty() {
            return Run { transcript, earlier, machine: watch.stop() };
        }
        earlier.push(transcript);
        round += 1;
    }
}

/// A free port that the system gives to no client for its own end of a connection, such as one of another process between two
/// rounds: whoever lets go of it finds it free again. Zero, which is any, where all ports are given to clients.
fn undialled() -> u16 {
    const LEAST: u16 = 10_000;
    let range = fs::read_to_string("/proc/sys/net/ipv4/ip_local_port_range").unwrap_or_default();
    let first = range.split_whitespace().next().and_then(|first| first.parse().ok()).unwrap_or(32_768_u16);
    let ports = u32::from(first).saturating_sub(u32::from(LEAST));
    // Processes begin at different ones.
    let mut tried =
        (0..ports).map(|n| LEAST + (std::process::id().wrapping_mul(61).wrapping_add(n) % ports) as u16);
    tried.find(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, *port)).is_ok()).unwrap_or(0)
}

/// One round; the proxy listens at `at`, and where it does is kept there.
fn act<H: Harness>(
    case: &Arc<Case>,
    board: &Arc<Board>,
    sockets: usize,
    at: &mut SocketAddr,
    watch: &Watch,
) -> io::Result<()> {
    let bound = runtime::bind(*at)?;
    if case.small_buffers {
        // What is accepted inherits it.
        SockRef::from(&bound).set_send_buffer_size(SMALL)?;
    }
    *at = bound.local_addr()?;
    let stage = Arc::new(Stage::new(Arc::clone(board), *at, case.small_buffers));
    let (ended, end) = mpsc::channel();
    let server = {
        let (stage, case) = (Arc::clone(&stage), Arc::clone(case));
        for upstream in case.upstreams() {
            stage.start_upstream(upstream)?;
        }
        thread::spawn(move || {
            under_test::<H>(&case, bound, &stage, sockets);
            let _ = ended.send(());
        })
    };

    board.wait(BOUND, || board.marked(SERVING).is_some() || server.is_finished());
    if board.marked(SERVING).is_some() {
        stage.start_clients(case);
        board.wait(BOUND, || board.all_rest() || board.is_faulty() || server.is_finished());
    }
    if !board.all_rest() {
        board.fault(format!("{UNFINISHED} within {BOUND:?}: {}", board.steps()));
    }
    watch.looks().look();
    stage.stop();
    board.count_no_more();
    board.mark(PEERS_GONE, Duration::ZERO);
    let since = Instant::now();
    match end.recv_timeout(BOUND) {
        Ok(()) | Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(panic) = server.join() {
                std::panic::resume_unwind(panic);
            }
        }
        Err(mpsc::RecvTimeoutError::Timeout) => board
            .fault("the runtime did not come back: its thread is blocked, or a task never yields".to_owned()),
    }
    // Lookups that hang do so for longer.
    if !case.aims.is_empty() && since.elapsed() > SETTLE {
        board.fault(format!(
            "the runtime ended {:?} after the peers: it waited for a lookup",
            since.elapsed()
        ));
    }
    Ok(())
}

/// Everything that runs on the thread of the runtime under test.
fn under_test<H: Harness>(case: &Arc<Case>, bound: TcpListener, stage: &Arc<Stage>, sockets: usize) {
    let board = &stage.board;
    let counts = Counts::default();
    let counted = counts.clone();
    H::block_on(|runtime| async move {
        let counts = &counted;
        let listener = match H::listener(bound) {
            Ok(listener) => listener,
            Err(e) => return board.fault(format!("the adapter refuses the listener: {e}")),
        };
        if !case.is_wrapped() {
            return serve(runtime, listener, case, stage, sockets, counts).await;
        }
        let hostile = Hostile::new(runtime, case.habits);
        let inline = Inline::new(Logged::new(hostile, Arc::clone(board), case.pace, thread::sleep));
        let listener = HostileListener::new(listener, case.habits);
        let listener = LoggedListener::new(listener, Arc::clone(board));
        let mut served = pin!(serve(inline.clone(), listener, case, stage, sockets, counts));
        let mut neighbour = pin!(neighbour(case, stage));
        let mut is_over = false;
        poll_fn(|cx| {
            if served.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            let mut blocks = |cx: &mut Context<'_>| {
                let has_blocked = !is_over && neighbour.as_mut().poll(cx).is_ready();
                if has_blocked {
                    is_over = true;
                    // Polled at once, before the runtime has looked at its sockets: what it believes about
                    // them is stale then, and must not decide.
                    inline.tasks().wake_all();
                }
                has_blocked
            };
            blocks(cx);
            let polled = inline.tasks().poll_tasks(cx);
            // What a connection's own turn has brought about, before the runtime gets a turn.
            if blocks(cx) { inline.tasks().poll_tasks(cx) } else { polled }
        })
        .await;
        inline.tasks().clear(crate::exec::Group::Proxy);
    });
    // What a runtime that has ended may hold for a moment is let go of by a thread of its own.
    let held = gauges::settle(SETTLE, || counts.held(), |held| *held == Held::default());
    held.beyond(Held::default(), "after the end of the runtime")
        .into_iter()
        .for_each(|what| board.fault(what));
    if counts.surplus_timers() > 0 {
        board.fault(format!(
            "{} timers were armed beyond one for each connection and the server's own",
            counts.surplus_timers()
        ));
    }
}

/// Blocks the thread when the case says so.
async fn neighbour(case: &Case, stage: &Stage) {
    if let Some(stall) = case.stall {
        happened(&stage.board, stall.from).await;
        stage.board.mark(BLOCKED, stage.epoch().elapsed());
        thread::sleep(stall.length);
        stage.board.mark(FREED, stage.epoch().elapsed());
    }
}

async fn happened(board: &Board, event: &'static str) {
    poll_fn(|cx| {
        board.watch(cx.waker());
        if board.marked(event).is_some() { Poll::Ready(()) } else { Poll::Pending }
    })
    .await;
}

/// Serves until the peers are gone, waits until nothing is left of the case, and stops.
async fn serve<R, L>(
    runtime: R,
    listener: L,
    case: &Arc<Case>,
    stage: &Arc<Stage>,
    sockets: usize,
    counts: &Counts,
) where
    R: Runtime + Clone + Spawn<CountedConnection<R, L::Stream>>,
    L: Listener,
{
    let board = &stage.board;
    let upstreams = Upstreams::with_limits(names::targets(case, &stage.upstreams()), case.limits);
    let resolver = names::real(case, stage);
    let counted = Counted::new(runtime.clone(), counts);
    let proxy = Proxy::with_resolver(counted, upstreams, config(case), resolver);
    // Outcomes come in the one, peers use the other.
    let (theirs, ours) = Clocks::together(&runtime);
    let clocks = Clocks::read(&runtime);
    let clock = Arc::clone(stage);
    let epoch = move || theirs + clock.epoch().saturating_duration_since(ours);
    let observe = observe(board, case, case.stopped_by_observer.then(|| Handle::of(&proxy)), epoch);
    let server = proxy.serve(listener, route(case), observe);
    let clock = Arc::clone(stage);
    let now = move || clock.epoch().elapsed();
    let governed = govern(proxy.clone(), server, case.commands.clone(), Arc::clone(board), now);
    let mut server = pin!(counts.server(governed));
    let ended = Cell::new(false);
    let mut gone = pin!(happened(board, PEERS_GONE));
    let mut idle = None;
    beside(server.as_mut(), &ended, async {
        poll_fn(|cx| {
            // The first poll of the server comes before the first of this.
            if idle.is_none() {
                idle = Some((proxy.gauges(), counts.held()));
                board.mark(SERVING, Duration::ZERO);
            }
            gone.as_mut().poll(cx)
        })
        .await;
    })
    .await;

    // What is left now that the peers have closed theirs: the server and its listener, unless the
    // case ends them.
    let (mut idle, mut held) = idle.unwrap_or_else(|| (proxy.gauges(), counts.held()));
    let mut sockets = sockets + 1;
    // Its own timers: what it needs them for is over when the last idle connection is.
    held.armed = 0;
    if case.ends_the_server() {
        idle.tasks -= 1;
        sockets -= 1;
        // Its task is over, and is dropped when everything here is.
        held = Held { tasks: 1, ..Held::default() };
    }
    let left = |gauges: Gauges| {
        gauges != idle || !counts.held().beyond(held, "").is_empty() || gauges::sockets() > sockets
    };
    let until = Instant::now() + SETTLE;
    beside(server.as_mut(), &ended, async {
        while left(proxy.gauges()) && Instant::now() < until {
            nap(&runtime, Duration::from_millis(2)).await;
        }
    })
    .await;
    clocks.drift(&runtime).into_iter().for_each(|wrong| board.fault(wrong));
    let now = proxy.gauges();
    check_left(board, "connections", now.tasks, idle.tasks);
    check_left(board, "idle upstream connections", now.idle_upstreams, idle.idle_upstreams);
    check_left(board, "exchanges that hold an upstream", now.in_flight, idle.in_flight);
    check_left(board, "requests that wait", now.waiting, idle.waiting);
    check_left(board, "sockets", gauges::sockets(), sockets);
    counts.held().beyond(held, "after the case").into_iter().for_each(|what| board.fault(what));
    if ended.get() && !case.ends_the_server() {
        board.fault("the server ended although nobody stopped it".into());
    }

    proxy.stop();
    if ended.get() {
        return;
    }
    let mut limit = pin!(sleep(&runtime, SETTLE));
    poll_fn(|cx| {
        if server.as_mut().poll(cx).is_ready() {
            return Poll::Ready(());
        }
        if limit.as_mut().poll(cx).is_ready() {
            board.fault(format!("the server did not end within {SETTLE:?} of stop()"));
            return Poll::Ready(());
        }
        Poll::Pending
    })
    .await;
}

/// Polls the server while `other` runs to its end.
async fn beside<S: Future<Output = ()>>(
    mut server: Pin<&mut S>,
    ended: &Cell<bool>,
    other: impl Future<Output = ()>,
) {
    let mut other = pin!(other);
    poll_fn(|cx| {
        ended.set(ended.get() || server.as_mut().poll(cx).is_ready());
        other.as_mut().poll(cx)
    })
    .await;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_port_that_is_needed_again_is_no_clients() -> io::Result<()> {
        if undialled() == 0 {
            // All ports are given to clients here.
            return Ok(());
        }
        let first = TcpListener::bind((Ipv4Addr::LOCALHOST, undialled()))?;
        let second = TcpListener::bind((Ipv4Addr::LOCALHOST, undialled()))?;
        let port = |listener: &TcpListener| listener.local_addr().map(|at| at.port());
        assert_ne!(port(&first)?, port(&second)?);
        for _ in 0..100 {
            let client = std::net::TcpStream::connect(first.local_addr()?)?;
            assert!(client.local_addr()?.port() > port(&second)?.max(port(&first)?));
        }
        Ok(())
    }
}
