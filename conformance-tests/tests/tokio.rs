//! The suite on tokio, with one thread and with several.

use std::future::Future;
use std::io;
use std::net::TcpListener;

use tidegate_conformance::{Harness, Need};
use tidegate_tokio::{Listener, Tokio};
use tokio::runtime::{Builder, Runtime};

fn run<F: Future>(runtime: io::Result<Runtime>, main: impl FnOnce(Tokio) -> F) -> F::Output {
    let runtime = runtime.expect("a tokio runtime");
    runtime.block_on(async { main(Tokio::new().expect("inside a runtime")).await })
}

struct CurrentThread;

impl Harness for CurrentThread {
    type Runtime = Tokio;
    type Listener = Listener;
    const NAME: &'static str = "tokio, current thread";
    const NOTES: &'static [&'static str] = &[
        "The crate `tidegate-tokio`.",
        "Timers tick in milliseconds and are rounded up, so a deadline is a millisecond later than elsewhere.",
        "Dropping the runtime drops every connection.",
    ];
    const LACKS: &'static [(Need, &'static str)] = &[(Need::Threads, "the runtime is one thread")];

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Tokio) -> F) -> T {
        run(Builder::new_current_thread().enable_all().build(), main)
    }

    fn listener(bound: TcpListener) -> io::Result<Listener> {
        bound.try_into()
    }

    fn outside() -> Option<io::Result<Tokio>> {
        Some(Tokio::new())
    }
}

struct MultiThread;

impl Harness for MultiThread {
    type Runtime = Tokio;
    type Listener = Listener;
    const NAME: &'static str = "tokio, two threads";
    const NOTES: &'static [&'static str] = &[
        "The same crate.",
        "Timers tick in milliseconds, as with one thread.",
        "Connections move between the threads; they and the embedder's hooks are `Send`.",
    ];

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Tokio) -> F) -> T {
        run(Builder::new_multi_thread().worker_threads(2).enable_all().build(), main)
    }

    fn listener(bound: TcpListener) -> io::Result<Listener> {
        bound.try_into()
    }

    fn outside() -> Option<io::Result<Tokio>> {
        Some(Tokio::new())
    }
}

mod current_thread {
    tidegate_conformance::suite!(super::CurrentThread);
}

mod multi_thread {
    tidegate_conformance::suite!(super::MultiThread);
}

/// A live case that nothing can fail shows nothing.
#[test]
fn every_live_case_can_fail() {
    for (name, case) in tidegate_conformance::cases::all_live::<CurrentThread>() {
        let wrong = tidegate_conformance::run_live::<CurrentThread>(case, true);
        assert!(!wrong.is_empty(), "{name} holds although it ought not to");
    }
}
