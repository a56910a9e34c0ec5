//! `CONFORMANCE.md`: what is promised on which runtime, and what is not, for a reader who has nothing else.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::time::Duration;

use tidegate_conformance::expect::{SLACK, SLACK_CI};

use crate::results::{Report, Runtime, Verdict};

/// What is shown by other means than a case.
const ELSEWHERE: &str = include_str!("../../elsewhere.md");

/// The groups of the catalogue, and how many scenarios each has.
const GROUPS: [(char, usize, &str); 12] = [
    ('W', 18, "the `wait_for` primitive"),
    ('C', 19, "connecting"),
    ('Q', 17, "writing the request"),
    ('R', 23, "reading the response"),
    ('T', 19, "the total, and nested limits"),
    ('K', 17, "the client's side"),
    ('P', 15, "idle connections, permits, the queue"),
    ('U', 11, "tunnels"),
    ('H', 15, "nothing is left behind"),
    ('V', 14, "virtual time"),
    ('A', 20, "hostile schedules"),
    ('S', 11, "stopping and draining"),
];

/// What the names of the limits mean, for a reader who has nothing else. The contract is `docs/TIMEOUTS.md`.
const DEADLINES: &str = include_str!("deadlines.md");

/// What lies between these differs from run to run.
const FIGURES: (&str, &str) = ("<!-- figures -->", "<!-- end of figures -->");

pub(crate) fn write(report: &Report) -> String {
    let mut out = String::new();
    head(&mut out);
    out.push_str(DEADLINES);
    runtimes(&mut out, report);
    lateness(&mut out, report);
    skipped(&mut out, report);
    coverage(&mut out, report);
    cases(&mut out, report);
    out
}

fn head(out: &mut String) {
    let _ = write!(
        out,
        "\
# Conformance

Written by `conformance report`; continuous integration fails if it says anything else than a fresh run, the figures
apart. Do not edit it.

Tidegate is a reverse proxy that is a part of your program: a state machine without I/O that keeps every deadline, and for each
runtime a thin adapter that lends it sockets, timers and tasks. This page says what its timeouts promise, on which runtimes
that was shown, by which cases, and what is not promised.

Each case below runs on each runtime, unless it is listed under Skipped with the reason. Most are scripts of what clients and
upstreams do to a proxy, with limits scaled to a few hundred milliseconds; the peers are plain blocking sockets in threads of
their own. First everything runs in simulated time, which is exact and is the oracle; then on the runtime, which must agree. A
title is short: the function of the case in `conformance-tests/src/cases` says in a sentence what is shown.

## What is promised on every runtime listed here

- **Never early.** No deadline ends anything before its limit has passed. No slack, no rounding.
- **Late by the runtime and the machine alone.** What a deadline ends has ended, seen from outside, less than {} ms
  after the limit on a quiet machine ({} ms in continuous integration), plus what the machine was late itself meanwhile:
  the worst of what threads without any runtime measured, and how long the threads of the case waited for a core.
- **The same ending.** Which deadline fired, what the client is told (408, 502, 503, 504, a visible cut, or silence), FIN
  or RST on each connection, and what the embedder's hook is told are equal on every runtime. Bytes are equal where a
  message is complete, and a gapless prefix where it was cut.
- **The same ties.** What completes in the turn in which its limit is found to be past has completed. Of two limits that
  are both past the earlier one counts, and the outer one if they end together, however long the thread was blocked.
- **Teardown before the news.** The upstream's descriptor is closed before the first byte of an error response leaves,
  and an operation is destroyed before its error is returned.
- **Nothing is left.** After each case, sockets, tasks, permits, queue places and idle connections are back where they
  were, with the proxy still running, and again after it was stopped.
- **Nobody outruns a deadline.** A peer that floods, a thread that was blocked and a stale readiness change how late a
  deadline is, never which one counts.

## What is not promised

- Punctuality. The figures below are of one run on one machine; a busy one is later. An upper bound would be the
  operating system's to give.
- That a future which never returns from `poll` is cut. Nothing in user space can do that.
- Anything about tasks that the embedder spawns himself: what their handles do when dropped is the runtime's.
- How many bytes a stalled connection took before it was cut: the kernel's buffers decide.
- Other systems than Linux. The adapters build elsewhere; what is shown here was shown on Linux.
- What a runtime's own `timeout()` does. None is used.

",
        SLACK.as_millis(),
        SLACK_CI.as_millis(),
    );
}

fn runtimes(out: &mut String, report: &Report) {
    out.push_str("## Runtimes\n\nWhat is promised above holds on each of them, but for what is skipped. What differs is said below the table.\n\n| runtime | passed | skipped | failed |\n| --- | --- | --- | --- |\n");
    for runtime in &report.runtimes {
        let (passed, skipped, failed) = runtime.counts();
        let _ = writeln!(out, "| {} | {passed} | {skipped} | {failed} |", runtime.name);
    }
    out.push('\n');
    for runtime in report.runtimes.iter().filter(|runtime| !runtime.notes.is_empty()) {
        let _ = writeln!(out, "- **{}**: {}", runtime.name, runtime.notes.join(" "));
    }
    out.push('\n');
}

