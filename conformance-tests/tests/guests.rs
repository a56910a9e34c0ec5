//! Adapters inside a runtime that is not their own: those for smol and async-std work inside tokio, because their
//! reactor has a thread of its own; tokio's refuses at once, in words, where its runtime is not.

use std::future::Future;
use std::io;
use std::net::TcpListener;
use std::sync::{Mutex, MutexGuard, PoisonError};

use tidegate_async_std::AsyncStd;
use tidegate_conformance::{Harness, cases, check};
use tidegate_smol::Smol;
use tidegate_tokio::Tokio;

/// Sockets of this process are counted while a case runs.
static TURN: Mutex<()> = Mutex::new(());

fn turn() -> MutexGuard<'static, ()> {
    TURN.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A runtime of tokio's, which knows nothing of what runs in it.
fn in_tokio<F: Future>(main: F) -> F::Output {
    let runtime =
        tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a tokio runtime");
    runtime.block_on(main)
}

struct SmolInTokio;

impl Harness for SmolInTokio {
    type Runtime = Smol;
    type Listener = tidegate_smol::Listener;
    const NAME: &'static str = "smol inside tokio";

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Smol) -> F) -> T {
        in_tokio(async { main(Smol::new()).await })
    }

    fn listener(bound: TcpListener) -> io::Result<Self::Listener> {
        bound.try_into()
    }
}

struct AsyncStdInTokio;

impl Harness for AsyncStdInTokio {
    type Runtime = AsyncStd;
    type Listener = tidegate_async_std::Listener;
    const NAME: &'static str = "async-std inside tokio";

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(AsyncStd) -> F) -> T {
        in_tokio(async { main(AsyncStd::new()).await })
    }

    fn listener(bound: TcpListener) -> io::Result<Self::Listener> {
        bound.try_into()
    }
}

#[test]
fn a_11_smol_inside_tokio() {
    let _turn = turn();
    for (_, case) in cases::few() {
        check::<SmolInTokio>(case(), &[]);
    }
}

#[test]
fn a_11_async_std_inside_tokio() {
    let _turn = turn();
    for (_, case) in cases::few() {
        check::<AsyncStdInTokio>(case(), &[]);
    }
}

#[test]
fn a_11_tokio_inside_others_is_refused_at_construction() {
    let _turn = turn();
    async fn refused() {
        let error = Tokio::new().expect_err("there is no tokio runtime here");
        assert!(error.to_string().contains("must be used inside a tokio runtime"), "{error}");
        let bound = tidegate_core::runtime::bind(([127, 0, 0, 1], 0).into()).expect("a port");
        let error = tidegate_tokio::Listener::try_from(bound).expect_err("there is no tokio runtime here");
        assert!(error.to_string().contains("must be used inside a tokio runtime"), "{error}");
    }
    smol::block_on(refused());
    async_std::task::block_on(refused());
    futures::executor::block_on(refused());
}
