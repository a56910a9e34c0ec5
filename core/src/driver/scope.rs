//! `wait_for`: one future, one limit, the same cancellation on every runtime. For embedders who relay
//! something else than HTTP; the proxy's own deadlines live in the machine.
//!
//! The clock decides that a limit has passed; the timer only wakes. A [`Scope`] carries the deadlines
//! around it inwards, so that of two nested limits the one that is due *earlier* reports, and the outer
//! one if they are due together, however late the executor polls (`docs/TIMEOUTS.md`, Rules, T3). Nothing here
//! spawns, and nothing here knows what it waits for.

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;

use pin_project_lite::pin_project;

use crate::runtime::{Runtime, Timer};
use crate::time::Instant;
use crate::timeout::{DeadlineKind, TimeoutPolicy};

/// A limit of [`Scope::wait_for`] ran out.
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{kind} timeout after {elapsed:?} (limit {limit:?})")]
pub struct Elapsed {
    /// Which limit: [`DeadlineKind::Total`] for a plain [`Scope::wait_for`].
    pub kind: DeadlineKind,
    /// The limit.
    pub limit: Duration,
    /// How long it had run when it was reported; never less than `limit`.
    pub elapsed: Duration,
}

impl From<Elapsed> for std::io::Error {
    /// Keeps the value as the source, with [`std::io::ErrorKind::TimedOut`].
    fn from(e: Elapsed) -> std::io::Error {
        std::io::Error::new(std::io::ErrorKind::TimedOut, e)
    }
}

/// A runtime, and the deadlines under which one runs.
///
/// [`Scope::new`] is under none. The closures of the `wait_for` family receive a scope that is under their
/// limit too; nest by calling `wait_for` on *that* one. It means nothing outside the future that the
/// closure returns: a wait under a deadline that is due leaves the report to the `wait_for` that owns
/// that deadline, and if nobody polls that one any more, it never ends. A spawned task takes a scope of its
/// own: `Scope::new(scope.runtime().clone())`.
#[derive(Clone, Debug)]
pub struct Scope<R> {
    runtime: R,
    /// The earliest of the deadlines around; [`Instant::NEVER`] if there is none.
    outer: Instant,
}

impl<R: Runtime + Clone> Scope<R> {
    /// A scope under no deadline.
    pub fn new(runtime: R) -> Scope<R> {
        Scope { runtime, outer: Instant::NEVER }
    }

    /// The runtime.
    pub fn runtime(&self) -> &R {
        &self.runtime
    }

    /// The earliest of the deadlines that this scope is under.
    pub fn deadline(&self) -> Option<Instant> {
        (self.outer != Instant::NEVER).then_some(self.outer)
    }

    /// Runs the future that `start` makes, for at most `limit`.
    ///
    /// - The clock starts, and `start` is called, when the returned future is first polled.
    /// - `None`, and a limit that ends after the end of time, is no limit: no timer is armed (T8).
    /// - Zero, and an outer deadline that is already due, never call `start` (T5).
    /// - A future that completes in the poll in which its limit is found to be past has completed (T1).
    /// - On expiry the future is dropped *first*; then the error is returned (T6, T7).
    /// - If an outer deadline is due no later than this one, this one stays pending: the outer one reports
    ///   (T3).
    ///
    /// # Cancel safety
    ///
    /// Dropping the returned future drops the inner one, inline. In both cases what is released is what
    /// the inner future's `Drop` releases, and what it had done is done: bytes that it had read and kept to
    /// itself are lost with it. **A `JoinHandle` of tokio or async-std releases nothing when it is dropped**:
    /// its task runs on. Give `wait_for` the work itself.
    ///
    /// A future that does not return from `poll`, because it blocks or because its source is always ready,
    /// cannot be cut by anything; it must yield now and then.
    ///
    /// # Errors
    ///
    /// [`Elapsed`], which converts into [`std::io::Error`].
    ///
    /// # Examples
    ///
    /// A connect with a limit, inside a limit on the whole. Which one ran out is in the error.
    ///
    /// ```
    /// use std::io;
    /// use std::net::SocketAddr;
    /// use std::time::Duration;
    /// use tidegate_core::Scope;
    /// use tidegate_core::runtime::Runtime;
    ///
    /// async fn open<R: Runtime + Clone>(runtime: R, to: SocketAddr) -> io::Result<R::Stream> {
    ///     let whole = Scope::new(runtime).wait_for(Duration::from_secs(3), async |scope| {
    ///         let connect = scope.wait_for(Duration::from_secs(1), |scope| scope.runtime().connect(to));
    ///         connect.await?
    ///     });
    ///     whole.await?
    /// }
    /// ```
    pub fn wait_for<F, Fut>(&self, limit: impl Into<Option<Duration>>, start: F) -> WaitFor<R, F, Fut>
    where
        F: FnOnce(Scope<R>) -> Fut,
        Fut: Future,
    {
        self.wait(DeadlineKind::Total, limit.into(), start)
    }

