//! Request heads: judging one, and writing the one that goes upstream in its place.
//!
//! Everything that could be understood in two ways is refused (`http.md` sections 1 to 3); there are no
//! options for leniency. What goes upstream is written by us from the parsed parts, with one Host and one
//! framing. Nothing here looks at body bytes or knows where a request will go.

use alloc::string::String;
use alloc::vec::Vec;
use core::fmt;
use core::mem::MaybeUninit;
use core::str;

use memchr::memchr;

use super::fields::{self, Direction, MAX_FIELDS, Survey, put_field, put_framing, put_upgrade};
use super::ids::{IdSource, REQUEST_ID, TRACEPARENT, is_request_id, parse_traceparent, put_ids};
use super::target::{Target, is_authority, parse_target, split_absolute};
use super::trust::{PeerAddr, put_hops};
use super::{Framing, HttpError};

/// The longest method (`http.md` B1); registered ones have 17 letters at most.
const MAX_METHOD: usize = 64;

/// The version in a start-line.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Version {
    /// HTTP/1.0
    Http10,
    /// HTTP/1.1
    Http11,
}

/// What the relay must know of a request.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct RequestInfo {
    /// The client's version.
    pub version: Version,
    /// How the body is framed, on both sides: no framing is changed on the way.
    pub framing: Framing,
    /// Whether the client wants to keep its connection (RFC 9112 section 9.3, `http.md` C1).
    pub keep_alive: bool,
    /// Whether the client may hold back the body until the upstream's 100 comes: never where the upstream is not told of
    /// it, by an HTTP/1.0 client or because Connection names the field.
    pub expect_continue: bool,
    /// Whether the method is HEAD, the response to which has no body.
    pub is_head: bool,
    /// Whether sending it twice does what sending it once does (RFC 9110 section 9.2.2).
    pub idempotent: bool,
    /// OPTIONS or TRACE with `Max-Forwards: 0`: must not be forwarded but answered here (`http.md` L12).
    pub last_hop: bool,
    /// Which of the protocols that may pass was asked for, by its place in their list (`http.md` U4).
    pub upgrade: Option<u16>,
}

/// Judges a complete head, as [`HeadScan`](super::HeadScan) found it, and appends to `out` the head that goes
/// upstream. `peer` is the client, for X-Forwarded-For and Forwarded. Of the protocols that an Upgrade names, the first
/// that is in `upgrades` (in any case) goes with it, and no other. A request without an id of its own gets one from
/// `ids`. On an error `out` is as it was.
///
/// # Errors
///
/// [`HttpError::Malformed`], `HeadTooLarge` (more than 128 fields), `Version`, `Connect`, `Target`, `Host`,
/// `Framing`, `TransferCoding`.
pub fn rewrite_request(
    head: &[u8],
    peer: Option<&PeerAddr>,
    upgrades: &[String],
    ids: &mut IdSource,
    out: &mut Vec<u8>,
) -> Result<RequestInfo, HttpError> {
    let mut storage = [const { MaybeUninit::uninit() }; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut []);
    // httparse skips any number of empty lines; skipping them, in bounds, is the relay's.
    if matches!(head.first(), None | Some(b'\r' | b'\n')) {
        return Err(HttpError::Malformed);
    }
    match parsed.parse_with_uninit_headers(head, &mut storage) {
        Ok(httparse::Status::Complete(n)) if n == head.len() => {}
        Ok(_) => return Err(HttpError::Malformed),
        Err(httparse::Error::Version) => return Err(version_error(head)),
        Err(e) => return Err(fields::parse_error(e)),
    }
    let (Some(method), Some(target), Some(minor)) = (parsed.method, parsed.path, parsed.version) else {
        return Err(HttpError::Malformed);
    };
    if method.len() > MAX_METHOD {
        return Err(HttpError::Malformed);
    }
    if method == "CONNECT" {
        return Err(HttpError::Connect);
    }
    let version = if minor == 0 { Version::Http10 } else { Version::Http11 };
    let http10 = version == Version::Http10;
    let target = parse_target(method, target)?;
    let trusted = peer.is_some_and(PeerAddr::is_trusted);
    let mut survey = Survey::of(parsed.headers, Direction::Request, http10, trusted)?;
    let host = host(&survey, http10)?;
    // For other methods the field means nothing (RFC 9110 section 7.6.2).
    let max_forwards = match method {
        "OPTIONS" | "TRACE" => max_forwards(&survey)?,
        _ => None,
    };
    let framing = match survey.length {
        _ if survey.chunked => Framing::Chunked,
        Some(n) => Framing::Length(n),
        None => Framing::None,
    };
    // With a body it stays here: there are servers (whatever llhttp parses) that take the body for the tunnel's bytes.
    let upgrade = match framing.is_bodiless() {
        true => survey.protocols(parsed.headers).find_map(|wanted| allowed(wanted, upgrades)),
        false => None,
    };

    out.reserve(head.len() + 448);
    put_request_line(method, &target, out);
    let authority = target.authority.map(str::as_bytes).or(host);
    put_field("host", authority.unwrap_or_default(), out);
    // Near the top: whoever observes looks for them.
    put_ids(&mut survey, ids, out);
    let replaced = max_forwards.map(|(line, n)| (line, n.saturating_sub(1)));
    survey.write(parsed.headers, replaced, out);
    put_framing(framing, out);
    if let Some((_, protocol)) = upgrade {
        put_upgrade(protocol, out);
    }
    put_field("via", if http10 { b"1.0 tidegate" } else { b"1.1 tidegate" }, out);
    put_hops(&survey, parsed.headers, peer, authority, out);
    out.extend_from_slice(b"\r\n");

    Ok(RequestInfo {
        version,
        framing,
        keep_alive: !survey.close && (!http10 || survey.keep_alive),
        expect_continue: survey.expect_continue,
        is_head: method == "HEAD",
        idempotent: matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "PUT" | "DELETE"),
        last_hop: max_forwards.is_some_and(|(_, n)| n == 0),
        upgrade: upgrade.map(|(place, _)| place),
    })
}

