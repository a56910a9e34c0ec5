//! What requests and responses share: field names, the framing fields, Connection, and writing lines.
//!
//! One pass ([`Survey::of`]) judges all field lines and notes in a bit set which ones do not travel; a second
//! ([`Survey::write`]) writes those that do. Names are told apart by their length first. Nothing here
//! allocates; no line goes out that has not been parsed.

use alloc::vec::Vec;
use core::mem;

use httparse::Header;

use super::trust::Hops;
use super::{Framing, HttpError};

/// Field lines in a head; one bit each in a [`Survey`]. More are [`HttpError::HeadTooLarge`].
pub(super) const MAX_FIELDS: usize = 128;
/// Connection options other than the well-known ones: each is compared with every field name.
const MAX_OPTIONS: usize = 64;

/// The field names that mean something to us.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Name {
    Host,
    ContentLength,
    TransferEncoding,
    Connection,
    Upgrade,
    Expect,
    MaxForwards,
    Date,
    TraceParent,
    TraceState,
    RequestId,
    /// Concerns one hop only, whatever Connection says (`http.md` H2).
    HopByHop,
    /// What a request says about hops before us: passed on only if a trusted proxy says it.
    Forwarding(Hop),
    Other,
}

/// Which field about the hops before us.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Hop {
    Forwarded,
    For,
    Host,
    Proto,
    /// One that we do not write, but that servers behind a proxy are known to believe.
    Foreign,
    /// Never passed on: read as one of the others by servers to which `_` and `-` are the same (CGI and what follows
    /// it; to some every sign is `_`), or a response's Proxy-Status.
    Disguised,
}

fn name(text: &str) -> Name {
    let is = |known: &str| text.eq_ignore_ascii_case(known);
    match text.len() {
        2 if is("te") => Name::HopByHop,
        4 if is("host") => Name::Host,
        4 if is("date") => Name::Date,
        6 if is("expect") => Name::Expect,
        7 if is("upgrade") => Name::Upgrade,
        7 if is("trailer") => Name::HopByHop,
        9 if is("forwarded") => Name::Forwarding(Hop::Forwarded),
        10 if is("connection") => Name::Connection,
        10 if is("keep-alive") => Name::HopByHop,
        10 if is("tracestate") => Name::TraceState,
        11 if is("traceparent") => Name::TraceParent,
        12 if is("max-forwards") => Name::MaxForwards,
        12 if is("x-request-id") => Name::RequestId,
        14 if is("content-length") => Name::ContentLength,
        14 if is("http2-settings") => Name::HopByHop,
        12 if is("proxy-status") => Name::Forwarding(Hop::Disguised),
        15 if is("x-forwarded-for") => Name::Forwarding(Hop::For),
        16 if is("proxy-connection") => Name::HopByHop,
        16 if is("x-forwarded-host") => Name::Forwarding(Hop::Host),
        17 if is("transfer-encoding") => Name::TransferEncoding,
        17 if is("x-forwarded-proto") => Name::Forwarding(Hop::Proto),
        _ => forwarding_like(text.as_bytes()),
    }
}

/// Names that servers may take for one about the hops before us, or for another that we write: the framing's, too.
fn forwarding_like(text: &[u8]) -> Name {
    let is_sign = |b: &u8| !b.is_ascii_alphanumeric();
    let is = |known: &[u8], text: &[u8]| {
        let same = |(k, t): (&u8, &u8)| k.eq_ignore_ascii_case(t) || (*k == b'-' && is_sign(t));
        known.len() == text.len() && known.iter().zip(text).all(same)
    };
    let prefix = text.get(..11).is_some_and(|prefix| is(b"x-forwarded", prefix));
    // With hyphens the last two were told apart before.
    let named =
        [&b"x-real-ip"[..], b"x-request-id", b"proxy-status", b"content-length", b"transfer-encoding"]
            .iter()
            .any(|known| is(known, text));
    let like = named || (prefix && text.get(11).is_some_and(is_sign));
    match like {
        false => Name::Other,
        true if text.iter().any(|b| *b != b'-' && is_sign(b)) => Name::Forwarding(Hop::Disguised),
        true => Name::Forwarding(Hop::Foreign),
    }
}

/// Whether the fields are a request's or a response's.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) enum Direction {
    Request,
    Response,
}

/// A field that has one value or none: repeated, or named by Connection, it says nothing.
#[derive(Copy, Clone, Debug, Default)]
pub(super) struct Once<'a> {
    /// A bit for each of its lines.
    lines: u128,
    pub(super) value: Option<&'a [u8]>,
}

