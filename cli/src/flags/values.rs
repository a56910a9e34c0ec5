//! The values that flags take: what is allowed, and what is said about the rest.
//!
//! Each function judges one value and names what was expected; the flag and the value itself are added by
//! the parser. Nothing here asks the system for anything.

use std::net::SocketAddr;
use std::ops::RangeInclusive;
use std::str::FromStr;
use std::time::Duration;

use tidegate_core::{Target, TargetError};

/// A limit on a wait; a type of its own because `off` is a value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct Limit(pub(super) Option<Duration>);

pub(super) fn listen(given: &str) -> Result<SocketAddr, String> {
    given.parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:80 or [::1]:8080".to_owned()
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

pub(super) fn upstream(given: &str) -> Result<Target, String> {
    if given.contains("://") {
        return Err(format!("{}, without a scheme", TargetError::Form));
    }
    given.parse().map_err(|e: TargetError| e.to_string())
}
