//! Expectations: what must be true of a transcript, each with the words for when it is not.
//!
//! They hold in virtual time and on every runtime; only the width of a time window differs. A window is
//! never widened downwards: a deadline that fires early is wrong everywhere.

use std::fmt;
use std::time::Duration;

use tidegate_core::{DeadlineKind, Phase, Side};

use crate::recorder::Message;
use crate::script::ms;
use crate::transcript::{Calls, ConnLog, End, Failure, Seen, Transcript};
use crate::wrap::CONNECTS;

/// How late a runtime may report what is due, on a quiet machine. The environment variable `CI` widens it.
pub const SLACK: Duration = ms(60);

/// [`SLACK`] on a machine that builds for others meanwhile.
pub const SLACK_CI: Duration = ms(150);

/// How late virtual time may be: some trips through the virtual network.
pub const SLACK_VIRTUAL: Duration = ms(5);

/// How wide windows are in one run.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Tolerance {
    /// Added to the limit.
    pub slack: Duration,
}

/// How late a peer may be whose doing a limit counts from, for whatever comes early to count: as much as limits differ by.
const HELD_UP: Duration = ms(50);

impl Tolerance {
    /// Virtual time's.
    pub const VIRTUAL: Tolerance = Tolerance { slack: SLACK_VIRTUAL };

    /// How long something may take for which a quiet machine is given `at_most`.
    fn of(self, at_most: Duration) -> Duration {
        match self {
            Tolerance::VIRTUAL => SLACK_VIRTUAL,
            Tolerance { slack } => at_most + slack.saturating_sub(SLACK),
        }
    }
}

type Check = Box<dyn Fn(&Transcript, Tolerance) -> Result<(), String> + Send + Sync>;

/// An expectation.
pub struct Expect {
    what: String,
    check: Check,
    /// From when to when, at least how long, and how much longer than the slack it may take: if it is about time.
    window: Option<(Moment, Moment, Duration, Duration)>,
    /// What comes before what: if it is about order.
    order: Option<(Moment, Moment)>,
}

impl fmt::Debug for Expect {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Expect").field(&self.what).finish()
    }
}

impl Expect {
    /// Any expectation.
    pub fn new(
        what: impl Into<String>,
        check: impl Fn(&Transcript, Tolerance) -> Result<(), String> + Send + Sync + 'static,
    ) -> Expect {
        Expect { what: what.into(), check: Box::new(check), window: None, order: None }
    }

    /// How late the deadline was, if it is about one alone.
    pub(crate) fn lateness(&self, transcript: &Transcript) -> Option<Duration> {
        let (from, to, limit, more) = self.window?;
        let late = to.of(transcript).ok()?.checked_sub(from.of(transcript).ok()? + limit);
        late.filter(|_| !limit.is_zero() && more.is_zero())
    }

    /// Whether it is about when the proxy ends a connection to an upstream.
    pub(crate) fn is_of_a_close(&self) -> bool {
        matches!(self.window, Some((_, Moment::UpstreamEnd(_), ..)))
            || matches!(self.order, Some((Moment::UpstreamEnd(_), _)))
    }

    /// Whether what ought to come first did not.
    pub(crate) fn is_out_of_order(&self, transcript: &Transcript) -> bool {
        let Some((first, second)) = self.order else { return false };
        let (Ok(first), Ok(second)) = (first.of(transcript), second.of(transcript)) else { return false };
        first >= second
    }

    /// Whether it fails because something came late, and for no other reason.
    pub(crate) fn is_late_only(&self, transcript: &Transcript) -> bool {
        let Some((from, to, limit, _)) = self.window else { return false };
        let (Ok(began), Ok(ended)) = (from.of(transcript), to.of(transcript)) else { return false };
        ended >= began + limit
    }

    /// How long it took, if it waits for no deadline.
    pub(crate) fn delay(&self, transcript: &Transcript) -> Option<Duration> {
        let (from, to, limit, more) = self.window?;
        let delay = to.of(transcript).ok()?.checked_sub(from.of(transcript).ok()?);
        delay.filter(|_| limit.is_zero() && more.is_zero())
    }

