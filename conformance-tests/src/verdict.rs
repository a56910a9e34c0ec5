//! From transcripts to a verdict, in words that an adapter's author understands.

use std::fmt::Write as _;
use std::sync::Arc;
use std::time::Duration;

use crate::attempt::{About, Failure, Lateness, Skips};
use crate::expect::{Expect, SLACK, SLACK_CI, Tolerance};
use crate::harness::Harness;
use crate::hint::{Missed, hints};
use crate::run_real::{NOT_SET_UP, UNFINISHED, run_real};
use crate::run_virtual::run_virtual;
use crate::script::Case;
use crate::transcript::Transcript;
use crate::watch::Machine;

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
            closed_late: decided_in_time
                && any(&|expect| (late(expect) || expect.is_out_of_order(seen)) && expect.is_of_a_close()),
            slow: any(&|expect| expect.delay(seen).is_some_and(|delay| delay >= slack)),
            stalled: case.stall.is_some(),
        };
        let mut words = report(case, &place, &wrong, &runs);
        for hint in hints(oracle, seen, missed) {
            let _ = writeln!(words, "Most likely: {hint}");
        }
        let rounds = || run.earlier.iter().chain([seen]);
        let no_machine = |t| is_certain(oracle, t, !case.fills_buffers(), run.machine);
        return Err(Failure {
            words,
            machine: run.machine,
            certain: missed.early || rounds().any(no_machine),
            late_only: rounds().all(|t| is_late_only(case, oracle, t, tolerance)),
        });
    }
    Ok(case.expect.iter().filter_map(|expect| expect.lateness(&run.transcript)).collect())
}

/// Whether all that is wrong with a run is that something came late.
fn is_late_only(case: &Case, oracle: &Transcript, seen: &Transcript, tolerance: Tolerance) -> bool {
    let mut failed = case.expect.iter().filter(|expect| expect.check(seen, tolerance).is_err());
    let is_equal = case.by_chance || Transcript::differences(oracle, seen, !case.fills_buffers()).is_empty();
    seen.faults.is_empty() && is_equal && failed.all(|expect| expect.is_late_only(seen))
}

/// For how long everything has the time to go away that is counted after a case, twice over.
const LEAVES: Duration = Duration::from_millis(500);

/// Whether something is wrong that no machine explains, however it held up whom: a peer was sent what is no HTTP; bytes are
/// not those that were sent, or are not all of them and pass for it; or something is left, although the peers were done and
/// nobody was held up for as long as it is waited for.
/// Lengths count if `exact`.
fn is_certain(oracle: &Transcript, seen: &Transcript, exact: bool, machine: Machine) -> bool {
    let sides = [(&oracle.clients, &seen.clients), (&oracle.upstreams, &seen.upstreams)];
    let mut logs = sides.into_iter().flat_map(|(oracle, seen)| oracle.iter().zip(seen));
    let is_corrupt = logs.any(|(oracle, seen)| {
        let (due, came) = (&oracle.received, &seen.received);
        let mut pairs = due.messages.iter().zip(&came.messages);
        let is_other = pairs.any(|(due, came)| {
            let is_short = exact && due.complete && came.complete && came.body_len < due.body_len;
            let is_same = due.start == came.start && due.framing == came.framing;
            is_same && due.is_pattern && due.body_len > 0 && (!came.is_pattern || is_short)
        });
        is_other || due.broken.is_none() && came.broken.is_some()
    });
    let hangs =
        seen.faults.iter().any(|fault| fault.starts_with(UNFINISHED) || fault.starts_with(NOT_SET_UP));
    let leaves = machine.late < LEAVES && machine.dropped == 0;
    is_corrupt || !seen.faults.is_empty() && !hangs && leaves
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
    use crate::cases::r::{r_01_silent, r_02_drip_is_fine};
    use crate::recorder::Message;
    use crate::script::ms;
    use crate::transcript::End;

    /// A machine that held everybody up.
    const BUSY: Machine = Machine { at_once: ms(200), late: ms(400), dropped: 0 };

    #[test]
    fn what_is_late_is_all_that_a_moment_explains() {
        let case = r_01_silent();
        let oracle = run_virtual(&case);
        let is_late_only = |t: &Transcript| is_late_only(&case, &oracle, t, Tolerance::VIRTUAL);
        let mut late = oracle.clone();
        for m in &mut late.clients[0].received.messages {
            m.first_byte += ms(300);
        }
        assert!(!judge_virtual(&case, &late).is_empty() && is_late_only(&late));
        late.upstreams[0].end = late.upstreams[0].end.map(|(_, at)| (End::Fin, at));
        assert!(!is_late_only(&late));
        assert!(!is_certain(&oracle, &late, true, BUSY));
    }

    #[test]
    fn no_machine_explains_other_bytes_or_what_is_left() {
        let oracle = run_virtual(&r_02_drip_is_fine());
        let certain = |change: &dyn Fn(&mut Transcript)| {
            let mut seen = oracle.clone();
            change(&mut seen);
            is_certain(&oracle, &seen, true, BUSY)
        };
        let body =
            |t: &mut Transcript, change: fn(&mut Message)| change(&mut t.clients[0].received.messages[0]);
        assert!(!certain(&|_| {}));
        // Cut by another deadline.
        assert!(!certain(&|t| body(t, |m| (m.complete, m.body_len) = (false, 3))));
        assert!(certain(&|t| body(t, |m| m.body_len = 3)));
        assert!(certain(&|t| body(t, |m| m.is_pattern = false)));
        assert!(certain(&|t| t.clients[0].received.broken = Some("nonsense".into())));
        assert!(certain(&|t| t.faults.push("sockets: 3 after the case, 2 before it".into())));
        // Who was in the middle of it has not closed yet.
        assert!(!certain(&|t| t.faults.push(format!("{UNFINISHED} within 10s: client 0 is at: step 3"))));
        let mut left = oracle.clone();
        left.faults.push("sockets: 3 after the case, 2 before it".into());
        for machine in [Machine { late: ms(600), ..BUSY }, Machine { dropped: 1, ..BUSY }] {
            assert!(!is_certain(&oracle, &left, true, machine));
        }
    }

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
