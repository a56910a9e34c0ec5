//! Request heads: framing, start-line, fields, hop-by-hop removal, persistence.

use super::*;
use alloc::format;

fn with(fields: &str) -> Rewritten<RequestInfo> {
    request(format!("POST / HTTP/1.1\r\nHost: h\r\n{fields}\r\n"))
}

/// An HTTP/1.0 request.
fn old(fields: &str) -> Rewritten<RequestInfo> {
    request(format!("POST / HTTP/1.0\r\nHost: h\r\n{fields}\r\n"))
}

fn refused<T>(r: Rewritten<T>) -> Option<HttpError> {
    r.err()
}

#[test]
fn f17_the_head_that_goes_upstream_is_ours() {
    let head = b"PATCH /x?y HTTP/1.1\r\nX-One:  1 \r\nHOST: h:80\r\nContent-LENGTH: 007\r\nx-one: \xe9\r\n\
        Empty:\r\nVIA: 1.0 a\r\nConnection: close\r\nForwarded: for=1\r\nX-Forwarded-For: 6.6.6.6\r\n\
        X-Forwarded-Proto: https\r\nX-Forwarded-Host: evil\r\nAuthorization: a\r\n\r\n";
    for (peer, line) in [
        ("192.0.2.1", "x-forwarded-for: 192.0.2.1\r\nforwarded: for=192.0.2.1"),
        ("2001:db8::1", "x-forwarded-for: 2001:db8::1\r\nforwarded: for=\"[2001:db8::1]\""),
        ("::ffff:192.0.2.1", "x-forwarded-for: 192.0.2.1\r\nforwarded: for=192.0.2.1"),
        ("", "forwarded: for=unknown"),
    ] {
        let mut out = b"before".to_vec();
        let info = rewrite_request(
            head,
            peer.parse::<core::net::IpAddr>().ok().map(|addr| PeerAddr::new(addr, &[])).as_ref(),
            &upgrades(),
            &mut ids(),
            &mut out,
        )
        .unwrap();
        let expected = format!(
            "beforePATCH /x?y HTTP/1.1\r\nhost: h:80\r\n{NEW_IDS}X-One: 1\r\nx-one: \u{e9}\r\nEmpty: \r\nVIA: 1.0 a\r\n\
            Authorization: a\r\ncontent-length: 7\r\nvia: 1.1 tidegate\r\n{line};by=_tidegate;host=\"h:80\";proto=http\r\nx-forwarded-proto: http\r\n\
            x-forwarded-host: h:80\r\n\r\n"
        );
        assert_eq!(text(&out), expected);
        let expected = RequestInfo {
            version: Version::Http11,
            framing: Framing::Length(7),
            keep_alive: false,
            expect_continue: false,
            is_head: false,
            idempotent: false,
            last_hop: false,
            upgrade: None,
        };
        assert_eq!(info, expected);
    }
}

