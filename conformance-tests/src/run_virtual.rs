//! A case in virtual time: the oracle for every real run of it.

use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{Config, Decision, Instant, Proxy, Report, RequestHead, Upstreams};

use crate::board::Board;
use crate::command::{Handle, govern};
use crate::counted::{Counted, Counts, Held};
use crate::cut::{Cut, PATIENCE, Scissors};
use crate::exec::block;
use crate::hostile::{Hostile, HostileListener};
use crate::names;
use crate::script::{BLOCKED, Case, FIRST_OUTCOME, FREED};
use crate::transcript::{Seen, Transcript};
use crate::virtual_peers::Stage;
use crate::virtual_rt::{Owner, Ran, World};
use crate::wrap::{Logged, LoggedListener};

/// The routes of every case: everything is forwarded, some of it under limits of its own.
pub type Route = Box<dyn Fn(&RequestHead<'_>) -> Decision + Send + Sync>;

/// What listens to outcomes.
pub type Observe = Box<dyn Fn(&Report<'_>) + Send + Sync>;

/// The routes of a case.
pub(crate) fn route(case: &Case) -> Route {
    let routes: Vec<_> = case.routes.iter().map(|(path, policy)| (*path, Arc::new(*policy))).collect();
    Box::new(move |request| match routes.iter().find(|(path, _)| *path == request.path()) {
        Some((_, policy)) => Decision::forward_with(Arc::clone(policy)),
        None => Decision::forward(),
    })
}

/// The proxy's configuration in a case.
pub(crate) fn config(case: &Case) -> Config {
    Config { timeouts: case.policy, max_client_conns: case.max_client_conns, ..Config::default() }
}

/// What small buffers hold in each direction.
const SMALL_HOP: usize = 8 * 1024;

/// How long nothing further may happen after a case: more than three times the longest limit of the
/// profile.
const QUIET: Duration = Duration::from_secs(2);

/// Runs a case in virtual time.
pub fn run_virtual(case: &Case) -> Transcript {
    block(play(case))
}

/// Runs a case in virtual time, inside whatever executor polls this.
pub(crate) async fn play(case: &Case) -> Transcript {
    play_with(case, None).await.0
}

/// Plays a case, and drops the connection whose turn it is at poll `at` of all connections' polls. Without `at` nothing is
/// dropped: it says how many polls there are.
pub fn run_cut(case: &Case, at: Option<usize>) -> Cut {
    block(play_with(case, at)).1
}

async fn play_with(case: &Case, cut: Option<usize>) -> (Transcript, Cut) {
    let world = World::new();
    if case.small_buffers {
        world.set_hop(SMALL_HOP);
    }
    let board = Arc::new(Board::default());
    let runtime = world.runtime(Owner::Proxy);
    let stage = Stage {
        world: world.clone(),
        board: Arc::clone(&board),
        epoch: world.now(),
        upstreams: case.upstreams().map(|_| runtime.free_address()).collect(),
        proxy: runtime.free_address(),
    };

    let counts = Counts::default();
    let clock = world.clone();
    let scissors = Scissors::new(runtime.clone(), cut);
    let hostile = Hostile::new(scissors.clone(), case.habits);
    let logged = Logged::new(hostile, Arc::clone(&board), case.pace, move |d| clock.block(d));
    let logged = Counted::new(logged, &counts);
    let upstreams = Upstreams::with_limits(names::targets(case, &stage.upstreams), case.limits);
    let resolver = names::in_virtual_time(case, &stage);
    let proxy = Proxy::with_resolver(logged, upstreams, config(case), resolver);
    let listener = HostileListener::new(runtime.listen(stage.proxy, 1024), case.habits);
    let listener = LoggedListener::new(listener, Arc::clone(&board));
    let epoch = stage.epoch;
    let observe = observe(&board, case, case.stopped_by_observer.then(|| Handle::of(&proxy)), move || epoch);
    let server = proxy.serve(listener, route(case), observe);
    let clock = stage.clone();
    let governed =
        govern(proxy.clone(), server, case.commands.clone(), Arc::clone(&board), move || clock.now());
    world.spawn(Owner::Proxy, counts.server(governed));
    if let Some(stall) = case.stall {
        let stage = stage.clone();
        world.spawn(Owner::Peer, async move {
            stage.happened(stall.from).await;
            stage.board.mark(BLOCKED, stage.now());
            let over = stage.world.now() + stall.length;
            stage.world.stall(stall.length);
            stage.world.sleep_until(over).await;
            stage.board.mark(FREED, stage.now());
        });
    }
    let sockets = runtime.sockets();
    let (tasks, mut held) = (proxy.gauges().tasks, counts.held());
    stage.start_peers(case);

    let is_over = || board.all_rest() || board.is_faulty() || scissors.have_cut();
    match world.run_until(stage.epoch + case.lasts, is_over).await {
        Ran::Done => {}
        ran => board.fault(format!("the scripts never ended ({}): {}", words(ran), board.steps())),
    }
    if scissors.have_cut() {
        world.run_until(world.now() + PATIENCE, || board.all_rest()).await;
    }
    world.cancel_tasks(Owner::Peer);
    // What a script misses whose connection was cut is no fault.
    let known = if scissors.have_cut() { board.transcript().faults.len() } else { 0 };
    let quiet = world.now() + QUIET;
    if world.run_until(quiet, || false).await == Ran::Spinning {
        board.fault("after the case the proxy polls without end".into());
    }
    let gauges = proxy.gauges();
    // The server and its listener, unless the case has ended them.
    let server = usize::from(world.tasks(Owner::Proxy) > 0 || !case.ends_the_server());
    check_left(&board, "connections", gauges.tasks, tasks - 1 + server);
    check_left(&board, "idle upstream connections", gauges.idle_upstreams, 0);
    check_left(&board, "exchanges that hold an upstream", gauges.in_flight, 0);
    check_left(&board, "requests that wait", gauges.waiting, 0);
    check_left(&board, "sockets", runtime.sockets(), sockets - 1 + server);
    if server == 0 {
        held = Held::default();
    }
    counts.held().beyond(held, "after the case").into_iter().for_each(|what| board.fault(what));

    proxy.stop();
    let ran = world.run_until(quiet + QUIET, || world.tasks(Owner::Proxy) == 0).await;
    if ran != Ran::Done {
        board.fault(format!("after stop() the server did not end ({})", words(ran)));
    }
    world.cancel_tasks(Owner::Proxy);
    check_left(&board, "sockets after stop()", runtime.sockets(), 0);
    let held = counts.held().beyond(Held::default(), "after stop()");
    held.into_iter().for_each(|what| board.fault(what));
    check_left(&board, "timers armed at once beyond one for each connection", counts.surplus_timers(), 0);
    check_left(&board, "wakes of tasks that were over", counts.late_wakes(), 0);
    if !case.logged {
        board.forget_order();
    }
    let mut transcript = board.transcript();
    transcript.clear_chance();
    let left = transcript.faults[known..].to_vec();
    (transcript, Cut { polls: scissors.polls(), left })
}

pub(crate) fn check_left(board: &Board, what: &str, there: usize, expected: usize) {
    if there != expected {
        board.fault(format!("{what}: {there} after the case, {expected} before it"));
    }
}

/// Writes outcomes to the board; `epoch` is the start of the case on the runtime's clock.
pub(crate) fn observe(
    board: &Arc<Board>,
    case: &Case,
    handle: Option<Handle>,
    epoch: impl Fn() -> Instant + Send + Sync + 'static,
) -> Observe {
    let board = Arc::clone(board);
    let is_event = case.stall.is_some_and(|stall| stall.from == FIRST_OUTCOME);
    Box::new(move |outcome| {
        let seen = Seen::new(epoch(), outcome);
        let at = seen.at;
        board.outcome(seen);
        if is_event {
            board.mark(FIRST_OUTCOME, at);
        }
        handle.iter().for_each(Handle::stop);
    })
}

pub(crate) fn words(ran: Ran) -> &'static str {
    match ran {
        Ran::Done => "done",
        Ran::OutOfTime => "out of time",
        Ran::Deadlock => "nothing is ready and nothing is scheduled",
        Ran::Spinning => "tasks run without letting time pass",
    }
}
