//! The conformance suite of Tidegate: does a timeout cancel the same way on *your* runtime adapter?
//!
//! # Running it on an adapter
//!
//! Write a [`Harness`], a few lines that say how your runtime is started, and call [`suite!`] in a test
//! target of its own (the suite counts the sockets of the process):
//!
//! ```ignore
//! struct MyRuntime;
//!
//! impl tidegate_conformance::Harness for MyRuntime {
//!     type Runtime = my_adapter::Adapter;
//!     type Listener = my_adapter::Listener;
//!     const NAME: &'static str = "my runtime";
//!
//!     fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Self::Runtime) -> F) -> T {
//!         my_runtime::block_on(async { main(my_adapter::Adapter::new()).await })
//!     }
//!
//!     fn listener(bound: std::net::TcpListener) -> std::io::Result<Self::Listener> {
//!         bound.try_into()
//!     }
//! }
//!
//! tidegate_conformance::suite!(MyRuntime);
//! ```
//!
//! That makes one `#[test]` for each case, named after its id and what it shows, such as
//! `r_05_stall_in_a_content_length_body`. The letter of an id is its group, under which `CONFORMANCE.md` lists it.
//!
//! # What a case does
//!
//! A [`Case`](script::Case) is data: scripts of the clients and of the upstream, limits, and
//! expectations. It runs twice. First everything runs in **virtual time**, the proxy on a simulated
//! runtime ([`virtual_rt`]): that run is exact, repeatable, and the oracle. Then the proxy runs on the
//! adapter under test, and the same scripts run on plain `std::net` sockets in threads of their own, so
//! that a broken adapter cannot hide at both ends. Then
//!
//! - the expectations must hold in both runs;
//! - outcomes (in the order in which the requests began), timeout kinds, messages, and FIN or RST for each connection must
//!   be equal; bytes must be equal where a message is complete, and a verified prefix otherwise;
//! - what a deadline ends must end in `[limit, limit + slack)`. Early is always a failure. The slack is
//!   [`SLACK`](expect::SLACK), or [`SLACK_CI`](expect::SLACK_CI) if the environment variable `CI` is
//!   set, plus what the machine was late itself while the case ran: threads without any runtime measure it, and the
//!   system says how long the threads of the case waited for a core;
//! - sockets, spawned tasks, timers, wakers of tasks that are over, granted upstreams, places in the queue and idle
//!   upstream connections must be back where they were, while the proxy still runs and after it was stopped.
//!
//! Some orders of events no kernel can be made to produce. Such a case runs in **exact time**
//! ([`Exact`]): on the simulated runtime alone, but polled by the executor under test, where everything that
//! happens must be equal to what happens without it.
//!
//! A failure says what was expected, what happened, which trait method to look at first, and shows both runs.
//!
//! # Side by side, one at a time, alone
//!
//! Cases run one at a time within a process and within a runtime; several runtimes run side by side in processes of
//! their own, also where one test program has several suites: then each gets a process, started by the first test, and the
//! tests wait for what comes of theirs. A case that blocks a thread, floods, or weighs memory runs while no other case does
//! on this machine ([`Case::alone`](script::Case::alone)): two files in the directory for temporary files are locked for
//! that, so it holds under `cargo test`, under runners that give each test a process, and for the report.
//!
//! A run that fails on a machine that held somebody up for more than 50 ms in all, or that dropped packets meanwhile, is
//! repeated, five times at most; so is one of which all that is wrong is that something was late, if somebody was held up for more than 15 ms
//! at once. Not so what no machine explains: what came early, other bytes than were sent, or what is left. A case that was
//! repeated, which it is with the machine to itself, must hold twice. The report lists each repetition with what
//! was missed. A fault that shows only now and then, and only on a busy machine, can hide behind one: if a case comes again and
//! again in that list, look for it.
//!
//! # The report
//!
//! `conformance report` (a program of this crate) runs every [`suite!`] of a package side by side and writes
//! `CONFORMANCE.md`, which can be read alone, and JUnit; with `--check` it compares instead. What the tests tell it is a line
//! of JSON for each case, in the directory that the environment variable [`RESULTS`] names. `workflow.yml` beside this
//! crate's manifest is a workflow for GitHub to copy.
//!
//! `docs/ADAPTER.md` in the repository writes an adapter from nothing.
//!
#![doc = include_str!("elsewhere.md")]
//!
//! # Parts
//!
//! | module | what it is |
//! | --- | --- |
//! | [`script`] | the language of scripts and cases |
//! | [`cases`] | the catalogue |
//! | [`expect`] | what must hold |
//! | [`transcript`], [`recorder`] | what happened, comparable |
//! | [`virtual_rt`] | the simulated runtime and its network |
//! | [`gauges`] | sockets and kernel rows of this process (Linux) |
//! | [`Harness`], [`suite!`] | what an adapter's author uses |
//!
//! # Stability
//!
//! 0.x: cases are added and tightened in any release, so an adapter that passes one may fail the next.
//! [`Harness`], [`suite!`], [`Need`], the options of `conformance report` and the lines that the tests write change only with
//! the minor version; everything else is public for those who write cases of their own, and may change as the
//! catalogue needs it.

