//! Field names that mean something, and those beside them that mean nothing.

use super::*;
use alloc::format;

/// Every name that the machine knows, with a value that would do something.
const KNOWN: [(&str, &str); 22] = [
    ("te", "trailers"),
    ("host", "evil"),
    ("date", "now"),
    ("expect", "100-continue"),
    ("upgrade", "websocket"),
    ("trailer", "x"),
    ("forwarded", "for=6.6.6.6"),
    ("x-real-ip", "6.6.6.6"),
    ("connection", "close"),
    ("keep-alive", "timeout=5"),
    ("tracestate", "a=b"),
    ("traceparent", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00"),
    ("max-forwards", "0"),
    ("x-request-id", "mine"),
    ("content-length", "5"),
    ("http2-settings", "x"),
    ("proxy-status", "tidegate"),
    ("x-forwarded-for", "6.6.6.6"),
    ("proxy-connection", "close"),
    ("x-forwarded-host", "evil"),
    ("transfer-encoding", "chunked"),
    ("x-forwarded-proto", "https"),
];

/// H8: what is not known travels as it is, and changes nothing else of the message.
#[test]
fn h8_a_name_that_differs_in_one_letter_is_any_other_name() {
    let date = HttpDate::default();
    let cx = to_get(&date);
    let options = |line: &str| {
        request(format!("OPTIONS / HTTP/1.1\r\nHost: h\r\nA: b\r\nConnection: upgrade\r\n{line}\r\n"))
            .unwrap()
    };
    let ok = |line: &str| {
        response(format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\nA: b\r\n{line}\r\n"), &cx).unwrap()
    };
    let (plain_request, plain_response) = (options(""), ok(""));
    for &(name, value) in KNOWN.iter().step_by(or_under_miri(1, 5)) {
        for letter in [0, name.len() - 1] {
            let mut other = name.as_bytes().to_vec();
            other[letter] = b'q';
            let line = format!("{}: {value}\r\n", text(&other));
            // Behind what is passed on of the other fields.
            let with_line = |plain: &str| plain.replacen("A: b\r\n", &format!("A: b\r\n{line}"), 1);
            if !line.starts_with("x-forwarded-") {
                let expected = (plain_request.0, with_line(&plain_request.1));
                assert_eq!(options(&line), expected, "{line}");
            }
            assert_eq!(ok(&line), (plain_response.0, with_line(&plain_response.1)), "{line}");
        }
    }
}

/// L12: the one line is counted down, and no other is touched.
#[test]
fn l12_max_forwards_is_written_anew_in_its_place() {
    let head = "OPTIONS / HTTP/1.1\r\nHost: h\r\nA: 1\r\nMax-Forwards: 7\r\nB: 2\r\n\r\n";
    let (_, out) = request(head).unwrap();
    assert!(out.contains("A: 1\r\nMax-Forwards: 6\r\nB: 2\r\n"), "{out}");
}
