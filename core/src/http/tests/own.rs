//! The proxy's own responses and dates.

use super::*;
use alloc::vec;

#[test]
fn dates_are_imf_fixdates() {
    for (secs, expected) in [
        (0, "Thu, 01 Jan 1970 00:00:00 GMT"),
        (784_111_777, "Sun, 06 Nov 1994 08:49:37 GMT"),
        (951_782_399, "Mon, 28 Feb 2000 23:59:59 GMT"),
        (951_782_400, "Tue, 29 Feb 2000 00:00:00 GMT"),
        (951_868_800, "Wed, 01 Mar 2000 00:00:00 GMT"),
        (1_704_067_199, "Sun, 31 Dec 2023 23:59:59 GMT"),
        (4_107_542_400, "Mon, 01 Mar 2100 00:00:00 GMT"),
        (253_402_300_799, "Fri, 31 Dec 9999 23:59:59 GMT"),
        (u64::MAX, "Fri, 31 Dec 9999 23:59:59 GMT"),
    ] {
        assert_eq!(text(HttpDate::from_unix(secs).as_bytes()), expected);
    }
    assert_eq!(HttpDate::default(), HttpDate::from_unix(0));
}

/// The `httpdate` crate is the second opinion, over four centuries and at odd hours.
#[test]
fn dates_agree_with_httpdate() {
    use std::time::{Duration, UNIX_EPOCH};
    for day in (0..147_000u64).step_by(or_under_miri(1, 1009)) {
        let secs = day * 86_400 + day * 7919 % 86_400;
        let expected = alloc::string::ToString::to_string(&httpdate::HttpDate::from(
            UNIX_EPOCH + Duration::from_secs(secs),
        ));
        assert_eq!(text(HttpDate::from_unix(secs).as_bytes()), expected);
    }
}

fn base(date: &HttpDate) -> OwnResponse<'_> {
    OwnResponse {
        status: 504,
        fields: &[],
        body: b"late\n",
        proxy_status: Some(("connection_read_timeout", "read")),
        request_id: None,
        keep_alive: true,
        client: Version::Http11,
        to_head: false,
        date,
    }
}

fn write(r: &OwnResponse<'_>) -> String {
    let mut out = vec![];
    write_own(r, &mut out);
    text(&out)
}

#[test]
fn own_responses_are_complete() {
    let date = HttpDate::default();
    let head = "HTTP/1.1 504 Gateway Timeout\r\ncontent-type: text/plain; charset=utf-8\r\ncontent-length: 5\r\n\
        date: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
        proxy-status: tidegate; error=connection_read_timeout; details=\"read\"\r\n";
    let r = base(&date);
    assert_eq!(write(&r), alloc::format!("{head}\r\nlate\n"));
    assert_eq!(write(&OwnResponse { to_head: true, ..r }), alloc::format!("{head}\r\n"));
    let closing = OwnResponse { keep_alive: false, ..r };
    assert_eq!(write(&closing), alloc::format!("{head}connection: close\r\n\r\nlate\n"));
    let old = OwnResponse { client: Version::Http10, ..r };
    assert_eq!(write(&old), alloc::format!("{head}connection: keep-alive\r\n\r\nlate\n"));
}

#[test]
fn own_responses_without_a_body_announce_none() {
    let date = HttpDate::default();
    for status in [204, 304] {
        let r = OwnResponse { status, proxy_status: None, ..base(&date) };
        let expected = alloc::format!(
            "HTTP/1.1 {status} {}\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n",
            reason(status)
        );
        assert_eq!(write(&r), expected);
    }
    // A 205 has a length, and that is zero (RFC 9110 section 15.3.6).
    let r = OwnResponse { status: 205, proxy_status: None, ..base(&date) };
    let expected =
        "HTTP/1.1 205 Reset Content\r\ncontent-length: 0\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\r\n";
    assert_eq!(write(&r), expected);
}

#[test]
fn own_responses_cannot_be_bent_by_their_parts() {
    let date = HttpDate::default();
    let fields = [
        ("Content-Type", " text/html "),
        ("x", "a\r\nb: c"),
        ("y\r\nz", "a"),
        ("", "a"),
        ("nul", "\0"),
        ("Content-Length", "9"),
        ("transfer-encoding", "chunked"),
        ("CONNECTION", "upgrade"),
        ("Date", "now"),
        ("kept", "\u{e9}"),
    ];
    let details = "a\"b\\c\r\nd\u{e9}";
    for status in [0, 99, 101, 199, 600, u16::MAX] {
        let r = OwnResponse { status, fields: &fields, proxy_status: Some(("e", details)), ..base(&date) };
        let expected = "HTTP/1.1 500 Internal Server Error\r\nContent-Type: text/html\r\nkept: \u{c3}\u{a9}\r\n\
            content-length: 5\r\ndate: Thu, 01 Jan 1970 00:00:00 GMT\r\n\
            proxy-status: tidegate; error=e; details=\"a\\\"b\\\\cd\"\r\n\r\nlate\n";
        assert_eq!(write(&r), expected);
    }
    let plain = OwnResponse { proxy_status: Some(("dns_error", "")), ..base(&date) };
    assert!(write(&plain).contains("\r\nproxy-status: tidegate; error=dns_error\r\n"));
    let bad = OwnResponse { proxy_status: Some(("a; b", "")), ..base(&date) };
    assert!(!write(&bad).contains("proxy-status"));
}

