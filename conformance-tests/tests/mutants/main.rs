//! Adapters with one thing of them wrong must be rejected: each by the case that is named for it here, in words that
//! lead its author to the method. What is wrong is in `mutated.rs`; the good adapters are tokio's on one thread and the
//! one of the walk-through.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::panic::{self, AssertUnwindSafe};

use tidegate_conformance::expect::Expect;
use tidegate_conformance::script::Case;
use tidegate_conformance::{Harness, Need, cases};
use tidegate_tokio::Tokio;
use tokio::runtime::Builder;

mod mutated;
#[path = "../walkthrough/tiny.rs"]
mod tiny;

use self::mutated::*;
use self::tiny::OnTiny;

struct OnTokio;

impl Harness for OnTokio {
    type Runtime = Tokio;
    type Listener = tidegate_tokio::Listener;
    const NAME: &'static str = "tokio, current thread";

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Tokio) -> F) -> T {
        let runtime = Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
        runtime.block_on(async { main(Tokio::new().expect("inside a runtime")).await })
    }

    fn listener(bound: TcpListener) -> io::Result<Self::Listener> {
        bound.try_into()
    }
}

/// The case must fail, and say all of these.
#[track_caller]
fn rejected(check: impl FnOnce(), words: &[&str]) {
    let ran = panic::catch_unwind(AssertUnwindSafe(check));
    let panic = ran.expect_err("the suite does not notice");
    let said = panic.downcast_ref::<String>().expect("it says why");
    for words in words {
        assert!(said.contains(words), "it does not say {words:?}:\n{said}");
    }
}

/// Runs a case on a harness: one on the runtime itself, one of scripts, or one about the primitive.
macro_rules! check {
    ($harness:ty, live :: $case:ident) => {
        tidegate_conformance::check_live::<$harness>(
            stringify!($case),
            module_path!(),
            cases::live::$case::<$harness>,
            &[],
        )
    };
    ($harness:ty, $module:ident :: $case:ident) => {
        tidegate_conformance::check::<$harness>(cases::$module::$case(), &[])
    };
    ($harness:ty, $case:ident) => {
        tidegate_conformance::check_wait::<$harness, cases::wait::$case>(&[])
    };
}

/// The table: a fault, the case that must reject it, the good adapter under it, and the words. And the case holds on the
/// same adapter in the wrapper without a fault.
macro_rules! table {
    ($($(#[$doc:meta])* $test:ident: $fault:ident $harness:ident, $($case:ident)::+, $words:expr;)*) => {
        mod faults {
            use super::*;

            $($(#[$doc])* #[test]
            fn $test() {
                rejected(|| check!(Mutated<$harness, $fault>, $($case)::+), &$words);
            })*
        }

        /// The wrapper is none of the faults.
        mod without_a_fault {
            use super::*;

            $(#[test]
            fn $test() {
                check!(Mutated<$harness, SOUND>, $($case)::+);
            })*
        }
    };
}

table! {
    a_clock_that_is_fast: FAST_CLOCK OnTiny, c::c_04_accepted_by_the_kernel_only, ["EARLY", "look at `Runtime::now`"];
    a_clock_that_stands_still: FROZEN_CLOCK OnTokio, c::c_04_accepted_by_the_kernel_only,
        ["the clock went on by 0ns", "Look at `Runtime::now`"];
    a_timer_that_is_early: EARLY_TIMER OnTokio, w_16_second_deadline_of_one_timer, ["expected", "EARLY"];
    a_timer_that_is_late: LATE_TIMER OnTiny, c::c_04_accepted_by_the_kernel_only, ["later than", "Look at `Timer::arm`"];
    a_timer_that_never_fires: LOST_TIMER OnTokio, c::c_04_accepted_by_the_kernel_only,
        ["a timer of 2ms", "Look at `Timer::poll_fired`"];
    a_timer_that_fires_once: SPENT_TIMER OnTiny, upstreams::c_18_retries_use_up_the_total,
        ["A deadline came, and the next one never did", "Look at `Timer::arm`"];
    a_reader_that_is_not_woken: LOST_READER OnTiny, client::k_14_client_gone_while_waiting,
        ["A task was not woken", "Look at `Stream::poll_read`"];
    a_writer_that_is_not_woken: LOST_WRITER OnTiny, r::r_12_slow_client_suspends,
        ["A task was not woken", "`Stream::poll_write_vectored`"];
    a_fin_that_is_not_sent: NO_FIN OnTiny, q::q_01_upstream_never_reads,
        ["expected client 0's connection ended by Fin", "Look at `Stream::poll_shutdown_write`"];
    a_fin_in_place_of_an_rst: FIN_FOR_RST OnTiny, q::q_05_client_stalls,
        ["expected upstream connection 0 ended by Rst; it was ended by Fin", "Look at `Stream::abort`"];
    an_rst_in_place_of_a_fin: RST_FOR_FIN OnTokio, client::k_05_idle_keep_alive,
        ["connection ended by Fin; it was ended by Rst", "at the drop of the `Stream`"];
    a_connect_that_outlives_its_future: OPEN_CONNECT OnTiny, c::c_01_hang,
        ["A connection attempt outlived its future", "the drop of `Runtime::Connect`"];
    /// The walk-through's adapter asks the kernel at every poll: there a cache does no harm.
    readiness_that_is_believed: CACHED_READINESS OnTokio, r::r_20_stale_readiness,
        ["what it waited for was in the kernel", "Look at `Stream::try_read`"];
    an_error_that_is_swallowed: SWALLOWED_ERROR OnTokio, answer::r_18_reset_in_the_body,
        ["UpstreamReset", "An error of a socket was taken for an end", "Look at `Stream::poll_read`"];
    a_close_that_is_left_to_the_executor: LATE_CLOSE OnTiny, hygiene::h_13_close_is_not_delayed_by_a_busy_executor,
        ["expected the end of upstream connection 0", "closed late", "Look at `Stream::abort`"];
    an_rst_that_is_forgotten_now_and_then: SOME_FIN OnTiny, hygiene::h_14_kernel_leftovers,
        ["ended by Rst; it was ended by Fin", "Look at `Stream::abort`"];
    a_connect_that_is_closed_a_turn_later: LATE_CONNECT OnTokio, c::c_15_fd_number_reused,
        ["expected a descriptor to be used again"];
    a_descriptor_that_is_kept_with_what_came: HALF_KEPT OnTokio, live::h_08_cancel_at_every_event,
        ["expected nothing left of (\"/half\""];
    timers_that_drift: DRIFTING_TIMER OnTokio, client::k_16_100_clients_stall_at_once,
        ["expected no drift with the position"];
    timers_that_leak: LEAKY_TIMER OnTokio, live::a_15_arm_cancel_churn, ["expected no growth"];
    a_task_that_is_left_behind: TASK_LEFT OnTokio, r::r_01_silent,
        ["connections: ", "A task outlived its end", "Look at `Spawn::spawn`"];
}

#[test]
fn a_case_that_is_skipped_does_not_run() {
    let skips = [("q_05_client_stalls", "an abort is not what this is about")];
    tidegate_conformance::check::<Mutated<OnTiny, FIN_FOR_RST>>(cases::q::q_05_client_stalls(), &skips);
    // Nobody could hold it; the executor is one thread.
    let never = Expect::new("what never holds", |_, _| Err("it does not".into()));
    tidegate_conformance::check::<Mutated<OnTiny, SOUND>>(
        Case::new("X-01", "needs threads").needs(Need::Threads).expect(never),
        &[],
    );
}
