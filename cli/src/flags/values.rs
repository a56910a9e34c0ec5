//! The values that flags take: what is allowed, and what is said about the rest.
//!
//! Each function judges one value and names what was expected; the flag and the value itself are added by
//! the parser. Nothing here asks the system for anything.

use std::net::{IpAddr, SocketAddr};
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use tidegate_core::http::{Prefix, PrefixError};
use tidegate_core::{Target, TargetError};

/// A limit on a wait; a type of its own because `off` is a value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit(pub(super) Option<Duration>);

pub(super) fn listen(given: &str) -> Result<SocketAddr, String> {
    const EXPECTED: &str =
        "expected an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:80 or [::1]:8080";
    if let Ok(addr) = given.parse() {
        return Ok(addr);
    }
    let port = given.strip_prefix(':').unwrap_or(given);
    Err(match (given.split_once("://"), number::<u16>(port)) {
        (Some((_, rest)), _) => format!("{EXPECTED}, without a scheme: `{}`", rest.trim_end_matches('/')),
        (_, Some(port)) => format!("{EXPECTED}; `0.0.0.0:{port}` is every address of this machine"),
        _ if given.parse::<IpAddr>().is_ok() => format!("{EXPECTED}; the port is missing"),
        _ if given.starts_with("localhost:") => format!("{EXPECTED}, not a name"),
        _ => EXPECTED.to_owned(),
    })
}

pub(super) fn duration(given: &str, zero: &str) -> Result<Limit, String> {
    if given == "off" {
        return Ok(Limit(None));
    }
    match humantime::parse_duration(given) {
        Ok(Duration::ZERO) => Err(format!("{zero}; for no limit say `off`")),
        Ok(limit) => Ok(Limit(Some(limit))),
        Err(e) => Err(format!("{e}; expected a duration such as 150ms, 1s or \"1m 30s\", or `off`")),
    }
}

/// A whole number of something.
pub(super) fn count(given: &str, allowed: RangeInclusive<usize>) -> Result<usize, String> {
    let (least, most) = (allowed.start(), allowed.end());
    let expected = || format!("expected a whole number from {least} to {most}");
    number(given).filter(|n| allowed.contains(n)).ok_or_else(expected)
}

/// A limit that cannot be none.
pub(super) fn positive(given: &str) -> Result<usize, String> {
    const MOST: usize = 10_000_000;
    let zero = number(given) == Some(0);
    count(given, 1..=MOST).map_err(|e| match zero {
        true => format!("zero would refuse every request; {e}"),
        false => e,
    })
}

/// As `str::parse`, which would take a sign.
fn number<T: FromStr>(given: &str) -> Option<T> {
    given.bytes().all(|b| b.is_ascii_digit()).then(|| given.parse().ok()).flatten()
}

fn bytes(given: &str) -> Option<u64> {
    const UNITS: &[(&str, u64)] = &[
        ("KiB", 1 << 10),
        ("MiB", 1 << 20),
        ("GiB", 1 << 30),
        ("kB", 1_000),
        ("MB", 1_000_000),
        ("GB", 1_000_000_000),
    ];
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(name, size)| Some((given.strip_suffix(name)?.trim_end(), *size)))
        .unwrap_or((given, 1));
    number::<u64>(digits)?.checked_mul(unit)
}

pub(super) fn max_head(given: &str) -> Result<usize, String> {
    bytes(given)
        .and_then(|size| usize::try_from(size).ok())
        .filter(|size| (1 << 10..=1 << 20).contains(size))
        .ok_or_else(|| "expected bytes from 1KiB to 1MiB, such as 16384, 64KiB or 100kB".to_owned())
}

/// A limit on bytes; a type of its own because `off` is a value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct MaxBody(pub(super) Option<u64>);

pub(super) fn byte_limit(given: &str) -> Result<MaxBody, String> {
    match (given, bytes(given)) {
        ("off", _) => Ok(MaxBody(None)),
        // Elsewhere zero means that there is no limit.
        (_, Some(0)) => Err("zero would refuse every request with a body; for no limit say `off`".to_owned()),
        (_, Some(size)) => Ok(MaxBody(Some(size))),
        (_, None) => Err("expected bytes, such as 16384, 64KiB or 10MiB, or `off`".to_owned()),
    }
}

/// A protocol as the field Upgrade names it (RFC 9110 section 7.8), or `off`.
pub(super) fn protocol(given: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected a protocol as Upgrade names it, such as websocket, or `off`";
    let is_token = |text: &str| {
        !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b))
    };
    let (name, version) = given.split_once('/').map_or((given, None), |(n, v)| (n, Some(v)));
    if !is_token(name) || !version.is_none_or(is_token) {
        return Err(EXPECTED.to_owned());
    }
    if ["h2c", "h2", "http"].iter().any(|http| name.eq_ignore_ascii_case(http)) {
        return Err(format!("HTTP inside a tunnel would pass unchecked; {EXPECTED}"));
    }
    Ok(given.to_owned())
}

/// An address, or all that begin with the same bits.
pub(super) fn trusted(given: &str) -> Result<Prefix, String> {
    given.parse().map_err(|why: PrefixError| {
        format!("{why}; expected an IP address, or a prefix such as 10.0.0.0/8 or 2001:db8::/32")
    })
}

/// What is wrong with the form is said in more words than the library has.
pub(super) fn upstream(given: &str) -> Result<Target, String> {
    const EXPECTED: &str = "expected a host and a port, such as 127.0.0.1:9000, [::1]:9000 or localhost:9000";
    if let Some((scheme, rest)) = given.split_once("://") {
        let authority = rest.split('/').next().unwrap_or_default();
        let port = if authority.rsplit(']').next().is_some_and(|end| end.contains(':')) { "" } else { ":80" };
        return Err(match scheme {
            "https" => format!("{EXPECTED}, without a scheme; upstreams are spoken to in plain HTTP"),
            _ => format!("{EXPECTED}, without a scheme: `{authority}{port}`"),
        });
    }
    let in_brackets = |host: &str| host.starts_with('[') && host.ends_with(']');
    if in_brackets(given) || !given.contains(':') {
        return Err(format!("{EXPECTED}; the port is missing"));
    }
    let (host, port) = given.rsplit_once(':').ok_or(EXPECTED)?;
    if host.contains(':') && !in_brackets(host) {
        return Err(format!("{EXPECTED}; an IPv6 address stands in brackets"));
    }
    if port.contains('/') {
        return Err(format!("{EXPECTED}, without a path"));
    }
    given.parse().map_err(|e| match e {
        TargetError::Port => format!("{EXPECTED}; the port is a number from 1 to 65535"),
        _ => EXPECTED.to_owned(),
    })
}
