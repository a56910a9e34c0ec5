//! That a socket is ready, as async-io's reactor says it, and heard at the first time.
//!
//! The reactor takes an event for an old one if it comes in the turn in which it was asked for. It wakes the task all the same, which
//! asks anew; and when the reactor turns in another thread, that can be in the same turn as the next event, again and again
//! for tens of milliseconds. So its wake is what counts here, and not its answer alone. Nothing here knows what is awaited.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};

use atomic_waker::AtomicWaker;

/// One direction of a socket. What the reactor wakes is made at the first wait and serves all later ones, whichever task waits.
#[derive(Debug, Default)]
pub(crate) struct Awaited(Option<(Arc<Bell>, Waker)>);

impl Awaited {
    /// Ready if the reactor has woken since it was asked last, or says so when it is asked by `ask`.
    ///
    /// # Errors
    ///
    /// Those of `ask`.
    pub(crate) fn poll(
        &mut self,
        cx: &mut Context<'_>,
        ask: impl FnOnce(&mut Context<'_>) -> Poll<io::Result<()>>,
    ) -> Poll<io::Result<()>> {
        let (bell, waker) = self.0.get_or_insert_with(|| {
            let bell = Arc::<Bell>::default();
            let waker = Waker::from(Arc::clone(&bell));
            (bell, waker)
        });
        // Before it is looked at: what rings later wakes this task.
        bell.task.register(cx.waker());
        let rung = bell.rung.swap(false, Ordering::AcqRel);
        // Also after it has rung: what the reactor believes of it is used up by that.
        let answer = match ask(&mut Context::from_waker(waker)) {
            Poll::Pending if rung => Poll::Ready(Ok(())),
            answer => answer,
        };
        if answer.is_ready() {
            // Nobody waits any more, and a waker keeps its task's memory for as long as a socket may lie in a pool.
            drop(bell.task.take());
        }
        answer
    }
}

#[derive(Debug, Default)]
struct Bell {
    task: AtomicWaker,
    rung: AtomicBool,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.wake_by_ref();
    }

    fn wake_by_ref(self: &Arc<Self>) {
        self.rung.store(true, Ordering::Release);
        self.task.wake();
    }
}
