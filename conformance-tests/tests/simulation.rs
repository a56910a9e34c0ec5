//! The whole proxy under seeds, in virtual time: a short sweep, the same history twice and on every machine, and the bugs that
//! it must find. `cargo run --release -p tidegate-conformance --bin simulate` is the long sweep; see `docs/SIMULATION.md`.
//!
//! With the environment variable `TIDEGATE_SEED` the sweep runs that seed alone, and prints the shrunk trace if it fails.

use std::collections::BTreeSet;
use std::time::Duration;

use tidegate_conformance::sim::{Body, Bug, Invariant, Pace, Plan, golden, report, run, shrink, wanted_seed};
use tidegate_conformance::virtual_rt::Chaos;
use tidegate_core::TimeoutPolicy;

/// Requests of a seed. A failure is replayed with the same number.
const REQUESTS: usize = 60;

/// Seeds of the sweep.
const SEEDS: u64 = 100;

/// Seeds in which a planted bug must be found.
const FOUND_WITHIN: u64 = 200;

#[test]
fn no_promise_is_broken_under_any_seed() {
    let seeds = match wanted_seed() {
        Some(seed) => seed..seed + 1,
        None => 0..SEEDS,
    };
    for seed in seeds {
        if let Some(report) = report(seed, REQUESTS, None) {
            panic!("{report}");
        }
    }
}

#[test]
fn a_seed_gives_the_same_history_twice() {
    for seed in [3, 21, 42] {
        let plan = Plan::from_seed(seed, REQUESTS);
        assert_eq!(plan, Plan::from_seed(seed, REQUESTS));
        let first = run(&plan, None, true);
        // Something else on this thread must change nothing.
        run(&Plan::from_seed(seed + 1, REQUESTS), Some(Bug::LeakedTask), false);
        let again = run(&plan, None, true);
        assert_eq!(first.trace.join("\n"), again.trace.join("\n"), "seed {seed}");
        assert!(!first.trace.is_empty());
        assert_eq!(first, again, "seed {seed}");
        assert_ne!(first.digest, run(&Plan::from_seed(seed + 1, REQUESTS), None, true).digest);
    }
}

#[test]
fn a_failure_is_the_same_twice_in_every_byte() {
    let text = || report(0, REQUESTS, Some(Bug::LostByte)).expect("the bug is found");
    assert_eq!(text(), text());
    // The seed alone is another plan with another number of requests.
    assert!(text().starts_with(&format!("seed 0 of {REQUESTS} requests: Bytes at ")), "{}", text());
}

/// What was recorded on one machine must come out on every other, on any day, in any build profile, on any number of
/// threads. A change to the simulation or to what the proxy sends changes it; `simulate golden` renews the file.
#[test]
fn a_seed_gives_the_same_history_everywhere() {
    // Neither does another run beside it make a difference.
    let beside = std::thread::spawn(golden);
    let (recorded, now) = (include_str!("../src/sim/golden.txt"), golden());
    assert_eq!(beside.join().expect("it does not panic"), now);
    for (line, (recorded, now)) in recorded.lines().zip(now.lines()).enumerate() {
        assert_eq!(recorded, now, "line {} of golden.txt", line + 1);
    }
    assert_eq!(recorded, now);
}

#[test]
fn every_planted_bug_is_found_and_named() {
    let mut named = BTreeSet::new();
    for bug in Bug::ALL {
        let found = (0..FOUND_WITHIN)
            .find_map(|seed| run(&Plan::from_seed(seed, REQUESTS), Some(bug), false).violation)
            .unwrap_or_else(|| panic!("{bug:?} is not found in {FOUND_WITHIN} seeds"));
        assert!(bug.breaks().contains(&found.invariant), "{bug:?} is found as {found}");
        named.insert(found.invariant);
    }
    // What no bug breaks is not known to be watched.
    assert_eq!(named, BTreeSet::from(Invariant::ALL));
}

