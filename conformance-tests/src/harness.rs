//! What an adapter's author writes: [`Harness`], a few lines that say how the runtime is started.
//!
//! Test-only, and separate from [`Runtime`]: nothing of it is needed to *use* an adapter.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::pin::pin;
use std::sync::{Mutex, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tidegate_core::Instant;
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

    /// Makes the adapter where its runtime does not run, on a thread of another executor (the case A-11): it works
    /// there, or refuses there and then. `None` for one that is made of its executor and cannot be without.
    fn outside() -> Option<io::Result<Self::Runtime>> {
        None
    }
}

/// How long the first use of a runtime may take: a few milliseconds are waited for.
const WARM_UP: Duration = Duration::from_secs(5);

/// Uses everything of a harness once, so that what its runtime opens lazily and keeps is open before
/// anything is counted.
///
/// # Panics
///
/// If the runtime cannot wait: then no case could tell more.
#[track_caller]
pub(crate) fn warm_up<H: Harness>() {
    static WARM: Mutex<BTreeSet<&str>> = Mutex::new(BTreeSet::new());
    if !lock(&WARM).insert(H::NAME) {
        return;
    }
    let (done, warm) = mpsc::channel();
    let thread = thread::spawn(move || {
        let wrong = H::block_on(|runtime| async move {
            let bound = runtime::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).ok()?;
            let to = bound.local_addr().ok()?;
            let mut listener = H::listener(bound).ok()?;
            let connected = runtime.connect(to).await;
            let accepted = poll_fn(|cx| listener.poll_accept(cx)).await;
            let clocks = Clocks::read(&runtime);
            nap(&runtime, Duration::from_millis(2)).await;
            drop((connected, accepted));
            clocks.drift(&runtime)
        });
        let _ = done.send(wrong);
    });
    match warm.recv_timeout(WARM_UP) {
        Ok(None) => {}
        Ok(Some(wrong)) => panic!("{}: {wrong}", H::NAME),
        Err(mpsc::RecvTimeoutError::Disconnected) => {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        Err(mpsc::RecvTimeoutError::Timeout) => panic!(
            "{}: a connection to this machine and a timer of 2ms were not there after {WARM_UP:?}. Look at \
             `Timer::poll_fired` (it must register the waker of its last poll), at the future of `Runtime::connect` \
             and at `Listener::poll_accept` (they must register the context's waker)",
            H::NAME
        ),
    }
}

/// The runtime's clock beside the system's.
pub(crate) struct Clocks {
    /// Before and after theirs was read.
    ours: [std::time::Instant; 2],
    theirs: Instant,
}

impl Clocks {
    /// How coarse a clock may be.
    const COARSE: Duration = Duration::from_millis(20);

    pub(crate) fn read<R: Runtime>(runtime: &R) -> Clocks {
        let before = std::time::Instant::now();
        Clocks { theirs: runtime.now(), ours: [before, std::time::Instant::now()] }
    }

    /// The instant on the runtime's clock and the one on the system's that are the same: of several readings the one
    /// during which nobody was held up.
    pub(crate) fn together<R: Runtime>(runtime: &R) -> (Instant, std::time::Instant) {
        let readings = std::iter::repeat_with(|| Clocks::read(runtime)).take(8);
        let tightest = readings.min_by_key(|clocks| clocks.ours[1] - clocks.ours[0]);
        let Clocks { ours: [ours, _], theirs } = tightest.unwrap_or_else(|| Clocks::read(runtime));
        (theirs, ours)
    }

    /// What is wrong with how far the runtime's clock has gone since.
    pub(crate) fn drift<R: Runtime>(&self, runtime: &R) -> Option<String> {
        let now = Clocks::read(runtime);
        let passed = now.theirs.saturating_since(self.theirs);
        let (least, most) = (now.ours[0] - self.ours[1], now.ours[1] - self.ours[0]);
        let is_wrong = passed + Clocks::COARSE < least || most + Clocks::COARSE < passed;
        is_wrong.then(|| {
            format!(
                "the clock went on by {passed:?} while {least:?} passed. Look at `Runtime::now`: it must be the \
                 monotonic clock, with one epoch for the process"
            )
        })
    }
}

/// Waits, by the runtime's own clock and timer.
pub(crate) async fn sleep<R: Runtime>(runtime: &R, length: Duration) {
    let at = runtime.now() + length;
    let mut timer = pin!(runtime.timer());
    timer.as_mut().arm(at);
    poll_fn(|cx| {
        if runtime.now() >= at {
            return Poll::Ready(());
        }
        if timer.as_mut().poll_fired(cx).is_ready() {
            // Early. Others get their turn before it is asked again: the clock may stand still.
            timer.as_mut().arm(at);
            cx.waker().wake_by_ref();
        }
        Poll::Pending
    })
    .await;
}

/// As [`sleep`], but no longer than the system's clock says, if anything wakes.
pub(crate) async fn nap<R: Runtime>(runtime: &R, length: Duration) {
    const STUCK: Duration = Duration::from_secs(1);
    let began = std::time::Instant::now();
    let mut sleep = pin!(sleep(runtime, length));
    poll_fn(|cx| if began.elapsed() > length + STUCK { Poll::Ready(()) } else { sleep.as_mut().poll(cx) })
        .await;
}