    /// Whether something came before its limit had passed. A peer that was held up begins later than it ought to, as the
    /// oracle shows, and what ended before was due since then: that is not early.
    pub(crate) fn is_early(&self, transcript: &Transcript, oracle: &Transcript) -> bool {
        let Some((from, to, limit, _)) = self.window.filter(|(_, _, limit, _)| !limit.is_zero()) else {
            return false;
        };
        let (Ok(began), Ok(ended)) = (from.of(transcript), to.of(transcript)) else { return false };
        let held_up = from.of(oracle).is_ok_and(|due| began > due + HELD_UP);
        ended < began + limit && !held_up
    }

    /// What it wants, and what there was instead.
    ///
    /// # Errors
    ///
    /// If the expectation is not met.
    pub fn check(&self, transcript: &Transcript, tolerance: Tolerance) -> Result<(), String> {
        (self.check)(transcript, tolerance).map_err(|found| format!("expected {}; {found}", self.what))
    }
}

/// A moment of a run.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A named event.
    Mark(&'static str),
    /// When a client held the first byte of its n-th response.
    FirstByte(usize, usize),
    /// When a client saw the end of its connection.
    ClientEnd(usize),
    /// When the upstream saw the end of its n-th connection.
    UpstreamEnd(usize),
    /// When a client's write failed.
    WriteError(usize),
    /// When the n-th outcome was reported.
    Outcome(usize),
    /// When a client's connection was open.
    Open(usize),
    /// When a client began to connect.
    Dial(usize),
}

impl Moment {
    /// When it was.
    pub fn of(self, t: &Transcript) -> Result<Duration, String> {
        let found = match self {
            Moment::Mark(name) => t.marks.get(name).copied(),
            Moment::FirstByte(client, message) => t.response(client, message).map(|m| m.first_byte),
            Moment::ClientEnd(i) => t.clients.get(i).and_then(|c| c.end).map(|(_, at)| at),
            Moment::UpstreamEnd(i) => t.upstreams.get(i).and_then(|c| c.end).map(|(_, at)| at),
            Moment::WriteError(i) => t.clients.get(i).and_then(|c| c.write_error),
            Moment::Outcome(i) => t.outcomes.get(i).map(|seen| seen.at),
            Moment::Open(i) => t.clients.get(i).and_then(|c| c.opened),
            Moment::Dial(i) => t.clients.get(i).and_then(|c| c.dialled),
        };
        found.ok_or_else(|| format!("{self} never came"))
    }
}

impl fmt::Display for Moment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Moment::Mark(name) => write!(f, "{name:?}"),
            Moment::FirstByte(c, m) => write!(f, "the first byte of client {c}'s response {m}"),
            Moment::ClientEnd(i) => write!(f, "the end of client {i}'s connection"),
            Moment::UpstreamEnd(i) => write!(f, "the end of upstream connection {i}"),
            Moment::WriteError(i) => write!(f, "client {i}'s failed write"),
            Moment::Outcome(i) => write!(f, "the report of outcome {i}"),
            Moment::Open(i) => write!(f, "the opening of client {i}'s connection"),
            Moment::Dial(i) => write!(f, "client {i}'s connect"),
        }
    }
}

/// `to` comes after `from` by `limit`, never earlier, and later by the slack at most.
pub fn window(from: Moment, to: Moment, limit: Duration) -> Expect {
    window_wider(from, to, limit, Duration::ZERO)
}

/// [`window`], wider by `more` than the slack on a real machine, for what takes its time besides. Virtual time has none of that,
/// and its window is as narrow as ever.
pub fn window_wider(from: Moment, to: Moment, limit: Duration, more: Duration) -> Expect {
    wider(from, to, limit, more, Duration::ZERO)
}

/// [`window`], wider by `more` than the slack in virtual time too: for what the script itself takes besides.
pub fn window_within(from: Moment, to: Moment, limit: Duration, more: Duration) -> Expect {
    wider(from, to, limit, more, more)
}

