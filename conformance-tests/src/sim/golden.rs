//! What the same seeds give on every machine, as text: digests of whole histories, and one trace in words.
//!
//! `tests/simulation.rs` compares it with what was recorded (`golden.txt` beside this file). Build profile, threads,
//! environment, date and word size must make no difference.

use std::fmt::Write as _;

use super::plan::Plan;
use super::run::run;

/// Seeds whose digests are recorded, and how many requests each has.
const SEEDS: (u64, usize) = (24, 60);

/// The one whose trace is, from its first event on.
const TRACED: (u64, usize) = (3, 12);

/// The text, one line a seed and then the trace.
pub fn golden() -> String {
    let mut out = String::new();
    for seed in 0..SEEDS.0 {
        let summary = run(&Plan::from_seed(seed, SEEDS.1), None, false);
        let (digest, requests, errors) = (summary.digest, summary.requests, summary.errors);
        let _ = writeln!(out, "seed {seed}: {digest:016x}, {requests} requests, {errors} errors");
    }
    let plan = Plan::from_seed(TRACED.0, TRACED.1);
    let _ = writeln!(out, "\n{plan}");
    for line in run(&plan, None, true).trace {
        let _ = writeln!(out, "{line}");
    }
    out
}
