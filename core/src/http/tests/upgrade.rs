//! Upgrades: which of them go to the upstream, and which 101 is an answer to one (`http.md` section 8).

use super::*;
use alloc::format;

/// A request's fields, and the protocol that is forwarded of them.
const REQUESTS: &[(&str, &str, Option<&str>)] = &[
    ("as browsers send it", "Connection: Upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
    ("any case", "CONNECTION: uPGRADE\r\nUPGRADE: WebSocket\r\n", Some("websocket")),
    ("among options", "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
    (
        "an option on a line of its own",
        "Connection: z\r\nUpgrade: websocket\r\nConnection: upgrade\r\n",
        Some("websocket"),
    ),
    ("with close", "Connection: close, upgrade\r\nUpgrade: websocket\r\n", Some("websocket")),
    ("the first that may pass", "Connection: upgrade\r\nUpgrade: b, a/1, websocket\r\n", Some("a/1")),
    (
        "on several lines",
        "Connection: upgrade\r\nUpgrade: b\r\nUpgrade: websocket, a/1\r\n",
        Some("websocket"),
    ),
    ("empty members", "Connection: ,upgrade,\r\nUpgrade: ,\t, websocket ,\r\n", Some("websocket")),
    ("not named by Connection (U3)", "Upgrade: websocket\r\n", None),
    ("named by another field (U3)", "Proxy-Connection: upgrade\r\nUpgrade: websocket\r\n", None),
    ("named in part (U3)", "Connection: upgrade-x\r\nUpgrade: websocket\r\n", None),
    ("no Upgrade", "Connection: upgrade\r\n", None),
    ("an empty one", "Connection: upgrade\r\nUpgrade:\r\n", None),
    ("unknown (U4)", "Connection: upgrade\r\nUpgrade: b\r\n", None),
    ("another version (U4)", "Connection: upgrade\r\nUpgrade: websocket/13, a/2, a\r\n", None),
    ("only a part of the name (U4)", "Connection: upgrade\r\nUpgrade: websockets, web, socket\r\n", None),
    ("no list member", "Connection: upgrade\r\nUpgrade: websocket;x, \"websocket\", web socket\r\n", None),
    (
        "h2c though listed (U4)",
        "Connection: upgrade, http2-settings\r\nUpgrade: h2c\r\nHTTP2-Settings: AA\r\n",
        None,
    ),
    ("HTTP though listed (U4)", "Connection: upgrade\r\nUpgrade: HTTP/2.0\r\n", None),
    (
        "h2c with another (U4)",
        "Connection: upgrade, http2-settings\r\nUpgrade: H2C, websocket\r\nHTTP2-Settings: AA\r\n",
        Some("websocket"),
    ),
];

#[test]
fn u3_u4_what_goes_upstream_is_one_protocol_of_the_list_or_none() {
    for (name, fields, expected) in REQUESTS {
        for (body, framing) in [
            ("", Framing::None),
            ("Content-Length: 0\r\n", Framing::Length(0)),
            ("Content-Length: 3\r\n", Framing::Length(3)),
            ("Transfer-Encoding: chunked\r\n", Framing::Chunked),
        ] {
            let (info, head) =
                request(format!("GET / HTTP/1.1\r\nHost: h\r\n{body}{fields}X: y\r\n\r\n")).unwrap();
            // llhttp would take a body for the tunnel's bytes.
            let expected = &expected.filter(|_| matches!(framing, Framing::None | Framing::Length(0)));
            let asked = info.upgrade.map(|place| upgrades()[usize::from(place)].clone());
            assert_eq!(asked.as_deref(), *expected, "{name}");
            assert_eq!(values(&head, "upgrade"), expected.iter().copied().collect::<Vec<_>>(), "{name}");
            assert_eq!(
                values(&head, "connection"),
                expected.map(|_| "upgrade").into_iter().collect::<Vec<_>>(),
                "{name}"
            );
            assert_eq!(values(&head, "http2-settings").len(), 0, "{name}");
            assert_eq!(
                (info.framing, values(&head, "x").len()),
                (framing, 1),
                "{name}: a body is framed as ever"
            );
        }
        // An HTTP/1.0 client cannot mean it.
        let (info, head) = request(format!("GET / HTTP/1.0\r\n{fields}\r\n")).unwrap();
        assert_eq!((info.upgrade, values(&head, "upgrade").len()), (None, 0), "1.0: {name}");
        assert_eq!(values(&head, "connection").len(), 0, "1.0: {name}");
    }
}

#[test]
fn u4_an_empty_list_lets_nothing_pass() {
    let head = b"GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: websocket,\r\n\r\n";
    let mut out = Vec::new();
    let info = rewrite_request(head, None, &[], &mut ids(), &mut out).unwrap();
    assert_eq!((info.upgrade, values(&text(&out), "upgrade").len()), (None, 0));
    // Nor does what is no protocol, if the list was filled in by mistake.
    for wrong in ["", "web socket", "a/", "/1", "a/1/2", "x;y"] {
        let head = format!("GET / HTTP/1.1\r\nHost: h\r\nConnection: upgrade\r\nUpgrade: {wrong},\r\n\r\n");
        let info =
            rewrite_request(head.as_bytes(), None, &[String::from(wrong)], &mut ids(), &mut out).unwrap();
        assert_eq!(info.upgrade, None, "{wrong}");
    }
}

fn answer(head: &str, upgrade: Option<&str>) -> Rewritten<ResponseInfo> {
    response(head, &ResponseContext { upgrade, ..to_get(&HttpDate::default()) })
}

const SWITCHING: &str = "HTTP/1.1 101 Switching Protocols\r\n";

#[test]
fn u1_a_101_to_what_was_asked_for_is_written_anew() {
    for fields in [
        "Connection: Upgrade\r\nUpgrade: WebSocket\r\nSec-WebSocket-Accept: x\r\nKeep-Alive: 1\r\n",
        "Sec-WebSocket-Accept: x\r\nUPGRADE: websocket\r\nCONNECTION: x, ,upgrade\r\nX: hop\r\n",
        "Connection: upgrade, close\r\nUpgrade: , websocket,\r\nSec-WebSocket-Accept: x\r\nContent-Length: 0\r\n",
    ] {
        let (info, head) = answer(&format!("{SWITCHING}{fields}\r\n"), Some("websocket")).unwrap();
        let expected = format!(
            "{SWITCHING}Sec-WebSocket-Accept: x\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
        );
        assert_eq!(head, expected, "{fields}");
        let expected = ResponseInfo {
            status: 101,
            interim: false,
            framing: Framing::UntilClose,
            reusable: false,
            suspect: false,
            relayed: Framing::UntilClose,
            keep_alive: false,
        };
        assert_eq!(info, expected, "{fields}");
    }
}

#[test]
fn u1_any_other_101_is_refused() {
    let good = "Connection: upgrade\r\nUpgrade: websocket\r\n";
    assert!(answer(&format!("{SWITCHING}{good}\r\n"), Some("websocket")).is_ok());
    for (name, line, fields, asked) in [
        ("not asked for", SWITCHING, good, None),
        ("something else", SWITCHING, good, Some("a/1")),
        ("no Upgrade", SWITCHING, "Connection: upgrade\r\n", Some("websocket")),
        ("an empty one", SWITCHING, "Connection: upgrade\r\nUpgrade: ,\r\n", Some("websocket")),
        ("not named by Connection", SWITCHING, "Upgrade: websocket\r\n", Some("websocket")),
        ("two of them", SWITCHING, "Connection: upgrade\r\nUpgrade: websocket, a/1\r\n", Some("websocket")),
        ("two lines", SWITCHING, &format!("{good}Upgrade: h2c\r\n"), Some("websocket")),
        ("twice the same", SWITCHING, &format!("{good}Upgrade: websocket\r\n"), Some("websocket")),
        ("another version", SWITCHING, "Connection: upgrade\r\nUpgrade: websocket/1\r\n", Some("websocket")),
        ("HTTP/1.0", "HTTP/1.0 101 x\r\n", good, Some("websocket")),
        ("a length", SWITCHING, &format!("{good}Content-Length: 1\r\n"), Some("websocket")),
        ("a coding", SWITCHING, &format!("{good}Transfer-Encoding: chunked\r\n"), Some("websocket")),
    ] {
        let seen = answer(&format!("{line}{fields}\r\n"), asked);
        assert_eq!(seen.err(), Some(HttpError::UnexpectedUpgrade), "{name}");
    }
}

#[test]
fn u1_any_other_status_is_an_ordinary_response_without_upgrade() {
    for (status, interim) in [(100, true), (102, true), (200, false), (204, false), (426, false)] {
        let head = format!("HTTP/1.1 {status} x\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n");
        let (info, head) = answer(&head, Some("websocket")).unwrap();
        assert_eq!((info.status, info.interim), (status, interim));
        assert_eq!((values(&head, "upgrade").len(), values(&head, "connection").len()), (0, 0), "{status}");
    }
}
