//! A case in virtual time in which one connection is dropped in the middle: instead of its next poll, its future is
//! gone. Whatever it was doing, nothing of it may be left: no socket, no place, no timer, and a pool that can be used.
//!
//! What the peers see of it is not judged here, nor does their script have to end.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_core::runtime::{Runtime, Spawn};
use tidegate_core::{Instant, Proxy, Upstreams};

use crate::board::Board;
use crate::command::{Handle, govern};
use crate::names;
use crate::run_virtual::{config, observe, route};
use crate::script::Case;
use crate::virtual_peers::Stage;
use crate::virtual_rt::{Owner, Ran, VirtualRuntime, World};

/// Longer than any case takes.
const BOUND: Duration = Duration::from_secs(60);

/// How long a peer may go on whose script does not end without the connection: longer than any limit.
const PATIENCE: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Polls of connections, of all of them together.
    pub polls: usize,
    /// What is left afterwards, in words.
    pub left: Vec<String>,
}

/// Plays a case, and drops the connection whose turn it is at poll `at` of all connections' polls. Without `at` nothing is
/// dropped: it says how many polls there are.
pub fn run_cut(case: &Case, at: Option<usize>) -> Cut {
    let world = World::new();
    let board = Arc::new(Board::default());
    let runtime = world.runtime(Owner::Proxy);
    let stage = Stage {
        world: world.clone(),
        board: Arc::clone(&board),
        epoch: world.now(),
        upstreams: case.upstreams().map(|_| runtime.free_address()).collect(),
        proxy: runtime.free_address(),
    };
    let scissors = Scissors { runtime: runtime.clone(), state: Rc::default(), at };
    let upstreams = Upstreams::with_limits(names::targets(case, &stage.upstreams), case.limits);
    let resolver = names::in_virtual_time(case, &stage);
    let proxy = Proxy::with_resolver(scissors.clone(), upstreams, config(case), resolver);
    let epoch = stage.epoch;
    let observe = observe(&board, Handle::of(&proxy, case), move || epoch);
    let server = proxy.serve(runtime.listen(stage.proxy, 1024), route(case), observe);
    let clock = stage.clone();
    let governed =
        govern(proxy.clone(), server, case.commands.clone(), Arc::clone(&board), move || clock.now());
    let serves = Rc::new(Cell::new(true));
    let is_over = Rc::clone(&serves);
    world.spawn(Owner::Proxy, async move {
        governed.await;
        is_over.set(false);
    });
    if let Some(stall) = case.stall {
        let stage = stage.clone();
        world.spawn(Owner::Peer, async move {
            stage.happened(stall.from).await;
            stage.world.stall(stall.length);
        });
    }
    stage.start_peers(case);

    let mut left = Vec::new();
    let spins = Cell::new(false);
    let run = |limit: Instant, done: &dyn Fn() -> bool| {
        spins.set(spins.get() | (world.run_until(limit, done) == Ran::Spinning));
    };
    let state = &scissors.state;
    run(stage.epoch + BOUND, &|| state.is_cut.get() || board.all_rest());
    run(world.now() + PATIENCE, &|| board.all_rest());
    world.cancel_tasks(Owner::Peer);
    run(world.now() + PATIENCE, &|| false);

    let mut check = |what: &str, there: usize, expected: usize| {
        if there != expected {
            left.push(format!("{there} {what} in place of {expected}"));
        }
    };
    let (gauges, serves) = (proxy.gauges(), usize::from(serves.get()));
    // The server and its listener, unless the case has ended them.
    check("connections", gauges.tasks, serves);
    check("sockets", runtime.sockets(), serves);
    check("idle upstream connections", gauges.idle_upstreams, 0);
    check("exchanges that hold an upstream", gauges.in_flight, 0);
    check("requests that wait", gauges.waiting, 0);
    check("armed timers", world.armed_timers(Owner::Proxy), 0);
    proxy.stop();
    run(world.now() + PATIENCE, &|| world.tasks(Owner::Proxy) == 0);
    let mut check = |what: &str, there: usize| {
        if there > 0 {
            left.push(format!("{there} {what} after stop()"));
        }
    };
    check("tasks", world.tasks(Owner::Proxy));
    world.cancel_tasks(Owner::Proxy);
    check("sockets", runtime.sockets());
    check("armed timers", world.armed_timers(Owner::Proxy));
    if spins.get() {
        left.push("the proxy polls without end".to_owned());
    }
    Cut { polls: scissors.state.polls.get(), left }
}

/// A runtime whose tasks are counted at each poll, until one is dropped in place of its poll.
#[derive(Clone)]
struct Scissors {
    runtime: VirtualRuntime,
    state: Rc<State>,
    at: Option<usize>,
}

#[derive(Default)]
struct State {
    polls: Cell<usize>,
    is_cut: Cell<bool>,
}

impl Runtime for Scissors {
    type Stream = <VirtualRuntime as Runtime>::Stream;
    type Connect = <VirtualRuntime as Runtime>::Connect;
    type Timer = <VirtualRuntime as Runtime>::Timer;

    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn timer(&self) -> Self::Timer {
        self.runtime.timer()
    }

    fn unix_time(&self) -> u64 {
        self.runtime.unix_time()
    }

    fn connect(&self, to: SocketAddr) -> Self::Connect {
        self.runtime.connect(to)
    }
}

impl<F: Future<Output = ()> + 'static> Spawn<F> for Scissors {
    fn spawn(&self, task: F) {
        let task = Some(Box::pin(task));
        self.runtime.spawn(Counted { task, state: Rc::clone(&self.state), at: self.at });
    }
}

struct Counted<F> {
    /// `None` once it was dropped.
    task: Option<Pin<Box<F>>>,
    state: Rc<State>,
    at: Option<usize>,
}

impl<F: Future<Output = ()>> Future for Counted<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let poll = self.state.polls.replace(self.state.polls.get() + 1);
        if self.at == Some(poll) {
            self.task = None;
            self.state.is_cut.set(true);
            return Poll::Ready(());
        }
        self.task.as_mut().map_or(Poll::Ready(()), |task| task.as_mut().poll(cx))
    }
}
