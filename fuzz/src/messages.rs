//! Requests and responses out of decisions: sound ones, together with what is meant by them, and damaged ones.
//!
//! What is meant is known here because it was chosen, not because anything was parsed.

use crate::choices::Choices;

/// What a sound message says to the other end.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Meant {
    /// Method and target as the upstream must see them, or the status.
    pub start: Vec<String>,
    /// The end-to-end fields, in order.
    pub fields: Vec<(String, Vec<u8>)>,
    /// The body; nothing after HEAD.
    pub body: Vec<u8>,
    /// Whether the connection may serve another request.
    pub persists: bool,
    /// Whether it is HEAD, or answers it.
    pub head: bool,
    /// Whether the client speaks HTTP/1.0.
    pub old: bool,
    /// Whether it may be answered with 101.
    pub upgrades: bool,
}

const METHODS: &[&str] = &["GET", "POST", "HEAD", "PUT", "DELETE", "OPTIONS", "PATCH", "get", "BREW-1"];
const TARGETS: &[&str] = &["/", "/a/../b//c?d=e&f", "/%2e%2E/", "/x?", "/;a=b,c", "/\"<>[]{}|^`", "//h/x"];
const FIELDS: &[(&str, &[u8])] = &[
    ("Accept", b"*/*"),
    ("X-A", b"one"),
    ("x-a", b"two"),
    ("X-Empty", b""),
    ("X-Bytes", b"\xe9\xff\x80"),
    ("X-Tab", b"a\tb"),
    ("Cookie", b"a=b; c=\"d\""),
    ("Set-Cookie", b"a=b"),
    ("X_Y", b"underscore"),
    ("!#$%&'*+-.^_`|~9", b"token"),
    ("Content-Type", b"text/plain"),
    ("Authorization", b"Basic Og=="),
    ("X-List", b"a, , \"b,c\" ,"),
    ("X-Colon", b": a: b"),
];
/// What asks for the one upgrade that may pass.
const UPGRADE: &str = "Connection: Upgrade\r\nUpgrade: other, websocket\r\n";
/// Fields that stay on their hop.
const HOPS: &[&str] = &[
    "",
    "Connection: x-hop\r\nX-Hop: gone\r\n",
    "Keep-Alive: timeout=5\r\n",
    "TE: trailers\r\n",
    "Upgrade: websocket\r\n",
    UPGRADE,
    "Proxy-Connection: close\r\n",
    "Trailer: X-T\r\n",
    "X-Hop: gone\r\nConnection: , X-HOP ,, te\r\n",
];
/// What an attacker puts between the fields.
const EVIL: &[&[u8]] = &[
    b"Content-Length: 5\r\n",
    b"Content-Length: 6\r\n",
    b"Content-Length: +5\r\n",
    b"Content-Length: 5, 5\r\n",
    b"Content-Length:\r\n",
    b"Content-Length : 5\r\n",
    b"content-length: 0x5\r\n",
    b"Content-Length: 99999999999999999999\r\n",
    b"Transfer-Encoding: chunked\r\n",
    b"Transfer-Encoding: chunked, identity\r\n",
    b"Transfer-Encoding: xchunked\r\n",
    b"Transfer-Encoding:\x0bchunked\r\n",
    b"Transfer-Encoding: \r\n chunked\r\n",
    b"TRANSFER-ENCODING:\tchunked\t\r\n",
    b"Transfer_Encoding: chunked\r\n",
    b"Content_Length: 1\r\n",
    b"Connection: close\r\n",
    b"Connection: content-length, transfer-encoding, host\r\n",
    b"Connection: keep-alive\r\n",
    b"Connection: upgrade\r\nUpgrade: websocket\r\n",
    b"Host: evil\r\n",
    b"Host:\r\n",
    b" folded: x\r\n",
    b"\tfolded\r\n",
    b"no colon\r\n",
    b": no name\r\n",
    b"X: a\rb\r\n",
    b"X: a\nContent-Length: 7\r\n",
    b"X: a\x00b\r\n",
    b"X\x00: a\r\n",
    b"X: \x7f\r\n",
    b"X\xe9: y\r\n",
    b"X: y\n",
    b"\r\n",
    b"\n",
    b"Expect: 100-continue\r\n",
    b"Max-Forwards: 0\r\n",
    b"Max-Forwards: 7\r\n",
    b"Forwarded: for=\"\r\n",
    b"Forwarded: for=1.1.1.1;proto=\"x\", for=_x\r\n",
    b"X-Forwarded-For: 1.1.1.1, <script>, 2.2.2.2\r\n",
    b"X-Forwarded-Proto: https\r\n",
    b"Traceparent: 00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01\r\n",
    b"X-Request-Id: mine\r\n",
    b"Date: now\r\n",
    b"Sec-WebSocket-Accept: x\r\n",
];
const EXTENSIONS: &[&str] = &["", ";a", ";a=b", " ; a = \"b;\\\"c\"", ";a;b=c;d=\"\""];
const TRAILERS: &[&str] =
    &["", "X-T: v\r\n", "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n", "Host: evil\r\nX:\r\n"];