/// Which of `upgrades` a protocol is, if it is one. A second HTTP inside the connection would carry requests past
/// everything that is checked here: it never is (`http.md` U4).
fn allowed<'u>(wanted: &[u8], upgrades: &'u [String]) -> Option<(u16, &'u str)> {
    let mut parts = wanted.split(|&b| b == b'/');
    let (name, version) = (parts.next()?, parts.next());
    let is_protocol =
        fields::is_token(name) && version.is_none_or(fields::is_token) && parts.next().is_none();
    let is_http = ["h2c", "h2", "http"].iter().any(|http| name.eq_ignore_ascii_case(http.as_bytes()));
    if !is_protocol || is_http {
        return None;
    }
    let place = upgrades.iter().position(|known| wanted.eq_ignore_ascii_case(known.as_bytes()))?;
    Some((u16::try_from(place).ok()?, &upgrades[place]))
}

/// A version that we do not speak, or something that is not a version at all? Method and target are good, so
/// that the version is all that follows the second space.
fn version_error(head: &[u8]) -> HttpError {
    let line = split_line(head).0;
    match line.splitn(3, |&b| b == b' ').nth(2).and_then(|version| version.strip_prefix(b"HTTP/")) {
        Some([major, b'.', minor]) if major.is_ascii_digit() && minor.is_ascii_digit() => HttpError::Version,
        _ => HttpError::Malformed,
    }
}

/// The value of Host, if there is one that says something (`http.md` L6). An empty one is grammatical, but
/// no `http` URI has an empty host (RFC 9110 section 4.2.1).
fn host<'a>(survey: &Survey<'a>, http10: bool) -> Result<Option<&'a [u8]>, HttpError> {
    match (survey.host_lines, survey.host) {
        (0, _) | (1, Some(b"")) if http10 => Ok(None),
        (1, Some(value)) if is_authority(value) => Ok(Some(value)),
        _ => Err(HttpError::Host),
    }
}

/// Which line is Max-Forwards, and its value (`http.md` L12); too large a value counts as the largest.
fn max_forwards(survey: &Survey<'_>) -> Result<Option<(usize, u64)>, HttpError> {
    match (survey.max_forwards_lines, survey.max_forwards) {
        (1, Some((line, value))) if !value.is_empty() && value.iter().all(u8::is_ascii_digit) => {
            Ok(Some((line, fields::parse_decimal(value).unwrap_or(u64::MAX))))
        }
        (0, _) => Ok(None),
        _ => Err(HttpError::Malformed),
    }
}

fn put_request_line(method: &str, target: &Target<'_>, out: &mut Vec<u8>) {
    for part in [method, " ", target.prefix, target.rest, " HTTP/1.1\r\n"] {
        out.extend_from_slice(part.as_bytes());
    }
}

