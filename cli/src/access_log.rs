//! The access log: a line for each request, as text or as JSON, made of what the proxy reports.
//!
//! What a client chose is quoted and escaped, so that it can forge neither a line nor a field, and cut where it
//! is long. A line is formatted into a buffer that its thread keeps, and not by `tracing`: there are as many as
//! requests. It is written by `stderr::line`, which never waits. `docs/OPERATING.md` lists the fields; both forms have the same ones, by the same names.

use std::cell::RefCell;
use std::fmt;
use std::io::Write as _;
use std::net::SocketAddr;
use std::time::{Duration, SystemTime};

use tidegate_core::{Error, Report, Upstreams};

use crate::stderr;

/// The form of the lines, and of the program's own.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Format {
    /// `name=value`, with what a client chose in quotes.
    Text,
    /// One JSON object a line.
    Json,
}

impl Format {
    pub(crate) const ALL: &[Format] = &[Format::Text, Format::Json];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Format::Text => "text",
            Format::Json => "json",
        }
    }
}

/// Bytes of a target that a line has room for, escaped; with the host's and an error's it stays one write.
const MAX_TARGET: usize = 2048;
const MAX_OTHER: usize = 384;

/// Names, addresses and numbers at their longest, with room to spare.
const REST: usize = 860;
const _: () = assert!(MAX_TARGET + 3 * MAX_OTHER + 4 * CUT.len() + REST <= stderr::MAX_LINE);

thread_local! {
    static BUFFER: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Writes the line of one request.
pub(crate) fn write(format: Format, report: &Report<'_>, upstreams: &Upstreams) {
    BUFFER.with_borrow_mut(|buffer| {
        buffer.clear();
        put(&mut Line::begin(format, buffer), report, upstreams, SystemTime::now());
        buffer.push(b'\n');
        stderr::line(buffer);
    });
}

fn put(line: &mut Line<'_>, report: &Report<'_>, upstreams: &Upstreams, now: SystemTime) {
    let outcome = report.outcome;
    line.plain("time", Some(humantime::format_rfc3339_millis(now)));
    // An IPv4 client of a socket for both has its own address, here as in what goes upstream.
    line.plain("client", report.peer.map(|peer| SocketAddr::new(peer.ip().to_canonical(), peer.port())));
    line.quoted("method", report.request.map(|r| r.method()), MAX_OTHER);
    line.quoted("target", report.request.map(|r| r.target()), MAX_TARGET);
    line.quoted("host", report.request.and_then(|r| r.host()), MAX_OTHER);
    // Neither can hold anything that would need quotes.
    line.plain("request_id", report.request.and_then(|r| r.request_id()));
    line.plain("trace_id", report.request.and_then(|r| r.trace_id()));
    line.bare("status", outcome.status);
    line.bare("bytes_in", Some(outcome.request_bytes));
    line.bare("bytes_out", Some(outcome.response_bytes));
    line.plain("upstream", outcome.upstream.and_then(|id| upstreams.target(id)));
    line.bare("total_ms", Some(Millis(outcome.finished.saturating_since(outcome.started))));
    line.bare("queue_ms", Some(Millis(outcome.timing.queue)));
    line.bare("connect_ms", Some(Millis(outcome.timing.connect)));
    line.bare("request_ms", Some(Millis(outcome.timing.request)));
    line.bare("response_head_ms", Some(Millis(outcome.timing.response_head)));
    line.bare("response_body_ms", Some(Millis(outcome.timing.response_body)));
    line.bare("retries", Some(outcome.attempts.saturating_sub(1)));
    line.bare("reused", Some(outcome.reused));
    let timeout = match outcome.error {
        Some(Error::Timeout(timeout)) => Some(timeout),
        _ => None,
    };
    line.plain("timeout", timeout.map(|t| t.kind));
    line.plain("blocked_on", timeout.map(|t| t.blocked_on));
    line.quoted("error", outcome.error.map(|e| e.to_string()), MAX_OTHER);
    line.end();
}

/// A line in the making.
struct Line<'a> {
    format: Format,
    out: &'a mut Vec<u8>,
    first: bool,
}