mod abroad;
mod attempt;
mod beside;
mod board;
pub mod cases;
mod child;
mod command;
mod counted;
mod cut;
mod diag;
mod exec;
pub mod expect;
pub mod gauges;
mod harness;
mod hint;
pub mod hostile;
mod interp;
pub mod machine;
mod migrate;
mod names;
mod pattern;
mod peers;
pub mod recorder;
pub mod reference;
mod replay;
mod run_fake;
mod run_live;
mod run_real;
mod run_virtual;
mod run_wait;
pub mod script;
pub mod sim;
mod steps;
pub mod trace;
pub mod transcript;
mod verdict;
mod virtual_peers;
pub mod virtual_rt;
mod watch;
mod wrap;

#[doc(hidden)]
pub use crate::abroad::{Abroad, At, Home, check_abroad};
pub use crate::attempt::{Need, RESULTS, Skips};
pub use crate::counted::{Counted, CountedConnection, CountedTask, CountedTimer};
pub use crate::cut::Cut;
pub use crate::harness::{ClientStream, Harness};
pub use crate::migrate::{Hopping, Migrating};
pub use crate::run_fake::{Exact, ExactCase, ExactRun, check_exact, check_exact_virtual, run_exact};
pub use crate::run_live::{Live, LiveCase, check_live, run_live};
pub use crate::run_virtual::{Observe, Route, run_cut, run_virtual};
pub use crate::run_wait::{WaitRun, check_wait, check_wait_virtual, wait_can_fail};
pub use crate::verdict::{check, check_virtual, judge_virtual};

