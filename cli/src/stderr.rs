//! Standard error: lines written whole, and only if there is room for them.
//!
//! A reader that has stopped reading costs lines and never holds up the proxy. What a line says is not known here.

use std::io::{self, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// Lines of the access log that found no room.
static LOST: AtomicU64 = AtomicU64::new(0);

/// The longest line: what a pipe takes in one piece, or not at all.
pub(crate) const MAX_LINE: usize = 4096;

/// Writes a line of the access log, at most [`MAX_LINE`] bytes with its end.
pub(crate) fn line(line: &[u8]) {
    if !put(line) {
        LOST.fetch_add(1, Ordering::Relaxed);
    } else if LOST.load(Ordering::Relaxed) > 0 {
        let lines = LOST.swap(0, Ordering::Relaxed);
        tracing::warn!(lines, "lines of the access log were lost: nobody read standard error");
    }
}

/// By one call; `false` if there was no room.
fn put(bytes: &[u8]) -> bool {
    // Between the question and the write no other thread takes the room.
    let mut stderr = io::stderr().lock();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    // A pipe without a reader counts as ready, and the write fails.
    let room = poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
    if room {
        // A failed write is nobody's concern.
        let _ = stderr.write(bytes);
    }
    room
}

/// What the program's own lines are written to. It takes everything, whether there is room or not.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        put(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
