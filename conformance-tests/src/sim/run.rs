//! Runs a plan: builds the world, lets it go, and sweeps the invariants after every step.

use std::cell::RefCell;
use std::future::poll_fn;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tidegate_core::{Config, Decision, Instant, Proxy, Report, RequestHead, Response, Upstreams};

use super::bug::Bug;
use super::client;
use super::ledger::{Invariant, Ledger, Violation};
use super::names::SimResolver;
use super::plan::{Batch, Doing, Id, Plan};
use super::planted::{SimListener, SimRuntime, lose_a_place};
use super::upstream::Upstream;
use super::wire::{offset, sleep};
use crate::exec::block;
use crate::pattern;
use crate::run_virtual::words;
use crate::virtual_rt::{Owner, Ran, World};

/// Longer than any plan takes.
const BOUND: Duration = Duration::from_secs(20 * 3600);

/// How long nothing further may happen when all clients have left: longer than any limit of a plan.
const QUIET: Duration = Duration::from_secs(70);

/// What came of one simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Summary {
    /// The first promise that was broken.
    pub violation: Option<Violation>,
    /// All that happened, in one number: equal for equal histories.
    pub digest: u64,
    /// Requests that have an outcome.
    pub requests: usize,
    /// Of these, whose outcome is an error.
    pub errors: usize,
    /// The last things that happened, if that was asked for.
    pub trace: Vec<String>,
}

/// Runs a plan on a runtime with this bug, or none.
pub fn run(plan: &Plan, bug: Option<Bug>, traced: bool) -> Summary {
    // A thread of its own: what a thread lends to its connections must not come from another run.
    let live = || live(plan, bug, traced);
    thread::scope(|scope| scope.spawn(live).join()).unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

fn live(plan: &Plan, bug: Option<Bug>, traced: bool) -> Summary {
    let world = World::with_chaos(plan.chaos.clone(), plan.seed);
    let plan = Rc::new(plan.clone());
    world.set_hop(if bug == Some(Bug::EndlessBuffer) { 1 << 30 } else { plan.hop });
    let ledger = Rc::new(Ledger::new(&world, &plan, traced));
    let plain = world.runtime(Owner::Proxy);
    let runtime = SimRuntime::new(plain.clone(), bug, plan.seed);

    let upstreams: Vec<_> = (0..plan.upstreams).map(|_| Upstream::start(&ledger)).collect();
    let (resolver, _hangs) = SimResolver::start(&world, &plan);
    let mut limits = plan.limits;
    if bug == Some(Bug::WideLimit) {
        limits.max_conns += 1;
    }
    let refusing = (0..plan.refusing).map(|_| plain.free_address());
    let addresses = upstreams.iter().map(|upstream| upstream.addr).chain(refusing);
    let targets = addresses.map(|addr| resolver.target(&plan, addr));
    let list = Upstreams::with_limits(targets, limits);
    let config = Config {
        timeouts: plan.policy,
        max_client_conns: plan.max_clients,
        pool_size: plan.pool + usize::from(bug == Some(Bug::WidePool)),
        turn_ops: plan.turn.0,
        turn_bytes: plan.turn.1,
        ..Config::default()
    };
    let proxy = Proxy::with_resolver(runtime.clone(), list, config, Arc::new(resolver.clone()));
    let at = plain.free_address();
    let listener = SimListener::new(plain.listen(at, 100_000), &runtime);
    let counts = Rc::new(RefCell::new((0, 0)));
    let observe = {
        let (ledger, counts, runtime) = (Rc::clone(&ledger), Rc::clone(&counts), runtime.clone());
        let list = proxy.upstreams().clone();
        move |report: &Report<'_>| {
            counts.borrow_mut().0 += 1;
            if runtime.has(Bug::LostPermit, 50) {
                let world = &ledger.world;
                world.spawn(Owner::Peer, lose_a_place(world.clone(), list.clone()));
            }
            counts.borrow_mut().1 += usize::from(report.outcome.error.is_some());
            let id: Option<Id> = report.request.and_then(|head| head.path().get(1..)?.parse().ok());
            if let Some(id) = id.filter(|id| ledger.request(*id).is_some()) {
                if bug == Some(Bug::LateOutcome) {
                    let (ledger, outcome) = (Rc::clone(&ledger), *report.outcome);
                    ledger.world.clone().spawn(Owner::Peer, async move {
                        sleep(&ledger.world, Duration::from_millis(500)).await;
                        ledger.outcome(id, &outcome);
                    });
                    return;
                }
                ledger.outcome(id, report.outcome);
                if runtime.has(Bug::TwoOutcomes, 50) {
                    ledger.outcome(id, report.outcome);
                }
            }
        }
    };
    let server = proxy.serve(listener, route(&ledger), observe);
    world.spawn(Owner::Proxy, server);
    world.spawn(Owner::Peer, doings(Rc::clone(&ledger), proxy.clone(), upstreams, resolver.clone()));
    for number in 0..plan.clients.len() {
        world.spawn(Owner::Peer, client::run(Rc::clone(&ledger), number, at));
    }

    let sweep = Sweep::new(&ledger, &proxy, &world);
    let end = world.now() + BOUND;
    match block(world.run_until(end, || sweep.step() || ledger.clients.get() == 0)) {
        Ran::Done => {}
        ran => ledger.fail(Invariant::Progress, format!("the clients never ended: {}", words(ran))),
    }
    if !ledger.is_broken() {
        settle(&ledger, &proxy, &world, &resolver);
    }
    let digest = world.digest();
    let (requests, errors) = *counts.borrow();
    // What is still there must go before the world does.
    proxy.stop();
    world.cancel_tasks(Owner::Peer);
    world.cancel_tasks(Owner::Proxy);
    Summary { violation: ledger.violation(), digest, requests, errors, trace: ledger.trace() }
}

