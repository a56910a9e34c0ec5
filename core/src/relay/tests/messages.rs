//! What the two sides of `model.rs` say, in pieces, and a reader of what they are sent. It shares nothing with what it reads
//! the work of.

use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;

/// A body that would be a request if anybody took it for one.
pub(super) const EVIL: &str = "GET /evil HTTP/1.1\r\nHost: a\r\n\r\n";

pub(super) fn clients() -> Vec<Vec<String>> {
    let get = |n: u8| alloc::format!("GET /{n} HTTP/1.1\r\nHost: a\r\n\r\n");
    let (e1, e2) = EVIL.split_at(7);
    let s = String::from;
    vec![
        vec![get(1), get(2)],
        vec![
            s("PUT /1 HTTP/1.1\r\nHost: a\r\nContent-Length: 31\r\n\r\n"),
            s(e1),
            alloc::format!("{e2}{}", get(2)),
        ],
        vec![
            s("POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1f\r"),
            alloc::format!("\n{e1}"),
            alloc::format!("{e2}\r\n0\r\n"),
            alloc::format!("\r\n{}", get(2)),
        ],
        vec![
            s("GET /1 HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
            s("GET /2 HTTP/1.1\r\nHost: a\r\n\r\n"),
            s("more"),
        ],
        vec![
            s("POST /1 HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 31\r\n\r\n"),
            alloc::format!("{e1}{e2}"),
            get(2),
        ],
        vec![s("GET /1 HTTP/1.0\r\n\r\n"), s(EVIL)],
        vec![s("GET /1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n"), s(EVIL)],
        vec![s("GET /1 HT"), alloc::format!("TP/1.1\r\nHost: a\r\n\r\nGET / "), s(EVIL)],
        vec![
            s("POST /1 HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1f\r\n"),
            alloc::format!("{e1}{e2}X"),
            s(EVIL),
        ],
        vec![s("\r\n"), s("\rGET"), s(EVIL)],
        vec![s("OPTIONS * HTTP/1.1\r\nHost: a\r\nMax-Forwards: 0\r\n\r\n"), get(1), get(2)],
    ]
}

pub(super) fn upstreams() -> Vec<Vec<String>> {
    let s = String::from;
    vec![
        vec![s("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe"), s("llo"), s("junk")],
        vec![s("HTTP/1.1 100 C\r\n\r\n"), s("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")],
        vec![
            s("HTTP/1.1 103 E\r\n\r\nHTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel"),
            s("lo\r\n0\r\n"),
            s("\r\n"),
        ],
        vec![s("HTTP/1.1 200 OK\r\n\r\n"), s("abc")],
        vec![
            s("HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n"),
            s("tunnel"),
            s("tunnel"),
        ],
        vec![s("HTTP/1.1 204 N\r\n\r\n"), s("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")],
        vec![s("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n"), s("X")],
        vec![s("HTTP/1.0 500 OK\r\nContent-Length: 5\r\n\r\nhello")],
        vec![s("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 0\r\n\r\n")],
        vec![s("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhellojunk")],
        vec![s("HTTP/1.1 2"), s("00 OK\r\nContent-Length: 5\r\n\r\nhello")],
    ]
}

#[derive(Debug, Default, PartialEq)]
pub(super) struct Message {
    pub(super) start: String,
    pub(super) interims: usize,
    /// There is a whole head.
    pub(super) head: bool,
    pub(super) body: Vec<u8>,
    pub(super) complete: bool,
    pub(super) until_close: bool,
    pub(super) own: bool,
    pub(super) rest: usize,
}

/// Reads one message, with the interim ones before it, from what was sent so far.
pub(super) fn read(mut bytes: &[u8], response: bool) -> Message {
    let mut m = Message::default();
    let head = loop {
        let Some(end) = bytes.windows(4).position(|w| w == b"\r\n\r\n") else {
            m.rest = bytes.len();
            return m;
        };
        let head = String::from_utf8(bytes[..end].to_vec()).unwrap().to_lowercase();
        bytes = &bytes[end + 4..];
        if response && head.starts_with("http/1.1 1") && !head.starts_with("http/1.1 101") {
            m.interims += 1;
            continue;
        }
        break head;
    };
    m.head = true;
    m.start = head.split("\r\n").next().unwrap().into();
    m.own = head.contains("proxy-status");
    let field = |name: &str| {
        head.split("\r\n").skip(1).find_map(|l| l.strip_prefix(name).map(|v| String::from(v.trim())))
    };
    let status = if response { &m.start[9..12] } else { "" };
    if field("transfer-encoding:").is_some() {
        loop {
            let Some(line) = bytes.windows(2).position(|w| w == b"\r\n") else {
                bytes = &[];
                break;
            };
            let size = usize::from_str_radix(core::str::from_utf8(&bytes[..line]).unwrap(), 16).unwrap();
            bytes = &bytes[line + 2..];
            if size == 0 {
                m.complete = bytes.starts_with(b"\r\n");
                bytes = &bytes[2.min(bytes.len())..];
                break;
            }
            let n = size.min(bytes.len());
            m.body.extend_from_slice(&bytes[..n]);
            bytes = &bytes[n..];
            if bytes.len() < 2 {
                bytes = &[];
                break;
            }
            assert!(bytes.starts_with(b"\r\n"));
            bytes = &bytes[2..];
        }
        m.rest = bytes.len();
    } else if matches!(status, "101") || (response && status != "204" && field("content-length:").is_none()) {
        m.until_close = true;
        m.body = bytes.to_vec();
    } else {
        let length = field("content-length:").filter(|_| status != "204").map_or(0, |l| l.parse().unwrap());
        let n = length.min(bytes.len());
        m.body = bytes[..n].to_vec();
        m.complete = n == length;
        m.rest = bytes.len() - n;
    }
    m
}