impl<'a> Line<'a> {
    fn begin(format: Format, out: &'a mut Vec<u8>) -> Line<'a> {
        if format == Format::Json {
            out.push(b'{');
        }
        Line { format, out, first: true }
    }

    fn end(&mut self) {
        if self.format == Format::Json {
            self.out.push(b'}');
        }
    }

    fn name(&mut self, name: &str) {
        let first = std::mem::replace(&mut self.first, false);
        let _ = match (self.format, first) {
            (Format::Text, true) => write!(self.out, "{name}="),
            (Format::Text, false) => write!(self.out, " {name}="),
            (Format::Json, true) => write!(self.out, "\"{name}\":"),
            (Format::Json, false) => write!(self.out, ",\"{name}\":"),
        };
    }

    fn none(&mut self) {
        self.out.extend_from_slice(match self.format {
            Format::Text => b"-",
            Format::Json => b"null",
        });
    }

    /// A number or a truth value: the same in both forms.
    fn bare(&mut self, name: &str, value: Option<impl fmt::Display>) {
        self.name(name);
        match value {
            // A `Vec` takes everything.
            Some(value) => drop(write!(self.out, "{value}")),
            None => self.none(),
        }
    }

    /// A string of our own that needs no escaping.
    fn plain(&mut self, name: &str, value: Option<impl fmt::Display>) {
        self.name(name);
        let _ = match (self.format, value) {
            (Format::Text, Some(value)) => write!(self.out, "{value}"),
            (Format::Json, Some(value)) => write!(self.out, "\"{value}\""),
            (_, None) => return self.none(),
        };
    }

    /// A string that may hold anything.
    fn quoted(&mut self, name: &str, value: Option<impl AsRef<[u8]>>, max: usize) {
        self.name(name);
        match value {
            Some(value) => {
                self.out.push(b'"');
                match self.format {
                    Format::Text => escape_text(self.out, value.as_ref(), max),
                    Format::Json => escape_json(self.out, value.as_ref(), max),
                }
                self.out.push(b'"');
            }
            None => self.none(),
        }
    }
}

/// What stands for the rest of something long.
const CUT: &[u8] = b"...";

/// Printable ASCII but for quotes and backslashes; all else as `\"`, `\\` or `\xNN`.
fn escape_text(out: &mut Vec<u8>, bytes: &[u8], max: usize) {
    let end = out.len() + max;
    for byte in bytes {
        if out.len() + 4 > end {
            return out.extend_from_slice(CUT);
        }
        match byte {
            b'"' | b'\\' => out.extend([b'\\', *byte]),
            b' '..=b'~' => out.push(*byte),
            _ => drop(write!(out, "\\x{byte:02x}")),
        }
    }
}

/// A JSON string (RFC 8259 section 7). Bytes that are no UTF-8 are written out as `\xNN`; what could move a
/// terminal's cursor is escaped too.
fn escape_json(out: &mut Vec<u8>, bytes: &[u8], max: usize) {
    let end = out.len() + max;
    for chunk in bytes.utf8_chunks() {
        for char in chunk.valid().chars() {
            if out.len() + 6 > end {
                return out.extend_from_slice(CUT);
            }
            match char {
                '"' | '\\' => out.extend([b'\\', char as u8]),
                ' '..='~' => out.push(char as u8),
                // All of those are below U+10000.
                _ if char.is_control()
                    || matches!(char, '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}') =>
                {
                    drop(write!(out, "\\u{:04x}", u32::from(char)));
                }
                _ => drop(write!(out, "{char}")),
            }
        }
        for byte in chunk.invalid() {
            if out.len() + 6 > end {
                return out.extend_from_slice(CUT);
            }
            drop(write!(out, "\\\\x{byte:02x}"));
        }
    }
}

/// Milliseconds with three decimals.
struct Millis(Duration);

impl fmt::Display for Millis {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let micros = self.0.as_micros();
        write!(f, "{}.{:03}", micros / 1000, micros % 1000)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(bytes: &[u8], max: usize) -> String {
        let mut out = Vec::new();
        escape_text(&mut out, bytes, max);
        String::from_utf8(out).expect("ASCII")
    }

    fn json(bytes: &[u8], max: usize) -> String {
        let mut out = Vec::new();
        escape_json(&mut out, bytes, max);
        String::from_utf8(out).expect("UTF-8")
    }

    #[test]
    fn text_holds_no_byte_that_could_end_a_field_or_a_line() {
        assert_eq!(text(b"/a?b=c d", 99), "/a?b=c d");
        assert_eq!(
            text(b"\" status=200\r\n\\\x1b[2J\x7f\xc3\xa9", 99),
            r#"\" status=200\x0d\x0a\\\x1b[2J\x7f\xc3\xa9"#
        );
        let every: Vec<u8> = (0..=255).collect();
        assert!(text(&every, 9999).bytes().all(|b| matches!(b, b' '..=b'~')));
    }

    #[test]
    fn json_strings_are_valid_for_every_byte() {
        assert_eq!(json("\"\\\n\u{7f}\u{85}é\u{202e}".as_bytes(), 99), r#"\"\\\u000a\u007f\u0085é\u202e"#);
        assert_eq!(json(b"a\xff\xc3b", 99), r"a\\xff\\xc3b");
        for byte in 0..=255 {
            let quoted = format!("\"{}\"", json(&[byte], 99));
            let read: String = serde_json::from_str(&quoted).unwrap_or_else(|e| panic!("{quoted}: {e}"));
            match byte {
                0..=127 => assert_eq!(read.as_bytes(), [byte]),
                _ => assert_eq!(read, format!("\\x{byte:02x}")),
            }
        }
    }

    #[test]
    fn what_is_long_is_cut_between_two_escapes() {
        for escape in [text, json] {
            let cut = escape(&[b'\n'; 1000], 100);
            assert!(cut.len() <= 100 + CUT.len() && cut.ends_with("a..."), "{cut}");
            assert_eq!(escape(&[b'a'; 90], 100), "a".repeat(90));
        }
    }

    #[test]
    fn durations_are_milliseconds_to_the_microsecond() {
        let shown = |micros| Millis(Duration::from_micros(micros)).to_string();
        assert_eq!(
            [shown(0), shown(7), shown(1_000), shown(1_234_567)],
            ["0.000", "0.007", "1.000", "1234.567"]
        );
    }
}
