//! Responses that the proxy makes itself, and the date in them.
//!
//! Short, complete and length-delimited. They say what went wrong in Proxy-Status (RFC 9209), never in a
//! way that shows an upstream's address. No clock is read here: the date comes in as seconds.

use alloc::vec::Vec;
use core::fmt;

use super::Version;
use super::fields::{is_token, is_value_byte, put_decimal, put_field, trim};
use super::ids::{REQUEST_ID, is_request_id};
use super::response::put_persistence;

/// An IMF-fixdate (RFC 9110 section 5.6.7): `Sun, 06 Nov 1994 08:49:37 GMT`.
#[derive(Copy, Clone, PartialEq, Eq)]
pub struct HttpDate([u8; 29]);

impl HttpDate {
    /// The date `secs` seconds after 1970 began (UTC); the last second of the year 9999 if that is earlier.
    pub fn from_unix(secs: u64) -> HttpDate {
        const DAYS: [&[u8; 3]; 7] = [b"Thu", b"Fri", b"Sat", b"Sun", b"Mon", b"Tue", b"Wed"];
        const MONTHS: [&[u8; 3]; 12] =
            [b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec"];
        let secs = secs.min(253_402_300_799);
        let (days, time) = (secs / 86_400, secs % 86_400);
        let (year, month, day) = civil(days);
        let mut date = *b"Thu, 01 Jan 1970 00:00:00 GMT";
        date[..3].copy_from_slice(DAYS[(days % 7) as usize]);
        put_two(&mut date, 5, day);
        date[8..11].copy_from_slice(MONTHS[month as usize]);
        put_two(&mut date, 12, year / 100);
        put_two(&mut date, 14, year % 100);
        put_two(&mut date, 17, time / 3600);
        put_two(&mut date, 20, time / 60 % 60);
        put_two(&mut date, 23, time % 60);
        HttpDate(date)
    }

    /// The text.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }
}

/// Year, month from 0 and day from 1 of a day after 1970 began. Counted from a 1 March, so that the leap day
/// is the last of its year; 400 years have 146,097 days.
fn civil(days: u64) -> (u64, u64, u64) {
    let days = days + 719_468;
    let (era, of_era) = (days / 146_097, days % 146_097);
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let from_march = (5 * of_year + 2) / 153;
    let day = of_year - (153 * from_march + 2) / 5 + 1;
    let month = (from_march + 2) % 12;
    (era * 400 + year + u64::from(month < 2), month, day)
}

fn put_two(date: &mut [u8; 29], at: usize, n: u64) {
    date[at] = b'0' + (n / 10) as u8;
    date[at + 1] = b'0' + (n % 10) as u8;
}

impl Default for HttpDate {
    /// 1 January 1970.
    fn default() -> Self {
        HttpDate::from_unix(0)
    }
}

impl fmt::Debug for HttpDate {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(core::str::from_utf8(&self.0).unwrap_or_default())
    }
}

/// A response that does not come from an upstream.
#[derive(Copy, Clone, Debug)]
pub struct OwnResponse<'a> {
    /// 200 to 599; anything else goes out as 500.
    pub status: u16,
    /// More fields. Those that are not valid, and those that this type writes itself (the framing, Connection,
    /// Date), are left out.
    pub fields: &'a [(&'a str, &'a str)],
    /// The body; not sent with 204, 205 and 304.
    pub body: &'a [u8],
    /// The error type and, unless empty, the details for Proxy-Status.
    pub proxy_status: Option<(&'a str, &'a str)>,
    /// The id of the request, so that whoever got the response can name it. Left out if `fields` have one,
    /// or if it is none that the proxy passes on.
    pub request_id: Option<&'a str>,
    /// Whether the client's connection stays open.
    pub keep_alive: bool,
    /// The client's version.
    pub client: Version,
    /// Whether the request was HEAD: the head alone is sent.
    pub to_head: bool,
    /// The date.
    pub date: &'a HttpDate,
}

