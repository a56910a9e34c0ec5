//! A transcript as a trace: one line an event, in order, to the nanosecond. In virtual time it is equal in every run, so
//! that it can be kept in a file and compared as text (`timeouts.md` V-01).

use std::fmt::Write as _;
use std::time::Duration;

use crate::recorder::Message;
use crate::transcript::{Transcript, outcome};

/// The trace.
pub fn trace(transcript: &Transcript) -> String {
    let mut lines: Vec<(Duration, String)> = Vec::new();
    let mut at = |at: Duration, what: String| lines.push((at, what));
    for (name, t) in &transcript.marks {
        at(*t, format!("mark {name:?}"));
    }
    for (side, logs) in [("client", &transcript.clients), ("upstream", &transcript.upstreams)] {
        for (i, log) in logs.iter().enumerate() {
            let mut at = |t: Duration, what: String| at(t, format!("{side} {i} {what}"));
            log.dialled.into_iter().for_each(|t| at(t, "connects".into()));
            log.opened.into_iter().for_each(|t| at(t, "is connected".into()));
            for message in &log.received.messages {
                at(message.head_at, format!("receives {}", head(message)));
                let whole = if message.complete { "the end" } else { "no further byte" };
                at(message.last_byte, format!("receives {whole}, after {} body bytes", message.body_len));
            }
            log.write_error.into_iter().for_each(|t| at(t, "cannot write".into()));
            log.end.into_iter().for_each(|(end, t)| at(t, format!("is ended by {end:?}")));
        }
    }
    for (i, seen) in transcript.outcomes.iter().enumerate() {
        at(seen.started, format!("request {i} begins"));
        let (sent, received) = (seen.request_bytes, seen.response_bytes);
        at(seen.at, format!("request {i} is over: {}, body bytes {sent} and {received}", outcome(seen)));
    }
    lines.sort_by_key(|(at, _)| *at);
    let mut out = String::new();
    for (at, what) in lines {
        let _ = writeln!(out, "{:>12.6} ms  {what}", at.as_secs_f64() * 1e3);
    }
    for (name, snapshot) in &transcript.snapshots {
        let _ = writeln!(out, "snapshot {name:?}: {snapshot:?}");
    }
    for fault in &transcript.faults {
        let _ = writeln!(out, "left over: {fault}");
    }
    out
}

fn head(message: &Message) -> String {
    let fields: Vec<_> = message.fields.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    format!("{:?} ({})", message.start, fields.join(", "))
}