/// Where requests go: most to the upstreams under the limits of the proxy.
fn route(ledger: &Rc<Ledger>) -> impl Fn(&RequestHead<'_>) -> Decision + 'static {
    let ledger = Rc::clone(ledger);
    let own = Arc::new(ledger.plan.route);
    move |head| {
        let id: Option<Id> = head.path().get(1..).and_then(|id| id.parse().ok());
        match id.and_then(|id| ledger.request(id)) {
            Some(request) if request.local => {
                let mut body = Vec::new();
                let len = request.answer.body.len() as usize;
                while body.len() < len {
                    let run = pattern::run(offset(request.id) + body.len() as u64);
                    body.extend_from_slice(&run[..run.len().min(len - body.len())]);
                }
                let fields = vec![(String::from("x-sim"), request.id.to_string())];
                Decision::Respond(Response { status: request.answer.status, fields, body })
            }
            Some(request) if request.routed => Decision::forward_with(Arc::clone(&own)),
            _ => Decision::forward(),
        }
    }
}

/// When all clients have left: nothing goes on, nothing is left.
fn settle(ledger: &Rc<Ledger>, proxy: &Proxy<SimRuntime>, world: &World, resolver: &SimResolver) {
    let sweep = Sweep::new(ledger, proxy, world);
    let quiet = world.now() + QUIET;
    if block(world.run_until(quiet, || sweep.step())) == Ran::Spinning {
        ledger.fail(Invariant::Progress, "at the end the proxy polls without end");
    }
    ledger.close();
    let gauges = proxy.gauges();
    if gauges.in_flight > 0 && gauges.clients == 0 {
        let what = format!("{} exchanges hold an upstream, but nobody is there", gauges.in_flight);
        ledger.fail(Invariant::Permits, what);
    }
    let left = [
        ("clients", gauges.clients),
        ("exchanges that hold an upstream", gauges.in_flight),
        ("requests that wait", gauges.waiting),
        // Without a limit they stay until the stop.
        ("idle upstream connections", if ledger.plan.is_pool_timed() { gauges.idle_upstreams } else { 0 }),
        ("lookups", resolver.wanted()),
    ];
    for (what, n) in left {
        if n > 0 {
            ledger.fail(Invariant::NothingLeft, format!("{what} at the end: {n}"));
        }
    }
    proxy.stop();
    let quiet = world.now() + QUIET;
    if block(world.run_until(quiet, || world.tasks(Owner::Proxy) == 0)) != Ran::Done {
        ledger.fail(Invariant::NothingLeft, "the server does not end when it is stopped");
    }
    let sockets = world.runtime(Owner::Proxy).sockets();
    if sockets > 0 {
        ledger.fail(Invariant::NothingLeft, format!("sockets at the end: {sockets}"));
    }
    let timers = world.armed_timers(Owner::Proxy);
    if timers > 0 {
        ledger.fail(Invariant::NothingLeft, format!("armed timers at the end: {timers}"));
    }
}

/// What must hold at every moment.
struct Sweep<'a> {
    ledger: &'a Rc<Ledger>,
    proxy: &'a Proxy<SimRuntime>,
    world: &'a World,
    /// Connections that may lie in the proxy's backlog: one a client, and those that clients have left there.
    backlog: usize,
    /// Connections that may be idle.
    kept: usize,
}

