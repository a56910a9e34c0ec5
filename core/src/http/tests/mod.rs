//! What the rows of `docs/HTTP.md` ask for, as tables: each case names its row. Heads go through
//! [`HeadScan`] first, as in the relay, so that a row is tested by whichever part refuses.
//!
//! Nothing is tested here that needs a connection: that is the relay's and the conformance suite's.

use alloc::string::String;
use alloc::vec::Vec;

use super::*;

mod body;
mod ids;
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

/// A head that stands alone in `bytes`. It must be found in the same way if it comes one byte at a time (G1).
fn scan(bytes: &[u8]) -> Result<&[u8], HttpError> {
    let found = HeadScan::new().advance(bytes, 64 * 1024);
    let mut scan = HeadScan::new();
    let one_by_one = (0..=bytes.len()).map(|end| scan.advance(&bytes[..end], 64 * 1024));
    let decisive = one_by_one.into_iter().find(|found| *found != Ok(None)).unwrap_or(Ok(None));
    assert_eq!(decisive, found, "one byte at a time: {:?}", text(bytes));
    let len = found?.ok_or(HttpError::Malformed)?;
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

/// Fields of a response that are the upstream's affair go to the client as they are.
fn reaches_the_client(fields: &str) {
    let date = HttpDate::default();
    let cx = ResponseContext {
        to_head: false,
        client: Version::Http11,
        keep_alive: true,
        upgrade: None,
        date: &date,
    };
    let head = alloc::format!("HTTP/1.1 200 OK\r\n{fields}");
    let (_, sent) = response(alloc::format!("{head}Content-Length: 0\r\n\r\n"), &cx).unwrap();
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
