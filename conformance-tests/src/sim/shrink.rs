//! Makes of a plan that fails a smaller one that fails in the same way, and a report of it.

use std::fmt::Write as _;

use tidegate_core::TimeoutPolicy;

use super::bug::Bug;
use super::plan::{Body, Pace, Plan};
use super::run::run;
use crate::virtual_rt::{Chaos, HOP};

/// How many runs a person waits for.
const RUNS: usize = 400;

/// The smallest plan found that breaks the same promise. `plan` itself if it breaks none.
pub fn shrink(plan: &Plan, bug: Option<Bug>) -> Plan {
    let Some(first) = run(plan, bug, false).violation else { return plan.clone() };
    let mut best = plan.clone();
    let (mut runs, mut at) = (0, 0);
    loop {
        // The list changes with the plan, but what comes next in it is still worth more than what was just tried.
        let candidates = smaller(&best);
        let tried = candidates.iter().skip(at).position(|candidate| {
            runs += 1;
            run(candidate, bug, false).violation.is_some_and(|v| v.invariant == first.invariant)
        });
        match tried {
            Some(n) => {
                at += n;
                best = candidates[at].clone();
            }
            None if at == 0 => return best,
            None => at = 0,
        }
        if runs > RUNS {
            return best;
        }
    }
}

/// Plans with less in them, the ones with much less first.
fn smaller(plan: &Plan) -> Vec<Plan> {
    let mut out = Vec::new();
    let mut with = |change: &dyn Fn(&mut Plan)| {
        let mut smaller = plan.clone();
        change(&mut smaller);
        smaller.clients.retain(|client| !client.batches.is_empty() || client.nonsense.is_some());
        if smaller != *plan {
            out.push(smaller);
        }
    };
    let clients = plan.clients.len();
    for size in [clients / 2, clients / 4, 1] {
        if size > 0 {
            for from in (0..clients).step_by(size) {
                with(&|p| {
                    p.clients.drain(from..(from + size).min(clients));
                });
            }
        }
    }
    for n in 0..clients {
        let batches = plan.clients[n].batches.len();
        for size in [batches / 2, batches / 4, 1] {
            if size > 0 && batches <= 64 * size {
                for from in (0..batches).step_by(size) {
                    with(&|p| {
                        p.clients[n].batches.drain(from..(from + size).min(batches));
                    });
                }
            }
        }
        with(&|p| p.clients[n].nonsense = None);
    }
    for n in 0..plan.doings.len() {
        with(&|p| {
            p.doings.remove(n);
        });
    }
    with(&|p| p.chaos = Chaos::default());
    with(&|p| p.names = None);
    with(&|p| p.refusing = 0);
    with(&|p| p.pool = 256);
    with(&|p| p.hop = HOP);
    with(&|p| (p.policy, p.route) = (TimeoutPolicy::default(), TimeoutPolicy::default()));
    with(&|p| p.turn = (16, 256 * 1024));
    with(&|p| p.chaos.interrupted = 0);
    with(&|p| p.chaos.not_yet = 0);
    with(&|p| p.chaos.short = 0);
    with(&|p| p.chaos.late = 0);
    with(&|p| p.chaos.spurious = 0);
    with(&|p| p.chaos.timers = 0);
    with(&|p| p.chaos.slow = 0);
    with(&|p| p.chaos.shuffle = false);
    if clients <= 3 {
        simpler_requests(plan, &mut with);
    }
    out
}

/// Offers a change of a plan.
type Offer<'a> = dyn FnMut(&dyn Fn(&mut Plan)) + 'a;

fn simpler_requests(plan: &Plan, with: &mut Offer<'_>) {
    for (n, client) in plan.clients.iter().enumerate() {
        for (b, batch) in client.batches.iter().enumerate().take(8) {
            with(&|p| p.clients[n].batches[b].leaves = None);
            with(&|p| p.clients[n].batches[b].reads = Pace::Fast);
            with(&|p| p.clients[n].batches[b].half_closes = false);
            for r in 0..batch.requests.len() {
                if batch.requests.len() > 1 {
                    with(&|p| {
                        p.clients[n].batches[b].requests.remove(r);
                    });
                }
                with(&|p| p.clients[n].batches[b].requests[r].body = Body::None);
                with(&|p| p.clients[n].batches[b].requests[r].expects = false);
                with(&|p| p.clients[n].batches[b].requests[r].tunnel = None);
                with(&|p| p.clients[n].batches[b].requests[r].routed = false);
                with(&|p| p.clients[n].batches[b].requests[r].sends = Pace::Fast);
                with(&|p| p.clients[n].batches[b].requests[r].answer.fault = None);
                with(&|p| p.clients[n].batches[b].requests[r].answer.body = Body::Length(1));
                with(&|p| p.clients[n].batches[b].requests[r].answer.interim = 0);
                with(&|p| p.clients[n].batches[b].requests[r].answer.pace = Pace::Fast);
                with(&|p| p.clients[n].batches[b].requests[r].answer.goes_stale = None);
                with(&|p| p.clients[n].batches[b].requests[r].answer.takes = Pace::Fast);
                with(&|p| p.clients[n].batches[b].requests[r].answer.takes_only = None);
            }
        }
    }
}

/// The environment variable that names the seed of a run that is to be repeated.
const SEED: &str = "TIDEGATE_SEED";

/// The seed that `TIDEGATE_SEED` asks for.
///
/// # Panics
///
/// It is no number: another run would pass for the one that was meant.
pub fn wanted_seed() -> Option<u64> {
    let seed = std::env::var(SEED).ok()?;
    Some(seed.parse().unwrap_or_else(|_| panic!("{SEED} is no seed: {seed:?}")))
}

/// What a person is shown of a plan that fails: how to run it again, the promise, the smallest plan that breaks it, and its
/// last events. `None` if it does not fail.
pub fn report(seed: u64, requests: usize, bug: Option<Bug>) -> Option<String> {
    let plan = Plan::from_seed(seed, requests);
    let found = run(&plan, bug, false).violation?;
    let small = shrink(&plan, bug);
    let again = run(&small, bug, true);
    let mut out = String::new();
    // The seed alone is another plan with another number of requests.
    let _ = writeln!(out, "seed {seed} of {requests} requests: {found}");
    let _ = match bug {
        Some(bug) => writeln!(out, "planted: {bug:?}"),
        None => writeln!(
            out,
            "again: {SEED}={seed} cargo run --release -p tidegate-conformance --bin simulate -- 1 {requests}"
        ),
    };
    let _ = writeln!(out, "the smallest plan found that breaks the same promise:\n{small}");
    if let Some(violation) = again.violation {
        let _ = writeln!(out, "there: {violation}");
    }
    let _ = writeln!(out, "its last events:");
    for line in again.trace {
        let _ = writeln!(out, "{line}");
    }
    Some(out)
}
