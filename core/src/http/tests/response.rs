//! Response heads: what is refused, how the body is framed on both sides, what is removed and added.

use super::*;
use alloc::format;

const UTC: &str = "Thu, 01 Jan 1970 00:00:00 GMT";

/// Runs `test` with the context of a GET, its client's version and `to_head` as given.
fn cx<T>(client: Version, to_head: bool, test: impl FnOnce(&ResponseContext<'_>) -> T) -> T {
    test(&ResponseContext { to_head, client, ..to_get(&HttpDate::default()) })
}

fn get(head: impl AsRef<[u8]>) -> Rewritten<ResponseInfo> {
    cx(Version::Http11, false, |cx| response(head, cx))
}

#[test]
fn h6_the_head_that_goes_to_the_client_is_ours() {
    let (info, head) = get(
        b"HTTP/1.1 299 What ever\r\nServer: s\r\nSET-Cookie: a=b, c\r\ncontent-length: 010\r\nset-cookie: d \r\n\
        Connection: x-hop\r\nX-Hop: 1\r\nKeep-Alive: timeout=5\r\nDate: today\r\nTrailer: x\r\nUpgrade: h2c\r\n\
        Proxy-Connection: close\r\nX: \xff\r\nForwarded: kept\r\n\r\n",
    )
    .unwrap();
    let expected = "HTTP/1.1 299 What ever\r\nServer: s\r\nSET-Cookie: a=b, c\r\nset-cookie: d\r\nDate: today\r\n\
        X: \u{ff}\r\nForwarded: kept\r\ncontent-length: 10\r\n\r\n";
    assert_eq!(head, expected);
    let expected = ResponseInfo {
        status: 299,
        interim: false,
        framing: Framing::Length(10),
        reusable: true,
        suspect: false,
        relayed: Framing::Length(10),
        keep_alive: true,
    };
    assert_eq!(info, expected);
}

#[test]
fn r1_status_lines() {
    for (line, sent) in [
        ("HTTP/1.1 200 OK", "HTTP/1.1 200 OK"),
        ("HTTP/1.0 200 OK", "HTTP/1.1 200 OK"),
        ("HTTP/1.1 200 ", "HTTP/1.1 200 "),
        ("HTTP/1.1 200", "HTTP/1.1 200 "),
        ("HTTP/1.1 599 Not\tthat ", "HTTP/1.1 599 Not\tthat "),
        ("HTTP/1.1 200 \u{fc}", "HTTP/1.1 200 "),
    ] {
        let (_, head) = get(format!("{line}\r\nContent-Length: 0\r\n\r\n")).unwrap();
        assert_eq!(head.split("\r\n").next(), Some(sent));
    }
    for line in [
        "HTTP/1.1 099 x",
        "HTTP/1.1 000 x",
        "HTTP/1.1 600 x",
        "HTTP/1.1 999 x",
        "HTTP/1.1 20 x",
        "HTTP/1.1 2000 x",
        "HTTP/1.1 2x0 x",
        "HTTP/1.1 -20 x",
        "HTTP/1.1  200 x",
        "HTTP/1.1\t200 x",
        "HTTP/1.1 200\tx",
        "HTTP/1.1 200 x\0",
        "HTTP/1.1 200 x\ry",
        "HTTP/1.1 200 x\x7f",
        "HTTP/1.1 200x",
        "HTTP/1.1",
        "HTTP/2.0 200 x",
        "HTTP/1.2 200 x",
        "HTTP/11 200 x",
        "http/1.1 200 x",
        "ICY 200 OK",
        " HTTP/1.1 200 x",
        "",
    ] {
        assert!(get(format!("{line}\r\nContent-Length: 0\r\n\r\n")).is_err(), "{line:?}");
    }
}

#[test]
fn r1_r3_framing_that_is_refused() {
    for (row, fields, error) in [
        ("R1", "Content-Length: 5\r\nContent-Length: 6\r\n", HttpError::Framing),
        ("R1", "Content-Length: 5, 6\r\n", HttpError::Framing),
        ("R1", "Content-Length: -1\r\n", HttpError::Framing),
        ("R1", "Content-Length:\r\n", HttpError::Framing),
        ("R1", "Content-Length: 18446744073709551616\r\n", HttpError::Framing),
        ("R1", "Transfer-Encoding: chunked, chunked\r\n", HttpError::Framing),
        ("R1", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", HttpError::Framing),
        ("R1", "Transfer-Encoding: gzip, chunked\r\n", HttpError::TransferCoding),
        ("R1", "Transfer-Encoding: identity\r\n", HttpError::TransferCoding),
        ("R3", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", HttpError::Framing),
    ] {
        // Whether a body could follow does not matter: the upstream contradicts itself.
        for (status, to_head) in [(200, false), (200, true), (304, false), (204, false)] {
            let seen = cx(Version::Http11, to_head, |cx| {
                response(format!("HTTP/1.1 {status} x\r\n{fields}\r\n"), cx)
            });
            assert_eq!(seen.err(), Some(error), "{row} {status} {fields:?}");
        }
    }
    let old = get("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
    assert_eq!(old.err(), Some(HttpError::Framing), "R3");
}

#[test]
fn r2_damaged_fields_are_refused() {
    for line in [
        "A : b",
        " A: b",
        "A: b\r\n c",
        "A: \0",
        "A: b\rc",
        ": b",
        "A",
        "A b: c",
        "A: \x7f",
        "Connection: a b",
    ] {
        let seen = get(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{line}\r\n\r\n"));
        assert_eq!(seen.err(), Some(HttpError::Malformed), "{line:?}");
    }
    let lf = get("HTTP/1.1 200 OK\nContent-Length: 0\n\n");
    assert_eq!(lf.err(), Some(HttpError::Malformed));
    let many = get(format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(129)));
    assert_eq!(many.err(), Some(HttpError::HeadTooLarge), "B4");
}

#[test]
fn r4_r6_framing_on_both_sides() {
    use Framing::{Chunked, Length, None, UntilClose};
    use Version::{Http10, Http11};
    // Row, client, HEAD?, status-line, fields; upstream framing, client framing, framing fields to the client,
    // upstream reusable, client kept.
    type Case =
        (&'static str, Version, bool, &'static str, &'static str, Framing, Framing, &'static str, bool, bool);
    let cases: &[Case] = &[
        ("R1", Http11, false, "1.1 200", "content-length: 3", Length(3), Length(3), "cl3", true, true),
        ("R1", Http10, false, "1.1 200", "content-length: 3", Length(3), Length(3), "cl3", true, true),
        ("R1", Http11, false, "1.1 200", "content-length: 0", Length(0), Length(0), "cl0", true, true),
        ("C4", Http11, false, "1.0 200", "content-length: 3", Length(3), Length(3), "cl3", false, true),
        (
            "C4",
            Http11,
            false,
            "1.0 200",
            "content-length: 3\r\nconnection: keep-alive",
            Length(3),
            Length(3),
            "cl3",
            false,
            true,
        ),
        (
            "C4",
            Http11,
            false,
            "1.1 200",
            "content-length: 3\r\nconnection: x, Close",
            Length(3),
            Length(3),
            "cl3",
            false,
            true,
        ),
        ("R6", Http11, false, "1.1 200", "transfer-encoding: Chunked", Chunked, Chunked, "te", true, true),
        ("R6", Http10, false, "1.1 200", "transfer-encoding: chunked", Chunked, UntilClose, "", true, false),
        ("R6", Http11, false, "1.1 200", "x: y", UntilClose, Chunked, "te", false, true),
        ("R6", Http11, false, "1.0 200", "x: y", UntilClose, Chunked, "te", false, true),
        ("R6", Http10, false, "1.1 200", "x: y", UntilClose, UntilClose, "", false, false),
        ("R4", Http11, true, "1.1 200", "content-length: 3", None, None, "cl3", true, true),
        ("R4", Http11, true, "1.1 200", "transfer-encoding: chunked", None, None, "", true, true),
        ("R4", Http11, true, "1.1 200", "x: y", None, None, "", true, true),
        ("R4", Http10, true, "1.1 200", "x: y", None, None, "", true, true),
        ("R4", Http11, true, "1.0 200", "content-length: 0", None, None, "cl0", false, true),
        ("R4", Http11, false, "1.1 304", "content-length: 3", None, None, "cl3", true, true),
        ("R4", Http11, false, "1.1 304", "transfer-encoding: chunked", None, None, "", true, true),
        ("H8", Http11, false, "1.1 204", "x: y", None, None, "", true, true),
        ("H8", Http11, false, "1.1 204", "content-length: 0", None, None, "", true, true),
        ("H8", Http11, false, "1.1 204", "content-length: 3", None, None, "", false, true),
        ("H8", Http11, true, "1.1 204", "transfer-encoding: chunked", None, None, "", false, true),
        ("H8", Http11, false, "1.1 103", "content-length: 3", None, None, "", false, true),
    ];
    for &(row, client, to_head, line, fields, framing, relayed, sent, reusable, keep_alive) in cases {
        let (info, head) =
            cx(client, to_head, |cx| response(format!("HTTP/{line} x\r\n{fields}\r\n\r\n"), cx)).unwrap();
        let what = format!("{row} {client:?} {line} {fields:?}");
        assert_eq!((info.framing, info.relayed), (framing, relayed), "{what}");
        assert_eq!((info.reusable, info.keep_alive), (reusable, keep_alive), "{what}");
        let lengths: Vec<String> = values(&head, "content-length").iter().map(|v| format!("cl{v}")).collect();
        let codings = values(&head, "transfer-encoding").into_iter().map(|_| String::from("te"));
        let seen: Vec<String> = lengths.into_iter().chain(codings).collect();
        assert_eq!(seen.join(" "), sent, "{what}");
        let connection = match (info.interim, keep_alive, client) {
            (false, false, _) => "close",
            (false, true, Http10) => "keep-alive",
            _ => "",
        };
        assert_eq!(values(&head, "connection").join(" "), connection, "C1 {what}");
    }
}

#[test]
fn r4_what_announces_a_body_that_must_not_follow_is_suspect() {
    for (to_head, status, fields, suspect) in [
        (true, 200, "content-length: 3", true),
        (true, 200, "transfer-encoding: chunked", true),
        (true, 404, "x: y", true),
        (true, 200, "content-length: 0", false),
        (true, 204, "x: y", false),
        (true, 304, "x: y", false),
        (true, 304, "content-length: 3", true),
        (true, 103, "x: y", false),
        (false, 304, "x: y", false),
        (false, 304, "content-length: 0", false),
        (false, 304, "content-length: 3", true),
        (false, 304, "transfer-encoding: chunked", true),
        (false, 204, "x: y", false),
        (false, 103, "x: y", false),
        (false, 200, "content-length: 3", false),
        (false, 200, "x: y", false),
    ] {
        let head = format!("HTTP/1.1 {status} x\r\n{fields}\r\n\r\n");
        let (info, _) = cx(Version::Http11, to_head, |cx| response(&head, cx)).unwrap();
        assert_eq!(info.suspect, suspect, "{to_head} {head}");
    }
}

#[test]
fn c1_the_client_is_told_when_its_connection_ends() {
    for client in [Version::Http10, Version::Http11] {
        let date = HttpDate::default();
        let cx = ResponseContext { client, keep_alive: false, ..to_get(&date) };
        let (info, head) = response("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", &cx).unwrap();
        assert!(!info.keep_alive);
        assert_eq!(values(&head, "connection"), ["close"]);
    }
}

#[test]
fn e2_interim_responses() {
    for status in [100, 102, 103, 199] {
        let upstream = format!(
            "HTTP/1.1 {status} x\r\nLink: </a>\r\nConnection: x-a, keep-alive\r\nX-A: 1\r\nContent-Length: 4\r\n\r\n"
        );
        let (info, head) = get(&upstream).unwrap();
        assert_eq!(head, format!("HTTP/1.1 {status} x\r\nLink: </a>\r\n\r\n"));
        assert_eq!((info.interim, info.status, info.framing), (true, status, Framing::None));
        let (info, head) = cx(Version::Http10, false, |cx| response(&upstream, cx)).unwrap();
        assert_eq!((info.interim, head.as_str()), (true, ""));
    }
    for client in [Version::Http10, Version::Http11] {
        let switching = "HTTP/1.1 101 x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
        let seen = cx(client, false, |cx| response(switching, cx));
        assert_eq!(seen.err(), Some(HttpError::UnexpectedUpgrade), "U1");
    }
}

#[test]
fn h1_h3_connection_removes_what_it_names_and_nothing_of_ours() {
    let (info, head) = get(
        "HTTP/1.1 200 OK\r\nDate: x\r\nX-A: 1\r\nContent-Length: 2\r\nConnection: date, x-a, content-length, set-cookie\r\n\
        Set-Cookie: gone\r\n\r\n",
    )
    .unwrap();
    assert_eq!(head, format!("HTTP/1.1 200 OK\r\ncontent-length: 2\r\ndate: {UTC}\r\n\r\n"));
    assert!(info.reusable);
}

#[test]
fn l13_what_means_something_in_requests_alone_passes_in_responses() {
    let fields = "Expect: x\r\nMax-Forwards: y\r\nHost: z\r\n";
    for version in ["1.0", "1.1"] {
        let (_, head) = get(format!("HTTP/{version} 200 OK\r\n{fields}Content-Length: 0\r\n\r\n")).unwrap();
        assert!(head.contains(fields), "{head}");
    }
}

#[test]
fn h7_date_is_added_if_there_is_none() {
    let (_, head) = get("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(values(&head, "date"), [UTC]);
    let (_, head) = get("HTTP/1.1 200 OK\r\nDATE: theirs\r\nContent-Length: 0\r\n\r\n").unwrap();
    assert_eq!(values(&head, "date"), ["theirs"]);
}
