//! The suite on async-std.

use std::future::Future;
use std::io;
use std::net::TcpListener;

use tidegate_async_std::{AsyncStd, Listener};
use tidegate_conformance::Harness;

struct Global;

impl Harness for Global {
    type Runtime = AsyncStd;
    type Listener = Listener;
    const NAME: &'static str = "async-std";
    const NOTES: &'static [&'static str] = &[
        "The crate `tidegate-async-std`.",
        "Its project is discontinued; it runs on the parts of smol, and behaves as smol does.",
        "A thread for each core. Tasks go on after `block_on` has returned.",
    ];

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(AsyncStd) -> F) -> T {
        async_std::task::block_on(main(AsyncStd::new()))
    }

    fn listener(bound: TcpListener) -> io::Result<Listener> {
        bound.try_into()
    }

    fn outside() -> Option<io::Result<AsyncStd>> {
        Some(Ok(AsyncStd::new()))
    }
}

tidegate_conformance::suite!(Global);
