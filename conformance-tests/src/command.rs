//! What the owner of a proxy does to it in a case: drain it, drop its server, or stop it, which comes from another
//! thread while the proxy's own may be blocked, or from inside a connection's task. The same in both worlds; it
//! decides nothing about when.

use std::convert::Infallible;
use std::future::{Future, Pending, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_core::runtime::{Runtime, Stream, Timer};
use tidegate_core::{Gauges, Instant, Proxy, Stats};

use crate::board::Board;
use crate::script::{Command, SERVER_ENDED};

/// Runs a server and does to it what `commands` say. Ends with the server.
pub(crate) async fn govern<R: Runtime>(
    proxy: Proxy<R>,
    server: impl Future<Output = ()>,
    commands: Vec<(&'static str, Command)>,
    board: Arc<Board>,
    now: impl Fn() -> Duration,
) {
    // A stop needs no clock, so it can come from any thread, at any moment.
    let (stops, mut others): (Vec<_>, Vec<_>) =
        commands.into_iter().partition(|(_, command)| *command == Command::Stop);
    for (event, _) in stops {
        let handle = Handle::of(&proxy);
        board.react(event, Box::new(move || handle.stop()));
    }
    let mut server = Some(Box::pin(server));
    poll_fn(|cx| {
        if !others.is_empty() {
            board.watch(cx.waker());
        }
        others.retain(|(event, command)| {
            let happens = board.marked(event).is_some();
            match command {
                Command::Drain if happens => proxy.drain(),
                Command::Drop if happens => server = None,
                _ => {}
            }
            !happens
        });
        match &mut server {
            Some(server) => server.as_mut().poll(cx),
            None => Poll::Ready(()),
        }
    })
    .await;
    drop(server);
    board.mark(SERVER_ENDED, now());
}

/// A proxy's lifecycle, in other hands than its server's: a proxy on no runtime can be sent anywhere.
pub(crate) struct Handle(Proxy<Nowhere>);

impl Handle {
    /// A handle that any thread may hold.
    pub(crate) fn of<R: Runtime>(proxy: &Proxy<R>) -> Handle {
        Handle(proxy.on(Nowhere))
    }

    /// What the proxy holds; idle connections are not among it.
    pub(crate) fn gauges(&self) -> Gauges {
        self.0.gauges()
    }

    /// What it has done, on all its instances.
    pub(crate) fn stats(&self) -> Stats {
        self.0.stats()
    }

    pub(crate) fn stop(&self) {
        self.0.stop();
    }
}

/// A runtime on which nothing runs.
struct Nowhere;

impl Runtime for Nowhere {
    type Stream = NoStream;
    type Connect = Pending<io::Result<NoStream>>;
    type Timer = NoTimer;

    fn now(&self) -> Instant {
        Instant::EPOCH
    }

    fn timer(&self) -> NoTimer {
        NoTimer
    }

    fn connect(&self, _: SocketAddr) -> Self::Connect {
        std::future::pending()
    }
}

struct NoTimer;

impl Timer for NoTimer {
    fn arm(self: Pin<&mut Self>, _: Instant) {}

    fn poll_fired(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }
}

struct NoStream(Infallible);

impl Stream for NoStream {
    fn poll_read(&mut self, _: &mut Context<'_>, _: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_write_vectored(&mut self, _: &mut Context<'_>, _: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.0 {}
    }

    fn poll_shutdown_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.0 {}
    }

    fn abort(self) {
        match self.0 {}
    }

    fn try_read(&mut self, _: &mut [u8]) -> io::Result<usize> {
        match self.0 {}
    }

    fn try_write_vectored(&mut self, _: &[IoSlice<'_>]) -> io::Result<usize> {
        match self.0 {}
    }
}
