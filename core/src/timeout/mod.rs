//! The timeout policy: how long each wait may last, and what it means that one lasted longer.
//!
//! Every limit is a [`Duration`] or off. The machine turns limits into absolute instants (see the
//! deadline table, [`Deadlines`]) and decides expiry from the `now` it is given; nothing here reads a
//! clock. When each deadline starts, resets and stops is the table of `docs/TIMEOUTS.md`; the code that says so is
//! `relay/deadlines.rs`.

mod table;

use core::fmt;
use core::time::Duration;

pub use self::table::{Deadline, Deadlines, Kinds};

use crate::time::Instant;

/// Which deadline. The names are those of the command line and of `Proxy-Status` details; the order is
/// that of [`DeadlineKind::rank`].
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
#[non_exhaustive]
#[repr(u8)]
pub enum DeadlineKind {
    /// One request, from its complete head to the last response byte that the client's socket took.
    Total,
    /// Finishing what runs after a shutdown was asked.
    Drain,
    /// One attempt to connect, name resolution and every address included.
    Connect,
    /// One of several addresses of an upstream: its share of what is left of the attempt to connect. It has no
    /// limit of its own, and what runs out is never an error: the next address is tried.
    ConnectAddress,
    /// Writing the whole request, head and body. Absolute: progress does not reset it.
    Write,
    /// Each progress of the request write.
    WriteIdle,
    /// Each read of the response.
    Read,
    /// Waiting for a free upstream connection.
    Queue,
    /// A whole request head. Absolute: progress does not reset it.
    ClientHead,
    /// Each read of a request body.
    ClientBody,
    /// Each progress of the response to the client.
    ClientWrite,
    /// An idle client connection.
    KeepAlive,
    /// An idle upstream connection in the pool.
    PoolIdle,
    /// An idle tunnel.
    Tunnel,
    /// A tunnel with one direction closed.
    TunnelFin,
    /// Reading on after the end of our response, so that the client can read it.
    Linger,
}

impl DeadlineKind {
    /// How many kinds there are.
    pub const COUNT: usize = 16;

    /// Every kind, in the order of the declaration, which is that of the ranks.
    pub const ALL: [DeadlineKind; DeadlineKind::COUNT] = [
        DeadlineKind::Total,
        DeadlineKind::Drain,
        DeadlineKind::Connect,
        DeadlineKind::ConnectAddress,
        DeadlineKind::Write,
        DeadlineKind::WriteIdle,
        DeadlineKind::Read,
        DeadlineKind::Queue,
        DeadlineKind::ClientHead,
        DeadlineKind::ClientBody,
        DeadlineKind::ClientWrite,
        DeadlineKind::KeepAlive,
        DeadlineKind::PoolIdle,
        DeadlineKind::Tunnel,
        DeadlineKind::TunnelFin,
        DeadlineKind::Linger,
    ];

    /// Among deadlines due at the same instant the smallest rank fires: the total, then an upstream
    /// operation, then a client operation, then idleness (`docs/TIMEOUTS.md`, Rules, T3).
    pub const fn rank(self) -> u8 {
        match self {
            DeadlineKind::Total | DeadlineKind::Drain => 0,
            DeadlineKind::Connect
            | DeadlineKind::ConnectAddress
            | DeadlineKind::Write
            | DeadlineKind::WriteIdle
            | DeadlineKind::Read
            | DeadlineKind::Queue => 1,
            DeadlineKind::ClientHead | DeadlineKind::ClientBody | DeadlineKind::ClientWrite => 2,
            DeadlineKind::KeepAlive
            | DeadlineKind::PoolIdle
            | DeadlineKind::Tunnel
            | DeadlineKind::TunnelFin
            | DeadlineKind::Linger => 3,
        }
    }

    /// The name used in `Proxy-Status: ...; details="..."`, logs and metrics.
    pub const fn name(self) -> &'static str {
        match self {
            DeadlineKind::Total => "total",
            DeadlineKind::Connect => "connect",
            DeadlineKind::ConnectAddress => "connect-address",
            DeadlineKind::Write => "write",
            DeadlineKind::WriteIdle => "write-idle",
            DeadlineKind::Read => "read",
            DeadlineKind::Queue => "queue",
            DeadlineKind::ClientHead => "client-head",
            DeadlineKind::ClientBody => "client-body",
            DeadlineKind::ClientWrite => "client-write",
            DeadlineKind::KeepAlive => "keep-alive",
            DeadlineKind::PoolIdle => "pool-idle",
            DeadlineKind::Tunnel => "tunnel",
            DeadlineKind::TunnelFin => "tunnel-half-close",
            DeadlineKind::Linger => "linger",
            DeadlineKind::Drain => "drain",
        }
    }
}