fn wider(from: Moment, to: Moment, limit: Duration, more: Duration, more_in_virtual: Duration) -> Expect {
    let what = format!("{to} {limit:?} after {from}");
    let mut expect = Expect::new(what, move |t, tolerance| {
        let (from_at, to_at) = (from.of(t)?, to.of(t)?);
        let Some(took) = to_at.checked_sub(from_at) else {
            return Err(format!("it came {:?} before", from_at - to_at));
        };
        if took < limit {
            return Err(format!("it came after {took:?}: EARLY, which no runtime is allowed to be"));
        }
        let besides = if tolerance == Tolerance::VIRTUAL { more_in_virtual } else { more };
        let latest = limit + tolerance.slack + besides;
        if took >= latest {
            return Err(format!("it came after {took:?}, later than {latest:?}"));
        }
        Ok(())
    });
    expect.window = Some((from, to, limit, more));
    expect
}

/// `to` comes no later than `at_most` after `from`, or before it: for what waits for no deadline and no timer. In virtual time it
/// comes at once; a real machine is allowed what it was late itself, and in continuous integration what windows are wider
/// there.
pub fn within(from: Moment, to: Moment, at_most: Duration) -> Expect {
    let mut expect = Expect::new(format!("{to} within {at_most:?} of {from}"), move |t, tolerance| {
        let took = to.of(t)?.saturating_sub(from.of(t)?);
        if took < tolerance.of(at_most) { Ok(()) } else { Err(format!("it took {took:?}")) }
    });
    expect.window = Some((from, to, Duration::ZERO, Duration::ZERO));
    expect
}

/// `to` ends a wait of `limit` that began no later than `at_most` after `from`, or before it: what a request held is released
/// before its end is reported.
pub fn begun_within(from: Moment, to: Moment, limit: Duration, at_most: Duration) -> Expect {
    let mut expect = Expect::new(format!("{to} {limit:?} after {from} at most"), move |t, tolerance| {
        let took = to.of(t)?.saturating_sub(from.of(t)?);
        let latest = limit + tolerance.of(at_most);
        if took < latest { Ok(()) } else { Err(format!("it came after {took:?}, later than {latest:?}")) }
    });
    expect.window = Some((from, to, Duration::ZERO, limit));
    expect
}

/// From one moment to the other it takes so long at least; how late the scripts are themselves does not matter.
pub fn lasts(from: Moment, to: Moment, at_least: Duration) -> Expect {
    Expect::new(format!("{at_least:?} at least from {from} to {to}"), move |t, _| {
        let took = to.of(t)?.saturating_sub(from.of(t)?);
        if took >= at_least { Ok(()) } else { Err(format!("it took {took:?}")) }
    })
}

/// `first` comes before `second`.
pub fn before(first: Moment, second: Moment) -> Expect {
    let mut expect = Expect::new(format!("{first} before {second}"), move |t, _| {
        let (a, b) = (first.of(t)?, second.of(t)?);
        if a < b { Ok(()) } else { Err(format!("they came at {a:?} and {b:?}")) }
    });
    expect.order = Some((first, second));
    expect
}

fn message(t: &Transcript, client: usize, index: usize) -> Result<&Message, String> {
    t.response(client, index).ok_or_else(|| format!("client {client} never got a response {index}"))
}

/// A client's n-th response is whole and has this status.
pub fn status(client: usize, index: usize, status: u16) -> Expect {
    Expect::new(format!("a complete {status} as client {client}'s response {index}"), move |t, _| {
        let m = message(t, client, index)?;
        if m.status() != Some(status) {
            Err(format!("it is {:?}", m.start))
        } else if !m.complete {
            Err(format!("{:?} broke off after {} body bytes", m.start, m.body_len))
        } else {
            Ok(())
        }
    })
}

/// A client's n-th response is whole and its body is so many bytes of the pattern.
pub fn body(client: usize, index: usize, len: u64) -> Expect {
    Expect::new(format!("{len} pattern bytes in client {client}'s response {index}"), move |t, _| {
        let m = message(t, client, index)?;
        if m.complete && m.is_pattern && m.body_len == len { Ok(()) } else { Err(describe_body(m)) }
    })
}

