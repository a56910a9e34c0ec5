//! `tidegate`: the proxy as a program.
//!
//! This crate holds what a program adds to the library: flags, signals, threads, listeners, logs, and a small
//! origin for whoever has none at hand. It decides nothing about HTTP or time. Exit codes: 0 after a signal, 1 if
//! it could not start or a thread has panicked, 2 after a wrong flag or value.

mod access_log;
mod flags;
mod greeting;
mod listeners;
mod log;
mod names;
mod origin;
mod run;
mod signals;
mod stderr;
mod threads;

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::process::ExitCode;

use crate::access_log::Format;
use crate::flags::Flags;

fn main() -> ExitCode {
    let flags = Flags::from_args();
    let format = flags.access_log.unwrap_or(Format::Text);
    log::start(flags.log_level, format);
    match start(&flags) {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            log::fatal(&e, format);
            ExitCode::FAILURE
        }
    }
}

/// Opens all sockets, says so, and runs until signals end it.
fn start(flags: &Flags) -> Result<(), Failure> {
    raise_descriptor_limit(flags);
    let mut sockets = Vec::new();
    for addr in &flags.listen {
        let socket = Socket::bind(*addr).map_err(|e| e.unless_ours(*addr, &sockets))?;
        sockets.push(socket);
    }
    let origin = match flags.upstreams.is_empty() {
        true => Some(Socket::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?),
        false => None,
    };
    let signals = signals::catch().map_err(|e| Failure::new("cannot watch for signals", e))?;
    greeting::say(flags, &sockets, origin.as_ref());
    run::on(flags, sockets, origin, signals)
        .map_err(|e| Failure::new(format!("cannot run on {}", flags.runtime.name()), e))
}

/// Allows as many open sockets as the system lets us: a client and its upstream are two, and the usual soft
/// limit of 1,024 exists for programs that use `select`.
fn raise_descriptor_limit(flags: &Flags) {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let maximum = getrlimit(Resource::Nofile).maximum;
    // Where it is refused the proxy runs with what it has, and accepts no more than that.
    let _ = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum });
    let wanted = 2 * flags.max_client_conns as u64;
    if let Some(allowed) = getrlimit(Resource::Nofile).current.filter(|allowed| *allowed < wanted) {
        let clients = flags.max_client_conns;
        tracing::warn!(
            allowed,
            wanted,
            clients,
            "too few descriptors for the clients, each with an upstream"
        );
    }
}

/// A listening socket that no runtime has taken over yet.
#[derive(Debug)]
struct Socket {
    listener: TcpListener,
    /// Where it really listens: the system has chosen the port by now.
    addr: SocketAddr,
}

impl Socket {
    fn bind(addr: SocketAddr) -> Result<Socket, Failure> {
        let failed = |e| Failure::new(format!("cannot listen on {addr}"), e);
        let listener = tidegate_core::runtime::bind(addr).map_err(failed)?;
        let addr = listener.local_addr().map_err(failed)?;
        Ok(Socket { listener, addr })
    }
}

/// Why the program could not start.
#[derive(Debug)]
struct Failure {
    what: String,
    why: io::Error,
    /// What has taken the port, if it was another `--listen`.
    ours: Option<SocketAddr>,
}

impl Failure {
    fn new(what: impl Into<String>, why: io::Error) -> Failure {
        Failure { what: what.into(), why, ours: None }
    }

    /// The same for an address whose port one of `sockets` may have taken.
    fn unless_ours(self, addr: SocketAddr, sockets: &[Socket]) -> Failure {
        // `[::]` stands for addresses of IPv4, too; `0.0.0.0` for none of IPv6.
        let covers = |a: SocketAddr, b: SocketAddr| {
            a.ip() == b.ip() || (a.ip().is_unspecified() && (a.is_ipv6() || b.is_ipv4()))
        };
        let is_taken_by =
            |ours: &SocketAddr| ours.port() == addr.port() && (covers(*ours, addr) || covers(addr, *ours));
        let ours = sockets.iter().map(|socket| socket.addr).find(is_taken_by);
        Failure { ours: ours.filter(|_| self.why.kind() == io::ErrorKind::AddrInUse), ..self }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.why)?;
        if let Some(ours) = self.ours {
            return write!(f, "; `--listen {ours}` has that port, and `[::]` stands for `0.0.0.0`, too");
        }
        f.write_str(match self.why.kind() {
            io::ErrorKind::AddrInUse => "; `--listen IP:PORT` chooses another address, port 0 a free one",
            io::ErrorKind::AddrNotAvailable => "; it is no address of this machine",
            io::ErrorKind::PermissionDenied => {
                "; a port below 1024 takes the capability CAP_NET_BIND_SERVICE"
            }
            _ => "",
        })
    }
}