/// It is a hint to look at the clock.
#[test]
fn a_timer_that_fires_before_its_time_does_no_harm() {
    for seed in 0..40 {
        let summary = run(&Plan::from_seed(seed, REQUESTS), Some(Bug::EarlyTimer), false);
        assert_eq!(summary.violation, None, "seed {seed}");
    }
}

/// Nobody is told of what a wake-up was lost for until the next deadline, and there always is one. That takes time, so that
/// an answer is late or fails; whatever else is promised holds.
#[test]
fn what_is_lost_with_a_wake_up_is_time() {
    let (mut lost, mut hurt) = (0, 0);
    for bug in [Bug::LostWaker, Bug::LateWaker, Bug::DeafConnect] {
        for seed in 0..60 {
            let found = run(&Plan::from_seed(seed, REQUESTS), Some(bug), false).violation;
            let is_late = found.as_ref().is_none_or(|v| v.invariant == Invariant::Answered);
            assert!(is_late, "{bug:?}, seed {seed}: {found:?}");
            lost += 1;
            hurt += usize::from(found.is_some());
        }
    }
    // Something was lost, and most could bear it.
    assert!(hurt > 0 && hurt < lost / 2, "{hurt} of {lost}");
}

/// A client that still sends when its connection is reset may be told so by a write, and not by the read that follows. An
/// answer that only the end of the connection ends is not whole then.
#[test]
fn a_client_whose_upload_meets_the_reset_does_not_take_it_for_the_end_of_its_answer() {
    let mut plan = Plan::from_seed(0, 1);
    plan.chaos = Chaos::default();
    (plan.policy, plan.route) = (TimeoutPolicy::default(), TimeoutPolicy::default());
    (plan.calm, plan.names, plan.doings) = (false, None, Vec::new());
    (plan.turn, plan.hop, plan.upstreams, plan.refusing) = ((16, 256 * 1024), 1024, 1, 0);
    plan.clients.truncate(1);
    let client = &mut plan.clients[0];
    (client.starts, client.nonsense) = (Duration::ZERO, None);
    client.batches.truncate(1);
    let batch = &mut client.batches[0];
    (batch.after, batch.reads, batch.leaves, batch.half_closes) = (Duration::ZERO, Pace::Fast, None, false);
    let request = &mut batch.requests[0];
    (request.method, request.old, request.keeps, request.body) = ("PUT", true, true, Body::Length(29_247));
    (request.local, request.routed, request.tunnel, request.expects) = (false, false, None, false);
    (request.close, request.sends, request.stalls_at) = (false, Pace::Fast, None);
    let answer = &mut request.answer;
    (answer.status, answer.body, answer.early, answer.takes_only) = (500, Body::Chunked(843), true, None);
    (answer.after, answer.pace, answer.interim, answer.fault) = (Duration::ZERO, Pace::Fast, 0, None);
    (answer.close, answer.surplus, answer.goes_stale) = (false, false, None);
    let summary = run(&plan, None, true);
    assert_eq!(summary.violation, None, "{:#?}", summary.trace);
    // It was cut indeed.
    assert_eq!((summary.requests, summary.errors), (1, 1), "{:#?}", summary.trace);
}

#[test]
fn a_plan_that_fails_shrinks_to_one_that_fails_in_the_same_way() {
    let plan = Plan::from_seed(1, REQUESTS);
    let invariant = |plan: &Plan| run(plan, Some(Bug::TwoOutcomes), false).violation.map(|v| v.invariant);
    let small = shrink(&plan, Some(Bug::TwoOutcomes));
    assert_eq!(invariant(&small), Some(Invariant::OneOutcome));
    let (before, after) = (plan.requests().count(), small.requests().count());
    assert!(after * 4 <= before, "{before} requests became {after}:\n{small}");
    // What does not fail is left as it is.
    assert_eq!(shrink(&plan, None), plan);
}
