//! From transcripts to a verdict, in words that an adapter's author understands.

use std::fmt::Write as _;
use std::sync::Arc;

use crate::attempt::{About, Failure, Lateness, Skips};
use crate::expect::{Expect, SLACK, SLACK_CI, Tolerance};
use crate::harness::Harness;
use crate::hint::{Missed, hints};
use crate::run_real::run_real;
use crate::run_virtual::run_virtual;
use crate::script::Case;
use crate::transcript::Transcript;

/// What is wrong with a virtual run of `case`; empty if nothing is.
pub fn judge_virtual(case: &Case, transcript: &Transcript) -> Vec<String> {
    judge(case, transcript, Tolerance::VIRTUAL)
}

fn judge(case: &Case, transcript: &Transcript, tolerance: Tolerance) -> Vec<String> {
    let failed = case.expect.iter().filter_map(|expect| expect.check(transcript, tolerance).err());
    let early = transcript.outcomes.iter().enumerate().filter_map(|(i, seen)| Some((i, seen.early?)));
    let early =
        early.map(|(i, by)| format!("expected no deadline before its limit; outcome {i} is {by:?} EARLY"));
    failed.chain(early).chain(transcript.faults.iter().cloned()).collect()
}

/// The slack of this machine.
pub(crate) fn slack() -> Tolerance {
    let slack = if std::env::var_os("CI").is_some() { SLACK_CI } else { SLACK };
    Tolerance { slack }
}

/// Runs a case in virtual time and panics unless it holds.
///
/// # Panics
///
/// If the case fails; that is its purpose.
#[track_caller]
pub fn check_virtual(case: &Case) {
    let transcript = run_virtual(case);
    let wrong = judge_virtual(case, &transcript);
    if !wrong.is_empty() {
        panic!("{}", report(case, "in virtual time", &wrong, &[("this run", &transcript)]));
    }
}

/// Runs a case in virtual time, then on the harness's runtime, and panics unless both hold and agree. A case that is
/// skipped does not run.
///
/// # Panics
///
/// If the case fails; that is its purpose.
#[track_caller]
pub fn check<H: Harness>(case: Case, skips: &Skips) {
    let case = Arc::new(case);
    let name = case.test_name();
    let about = About {
        name: &name,
        id: case.id.into(),
        title: case.title.into(),
        alone: case.alone,
        needs: &case.needs,
    };
    about.attempt::<H, _>(skips, || oracle(&case), |oracle| real::<H>(&case, oracle));
}

#[track_caller]
pub(crate) fn oracle(case: &Case) -> Transcript {
    let oracle = run_virtual(case);
    let wrong = judge_virtual(case, &oracle);
    if !wrong.is_empty() {
        let place = "in virtual time already: the fault is in the proxy or the case, not in the adapter";
        panic!("{}", report(case, place, &wrong, &[("virtual time", &oracle)]));
    }
    oracle
}

pub(crate) fn real<H: Harness>(case: &Arc<Case>, oracle: &Transcript) -> Result<Lateness, Failure> {
    let run = run_real::<H>(case);
    let mut tolerance = slack();
    tolerance.slack += run.machine.late;
    let mut wrong = judge(case, &run.transcript, tolerance);
    for (round, earlier) in run.earlier.iter().enumerate() {
        let failed = judge(case, earlier, tolerance);
        wrong.extend(failed.into_iter().map(|what| format!("in round {}: {what}", round + 1)));
    }
    if !case.by_chance {
        wrong.extend(Transcript::differences(oracle, &run.transcript, !case.fills_buffers()));
    }
    if !wrong.is_empty() {
        let place = format!("on {} (the machine itself was up to {:?} late)", H::NAME, run.machine.late);
        let runs = [("this runtime", &run.transcript), ("virtual time", oracle)];
        let any = |of: &dyn Fn(&Expect) -> bool| case.expect.iter().any(of);
        let (seen, slack) = (&run.transcript, tolerance.slack);
        // If a peer was held up, another deadline may have come first, and in time.
        let failures = |t: &Transcript| t.outcomes.iter().map(|seen| seen.failure).collect::<Vec<_>>();
        let as_expected = case.by_chance || failures(oracle) == failures(seen);
        let late = |expect: &Expect| expect.lateness(seen).is_some_and(|late| late >= slack);
        let mut pairs = oracle.outcomes.iter().zip(&seen.outcomes);
        let decided_in_time = pairs.all(|(due, seen)| seen.at < due.at + slack);
        let missed = Missed {
            // By the proxy's own account it is early whatever else happened.
            early: seen.outcomes.iter().any(|outcome| outcome.early.is_some())
                || as_expected && any(&|expect| expect.is_early(seen, oracle)),
            late: any(&late),
            closed_late: decided_in_time && any(&|expect| late(expect) && expect.is_of_a_close()),
            slow: any(&|expect| expect.delay(seen).is_some_and(|delay| delay >= slack)),
            stalled: case.stall.is_some(),
        };
        let mut words = report(case, &place, &wrong, &runs);
        for hint in hints(oracle, seen, missed) {
            let _ = writeln!(words, "Most likely: {hint}");
        }
        return Err(Failure { words, machine: run.machine, early: missed.early });
    }
    Ok(case.expect.iter().filter_map(|expect| expect.lateness(&run.transcript)).collect())
}

fn report(case: &Case, place: &str, wrong: &[String], runs: &[(&str, &Transcript)]) -> String {
    let mut out = format!("{} {} fails {place}:\n", case.id, case.title);
    for line in wrong {
        let _ = writeln!(out, "- {line}");
    }
    for (name, transcript) in runs {
        let _ = writeln!(out, "what happened, {name}:\n{}", transcript.describe());
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cases::r::r_01_silent;
    use crate::script::ms;

    #[test]
    fn an_early_timeout_is_wrong_in_any_case() {
        let mut case = r_01_silent();
        case.expect.clear();
        let mut transcript = run_virtual(&case);
        assert_eq!(judge_virtual(&case, &transcript), [""; 0]);
        transcript.outcomes[0].early = Some(ms(1));
        let wrong = "expected no deadline before its limit; outcome 0 is 1ms EARLY";
        assert_eq!(judge_virtual(&case, &transcript), [wrong]);
    }
}
