//! Who is believed about the hops before us, and what goes upstream about them: `X-Forwarded-For`, `-Proto` and
//! `-Host`, and `Forwarded` (RFC 7239).
//!
//! A stranger's are removed before this is asked. A trusted proxy's are read strictly and written anew, ours behind
//! them; of a list nothing is kept that stands before something malformed, so that whoever is behind the trusted proxy
//! cannot hide what that proxy itself has added. Nothing here knows what a request is for.

use alloc::vec::Vec;
use core::fmt::{self, Write};
use core::net::{IpAddr, Ipv6Addr};
use core::str::{self, FromStr};

use httparse::Header;

use super::fields::{Survey, bits, is_token, list, put_field};
use super::target::is_authority;

/// How we call ourselves where RFC 7239 asks for the address that a request came in at: an obfuscated identifier
/// (section 6.3), which shows nobody how the machines behind us are numbered.
const BY: &[u8] = b"by=_tidegate";

/// Addresses that begin with the same bits: `10.0.0.0/8`, `2001:db8::/32`, or one address alone.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Hash)]
pub struct Prefix {
    addr: IpAddr,
    len: u8,
}

/// Why a text is no [`Prefix`].
#[derive(Copy, Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PrefixError {
    /// There is no IP address before the slash.
    #[error("no IP address")]
    Address,
    /// What follows the slash is no number of bits that the address has.
    #[error("no number of bits that the address has")]
    Length,
    /// Bits of the address are set behind the prefix: one of the two is a mistake.
    #[error("the address has bits behind the prefix")]
    HostBits,
}

impl Prefix {
    /// The addresses whose first `len` bits are those of `addr`. An IPv4 address that is written as IPv6
    /// (`::ffff:192.0.2.1`) counts as the IPv4 address, with `len` counted there, too.
    ///
    /// # Errors
    ///
    /// `len` is more than the address has, or bits behind it are set.
    pub fn new(addr: IpAddr, len: u8) -> Result<Prefix, PrefixError> {
        let (addr, len) = match addr.to_canonical() {
            IpAddr::V4(v4) if addr.is_ipv6() => {
                (v4.into(), len.checked_sub(96).ok_or(PrefixError::HostBits)?)
            }
            same => (same, len),
        };
        let prefix = Prefix { addr, len };
        match prefix.mask() {
            None => Err(PrefixError::Length),
            Some(mask) if as_bits(addr) & !mask != 0 => Err(PrefixError::HostBits),
            Some(_) => Ok(prefix),
        }
    }

    /// Whether `addr` is one of them; an IPv4 address written as IPv6 counts as the IPv4 address.
    pub fn contains(&self, addr: IpAddr) -> bool {
        let addr = addr.to_canonical();
        let same = addr.is_ipv4() == self.addr.is_ipv4();
        same && self.mask().is_some_and(|mask| as_bits(addr) & mask == as_bits(self.addr))
    }

    /// The bits that count, from the top of 128; `None` if the address has not as many.
    fn mask(&self) -> Option<u128> {
        let width = if self.addr.is_ipv4() { 32 } else { 128 };
        let behind = u32::from(128u8.checked_sub(self.len).filter(|_| self.len <= width)?);
        Some(u128::MAX.checked_shl(behind).unwrap_or(0))
    }
}

/// The address's bits at the top of 128.
fn as_bits(addr: IpAddr) -> u128 {
    match addr {
        IpAddr::V4(v4) => u128::from(v4.to_bits()) << 96,
        IpAddr::V6(v6) => v6.to_bits(),
    }
}

impl From<IpAddr> for Prefix {
    fn from(addr: IpAddr) -> Prefix {
        let addr = addr.to_canonical();
        Prefix { addr, len: if addr.is_ipv4() { 32 } else { 128 } }
    }
}

impl FromStr for Prefix {
    type Err = PrefixError;

    fn from_str(text: &str) -> Result<Prefix, PrefixError> {
        let (addr, len) = text.split_once('/').map_or((text, None), |(addr, len)| (addr, Some(len)));
        let addr: IpAddr = addr.parse().map_err(|_| PrefixError::Address)?;
        let Some(len) = len else { return Ok(addr.into()) };
        let is_number = (1..=3).contains(&len.len()) && len.bytes().all(|b| b.is_ascii_digit());
        let len = len.parse().ok().filter(|_| is_number).ok_or(PrefixError::Length)?;
        Prefix::new(addr, len)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.addr, self.len)
    }
}

/// A client's address as it is written into X-Forwarded-For and Forwarded, and whether it is believed about those
/// before it: found out once a connection.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct PeerAddr {
    /// The longest address: eight groups of four digits.
    text: [u8; 39],
    len: u8,
    v6: bool,
    trusted: bool,
}

