//! The long sweep of the simulation: `simulate [SEEDS [REQUESTS [FIRST]]]`, by default 1,000 seeds with 1,000
//! requests each from seed 0. With `TIDEGATE_SEED` that seed alone, with its trace. `simulate bugs [REQUESTS]`: in how
//! many seeds each planted bug is found. `simulate find [SEEDS [REQUESTS]]`: the first seed that breaks a promise.
//! `simulate golden`: the histories that `tests/simulation.rs` compares.

use std::process::ExitCode;
use std::time::Instant;

use tidegate_conformance::sim::{Bug, Plan, golden, report, run, wanted_seed};

fn main() -> ExitCode {
    let args: Vec<String> = std::env::args().skip(1).collect();
    let number = |n: usize, default: u64| args.get(n).and_then(|a| a.parse().ok()).unwrap_or(default);
    if args.first().is_some_and(|a| a == "bugs") {
        return bugs(number(1, 100) as usize);
    }
    if args.first().is_some_and(|a| a == "find") {
        return find(number(1, 1000), number(2, 60) as usize);
    }
    if args.first().is_some_and(|a| a == "golden") {
        print!("{}", golden());
        return ExitCode::SUCCESS;
    }
    let (seeds, requests, first) = (number(0, 1000), number(1, 1000) as usize, number(2, 0));
    if let Some(seed) = wanted_seed() {
        return one(seed, requests);
    }
    let began = Instant::now();
    let (mut done, mut errors, mut digest, mut failed) = (0, 0, 0u64, Vec::new());
    for seed in first..first + seeds {
        let summary = run(&Plan::from_seed(seed, requests), None, false);
        if let Some(violation) = summary.violation {
            println!("seed {seed}: {violation}");
            failed.push(seed);
        }
        done += summary.requests;
        errors += summary.errors;
        digest = digest.rotate_left(1) ^ summary.digest;
    }
    if let Some(first) = failed.first() {
        println!("{} of {seeds} seeds break a promise; the first of them:", failed.len());
        return one(*first, requests);
    }
    println!(
        "{seeds} seeds, {done} requests, {errors} of them ended in an error, no promise broken; digest {digest:016x}; {:?}",
        began.elapsed()
    );
    ExitCode::SUCCESS
}

fn one(seed: u64, requests: usize) -> ExitCode {
    match report(seed, requests, None) {
        Some(text) => {
            println!("{text}");
            ExitCode::FAILURE
        }
        None => {
            let summary = run(&Plan::from_seed(seed, requests), None, true);
            println!("seed {seed}: no promise broken; digest {:016x}; the last events:", summary.digest);
            summary.trace.iter().for_each(|line| println!("{line}"));
            ExitCode::SUCCESS
        }
    }
}

/// Says how many seeds it took, and which promise was broken: nothing if none was.
fn find(seeds: u64, requests: usize) -> ExitCode {
    let found = (0..seeds)
        .find_map(|seed| run(&Plan::from_seed(seed, requests), None, false).violation.map(|v| (seed + 1, v)));
    if let Some((n, violation)) = found {
        println!("{n} {:?}", violation.invariant);
        eprintln!("{violation}");
    }
    ExitCode::SUCCESS
}

fn bugs(requests: usize) -> ExitCode {
    println!("| bug | seeds needed | promise |\n| --- | ---: | --- |");
    let mut all = true;
    for bug in Bug::ALL {
        let found = (0..1000).find_map(|seed| {
            run(&Plan::from_seed(seed, requests), Some(bug), false).violation.map(|v| (seed, v))
        });
        all &= found.as_ref().is_some_and(|(_, v)| bug.breaks().contains(&v.invariant));
        match found {
            Some((seed, violation)) => {
                println!("| {bug:?} | {} | {:?} |", seed + 1, violation.invariant);
                eprintln!("{bug:?}: {violation}");
            }
            None => println!("| {bug:?} | not in 1,000 | |"),
        }
    }
    if all { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}