/// A client's n-th response has this body.
pub fn text(client: usize, index: usize, wanted: &'static str) -> Expect {
    Expect::new(format!("the body {wanted:?} in client {client}'s response {index}"), move |t, _| {
        let m = message(t, client, index)?;
        if m.complete && m.text == wanted.as_bytes() { Ok(()) } else { Err(describe_body(m)) }
    })
}

/// A client's n-th response has a field with this value.
pub fn field(client: usize, index: usize, name: &'static str, value: &'static str) -> Expect {
    Expect::new(format!("\"{name}: {value}\" in client {client}'s response {index}"), move |t, _| {
        match message(t, client, index)?.field(name) {
            Some(v) if v.eq_ignore_ascii_case(value) => Ok(()),
            other => Err(format!("there is {other:?}")),
        }
    })
}

fn describe_body(m: &Message) -> String {
    let whole = if m.complete { "complete" } else { "incomplete" };
    let pattern = if m.is_pattern { "of the pattern" } else { "NOT of the pattern" };
    format!("it is {whole}, {} bytes {pattern}, {:?}", m.body_len, String::from_utf8_lossy(&m.text))
}

/// A client's n-th response was begun and visibly cut: no end of the body, no gap, no second status
/// line. `len` is how many body bytes came, where that is certain.
pub fn cut(client: usize, index: usize, status: u16, len: Option<u64>) -> Expect {
    Expect::new(format!("a {status}, cut, as client {client}'s response {index}"), move |t, _| {
        let m = message(t, client, index)?;
        let received = &t.clients[client].received;
        if m.status() != Some(status) {
            Err(format!("it is {:?}", m.start))
        } else if m.complete {
            Err("it looks complete: the cut is invisible".into())
        } else if !m.is_pattern || received.messages.len() > index + 1 || received.broken.is_some() {
            Err(format!("something else follows the part: {}", describe_body(m)))
        } else if len.is_some_and(|len| len != m.body_len) {
            Err(format!("{} body bytes came, not {len:?}", m.body_len))
        } else {
            Ok(())
        }
    })
}

/// A client got not one byte.
pub fn got_nothing(client: usize) -> Expect {
    Expect::new(format!("not one byte for client {client}"), move |t, _| {
        match t.clients.get(client).map_or(0, |c| c.received.total) {
            0 => Ok(()),
            n => Err(format!("it got {n}")),
        }
    })
}

/// A client got so many messages and nothing else.
pub fn messages(client: usize, n: usize) -> Expect {
    Expect::new(format!("{n} messages for client {client} and nothing else"), move |t, _| {
        let received = &t.clients.get(client).ok_or("there is no such client")?.received;
        if received.messages.len() == n && received.partial_head().is_empty() && received.broken.is_none() {
            Ok(())
        } else {
            Err(format!("there were {}, and {:?}", received.messages.len(), received.broken))
        }
    })
}

fn ended(
    what: String,
    end: End,
    log: impl Fn(&Transcript) -> Option<&ConnLog> + Send + Sync + 'static,
) -> Expect {
    Expect::new(format!("{what} ended by {end:?}"), move |t, _| {
        let log = log(t).ok_or("there is no such connection")?;
        match log.end {
            Some((found, _)) if found == end => Ok(()),
            Some((found, at)) => Err(format!("it was ended by {found:?} at {at:?}")),
            None => Err(format!("its end was not seen; the script is at {}", log.step)),
        }
    })
}

/// How the proxy ended a client's connection.
pub fn client_end(i: usize, end: End) -> Expect {
    ended(format!("client {i}'s connection"), end, move |t| t.clients.get(i))
}

/// How the proxy ended the upstream's n-th connection.
pub fn upstream_end(i: usize, end: End) -> Expect {
    ended(format!("upstream connection {i}"), end, move |t| t.upstreams.get(i))
}

/// The proxy opened so many connections to the upstream (and controls, where the case has any).
pub fn accepted(n: usize) -> Expect {
    Expect::new(format!("{n} connections accepted by the upstream"), move |t, _| {
        if t.upstreams.len() == n { Ok(()) } else { Err(format!("there were {}", t.upstreams.len())) }
    })
}

