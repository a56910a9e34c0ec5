//! Properties over generated input: the split does not matter (G1), nothing panics, and what we write has
//! one meaning.

use alloc::string::ToString;
use alloc::vec;

use proptest::collection::vec as vec_of;
use proptest::prelude::*;

use super::body::decode;
use super::*;

/// Cuts `bytes` at the given places (taken modulo what is left).
fn cut<'a>(mut bytes: &'a [u8], sizes: &[usize]) -> Vec<&'a [u8]> {
    let mut pieces = vec![];
    for size in sizes {
        let (piece, rest) = bytes.split_at(size % (bytes.len() + 1));
        pieces.push(piece);
        bytes = rest;
    }
    pieces.push(bytes);
    pieces
}

/// Feeds a growing head to one scan until it says something.
fn scan_growing(
    bytes: &[u8],
    ends: impl IntoIterator<Item = usize>,
    max: usize,
) -> Result<Option<usize>, HttpError> {
    let mut scan = HeadScan::new();
    for end in ends {
        let found = scan.advance(&bytes[..end], max)?;
        if found.is_some() {
            return Ok(found);
        }
    }
    Ok(None)
}

/// Text that is often a head, or nearly one.
fn heads() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        8 => prop::sample::select(vec![
            "GET", "POST", "OPTIONS", "HEAD", "CONNECT", " ", "  ", "/", "*", "/a?b", "http://h:1/x", "HTTP/1.1", "HTTP/1.0",
            "HTTP/1.1 200 OK", "HTTP/1.0 304 x", "HTTP/2.0", "\r\n", "\r\n\r\n", "\n", "\r", "Host: h\r\n", "Host:\r\n", ": ",
            ",", ";", "=", "\"", "\\", "\t", "0", "5", "a", "chunked", "close", "keep-alive", "host",
            "Content-Length: 5\r\n", "content-length: 5,5\r\n", "Transfer-Encoding: chunked\r\n", "TE: trailers\r\n",
            "Transfer-Encoding: gzip\r\n", "Connection: content-length, x\r\n", "X: y\r\n", "Expect: 100-continue\r\n",
            "GET / HTTP/1.1\r\nHost: h\r\n", "POST /p HTTP/1.1\r\nHost: h\r\nContent-Length: 5\r\n",
        ]).prop_map(|s| s.as_bytes().to_vec()),
        1 => vec_of(any::<u8>(), 0..4),
    ];
    vec_of(part, 0..14).prop_map(|parts| parts.concat())
}

/// A request head of parts that are all valid, alone at least.
fn likely_requests() -> impl Strategy<Value = Vec<u8>> {
    let method = prop::sample::select(vec!["GET", "POST", "HEAD", "OPTIONS", "BREW"]);
    let target =
        prop::sample::select(vec!["/", "/a?b=c", "http://a.example:8/x", "http://a.example", "//x/../y"]);
    let version = prop::sample::select(vec!["1.1", "1.1", "1.0"]);
    let framing = prop::sample::select(vec![
        "",
        "Content-Length: 5\r\n",
        "content-length: 05, 05\r\n",
        "CONTENT-LENGTH: 0\r\nContent-Length: 0\r\n",
        "Transfer-Encoding: Chunked\r\n",
    ]);
    let value = vec_of(prop_oneof![Just(b'\t'), b' '..=b'~', 0x80..=0xffu8], 0..20);
    let name = prop_oneof![
        prop::sample::select(vec![
            "Connection",
            "TE",
            "Via",
            "Upgrade",
            "Expect",
            "X-Forwarded-For",
            "Forwarded",
            "Max-Forwards",
            "Keep-Alive",
            "X-Request-Id",
            "Traceparent",
            "Tracestate",
        ])
        .prop_map(|s| s.as_bytes().to_vec()),
        vec_of(prop::sample::select(b"aZ09!#$%&'*+-.^_`|~".to_vec()), 1..9),
    ];
    let field = prop_oneof![
        4 => (name, value).prop_map(|(n, v)| [n.as_slice(), b":", &v, b"\r\n"].concat()),
        1 => prop::sample::select(vec![
            "Connection: close, host, content-length, transfer-encoding, via\r\n",
            "Connection: keep-alive, x-a\r\nX-A: b\r\n",
            "Connection: upgrade, http2-settings\r\nUpgrade: h2c, WebSocket\r\nHTTP2-Settings: x\r\n",
            "Upgrade: a/1\r\nconnection: UPGRADE\r\n",
        ]).prop_map(|s| s.as_bytes().to_vec()),
    ];
    (method, target, version, framing, vec_of(field, 0..6)).prop_map(|(m, t, v, f, fields)| {
        let start = [m, " ", t, " HTTP/", v, "\r\nHost: h:1\r\n"].concat();
        [start.as_bytes(), &fields.concat(), f.as_bytes(), b"\r\n"].concat()
    })
}