fn body(c: &mut Choices<'_>) -> Vec<u8> {
    let n = match c.below(4) {
        0 => 0,
        1 => c.below(20),
        2 => c.below(3) * 97,
        _ => c.below(3000),
    };
    // A body that would do harm if it were taken for what follows it.
    b"0123456789\r\n0\r\n\r\nGET / HTTP/1.1\r\n\r\n".iter().copied().cycle().take(n).collect()
}

/// `data` in chunks, valid in every detail.
pub fn chunked(c: &mut Choices<'_>, data: &[u8], out: &mut Vec<u8>) {
    let mut rest = data;
    while !rest.is_empty() {
        let (chunk, after) = rest.split_at((1 + c.below(700)).min(rest.len()));
        let line = match c.below(3) {
            0 => format!("{:x}", chunk.len()),
            1 => format!("{:X}", chunk.len()),
            _ => format!("000{:x}", chunk.len()),
        };
        out.extend_from_slice(line.as_bytes());
        out.extend_from_slice(c.one(EXTENSIONS).as_bytes());
        out.extend_from_slice(b"\r\n");
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        rest = after;
    }
    out.extend_from_slice(c.one(&["0", "0000"]).as_bytes());
    out.extend_from_slice(c.one(EXTENSIONS).as_bytes());
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(c.one(TRAILERS).as_bytes());
    out.extend_from_slice(b"\r\n");
}

/// Returns those that are end to end, and what was chosen of [`HOPS`].
fn fields(c: &mut Choices<'_>, out: &mut Vec<u8>) -> (Vec<(String, Vec<u8>)>, &'static str) {
    let mut kept = Vec::new();
    for _ in 0..c.below(6) {
        let (name, value) = FIELDS[c.below(FIELDS.len())];
        let (before, after) = (c.one(&[" ", "", "\t ", "   "]), c.one(&["", " ", "\t"]));
        for part in [name.as_bytes(), b":", before.as_bytes(), value, after.as_bytes(), b"\r\n"] {
            out.extend_from_slice(part);
        }
        kept.push((name.to_ascii_lowercase(), value.to_vec()));
    }
    let hop = c.one(HOPS);
    out.extend_from_slice(hop.as_bytes());
    (kept, hop)
}

/// A sound request is appended to `out`.
pub fn request(c: &mut Choices<'_>, out: &mut Vec<u8>) -> Meant {
    let method = c.one(METHODS);
    let target = c.one(TARGETS);
    let old = c.once_in(6);
    let absolute = c.once_in(6);
    let version = if old { "HTTP/1.0" } else { "HTTP/1.1" };
    let prefix = if absolute && target.starts_with("/") { "http://h:80" } else { "" };
    out.extend_from_slice(format!("{method} {prefix}{target} {version}\r\n").as_bytes());
    out.extend_from_slice(c.one(&["Host: h:80\r\n", "hOST:h:80 \r\n"]).as_bytes());
    let (kept, hop) = fields(c, out);
    let close = c.once_in(8);
    // Most that ask for an upgrade have no body, as they must.
    let asks = hop == UPGRADE && !c.once_in(3);
    let body = if asks { Vec::new() } else { body(c) };
    let mut persists = !close && !old;
    if close {
        out.extend_from_slice(b"Connection: close\r\n");
    } else if old && c.once_in(2) {
        out.extend_from_slice(b"Connection: keep-alive\r\n");
        persists = true;
    }
    let mut upgrades = false;
    match c.below(3) {
        framing if body.is_empty() && (asks || framing == 0) => {
            out.extend_from_slice(b"\r\n");
            upgrades = hop == UPGRADE && !old && !close;
        }
        1 if !old => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            chunked(c, &body, out);
        }
        _ => {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            out.extend_from_slice(&body);
        }
    }
    let start = vec![method.to_string(), target.to_string()];
    Meant { start, fields: kept, body, persists, head: *method == *"HEAD", old, upgrades }
}

