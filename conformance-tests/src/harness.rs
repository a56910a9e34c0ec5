//! What an adapter's author writes: [`Harness`], a few lines that say how the runtime is started.
//!
//! Test-only, and separate from [`Runtime`]: nothing of it is needed to *use* an adapter.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::Mutex;
use std::task::Poll;
use std::time::Duration;

use tidegate_core::runtime::{self, Listener, Runtime, Spawn, Timer};

use crate::attempt::Need;
use crate::board::lock;
use crate::counted::CountedConnection;

/// The client's stream of a harness.
pub type ClientStream<H> = <<H as Harness>::Listener as Listener>::Stream;

/// How to start and end a runtime.
///
/// The suite calls [`Harness::block_on`] once a case, on a thread of its own, and everything that the
/// adapter does happens inside.
pub trait Harness: 'static {
    /// The adapter. It spawns the proxy's connections; on a work-stealing runtime these must be `Send`,
    /// which the compiler finds out.
    type Runtime: Runtime + Clone + 'static + Spawn<CountedConnection<Self::Runtime, ClientStream<Self>>>;

    /// The adapter's listener.
    type Listener: Listener + 'static;

    /// How it is called in messages, such as `tokio, current thread`.
    const NAME: &'static str;

    /// What a reader of the report ought to know about timeouts on this runtime, a sentence each.
    const NOTES: &'static [&'static str] = &[];

    /// What the runtime lacks that some cases need, with the reason. Those cases are skipped, and the report says
    /// why.
    const LACKS: &'static [(Need, &'static str)] = &[];

    /// Starts the runtime, runs the future that `main` makes to its end on the calling thread, and ends
    /// the runtime if it can be ended.
    fn block_on<F, T>(main: impl FnOnce(Self::Runtime) -> F) -> T
    where
        F: Future<Output = T>;

    /// Makes the adapter's listener from a bound, nonblocking one. Called inside [`Harness::block_on`].
    ///
    /// # Errors
    ///
    /// What the adapter reports.
    fn listener(bound: TcpListener) -> io::Result<Self::Listener>;
}

/// Uses everything of a harness once, so that what its runtime opens lazily and keeps is open before
/// anything is counted.
pub(crate) fn warm_up<H: Harness>() {
    static WARM: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    if !lock(&WARM).insert(H::NAME) {
        return;
    }
    H::block_on(|runtime| async move {
        let Ok(bound) = runtime::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))) else { return };
        let Ok(to) = bound.local_addr() else { return };
        let Ok(mut listener) = H::listener(bound) else { return };
        let connected = runtime.connect(to).await;
        let accepted = poll_fn(|cx| listener.poll_accept(cx)).await;
        sleep(&runtime, Duration::from_millis(2)).await;
        drop((connected, accepted));
    });
}

/// Waits, by the runtime's own clock and timer.
pub(crate) async fn sleep<R: Runtime>(runtime: &R, length: Duration) {
    let at = runtime.now() + length;
    let mut timer = pin!(runtime.timer());
    timer.as_mut().arm(at);
    poll_fn(|cx| {
        loop {
            if runtime.now() >= at {
                return Poll::Ready(());
            }
            if timer.as_mut().poll_fired(cx).is_pending() {
                return Poll::Pending;
            }
            timer.as_mut().arm(at);
        }
    })
    .await;
}
