//! The adapter's promises on async-io's own `block_on`, without an executor.

#[path = "../../runtime-tokio/tests/shared/mod.rs"]
mod shared;

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tidegate_smol::{Listener, Smol};

fn run<F: Future>(test: impl FnOnce(Smol) -> F) -> F::Output {
    async_io::block_on(test(Smol::new()))
}

fn bind(addr: SocketAddr) -> io::Result<(Listener, SocketAddr)> {
    let listener = Listener::bind(addr)?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

adapter_tests!(run, bind);
