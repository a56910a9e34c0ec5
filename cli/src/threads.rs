//! Several threads that begin and end together.
//!
//! The first job runs on the calling thread. A job that fails or panics stops the others, so that no part of a
//! proxy is left behind to serve alone; no thread outlives the call. Nothing here knows what the jobs are.

use std::io;
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Mutex, PoisonError};
use std::task::{Context, Poll, Waker};
use std::thread;

/// Those who still work, apart from the first.
#[derive(Debug, Default)]
pub(crate) struct Others {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    working: usize,
    waker: Option<Waker>,
}

impl Others {
    /// Ready once all jobs but the first have ended. Wakes the last waker that asked.
    pub(crate) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.working == 0 {
            return Poll::Ready(());
        }
        state.waker = Some(cx.waker().clone());
        Poll::Pending
    }

    fn gone(&self) {
        let waker = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.working -= 1;
            if state.working > 0 { None } else { state.waker.take() }
        };
        waker.into_iter().for_each(Waker::wake);
    }
}

/// Does all `jobs`, each on a thread of its own, the first on this one. Returns when the last has ended.
///
/// # Errors
///
/// That of the first job that failed or panicked; `stop` was called then, and has to end the others.
pub(crate) fn run<J: Send>(
    jobs: Vec<J>,
    work: impl Fn(J, &Others) -> io::Result<()> + Sync,
    stop: impl Fn() + Sync,
) -> io::Result<()> {
    let others = Others::default();
    let failed = Mutex::new(None);
    let fail = |why: io::Error| {
        failed.lock().unwrap_or_else(PoisonError::into_inner).get_or_insert(why);
        stop();
    };
    let guarded = |job: J, name: &str| {
        tracing::debug!(name, "thread starts");
        let ended = panic::catch_unwind(AssertUnwindSafe(|| work(job, &others)));
        match ended {
            Ok(Ok(())) => tracing::debug!(name, "thread ends"),
            Ok(Err(e)) => fail(e),
            Err(_) => fail(io::Error::other(format!("thread {name} panicked"))),
        }
    };
    let mut jobs = jobs.into_iter();
    let first = jobs.next();
    others.state.lock().unwrap_or_else(PoisonError::into_inner).working = jobs.len();
    thread::scope(|scope| {
        let (others, guarded) = (&others, &guarded);
        for (job, number) in jobs.by_ref().zip(1..) {
            let name = format!("tidegate-{number}");
            let body = move || {
                guarded(job, thread::current().name().unwrap_or_default());
                others.gone();
            };
            if let Err(e) = thread::Builder::new().name(name).spawn_scoped(scope, body) {
                fail(io::Error::new(e.kind(), format!("cannot start a thread: {e}")));
                others.gone();
            }
        }
        first.into_iter().for_each(|job| guarded(job, "main"));
    });
    failed.into_inner().unwrap_or_else(PoisonError::into_inner).map_or(Ok(()), Err)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Condvar;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::task::Wake;

    /// What jobs wait for until they are stopped.
    #[derive(Default)]
    struct Gate(Mutex<bool>, Condvar);

    impl Gate {
        fn open(&self) {
            *self.0.lock().expect("no panic under the lock") = true;
            self.1.notify_all();
        }

        fn wait(&self) {
            let open = self.0.lock().expect("no panic under the lock");
            drop(self.1.wait_while(open, |open| !*open).expect("no panic under the lock"));
        }
    }

    #[test]
    fn a_panic_in_any_thread_stops_all_and_is_an_error() {
        for culprit in 0..3 {
            let gate = Gate::default();
            let work = |job, _: &Others| {
                if job == culprit {
                    panic!("on purpose");
                }
                gate.wait();
                Ok(())
            };
            let error = run(vec![0, 1, 2], work, || gate.open()).expect_err("one has panicked");
            let name = ["main", "tidegate-1", "tidegate-2"][culprit];
            assert_eq!(error.to_string(), format!("thread {name} panicked"));
        }
    }

    #[test]
    fn an_error_stops_all_and_the_first_one_is_told() {
        let gate = Gate::default();
        let work = |job, _: &Others| {
            if job == 1 {
                return Err(io::Error::other("refused"));
            }
            gate.wait();
            Err(io::Error::other("later"))
        };
        let error = run(vec![0, 1, 2], work, || gate.open()).expect_err("one has failed");
        assert_eq!(error.to_string(), "refused");
    }

    #[test]
    fn the_first_can_wait_for_the_others() {
        struct Unpark(thread::Thread);
        impl Wake for Unpark {
            fn wake(self: std::sync::Arc<Self>) {
                self.0.unpark();
            }
        }
        let done = AtomicUsize::new(0);
        let work = |job, others: &Others| {
            if job > 0 {
                done.fetch_add(1, Ordering::Relaxed);
                return Ok(());
            }
            let waker = Waker::from(std::sync::Arc::new(Unpark(thread::current())));
            while others.poll_gone(&mut Context::from_waker(&waker)).is_pending() {
                thread::park();
            }
            assert_eq!(done.load(Ordering::Relaxed), 3);
            Ok(())
        };
        run(vec![0, 1, 2, 3], work, || {}).expect("none fails");
    }
}
