//! What is most likely wrong with an adapter that fails a case: the method to look at first, for its author. A guess from
//! how the run differs from the oracle's; it decides nothing.

use std::time::Duration;

use crate::run_real::UNFINISHED;
use crate::transcript::{ConnLog, End, Failure, Transcript};

/// What came before, and after, it was due.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Missed {
    /// A deadline that came before its limit had passed.
    pub(crate) early: bool,
    /// A deadline that came after its window.
    pub(crate) late: bool,
    /// One that was decided in time, and the connection that it ends was closed late.
    pub(crate) closed_late: bool,
    /// Something that waits for no deadline, and came late.
    pub(crate) slow: bool,
    /// The case blocks the thread: what the runtime believes of its sockets is old when a deadline is due.
    pub(crate) stalled: bool,
}

/// The guesses, the surest first; at most two, since more would be none.
pub(crate) fn hints(oracle: &Transcript, real: &Transcript, missed: Missed) -> Vec<&'static str> {
    let hangs = real.faults.iter().any(|fault| fault.starts_with(UNFINISHED));
    let more_on_their_way = real.snapshots.iter().any(|(name, seen)| {
        oracle.snapshots.get(name).is_some_and(|expected| expected.syn_sent < seen.syn_sent)
    });
    let sockets_left = real.faults.iter().any(|fault| fault.starts_with("sockets"));
    let (expected, fired) = (timeouts(oracle), timeouts(real));

    let mut hints = Vec::new();
    hints.extend(missed.early.then_some(EARLY));
    let tasks_left = real.faults.iter().any(|fault| fault.starts_with("connections"));
    hints.extend((tasks_left && !hangs).then_some(TASK));
    let resets = |t: &Transcript| t.outcomes.iter().filter(|seen| seen.failure == Some(RESET)).count();
    hints.extend((resets(real) < resets(oracle)).then_some(SWALLOWED));
    if more_on_their_way || sockets_left {
        let never_open = oracle.upstreams.len() < attempts(oracle);
        hints.push(if never_open { CONNECT } else { OPEN });
    }
    let sides = [(&oracle.clients, &real.clients), (&oracle.upstreams, &real.upstreams)];
    for (oracle, real) in sides.into_iter().flat_map(|(oracle, real)| oracle.iter().zip(real)) {
        match (ended(oracle), ended(real)) {
            (Some(End::Rst), Some(End::Fin)) => hints.push(RST),
            (Some(End::Fin), Some(End::Rst)) => hints.push(FIN_LOST),
            (Some(End::Fin), None) if fired == expected => hints.push(FIN),
            _ => {}
        }
    }
    if fired < expected {
        hints.push(NEVER);
    } else if fired > expected && missed.stalled {
        hints.push(DIRECT);
    } else if fired > expected || missed.slow || (hangs && expected == 0) {
        // What was waited for was there, and nobody looked.
        hints.push(WAKER);
    } else if hangs {
        // The script waits for what comes after the deadline: another one.
        hints.push(AGAIN);
    }
    if missed.closed_late {
        hints.push(CLOSE);
    } else if missed.late && !hangs {
        hints.push(LATE);
    }
    hints.dedup();
    hints.truncate(2);
    hints
}

fn ended(log: &ConnLog) -> Option<End> {
    log.end.map(|(end, _): (End, Duration)| end)
}

fn attempts(t: &Transcript) -> usize {
    t.outcomes.iter().map(|seen| usize::from(seen.attempts)).sum()
}

fn timeouts(t: &Transcript) -> usize {
    t.outcomes.iter().filter(|seen| matches!(seen.failure, Some(Failure::Timeout { .. }))).count()
}

/// What a reset by the upstream is called.
const RESET: Failure = Failure::Other("UpstreamReset");

const EARLY: &str = "Something ended before its limit had passed. The timer cannot do that, since the clock is asked when it \
    fires: look at `Runtime::now`. It must be the monotonic clock, never ahead of it, with one epoch for the process.";
const LATE: &str = "A deadline came late. Look at `Timer::arm` (the instant is absolute, on the clock of `Runtime::now`; a later \
    call replaces an earlier one) and at `Timer::poll_fired` (it must register the waker of its last poll).";
const CLOSE: &str = "A deadline came in time, and the connection that it ends was closed late. Look at `Stream::abort` and at the drop \
    of the `Stream`: both must close inline; what is left to a task, or to the executor's next turn, waits for whoever has the \
    thread.";
const AGAIN: &str = "A deadline came, and the next one never did. Look at `Timer::arm`: a timer that has fired must fire again \
    once it is armed again.";
const NEVER: &str = "A deadline never came. Look at `Timer::poll_fired` (it must register the waker of its last poll) and at \
    `Timer::arm` (it must take effect when the timer is armed already, and when it has fired).";
const WAKER: &str = "A task was not woken. Look at `Stream::poll_read` and `Stream::poll_write_vectored`: whoever returns \
    `Pending` must have registered the context's waker after the system call that found nothing, also if an earlier one \
    is registered.";
const RST: &str = "The peer saw FIN where it must see RST. Look at `Stream::abort`: it must set `SO_LINGER` to zero \
    (`tidegate_core::runtime::abort`) and close at once.";
const FIN: &str = "The peer never saw the end. Look at `Stream::poll_shutdown_write`: it must send FIN \
    (`tidegate_core::runtime::shutdown_write`); the `close` of some runtimes only flushes.";
const FIN_LOST: &str = "The peer saw RST where it must see FIN first. Look at `Stream::poll_shutdown_write`: it must send FIN before \
    the stream is dropped, since a close with unread bytes is an RST. And at the drop of the `Stream`: without \
    `Stream::abort` it must close in order, and not set `SO_LINGER`.";
const CONNECT: &str = "A connection attempt outlived its future. Look at the drop of `Runtime::Connect`: it must close the \
    descriptor inline; a task that was spawned for it goes on.";
const OPEN: &str = "A descriptor outlived its owner. Look at the drop of the `Stream`: it must close inline, so nobody else may hold \
    the socket, no clone, no half, and no reactor.";
const DIRECT: &str = "A deadline came although what it waited for was in the kernel. Look at `Stream::try_read` and \
    `Stream::try_write_vectored`: each must be one system call, whatever readiness the runtime has cached.";
const SWALLOWED: &str = "An error of a socket was taken for an end. Look at `Stream::poll_read`: it must return the error of the \
    system call; zero bytes are FIN alone.";
const TASK: &str = "A task outlived its end. Look at `Spawn::spawn`: the executor must drop a future once it is ready, and all of \
    them when it ends.";
