//! SIGTERM and SIGINT as something that a future can wait for, on any runtime.
//!
//! One thread sleeps until a signal comes; it costs nothing meanwhile. The first signal asks for the stop,
//! a second one ends the process, in case the stop does not.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Poll, Waker};
use std::thread;

use signal_hook::consts::{SIGINT, SIGTERM};

/// Whether a signal has come, and whom to wake when one does.
#[derive(Clone, Debug, Default)]
pub(crate) struct Signals {
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    came: bool,
    waiting: Option<Waker>,
}

/// Starts to catch both signals.
pub(crate) fn catch() -> io::Result<Signals> {
    let mut caught = signal_hook::iterator::Signals::new([SIGTERM, SIGINT])?;
    let signals = Signals::default();
    let watched = signals.clone();
    thread::Builder::new().name("signals".to_owned()).spawn(move || {
        let mut caught = caught.forever();
        if caught.next().is_some() {
            watched.came();
        }
        if caught.next().is_some() {
            std::process::exit(1);
        }
    })?;
    Ok(signals)
}

impl Signals {
    fn came(&self) {
        let waiting = {
            let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
            state.came = true;
            state.waiting.take()
        };
        if let Some(waker) = waiting {
            waker.wake();
        }
    }

    /// Ready once a signal has come. Wakes the last waker that asked.
    pub(crate) fn poll_came(&self, cx: &mut std::task::Context<'_>) -> Poll<()> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if state.came {
            return Poll::Ready(());
        }
        state.waiting = Some(cx.waker().clone());
        Poll::Pending
    }
}