/// An event did not happen.
pub fn never(event: &'static str) -> Expect {
    Expect::new(format!("{event:?} not to happen"), move |t, _| match t.marks.get(event) {
        None => Ok(()),
        Some(at) => Err(format!("it did, at {at:?}")),
    })
}

/// So many names were looked up.
pub fn lookups(n: usize) -> Expect {
    Expect::new(format!("{n} names looked up"), move |t, _| {
        let found: Vec<_> = t.marks.keys().filter(|name| name.contains(".test:")).collect();
        if found.len() == n { Ok(()) } else { Err(format!("these were: {found:?}")) }
    })
}

/// The request on an upstream connection was begun and never completed; what came of its body is a
/// prefix, and so long where that is certain.
pub fn request_cut(i: usize, len: Option<u64>) -> Expect {
    Expect::new(format!("a cut request on upstream connection {i}"), move |t, _| {
        let m = t.request(i, 0).ok_or("no request head came")?;
        if m.complete {
            Err("it looks complete".into())
        } else if !m.is_pattern {
            Err(describe_body(m))
        } else if len.is_some_and(|len| len != m.body_len) {
            Err(format!("{} body bytes came, not {len:?}", m.body_len))
        } else {
            Ok(())
        }
    })
}

/// A request on an upstream connection is whole, and its body is so many bytes of the pattern.
pub fn request_whole(i: usize, index: usize, len: u64) -> Expect {
    Expect::new(format!("{len} pattern bytes in request {index} on upstream connection {i}"), move |t, _| {
        let m = t.request(i, index).ok_or("no request head came")?;
        if m.complete && m.is_pattern && m.body_len == len { Ok(()) } else { Err(describe_body(m)) }
    })
}

fn outcome(t: &Transcript, i: usize) -> Result<&Seen, String> {
    t.outcomes.get(i).ok_or_else(|| format!("observe was told {} outcomes only", t.outcomes.len()))
}

/// So many requests were reported.
pub fn outcomes(n: usize) -> Expect {
    Expect::new(format!("{n} outcomes reported"), move |t, _| {
        if t.outcomes.len() == n { Ok(()) } else { Err(format!("there were {}", t.outcomes.len())) }
    })
}

/// An outcome is a timeout of this kind, blocked on that side if one is given.
pub fn timeout(i: usize, kind: DeadlineKind, blocked: Option<Side>) -> Expect {
    Expect::new(format!("outcome {i} to be a {kind} timeout"), move |t, _| match outcome(t, i)?.failure {
        Some(Failure::Timeout { kind: k, .. }) if k != kind => Err(format!("it is a {k} timeout")),
        Some(Failure::Timeout { blocked_on, .. }) if blocked.is_some_and(|b| b != blocked_on) => {
            Err(format!("it is, but blames the {blocked_on}"))
        }
        Some(Failure::Timeout { .. }) => Ok(()),
        other => Err(format!("it is {other:?}")),
    })
}

/// An outcome is this error, as [`Failure::Other`] names it.
pub fn failure(i: usize, name: &'static str) -> Expect {
    Expect::new(format!("outcome {i} to be {name}"), move |t, _| match outcome(t, i)?.failure {
        Some(Failure::Other(found)) if found == name => Ok(()),
        other => Err(format!("it is {other:?}")),
    })
}

/// An outcome is a success.
pub fn success(i: usize) -> Expect {
    Expect::new(format!("outcome {i} to be a success"), move |t, _| match outcome(t, i)?.failure {
        None => Ok(()),
        Some(failure) => Err(format!("it is {failure:?}")),
    })
}

/// Something else failed in the teardown after an outcome's error.
pub fn secondary(i: usize) -> Expect {
    Expect::new(format!("outcome {i} to have a secondary failure"), move |t, _| {
        if outcome(t, i)?.secondary { Ok(()) } else { Err("there is none".into()) }
    })
}

