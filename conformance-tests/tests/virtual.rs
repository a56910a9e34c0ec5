//! Every case in virtual time alone; that virtual time repeats itself exactly; and that every case fails
//! where it ought to.

use std::path::Path;
use std::time::Duration;

use tidegate_conformance::script::{Case, Upstream, ms};
use tidegate_conformance::trace::trace;
use tidegate_conformance::{cases, judge_virtual, run_exact, run_virtual};
use tidegate_core::TimeoutPolicy;

tidegate_conformance::virtual_suite!();

#[test]
fn the_same_case_gives_the_same_transcript() {
    for (name, case) in cases::all() {
        let (first, second) = (run_virtual(&case()), run_virtual(&case()));
        assert!(first == second, "{name}:\n{}\nand then\n{}", first.describe(), second.describe());
    }
    for (name, case) in cases::all_exact() {
        assert!(run_exact(case, None) == run_exact(case, None), "{name}");
    }
}

/// The traces in `golden/`, to the letter. A change of the proxy that moves an event shows here before anywhere else; if it
/// is meant, write them anew and read the difference:
///
/// ```text
/// TIDEGATE_GOLDEN=write cargo test -p tidegate-conformance --test virtual v_01
/// ```
#[test]
fn v_01_golden_traces() {
    let writes = std::env::var_os("TIDEGATE_GOLDEN").is_some_and(|what| what == "write");
    for (name, case) in cases::few() {
        let trace = trace(&run_virtual(&case()));
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("golden").join(name).with_extension("txt");
        if writes {
            std::fs::write(&path, &trace).expect("a place for traces");
        }
        let golden = std::fs::read_to_string(&path).unwrap_or_default();
        for (i, (now, then)) in trace.lines().zip(golden.lines()).enumerate() {
            assert_eq!(now, then, "{name}: line {} is another one", i + 1);
        }
        assert_eq!(trace, golden, "{name} has more lines, or fewer");
    }
}

#[test]
fn tests_are_named_after_their_cases() {
    for (name, case) in cases::all() {
        assert_eq!(name, case().test_name());
    }
    for (name, test_name, _) in cases::all_waits() {
        assert_eq!(name, test_name);
    }
}

/// A case that nothing can fail shows nothing. Where a deadline is expected there is none here; where
/// none is expected there is one.
#[test]
fn every_case_can_fail() {
    for (name, case) in cases::all() {
        let case = sabotaged(case());
        let wrong = judge_virtual(&case, &run_virtual(&case));
        assert!(!wrong.is_empty(), "{name} holds although its deadlines are wrong");
    }
    for (name, _, can_fail) in cases::all_waits() {
        // It waits for nothing.
        assert!(
            can_fail() || name == "w_01_zero_not_started",
            "{name} holds although the clock stands still"
        );
    }
    for (name, case) in cases::all_exact() {
        let wrong = run_exact(case, Some(sabotaged)).wrong;
        assert!(!wrong.is_empty(), "{name} holds although its deadlines are wrong");
    }
}

fn sabotaged(mut case: Case) -> Case {
    match case.id {
        "R-02" | "R-19" | "R-20" => {
            // A blocked thread would save them: what came in time counts.
            case.stall = None;
            case.policy.read = Some(ms(10));
        }
        "A-04" => {
            case.stall = None;
            case.routes.iter_mut().for_each(|(_, policy)| policy.read = Some(Duration::from_micros(100)));
        }
        "A-13" => case.upstream = Upstream::Closed,
        "A-18" => case.policy.client_head = Some(ms(50)),
        "R-12" => case.policy.client_write = Some(ms(150)),
        "Q-07" => case.policy.write = Some(ms(20)),
        "C-05" | "C-07" | "C-08" => case.aims.clear(),
        "C-09" => case.routes.clear(),
        "C-03" => case.upstream = Upstream::KernelOnly,
        "C-16" => case.policy.connect = Some(ms(0)),
        "K-12" | "K-13" | "K-14" | "R-17" | "R-18" => case.policy.read = Some(ms(10)),
        "Q-03" => case.policy.write = Some(ms(60)),
        "Q-10" => case.policy.read = Some(ms(100)),
        "R-14" => case.policy.client_write = Some(ms(150)),
        "R-15" => case.policy.pool_idle = Some(ms(0)),
        "P-06" | "P-08" | "P-10" | "R-22" | "R-23" => case.upstream = Upstream::Closed,
        "T-10" | "T-11" | "T-12" => case.policy.total = Some(ms(100)),
        // No deadline is expected, or the one that is comes with its request.
        "P-04" | "P-12" | "P-13" | "Q-16" | "S-09" => case.upstream = Upstream::Closed,
        "W-02" => case.stall = None,
        "Q-14" => case.policy.write = Some(Duration::from_micros(100)),
        "K-07" | "K-11" => {
            case.policy.client_body = Some(ms(10));
            case.policy.client_write = Some(ms(10));
        }
        "K-08" | "Q-17" => case.policy.write = Some(ms(200)),
        "R-16" => {
            case.stall = None;
            case.policy.read = Some(ms(10));
        }
        "P-07" => case.policy.pool_idle = Some(ms(10)),
        "T-17" => case.policy.total = Some(ms(400)),
        "P-11" => {
            case.policy.queue = None;
            case.limits.max_queue = 1000;
            case.max_client_conns = 1000;
        }
        "S-10" | "W-03" | "W-11" | "W-12" | "S-01" | "S-02" | "S-03" | "S-04" | "S-05" | "S-06" | "S-07"
            if case.ends_the_server() =>
        {
            case.commands.clear();
            case.stopped_by_observer = false;
        }
        // Without an end it would flood for long.
        "U-11" => case.policy.drain = Some(ms(200)),
        "U-01" | "U-03" => case.policy.tunnel = Some(ms(50)),
        "U-04" | "U-09" => case.policy.tunnel = Some(ms(0)),
        "A-03" | "T-13" => case.policy.total = Some(ms(300)),
        _ => case.policy = TimeoutPolicy::OFF,
    }
    case
}