/// What a sound response to `to` consists of is appended to `out`: interim ones first, and at the end perhaps nothing
/// but FIN says where the body ends.
pub fn response(c: &mut Choices<'_>, to: &Meant, out: &mut Vec<u8>) -> Meant {
    for _ in 0..c.below(8).saturating_sub(5) {
        out.extend_from_slice(
            c.one(&["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n"])
                .as_bytes(),
        );
    }
    if to.upgrades && !to.head && !c.once_in(4) {
        out.extend_from_slice(
            b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        );
        // The first bytes of the tunnel are glued to it.
        let body = body(c);
        out.extend_from_slice(&body);
        return Meant { start: vec!["101".into()], fields: Vec::new(), body, ..to.clone() };
    }
    let status = c.one(&["200 OK", "404 Not Found", "204 No Content", "304 Not Modified", "599 ", "206"]);
    let number = &status[..3];
    let bodiless = to.head || matches!(number, "204" | "304");
    let old = c.once_in(6);
    out.extend_from_slice(format!("HTTP/1.{} {status}\r\n", u8::from(!old)).as_bytes());
    let (kept, _) = fields(c, out);
    let mut body = body(c);
    if c.once_in(8) {
        out.extend_from_slice(b"Connection: close\r\n");
    }
    match c.below(3) {
        _ if bodiless => {
            body.clear();
            if number != "204" && c.once_in(2) {
                out.extend_from_slice(b"Content-Length: 77\r\n");
            }
            out.extend_from_slice(b"\r\n");
        }
        0 => {
            out.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
            out.extend_from_slice(&body);
        }
        1 if !old => {
            out.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
            chunked(c, &body, out);
        }
        _ => {
            out.extend_from_slice(b"\r\n");
            out.extend_from_slice(&body);
        }
    }
    let start = vec![number.to_string()];
    Meant { start, fields: kept, body, persists: true, head: to.head, old, upgrades: false }
}

/// Damages a message in one to three places.
pub fn damage(c: &mut Choices<'_>, bytes: &mut Vec<u8>) {
    for _ in 0..1 + c.below(3) {
        let line_ends: Vec<usize> = (2..=bytes.len()).filter(|&at| bytes[..at].ends_with(b"\r\n")).collect();
        // Around the end of a line, where most is decided, or anywhere.
        let at = match c.below(2) {
            0 if !line_ends.is_empty() => line_ends[c.below(line_ends.len().min(1 << 16))] - c.below(3),
            _ => c.below(bytes.len().clamp(1, 1 << 16)).min(bytes.len()),
        };
        match c.below(8) {
            // Behind a whole line, where a field would stand.
            0..4 if !line_ends.is_empty() => {
                let at = line_ends[c.below(line_ends.len().min(16))];
                bytes.splice(at..at, c.one(EVIL).iter().copied());
            }
            4 => bytes.truncate(at),
            5 => drop(bytes.drain(at..(at + 1 + c.below(4)).min(bytes.len()))),
            6 => {
                let wild =
                    [0, b'\r', b'\n', b' ', b'\t', b':', b';', b',', b'"', b'0', b'f', 0x7f, 0x80, 0xff];
                let byte = wild[c.below(wild.len())];
                bytes.insert(at, byte);
            }
            _ => {
                let byte = c.byte();
                if let Some(old) = bytes.get_mut(at) {
                    *old = byte;
                }
            }
        }
    }
}