/// Text that is often the chunked coding, or nearly.
fn chunks() -> impl Strategy<Value = Vec<u8>> {
    let part = prop_oneof![
        10 => prop::sample::select(vec![
            "0\r\n", "\r\n", "0\r\n\r\n", "3\r\nabc\r\n", "5;a=b\r\nhello\r\n", "1;a=\"\\\"\"\r\nx\r\n", "A: b\r\n",
            "00a\r\n0123456789\r\n",
        ]).prop_map(|s| s.as_bytes().to_vec()),
        1 => prop::sample::select(vec![";", "=", "\"", " ", "\n", "\r", "f", ":"]).prop_map(|s| s.as_bytes().to_vec()),
        1 => vec_of(any::<u8>(), 0..3),
    ];
    vec_of(part, 0..10).prop_map(|parts| parts.concat())
}

fn framings() -> impl Strategy<Value = Framing> {
    prop_oneof![
        Just(Framing::None),
        (0..40u64).prop_map(Framing::Length),
        Just(Framing::Chunked),
        Just(Framing::Chunked),
        Just(Framing::UntilClose),
    ]
}

/// What may be said about hops, nearly.
fn hops() -> impl Strategy<Value = String> {
    let part = prop::sample::select(vec![
        "for=",
        "192.0.2.1",
        "::1",
        "\"[::1]:80\"",
        "\"",
        "\\",
        ";",
        ",",
        ", ",
        " ",
        "=",
        "by=_x",
        "proto=https",
        "host=",
        "\"a:1\"",
        "unknown",
        ":80",
        "_x",
        "x=",
        "\"\"",
        "[",
        "]",
        "for=1.2.3.4",
    ]);
    vec_of(part, 0..10).prop_map(|parts| parts.concat())
}

/// Asserts that an accepted request means one thing, by a parser that is not ours.
fn assert_unambiguous(out: &[u8], info: &RequestInfo) {
    assert_eq!(HeadScan::new().advance(out, usize::MAX), Ok(Some(out.len())), "{:?}", text(out));
    let mut fields = [httparse::EMPTY_HEADER; 140];
    let mut parsed = httparse::Request::new(&mut fields);
    assert_eq!(parsed.parse(out), Ok(httparse::Status::Complete(out.len())));
    assert_eq!(parsed.version, Some(1));
    let all = |name: &str| -> Vec<String> {
        let lines = parsed.headers.iter().filter(|f| f.name.eq_ignore_ascii_case(name));
        lines.map(|f| text(f.value)).collect()
    };
    assert_eq!(all("host").len(), 1);
    let (length, chunked) = match info.framing {
        Framing::Length(n) => (vec![n.to_string()], vec![]),
        Framing::Chunked => (vec![], vec![String::from("chunked")]),
        Framing::None => (vec![], vec![]),
        Framing::UntilClose => panic!("no request lasts until close"),
    };
    assert_eq!((all("content-length"), all("transfer-encoding")), (length, chunked));
    let upgrade = info.upgrade.map(|place| upgrades()[usize::from(place)].clone());
    assert!(upgrade.as_deref().is_none_or(|p| p == "websocket" || p == "a/1"), "{upgrade:?}");
    let connection = upgrade.iter().map(|_| String::from("upgrade")).collect::<Vec<_>>();
    assert_eq!((all("connection"), all("upgrade")), (connection, upgrade.into_iter().collect()));
    for name in ["te", "keep-alive", "proxy-connection", "trailer", "http2-settings"] {
        assert_eq!(all(name).len(), 0, "{name}");
    }
    assert!(all("via").last().is_some_and(|v| v.ends_with(" tidegate")));
}

