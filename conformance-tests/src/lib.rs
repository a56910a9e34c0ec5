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
//! That makes one `#[test]` for each case, named after its id in `timeouts.md` section 4 and what it
//! shows, such as `r_05_stall_in_a_content_length_body`.
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
//! - outcomes, timeout kinds, messages, and FIN or RST for each connection must be equal; bytes must be
//!   equal where a message is complete, and a verified prefix otherwise;
//! - what a deadline ends must end in `[limit, limit + slack)`. Early is always a failure. The slack is
//!   [`SLACK`](expect::SLACK), or [`SLACK_CI`](expect::SLACK_CI) if the environment variable `CI` is
//!   set, plus what the machine was late itself while the case ran, which a thread without any runtime
//!   measures;
//! - sockets, spawned tasks, timers, wakers of tasks that are over, granted upstreams, places in the queue and idle
//!   upstream connections must be back where they were, while the proxy still runs and after it was stopped.
//!
//! Some orders of events no kernel can be made to produce. Such a case runs in **exact time**
//! ([`Exact`]): on the simulated runtime alone, but polled by the executor under test, where everything that
//! happens must be equal to what happens without it.
//!
//! Cases run one at a time within a process. A failure says what was expected, what happened, and shows
//! both runs.
//!
//! # What is shown elsewhere, and what does not apply
//!
//! | id | why it is not a case here, or not all of it |
//! | --- | --- |
//! | W-02 | [`Scope::wait_for`](tidegate_core::Scope::wait_for) takes a closure, so there is no result that could be there before it starts; zero starts nothing (W-01). What needs no waiting succeeds in the proxy: this case, and C-09 |
//! | W-03, W-14, W-15 | the primitive's limit cannot be moved. W-03 is a drain whose deadline has passed when it begins; W-14 is the timers of the adapter; W-15 polls what has ended again |
//! | W-11 | cancelling is dropping, or `Proxy::stop`: a case for each |
//! | W-13 | requests share no connect, so there is nothing to shield: the case shows one connect each |
//! | W-18 | Rust lets nobody end a future that is lent by reference (`\|_\| &mut work`): it is stopped, and its owner keeps it. The case shows both |
//! | K-06 | the catalogue says "= Q-05"; here it is the chunked one |
//! | P-05, P-10, T-10 to T-12, T-15 | longer intervals than the catalogue's, for busy machines |
//! | P-10 | one order on real sockets, all orders in exact time; and exhaustively beside `Admission` in the core |
//! | P-12 | decided as "closed" |
//! | H-01 | a deadline that ends nothing of the upstream's, such as linger, is told from the gauges after every case |
//! | H-02, H-03, H-04, H-05 | besides their own cases, the gauges after every case: tasks, armed timers, wakers |
//! | V-01 | the virtual run of every script is the oracle of the real ones, and is compared with itself; there are no files |
//! | V-04 | = T-19 |
//! | V-11 | `tests/reference.rs`: ten thousand random traces of the machine against `reference`, which no runtime takes part in |
//! | V-13 | not recorded; the real run of every script is compared with its virtual one instead |
//! | A-09 | tokio with two threads runs every case; there is no executor here that moves a task at each poll |
//! | A-10 | the adapters' own tests (`runtime-tokio/tests/adapter.rs`), since each refuses in its own words |
//! | A-11 | tokio's refusal outside its runtime is A-10's; an adapter of one runtime inside another is not tried |
//! | A-16 | the driver reads the clock after each operation that completed (`docs/ARCHITECTURE.md`); the case shows that any jump between two readings gives one outcome and nothing early |
//! | A-20 | not yet: a process that is stopped from outside |
//!
//! The catalogue's V rows of these groups, which run in exact time (`cases/exact.rs`): W-09, C-12, C-13, Q-12, T-14, T-19,
//! P-10, P-12, P-14; and of the others H-07, V-02, V-03, V-05 to V-10, V-12, V-14, A-16. Those that a blocked thread brings about on real sockets run there: W-07, W-11, R-16.
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
//! [`Harness`] and [`suite!`] change only with the minor version; everything else is public for those who
//! write cases of their own, and may change as the catalogue needs it.

mod board;
pub mod cases;
mod command;
mod counted;
mod exec;
pub mod expect;
pub mod gauges;
mod harness;
pub mod hostile;
mod interp;
pub mod machine;
mod names;
mod pattern;
mod peers;
pub mod recorder;
pub mod reference;
mod run_fake;
mod run_live;
mod run_real;
mod run_virtual;
mod run_wait;
pub mod script;
pub mod sim;
pub mod transcript;
mod verdict;
mod virtual_peers;
pub mod virtual_rt;
mod wrap;

pub use crate::counted::{Counted, CountedConnection, CountedTask, CountedTimer};
pub use crate::harness::{ClientStream, Harness};
pub use crate::run_fake::{Exact, ExactCase, ExactRun, check_exact, check_exact_virtual, run_exact};
pub use crate::run_live::{Live, LiveCase, check_live, run_live};
pub use crate::run_virtual::{Observe, Route, run_virtual};
pub use crate::run_wait::{WaitRun, check_wait, check_wait_virtual, wait_can_fail};
pub use crate::verdict::{check, check_virtual, judge_virtual};

/// Makes a `#[test]` for every case, on the runtime of a [`Harness`].
///
/// Several runtimes in one test target go into modules of their own.
#[macro_export]
macro_rules! suite {
    ($harness:ty) => {
        $crate::__for_each_case! { __suite_tests $harness }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __suite_tests {
    ([$harness:ty] [$($module:ident :: $name:ident)*] [$($wait:ident)*]
     [$($place:ident :: $exact:ident)*] [$($live:ident)*]) => {
        $(
            #[test]
            fn $name() {
                $crate::check::<$harness>($crate::cases::$module::$name());
            }
        )*
        $(
            #[test]
            fn $wait() {
                $crate::check_wait::<$harness, $crate::cases::wait::$wait>();
            }
        )*
        $(
            #[test]
            fn $exact() {
                let case: $crate::ExactCase = |exact| ::std::boxed::Box::pin($crate::cases::$place::$exact(exact));
                $crate::check_exact::<$harness>(stringify!($exact), case);
            }
        )*
        $(
            #[test]
            fn $live() {
                $crate::check_live::<$harness>(stringify!($live), $crate::cases::live::$live::<$harness>);
            }
        )*
    };
}

/// Makes a `#[test]` for every case, in virtual time alone.
#[macro_export]
macro_rules! virtual_suite {
    () => {
        $crate::__for_each_case! { __virtual_tests }
    };
}

#[doc(hidden)]
#[macro_export]
macro_rules! __virtual_tests {
    ([] [$($module:ident :: $name:ident)*] [$($wait:ident)*]
     [$($place:ident :: $exact:ident)*] [$($live:ident)*]) => {
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