impl fmt::Display for DeadlineKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// How long each wait may last. `None` means that it may last for ever; so does a duration that
/// overflows the clock, [`Duration::MAX`] among them. Zero means that the operation is not started
/// unless it needs no waiting (`timeouts.md` T5, T8).
///
/// ```
/// use core::time::Duration;
/// use tidegate_core::TimeoutPolicy;
///
/// let download = TimeoutPolicy { total: None, ..TimeoutPolicy::default() };
/// assert_eq!(download.read, Some(Duration::from_secs(15)));
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct TimeoutPolicy {
    /// One attempt to connect to an upstream, looking up its name and trying its addresses included. Default 1 s.
    pub connect: Option<Duration>,
    /// Writing the whole request, head and body. Default 15 s.
    pub write: Option<Duration>,
    /// Each progress of the request write; for long uploads, with `write` off. Default off.
    pub write_idle: Option<Duration>,
    /// Each read of the response. Default 15 s.
    pub read: Option<Duration>,
    /// One request, from its complete head to the last byte to the client. Default 30 s.
    pub total: Option<Duration>,
    /// Waiting for a free upstream connection. Default 1 s.
    pub queue: Option<Duration>,
    /// A whole request head. Default 15 s. A property of the connection: a route's value is not used.
    pub client_head: Option<Duration>,
    /// Each read of a request body. Default 15 s.
    pub client_body: Option<Duration>,
    /// Each progress of the response to the client. Default 15 s.
    pub client_write: Option<Duration>,
    /// An idle client connection. Default 75 s. A property of the connection: a route's value is not used.
    pub keep_alive: Option<Duration>,
    /// An idle upstream connection. Default 60 s.
    pub pool_idle: Option<Duration>,
    /// An idle tunnel. Default 1 h.
    pub tunnel: Option<Duration>,
    /// A tunnel with one direction closed. Default 30 s.
    pub tunnel_fin: Option<Duration>,
    /// Reading on after our FIN: behind an early or error response, or a body that only FIN ends; and whatever a wrapping
    /// stream needs before it can say that an orderly connection ends. Default 1 s. A property of the connection: a
    /// route's value is not used.
    pub linger: Option<Duration>,
    /// Finishing what runs after a shutdown was asked. Default 30 s. A property of the proxy: a route's value is
    /// not used.
    pub drain: Option<Duration>,
}

impl Default for TimeoutPolicy {
    fn default() -> TimeoutPolicy {
        const fn secs(n: u64) -> Option<Duration> {
            Some(Duration::from_secs(n))
        }
        TimeoutPolicy {
            connect: secs(1),
            write: secs(15),
            write_idle: None,
            read: secs(15),
            total: secs(30),
            queue: secs(1),
            client_head: secs(15),
            client_body: secs(15),
            client_write: secs(15),
            keep_alive: secs(75),
            pool_idle: secs(60),
            tunnel: secs(3600),
            tunnel_fin: secs(30),
            linger: secs(1),
            drain: secs(30),
        }
    }
}

impl TimeoutPolicy {
    /// A policy without any limit.
    pub const OFF: TimeoutPolicy = TimeoutPolicy {
        connect: None,
        write: None,
        write_idle: None,
        read: None,
        total: None,
        queue: None,
        client_head: None,
        client_body: None,
        client_write: None,
        keep_alive: None,
        pool_idle: None,
        tunnel: None,
        tunnel_fin: None,
        linger: None,
        drain: None,
    };

    /// The limit of one kind.
    pub const fn limit(&self, kind: DeadlineKind) -> Option<Duration> {
        match kind {
            DeadlineKind::Total => self.total,
            DeadlineKind::Connect => self.connect,
            // A share of the one above: `relay/deadlines.rs`.
            DeadlineKind::ConnectAddress => None,
            DeadlineKind::Write => self.write,
            DeadlineKind::WriteIdle => self.write_idle,
            DeadlineKind::Read => self.read,
            DeadlineKind::Queue => self.queue,
            DeadlineKind::ClientHead => self.client_head,
            DeadlineKind::ClientBody => self.client_body,
            DeadlineKind::ClientWrite => self.client_write,
            DeadlineKind::KeepAlive => self.keep_alive,
            DeadlineKind::PoolIdle => self.pool_idle,
            DeadlineKind::Tunnel => self.tunnel,
            DeadlineKind::TunnelFin => self.tunnel_fin,
            DeadlineKind::Linger => self.linger,
            DeadlineKind::Drain => self.drain,
        }
    }

    /// The instant at which a wait of this kind that starts `at` runs out; [`Instant::NEVER`] if it does not.
    pub fn expiry(&self, kind: DeadlineKind, at: Instant) -> Instant {
        self.limit(kind).map_or(Instant::NEVER, |limit| at + limit)
    }
}
