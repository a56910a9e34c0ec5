//! W, and T for the primitive: `Scope::wait_for`.
//!
//! Each case is a function over any runtime. It writes what happened, in order, into a log that must be
//! the same in virtual time and on every runtime, and measures how long it took.

use std::cell::RefCell;
use std::future::{Future, pending, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::{Arc, Mutex};
use std::task::Poll;
use std::time::Duration;

use tidegate_core::runtime::Runtime;
use tidegate_core::{Elapsed, Instant, Scope, TimeoutPolicy};

use crate::attempt::Need;
use crate::board::lock;
use crate::script::ms;

/// In a line of the log: something came before it was due. Such a run is never repeated.
pub(crate) const EARLY: &str = "EARLY";

/// What a case is given.
pub struct Env<R> {
    /// The runtime.
    pub runtime: R,
    /// A listener that accepts connections in the kernel.
    pub listener: SocketAddr,
    /// How many connections to the listener are `ESTABLISHED` at this end.
    pub established: Rc<dyn Fn() -> usize>,
    /// Blocks the thread.
    pub block: Rc<dyn Fn(Duration)>,
    afterwards: RefCell<Vec<Box<dyn FnOnce()>>>,
    log: Lines,
}

/// The log.
#[derive(Clone, Default)]
pub(super) struct Lines(Arc<Mutex<Vec<String>>>);

impl Lines {
    pub(super) fn log(&self, line: impl Into<String>) {
        lock(&self.0).push(line.into());
    }

    pub(super) fn log_elapsed<T>(&self, who: &str, result: &Result<T, Elapsed>) {
        match result {
            Ok(_) => self.log(format!("{who}: ready")),
            Err(e) => {
                self.log(format!("{who}: {} timeout of {:?}", e.kind, e.limit));
                if e.elapsed < e.limit {
                    self.log(format!("{who}: {EARLY}, it reports less than its limit, {:?}", e.elapsed));
                }
            }
        }
    }
}

impl<R: Runtime + Clone> Env<R> {
    /// Nothing logged yet.
    pub fn new(
        runtime: R,
        listener: SocketAddr,
        established: impl Fn() -> usize + 'static,
        block: impl Fn(Duration) + 'static,
    ) -> Env<R> {
        let (established, block) = (Rc::new(established), Rc::new(block));
        Env { runtime, listener, established, block, afterwards: RefCell::default(), log: Lines::default() }
    }

    /// Does something after the runtime has ended, where it can be ended.
    pub(super) fn afterwards(&self, then: impl FnOnce() + 'static) {
        self.afterwards.borrow_mut().push(Box::new(then));
    }

    /// The runtime has ended: what is left to be done, and the lines.
    pub fn finish(self) -> Vec<String> {
        self.afterwards.into_inner().into_iter().for_each(|then| then());
        lock(&self.log.0).clone()
    }

    pub(super) fn scope(&self) -> Scope<R> {
        Scope::new(self.runtime.clone())
    }

    pub(super) fn now(&self) -> Instant {
        self.runtime.now()
    }

    pub(super) fn log(&self, line: impl Into<String>) {
        self.log.log(line);
    }

    pub(super) fn lines(&self) -> Lines {
        self.log.clone()
    }

    pub(super) fn on_drop(&self, line: &'static str) -> OnDrop {
        OnDrop(line, self.lines())
    }

    pub(super) fn log_elapsed<T>(&self, who: &str, result: &Result<T, Elapsed>) {
        self.log.log_elapsed(who, result);
    }
}

/// Writes a line when it is dropped.
pub(super) struct OnDrop(&'static str, Lines);

impl Drop for OnDrop {
    fn drop(&mut self) {
        self.1.log(self.0);
    }
}

/// A case about `wait_for`.
pub trait WaitCase {
    /// Its id in the catalogue.
    const ID: &'static str;
    /// What it shows.
    const TITLE: &'static str;
    /// What the log must say.
    const LINES: &'static [&'static str];
    /// How long it must take at least; the slack above it is the machine's.
    const LIMIT: Duration;

    /// Whether it runs while no other case does, on the whole machine.
    const ALONE: bool = false;
    /// What it needs of a runtime.
    const NEEDS: &'static [Need] = &[];

    /// Runs it and says how long it took.
    fn run<R: Runtime + Clone + 'static>(env: &Env<R>) -> impl Future<Output = Duration>;
}

/// The name of a case's test.
pub fn test_name_of<C: WaitCase>() -> String {
    crate::script::test_name(C::ID, C::TITLE)
}

/// Polls both until the first is ready; the second is polled after it.
pub(super) async fn beside<T>(first: impl Future<Output = T>, second: impl Future<Output = ()>) -> T {
    let (mut first, mut second, mut done) = (pin!(first), pin!(second), false);
    poll_fn(|cx| {
        if let Poll::Ready(result) = first.as_mut().poll(cx) {
            return Poll::Ready(result);
        }
        done = done || second.as_mut().poll(cx).is_ready();
        Poll::Pending
    })
    .await
}

/// A case; `@alone` before the name runs it while no other case runs, as [`Case::alone`](crate::script::Case::alone) does.
macro_rules! wait_case {
    (@@alone) => { true };
    ($(#[$doc:meta])* $(@$alone:ident)? $name:ident, $id:literal, $title:literal, $limit:expr, $lines:expr, |$env:ident| $run:block) => {
        $(#[$doc])*
        #[allow(non_camel_case_types)]
        #[derive(Debug)]
        pub enum $name {}

        impl $crate::cases::wait::WaitCase for $name {
            const ID: &'static str = $id;
            const TITLE: &'static str = $title;
            const LINES: &'static [&'static str] = $lines;
            const LIMIT: Duration = $limit;
            $(const ALONE: bool = wait_case!(@@$alone);)?

            async fn run<R: Runtime + Clone + 'static>($env: &Env<R>) -> Duration {
                let started = $env.now();
                let from: Option<Instant> = $run;
                $env.now().saturating_since(from.unwrap_or(started))
            }
        }
    };
}

pub(super) use wait_case;

pub use super::wait_more::*;

wait_case! {
    /// A limit of zero starts nothing.
    w_01_zero_not_started, "W-01", "zero, not started", Duration::ZERO,
    &["wait_for: total timeout of 0ns", "established: 0"],
    |env| {
        let connect = |_| {
            env.log("the closure was called");
            env.runtime.connect(env.listener)
        };
        let result = env.scope().wait_for(Duration::ZERO, connect).await;
        env.log_elapsed("wait_for", &result);
        env.log(format!("established: {}", (env.established)()));
        None
    }
}

wait_case! {
    /// A plain timeout: destroyed first, reported then.
    w_04_plain_timeout, "W-04", "plain timeout", ms(100),
    &["destroyed", "wait_for: total timeout of 100ms"],
    |env| {
        let never = |_| {
            let guard = env.on_drop("destroyed");
            async move {
                pending::<()>().await;
                drop(guard);
            }
        };
        let result = env.scope().wait_for(ms(100), never).await;
        env.log_elapsed("wait_for", &result);
        None
    }
}

wait_case! {
    /// An operation that owns a socket: closed, destroyed, reported, in this order, and the kernel knows.
    w_08_cleanup_before_error, "W-08", "cleanup before error", ms(100),
    &["connected", "established: 1", "socket closed", "destroyed", "wait_for: total timeout of 100ms", "established: 0"],
    |env| {
        let owner = |_| async move {
            let _destroyed = env.on_drop("destroyed");
            // Fields are dropped in order: the socket, then the line that says so.
            let _socket = (env.runtime.connect(env.listener).await, env.on_drop("socket closed"));
            env.log(if _socket.0.is_ok() { "connected" } else { "not connected" });
            env.log(format!("established: {}", (env.established)()));
            pending::<()>().await;
        };
        let result = env.scope().wait_for(ms(100), owner).await;
        env.log_elapsed("wait_for", &result);
        env.log(format!("established: {}", (env.established)()));
        None
    }
}

wait_case! {
    /// The clock starts at the first poll, on every runtime.
    @alone w_17_lazy_creation, "W-17", "lazy creation", ms(100),
    &["built", "started", "wait_for: total timeout of 100ms"],
    |env| {
        let scope = env.scope();
        let wait = scope.wait_for(ms(100), |_| {
            env.log("started");
            pending::<()>()
        });
        env.log("built");
        (env.block)(ms(80));
        let driven = env.now();
        let result = wait.await;
        env.log_elapsed("wait_for", &result);
        Some(driven)
    }
}

/// Two nested waits that are never ready, with a thread blocked meanwhile if `stall` says how long.
async fn nested<R: Runtime + Clone>(env: &Env<R>, outer: Duration, inner: Duration, stall: Duration) {
    let policy = TimeoutPolicy { read: Some(inner), total: Some(outer), ..TimeoutPolicy::OFF };
    let waits = async {
        let result = env
            .scope()
            .with_total_timeout(&policy, |scope| async move {
                let result = scope.with_read_timeout(&policy, |_| pending::<()>()).await;
                env.log_elapsed("inner", &result);
            })
            .await;
        env.log_elapsed("outer", &result);
    };
    let neighbour = async {
        if !stall.is_zero() {
            // At once, while both limits have just begun: a machine that is late moves nothing before it.
            (env.block)(stall);
        }
    };
    beside(waits, neighbour).await;
}

wait_case! {
    /// Two limits that end at the same instant: the outer one reports.
    t_03_wait_for_equal, "T-03", "wait_for, equal", ms(100),
    &["outer: total timeout of 100ms"],
    |env| {
        nested(env, ms(100), ms(100), Duration::ZERO).await;
        None
    }
}

wait_case! {
    /// Both end while the thread is blocked, the outer one first: it reports.
    @alone t_04_wait_for_stall_past_both_outer_earlier, "T-04", "wait_for, stall past both, outer earlier", ms(200),
    &["outer: total timeout of 100ms"],
    |env| {
        nested(env, ms(100), ms(120), ms(200)).await;
        None
    }
}

wait_case! {
    /// Both end while the thread is blocked, the inner one first: it reports, and the outer one is
    /// satisfied.
    @alone t_05_wait_for_stall_past_both_inner_earlier, "T-05", "wait_for, stall past both, inner earlier", ms(200),
    &["inner: read timeout of 100ms", "outer: ready"],
    |env| {
        nested(env, ms(120), ms(100), ms(200)).await;
        None
    }
}

wait_case! {
    /// An operation that is ready again at once, for ever, does not outrun its limit, provided that it
    /// yields: it wakes itself as often as it is polled.
    @alone t_13_wait_for_flood, "T-13", "wait_for, flood", ms(100),
    &["wait_for: total timeout of 100ms"],
    |env| {
        let flood = |_| poll_fn(|cx| {
            // Work, so that virtual time passes as well.
            (env.block)(Duration::from_micros(50));
            cx.waker().wake_by_ref();
            Poll::<()>::Pending
        });
        let result = env.scope().wait_for(ms(100), flood).await;
        env.log_elapsed("wait_for", &result);
        None
    }
}
