//! Tidegate on async-std. **Legacy**: async-std is discontinued (RUSTSEC-2025-0052); this crate is for
//! programs that still run on it. New ones should take `tidegate-smol`.
//!
//! async-std runs on async-io's reactor, as smol does, so the streams, listeners and timers are those of
//! `tidegate-smol`; the tasks are async-std's. Nothing else belongs here.

use std::future::Future;
use std::io;
use std::net::SocketAddr;

use tidegate_core::Instant;
use tidegate_core::runtime::{Runtime, Spawn};
use tidegate_smol::Smol;

pub use tidegate_smol::{Connect, Listener, Stream, Timer};

/// async-std: sockets and timers of async-io, tasks on async-std's own threads.
#[derive(Clone, Debug, Default)]
pub struct AsyncStd {
    io: Smol,
}

impl AsyncStd {
    /// Works anywhere: nothing needs to be running yet.
    pub fn new() -> AsyncStd {
        AsyncStd::default()
    }
}

impl Runtime for AsyncStd {
    type Stream = Stream;
    type Connect = Connect;
    type Timer = Timer;

    fn now(&self) -> Instant {
        self.io.now()
    }

    fn timer(&self) -> Timer {
        self.io.timer()
    }

    fn connect(&self, to: SocketAddr) -> Connect {
        self.io.connect(to)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Spawn<F> for AsyncStd {
    fn spawn(&self, task: F) {
        // Dropping the handle detaches the task; whoever spawned it ends it.
        drop(async_std::task::spawn(task));
    }
}

/// Takes over a stream of async-std's.
///
/// # Errors
///
/// Fails while a clone of `stream` is alive: two owners could not both decide when the socket closes.
pub fn stream(stream: async_std::net::TcpStream) -> io::Result<Stream> {
    std::net::TcpStream::try_from(stream)?.try_into()
}
