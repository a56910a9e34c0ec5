//! What the rows of `docs/HTTP.md` ask for, as tables: each case names its row. Heads go through
//! [`HeadScan`] first, as in the relay, so that a row is tested by whichever part refuses.
//!
//! Nothing is tested here that needs a connection: that is the relay's and the conformance suite's.

use alloc::string::String;
use alloc::vec::Vec;

use super::*;
use crate::scale::or_under_miri;

mod body;
mod ids;
mod names;
mod own;
mod properties;
mod request;
mod response;
mod scan;
mod target;
mod trust;
mod upgrade;

/// What a peer's head becomes on the other side.
type Rewritten<T> = Result<(T, String), HttpError>;

/// Where pieces of `len` bytes may end: one byte each, and of random sizes. Every table of these tests is read in all of
/// these ways (`http.md` G1).
fn segmentations(len: usize) -> impl Iterator<Item = Vec<usize>> {
    // Under Miri in one: byte by byte takes too long.
    let (from, to, most) = or_under_miri((0, 4, 17), (1, 2, 97));
    (from..to).map(move |seed: u64| {
        let (mut ends, mut at, mut dice) = (Vec::new(), 0, seed);
        while at < len {
            dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            at += if seed == 0 { 1 } else { 1 + (dice >> 33) as usize % most };
            ends.push(at.min(len));
        }
        ends
    })
}

/// Where a head ends. It must be found, or refused, in the same way in whatever pieces it comes.
fn find(bytes: &[u8], max: usize) -> Result<Option<usize>, HttpError> {
    let found = HeadScan::new().advance(bytes, max);
    for ends in segmentations(bytes.len()) {
        let mut scan = HeadScan::new();
        let mut in_pieces = ends.iter().map(|&end| scan.advance(&bytes[..end], max));
        let decisive = in_pieces.find(|found| *found != Ok(None)).unwrap_or(Ok(None));
        assert_eq!(decisive, found, "in pieces that end at {ends:?}: {:?}", text(bytes));
    }
    found
}

/// The head that stands alone in `bytes`.
fn scan(bytes: &[u8]) -> Result<&[u8], HttpError> {
    let len = find(bytes, 64 * 1024)?.ok_or(HttpError::Malformed)?;
    Ok(&bytes[..len])
}

fn request(head: impl AsRef<[u8]>) -> Rewritten<RequestInfo> {
    let mut out = Vec::new();
    let info =
        scan(head.as_ref()).and_then(|head| rewrite_request(head, None, &upgrades(), &mut ids(), &mut out));
    if info.is_err() {
        assert_eq!(out, b"", "a refused head must leave nothing behind");
    }
    info.map(|info| (info, text(&out)))
}

/// What may pass in these tests.
fn upgrades() -> Vec<String> {
    ["websocket", "a/1", "h2c", "HTTP/2.0"].map(String::from).to_vec()
}

fn response(head: impl AsRef<[u8]>, cx: &ResponseContext<'_>) -> Rewritten<ResponseInfo> {
    let mut out = Vec::new();
    let info = scan(head.as_ref()).and_then(|head| rewrite_response(head, cx, &mut out));
    if info.is_err() {
        assert_eq!(out, b"", "a refused head must leave nothing behind");
    }
    info.map(|info| (info, text(&out)))
}

/// What a response meets at a client that has sent a GET over HTTP/1.1, and whose connection may stay open.
fn to_get(date: &HttpDate) -> ResponseContext<'_> {
    ResponseContext { to_head: false, client: Version::Http11, keep_alive: true, upgrade: None, date }
}

/// Fields of a response that are the upstream's affair go to the client as they are.
fn reaches_the_client(fields: &str) {
    let date = HttpDate::default();
    let head = alloc::format!("HTTP/1.1 200 OK\r\n{fields}");
    let (_, sent) = response(alloc::format!("{head}Content-Length: 0\r\n\r\n"), &to_get(&date)).unwrap();
    assert!(sent.starts_with(&head), "{sent}");
}

/// What a request without ids of its own gets from [`ids`].
const NEW_IDS: &str = "x-request-id: 00000000000200000000204000220001\r\n\
    traceparent: 00-00000000000200000000204000220001-0800440010820245-00\r\n";

/// Always the same ids.
fn ids() -> IdSource {
    IdSource::new(1)
}

/// One character a byte, so that obs-text shows.
fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| char::from(b)).collect()
}

/// The values of all lines called `name`.
fn values<'a>(head: &'a str, name: &str) -> Vec<&'a str> {
    head.split("\r\n")
        .skip(1)
        .filter_map(|line| line.split_once(": "))
        .filter(|(n, _)| n.eq_ignore_ascii_case(name))
        .map(|(_, value)| value)
        .collect()
}
