//! What the program says about itself: `tracing`'s events, a line each, on standard error.
//!
//! Which of them, and in which form, is set once, at the start. What they say stands where it happens.

use tracing::level_filters::LevelFilter;

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
    let lines = tracing_subscriber::fmt().with_max_level(level).with_target(false).with_writer(|| Stderr);
    match format {
        Format::Text => lines.init(),
        Format::Json => {
            lines.json().flatten_event(true).with_current_span(false).with_span_list(false).init();
        }
    }
}
