//! The suite on smol, with its global executor and with a local one.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::rc::{Rc, Weak};

use smol::LocalExecutor;
use tidegate_conformance::Harness;
use tidegate_smol::{Listener, Smol};

struct Global;

impl Harness for Global {
    type Runtime = Smol;
    type Listener = Listener;
    const NAME: &'static str = "smol, global executor";

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Smol) -> F) -> T {
        smol::block_on(main(Smol::new()))
    }

    fn listener(bound: TcpListener) -> io::Result<Listener> {
        bound.try_into()
    }
}

struct Local;

impl Harness for Local {
    type Runtime = Smol<Weak<LocalExecutor<'static>>>;
    type Listener = Listener;
    const NAME: &'static str = "smol, local executor";

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