proptest! {
    #![proptest_config(crate::scale::properties(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(512) }))]

    #[test]
    fn g1_the_end_of_a_head_does_not_depend_on_the_split(
        bytes in heads(), max in 1..120usize, sizes in vec_of(0..40usize, 0..8)
    ) {
        let whole = HeadScan::new().advance(&bytes, max);
        prop_assert_eq!(scan_growing(&bytes, 0..=bytes.len(), max), whole);
        let ends = cut(&bytes, &sizes).into_iter().scan(0, |end, piece| { *end += piece.len(); Some(*end) });
        prop_assert_eq!(scan_growing(&bytes, ends, max), whole);
        if let Ok(Some(len)) = whole {
            prop_assert!(len <= max && bytes[..len].ends_with(b"\r\n\r\n"));
        }
    }

    #[test]
    fn g1_a_body_does_not_depend_on_the_split(
        framing in framings(), bytes in chunks(), sizes in vec_of(0..40usize, 0..8)
    ) {
        let whole = decode(framing, [bytes.as_slice()]);
        prop_assert_eq!(&decode(framing, bytes.chunks(1)), &whole);
        prop_assert_eq!(&decode(framing, cut(&bytes, &sizes)), &whole);
    }

    #[test]
    fn chunks_that_we_write_are_read_back(
        pieces in vec_of(vec_of(any::<u8>(), 1..300), 0..8), sizes in vec_of(0..400usize, 0..8)
    ) {
        let mut wire = vec![];
        for piece in &pieces {
            wire.extend_from_slice(ChunkLine::new(piece.len()).as_bytes());
            wire.extend_from_slice(piece);
            wire.extend_from_slice(b"\r\n");
        }
        wire.extend_from_slice(LAST_CHUNK);
        let decoding = decode(Framing::Chunked, cut(&wire, &sizes));
        prop_assert_eq!(decoding.body, pieces.concat());
        prop_assert_eq!((decoding.taken, decoding.complete), (Ok(wire.len()), true));
    }

    #[test]
    fn arbitrary_bytes_do_not_panic(
        bytes in prop_oneof![vec_of(any::<u8>(), 0..200), heads(), chunks()], framing in framings(), to_head: bool
    ) {
        let mut out = vec![];
        if let Ok(info) = rewrite_request(&bytes, None, &upgrades(), &mut ids(), &mut out) {
            assert_unambiguous(&out, &info);
        } else {
            prop_assert!(out.is_empty());
        }
        let view = RequestHead::new(&bytes);
        let _ = (view.method(), view.target(), view.path(), view.version(), view.host(), view.fields().count());
        for client in [Version::Http10, Version::Http11] {
            let cx = ResponseContext { to_head, client, keep_alive: true, upgrade: Some("websocket"), date: &HttpDate::default() };
            let mut out = vec![];
            let refused = rewrite_response(&bytes, &cx, &mut out).is_err();
            prop_assert!(!refused || out.is_empty());
        }
        let _ = decode(framing, [bytes.as_slice()]);
    }

    #[test]
    fn f17_what_goes_upstream_has_one_meaning(head in likely_requests()) {
        let mut out = vec![];
        if let Ok(info) = rewrite_request(&head, Some(&PeerAddr::new([192, 0, 2, 1].into(), &[])), &upgrades(), &mut ids(), &mut out) {
            assert_unambiguous(&out, &info);
            // It is a request that we would accept ourselves, with the same meaning.
            let mut again = vec![];
            let second = rewrite_request(&out, None, &upgrades(), &mut ids(), &mut again);
            prop_assert_eq!(second.map(|i| (i.framing, i.is_head, i.upgrade)), Ok((info.framing, info.is_head, info.upgrade)));
            // The view that routing gets agrees with what was sent.
            let (received, sent) = (RequestHead::new(&head), RequestHead::new(&out));
            prop_assert_eq!((received.method(), received.host()), (sent.method(), sent.host()));
            // H9: every request has ids, and what we have written once is kept.
            prop_assert!(sent.request_id().is_some() && sent.trace_id().is_some());
            let again = RequestHead::new(&again);
            prop_assert_eq!((again.request_id(), again.trace_id()), (sent.request_id(), sent.trace_id()));
            prop_assert_eq!(received.path(), sent.path());
        }
    }

    /// A chain that we have written is sound: the next hop that trusts us keeps all of it.
    #[test]
    fn h11_what_is_said_about_hops_is_kept_by_the_next(
        lines in vec_of((prop::sample::select(vec!["X-Forwarded-For", "Forwarded"]), hops()), 0..5)
    ) {
        let peer = PeerAddr::new([10, 0, 0, 1].into(), &[Prefix::from(core::net::IpAddr::from([10, 0, 0, 1]))]);
        let mut head = String::from("GET / HTTP/1.1\r\nHost: h\r\n");
        for (name, value) in lines {
            head += &[name, ": ", &value, "\r\n"].concat();
        }
        head += "\r\n";
        let (mut once, mut twice) = (vec![], vec![]);
        if let Ok(info) = rewrite_request(head.as_bytes(), Some(&peer), &[], &mut ids(), &mut once) {
            assert_unambiguous(&once, &info);
            rewrite_request(&once, Some(&peer), &[], &mut ids(), &mut twice).unwrap();
            let (once, twice) = (text(&once), text(&twice));
            for (name, ours) in [
                ("x-forwarded-for", "10.0.0.1"),
                ("forwarded", "for=10.0.0.1;by=_tidegate;host=h;proto=http"),
            ] {
                let expected: Vec<String> = values(&once, name).iter().map(|v| [*v, ", ", ours].concat()).collect();
                prop_assert_eq!(values(&twice, name), expected);
                prop_assert!(values(&once, name).iter().all(|v| v.ends_with(ours)));
            }
        }
    }

    #[test]
    fn what_goes_to_the_client_has_one_meaning(
        status in 100..600u16, old_upstream: bool, old_client: bool, to_head: bool, keep_alive: bool,
        fields in vec_of(prop::sample::select(vec![
            "Content-Length: 05\r\n", "Transfer-Encoding: chunked\r\n", "Connection: date, x\r\n", "Date: d\r\n", "X: y\r\n",
            "Connection: close\r\n", "Set-Cookie: a\r\n", "Set-Cookie: b\r\n", "Upgrade: x\r\n",
        ]), 0..6)
    ) {
        let client = if old_client { Version::Http10 } else { Version::Http11 };
        let cx = ResponseContext { to_head, client, keep_alive, upgrade: None, date: &HttpDate::default() };
        let minor = if old_upstream { "0" } else { "1" };
        let head = ["HTTP/1.", minor, " ", &status.to_string(), " r\r\n", &fields.concat(), "\r\n"].concat();
        let mut out = vec![];
        let Ok(info) = rewrite_response(head.as_bytes(), &cx, &mut out) else { return Ok(()) };
        if info.interim && old_client {
            prop_assert!(out.is_empty());
            return Ok(());
        }
        let mut lines = [httparse::EMPTY_HEADER; 140];
        let mut parsed = httparse::Response::new(&mut lines);
        prop_assert_eq!(parsed.parse(&out), Ok(httparse::Status::Complete(out.len())));
        let count = |name: &str| parsed.headers.iter().filter(|f| f.name.eq_ignore_ascii_case(name)).count();
        let (lengths, codings) = (count("content-length"), count("transfer-encoding"));
        match info.relayed {
            Framing::Length(5) => prop_assert_eq!((lengths, codings), (1, 0)),
            Framing::Chunked => {
                prop_assert_eq!((lengths, codings), (0, 1));
                prop_assert!(!old_client);
            }
            Framing::UntilClose => {
                prop_assert_eq!((lengths, codings), (0, 0));
                prop_assert!(!info.keep_alive && old_client);
            }
            Framing::None => {
                prop_assert_eq!(codings, 0);
                prop_assert!(lengths <= usize::from(!info.interim && status != 204));
            }
            Framing::Length(n) => prop_assert!(false, "length {}", n),
        }
        if !info.interim {
            prop_assert!(count("date") >= 1);
            prop_assert_eq!(count("connection"), usize::from(!info.keep_alive || old_client));
        }
        prop_assert_eq!(count("upgrade"), 0);
        prop_assert!(!info.reusable || !(old_upstream || fields.contains(&"Connection: close\r\n")));
    }
}