/// Makes a `#[test]` for every case, on the runtime of a [`Harness`].
///
/// Several runtimes in one test target go into modules of their own; each of them then runs in a process of its own, all
/// of them side by side.
///
/// A case that cannot hold on a runtime is skipped with a reason, which is printed by its test and shown by the
/// report:
///
/// ```ignore
/// tidegate_conformance::suite!(MyRuntime, skip: {
///     a_11_wrong_runtime: "one process has one runtime",
/// });
/// ```
///
/// A name that is no case's, and a reason that is empty, do not compile. What a runtime lacks as a whole, such as
/// threads, is said once, in [`Harness::LACKS`].
#[macro_export]
macro_rules! suite {
    ($harness:ty) => {
        $crate::suite! { $harness, skip: {} }
    };
    ($harness:ty, skip: { $($name:ident: $reason:literal),* $(,)? }) => {
        $(
            const _: () = {
                assert!(
                    $crate::__is_case(stringify!($name)),
                    concat!("there is no case called ", stringify!($name))
                );
                assert!(!$reason.is_empty(), concat!("why is ", stringify!($name), " skipped?"));
            };
        )*
        $crate::__for_each_case! { __suite_tests $harness, [$((stringify!($name), $reason)),*] }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __suite_tests {
    ([$harness:ty, $skip:tt] [$($module:ident :: $name:ident)*] [$($wait:ident)*]
     [$($place:ident :: $exact:ident)*] [$($live:ident)*] [$($abroad:ident)*]) => {
        $(
            #[test]
            fn $name() {
                if $crate::__ran(module_path!(), stringify!($name)) {
                    return;
                }
                $crate::check::<$harness>($crate::cases::$module::$name(), &$skip);
            }
        )*
        $(
            #[test]
            fn $wait() {
                if $crate::__ran(module_path!(), stringify!($wait)) {
                    return;
                }
                $crate::check_wait::<$harness, $crate::cases::wait::$wait>(&$skip);
            }
        )*
        $(
            #[test]
            fn $exact() {
                if $crate::__ran(module_path!(), stringify!($exact)) {
                    return;
                }
                let case: $crate::ExactCase = |exact| ::std::boxed::Box::pin($crate::cases::$place::$exact(exact));
                $crate::check_exact::<$harness>(stringify!($exact), case, &$skip);
            }
        )*
        $(
            #[test]
            fn $live() {
                if $crate::__ran(module_path!(), stringify!($live)) {
                    return;
                }
                $crate::check_live::<$harness>(
                    stringify!($live),
                    module_path!(),
                    $crate::cases::live::$live::<$harness>,
                    &$skip,
                );
            }
        )*
        $(
            #[test]
            fn $abroad() {
                // What a harness cannot have is found where it can.
                #[allow(unused_imports)]
                use $crate::Home as _;
                if $crate::__ran(module_path!(), stringify!($abroad)) {
                    return;
                }
                let case = $crate::At::<$harness>::harness().$abroad();
                $crate::check_abroad::<$harness>(stringify!($abroad), &case, &$skip);
            }
        )*
    };
}

/// Whether the case of this test ran in another process (`beside.rs`).
#[doc(hidden)]
#[track_caller]
pub fn __ran(module: &str, case: &str) -> bool {
    beside::ran(module, case)
}

#[doc(hidden)]
pub const fn __is_case(name: &str) -> bool {
    let mut i = 0;
    while i < cases::NAMES.len() {
        if is_same(cases::NAMES[i].as_bytes(), name.as_bytes()) {
            return true;
        }
        i += 1;
    }
    false
}

/// `==`, which is not for constants yet.
const fn is_same(a: &[u8], b: &[u8]) -> bool {
    let mut i = 0;
    while i < a.len() && i < b.len() && a[i] == b[i] {
        i += 1;
    }
    i == a.len() && i == b.len()
}

/// Makes a module with a `#[test]` for every case, in virtual time alone.
#[macro_export]
macro_rules! virtual_suite {
    () => {
        mod in_virtual_time {
            $crate::__for_each_case! { __virtual_tests }
        }
    };
}

/// The module that [`virtual_suite!`] makes.
#[doc(hidden)]
pub const VIRTUAL: &str = "in_virtual_time";

#[doc(hidden)]
#[macro_export]
macro_rules! __virtual_tests {
    ([] [$($module:ident :: $name:ident)*] [$($wait:ident)*]
     [$($place:ident :: $exact:ident)*] [$($live:ident)*] [$($abroad:ident)*]) => {
        $(
            #[test]
            fn $name() {
                $crate::check_virtual(&$crate::cases::$module::$name());
            }
        )*
        $(
            #[test]
            fn $wait() {
                $crate::check_wait_virtual::<$crate::cases::wait::$wait>();
            }
        )*
        $(
            #[test]
            fn $exact() {
                let case: $crate::ExactCase = |exact| ::std::boxed::Box::pin($crate::cases::$place::$exact(exact));
                $crate::check_exact_virtual(stringify!($exact), case);
            }
        )*
    };
}

#[cfg(test)]
mod tests {
    #[test]
    fn a_name_is_a_cases_only_as_a_whole() {
        assert!(super::__is_case("c_01_hang"));
        assert!(!super::__is_case("c_01_han") && !super::__is_case("c_01_hangs") && !super::__is_case(""));
    }
}
