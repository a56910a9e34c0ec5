//! A second implementation of the table of deadlines (`docs/TIMEOUTS.md`, The deadlines), naive and written from
//! its text, against which the machine's `poll_timeout()` is compared (V-11).
//!
//! It is told what happened and derives from it which deadlines run. It knows no bytes and no HTTP, and shares
//! nothing with the machine but the names of the deadlines. Where the contract speaks of room, it is told whether
//! the machine reads.

use std::collections::BTreeMap;
use std::time::Duration;

use tidegate_core::{DeadlineKind, Instant, TimeoutPolicy};

/// Where the client's connection stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Client {
    /// Accepted, or between two requests, and `bool`: it is the first one that is waited for.
    Silent(bool),
    /// In a request head.
    Head,
    /// A request is served, or something is answered.
    Active,
    /// FIN was sent to it.
    Lingering,
    /// Over.
    Closed,
}

/// Where the upstream's part stands.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// There is none.
    None,
    /// It is waited for.
    Queued,
    /// It is being connected to.
    Connecting,
    /// The request is sent to it, or its response read.
    Connected,
}

/// What is true at one moment.
#[derive(Clone, Debug)]
pub struct Facts {
    /// The client's connection.
    pub client: Client,
    /// The upstream.
    pub upstream: Upstream,
    /// When the request head was complete, or the answer to half a head began; `None` if there is neither.
    pub head_complete: Option<Instant>,
    /// The request's body is complete.
    pub body_complete: bool,
    /// `Expect: 100-continue`, and neither a 100 nor a body byte has come.
    pub withheld: bool,
    /// A byte of the final response has come.
    pub answered: bool,
    /// The whole head of the final response has come.
    pub response_head: bool,
    /// When a drain was asked for.
    pub drain: Option<Instant>,
    /// The error response that the total led to is being sent.
    pub total_spent: bool,
    /// The error response that the drain led to is being sent.
    pub drain_spent: bool,
    /// Bytes wait for the upstream.
    pub request_waits: bool,
    /// Bytes wait for the client.
    pub response_waits: bool,
    /// The machine reads from the client: there is room.
    pub reads_client: bool,
    /// The machine reads from the upstream: there is room.
    pub reads_upstream: bool,
}

/// The table.
#[derive(Clone, Debug)]
pub struct Reference {
    /// Limits of the connection.
    pub connection: TimeoutPolicy,
    /// Limits of the request, once it has a route.
    pub route: TimeoutPolicy,
    started: BTreeMap<u8, (DeadlineKind, Instant)>,
}

impl Reference {
    /// A client was just accepted; nothing runs until the first [`Reference::update`].
    pub fn new(connection: TimeoutPolicy, route: TimeoutPolicy) -> Reference {
        Reference { connection, route, started: BTreeMap::new() }
    }

    /// The columns "start", "stop" and "suspended": whether this deadline runs while `f` is true.
    fn runs(&self, kind: DeadlineKind, f: &Facts, now: Instant) -> bool {
        let connected = f.upstream == Upstream::Connected;
        let written = f.body_complete && !f.request_waits;
        let writing = connected && !written && !f.response_head;
        match kind {
            DeadlineKind::Total => f.head_complete.is_some() && !f.total_spent,
            DeadlineKind::Drain => {
                let is_left = match f.client {
                    // It ends by itself, unless it has no limit.
                    Client::Lingering => end(now, self.connection.linger).is_none(),
                    client => client != Client::Closed,
                };
                f.drain.is_some() && !f.drain_spent && is_left
            }
            DeadlineKind::Queue => f.upstream == Upstream::Queued,
            DeadlineKind::Connect => f.upstream == Upstream::Connecting,
            DeadlineKind::Write => writing,
            // Suspended while the client is waited for.
            DeadlineKind::WriteIdle => writing && f.request_waits,
            DeadlineKind::Read => {
                let asked = written || f.answered || (f.withheld && !f.request_waits);
                connected && asked && f.reads_upstream
            }
            DeadlineKind::ClientHead => matches!(f.client, Client::Silent(true) | Client::Head),
            DeadlineKind::ClientBody => {
                // Suspended while the upstream takes nothing, and while a 100 is waited for.
                let wanted = f.upstream != Upstream::None && !f.body_complete && f.reads_client;
                wanted && !f.request_waits && !f.withheld
            }
            DeadlineKind::ClientWrite => f.response_waits,
            DeadlineKind::KeepAlive => f.client == Client::Silent(false),
            DeadlineKind::Linger => f.client == Client::Lingering,
            _ => false,
        }
    }

    /// The column "reset": what it waited for has come, and it has its full time again if it still runs.
    pub fn reset(&mut self, kind: DeadlineKind) {
        self.started.remove(&(kind as u8));
    }

    /// Something happened at `now`, and `f` is true from now on.
    pub fn update(&mut self, f: &Facts, now: Instant) {
        for kind in DeadlineKind::ALL {
            if !self.runs(kind, f, now) {
                self.reset(kind);
                continue;
            }
            let since = match kind {
                DeadlineKind::Total => f.head_complete.unwrap_or(now),
                DeadlineKind::Drain => f.drain.unwrap_or(now),
                _ => now,
            };
            self.started.entry(kind as u8).or_insert((kind, since));
        }
    }

    /// The earliest deadline; at the same instant the outer one (T3).
    pub fn earliest(&self) -> Option<(Instant, DeadlineKind)> {
        let due = self.started.values().filter_map(|&(kind, since)| {
            use DeadlineKind::{ClientHead, Drain, KeepAlive, Linger};
            let policy = match kind {
                ClientHead | KeepAlive | Linger | Drain => &self.connection,
                _ => &self.route,
            };
            Some((end(since, policy.limit(kind))?, kind))
        });
        due.min_by_key(|&(at, kind)| (at, kind.rank(), kind as u8))
    }
}

/// When a limit that runs since then is over. None if it is off or beyond the clock's end (T8).
fn end(since: Instant, limit: Option<Duration>) -> Option<Instant> {
    let at = u64::try_from(u128::from(since.as_nanos()) + limit?.as_nanos()).ok()?;
    (at < u64::MAX).then(|| Instant::from_nanos(at))
}