impl<'a> Once<'a> {
    fn note(&mut self, line: usize, value: &'a [u8]) {
        self.value = (self.lines == 0).then_some(value);
        self.lines |= 1 << line;
    }
}

/// What the field lines of a head say.
#[derive(Debug, Default)]
pub(super) struct Survey<'a> {
    /// A bit for each line that does not travel as it is.
    removed: u128,
    /// A bit for each Date line.
    dates: u128,
    /// A bit for each Upgrade line.
    upgrades: u128,
    /// Connection says that Upgrade is meant for this hop; never so in HTTP/1.0.
    upgrade: bool,
    /// Which line is Max-Forwards (the last one), and how many there are.
    pub(super) max_forwards: Option<(usize, &'a [u8])>,
    pub(super) max_forwards_lines: usize,
    /// The value of Host (the last one), and how many there are.
    pub(super) host: Option<&'a [u8]>,
    pub(super) host_lines: usize,
    /// Of a request from a trusted proxy; replaced.
    hops: Hops,
    /// Of a request; both are replaced.
    pub(super) traceparent: Once<'a>,
    pub(super) request_id: Once<'a>,
    /// A bit for each Tracestate line.
    pub(super) tracestate: u128,
    pub(super) length: Option<u64>,
    pub(super) chunked: bool,
    pub(super) close: bool,
    pub(super) keep_alive: bool,
    pub(super) expect_continue: bool,
}

impl<'a> Survey<'a> {
    /// Judges the framing fields and Connection, and notes the rest. Who sent it is `trusted` to say what hops were
    /// before it, or not.
    pub(super) fn of(
        fields: &[Header<'a>],
        direction: Direction,
        http10: bool,
        trusted: bool,
    ) -> Result<Survey<'a>, HttpError> {
        let mut s = Survey::default();
        let mut length: Option<&[u8]> = None;
        let mut coding: Option<&[u8]> = None;
        let (mut coding_lines, mut connection_lines, mut expect_lines) = (0, 0u128, 0u128);
        if fields.len() > MAX_FIELDS {
            return Err(HttpError::HeadTooLarge);
        }
        for (i, field) in fields.iter().enumerate() {
            let remove = match name(field.name) {
                Name::Other => false,
                Name::TraceParent | Name::TraceState | Name::RequestId | Name::Expect
                    if direction == Direction::Response =>
                {
                    false
                }
                Name::TraceParent => {
                    s.traceparent.note(i, field.value);
                    false
                }
                Name::RequestId => {
                    s.request_id.note(i, field.value);
                    false
                }
                Name::TraceState => {
                    s.tracestate |= 1 << i;
                    false
                }
                Name::Host => {
                    s.host = Some(field.value);
                    s.host_lines += 1;
                    direction == Direction::Request
                }
                Name::ContentLength => {
                    one_length(field.value, &mut length)?;
                    true
                }
                Name::TransferEncoding => {
                    // Of several lines the one kept matters for the choice of the error only.
                    if coding.is_none_or(|c| transfer_coding(c) == Ok(())) {
                        coding = Some(field.value);
                    }
                    coding_lines += 1;
                    true
                }
                Name::Connection => {
                    connection_lines |= 1 << i;
                    true
                }
                Name::Upgrade => {
                    s.upgrades |= 1 << i;
                    true
                }
                Name::Expect => {
                    expect_lines |= 1 << i;
                    // A list (RFC 9110 section 10.1.1). What else is expected is the upstream's to judge.
                    let expects = |member: &[u8]| member.eq_ignore_ascii_case(b"100-continue");
                    s.expect_continue |= !http10 && list(field.value).any(expects);
                    http10
                }
                Name::MaxForwards => {
                    s.max_forwards = Some((i, field.value));
                    s.max_forwards_lines += 1;
                    false
                }
                Name::Date => {
                    s.dates |= 1 << i;
                    false
                }
                Name::HopByHop => true,
                Name::Forwarding(_) if direction == Direction::Response => false,
                Name::Forwarding(hop) => {
                    let lines = match hop {
                        Hop::Forwarded => Some(&mut s.hops.forwarded),
                        Hop::For => Some(&mut s.hops.x_for),
                        Hop::Host => Some(&mut s.hops.x_host),
                        Hop::Proto => Some(&mut s.hops.x_proto),
                        Hop::Foreign | Hop::Disguised => None,
                    };
                    match lines {
                        Some(lines) if trusted => *lines |= 1 << i,
                        _ => {}
                    }
                    hop != Hop::Foreign || !trusted
                }
            };
            s.removed |= u128::from(remove) << i;
        }
        s.length = length.map(parse_decimal).transpose()?;
        if let Some(value) = coding {
            if s.length.is_some() || http10 {
                return Err(HttpError::Framing);
            }
            transfer_coding(value)?;
            if coding_lines > 1 {
                return Err(HttpError::Framing);
            }
            s.chunked = true;
        }
        let named = s.connection(fields, connection_lines)?;
        for lines in [&mut s.hops.forwarded, &mut s.hops.x_for, &mut s.hops.x_host, &mut s.hops.x_proto] {
            *lines &= !named;
        }
        // The upstream does not hear of it, and will send no 100.
        s.expect_continue &= named & expect_lines == 0;
        s.upgrade &= !http10;
        for field in [&mut s.traceparent, &mut s.request_id] {
            // What Connection names was meant for us alone.
            field.value = field.value.filter(|_| s.removed & field.lines == 0);
            s.removed |= field.lines;
        }
        Ok(s)
    }