fn lateness(out: &mut String, report: &Report) {
    let _ = write!(
        out,
        "\
## How late deadlines were

From the end of a limit to the moment at which a peer in another thread saw what came of it: the runtime's timer, the
proxy's turn, the kernel, and the peer's own wake-up. In milliseconds, all runtimes side by side on one machine.

A busy machine can hold up a client of the suite's own, so that another deadline comes first, and rightly. So a run that
fails may be repeated, under these rules.

- What **no machine explains** fails at once: what comes early, if everything began and ended as it should; bytes that are not
  those that were sent, a part that passes for the whole, and what is no HTTP; sockets, tasks, timers and the like that are left
  when everybody else has gone (unless somebody was held up for half of the second that is waited for); for the cases that are about
  it, memory that grows, two armed timers of one connection, a replay that decides otherwise, and the right events in a wrong order.
- On a machine that held no thread of the case up for more than 15 ms at once, nor for more than 50 ms in all, and that dropped
  no packet meanwhile (Linux counts those for which a core has no room), **everything** that is wrong fails at once.
- On one that held somebody up for longer than these 15 ms, but for no more than 50 ms in all, everything fails at once but what is
  **late and nothing else**: limits differ by more than that.
- Otherwise the run shows nothing and is repeated, five times and for 15 seconds at most, with the machine to itself as far as the
  suite is concerned; and then it must hold **twice**. What is wrong each time fails.

A fault that shows now and then, and only on a busy machine, can still hide behind a repetition: therefore each one
is listed here, with what was missed. A case that comes again and again in this list points at a fault: the runtime's, the proxy's, or its own.

{}

| runtime | deadlines | minimum | median | maximum | repeated |
| --- | --- | --- | --- | --- | --- |
",
        FIGURES.0
    );
    for runtime in &report.runtimes {
        let all = runtime.lateness();
        let figure = |at: Option<&Duration>| {
            at.map_or(String::from("-"), |late| format!("{:.2}", late.as_secs_f64() * 1e3))
        };
        let (min, median, max) = (figure(all.first()), figure(all.get(all.len() / 2)), figure(all.last()));
        let repeated: usize = runtime.cases.iter().map(|case| case.repeated.len()).sum();
        let _ = writeln!(out, "| {} | {} | {min} | {median} | {max} | {repeated} |", runtime.name, all.len());
    }
    out.push('\n');
    repeated(out, report);
    let _ = writeln!(out, "{}\n", FIGURES.1);
}

/// Every run that was repeated, and what it missed.
fn repeated(out: &mut String, report: &Report) {
    let all: Vec<_> = report
        .all()
        .flat_map(|(runtime, case)| case.repeated.iter().map(move |why| (runtime, &case.case, why)))
        .collect();
    if all.is_empty() {
        out.push_str("No run was repeated.\n\n");
        return;
    }
    out.push_str("| repeated on | case | missed |\n| --- | --- | --- |\n");
    for (runtime, case, why) in all {
        // A cell is a line.
        let why = why.replace('|', "/").replace('\n', " ");
        let _ = writeln!(out, "| {runtime} | `{case}` | {why} |");
    }
    out.push('\n');
}

fn skipped(out: &mut String, report: &Report) {
    out.push_str("## Skipped\n\n");
    let skipped: Vec<_> = report
        .all()
        .filter_map(|(runtime, result)| match &result.verdict {
            Verdict::Skipped { why } => Some(format!("| {runtime} | `{}` | {why} |\n", result.case)),
            _ => None,
        })
        .collect();
    if skipped.is_empty() {
        out.push_str("None: every case runs on every runtime.\n\n");
    } else {
        let _ = writeln!(out, "| runtime | case | reason |\n| --- | --- | --- |\n{}", skipped.concat());
    }
}

fn coverage(out: &mut String, report: &Report) {
    let with_case: BTreeSet<String> = report.rows().iter().map(|(id, ..)| (*id).to_owned()).collect();
    let shown = ids_elsewhere();
    let all = || GROUPS.iter().flat_map(|(group, n, _)| (1..=*n).map(move |i| format!("{group}-{i:02}")));
    let total = all().count();
    let (with, without): (Vec<_>, Vec<_>) = all().partition(|id| with_case.contains(id));
    let (elsewhere, missing): (Vec<_>, Vec<_>) = without.into_iter().partition(|id| shown.contains(id));
    let _ = write!(
        out,
        "## The catalogue\n\nThe catalogue is what the suite sets out to show, numbered within groups; the letter of an id names \
         its group, as the headings under Cases do. It has {total} scenarios. {} of them are cases here, {} more are shown on the \
         parts of the core alone or do not apply (below)",
        with.len(),
        elsewhere.len()
    );
    let _ = match missing.len() {
        0 => writeln!(out, "; that is all of them.\n"),
        n => writeln!(out, ", and {n} have neither yet: {}.\n", missing.join(", ")),
    };
    // One heading less deep than in the crate's documentation.
    out.push_str(&ELSEWHERE.replacen("# ", "### ", 1));
    out.push('\n');
}