impl PeerAddr {
    /// The client at `addr`, trusted if it is one of `trusted`.
    pub fn new(addr: IpAddr, trusted: &[Prefix]) -> PeerAddr {
        // A mapped IPv4 address is written as IPv4.
        let addr = addr.to_canonical();
        let trusted = trusted.iter().any(|prefix| prefix.contains(addr));
        let mut peer = PeerAddr { text: [0; 39], len: 0, v6: addr.is_ipv6(), trusted };
        // Every address fits.
        let _ = write!(peer, "{addr}");
        peer
    }

    /// The address as text, IPv6 without brackets.
    pub fn as_bytes(&self) -> &[u8] {
        &self.text[..self.len as usize]
    }

    /// Whether what it says about the hops before it is passed on.
    pub fn is_trusted(&self) -> bool {
        self.trusted
    }
}

impl fmt::Write for PeerAddr {
    fn write_str(&mut self, s: &str) -> fmt::Result {
        let at = self.len as usize;
        let room = self.text.get_mut(at..at + s.len()).ok_or(fmt::Error)?;
        room.copy_from_slice(s.as_bytes());
        self.len += s.len() as u8;
        Ok(())
    }
}

/// What a request says about the hops before us, a bit for each line. Empty unless a trusted proxy says it.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Hops {
    pub(super) forwarded: u128,
    pub(super) x_for: u128,
    pub(super) x_host: u128,
    pub(super) x_proto: u128,
}

/// Writes where the request came from: what a trusted proxy said, as far as it is sound, and then ours. A chain that
/// came in one of the two forms goes on in that form alone: begun anew in the other, it would name the proxy as the
/// client.
pub(super) fn put_hops(
    survey: &Survey<'_>,
    fields: &[Header<'_>],
    peer: Option<&PeerAddr>,
    authority: Option<&[u8]>,
    out: &mut Vec<u8>,
) {
    let hops = survey.hops();
    let values = |lines: u128| bits(lines).map(|line| fields[line].value);
    let one = |lines: u128| values(lines).next().filter(|_| lines.count_ones() == 1);
    let begin = out.len();
    if put_list("x-forwarded-for: ", values(hops.x_for), put_addresses, out) {
        if let Some(peer) = peer {
            out.extend_from_slice(b", ");
            out.extend_from_slice(peer.as_bytes());
        }
        out.extend_from_slice(b"\r\n");
    }
    if put_list("forwarded: ", values(hops.forwarded), put_elements, out) {
        out.extend_from_slice(b", ");
        put_element(peer, authority, out);
    }
    if out.len() == begin {
        if let Some(peer) = peer {
            put_field("x-forwarded-for", peer.as_bytes(), out);
        }
        out.extend_from_slice(b"forwarded: ");
        put_element(peer, authority, out);
    }
    put_field("x-forwarded-proto", one(hops.x_proto).filter(|v| is_scheme(v)).unwrap_or(b"http"), out);
    if let Some(host) = one(hops.x_host).filter(|v| is_authority(v)).or(authority) {
        put_field("x-forwarded-host", host, out);
    }
}

/// Writes what `put` keeps of `values` as one line without an end; nothing, and false, if that is nothing. `put` adds
/// members to those behind `start`, or starts anew there.
fn put_list<'a>(
    name: &str,
    values: impl Iterator<Item = &'a [u8]>,
    put: impl Fn(&[u8], usize, &mut Vec<u8>),
    out: &mut Vec<u8>,
) -> bool {
    let begin = out.len();
    out.extend_from_slice(name.as_bytes());
    let start = out.len();
    values.for_each(|value| put(value, start, out));
    let any = out.len() > start;
    if !any {
        out.truncate(begin);
    }
    any
}

/// The members of one X-Forwarded-For line; what stands before a malformed one is dropped with it.
fn put_addresses(value: &[u8], start: usize, out: &mut Vec<u8>) {
    for member in list(value) {
        if is_address(member) {
            separate(start, out);
            out.extend_from_slice(member);
        } else {
            out.truncate(start);
        }
    }
}

/// The elements of one Forwarded line, or nothing of it and of those before it: in a line with a quote that nobody
/// closes there is no telling what is whose.
fn put_elements(value: &[u8], start: usize, out: &mut Vec<u8>) {
    if try_elements(value, start, out).is_none() {
        out.truncate(start);
    }
}

fn separate(start: usize, out: &mut Vec<u8>) {
    if out.len() > start {
        out.extend_from_slice(b", ");
    }
}