/// Appends the whole response to `out`.
///
/// ```
/// use tidegate_core::http::{HttpDate, OwnResponse, Version, write_own};
///
/// let mut out = Vec::new();
/// write_own(
///     &OwnResponse {
///         status: 503,
///         fields: &[("retry-after", "5")],
///         body: b"later\n",
///         proxy_status: Some(("connection_limit_reached", "")),
///         request_id: None,
///         keep_alive: true,
///         client: Version::Http11,
///         to_head: false,
///         date: &HttpDate::from_unix(784_111_777),
///     },
///     &mut out,
/// );
/// let text = String::from_utf8_lossy(&out);
/// assert!(text.starts_with("HTTP/1.1 503 Service Unavailable\r\nretry-after: 5\r\n"), "{text}");
/// assert!(text.contains("proxy-status: tidegate; error=connection_limit_reached\r\n"), "{text}");
/// assert!(text.contains("content-length: 6\r\n") && text.ends_with("\r\n\r\nlater\n"), "{text}");
/// ```
pub fn write_own(r: &OwnResponse<'_>, out: &mut Vec<u8>) {
    let status = if matches!(r.status, 200..=599) { r.status } else { 500 };
    // The client of a 205 is told that nothing follows; the others it knows (RFC 9110 section 15.3.6).
    let unframed = matches!(status, 204 | 304);
    let bodiless = unframed || status == 205;
    let body = if bodiless { &[] } else { r.body };
    out.reserve(256 + body.len());
    out.extend_from_slice(b"HTTP/1.1 ");
    put_decimal(u64::from(status), out);
    out.push(b' ');
    out.extend_from_slice(reason(status).as_bytes());
    out.extend_from_slice(b"\r\n");
    let (mut typed, mut named) = (bodiless, false);
    for (name, value) in r.fields {
        let value = trim(value.as_bytes());
        if is_token(name.as_bytes()) && value.iter().all(|&b| is_value_byte(b)) && !is_ours(name) {
            typed |= name.eq_ignore_ascii_case("content-type");
            named |= name.eq_ignore_ascii_case(REQUEST_ID);
            put_field(name, value, out);
        }
    }
    if !typed {
        put_field("content-type", b"text/plain; charset=utf-8", out);
    }
    if !unframed {
        out.extend_from_slice(b"content-length: ");
        put_decimal(body.len() as u64, out);
        out.extend_from_slice(b"\r\n");
    }
    put_field("date", r.date.as_bytes(), out);
    if let Some((error, details)) = r.proxy_status.filter(|(error, _)| is_token(error.as_bytes())) {
        put_proxy_status(error, details, out);
    }
    if let Some(id) = r.request_id.filter(|id| !named && is_request_id(id.as_bytes())) {
        put_field(REQUEST_ID, id.as_bytes(), out);
    }
    put_persistence(r.keep_alive, r.client, out);
    out.extend_from_slice(b"\r\n");
    if !r.to_head {
        out.extend_from_slice(body);
    }
}

/// Fields that say how this very message is framed and sent.
fn is_ours(name: &str) -> bool {
    const OURS: [&str; 8] = [
        "connection",
        "content-length",
        "date",
        "keep-alive",
        "proxy-connection",
        "trailer",
        "transfer-encoding",
        "upgrade",
    ];
    OURS.iter().any(|ours| name.eq_ignore_ascii_case(ours))
}

/// `proxy-status: tidegate; error=...; details="..."`; a structured field's string is printable ASCII.
fn put_proxy_status(error: &str, details: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(b"proxy-status: tidegate; error=");
    out.extend_from_slice(error.as_bytes());
    if !details.is_empty() {
        out.extend_from_slice(b"; details=\"");
        for byte in details.bytes().filter(|b| matches!(b, b' '..=b'~')) {
            if matches!(byte, b'"' | b'\\') {
                out.push(b'\\');
            }
            out.push(byte);
        }
        out.push(b'"');
    }
    out.extend_from_slice(b"\r\n");
}

/// The reason phrase that goes with a status; empty for one that has none.
pub fn reason(status: u16) -> &'static str {
    match status {
        100 => "Continue",
        103 => "Early Hints",
        200 => "OK",
        201 => "Created",
        202 => "Accepted",
        203 => "Non-Authoritative Information",
        204 => "No Content",
        205 => "Reset Content",
        206 => "Partial Content",
        300 => "Multiple Choices",
        301 => "Moved Permanently",
        302 => "Found",
        303 => "See Other",
        304 => "Not Modified",
        307 => "Temporary Redirect",
        308 => "Permanent Redirect",
        400 => "Bad Request",
        401 => "Unauthorized",
        402 => "Payment Required",
        403 => "Forbidden",
        404 => "Not Found",
        405 => "Method Not Allowed",
        406 => "Not Acceptable",
        407 => "Proxy Authentication Required",
        408 => "Request Timeout",
        409 => "Conflict",
        410 => "Gone",
        411 => "Length Required",
        412 => "Precondition Failed",
        413 => "Content Too Large",
        414 => "URI Too Long",
        415 => "Unsupported Media Type",
        416 => "Range Not Satisfiable",
        417 => "Expectation Failed",
        421 => "Misdirected Request",
        422 => "Unprocessable Content",
        425 => "Too Early",
        426 => "Upgrade Required",
        428 => "Precondition Required",
        429 => "Too Many Requests",
        431 => "Request Header Fields Too Large",
        451 => "Unavailable For Legal Reasons",
        500 => "Internal Server Error",
        501 => "Not Implemented",
        502 => "Bad Gateway",
        503 => "Service Unavailable",
        504 => "Gateway Timeout",
        505 => "HTTP Version Not Supported",
        507 => "Insufficient Storage",
        508 => "Loop Detected",
        511 => "Network Authentication Required",
        _ => "",
    }
}
