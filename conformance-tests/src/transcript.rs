//! What happened in a case, in a form that compares between virtual time and a real runtime.
//!
//! Instants are relative to the start of the case. This module stores and compares; what ought to have
//! happened is written in `expect.rs` and the cases.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::time::Duration;

use tidegate_core::{DeadlineKind, Error, Instant, Outcome, Phase, Side, UpstreamId};

use crate::recorder::{Message, Receives, Recorder};

/// How a peer saw the proxy end a connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum End {
    /// By FIN.
    Fin,
    /// By RST.
    Rst,
}

/// One connection as its peer saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConnLog {
    /// When a client began to connect.
    pub dialled: Option<Duration>,
    /// When it was open at the peer; `None` if it never was.
    pub opened: Option<Duration>,
    /// What arrived.
    pub received: Recorder,
    /// How the proxy ended it and when that was seen; `None` while it is open, or if the script did not
    /// look.
    pub end: Option<(End, Duration)>,
    /// The first write that failed.
    pub write_error: Option<Duration>,
    /// Pattern bytes that the kernel accepted in the current message.
    pub sent: u64,
    /// The step that the script is at, for reports.
    pub step: String,
}

impl ConnLog {
    /// A connection of which nothing is known yet.
    pub fn new(receives: Receives) -> ConnLog {
        ConnLog {
            dialled: None,
            opened: None,
            received: Recorder::new(receives),
            end: None,
            write_error: None,
            sent: 0,
            step: String::from("not started"),
        }
    }
}

/// The proxy's upstream connections at one moment, seen from outside.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// Connects on their way.
    pub syn_sent: usize,
    /// Connections that are `ESTABLISHED` at the proxy's end.
    pub established: usize,
    /// Descriptors of the proxy's that refer to any of them, whatever their state.
    pub open: usize,
    /// Connections to which no descriptor refers, and whose kernel still has bytes to deliver.
    pub trickling: usize,
}

/// How often the proxy asked something of a wrapped runtime that may be a system call.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Calls {
    /// Reads and writes, also those that found nothing to do.
    pub sockets: u64,
    /// Timers armed.
    pub timers: u64,
}

/// How a request ended, as `observe` was told: the part that compares between clocks.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// When the request's head was complete.
    pub started: Duration,
    /// When it was over.
    pub at: Duration,
    /// The status sent to the client.
    pub status: Option<u16>,
    /// What went wrong.
    pub failure: Option<Failure>,
    /// By how much it ended too soon, on the proxy's own clock: a deadline that begins with the request or in it was over
    /// before its limit can have passed.
    pub early: Option<Duration>,
    /// Whether something failed after it, in the teardown.
    pub secondary: bool,
    /// Which upstream.
    pub upstream: Option<UpstreamId>,
    /// Connects tried.
    pub attempts: u16,
    /// Whether an idle connection was used.
    pub reused: bool,
    /// Request body bytes.
    pub request_bytes: u64,
    /// Response body bytes.
    pub response_bytes: u64,
}

/// An error without its instants.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A deadline.
    Timeout {
        /// Which.
        kind: DeadlineKind,
        /// Its limit.
        limit: Duration,
        /// What the exchange was waiting for.
        during: Phase,
        /// Whom it was waiting for.
        blocked_on: Side,
        /// Whether the client had a response head.
        response_started: bool,
    },
    /// Anything else, the system's error number left out.
    Other(&'static str),
}

impl Seen {
    /// Reduces an outcome; `epoch` is the start of the case on the runtime's clock.
    pub fn new(epoch: Instant, outcome: &Outcome) -> Seen {
        Seen {
            started: outcome.started.saturating_since(epoch),
            at: outcome.finished.saturating_since(epoch),
            status: outcome.status,
            failure: outcome.error.as_ref().map(failure),
            early: early(outcome),
            secondary: outcome.secondary.is_some(),
            upstream: outcome.upstream,
            attempts: outcome.attempts,
            reused: outcome.reused,
            request_bytes: outcome.request_bytes,
            response_bytes: outcome.response_bytes,
        }
    }
}

/// What the error says of its own beginning is counted back from its end, so that it is never early; when the request began is not.
fn early(outcome: &Outcome) -> Option<Duration> {
    let Some(Error::Timeout(timeout)) = outcome.error else { return None };
    if matches!(timeout.kind, DeadlineKind::ClientHead | DeadlineKind::Drain) {
        return None;
    }
    let took = outcome.finished.saturating_since(outcome.started);
    timeout.limit.checked_sub(took).filter(|by| !by.is_zero())
}