    /// [`Scope::wait_for`] with the policy's limit for one attempt to connect.
    pub fn with_connect_timeout<F, Fut>(&self, policy: &TimeoutPolicy, start: F) -> WaitFor<R, F, Fut>
    where
        F: FnOnce(Scope<R>) -> Fut,
        Fut: Future,
    {
        self.wait(DeadlineKind::Connect, policy.connect, start)
    }

    /// [`Scope::wait_for`] with the policy's limit for one read. Wrap each read, not the loop of them.
    pub fn with_read_timeout<F, Fut>(&self, policy: &TimeoutPolicy, start: F) -> WaitFor<R, F, Fut>
    where
        F: FnOnce(Scope<R>) -> Fut,
        Fut: Future,
    {
        self.wait(DeadlineKind::Read, policy.read, start)
    }

    /// [`Scope::wait_for`] with the policy's limit for writing one whole message. Wrap all of its writes:
    /// progress does not prolong this limit.
    pub fn with_write_timeout<F, Fut>(&self, policy: &TimeoutPolicy, start: F) -> WaitFor<R, F, Fut>
    where
        F: FnOnce(Scope<R>) -> Fut,
        Fut: Future,
    {
        self.wait(DeadlineKind::Write, policy.write, start)
    }

    /// [`Scope::wait_for`] with the policy's limit for a whole exchange. The other waits go inside it.
    pub fn with_total_timeout<F, Fut>(&self, policy: &TimeoutPolicy, start: F) -> WaitFor<R, F, Fut>
    where
        F: FnOnce(Scope<R>) -> Fut,
        Fut: Future,
    {
        self.wait(DeadlineKind::Total, policy.total, start)
    }

    fn wait<F, Fut>(&self, kind: DeadlineKind, limit: Option<Duration>, start: F) -> WaitFor<R, F, Fut>
    where
        F: FnOnce(Scope<R>) -> Fut,
        Fut: Future,
    {
        WaitFor {
            scope: self.clone(),
            kind,
            limit: limit.unwrap_or(Duration::MAX),
            start: Some(start),
            started: Instant::NEVER,
            at: Instant::NEVER,
            armed: false,
            inner: None,
            timer: None,
        }
    }
}

pin_project! {
    /// The future of the `wait_for` family. Polled again after it ended, it is pending for ever.
    #[must_use = "futures do nothing unless polled"]
    pub struct WaitFor<R: Runtime, F, Fut> {
        scope: Scope<R>,
        kind: DeadlineKind,
        limit: Duration,
        // `Some` until the first poll.
        start: Option<F>,
        started: Instant,
        // Its own deadline; never, if there is none or if an outer one reports in its place.
        at: Instant,
        armed: bool,
        // `Some` while it runs.
        #[pin]
        inner: Option<Fut>,
        // Made when it is first armed; most waits end before that.
        #[pin]
        timer: Option<R::Timer>,
    }
}

impl<R, F, Fut> Future for WaitFor<R, F, Fut>
where
    R: Runtime + Clone,
    F: FnOnce(Scope<R>) -> Fut,
    Fut: Future,
{
    type Output = Result<Fut::Output, Elapsed>;

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let mut this = self.project();
        let (kind, limit) = (*this.kind, *this.limit);
        // Sampled once, and before the inner future: an inner `WaitFor` then never decides on an older
        // clock than this one, and cannot miss that it was due first.
        let now = this.scope.runtime.now();

        if let Some(start) = this.start.take() {
            let (at, outer) = (now + limit, this.scope.outer);
            if outer <= now {
                return Poll::Pending;
            }
            if at <= now {
                return Poll::Ready(Err(Elapsed { kind, limit, elapsed: Duration::ZERO }));
            }
            *this.started = now;
            *this.at = if outer <= at { Instant::NEVER } else { at };
            this.inner.set(Some(start(Scope { runtime: this.scope.runtime.clone(), outer: outer.min(at) })));
        }

        let Some(inner) = this.inner.as_mut().as_pin_mut() else {
            return Poll::Pending;
        };
        if let Poll::Ready(done) = inner.poll(cx) {
            this.inner.set(None);
            this.timer.set(None);
            return Poll::Ready(Ok(done));
        }
        let at = *this.at;
        if at == Instant::NEVER {
            return Poll::Pending;
        }
        if now >= at {
            this.inner.set(None);
            this.timer.set(None);
            return Poll::Ready(Err(Elapsed { kind, limit, elapsed: now.saturating_since(*this.started) }));
        }

        if this.timer.is_none() {
            this.timer.set(Some(this.scope.runtime.timer()));
        }
        if let Some(mut timer) = this.timer.as_mut().as_pin_mut() {
            if !*this.armed {
                timer.as_mut().arm(at);
                *this.armed = true;
            }
            // Polled whenever the future is: the waker may be another one.
            if timer.poll_fired(cx).is_ready() {
                // Early, or since `now` was read. Either way the next turn decides, on a new reading.
                *this.armed = false;
                cx.waker().wake_by_ref();
            }
        }
        Poll::Pending
    }
}

impl<R: Runtime, F, Fut> fmt::Debug for WaitFor<R, F, Fut> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("WaitFor")
            .field("kind", &self.kind)
            .field("limit", &self.limit)
            .field("running", &self.inner.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests;
