//! What the program says when it starts: where it listens, where it forwards to, and what to try.
//!
//! Once, on standard error; nothing is printed per request.

use std::io::Write as _;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::Duration;

use tidegate_core::TimeoutPolicy;
use tracing::{Level, enabled, info};

use crate::Socket;
use crate::access_log::Format;
use crate::flags::Flags;
use crate::origin;
use crate::stderr::Stderr;

/// What runs: a line for each address. That of a listener is the real one, also for port 0.
pub(crate) fn say(flags: &Flags, sockets: &[Socket], origin: Option<&Socket>) {
    info!(version = %env!("CARGO_PKG_VERSION"), runtime = %flags.runtime.name(), "tidegate starts");
    for socket in sockets {
        info!(address = %socket.addr, "listening");
    }
    for upstream in &flags.upstreams {
        info!(%upstream, "forwarding");
    }
    if let Some(origin) = origin {
        info!(upstream = %"built-in", address = %origin.addr, "forwarding");
    }
    // For a person, who reads text: in an event it would be one long line.
    let reads = enabled!(Level::INFO) && flags.access_log != Some(Format::Json);
    if let (Some(_), Some(first), true) = (origin, sockets.first(), reads) {
        let _ = Stderr.write(what_to_try(reachable(first.addr), &flags.timeouts).as_bytes());
    }
}

fn what_to_try(at: SocketAddr, timeouts: &TimeoutPolicy) -> String {
    let slow = what_slow_shows(timeouts);
    format!(
        "
Try:
  curl -i http://{at}/                what the origin offers
  curl -i http://{at}/echo -d hello   what you send comes back
  curl -N http://{at}/drip            one byte at a time: slow, but never silent
  curl -i http://{at}/slow            {slow}

"
    )
}

fn what_slow_shows(timeouts: &TimeoutPolicy) -> String {
    let slow = humantime::format_duration(origin::slow(timeouts));
    match origin::first_deadline(timeouts) {
        Some((kind, after)) => {
            let sooner = match after > Duration::from_secs(2) {
                true => format!(" (sooner with `--{kind}-timeout 2s`)"),
                false => String::new(),
            };
            let after = humantime::format_duration(after);
            format!("silent for {slow}: after {after} a 504, details=\"{kind}\"{sooner}")
        }
        None => format!("silent for {slow}; no deadline is set that could end it"),
    }
}

/// An address that a client on this machine can use: a wildcard is no destination.
fn reachable(addr: SocketAddr) -> SocketAddr {
    let ip = match addr.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    SocketAddr::new(ip, addr.port())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_slow_line_names_the_deadline_that_fires() {
        let default = TimeoutPolicy::default();
        let text = what_slow_shows(&default);
        assert_eq!(
            text,
            "silent for 16s: after 15s a 504, details=\"read\" (sooner with `--read-timeout 2s`)"
        );

        let total = TimeoutPolicy { total: Some(Duration::from_secs(1)), ..default };
        assert_eq!(what_slow_shows(&total), "silent for 2s: after 1s a 504, details=\"total\"");

        let off = TimeoutPolicy { read: None, total: None, ..default };
        assert!(what_slow_shows(&off).contains("no deadline"));
    }

    #[test]
    fn a_wildcard_is_shown_as_loopback() {
        assert_eq!(reachable(SocketAddr::from(([0, 0, 0, 0], 80))).to_string(), "127.0.0.1:80");
        assert_eq!(reachable(SocketAddr::from(([192, 0, 2, 1], 80))).to_string(), "192.0.2.1:80");
    }
}
