//! The search for the end of a head: what it finds, what it refuses, what its limit does.

use super::*;

const MAX: usize = 32;

#[test]
fn finds_the_blank_line_and_ignores_what_follows() {
    assert_eq!(find(b"GET / HTTP/1.1\r\n\r\n", MAX), Ok(Some(18)));
    assert_eq!(find(b"GET / HTTP/1.1\r\na: b\r\n\r\nGET /\n", MAX), Ok(Some(24)));
    assert_eq!(find(b"GET / HTTP/1.1\r\na: b\r\n\r", MAX), Ok(None));
    assert_eq!(find(b"", MAX), Ok(None));
}

#[test]
fn refuses_lines_that_end_in_a_bare_lf_at_once() {
    for head in
        ["\n", "GET / HTTP/1.1\n", "GET / HTTP/1.1\r\na: b\n", "GET / HTTP/1.1\r\n\n", "GET / HTTP/1.1\n\r\n"]
    {
        assert_eq!(find(head.as_bytes(), MAX), Err(HttpError::Malformed), "{head:?}");
    }
}

#[test]
fn b1_limits_act_on_partial_input() {
    let cases: [(&str, HttpError); 4] = [
        ("GET /aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa", HttpError::TargetTooLong),
        ("AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA", HttpError::Malformed),
        ("GET / HTTP/1.1\r\na: aaaaaaaaaaaaaaaaaaaaaaaaa", HttpError::HeadTooLarge),
        ("GET / HTTP/1.1\r\na: aaaaaaaaaaaaaaaaaa\r\n\r\n", HttpError::HeadTooLarge),
    ];
    for (head, error) in cases {
        assert_eq!(find(head.as_bytes(), MAX), Err(error), "{head:?}");
    }
    let exact = b"GET / HTTP/1.1\r\na: aaaaaaaaa\r\n\r\n";
    assert_eq!(exact.len(), MAX);
    assert_eq!(find(exact, MAX), Ok(Some(MAX)));
}

#[test]
fn f16_counts_complete_empty_lines() {
    for (buf, n) in [("", 0), ("\r", 0), ("\r\n", 2), ("\r\n\r\nGET", 4), ("\r\n\r", 2), ("\n\r\n", 0)] {
        assert_eq!(leading_crlf(buf.as_bytes()), n, "{buf:?}");
    }
    // An empty line that the caller did not skip is not a head.
    assert_eq!(find(b"\r\n", MAX), Err(HttpError::Malformed));
    let mut out = Vec::new();
    for head in [b"\r\nGET / HTTP/1.1\r\nhost: a\r\n\r\n".as_slice(), b"\r\n", b""] {
        assert_eq!(rewrite_request(head, None, &[], &mut ids(), &mut out), Err(HttpError::Malformed));
    }
}

/// A head is what [`HeadScan`] has found: one that goes on behind its blank line, or does not reach it, is none.
#[test]
fn what_follows_a_head_is_no_part_of_it() {
    let date = HttpDate::default();
    let cx = to_get(&date);
    let request = "GET / HTTP/1.1\r\nhost: a\r\n\r\n";
    let response = "HTTP/1.1 200 OK\r\n\r\n";
    for (cut, behind) in [(0, "G"), (0, "\r\n"), (2, "")] {
        let with = |head: &str| alloc::format!("{}{behind}", &head[..head.len() - cut]);
        let mut out = Vec::new();
        let rewritten = rewrite_request(with(request).as_bytes(), None, &[], &mut ids(), &mut out);
        assert_eq!(rewritten, Err(HttpError::Malformed));
        assert_eq!(rewrite_response(with(response).as_bytes(), &cx, &mut out), Err(HttpError::Malformed));
        assert_eq!(out, b"");
    }
}
