//! The suite on the plain `futures` executor: one thread, async-io's sockets through the adapter for smol, and timers of
//! `futures-timer`, whose clock ticks in a helper thread. No runtime comes with a set of parts like this one; the adapter
//! is here.

use std::future::Future;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::task::{Context, Poll};

use futures::executor::{LocalPool, LocalSpawner};
use futures::task::LocalSpawnExt;
use futures_timer::Delay;
use tidegate_conformance::{Harness, Need};
use tidegate_core::Instant;
use tidegate_core::runtime::{self, Runtime, Spawn};
use tidegate_smol::{Connect, Listener, Smol, Stream};

#[derive(Clone)]
struct Futures {
    sockets: Smol,
    tasks: LocalSpawner,
}

impl Runtime for Futures {
    type Stream = Stream;
    type Connect = Connect;
    type Timer = Timer;

    fn now(&self) -> Instant {
        runtime::std_now()
    }

    fn timer(&self) -> Timer {
        Timer(None)
    }

    fn connect(&self, to: SocketAddr) -> Connect {
        self.sockets.connect(to)
    }
}

impl<F: Future<Output = ()> + 'static> Spawn<F> for Futures {
    fn spawn(&self, task: F) {
        // Fails when the pool is gone: the task is dropped then, which cancels it.
        let _ = self.tasks.spawn_local(task);
    }
}

/// `None` until it is armed: a `Delay` runs from the moment it is made.
struct Timer(Option<Delay>);

impl runtime::Timer for Timer {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        let left = at.saturating_since(runtime::std_now());
        match &mut self.0 {
            Some(delay) => delay.reset(left),
            None => self.0 = Some(Delay::new(left)),
        }
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().map_or(Poll::Pending, |delay| Pin::new(delay).poll(cx))
    }
}

struct Pool;

impl Harness for Pool {
    type Runtime = Futures;
    type Listener = Listener;
    const NAME: &'static str = "futures, local pool";
    const NOTES: &'static [&'static str] = &[
        "No crate of ours: an adapter that the suite's tests put together, to show that nothing depends on a runtime's own timers.",
        "A deadline is as late as two threads are that hand it on: the timer's, then the pool's.",
    ];
    const LACKS: &'static [(Need, &'static str)] = &[(Need::Threads, "a local pool is one thread")];

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Futures) -> F) -> T {
        let mut pool = LocalPool::new();
        let main = main(Futures { sockets: Smol::new(), tasks: pool.spawner() });
        pool.run_until(main)
    }

    fn listener(bound: TcpListener) -> io::Result<Listener> {
        bound.try_into()
    }
}

tidegate_conformance::suite!(Pool, skip: {
    h_09_panic_in_a_user_hook: "a panic in a task ends the executor that polls it: it catches none",
});
