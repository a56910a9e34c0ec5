//! What the program says about itself: `tracing`'s events, a line each, on standard error.
//!
//! Which of them, and in which form, is set once, at the start. What they say stands where it happens.

use std::fmt;

use tracing::level_filters::LevelFilter;
use tracing::{Dispatch, dispatcher, error};

use crate::access_log::Format;
use crate::stderr::Stderr;

/// What `--log-level` takes; each level includes those before it.
pub(crate) const LEVELS: &[LevelFilter] =
    &[LevelFilter::ERROR, LevelFilter::WARN, LevelFilter::INFO, LevelFilter::DEBUG, LevelFilter::OFF];

/// As `--log-level` takes it.
pub(crate) fn name(level: LevelFilter) -> &'static str {
    match level {
        LevelFilter::ERROR => "error",
        LevelFilter::WARN => "warn",
        LevelFilter::INFO => "info",
        LevelFilter::DEBUG => "debug",
        LevelFilter::TRACE => "trace",
        LevelFilter::OFF => "off",
    }
}

/// From here on events up to `level` are written, in the same form as the lines of the access log.
pub(crate) fn start(level: LevelFilter, format: Format) {
    // Fails where there is one already: nobody else sets one.
    let _ = dispatcher::set_global_default(lines(level, format));
}

/// Why the program ends with 1. That is written at every level: `off` is for what it says while it runs, and whoever started
/// it must not be left with a mere number.
pub(crate) fn fatal(why: &impl fmt::Display, format: Format) {
    dispatcher::with_default(&lines(LevelFilter::ERROR, format), || error!("{why}"));
}

fn lines(level: LevelFilter, format: Format) -> Dispatch {
    let lines = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_writer(|| Stderr);
    match format {
        Format::Text => Dispatch::new(lines.finish()),
        Format::Json => Dispatch::new(
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).finish(),
        ),
    }
}
