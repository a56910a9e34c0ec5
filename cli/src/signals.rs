//! SIGTERM and SIGINT: the first drains, the second stops, a third ends the process in case the stop does not.
//!
//! One thread sleeps until a signal comes; it costs nothing meanwhile. It ends when it is told to.

use std::io;

use signal_hook::consts::{SIGINT, SIGTERM};
use signal_hook::iterator::{Handle, Signals as Iterator};

/// Both signals, caught from the start: one that comes before anybody watches is not lost.
#[derive(Debug)]
pub(crate) struct Signals(Iterator);

/// Starts to catch both signals.
pub(crate) fn catch() -> io::Result<Signals> {
    Iterator::new([SIGTERM, SIGINT]).map(Signals)
}

impl Signals {
    /// What ends [`Signals::watch`].
    pub(crate) fn handle(&self) -> Handle {
        self.0.handle()
    }

    /// Calls `first` at the first signal and `second` at the second, until the handle is closed.
    pub(crate) fn watch(mut self, first: impl Fn(&str), second: impl Fn(&str)) {
        let mut came = 0;
        for signal in self.0.forever() {
            let name = if signal == SIGINT { "SIGINT" } else { "SIGTERM" };
            came += 1;
            match came {
                1 => first(name),
                2 => second(name),
                _ => std::process::exit(1),
            }
        }
    }
}