fn failure(error: &Error) -> Failure {
    Failure::Other(match error {
        Error::Timeout(e) => {
            return Failure::Timeout {
                kind: e.kind,
                limit: e.limit,
                during: e.during,
                blocked_on: e.blocked_on,
                response_started: e.response_started,
            };
        }
        Error::Resolve(_) => "Resolve",
        Error::Connect(e) if e.kind == tidegate_core::IoKind::Refused => "Connect(Refused)",
        Error::Connect(_) => "Connect",
        Error::UpstreamClosed => "UpstreamClosed",
        Error::UpstreamReset(_) => "UpstreamReset",
        Error::UpstreamProtocol(_) => "UpstreamProtocol",
        Error::ClientAbort(_) => "ClientAbort",
        Error::BadRequest(_) => "BadRequest",
        Error::QueueFull => "QueueFull",
        Error::NoUpstream => "NoUpstream",
        Error::Stopped => "Stopped",
        _ => "an error that this suite does not know",
    })
}

/// Everything that happened in one run of a case.
#[derive(Clone, Debug, PartialEq, Eq, Default)]
pub struct Transcript {
    /// The clients, in the order of the case.
    pub clients: Vec<ConnLog>,
    /// The upstream's connections, in the order in which they were accepted.
    pub upstreams: Vec<ConnLog>,
    /// What `observe` was told, in the order in which the requests began: what a request held is released before its end is
    /// reported, so that the next one may be over first.
    pub outcomes: Vec<Seen>,
    /// When each named event happened.
    pub marks: BTreeMap<&'static str, Duration>,
    /// What each named snapshot saw.
    pub snapshots: BTreeMap<&'static str, Snapshot>,
    /// The number of a descriptor at each named event, if there was one. Virtual time has no descriptors.
    pub descriptors: BTreeMap<&'static str, Option<u64>>,
    /// How busy the proxy was; nothing on a real runtime that is not wrapped.
    pub calls: Calls,
    /// The proxy's own closes and first writes, in order; empty unless the case asks for it.
    pub order: Vec<String>,
    /// What was left over, or never ended; empty after a clean run.
    pub faults: Vec<String>,
}

impl Transcript {
    /// Empties the values of the fields that come from the wall clock or from chance, also where a head came in part.
    pub(crate) fn clear_chance(&mut self) {
        self.clients.iter_mut().chain(&mut self.upstreams).for_each(|log| log.received.blank_partial());
        let logs = self.clients.iter_mut().chain(&mut self.upstreams);
        let fields = logs.flat_map(|log| &mut log.received.messages).flat_map(|m| &mut m.fields);
        fields.filter(|(name, _)| BY_CHANCE.contains(&name.as_str())).for_each(|(_, value)| value.clear());
    }

    /// A client's message.
    pub fn response(&self, client: usize, message: usize) -> Option<&Message> {
        self.clients.get(client)?.received.messages.get(message)
    }

    /// A message that the upstream's connection got.
    pub fn request(&self, upstream: usize, message: usize) -> Option<&Message> {
        self.upstreams.get(upstream)?.received.messages.get(message)
    }

    /// The differences that count between the virtual run and a real one, in words. Lengths of patterns
    /// count if `exact` (see [`Case::fills_buffers`](crate::script::Case::fills_buffers)).
    pub fn differences(virtual_run: &Transcript, real: &Transcript, exact: bool) -> Vec<String> {
        let mut out = Vec::new();
        let mut differ = |what: String, v: String, r: String| {
            if v != r {
                out.push(format!("{what}: in virtual time {v}, on this runtime {r}"));
            }
        };
        let sides = [
            ("client", &virtual_run.clients, &real.clients),
            ("upstream connection", &virtual_run.upstreams, &real.upstreams),
        ];
        for (name, v, r) in sides {
            differ(format!("number of {name}s"), v.len().to_string(), r.len().to_string());
            for (i, (v, r)) in v.iter().zip(r).enumerate() {
                differ(format!("{name} {i}: ended by"), ended(v), ended(r));
                differ(format!("{name} {i}: received"), messages(v, r, exact), messages(r, v, exact));
            }
        }
        differ("outcomes".into(), outcomes(virtual_run), outcomes(real));
        differ("snapshots".into(), format!("{:?}", virtual_run.snapshots), format!("{:?}", real.snapshots));
        out
    }

