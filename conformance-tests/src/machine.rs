//! How late the machine itself is while a case runs: what a busy machine adds to the upper end of every window.
//!
//! What a case waits for is never one wake-up: a deadline wakes the thread of a timer, that one perhaps another worker,
//! that one a peer, and each may wait for a core. So a chain of threads is measured, without any runtime and beside the
//! case, and not the nap of a single one. Nothing here shortens a window or moves its lower end.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

/// How often.
const NAP: Duration = Duration::from_millis(5);

/// How many threads pass an event on before the one that napped gets it back: a timer, a worker, a peer.
const LINKS: usize = 3;

/// A measurement under way.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<io::Result<Duration>>,
}

impl Watch {
    pub(crate) fn start() -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = Arc::clone(&stop);
        Watch { stop, thread: thread::spawn(move || measure(&stopped)) }
    }

    /// The worst that was seen.
    pub(crate) fn stop(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        // Without descriptors there is no measurement, and no allowance.
        self.thread.join().ok().and_then(Result::ok).unwrap_or_default()
    }
}

fn measure(stopped: &AtomicBool) -> io::Result<Duration> {
    // Unix sockets, which no gauge counts. Each thread ends when the one before it does.
    let (mut first, mut last) = UnixStream::pair()?;
    let mut links = Vec::new();
    for _ in 0..LINKS {
        let (to, next) = UnixStream::pair()?;
        let from = std::mem::replace(&mut last, next);
        links.push(thread::spawn(move || io::copy(&mut &from, &mut &to)));
    }
    let (mut worst, mut event) = (Duration::ZERO, [0]);
    while !stopped.load(Ordering::Relaxed) {
        let began = Instant::now();
        thread::sleep(NAP);
        first.write_all(&event)?;
        last.read_exact(&mut event)?;
        worst = worst.max(began.elapsed().saturating_sub(NAP));
    }
    drop(first);
    for link in links {
        // It has passed on all that it got.
        let _ = link.join();
    }
    Ok(worst)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The threads that are runnable beside the chain are what makes it late.
    #[test]
    fn a_busy_machine_shows() {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let busy: Vec<_> = (0..4 * cores)
            .map(|_| {
                let stop = Arc::clone(&stop);
                thread::spawn(move || while !stop.load(Ordering::Relaxed) {})
            })
            .collect();
        let watch = Watch::start();
        thread::sleep(Duration::from_millis(300));
        let late = watch.stop();
        stop.store(true, Ordering::Relaxed);
        busy.into_iter().for_each(|thread| thread.join().expect("it only spins"));
        assert!(late > Duration::from_micros(500), "{late:?}");
    }
}
