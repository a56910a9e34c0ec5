//! Targets and Host: the four forms, what an authority may be, and the view that routing gets.

use super::*;
use alloc::format;

fn get(target: &str) -> Rewritten<RequestInfo> {
    request(format!("GET {target} HTTP/1.1\r\nHost: h\r\n\r\n"))
}

fn line(head: &str) -> &str {
    head.split("\r\n").next().unwrap_or_default()
}

#[test]
fn l10_origin_form_travels_unchanged() {
    for target in [
        "/",
        "/?",
        "/a/../b/./c//d",
        "//evil.example/x",
        "/%2e%2E/%00?a=%0d%0a&b=http://x/",
        "/a;b=c:d@e,f!$&'()*+[]{}|\\^`\"<>",
        "/?q?q/=/",
    ] {
        let (_, head) = get(target).unwrap();
        assert_eq!(line(&head), format!("GET {target} HTTP/1.1"));
    }
}

#[test]
fn l1_l8_l9_refuses_targets_of_no_form() {
    for target in [
        "*",
        "a",
        "h:80",
        "?q",
        "/a#b",
        "/#",
        "/\u{e9}",
        "http:",
        "http:/",
        "http:/x",
        "http://",
        "http:///x",
        "http://?q",
        "http://:80/",
        "http://u@h/",
        "http://u:p@h/",
        "http://h:x/",
        "http://h:80:80/",
        "http://[::1/",
        "http://h#f",
        "https://h/",
        "ftp://h/",
        "ws://h/",
        "http//h/",
        "file:///etc/passwd",
    ] {
        assert_eq!(get(target).map(|r| r.1), Err(HttpError::Target), "{target:?}");
    }
    // Other bytes do not get past httparse.
    for target in ["/\x7f", "/\x01", "/\0", "/a b", "", "/\t"] {
        assert_eq!(get(target).map(|r| r.1), Err(HttpError::Malformed), "{target:?}");
    }
    let raw = b"GET /\xff HTTP/1.1\r\nHost: h\r\n\r\n";
    assert_eq!(request(raw).map(|r| r.1), Err(HttpError::Malformed));
}

#[test]
fn l7_absolute_form_becomes_origin_form_and_decides_host() {
    for (method, target, sent, host) in [
        ("GET", "http://a.example", "/", "a.example"),
        ("GET", "http://a.example/", "/", "a.example"),
        ("GET", "HTTP://a.example:8080/x?y", "/x?y", "a.example:8080"),
        ("GET", "http://a.example?y", "/?y", "a.example"),
        ("GET", "http://[::1]:80/", "/", "[::1]:80"),
        ("OPTIONS", "http://a.example", "*", "a.example"),
        ("OPTIONS", "http://a.example/", "/", "a.example"),
        ("OPTIONS", "http://a.example?x", "/?x", "a.example"),
        ("OPTIONS", "*", "*", "other"),
    ] {
        let head = format!("{method} {target} HTTP/1.1\r\nHost: other\r\n\r\n");
        let (_, out) = request(&head).unwrap();
        assert_eq!(line(&out), format!("{method} {sent} HTTP/1.1"), "{target}");
        assert_eq!(values(&out, "host"), [host], "{target}");
        assert_eq!(values(&out, "x-forwarded-host"), [host], "{target}");
        let view = RequestHead::new(head.as_bytes());
        assert_eq!(view.host(), Some(host));
        assert_eq!(Some(view.path()), sent.split('?').next(), "{method} {target}");
    }
    let missing = request("GET http://a/ HTTP/1.1\r\n\r\n");
    assert_eq!(missing.map(|r| r.1), Err(HttpError::Host));
}

#[test]
fn l6_host_is_one_valid_authority() {
    for host in [
        "h",
        "h:",
        "h:0",
        "h:65535",
        "1.2.3.4",
        "[::1]",
        "[2001:db8::1]:80",
        "[v1.a:b]",
        "a_b-c.~",
        "%41%c3",
        "H",
    ] {
        let (_, head) = request(format!("GET / HTTP/1.1\r\nHOST: \t{host} \t\r\n\r\n")).unwrap();
        assert_eq!(values(&head, "host"), [host]);
    }
    for host in [
        "",
        ":80",
        "h:65536",
        "h:99999999999",
        "h:a",
        "h:-1",
        "h:80:80",
        "a b",
        "a,b",
        "a, b",
        "u@h",
        "h/",
        "h?x",
        "h#f",
        "http://h",
        "::1",
        "[::1",
        "::1]",
        "[]",
        "[::1]x",
        "[::1]80",
        "[1.2.3.4]",
        "[::1%25eth0]",
        "[v.a]",
        "[v1.]",
        "%4",
        "%4g",
        "a\\b",
        "\"h\"",
        "<h>",
        "\u{e9}",
    ] {
        let head = format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n");
        assert_eq!(request(head).map(|r| r.1), Err(HttpError::Host), "{host:?}");
    }
}

#[test]
fn l6_host_appears_once() {
    let twice = [
        "Host: h\r\nHost: h\r\n",
        "Host: h\r\nhost: i\r\n",
        "host:\r\nHost: h\r\n",
        "Host: h\r\nHost:\r\n",
        "Host:\r\nHost:\r\n",
    ];
    for fields in twice {
        for start in ["GET / HTTP/1.1", "GET / HTTP/1.0", "GET http://i/ HTTP/1.1", "GET http://i/ HTTP/1.0"]
        {
            let head = format!("{start}\r\n{fields}\r\n");
            assert_eq!(request(&head).map(|r| r.1), Err(HttpError::Host), "{head:?}");
        }
    }
    for start in ["GET / HTTP/1.1", "GET http://i/ HTTP/1.1"] {
        assert_eq!(request(format!("{start}\r\n\r\n")).map(|r| r.1), Err(HttpError::Host));
    }
    for fields in ["", "Host:\r\n"] {
        let head = format!("GET / HTTP/1.0\r\n{fields}\r\n");
        let (_, out) = request(&head).unwrap();
        assert_eq!(values(&out, "host"), [""]);
        assert_eq!(values(&out, "x-forwarded-host"), [""; 0]);
        assert_eq!(RequestHead::new(head.as_bytes()).host(), None);
    }
}

#[test]
fn routing_sees_the_head_as_received() {
    let head = b"POST /a/b?c=d?e HTTP/1.0\r\nHost: h:1\r\nX:  one \r\nx:\xfftwo:\r\nEmpty:\r\n\r\n";
    let view = RequestHead::new(head);
    assert_eq!((view.method(), view.target(), view.path()), ("POST", "/a/b?c=d?e", "/a/b"));
    assert_eq!((view.version(), view.host()), (Version::Http10, Some("h:1")));
    let fields: Vec<_> = view.fields().collect();
    let expected: [(&str, &[u8]); 4] = [("Host", b"h:1"), ("X", b"one"), ("x", b"\xfftwo:"), ("Empty", b"")];
    assert_eq!(fields, expected);
    assert_eq!(view.field("x"), Some(&b"one"[..]));
    assert_eq!(view.field("EMPTY"), Some(&b""[..]));
    assert_eq!(view.field("none"), None);
    assert_eq!(RequestHead::new(b"OPTIONS * HTTP/1.1\r\nHost: h\r\n\r\n").path(), "*");
    assert_eq!(format!("{view:?}"), r#"RequestHead { method: "POST", target: "/a/b?c=d?e", .. }"#);
}
