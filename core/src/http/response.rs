//! Response heads: judging the upstream's, and writing the one that goes to the client in its place.
//!
//! The upstream is not trusted more than the client: what is ambiguous becomes a 502 (`http.md` section 5).
//! What delimits a body may change on the way, since HTTP/1.0 clients know no chunks and we keep
//! connections that the upstream closes. No body byte is looked at here.

use alloc::vec::Vec;
use core::mem::MaybeUninit;

use httparse::Header;

use super::fields::{self, Direction, MAX_FIELDS, Survey, put_decimal, put_field, put_framing, put_upgrade};
use super::{Framing, HttpDate, HttpError, Version};

/// What the client's side of the exchange brings with it.
#[derive(Copy, Clone, Debug)]
pub struct ResponseContext<'a> {
    /// Whether the request was HEAD.
    pub to_head: bool,
    /// The client's version.
    pub client: Version,
    /// Whether the client's connection may stay open, as far as the relay knows.
    pub keep_alive: bool,
    /// The protocol that the request asked for, if it is complete: what a 101 may switch to.
    pub upgrade: Option<&'a str>,
    /// For responses without a Date.
    pub date: &'a HttpDate,
}

/// What the relay must know of a response.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct ResponseInfo {
    /// 100 to 599.
    pub status: u16,
    /// A 1xx other than 101: the final response is still to come.
    pub interim: bool,
    /// How the body comes from the upstream; none for HEAD, 1xx, 204 and 304. After a 101 it is the tunnel.
    pub framing: Framing,
    /// Whether the upstream keeps its connection after a complete response: HTTP/1.1, no `close`, a body that
    /// ends by itself.
    pub reusable: bool,
    /// It announces a body that must not follow, to HEAD or with 304 (to HEAD it does unless it says that there would be
    /// none): from many a server it follows all the same.
    pub suspect: bool,
    /// How the body goes to the client.
    pub relayed: Framing,
    /// Whether the client was told that its connection stays open.
    pub keep_alive: bool,
}