    /// The whole transcript, for people.
    pub fn describe(&self) -> String {
        let mut out = String::new();
        let at = |t: Duration| format!("{:.1} ms", t.as_secs_f64() * 1e3);
        for (name, t) in &self.marks {
            let _ = writeln!(out, "  mark {name:?} at {}", at(*t));
        }
        for (side, logs) in [("client", &self.clients), ("upstream connection", &self.upstreams)] {
            for (i, log) in logs.iter().enumerate() {
                let _ = write!(out, "  {side} {i}: ");
                let _ = match log.opened {
                    Some(t) => write!(out, "open at {}", at(t)),
                    None => write!(out, "never open"),
                };
                let _ = match log.end {
                    Some((end, t)) => writeln!(out, ", ended by {end:?} at {}", at(t)),
                    None => writeln!(out, ", end not seen; last step: {}", log.step),
                };
                for m in &log.received.messages {
                    let _ = writeln!(
                        out,
                        "    {:?} head at {}, {} body bytes ({:?}, {}) by {}",
                        m.start,
                        at(m.head_at),
                        m.body_len,
                        m.framing,
                        if m.complete { "complete" } else { "incomplete" },
                        at(m.last_byte),
                    );
                }
                let partial = log.received.partial_head();
                if !partial.is_empty() {
                    let _ = writeln!(out, "    and {} bytes of a further head", partial.len());
                }
                if let Some(broken) = &log.received.broken {
                    let _ = writeln!(out, "    then no HTTP: {broken}");
                }
                if let Some(t) = log.write_error {
                    let _ = writeln!(out, "    a write failed at {}", at(t));
                }
            }
        }
        for seen in &self.outcomes {
            let _ = writeln!(
                out,
                "  request of {}, over at {}: {}",
                at(seen.started),
                at(seen.at),
                outcome(seen)
            );
        }
        for (name, snapshot) in &self.snapshots {
            let _ = writeln!(out, "  snapshot {name:?}: {snapshot:?}");
        }
        for (name, number) in &self.descriptors {
            let _ = writeln!(out, "  descriptor {name:?}: {number:?}");
        }
        if self.calls != Calls::default() {
            let _ = writeln!(out, "  the proxy's calls: {:?}", self.calls);
        }
        for line in &self.order {
            let _ = writeln!(out, "  the proxy: {line}");
        }
        for fault in &self.faults {
            let _ = writeln!(out, "  left over: {fault}");
        }
        out
    }
}

fn ended(log: &ConnLog) -> String {
    log.end.map_or_else(|| "nothing that the script saw".into(), |(end, _)| format!("{end:?}"))
}

/// Fields whose value depends on the clock or on chance, in virtual time too.
const BY_CHANCE: [&str; 3] = ["date", "traceparent", "x-request-id"];

/// Fields whose value depends on an ephemeral port.
const OF_A_PORT: [&str; 2] = ["forwarded", "x-forwarded-for"];

/// The messages of `log`: exact where both runs received them whole, else whether they are a verified
/// prefix.
fn messages(log: &ConnLog, other: &ConnLog, exact: bool) -> String {
    let mut out = String::new();
    for (i, m) in log.received.messages.iter().enumerate() {
        let fields: Vec<String> = m
            .fields
            .iter()
            .filter(|(name, _)| !BY_CHANCE.contains(&name.as_str()) && !OF_A_PORT.contains(&name.as_str()))
            .map(|(name, value)| format!("{name}: {value}"))
            .collect();
        let _ = write!(out, "[{} | {} | ", m.start, fields.join(", "));
        let both = m.complete && other.received.messages.get(i).is_some_and(|o| o.complete);
        let _ = match (both, m.is_pattern) {
            (true, true) if exact => write!(out, "{} bytes of the pattern]", m.body_len),
            (true, true) => write!(out, "complete, of the pattern]"),
            (true, false) => write!(out, "{:?}]", String::from_utf8_lossy(&m.text)),
            (false, true) if m.complete => write!(out, "complete]"),
            (false, true) => write!(out, "a prefix of the pattern]"),
            (false, false) => write!(out, "not the pattern: {:?}]", String::from_utf8_lossy(&m.text)),
        };
    }
    if let Some(broken) = &log.received.broken {
        let _ = write!(out, " then no HTTP: {broken}");
    }
    if !log.received.partial_head().is_empty() {
        let _ = write!(out, " and a partial head");
    }
    if out.is_empty() { "nothing".into() } else { out }
}

pub(crate) fn outcome(seen: &Seen) -> String {
    let Seen { status, failure, upstream, attempts, reused, .. } = seen;
    format!(
        "status {status:?}, error {failure:?}, upstream {upstream:?}, {attempts} connects, reused {reused}"
    )
}

fn outcomes(t: &Transcript) -> String {
    let all: Vec<String> = t.outcomes.iter().map(outcome).collect();
    if all.is_empty() { "none".into() } else { all.join("; ") }
}
