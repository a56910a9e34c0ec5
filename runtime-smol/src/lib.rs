//! Tidegate on smol: sockets and timers of async-io, and tasks on smol's executors.
//!
//! This crate decides nothing: no HTTP, no expiry, no retry. It lends what [`tidegate_core::runtime`]
//! asks for. async-io's reactor runs in a thread of its own when no smol executor drives it, so streams
//! and timers work on any executor, inside tokio too.
//!
//! Feature `executor` (default): [`Spawn`](tidegate_core::runtime::Spawn) on smol's global executor or on
//! one of the embedder's own. Without it the crate needs async-io alone.

mod awaited;
#[cfg(feature = "executor")]
mod executor;
mod net;

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};

use tidegate_core::Instant;
use tidegate_core::runtime::{self, Runtime};

pub use crate::net::{Connect, Listener, Stream};

/// Sockets and timers of async-io; `E` says where tasks are spawned.
///
/// [`Smol::new`] spawns on smol's global executor. `Smol::on` takes an executor of your own, and
/// `Smol::local` one of a single thread, whose tasks need not be `Send`.
///
/// A proxy that serves one request and is drained, and a wait of the application's own under a deadline:
///
/// ```
/// # #[cfg(feature = "executor")]
/// # fn main() -> std::io::Result<()> {
/// use std::time::Duration;
/// use smol::io::{AsyncReadExt, AsyncWriteExt};
/// use tidegate_core::{Config, Decision, Proxy, RequestHead, Scope, Upstreams};
/// use tidegate_smol::{Listener, Smol};
///
/// smol::block_on(async {
///     let proxy = Proxy::new(Smol::new(), Upstreams::default(), Config::default());
///     let listener = Listener::bind(([127, 0, 0, 1], 0).into())?;
///     let addr = listener.local_addr()?;
///     let route = |_: &RequestHead<'_>| Decision::respond(200, "well\n");
///     let server = smol::spawn(proxy.serve(listener, route, |_| {}));
///
///     let mut client = smol::net::TcpStream::connect(addr).await?;
///     client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
///     let mut response = String::new();
///     client.read_to_string(&mut response).await?;
///     assert!(response.ends_with("\r\n\r\nwell\n"));
///
///     proxy.drain();
///     server.await;
///     let stats = proxy.stats();
///     assert_eq!((stats.started, stats.completed, stats.response_bytes), (1, 1, 0));
///
///     let never = std::future::pending::<()>();
///     let wait = Scope::new(Smol::new()).wait_for(Duration::from_millis(10), |_| never);
///     assert_eq!(wait.await.unwrap_err().limit, Duration::from_millis(10));
///     Ok(())
/// })
/// # }
/// # #[cfg(not(feature = "executor"))]
/// # fn main() {}
/// ```
#[derive(Clone, Debug, Default)]
pub struct Smol<E = Global> {
    // Without the feature there is nobody to read it.
    #[cfg_attr(not(feature = "executor"), allow(dead_code))]
    executor: E,
}

/// smol's global executor: threads of its own, one unless `SMOL_THREADS` says otherwise.
#[derive(Copy, Clone, Debug, Default)]
pub struct Global;

impl Smol {
    /// Works anywhere: nothing needs to be running yet.
    pub fn new() -> Smol {
        Smol::default()
    }
}

impl<E> Runtime for Smol<E> {
    type Stream = Stream;
    type Connect = Connect;
    type Timer = Timer;

    fn now(&self) -> Instant {
        runtime::std_now()
    }

    fn timer(&self) -> Timer {
        Timer(async_io::Timer::never())
    }

    fn connect(&self, to: SocketAddr) -> Connect {
        Connect::new(to)
    }
}

/// A timer of async-io's. Once fired it is pending until it is armed again.
#[derive(Debug)]
pub struct Timer(async_io::Timer);

impl runtime::Timer for Timer {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        self.0.set_at(runtime::std_instant(at));
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut self.0).poll(cx).map(drop)
    }
}
