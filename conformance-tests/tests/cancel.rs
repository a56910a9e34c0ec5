//! Cancel everywhere (H-07 over the whole catalogue): every case in virtual time, with one connection dropped at one of its
//! polls, and nothing of it left.
//!
//! With the environment variable `TIDEGATE_CANCEL=every`, at each of its polls; otherwise at [`TRIED`] of them.

use tidegate_conformance::{cases, run_cut};

/// How many polls of a case are tried at most. The first and the last ones all; those between at equal distances.
const TRIED: usize = 64;

fn tried(polls: usize, every: bool) -> Vec<usize> {
    if every || polls <= TRIED {
        return (0..polls).collect();
    }
    let (ends, between) = (TRIED / 4, TRIED / 2);
    let middle = polls - 2 * ends;
    let between = (0..between).map(|i| ends + i * middle / between);
    (0..ends).chain(between).chain(polls - ends..polls).collect()
}

/// One of several parts, which tests on several threads share: of each case a share of its polls, since a few cases have
/// nearly all of them.
fn cancel(part: usize, parts: usize) {
    let every = std::env::var("TIDEGATE_CANCEL").is_ok_and(|which| which == "every");
    let (mut wrong, mut runs, mut cases, mut polls) = (Vec::new(), 0, 0, 0);
    for (name, case) in cases::all() {
        let case = case();
        let whole = run_cut(&case, None);
        cases += 1;
        polls += whole.polls;
        assert_eq!(whole.left, [""; 0], "{name}, without a cut");
        for k in tried(whole.polls, every).into_iter().skip(part).step_by(parts) {
            runs += 1;
            for left in run_cut(&case, Some(k)).left {
                wrong.push(format!("{name}, dropped at poll {k} of {}: {left}", whole.polls));
            }
        }
    }
    println!("part {} of {parts}: {cases} cases of {polls} polls, dropped at {runs} of them", part + 1);
    assert!(wrong.is_empty(), "{} of {runs} runs leave something:\n{}", wrong.len(), wrong.join("\n"));
}

#[test]
fn nothing_is_left_of_a_connection_that_is_dropped_at_any_poll_part_1() {
    cancel(0, 2);
}

#[test]
fn nothing_is_left_of_a_connection_that_is_dropped_at_any_poll_part_2() {
    cancel(1, 2);
}

#[test]
fn the_polls_that_are_tried_are_within_the_run_and_none_twice() {
    for polls in [0, 1, TRIED - 1, TRIED, TRIED + 1, 1000, 1_000_000] {
        let some = tried(polls, false);
        assert!(some.is_sorted_by(|a, b| a < b) && some.iter().all(|k| *k < polls), "{polls}: {some:?}");
        assert_eq!(some.len(), polls.min(TRIED));
        assert!(tried(polls, true).into_iter().eq(0..polls));
    }
}
