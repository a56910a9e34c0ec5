//! Tidegate on tokio: sockets, timers and tasks of the runtime that is current where [`Tokio::new`] is
//! called.
//!
//! This crate decides nothing: no HTTP, no expiry, no retry. It lends what [`tidegate_core::runtime`]
//! asks for. The clock and the timers are both tokio's, so that they agree when tokio's clock is paused;
//! FIN, RST and the direct reads are the kernel's, because tokio offers them differently or not at all.
//!
//! The runtime needs its I/O and time drivers (`enable_all`).

mod net;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::panic;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::time::Duration;

use pin_project_lite::pin_project;
use tidegate_core::Instant;
use tidegate_core::runtime::{self, Runtime, Spawn};
use tokio::runtime::Handle;
use tokio::time::{Instant as TokioInstant, Sleep};

pub use crate::net::{Connect, Listener, Stream};

/// A tokio runtime, by its handle. Cheap to clone; does not keep the runtime alive.
///
/// A proxy that serves one request and is drained, and a wait of the application's own under a deadline:
///
/// ```
/// use std::time::Duration;
/// use tidegate_core::{Config, Decision, Proxy, RequestHead, Scope, Upstreams};
/// use tidegate_tokio::{Listener, Tokio};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # fn main() -> std::io::Result<()> {
/// let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// runtime.block_on(async {
///     let proxy = Proxy::new(Tokio::new()?, Upstreams::default(), Config::default());
///     let listener = Listener::bind(([127, 0, 0, 1], 0).into())?;
///     let addr = listener.local_addr()?;
///     let route = |_: &RequestHead<'_>| Decision::respond(200, "well\n");
///     let server = tokio::spawn(proxy.serve(listener, route, |_| {}));
///
///     let mut client = tokio::net::TcpStream::connect(addr).await?;
///     client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
///     let mut response = String::new();
///     client.read_to_string(&mut response).await?;
///     assert!(response.ends_with("\r\n\r\nwell\n"));
///
///     proxy.drain();
///     server.await?;
///     let stats = proxy.stats();
///     assert_eq!((stats.started, stats.completed, stats.response_bytes), (1, 1, 0));
///
///     let never = std::future::pending::<()>();
///     let wait = Scope::new(Tokio::new()?).wait_for(Duration::from_millis(10), |_| never);
///     assert_eq!(wait.await.unwrap_err().limit, Duration::from_millis(10));
///     Ok(())
/// })
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct Tokio {
    handle: Handle,
}

impl Tokio {
    /// The runtime that is current on this thread.
    ///
    /// # Errors
    ///
    /// Outside a runtime, and in one whose I/O or time driver is off. tokio tells the latter by a panic
    /// alone, which is caught here, at once, rather than met in the middle of a request; the panic hook
    /// still prints it.
    pub fn new() -> io::Result<Tokio> {
        let handle = current()?;
        let probe = || {
            drop(tokio::time::sleep(Duration::ZERO));
            tokio::net::UnixDatagram::unbound().map(drop)
        };
        panic::catch_unwind(probe).map_err(|_| {
            io::Error::other("tidegate-tokio: this tokio runtime was built without enable_all()")
        })??;
        Ok(Tokio { handle })
    }
}

/// The current runtime, or an error that says how to get one.
fn current() -> io::Result<Handle> {
    Handle::try_current()
        .map_err(|e| io::Error::other(format!("tidegate-tokio must be used inside a tokio runtime: {e}")))
}

impl Runtime for Tokio {
    type Stream = Stream;
    type Connect = Connect;
    type Timer = Timer;

    fn now(&self) -> Instant {
        Instant::from_epoch(epoch().elapsed())
    }

    fn timer(&self) -> Timer {
        Timer { handle: self.handle.clone(), sleep: None }
    }

    fn connect(&self, to: SocketAddr) -> Connect {
        Connect::new(self.handle.clone(), to)
    }
}

impl<F: Future<Output = ()> + Send + 'static> Spawn<F> for Tokio {
    fn spawn(&self, task: F) {
        // Dropping the handle detaches the task; whoever spawned it ends it.
        drop(self.handle.spawn(task));
    }
}

pin_project! {
    /// A timer of tokio's, made when it is first armed. Rounds up to whole milliseconds, as tokio does.
    #[derive(Debug)]
    pub struct Timer {
        handle: Handle,
        #[pin]
        sleep: Option<Sleep>,
    }
}

impl runtime::Timer for Timer {
    fn arm(self: Pin<&mut Self>, at: Instant) {
        let mut this = self.project();
        let at = tokio_instant(at);
        match this.sleep.as_mut().as_pin_mut() {
            Some(sleep) => sleep.reset(at),
            None => {
                let _inside = this.handle.enter();
                this.sleep.set(Some(tokio::time::sleep_until(at)));
            }
        }
    }

    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.project().sleep.as_pin_mut() {
            // Asked first because a poll panics once the runtime is gone, and its timers have all fired.
            Some(sleep) if sleep.is_elapsed() => Poll::Ready(()),
            Some(sleep) => sleep.poll(cx),
            None => Poll::Pending,
        }
    }
}

/// The epoch of the standard clock: instants of several runtimes compare, also of those that are not tokio's, as long as no
/// clock is paused.
fn epoch() -> TokioInstant {
    static EPOCH: OnceLock<TokioInstant> = OnceLock::new();
    *EPOCH.get_or_init(|| {
        let now = TokioInstant::now();
        now.checked_sub(Duration::from_nanos(runtime::std_now().as_nanos())).unwrap_or(now)
    })
}

/// tokio's instant for one of ours; one that tokio cannot express becomes its own far future.
fn tokio_instant(at: Instant) -> TokioInstant {
    const FAR: Duration = Duration::from_secs(30 * 365 * 86_400);
    epoch().checked_add(Duration::from_nanos(at.as_nanos())).unwrap_or_else(|| TokioInstant::now() + FAR)
}