/// `1#forwarded-element` (RFC 7239 section 4), written anew: blanks around the delimiters, and elements and pairs that
/// are empty, say nothing and are not written (RFC 9110 section 5.6.1.2).
fn try_elements(value: &[u8], start: usize, out: &mut Vec<u8>) -> Option<()> {
    let (mut rest, mut seen, mut first) = (value, [false; KNOWN.len()], true);
    loop {
        let end = rest.iter().position(|b| !b",; \t".contains(b)).unwrap_or(rest.len());
        let (between, pair) = rest.split_at(end);
        if pair.is_empty() {
            return Some(());
        }
        if core::mem::replace(&mut first, false) || between.contains(&b',') {
            separate(start, out);
            seen = [false; KNOWN.len()];
        } else if between.contains(&b';') {
            out.push(b';');
        } else {
            return None;
        }
        let equals = pair.iter().position(|&b| b == b'=')?;
        let (name, after) = (&pair[..equals], &pair[equals + 1..]);
        let (text, after) = pair_value(after)?;
        let known = KNOWN.iter().position(|known| name.eq_ignore_ascii_case(known.as_bytes()));
        let sound = match known.map(|at| (KNOWN[at], core::mem::replace(&mut seen[at], true))) {
            None => is_token(name),
            // More than once in an element says nothing.
            Some((_, true)) => false,
            Some((kind, false)) => {
                let bare = text.strip_prefix(b"\"").and_then(|t| t.strip_suffix(b"\"")).unwrap_or(text);
                match kind {
                    "host" => is_authority(bare),
                    "proto" => is_scheme(bare),
                    _ => is_node(bare),
                }
            }
        };
        if !sound {
            return None;
        }
        out.extend_from_slice(name);
        out.push(b'=');
        out.extend_from_slice(text);
        rest = after;
    }
}

/// The parameters that RFC 7239 defines; what they say is looked at.
const KNOWN: [&str; 4] = ["for", "by", "host", "proto"];

/// `token / quoted-string` with its quotes, and what follows it.
fn pair_value(text: &[u8]) -> Option<(&[u8], &[u8])> {
    if text.first() != Some(&b'"') {
        let end = text.iter().position(|&b| matches!(b, b';' | b',' | b' ' | b'\t')).unwrap_or(text.len());
        return Some(text.split_at(end)).filter(|(token, _)| is_token(token));
    }
    let mut at = 1;
    loop {
        match *text.get(at)? {
            b'"' => return Some(text.split_at(at + 1)),
            // No field value has other bytes than those that a quoted string may have.
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// `for=192.0.2.1;by=_tidegate;host=example.org;proto=http` and the end of the line.
fn put_element(peer: Option<&PeerAddr>, authority: Option<&[u8]>, out: &mut Vec<u8>) {
    match peer {
        Some(peer) if peer.v6 => {
            for part in [&b"for=\"["[..], peer.as_bytes(), b"]\""] {
                out.extend_from_slice(part);
            }
        }
        Some(peer) => {
            out.extend_from_slice(b"for=");
            out.extend_from_slice(peer.as_bytes());
        }
        None => out.extend_from_slice(b"for=unknown"),
    }
    out.push(b';');
    out.extend_from_slice(BY);
    if let Some(authority) = authority {
        out.extend_from_slice(b";host=");
        // An authority has neither quotes nor backslashes.
        let quote: &[u8] = if is_token(authority) { b"" } else { b"\"" };
        for part in [quote, authority, quote] {
            out.extend_from_slice(part);
        }
    }
    out.extend_from_slice(b";proto=http\r\n");
}

/// `ALPHA *( ALPHA / DIGIT / "+" / "-" / "." )`
fn is_scheme(text: &[u8]) -> bool {
    text.first().is_some_and(u8::is_ascii_alphabetic)
        && text.iter().all(|b| b.is_ascii_alphanumeric() || b"+-.".contains(b))
}

/// A member of X-Forwarded-For: an address, with or without a port or brackets, or `unknown`.
fn is_address(text: &[u8]) -> bool {
    let is_v6 = |text: &[u8]| str::from_utf8(text).is_ok_and(|t| t.parse::<Ipv6Addr>().is_ok());
    is_v6(text) || (!text.starts_with(b"_") && is_node(text))
}

/// `nodename [ ":" node-port ]` (RFC 7239 section 6).
fn is_node(text: &[u8]) -> bool {
    let is_obfuscated = |text: &[u8]| {
        text.strip_prefix(b"_").is_some_and(|rest| {
            !rest.is_empty() && rest.iter().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(b))
        })
    };
    let end = match text {
        [b'[', ..] => text.iter().position(|&b| b == b']').map_or(text.len(), |at| at + 1),
        _ => text.iter().position(|&b| b == b':').unwrap_or(text.len()),
    };
    let (name, port) = text.split_at(end);
    let name_is_sound = match name {
        [b'[', inner @ .., b']'] => str::from_utf8(inner).is_ok_and(|t| t.parse::<Ipv6Addr>().is_ok()),
        _ if name.eq_ignore_ascii_case(b"unknown") || is_obfuscated(name) => true,
        _ => str::from_utf8(name).is_ok_and(|t| t.parse::<core::net::Ipv4Addr>().is_ok()),
    };
    let port_is_sound = match port {
        [] => true,
        [b':', port @ ..] if is_obfuscated(port) => true,
        [b':', port @ ..] => (1..=5).contains(&port.len()) && port.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    name_is_sound && port_is_sound
}
