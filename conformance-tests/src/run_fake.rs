//! Cases in exact time: orders of events that no kernel can be made to produce, and instants that no machine keeps.
//!
//! Such a case runs on the virtual runtime alone, but *inside* each harness's `block_on`: the proxy, its peers
//! and their clock are polled by that executor, and what happens must be equal to the last nanosecond wherever it
//! runs (V-02). Scripted cases in exact time are judged like any other; nothing here knows what a
//! case is about.

use std::cell::RefCell;
use std::future::Future;
use std::pin::Pin;
use std::sync::mpsc;
use std::thread;
use std::time::Duration;

use tidegate_core::TimeoutPolicy;

use crate::attempt::{About, Lateness, Skips};
use crate::exec::block;
use crate::harness::{Harness, warm_up};
use crate::run_virtual::play;
use crate::script::Case;
use crate::transcript::Transcript;
use crate::verdict::judge_virtual;

/// Longer than any case takes, on a clock on the wall.
const BOUND: Duration = Duration::from_secs(60);

/// What a case in exact time is written with. It collects what happens and what is wrong.
#[derive(Default)]
pub struct Exact {
    spoil: Option<fn(Case) -> Case>,
    run: RefCell<ExactRun>,
}

/// What a run in exact time gave: equal wherever it ran.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ExactRun {
    /// What happened in the scripted cases, in order.
    pub transcripts: Vec<Transcript>,
    /// What else was noted.
    pub notes: Vec<String>,
    /// What is wrong; empty if the case holds.
    pub wrong: Vec<String>,
}

/// A case in exact time.
pub type ExactCase = for<'a> fn(&'a Exact) -> Pin<Box<dyn Future<Output = ()> + 'a>>;

impl Exact {
    /// Runs a scripted case and judges it. Its transcript is a part of what must be equal everywhere.
    pub async fn check(&self, case: Case) -> Transcript {
        let case = match self.spoil {
            Some(spoil) => spoil(case),
            None => case,
        };
        let transcript = play(&case).await;
        let wrong = judge_virtual(&case, &transcript);
        let mut run = self.run.borrow_mut();
        if !wrong.is_empty() {
            run.wrong.extend(wrong.into_iter().map(|w| format!("{} {}: {w}", case.id, case.title)));
            run.wrong.push(format!("what happened:\n{}", transcript.describe()));
        }
        run.transcripts.push(transcript.clone());
        transcript
    }

    /// Runs a scripted case for what it shows, without judging it.
    pub async fn look(&self, case: Case) -> Transcript {
        play(&case).await
    }

    /// Limits for a case that scripts nothing: as given, or all off where the case is expected to fail.
    pub fn limits(&self, policy: TimeoutPolicy) -> TimeoutPolicy {
        if self.spoil.is_some() { TimeoutPolicy::OFF } else { policy }
    }

    /// Notes what happened.
    pub fn note(&self, line: impl Into<String>) {
        self.run.borrow_mut().notes.push(line.into());
    }

    /// Says what must hold.
    pub fn expect(&self, holds: bool, what: impl Into<String>) {
        if !holds {
            self.run.borrow_mut().wrong.push(format!("expected {}", what.into()));
        }
    }
}

/// Runs a case in exact time on this thread. With `spoil`, which gets the deadlines of each scripted case wrong, it
/// ought to fail.
pub fn run_exact(case: ExactCase, spoil: Option<fn(Case) -> Case>) -> ExactRun {
    block(perform(case, spoil))
}

async fn perform(case: ExactCase, spoil: Option<fn(Case) -> Case>) -> ExactRun {
    let exact = Exact { spoil, run: RefCell::default() };
    case(&exact).await;
    exact.run.into_inner()
}

/// Runs a case in exact time on no runtime, and panics unless it holds.
///
/// # Panics
///
/// If the case fails; that is its purpose.
#[track_caller]
pub fn check_exact_virtual(name: &str, case: ExactCase) -> ExactRun {
    let run = run_exact(case, None);
    assert!(run.wrong.is_empty(), "{name} fails in exact time:\n- {}", run.wrong.join("\n- "));
    run
}

/// Runs a case in exact time on no runtime, then under the harness's executor unless it is skipped, and panics unless
/// it holds and both runs are equal.
///
/// # Panics
///
/// If the case fails; that is its purpose.
#[track_caller]
pub fn check_exact<H: Harness>(name: &str, case: ExactCase, skips: &Skips) {
    About::named(name, false).attempt::<H, _>(
        skips,
        || check_exact_virtual(name, case),
        |alone| {
            under::<H>(name, case, alone);
            Ok(Lateness::new())
        },
    );
}

/// The same under the harness's executor.
#[track_caller]
fn under<H: Harness>(name: &str, case: ExactCase, alone: &ExactRun) {
    warm_up::<H>();
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        let _ = sender.send(H::block_on(|_| perform(case, None)));
    });
    match receiver.recv_timeout(BOUND) {
        Ok(run) => compare(name, H::NAME, alone, &run),
        Err(_) if thread.is_finished() => {}
        Err(_) => panic!("{name} never ends under {}: its executor polls nothing any more", H::NAME),
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
}

#[track_caller]
fn compare(name: &str, place: &str, alone: &ExactRun, there: &ExactRun) {
    assert!(there.wrong.is_empty(), "{name} fails under {place}:\n- {}", there.wrong.join("\n- "));
    assert_eq!(alone.notes, there.notes, "{name} is another one under {place} than without it");
    for (a, b) in alone.transcripts.iter().zip(&there.transcripts) {
        let (a_text, b_text) = (a.describe(), b.describe());
        assert!(a == b, "{name} is another one under {place}:\n{b_text}\nthan without it:\n{a_text}");
    }
    assert_eq!(alone.transcripts.len(), there.transcripts.len(), "{name} under {place}");
}
