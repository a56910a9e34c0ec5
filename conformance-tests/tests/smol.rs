//! The suite on smol, with its global executor and with a local one.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::rc::{Rc, Weak};

use smol::LocalExecutor;
use tidegate_conformance::{Harness, Need};
use tidegate_smol::{Listener, Smol};

struct Global;

impl Harness for Global {
    type Runtime = Smol;
    type Listener = Listener;
    const NAME: &'static str = "smol, global executor";
    const NOTES: &'static [&'static str] = &[
        "The crate `tidegate-smol`.",
        "Timers are as exact as the kernel's.",
        "Tasks go on after `block_on` has returned: the end of a server is `stop()`, a drain, or dropping its future, never \
         the end of `main`'s future.",
        "One thread unless `SMOL_THREADS` says otherwise: who blocks it delays every deadline.",
    ];
    const LACKS: &'static [(Need, &'static str)] =
        &[(Need::Threads, "the global executor is one thread unless SMOL_THREADS is set")];

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Smol) -> F) -> T {
        smol::block_on(main(Smol::new()))
    }

    fn listener(bound: TcpListener) -> io::Result<Listener> {
        bound.try_into()
    }

    fn outside() -> Option<io::Result<Smol>> {
        Some(Ok(Smol::new()))
    }
}

struct Local;

impl Harness for Local {
    type Runtime = Smol<Weak<LocalExecutor<'static>>>;
    type Listener = Listener;
    const NAME: &'static str = "smol, local executor";
    const NOTES: &'static [&'static str] = &[
        "The same crate.",
        "Connections stay on one thread; hooks need not be `Send`.",
        "Dropping the executor drops every connection.",
    ];
    const LACKS: &'static [(Need, &'static str)] = &[(Need::Threads, "a local executor is one thread")];

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Self::Runtime) -> F) -> T {
        let executor = Rc::new(LocalExecutor::new());
        smol::block_on(executor.run(main(Smol::local(&executor))))
    }

    fn listener(bound: TcpListener) -> io::Result<Listener> {
        bound.try_into()
    }
}

mod global {
    tidegate_conformance::suite!(super::Global);
}

mod local {
    tidegate_conformance::suite!(super::Local);
}