/// A view of a head that [`rewrite_request`] has accepted. It splits lines when asked and keeps nothing; of a head
/// that was not accepted it shows something, without panicking.
///
/// A route is shown the head as the client sent it: hop-by-hop fields are there, and what the proxy adds is not. A
/// report has the head as it was written for the upstream.
///
/// ```
/// use tidegate_core::RequestHead;
///
/// let head = RequestHead::new(b"GET /a%20b?c=d HTTP/1.1\r\nHost: example.org:80\r\nAccept: text/html\r\n\r\n");
/// assert_eq!((head.method(), head.target(), head.path()), ("GET", "/a%20b?c=d", "/a%20b"));
/// assert_eq!(head.host(), Some("example.org:80"));
/// assert_eq!(head.field("accept"), Some(&b"text/html"[..]));
/// assert_eq!(head.request_id(), None, "the proxy makes one for the upstream");
/// ```
#[derive(Copy, Clone)]
pub struct RequestHead<'a> {
    head: &'a [u8],
}

impl<'a> RequestHead<'a> {
    /// A view of `head`, blank line included.
    pub fn new(head: &'a [u8]) -> Self {
        RequestHead { head }
    }

    /// The method; case-sensitive.
    pub fn method(&self) -> &'a str {
        self.start_line().0
    }

    /// The request target as it stands in the head.
    pub fn target(&self) -> &'a str {
        self.start_line().1
    }

    /// The path, without the query and not decoded; of an absolute-form target the path in it. `*` for the server
    /// as a whole, in whichever of its two forms (RFC 9112 section 3.2.4).
    pub fn path(&self) -> &'a str {
        let (method, target, _) = self.start_line();
        let rest = match split_absolute(target) {
            Some((_, "")) if method == "OPTIONS" => "*",
            Some((_, rest)) => rest,
            None => target,
        };
        match rest.split('?').next() {
            None | Some("") => "/",
            Some(path) => path,
        }
    }

    /// The client's version.
    pub fn version(&self) -> Version {
        if self.start_line().2.ends_with("1.0") { Version::Http10 } else { Version::Http11 }
    }

    /// The host, with its port if it has one: of an absolute-form target, else of Host. `None` only from
    /// HTTP/1.0 clients.
    pub fn host(&self) -> Option<&'a str> {
        if let Some((authority, _)) = split_absolute(self.target()) {
            return Some(authority);
        }
        let value = str::from_utf8(self.field("host")?).ok()?;
        (!value.is_empty()).then_some(value)
    }

    /// The field lines in order, names as they are written. Blanks around a value are left out.
    pub fn fields(&self) -> impl Iterator<Item = (&'a str, &'a [u8])> + use<'a> {
        let mut rest = split_line(self.head).1;
        core::iter::from_fn(move || {
            let (line, after) = split_line(rest);
            rest = after;
            let colon = memchr(b':', line)?;
            let name = str::from_utf8(&line[..colon]).unwrap_or_default();
            Some((name, fields::trim(&line[colon + 1..])))
        })
    }

    /// The value of the first field called `name`, in any case.
    pub fn field(&self, name: &str) -> Option<&'a [u8]> {
        self.fields().find(|(n, _)| n.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// The value of `x-request-id`, if it is one that the proxy passes on. Of the head that goes upstream it is the
    /// request's id.
    pub fn request_id(&self) -> Option<&'a str> {
        str::from_utf8(self.field(REQUEST_ID).filter(|id| is_request_id(id))?).ok()
    }

    /// The trace-id in a valid `traceparent`: 32 lower-case hexadecimal digits.
    pub fn trace_id(&self) -> Option<&'a str> {
        let value = self.field(TRACEPARENT)?;
        let (trace_id, _) = parse_traceparent(value)?;
        str::from_utf8(trace_id).ok()
    }

    /// Method, target, version.
    fn start_line(&self) -> (&'a str, &'a str, &'a str) {
        let line = str::from_utf8(split_line(self.head).0).unwrap_or_default();
        let mut parts = line.splitn(3, ' ').map(Some).chain(core::iter::repeat(None));
        let mut part = || parts.next().flatten().unwrap_or_default();
        (part(), part(), part())
    }
}

impl fmt::Debug for RequestHead<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Fields may hold credentials.
        let (method, target, _) = self.start_line();
        f.debug_struct("RequestHead")
            .field("method", &method)
            .field("target", &target)
            .finish_non_exhaustive()
    }
}

/// The first line without its CRLF, and what follows it.
fn split_line(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr(b'\n', text) {
        Some(lf) => (text[..lf].strip_suffix(b"\r").unwrap_or(&text[..lf]), &text[lf + 1..]),
        None => (text, &[]),
    }
}
