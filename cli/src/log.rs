//! What the program says about itself, on standard error.
//!
//! One line a call, written whole; at which level it speaks is set once, at the start. A line is written only
//! if there is room for it: a reader that has stopped reading costs lines and never holds up the proxy.

use std::fmt;
use std::io::{self, Write as _};
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};

use rustix::event::{PollFd, PollFlags, Timespec, poll};

/// How important a line is; each level includes those before it.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Level {
    /// Nothing at all.
    Off,
    /// Why the program ends.
    Error,
    /// What will not work as was asked.
    Warn,
    /// Where it listens, and how it ends.
    Info,
    /// What its threads do.
    Debug,
}

impl Level {
    pub(crate) const ALL: &[Level] = &[Level::Error, Level::Warn, Level::Info, Level::Debug, Level::Off];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Level::Off => "off",
            Level::Error => "error",
            Level::Warn => "warn",
            Level::Info => "info",
            Level::Debug => "debug",
        }
    }
}

static LEVEL: AtomicU8 = AtomicU8::new(Level::Info as u8);

/// Lines that found no room.
static LOST: AtomicU64 = AtomicU64::new(0);

/// The longest line: what a pipe takes in one piece, or not at all.
pub(crate) const MAX_LINE: usize = 4096;

/// Sets the level from which on nothing is said.
pub(crate) fn set(level: Level) {
    LEVEL.store(level as u8, Ordering::Relaxed);
}

/// Why the program ends.
pub(crate) fn error(what: impl fmt::Display) {
    say(Level::Error, format_args!("error: {what}"));
}

/// What will not work as was asked.
pub(crate) fn warn(what: impl fmt::Display) {
    say(Level::Warn, format_args!("warning: {what}"));
}

/// What an operator expects to read.
pub(crate) fn info(what: impl fmt::Display) {
    say(Level::Info, what);
}

/// What helps to find a fault.
pub(crate) fn debug(what: impl fmt::Display) {
    say(Level::Debug, what);
}

fn say(level: Level, what: impl fmt::Display) {
    if level as u8 <= LEVEL.load(Ordering::Relaxed) {
        write(format!("{what}\n").as_bytes());
    }
}

/// Writes a line of the access log, at most [`MAX_LINE`] bytes with its end.
pub(crate) fn line(line: &[u8]) {
    if !write(line) {
        LOST.fetch_add(1, Ordering::Relaxed);
    } else if LOST.load(Ordering::Relaxed) > 0 {
        let lost = LOST.swap(0, Ordering::Relaxed);
        warn(format_args!("{lost} lines of the access log were lost: nobody read standard error"));
    }
}

/// By one call; `false` if there was no room. A failed write is nobody's concern.
fn write(bytes: &[u8]) -> bool {
    // Between the question and the write no other thread takes the room.
    let mut stderr = io::stderr().lock();
    let mut fds = [PollFd::new(&stderr, PollFlags::OUT)];
    // A pipe without a reader counts as ready, and the write fails.
    let room = poll(&mut fds, Some(&Timespec::default())).is_ok_and(|ready| ready > 0);
    if room {
        let _ = stderr.write(bytes);
    }
    room
}