/// Judges a complete head from the upstream, as [`HeadScan`](super::HeadScan) found it, and appends to `out`
/// the head that goes to the client: nothing for an interim response to an HTTP/1.0 client (`http.md` E2). On
/// an error `out` is as it was.
///
/// # Errors
///
/// [`HttpError::Malformed`], `HeadTooLarge` (more than 128 fields), `Version`, `Framing`, `TransferCoding`;
/// [`HttpError::UnexpectedUpgrade`] for every 101 but one that switches to the protocol that was asked for.
///
/// ```
/// use tidegate_core::http::{Framing, HttpDate, HttpError, ResponseContext, Version, rewrite_response};
///
/// let date = HttpDate::from_unix(784_111_777);
/// let cx = ResponseContext { to_head: false, client: Version::Http11, keep_alive: true, upgrade: None, date: &date };
/// let mut out = Vec::new();
/// // Only the end of the upstream's connection ends this body. The client is sent chunks, and keeps its connection.
/// let info = rewrite_response(b"HTTP/1.0 200 OK\r\nKeep-Alive: 5\r\n\r\n", &cx, &mut out)?;
/// assert_eq!((info.status, info.reusable, info.keep_alive), (200, false, true));
/// assert_eq!((info.framing, info.relayed), (Framing::UntilClose, Framing::Chunked));
/// let head = String::from_utf8_lossy(&out);
/// assert!(head.starts_with("HTTP/1.1 200 OK\r\n") && head.contains("transfer-encoding: chunked"), "{head}");
/// assert!(!head.contains("keep-alive: 5"), "what was said to us alone stays here: {head}");
/// # Ok::<(), HttpError>(())
/// ```
pub fn rewrite_response(
    head: &[u8],
    cx: &ResponseContext<'_>,
    out: &mut Vec<u8>,
) -> Result<ResponseInfo, HttpError> {
    let mut storage = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Response::new(&mut []);
    if matches!(head.first(), None | Some(b'\r' | b'\n')) {
        return Err(HttpError::Malformed);
    }
    let config = httparse::ParserConfig::default();
    match config.parse_response_with_uninit_headers(&mut parsed, head, &mut storage) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Ok(_) => return Err(HttpError::Malformed),
        Err(httparse::Error::Version) => return Err(HttpError::Version),
        Err(e) => return Err(fields::parse_error(e)),
    }
    let (Some(status @ 100..=599), Some(minor)) = (parsed.code, parsed.version) else {
        return Err(HttpError::Malformed);
    };
    let http10 = minor == 0;
    let survey = Survey::of(parsed.headers, Direction::Response, http10, false)?;
    let upgrade = if status == 101 { Some(switched(&survey, parsed.headers, cx)?) } else { None };
    let interim = status < 200 && upgrade.is_none();
    let framing = match survey.length {
        _ if upgrade.is_some() => Framing::UntilClose,
        _ if interim || cx.to_head || matches!(status, 204 | 304) => Framing::None,
        _ if survey.chunked => Framing::Chunked,
        Some(n) => Framing::Length(n),
        None => Framing::UntilClose,
    };
    let relayed = match (framing, cx.client) {
        _ if upgrade.is_some() => Framing::UntilClose,
        (Framing::Chunked | Framing::UntilClose, Version::Http10) => Framing::UntilClose,
        (Framing::UntilClose, Version::Http11) => Framing::Chunked,
        (as_received, _) => as_received,
    };
    let announced = survey.chunked || survey.length.is_some_and(|n| n > 0);
    // A 1xx or 204 that announces a body may well send one: what follows it is anybody's guess.
    let contradictory = (interim || status == 204) && announced;
    let suspect = match framing {
        Framing::None if status == 304 => announced,
        Framing::None => cx.to_head && !interim && status != 204 && survey.length != Some(0),
        _ => false,
    };
    let info = ResponseInfo {
        status,
        interim,
        framing,
        reusable: !http10 && !survey.close && framing != Framing::UntilClose && !contradictory,
        suspect,
        relayed,
        keep_alive: cx.keep_alive && relayed != Framing::UntilClose,
    };
    if interim && cx.client == Version::Http10 {
        return Ok(info);
    }

    out.reserve(head.len() + 128);
    out.extend_from_slice(b"HTTP/1.1 ");
    put_decimal(u64::from(status), out);
    out.push(b' ');
    // Empty if it holds obs-text.
    out.extend_from_slice(parsed.reason.unwrap_or_default().as_bytes());
    out.extend_from_slice(b"\r\n");
    survey.write(parsed.headers, None, out);
    if let Some(protocol) = upgrade {
        put_upgrade(protocol, out);
    } else if !interim {
        put_framing(
            match survey.length {
                // What the body would be; to HEAD and with 304 it says so without a body (RFC 9110 8.6).
                Some(n) if framing == Framing::None && status != 204 => Framing::Length(n),
                _ => relayed,
            },
            out,
        );
        if !survey.has_date() {
            put_field("date", cx.date.as_bytes(), out);
        }
        put_persistence(info.keep_alive, cx.client, out);
    }
    out.extend_from_slice(b"\r\n");
    Ok(info)
}

/// The protocol that a 101 switches to: the one that was asked for, named once, and no message around it
/// (`http.md` U1).
fn switched<'c>(
    survey: &Survey<'_>,
    fields: &[Header<'_>],
    cx: &ResponseContext<'c>,
) -> Result<&'c str, HttpError> {
    let mut named = survey.protocols(fields);
    let framed = survey.chunked || survey.length.is_some_and(|n| n > 0);
    match (cx.upgrade, named.next(), named.next()) {
        (Some(asked), Some(protocol), None) if protocol.eq_ignore_ascii_case(asked.as_bytes()) && !framed => {
            Ok(asked)
        }
        _ => Err(HttpError::UnexpectedUpgrade),
    }
}

/// Says whether the connection stays open, unless the client expects that anyway.
pub(super) fn put_persistence(keep_alive: bool, client: Version, out: &mut Vec<u8>) {
    match (keep_alive, client) {
        (false, _) => put_field("connection", b"close", out),
        (true, Version::Http10) => put_field("connection", b"keep-alive", out),
        (true, Version::Http11) => {}
    }
}