impl<'a> Sweep<'a> {
    fn new(ledger: &'a Rc<Ledger>, proxy: &'a Proxy<SimRuntime>, world: &'a World) -> Sweep<'a> {
        let plan = &ledger.plan;
        let batches = || plan.clients.iter().flat_map(|client| &client.batches);
        let is_left = |batch: &&Batch| batch.leaves.is_some() || batch.half_closes;
        let left = if plan.is_crowded() { batches().filter(is_left).count() } else { 0 };
        let backlog = plan.clients.len() + left;
        let swaps = plan.doings.iter().filter(|(_, doing)| matches!(doing, Doing::Swap(_))).count();
        let kept = plan.pool * (plan.upstreams + swaps);
        Sweep { ledger, proxy, world, backlog, kept }
    }

    /// True if something is wrong.
    fn step(&self) -> bool {
        let limits = &self.ledger.plan.limits;
        let gauges = self.proxy.gauges();
        let upstreams = self.proxy.upstreams();
        if gauges.waiting > limits.max_queue {
            self.ledger.fail(Invariant::Permits, format!("{} requests wait", gauges.waiting));
        }
        // Whoever was in the backlog when a drain began is let in, whatever the limit.
        if gauges.clients > self.ledger.plan.max_clients && !self.ledger.ending.get() {
            self.ledger.fail(Invariant::Permits, format!("{} clients at once", gauges.clients));
        }
        if gauges.idle_upstreams > self.kept {
            let what = format!("{} idle connections to upstreams", gauges.idle_upstreams);
            self.ledger.fail(Invariant::Permits, what);
        }
        if gauges.in_flight > limits.max_conns {
            for (id, _) in upstreams.list() {
                let n = upstreams.in_flight(id);
                if n > limits.max_conns {
                    self.ledger.fail(Invariant::Permits, format!("{n} exchanges on {id:?}"));
                }
            }
        }
        if self.world.is_at_rest(Owner::Proxy) {
            let timers = self.world.armed_timers(Owner::Proxy);
            let idle = gauges.idle_upstreams > 0 && self.ledger.plan.is_pool_timed();
            let clients = if self.ledger.plan.is_timed() { gauges.clients } else { 0 };
            let waits = clients + usize::from(idle);
            if timers < waits {
                let what = format!("{waits} wait, {timers} timers are armed");
                self.ledger.fail(Invariant::EveryWaitHasADeadline, what);
            }
            // The listener, what lies in its backlog, and one connection each.
            let most = 1 + self.backlog + gauges.clients + gauges.in_flight + gauges.idle_upstreams;
            let sockets = self.world.runtime(Owner::Proxy).sockets();
            if sockets > most {
                let what = format!("{sockets} sockets where {most} have a use");
                self.ledger.fail(Invariant::NothingLeft, what);
            }
        }
        self.ledger.is_broken()
    }
}

/// Does what the plan says is done to the proxy and its upstreams.
async fn doings(
    ledger: Rc<Ledger>,
    proxy: Proxy<SimRuntime>,
    mut upstreams: Vec<Rc<Upstream>>,
    resolver: SimResolver,
) {
    let epoch = ledger.world.now();
    let plan = Rc::clone(&ledger.plan);
    for (at, doing) in &plan.doings {
        let due: Instant = epoch + *at;
        sleep(&ledger.world, due.saturating_since(ledger.world.now())).await;
        ledger.event(0, 8, || format!("{doing:?}"));
        match *doing {
            Doing::Block(length) => ledger.world.stall(length),
            Doing::Down(n) => upstreams[n].down(),
            Doing::Up(n) => upstreams[n].up(),
            Doing::Full(n) => upstreams[n].full(),
            Doing::Swap(n) => {
                let new = Upstream::start(&ledger);
                proxy.upstreams().add(resolver.target(&plan, new.addr));
                if let Some((id, _)) = proxy.upstreams().list().get(n) {
                    proxy.upstreams().remove(*id);
                }
                upstreams.push(new);
            }
            Doing::Cut(nth) | Doing::CutWoken(nth) => {
                let in_place = matches!(doing, Doing::CutWoken(_));
                if ledger.world.cut_task(Owner::Proxy, nth, in_place) {
                    ledger.cuts.update(|n| n + 1);
                }
            }
            Doing::Drain => {
                ledger.ending.set(true);
                proxy.drain();
            }
            Doing::Stop => {
                ledger.ending.set(true);
                proxy.stop();
            }
        }
    }
    // The upstreams live as long as this does.
    poll_fn(|_| Poll::<()>::Pending).await;
    drop(upstreams);
}