/// The ids in the first columns of the table.
fn ids_elsewhere() -> BTreeSet<String> {
    let cells = ELSEWHERE.lines().filter_map(|line| line.strip_prefix("| ")?.split('|').next());
    let words = cells.flat_map(|cell| cell.split(|c: char| !c.is_ascii_alphanumeric() && c != '-'));
    words.filter(|word| is_id(word)).map(str::to_owned).collect()
}

fn is_id(word: &str) -> bool {
    let bytes = word.as_bytes();
    bytes.len() == 4
        && bytes[0].is_ascii_uppercase()
        && bytes[1] == b'-'
        && bytes[2..].iter().all(u8::is_ascii_digit)
}

fn cases(out: &mut String, report: &Report) {
    out.push_str(
        "## Cases\n\n`+` holds, `s` is skipped, `FAILS` fails, and nothing means that it did not run.\n",
    );
    for (group, _, what) in GROUPS {
        let rows: Vec<_> = report.rows().into_iter().filter(|(id, ..)| id.starts_with(group)).collect();
        if rows.is_empty() {
            continue;
        }
        let _ = write!(out, "\n### {group}: {what}\n\n| case | shows |");
        let names = report.runtimes.iter().map(|runtime| format!(" {} |", runtime.name));
        let rules = report.runtimes.iter().map(|_| " --- |");
        let _ = writeln!(out, "{}\n| --- | --- |{}", names.collect::<String>(), rules.collect::<String>());
        for (id, case, title) in rows {
            let _ = write!(out, "| {id} | {title} |");
            for runtime in &report.runtimes {
                let _ = write!(out, " {} |", sign(runtime, case));
            }
            out.push('\n');
        }
    }
}

fn sign(runtime: &Runtime, case: &str) -> &'static str {
    match runtime.verdict(case) {
        Some(Verdict::Passed) => "+",
        Some(Verdict::Skipped { .. }) => "s",
        Some(Verdict::Failed { .. }) => "FAILS",
        None => "",
    }
}

/// The first line that differs, the figures apart.
pub(crate) fn difference(there: &str, fresh: &str) -> Option<String> {
    let (there, fresh) = (without_figures(there), without_figures(fresh));
    let count = there.len().max(fresh.len());
    let line =
        |lines: &[&str], i: usize| lines.get(i).map_or(String::from("nothing"), |line| format!("{line:?}"));
    let i = (0..count).find(|i| there.get(*i) != fresh.get(*i))?;
    Some(format!("It says {}, this run says {}.", line(&there, i), line(&fresh, i)))
}

fn without_figures(text: &str) -> Vec<&str> {
    let mut inside = false;
    let kept = |line: &&str| {
        inside = (inside || *line == FIGURES.0) && *line != FIGURES.1;
        !inside
    };
    text.lines().filter(kept).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(result: &str, late: u32) -> Report {
        let mut report = Report::default();
        for runtime in ["b", "a"] {
            let line = format!(
                r#"{{"runtime":"{runtime}","notes":["A note."],"case":"w_04_plain","id":"W-04","title":"plain",
                "result":"{result}","why":"no reason","took":1,"late":[{late}]}}"#
            );
            report.add(&line.replace('\n', " ")).unwrap();
        }
        report
    }

    #[test]
    fn figures_alone_make_no_difference() {
        let (one, other) = (write(&report("passed", 1000)), write(&report("passed", 2500)));
        assert!(
            one.contains("| a | 1 | 1.00 | 1.00 | 1.00 | 0 |")
                && other.contains("| b | 1 | 2.50 | 2.50 | 2.50 | 0 |")
        );
        assert_eq!(difference(&one, &other), None);
    }

    #[test]
    fn a_repeated_run_is_listed_and_makes_no_difference() {
        let line = r#"{"runtime":"a","case":"w_04_plain","id":"W-04","title":"plain","result":"passed","took":1,
            "repeated":["expected a | b"]}"#;
        let mut repeated = Report::default();
        repeated.add(&line.replace('\n', " ")).unwrap();
        let text = write(&repeated);
        assert!(text.contains("| a | `w_04_plain` | expected a / b |"), "{text}");
        assert!(text.contains("| a | 0 | - | - | - | 1 |"), "{text}");
        repeated.runtimes[0].cases[0].repeated.clear();
        assert_eq!(difference(&text, &write(&repeated)), None);
    }

    #[test]
    fn another_verdict_is_a_difference() {
        let (one, other) = (write(&report("passed", 1)), write(&report("failed", 1)));
        assert!(difference(&one, &other).is_some_and(|d| d.contains("| a | 1 | 0 | 0 |")));
        assert!(difference(&one, "").is_some());
    }

    #[test]
    fn a_skipped_case_shows_with_its_reason() {
        let text = write(&report("skipped", 1));
        assert!(text.contains("| a | `w_04_plain` | no reason |"));
        assert!(text.contains("| W-04 | plain | s | s |"));
    }

    #[test]
    fn the_table_of_what_is_shown_elsewhere_is_read() {
        assert!(ids_elsewhere().contains("V-11"));
        assert!(ids_elsewhere().iter().all(|id| GROUPS.iter().any(|(group, ..)| id.starts_with(*group))));
    }
}