/// What an outcome's timeout was waiting for.
pub fn during(i: usize, phase: Phase) -> Expect {
    Expect::new(format!("outcome {i} to be a timeout during {phase}"), move |t, _| {
        match outcome(t, i)?.failure {
            Some(Failure::Timeout { during, .. }) if during == phase => Ok(()),
            other => Err(format!("it is {other:?}")),
        }
    })
}

/// How many connects an outcome took.
pub fn attempts(i: usize, n: u16) -> Expect {
    Expect::new(format!("outcome {i} to have taken {n} connects"), move |t, _| {
        let found = outcome(t, i)?.attempts;
        if found == n { Ok(()) } else { Err(format!("it took {found}")) }
    })
}

/// The status that an outcome reports.
pub fn reported(i: usize, status: Option<u16>) -> Expect {
    Expect::new(format!("outcome {i} to report the status {status:?}"), move |t, _| {
        let found = outcome(t, i)?.status;
        if found == status { Ok(()) } else { Err(format!("it reports {found:?}")) }
    })
}

/// Whether an outcome used an idle connection.
pub fn reused(i: usize, reused: bool) -> Expect {
    Expect::new(format!("outcome {i} to have reused a connection: {reused}"), move |t, _| {
        if outcome(t, i)?.reused == reused { Ok(()) } else { Err("it is the other way round".into()) }
    })
}

/// What a snapshot saw of the proxy's upstream connections.
pub fn snapshot(name: &'static str, syn_sent: usize, established: usize) -> Expect {
    let what = format!("at {name:?} {syn_sent} upstream connections in SYN_SENT, {established} ESTABLISHED");
    Expect::new(what, move |t, _| {
        let seen = t.snapshots.get(name).ok_or("the snapshot was not taken")?;
        if (seen.syn_sent, seen.established) != (syn_sent, established) {
            Err(format!("there were {} and {}", seen.syn_sent, seen.established))
        } else if seen.open != syn_sent + established {
            Err(format!("the proxy has descriptors of {} connections", seen.open))
        } else if seen.trickling > 0 {
            Err(format!("what was written to {} closed ones is still delivered", seen.trickling))
        } else {
            Ok(())
        }
    })
}

/// Of the descriptors at these events two have the same number, one after the other. (Virtual time has none.)
pub fn used_again(events: &'static [&'static str]) -> Expect {
    Expect::new(format!("a descriptor to be used again at one of {events:?}"), move |t, tolerance| {
        let numbers: Vec<_> =
            events.iter().map(|event| t.descriptors.get(event).copied().flatten()).collect();
        let again = numbers.windows(2).any(|two| two[0].is_some() && two[0] == two[1]);
        if again || tolerance == Tolerance::VIRTUAL { Ok(()) } else { Err(format!("they are {numbers:?}")) }
    })
}

/// The proxy made no more calls than these: it neither spins nor looks where there is nothing to see.
pub fn calls(sockets: u64, timers: u64) -> Expect {
    let what = format!("at most {sockets} calls to sockets, and {timers} timers armed");
    Expect::new(what, move |t, _| match t.calls {
        Calls { sockets: 0, timers: 0 } => Err("none was counted".into()),
        found if found.sockets <= sockets && found.timers <= timers => Ok(()),
        found => Err(format!("there were {} and {}", found.sockets, found.timers)),
    })
}

/// In the proxy's own log, one line comes before another.
pub fn ordered(first: &'static str, second: &'static str) -> Expect {
    Expect::new(format!("the proxy to do {first:?} before {second:?}"), move |t, _| {
        let at = |line: &str| t.order.iter().position(|l| l == line);
        match (at(first), at(second)) {
            (Some(a), Some(b)) if a < b => Ok(()),
            _ => Err(format!("it did {:?}", t.order)),
        }
    })
}

/// The proxy began so many connects, by its own log: also those of which the other end heard nothing.
pub fn connects(n: usize) -> Expect {
    Expect::new(format!("{n} connects to be begun"), move |t, _| {
        let begun = t.order.iter().filter(|line| line.ends_with(CONNECTS)).count();
        if begun == n { Ok(()) } else { Err(format!("it did {:?}", t.order)) }
    })
}

#[cfg(test)]
mod tests;