#[test]
fn framing_that_is_accepted() {
    let cases: [(&str, &str, Framing); 12] = [
        ("F1", "", Framing::None),
        ("F1", "Content-Length: 0\r\n", Framing::Length(0)),
        ("F1", "Content-Length: 5\r\n", Framing::Length(5)),
        ("F2", "Content-Length:\t 5 \t\r\n", Framing::Length(5)),
        ("F3", "Content-Length: 5\r\ncontent-length: 5\r\n", Framing::Length(5)),
        ("F3", "Content-Length: 5, 5\t,5\r\n", Framing::Length(5)),
        ("F4", "Content-Length: 18446744073709551615\r\n", Framing::Length(u64::MAX)),
        ("F5", "Content-Length: 00000000000000000000000010\r\n", Framing::Length(10)),
        ("F7", "Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ("F7", "TRANSFER-ENCODING: \tChUnKeD \t\r\n", Framing::Chunked),
        ("F9", "Content-Length: 5\r\nConnection: content-length\r\n", Framing::Length(5)),
        ("F9", "Transfer-Encoding: chunked\r\nConnection: transfer-encoding\r\n", Framing::Chunked),
    ];
    for (row, fields, framing) in cases {
        let (info, head) = with(fields).unwrap();
        assert_eq!(info.framing, framing, "{row} {fields:?}");
        let (lengths, codings) = (values(&head, "content-length"), values(&head, "transfer-encoding"));
        match framing {
            Framing::Length(n) => assert_eq!(
                (lengths, codings.len()),
                ([format!("{n}")][..].iter().map(|s| s.as_str()).collect(), 0),
                "{row}"
            ),
            Framing::Chunked => assert_eq!((lengths.len(), codings), (0, ["chunked"].to_vec()), "{row}"),
            _ => assert_eq!((lengths.len(), codings.len()), (0, 0), "{row}"),
        }
    }
}

#[test]
fn framing_that_is_refused() {
    for (row, values) in [
        (
            "F2",
            &["", " ", "+5", "-5", "0x5", "5_0", "5.0", "5 5", "a", "5a", "\u{b2}", "5;", "'5'", "1e3"][..],
        ),
        ("F3", &["5, 6", "5,", ",5", "5,,5", ",", "5, 05", "5, a"][..]),
        (
            "F4",
            &["18446744073709551616", "340282366920938463463374607431768211456", "99999999999999999999"][..],
        ),
    ] {
        for value in values {
            let error = refused(with(&format!("Content-Length: {value}\r\n")));
            assert_eq!(error, Some(HttpError::Framing), "{row} {value:?}");
        }
    }
    for (row, fields) in [
        ("F3", "Content-Length: 5\r\nContent-Length: 6\r\n"),
        ("F3", "Content-Length: 5\r\nContent-Length:\r\n"),
        ("F3", "Content-Length:\r\nContent-Length: 5\r\n"),
        ("F6", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n"),
        ("F6", "Transfer-Encoding: chunked\r\nContent-Length: 0\r\n"),
        ("F6", "Transfer-Encoding: chunked\r\nContent-Length: 5\r\nConnection: content-length\r\n"),
        ("F6", "Transfer-Encoding: nonsense\r\nContent-Length: 5\r\n"),
        ("F7", "Transfer-Encoding:\r\n"),
        ("F7", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n"),
        ("F7", "Transfer-Encoding: chunked\r\nTransfer-Encoding:\r\n"),
        ("F7", "Transfer-Encoding:\r\nTransfer-Encoding: chunked\r\n"),
        ("F7", "Transfer-Encoding: chunked, chunked\r\n"),
        ("F7", "Transfer-Encoding: chunked, identity\r\n"),
        ("F7", "Transfer-Encoding: chunked, gzip\r\n"),
        ("F7", "Transfer-Encoding: chunked;a=b\r\n"),
        ("F7", "Transfer-Encoding: chunked ;\r\n"),
        ("F7", "Transfer-Encoding: \"chunked\"\r\n"),
        ("F7", "Transfer-Encoding: chunked,\r\n"),
        ("F7", "Transfer-Encoding: ,chunked\r\n"),
        ("F7", "Transfer-Encoding: \u{a0}chunked\r\n"),
    ] {
        assert_eq!(refused(with(fields)), Some(HttpError::Framing), "{row} {fields:?}");
    }
    for fields in [
        "Transfer-Encoding: xchunked\r\n",
        "Transfer-Encoding: gzip\r\n",
        "Transfer-Encoding: identity\r\n",
        "Transfer-Encoding: gzip, chunked\r\n",
        "Transfer-Encoding: gzip;q=1, chunked\r\n",
        "Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked\r\n",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\n",
    ] {
        assert_eq!(refused(with(fields)), Some(HttpError::TransferCoding), "F7 {fields:?}");
    }
    for fields in [
        "Transfer-Encoding: \x0bchunked\r\n",
        "Transfer-Encoding: chunked\0\r\n",
        "Transfer-Encoding : chunked\r\n",
        "Transfer-Encoding:\r\n chunked\r\n",
        "Content-Length: 5\0\r\n",
        "Content-Length: 5\x0c\r\n",
        "Content-Length : 5\r\n",
        "Content-Length: \r\n 5\r\n",
    ] {
        assert_eq!(refused(with(fields)), Some(HttpError::Malformed), "F2 F7 L3 {fields:?}");
    }
}

/// There are servers (uWSGI, and others that make variables of names) to which these are the framing.
#[test]
fn f17_names_that_may_be_read_as_the_framing_stay_here() {
    for (name, value) in [
        ("Content_Length", "5"),
        ("content_length", "x"),
        ("Transfer_Encoding", "chunked"),
        ("TRANSFER_encoding", ""),
        ("Content.Length", "5"),
        ("transfer~encoding", "chunked"),
    ] {
        for (fields, framing) in [("", Framing::None), ("Content-Length: 3\r\n", Framing::Length(3))] {
            let (info, head) = with(&format!("{name}: {value}\r\n{fields}")).unwrap();
            assert_eq!((info.framing, values(&head, name).len()), (framing, 0), "{head}");
        }
        reaches_the_client(&format!("{name}: {value}\r\n"));
    }
    for name in ["Content_Lengths", "XContent_Length", "Content_Type", "Transfer_Encodin"] {
        assert_eq!(values(&with(&format!("{name}: v\r\n")).unwrap().1, name), ["v"], "{name}");
    }
}

#[test]
fn f8_a_transfer_coding_in_http_1_0_is_refused() {
    for coding in ["chunked", "gzip", "identity", ""] {
        let error = refused(old(&format!("Transfer-Encoding: {coding}\r\n")));
        assert_eq!(error, Some(HttpError::Framing));
    }
    assert_eq!(old("Content-Length: 3\r\n").unwrap().0.framing, Framing::Length(3));
}

#[test]
fn start_lines_that_are_refused() {
    for (row, line, error) in [
        ("L1", "GET / HTTP/2.0", HttpError::Version),
        ("L1", "GET / HTTP/1.2", HttpError::Version),
        ("L1", "GET / HTTP/0.9", HttpError::Version),
        ("L1", "GET / HTTP/3.1", HttpError::Version),
        ("L1", "GET / HTTP/2.x", HttpError::Malformed),
        ("L1", "GET / HTTP/x.0", HttpError::Malformed),
        ("L1", "PRI * HTTP/2.0", HttpError::Version),
        ("L1", "GET / http/1.1", HttpError::Malformed),
        ("L1", "GET / Http/2.0", HttpError::Malformed),
        ("L1", "GET / HTTP/1.10", HttpError::Malformed),
        ("L1", "GET / HTTP/11.1", HttpError::Malformed),
        ("L1", "GET / HTTP/1,1", HttpError::Malformed),
        ("L1", "GET / HTTP/1.", HttpError::Malformed),
        ("L1", "GET / HTTP/2", HttpError::Malformed),
        ("L1", "GET / HTTP", HttpError::Malformed),
        ("L1", "GET / XTTP/1.1", HttpError::Malformed),
        ("L1", "GET /", HttpError::Malformed),
        ("L1", "GET", HttpError::Malformed),
        ("L1", "G@T / HTTP/1.1", HttpError::Malformed),
        ("L1", "G\u{c9}T / HTTP/1.1", HttpError::Malformed),
        ("L1", "\"GET\" / HTTP/1.1", HttpError::Malformed),
        ("L1", "GET\0 / HTTP/1.1", HttpError::Malformed),
        ("L2", " GET / HTTP/1.1", HttpError::Malformed),
        ("L2", "GET  / HTTP/1.1", HttpError::Malformed),
        ("L2", "GET /  HTTP/1.1", HttpError::Malformed),
        ("L2", "GET / HTTP/1.1 ", HttpError::Malformed),
        ("L2", "GET\t/ HTTP/1.1", HttpError::Malformed),
        ("L2", "GET /\tHTTP/1.1", HttpError::Malformed),
        ("L2", "GET / HTTP/1.1\r", HttpError::Malformed),
        ("L11", "CONNECT h:80 HTTP/1.1", HttpError::Connect),
        ("L11", "CONNECT / HTTP/1.1", HttpError::Connect),
        ("L11", "CONNECT h:80 HTTP/1.0", HttpError::Connect),
    ] {
        let error_seen = refused(request(format!("{line}\r\nHost: h\r\n\r\n")));
        assert_eq!(error_seen, Some(error), "{row} {line:?}");
    }
    let method = |len| request(format!("{} / HTTP/1.1\r\nHost: h\r\n\r\n", "A".repeat(len)));
    assert_eq!(refused(method(64)), None, "B1");
    assert_eq!(refused(method(65)), Some(HttpError::Malformed), "B1");
}

#[test]
fn fields_that_are_refused() {
    for (row, lines) in [
        ("L3", "A : b"),
        ("L3", "A\t: b"),
        ("L3", " A: b"),
        ("L3", "\tA: b"),
        ("L3", "A: b\r\n c"),
        ("L3", "A: b\r\n\tHost: i"),
        ("L3", "A: b\r\n "),
        ("L4", "A: b\0c"),
        ("L4", "A: b\rc"),
        ("L4", "A: b\r\rc"),
        ("L4", "A: b\r"),
        ("L4", "A: \x01"),
        ("L4", "A: \x7f"),
        ("L4", "A: b\x0b"),
        ("L5", ": b"),
        ("L5", "A"),
        ("L5", "A b: c"),
        ("L5", "A\r\nB: c"),
        ("L5", "A(b): c"),
        ("L5", "A\"b\": c"),
        ("L5", "A\u{e9}: c"),
        ("L5", "A\0: c"),
        ("L5", "{A}: c"),
        ("H1", "Connection: a b"),
        ("H1", "Connection: \"close\""),
        ("H1", "Connection: close;x"),
    ] {
        assert_eq!(refused(with(&format!("{lines}\r\n"))), Some(HttpError::Malformed), "{row} {lines:?}");
        let first = request(format!("GET / HTTP/1.1\r\n{lines}\r\nHost: h\r\n\r\n"));
        assert_eq!(refused(first), Some(HttpError::Malformed), "{row} {lines:?} first");
    }
}

#[test]
fn l4_no_control_byte_gets_through_wherever_it_stands() {
    // httparse reads values in blocks of 8 to 32 bytes: every position of a block and of its tail counts.
    for at in (0..70).step_by(crate::scale::or_under_miri(1, 11)) {
        for bad in (0..=255u8).filter(|&b| (b < b' ' && b != b'\t') || b == 0x7f) {
            let mut value = [b'v'; 70];
            value[at] = bad;
            let head = [b"GET / HTTP/1.1\r\nHost: h\r\nA: ".as_slice(), &value, b"\r\n\r\n"].concat();
            assert!(request(&head).is_err(), "{bad:#x} at {at}");
            let name = [b"GET / HTTP/1.1\r\nHost: h\r\n".as_slice(), &value, b": v\r\n\r\n"].concat();
            assert!(request(&name).is_err(), "{bad:#x} at {at} of a name");
            let target = [b"GET /".as_slice(), &value, b" HTTP/1.1\r\nHost: h\r\n\r\n"].concat();
            assert!(request(&target).is_err(), "{bad:#x} at {at} of a target");
        }
    }
}

#[test]
fn l4_l5_values_and_names_that_are_kept() {
    let name = "N".repeat(300);
    let long = "v".repeat(9000);
    let (_, head) =
        with(&format!("{name}: {long}\r\nA: \u{80}\t\u{ff} ~\r\n!#$%&'*+-.^_`|~: x\r\n")).unwrap();
    assert_eq!(values(&head, &name), [long]);
    // The test's text is UTF-8: two octets for each of the two characters.
    assert_eq!(values(&head, "a"), ["\u{c2}\u{80}\t\u{c3}\u{bf} ~"]);
    assert_eq!(values(&head, "!#$%&'*+-.^_`|~"), ["x"]);
}

#[test]
fn b1_128_fields_are_enough() {
    let fields = |n: usize| with(&"A: b\r\n".repeat(n));
    assert_eq!(values(&fields(127).unwrap().1, "a").len(), 127);
    assert_eq!(refused(fields(128)), Some(HttpError::HeadTooLarge));
    let target = "a".repeat(8000);
    assert!(request(format!("GET /{target} HTTP/1.1\r\nHost: h\r\n\r\n")).is_ok());
}

#[test]
fn l12_max_forwards_counts_down_on_options_and_trace() {
    for (method, value, sent, last) in [
        ("OPTIONS", "5", "4", false),
        ("TRACE", "1", "0", false),
        ("TRACE", "0", "0", true),
        ("OPTIONS", "010", "9", false),
        ("OPTIONS", "99999999999999999999", "18446744073709551614", false),
        ("GET", "5", "5", false),
        ("GET", "0", "0", false),
        ("GET", "x", "x", false),
    ] {
        let head = format!("{method} / HTTP/1.1\r\nHost: h\r\nMax-Forwards: {value}\r\n\r\n");
        let (info, out) = request(head).unwrap();
        assert_eq!(
            (values(&out, "max-forwards"), info.last_hop),
            ([sent].to_vec(), last),
            "{method} {value}"
        );
    }
    for fields in ["", "-1", "x", "1, 1", "1\r\nMax-Forwards: 1"] {
        let head = format!("TRACE / HTTP/1.1\r\nHost: h\r\nMax-Forwards: {fields}\r\n\r\n");
        assert_eq!(refused(request(head)), Some(HttpError::Malformed), "{fields:?}");
    }
}

#[test]
fn l13_unknown_methods_are_forwarded_and_case_counts() {
    for (method, head, idempotent) in [
        ("GET", false, true),
        ("HEAD", true, true),
        ("OPTIONS", false, true),
        ("TRACE", false, true),
        ("PUT", false, true),
        ("DELETE", false, true),
        ("POST", false, false),
        ("PATCH", false, false),
        ("BREW", false, false),
        ("get", false, false),
        ("head", false, false),
        ("connect", false, false),
        ("M-SEARCH", false, false),
    ] {
        let (info, out) =
            request(format!("{method} / HTTP/1.1\r\nHost: h\r\nContent-Length: 1\r\n\r\n")).unwrap();
        assert!(out.starts_with(&format!("{method} / HTTP/1.1\r\n")));
        assert_eq!((info.is_head, info.idempotent), (head, idempotent), "{method}");
        // F1: a body is framed as declared, whatever the method.
        assert_eq!(info.framing, Framing::Length(1));
    }
}

#[test]
fn h1_connection_and_what_it_names_stay_here() {
    let (_, head) = with(
        "X-A: 1\r\nConnection: x-a, ,\tX-B\t,, close\r\nx-b: 2\r\nX-C: 3\r\nCONNECTION: x-d\r\nX-D: 4\r\nX-AB: 5\r\n\
        Connection:\r\nx-A: 6\r\nVia: 1.1 stranger\r\nconnection: via\r\n",
    )
    .unwrap();
    let expected = format!(
        "POST / HTTP/1.1\r\nhost: h\r\n{NEW_IDS}X-C: 3\r\nX-AB: 5\r\nvia: 1.1 tidegate\r\n\
        forwarded: for=unknown;by=_tidegate;host=h;proto=http\r\nx-forwarded-proto: http\r\nx-forwarded-host: h\r\n\r\n"
    );
    assert_eq!(head, expected);
    // The names that no field should have are names all the same (RFC 9112 section 9.6).
    let (info, head) =
        with("Close: 1\r\nKeep-Alive: 2\r\nConnection: keep-alive, x, Close, close\r\n").unwrap();
    assert!(!info.keep_alive && !head.contains("lose: 1") && !head.contains("live: 2"), "{head}");
    let (_, head) = with("Close: 1\r\n").unwrap();
    assert_eq!(values(&head, "close"), ["1"], "nobody has named it");
    let many: Vec<String> = (0..65).map(|i| format!("x{i}")).collect();
    let refusal = refused(with(&format!("Connection: {}\r\n", many.join(","))));
    assert_eq!(refusal, Some(HttpError::HeadTooLarge), "options are bounded");
    assert!(with(&format!("Connection: close, {}\r\n", many[1..].join(","))).is_ok());
}

#[test]
fn h2_hop_by_hop_fields_stay_here_even_unnamed() {
    for name in
        ["Keep-Alive", "Proxy-Connection", "TE", "Trailer", "Upgrade", "HTTP2-Settings", "X-FORWARDED-FOR"]
    {
        let (_, head) = with(&format!("{name}: trailers\r\n")).unwrap();
        assert_eq!(values(&head, name).len(), 0, "{name}");
    }
}

#[test]
fn h3_connection_cannot_take_host_or_our_own_fields_away() {
    let (info, head) = with(
        "Connection: host, content-length, via, forwarded, x-forwarded-proto, x-forwarded-host, connection\r\nContent-Length: 2\r\n",
    )
    .unwrap();
    assert_eq!(info.framing, Framing::Length(2));
    for (name, value) in [
        ("host", "h"),
        ("content-length", "2"),
        ("via", "1.1 tidegate"),
        ("forwarded", "for=unknown;by=_tidegate;host=h;proto=http"),
        ("x-forwarded-proto", "http"),
        ("x-forwarded-host", "h"),
    ] {
        assert_eq!(values(&head, name), [value], "{name}");
    }
    assert_eq!(values(&head, "connection").len(), 0);
}

#[test]
fn h4_order_and_repetition_are_kept() {
    let (_, head) = with("B: 1\r\nA: x, y\r\nB: 2\r\nb:\r\nA: z\r\nCookie: a\r\nCookie: b\r\n").unwrap();
    assert!(head.contains("\r\nB: 1\r\nA: x, y\r\nB: 2\r\nb: \r\nA: z\r\nCookie: a\r\nCookie: b\r\n"));
}

#[test]
fn h5_h6_version_and_via_of_an_http_1_0_request() {
    let (info, head) = old("Via: 1.1 first\r\n").unwrap();
    assert_eq!(info.version, Version::Http10);
    assert!(head.starts_with("POST / HTTP/1.1\r\n"));
    assert_eq!(values(&head, "via"), ["1.1 first", "1.0 tidegate"]);
}

#[test]
fn c1_the_clients_wish_to_persist() {
    for (fields, new, old_) in [
        ("", true, false),
        ("Connection: close\r\n", false, false),
        ("Connection: CLOSE\r\n", false, false),
        ("Connection: x, close\r\n", false, false),
        ("Connection: x\r\nConnection: close\r\n", false, false),
        ("Connection: keep-alive\r\n", true, true),
        ("Connection: Keep-Alive, x\r\n", true, true),
        ("Connection: keep-alive, close\r\n", false, false),
        ("Connection: keep-alive\r\nConnection: close\r\n", false, false),
        ("Connection: closed\r\n", true, false),
        ("Proxy-Connection: keep-alive\r\n", true, false),
        ("Proxy-Connection: close\r\n", true, false),
        ("Keep-Alive: timeout=5\r\n", true, false),
    ] {
        assert_eq!(with(fields).unwrap().0.keep_alive, new, "{fields:?}");
        assert_eq!(old(fields).unwrap().0.keep_alive, old_, "1.0 {fields:?}");
    }
}

#[test]
fn e1_e4_expect() {
    for (value, expects) in [
        ("100-continue", true),
        ("100-CONTINUE", true),
        ("x", false),
        ("100-continue;q=1", false),
        // It is a list.
        ("100-continue,", true),
        ("x=\"y\",\t100-continue", true),
        ("x, y", false),
    ] {
        let fields = format!("Expect: {value}\r\nContent-Length: 1\r\n");
        let (info, head) = with(&fields).unwrap();
        assert_eq!((info.expect_continue, values(&head, "expect")), (expects, [value].to_vec()));
        let (info, head) = old(&fields).unwrap();
        assert_eq!((info.expect_continue, values(&head, "expect").len()), (false, 0));
        let (info, head) = with(&format!("{fields}Connection: expect\r\n")).unwrap();
        assert_eq!((info.expect_continue, values(&head, "expect").len()), (false, 0), "for us alone");
    }
}