    /// Keeps `lines`, a bit each, from travelling.
    pub(super) fn remove(&mut self, lines: u128) {
        self.removed |= lines;
    }

    /// What a trusted proxy said about the hops before it, but for what Connection has kept for us alone.
    pub(super) fn hops(&self) -> Hops {
        self.hops
    }

    /// Reads the Connection lines and removes what they name. Host and the framing fields cannot be lost
    /// that way: they do not travel by their lines (`http.md` H3). Returns a bit for each line that was named.
    fn connection(&mut self, fields: &[Header<'a>], lines: u128) -> Result<u128, HttpError> {
        let (mut named, mut hits) = (0, 0);
        for line in bits(lines) {
            for option in list(fields[line].value) {
                if option.is_empty() {
                    continue;
                }
                if option.eq_ignore_ascii_case(b"keep-alive") {
                    // A field of that name stays here in any case.
                    self.keep_alive = true;
                    continue;
                }
                if option.eq_ignore_ascii_case(b"close") {
                    if mem::replace(&mut self.close, true) {
                        continue;
                    }
                } else if !is_token(option) {
                    return Err(HttpError::Malformed);
                } else {
                    self.upgrade |= option.eq_ignore_ascii_case(b"upgrade");
                    named += 1;
                    if named > MAX_OPTIONS {
                        return Err(HttpError::HeadTooLarge);
                    }
                }
                for (i, field) in fields.iter().enumerate() {
                    let hit = field.name.as_bytes().eq_ignore_ascii_case(option);
                    hits |= u128::from(hit) << i;
                }
            }
        }
        self.removed |= hits;
        Ok(hits)
    }

    /// The protocols that Upgrade names, in order, if it is meant for this hop (RFC 9110 section 7.8): members
    /// that are no protocol at all are passed over.
    pub(super) fn protocols<'f>(
        &self,
        fields: &'f [Header<'a>],
    ) -> impl Iterator<Item = &'a [u8]> + use<'a, 'f> {
        let lines = if self.upgrade { self.upgrades } else { 0 };
        fields
            .iter()
            .enumerate()
            .filter(move |(i, _)| lines & (1 << i) != 0)
            .flat_map(|(_, field)| list(field.value))
            .filter(|protocol| !protocol.is_empty())
    }

    /// Whether a Date line travels.
    pub(super) fn has_date(&self) -> bool {
        self.dates & !self.removed != 0
    }

    /// Writes the lines that travel, in order, names as received; line `replaced` with another value.
    pub(super) fn write(&self, fields: &[Header<'a>], replaced: Option<(usize, u64)>, out: &mut Vec<u8>) {
        for (i, field) in fields.iter().enumerate() {
            if self.removed & (1 << i) != 0 {
                continue;
            }
            out.extend_from_slice(field.name.as_bytes());
            out.extend_from_slice(b": ");
            match replaced {
                Some((at, value)) if at == i => put_decimal(value, out),
                _ => out.extend_from_slice(field.value),
            }
            out.extend_from_slice(b"\r\n");
        }
    }
}

/// Takes in one Content-Length line: every member of every line must be the same run of digits
/// (`http.md` F2, F3).
fn one_length<'a>(value: &'a [u8], length: &mut Option<&'a [u8]>) -> Result<(), HttpError> {
    for member in list(value) {
        let known = *length.get_or_insert(member);
        if member.is_empty() || known != member || !member.iter().all(u8::is_ascii_digit) {
            return Err(HttpError::Framing);
        }
    }
    Ok(())
}

