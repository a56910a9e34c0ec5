//! The request target and the authority in it or in Host (RFC 9112 sections 3.2 and 3.3).
//!
//! Only the form is judged: path and query travel byte for byte (`http.md` L10), with no decoding, no
//! removal of dot segments, no merging of slashes.

use core::net::Ipv6Addr;

use super::HttpError;

/// A target in the parts that we forward.
#[derive(Copy, Clone, Debug)]
pub(super) struct Target<'a> {
    /// Of an absolute-form target: it replaces Host.
    pub(super) authority: Option<&'a str>,
    /// Goes in front of `rest` if that has no path of its own.
    pub(super) prefix: &'static str,
    /// Path and query as received.
    pub(super) rest: &'a str,
}

/// Judges `target` and splits it (`http.md` L1, L7, L8, L9). CONNECT is not for this function.
pub(super) fn parse_target<'a>(method: &str, target: &'a str) -> Result<Target<'a>, HttpError> {
    if !target.bytes().all(|b| matches!(b, 0x21..=0x7e) && b != b'#') {
        return Err(HttpError::Target);
    }
    if target.starts_with('/') || (target == "*" && method == "OPTIONS") {
        return Ok(Target { authority: None, prefix: "", rest: target });
    }
    // https, other schemes and authority-form end here: we serve neither.
    let (authority, rest) = split_absolute(target).ok_or(HttpError::Target)?;
    if !is_authority(authority.as_bytes()) {
        return Err(HttpError::Target);
    }
    let prefix = match rest.bytes().next() {
        Some(b'/') => "",
        None if method == "OPTIONS" => "*",
        _ => "/",
    };
    Ok(Target { authority: Some(authority), prefix, rest })
}

/// Authority, and path with query, of an `http:` URI.
pub(super) fn split_absolute(target: &str) -> Option<(&str, &str)> {
    let (scheme, rest) = target.split_at_checked("http://".len())?;
    if !scheme.eq_ignore_ascii_case("http://") {
        return None;
    }
    Some(rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len())))
}

/// `uri-host [":" port]` with a host that is not empty (RFC 9110 section 4.2.1). Two things that the grammar
/// has are refused: a comma in a name, which reads as a list of two hosts, and a port above 65535.
pub(super) fn is_authority(text: &[u8]) -> bool {
    let (host, port) = if let Some(inner) = text.strip_prefix(b"[") {
        let Some(end) = inner.iter().position(|&b| b == b']') else { return false };
        let (literal, after) = (&inner[..end], &inner[end + 1..]);
        if !is_ip_literal(literal) {
            return false;
        }
        match after {
            [] => return true,
            [b':', port @ ..] => (literal, port),
            _ => return false,
        }
    } else {
        let end = text.iter().position(|&b| b == b':').unwrap_or(text.len());
        let host = &text[..end];
        if !is_reg_name(host) {
            return false;
        }
        (host, text.get(end + 1..).unwrap_or_default())
    };
    !host.is_empty() && is_port(port)
}

fn is_port(port: &[u8]) -> bool {
    port.iter()
        .try_fold(0u32, |n, &b| {
            let n = n * 10 + u32::from(b.is_ascii_digit().then(|| b - b'0')?);
            (n <= 65535).then_some(n)
        })
        .is_some()
}

/// An IPv6 address, or `"v" 1*HEXDIG "." 1*( unreserved / sub-delims / ":" )`.
fn is_ip_literal(literal: &[u8]) -> bool {
    if let [b'v' | b'V', future @ ..] = literal {
        let Some(dot) = future.iter().position(|&b| b == b'.') else { return false };
        let (version, address) = (&future[..dot], &future[dot + 1..]);
        return !version.is_empty()
            && version.iter().all(u8::is_ascii_hexdigit)
            && !address.is_empty()
            && address.iter().all(|&b| is_name_byte(b) || b == b':');
    }
    core::str::from_utf8(literal).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
}

/// `*( unreserved / pct-encoded / sub-delims )`; an IPv4 address is one too.
fn is_reg_name(name: &[u8]) -> bool {
    let mut bytes = name.iter();
    while let Some(&byte) = bytes.next() {
        let hex = |b: Option<&u8>| b.is_some_and(u8::is_ascii_hexdigit);
        if !(is_name_byte(byte) || (byte == b'%' && hex(bytes.next()) && hex(bytes.next()))) {
            return false;
        }
    }
    true
}

fn is_name_byte(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"-._~!$&'()*+;=".contains(&b)
}