#[test]
fn own_responses_name_the_request_once() {
    let date = HttpDate::default();
    let r = OwnResponse { request_id: Some("id-1"), ..base(&date) };
    assert_eq!(values(&write(&r), "x-request-id"), ["id-1"]);
    let bad = OwnResponse { request_id: Some("a\r\nb: c"), ..r };
    assert_eq!(write(&bad), write(&base(&date)));
    let route = OwnResponse { fields: &[("X-Request-ID", "of-the-route")], ..r };
    assert_eq!(values(&write(&route), "x-request-id"), ["of-the-route"]);
}

/// The registry of status codes (RFC 9110 section 16.2.1), but for those that no response of ours has.
const REGISTRY: &str = "100 Continue|103 Early Hints|200 OK|201 Created|202 Accepted|203 Non-Authoritative Information|\
    204 No Content|205 Reset Content|206 Partial Content|300 Multiple Choices|301 Moved Permanently|302 Found|303 See Other|\
    304 Not Modified|307 Temporary Redirect|308 Permanent Redirect|400 Bad Request|401 Unauthorized|402 Payment Required|\
    403 Forbidden|404 Not Found|405 Method Not Allowed|406 Not Acceptable|407 Proxy Authentication Required|\
    408 Request Timeout|409 Conflict|410 Gone|411 Length Required|412 Precondition Failed|413 Content Too Large|\
    414 URI Too Long|415 Unsupported Media Type|416 Range Not Satisfiable|417 Expectation Failed|421 Misdirected Request|\
    422 Unprocessable Content|425 Too Early|426 Upgrade Required|428 Precondition Required|429 Too Many Requests|\
    431 Request Header Fields Too Large|451 Unavailable For Legal Reasons|500 Internal Server Error|501 Not Implemented|\
    502 Bad Gateway|503 Service Unavailable|504 Gateway Timeout|505 HTTP Version Not Supported|507 Insufficient Storage|\
    508 Loop Detected|511 Network Authentication Required";

#[test]
fn status_lines_have_the_registrys_words() {
    let date = HttpDate::default();
    for line in REGISTRY.split('|') {
        let (status, words) = line.split_once(' ').unwrap();
        let status: u16 = status.parse().unwrap();
        assert_eq!(reason(status), words);
        if status >= 200 {
            let whole = write(&OwnResponse { status, ..base(&date) });
            assert!(whole.starts_with(&alloc::format!("HTTP/1.1 {line}\r\n")), "{whole}");
        }
    }
    assert_eq!(reason(299), "");
}

/// The status mapping of `http.md`, and what Proxy-Status says about it.
#[test]
fn each_fault_has_its_status_and_its_words() {
    for (fault, status, words) in [
        (HttpError::Malformed, 400, "malformed head"),
        (HttpError::Target, 400, "invalid request target"),
        (HttpError::Version, 505, "unsupported HTTP version"),
        (HttpError::Host, 400, "missing or invalid Host"),
        (HttpError::Framing, 400, "invalid or ambiguous framing"),
        (HttpError::TransferCoding, 501, "unknown transfer coding"),
        (HttpError::Connect, 501, "CONNECT is not supported"),
        (HttpError::Chunk, 400, "malformed chunked body"),
        (HttpError::TargetTooLong, 414, "request target too long"),
        (HttpError::HeadTooLarge, 431, "head too large"),
        (HttpError::BodyTooLarge, 413, "body too large"),
        (HttpError::UnexpectedUpgrade, 400, "unexpected 101"),
        (HttpError::TooManyInterim, 400, "too many interim responses"),
    ] {
        assert_eq!((fault.status(), fault.reason()), (status, words));
        assert_eq!(alloc::format!("{fault}"), words);
    }
}

#[test]
fn own_responses_may_be_larger_than_their_heads() {
    let (date, body) = (HttpDate::default(), [b'x'; 4096]);
    let whole = write(&OwnResponse { body: &body, ..base(&date) });
    assert!(whole.contains("\r\ncontent-length: 4096\r\n"));
    assert_eq!(whole.split_once("\r\n\r\n").unwrap().1.as_bytes(), body);
    assert_eq!(alloc::format!("{date:?}"), text(date.as_bytes()));
}