/// Accepts `chunked` and nothing else (`http.md` F7). A list of well-formed codings with `chunked` in its
/// place is refused as unknown, anything else as broken.
fn transfer_coding(value: &[u8]) -> Result<(), HttpError> {
    if value.eq_ignore_ascii_case(b"chunked") {
        return Ok(());
    }
    let mut chunked = false;
    for member in list(value) {
        let end = member.iter().position(|b| matches!(b, b';' | b' ' | b'\t')).unwrap_or(member.len());
        if chunked || !is_token(&member[..end]) {
            return Err(HttpError::Framing);
        }
        chunked = member[..end].eq_ignore_ascii_case(b"chunked");
        if chunked && end < member.len() {
            return Err(HttpError::Framing);
        }
    }
    Err(HttpError::TransferCoding)
}

/// The places of the bits that are set, from the lowest.
pub(super) fn bits(mut set: u128) -> impl Iterator<Item = usize> {
    core::iter::from_fn(move || {
        let at = (set != 0).then(|| set.trailing_zeros() as usize)?;
        set &= set - 1;
        Some(at)
    })
}

/// The members of a comma-separated list, blanks around them removed, empty ones included.
pub(super) fn list(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|&b| b == b',').map(trim)
}

/// Without SP and HTAB at both ends.
pub(super) fn trim(mut text: &[u8]) -> &[u8] {
    while let [b' ' | b'\t', rest @ ..] | [rest @ .., b' ' | b'\t'] = text {
        text = rest;
    }
    text
}

/// `1*DIGIT` that fits.
pub(super) fn parse_decimal(digits: &[u8]) -> Result<u64, HttpError> {
    if digits.is_empty() {
        return Err(HttpError::Framing);
    }
    digits
        .iter()
        .try_fold(0u64, |n, &b| {
            let digit = b.is_ascii_digit().then(|| u64::from(b - b'0'))?;
            n.checked_mul(10)?.checked_add(digit)
        })
        .ok_or(HttpError::Framing)
}

/// Appends `n` in decimal.
pub(super) fn put_decimal(mut n: u64, out: &mut Vec<u8>) {
    let mut buf = [0; 20];
    let mut at = buf.len();
    loop {
        at -= 1;
        buf[at] = b'0' + (n % 10) as u8;
        n /= 10;
        if n == 0 {
            break;
        }
    }
    out.extend_from_slice(&buf[at..]);
}

/// Appends `name: value` and CRLF.
pub(super) fn put_field(name: &str, value: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// Appends the field that declares `framing`, if it needs one.
pub(super) fn put_framing(framing: Framing, out: &mut Vec<u8>) {
    match framing {
        Framing::Length(n) => {
            out.extend_from_slice(b"content-length: ");
            put_decimal(n, out);
            out.extend_from_slice(b"\r\n");
        }
        Framing::Chunked => put_field("transfer-encoding", b"chunked", out),
        Framing::None | Framing::UntilClose => {}
    }
}

/// Appends the fields that ask for, or agree to, an upgrade to `protocol` on this hop.
pub(super) fn put_upgrade(protocol: &str, out: &mut Vec<u8>) {
    put_field("connection", b"upgrade", out);
    put_field("upgrade", protocol.as_bytes(), out);
}

/// Maps what httparse says. Its version errors are the caller's to refine.
pub(super) fn parse_error(e: httparse::Error) -> HttpError {
    match e {
        httparse::Error::TooManyHeaders => HttpError::HeadTooLarge,
        _ => HttpError::Malformed,
    }
}

/// A byte of a token (RFC 9110 section 5.6.2).
pub(super) fn is_tchar(b: u8) -> bool {
    TCHAR[usize::from(b)]
}

/// `1*tchar`
pub(super) fn is_token(text: &[u8]) -> bool {
    !text.is_empty() && text.iter().all(|&b| is_tchar(b))
}

/// A byte of a field value or a quoted string: HTAB, SP, visible, obs-text.
pub(super) fn is_value_byte(b: u8) -> bool {
    b == b'\t' || (b >= b' ' && b != 0x7f)
}

static TCHAR: [bool; 256] = {
    let mut table = [false; 256];
    let mut b = 0;
    while b < 128u8 {
        table[b as usize] = b.is_ascii_alphanumeric()
            || matches!(
                b,
                b'!' | b'#'
                    | b'$'
                    | b'%'
                    | b'&'
                    | b'\''
                    | b'*'
                    | b'+'
                    | b'-'
                    | b'.'
                    | b'^'
                    | b'_'
                    | b'`'
                    | b'|'
                    | b'~'
            );
        b += 1;
    }
    table
};
