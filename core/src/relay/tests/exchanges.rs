//! Whole conversations in random pieces, against what they must come to: every byte that a client gets
//! belongs to the answer to its own request, in order, and what is cut never looks whole.

use super::*;
use crate::http::{BodyDecoder, Framing};
use alloc::format;
use alloc::vec;
use proptest::prelude::*;

#[derive(Clone, Debug)]
struct Request {
    head: bool,
    /// Length and whether it is chunked; no body without.
    body: Option<(usize, bool)>,
}

#[derive(Clone, Debug)]
struct Response {
    interim: usize,
    /// Sent when the request's head is there, not its body.
    early: bool,
    framing: Framing,
    len: usize,
    /// Only so many thousandths of it come, then RST or FIN.
    cut: Option<(usize, bool)>,
    /// Its connection is closed when it is used again.
    stale: bool,
}

fn request() -> impl Strategy<Value = Request> {
    let body = prop::option::of((0usize..300, any::<bool>()));
    (any::<bool>(), body).prop_map(|(head, body)| Request { head: head && body.is_none(), body })
}

fn response() -> impl Strategy<Value = Response> {
    let cut = prop::option::weighted(0.3, (0usize..1000, any::<bool>()));
    let (early, stale) = (prop::bool::weighted(0.2), prop::bool::weighted(0.3));
    (0usize..3, early, 0..3, 0usize..400, cut, stale).prop_map(
        |(interim, early, framing, len, cut, stale)| {
            let framing =
                [Framing::Length(len as u64), Framing::Chunked, Framing::UntilClose][framing as usize];
            Response { interim, early, framing, len, cut, stale }
        },
    )
}

/// No two requests have the same bytes in the same places.
fn body(n: usize, len: usize) -> Vec<u8> {
    (0..len).map(|i| b'a' + ((n * 7 + i) % 26) as u8).collect()
}

fn chunked(body: &[u8]) -> Vec<u8> {
    let mut out: Vec<u8> = vec![];
    for chunk in body.chunks(37) {
        out.extend_from_slice(format!("{:x};x=y\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"0\r\n\r\n");
    out
}

impl Request {
    fn method(&self, n: usize) -> &'static str {
        match self.body {
            None if self.head => "HEAD",
            None => ["GET", "POST"][n / 2 % 2],
            Some(_) => ["PUT", "POST"][n % 2],
        }
    }

    fn bytes(&self, n: usize) -> Vec<u8> {
        let method = self.method(n);
        let head = format!("{method} /{n} HTTP/1.1\r\nHost: a\r\n");
        match self.body {
            None => [head.as_bytes(), b"\r\n"].concat(),
            Some((len, true)) => {
                [head.as_bytes(), b"Transfer-Encoding: chunked\r\n\r\n", &chunked(&body(n, len))].concat()
            }
            Some((len, false)) => {
                [head.as_bytes(), format!("Content-Length: {len}\r\n\r\n").as_bytes(), &body(n, len)].concat()
            }
        }
    }
}

impl Response {
    fn bytes(&self, n: usize, to_head: bool) -> Vec<u8> {
        let mut out = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(self.interim);
        out.extend_from_slice(format!("HTTP/1.1 200 OK\r\nN: {n}\r\n").as_bytes());
        let body = body(n, self.len);
        let (fields, body) = match self.framing {
            Framing::Length(len) => (format!("Content-Length: {len}\r\n"), body),
            Framing::Chunked => ("Transfer-Encoding: chunked\r\n".into(), chunked(&body)),
            _ => (String::new(), body),
        };
        out.extend_from_slice(fields.as_bytes());
        out.extend_from_slice(b"\r\n");
        if !to_head {
            out.extend_from_slice(&body);
        }
        if let Some((part, _)) = self.cut {
            out.truncate(out.len() * part / 1000);
        }
        out
    }
}

/// A connection as the upstream sees it.
#[derive(Debug, Default)]
struct Conn {
    got: Vec<u8>,
    sends: Vec<u8>,
    /// Which request it answers.
    answers: Option<usize>,
    /// How it ends after what it sends: by RST, or by FIN.
    ends: Option<bool>,
    /// It was used and has died since.
    stale: bool,
}

/// Splits a message in front: its head, its decoded body, whether that is whole, and how long it was.
fn message(bytes: &[u8], bodiless: bool, until_close: bool) -> Option<(String, Vec<u8>, bool, usize)> {
    let head = bytes.windows(4).position(|w| w == b"\r\n\r\n")? + 4;
    let text = String::from_utf8(bytes[..head].to_ascii_lowercase()).unwrap();
    let length = text.lines().find_map(|l| l.strip_prefix("content-length: ")).map(|l| l.parse().unwrap());
    let framing = match length {
        _ if bodiless || text.starts_with("http/1.1 1") => Framing::None,
        _ if text.contains("transfer-encoding: chunked") => Framing::Chunked,
        Some(n) => Framing::Length(n),
        None if until_close => Framing::UntilClose,
        None => Framing::None,
    };
    let mut decoder = BodyDecoder::new(framing);
    let (mut at, mut body) = (head, vec![]);
    loop {
        let step = decoder.decode(&bytes[at..]).expect("well-formed");
        at += step.skip;
        body.extend_from_slice(&bytes[at..at + step.data]);
        at += step.data;
        if step.skip + step.data == 0 {
            return Some((text, body, decoder.is_complete(), at));
        }
    }
}

struct Talk {
    rig: Rig,
    requests: Vec<Request>,
    responses: Vec<Response>,
    to_send: Vec<u8>,
    conn: Option<Conn>,
    dialling: bool,
    /// Requests that an upstream has carried out.
    served: Vec<usize>,
    to_client: Vec<u8>,
}

impl Talk {
    /// Takes in what the machine did with its connections, and checks that it has one at a time.
    fn actions(&mut self) {
        for action in self.rig.actions() {
            match action {
                Action::Connect { .. } => {
                    assert!(self.conn.is_none() && !self.dialling, "two at a time");
                    self.dialling = true;
                }
                Action::Release { .. } => {
                    let conn = self.conn.as_mut().expect("what is pooled");
                    assert!(conn.sends.is_empty() && conn.ends.is_none() && conn.answers.is_some());
                    assert!(message(&conn.got, false, false).is_some_and(|m| m.2), "a request that is cut");
                    let stale = conn.answers.is_some_and(|n| self.responses[n].stale);
                    *conn = Conn { stale, ..Conn::default() };
                }
                Action::Abort(Side::Upstream) | Action::Close(Side::Upstream) | Action::Discard => {
                    (self.conn, self.dialling) = (None, false);
                }
                _ => {}
            }
        }
    }

    /// One kind of event, with at most `size` bytes. Says whether something moved.
    fn step(&mut self, kind: u8, size: usize) -> bool {
        let moved = match kind {
            0 => {
                let n = self.rig.client(&self.to_send[..size.min(self.to_send.len())]);
                self.to_send.drain(..n);
                n > 0
            }
            1 => {
                let Some(conn) = &mut self.conn else { return false };
                let n = self.rig.upstream(&conn.sends[..size.min(conn.sends.len())]);
                conn.sends.drain(..n);
                let over = conn.sends.is_empty() && self.rig.relay.interest().read_upstream;
                match conn.ends {
                    Some(true) if over => {
                        self.rig.with(|relay, env| relay.failed(Op::Read(Side::Upstream), RESET, env));
                        true
                    }
                    Some(false) if over => {
                        self.rig.fin(Side::Upstream);
                        true
                    }
                    _ => n > 0,
                }
            }
            2 => {
                let bytes = self.rig.take(Side::Upstream, size);
                let n = bytes.len();
                if let Some(conn) = self.conn.as_mut().filter(|_| n > 0) {
                    conn.got.extend(bytes);
                    serve(conn, &self.requests, &self.responses, &mut self.served);
                }
                n > 0
            }
            3 => {
                let bytes = self.rig.take(Side::Client, size);
                let n = bytes.len();
                self.to_client.extend(bytes);
                n > 0
            }
            _ if self.dialling => {
                self.dialling = false;
                self.conn = Some(Conn::default());
                self.rig.with(|relay, env| relay.connected(false, env));
                true
            }
            _ => false,
        };
        self.actions();
        moved
    }
}

/// Answers as soon as the response's time has come, and checks that the request is what was sent.
fn serve(conn: &mut Conn, requests: &[Request], responses: &[Response], served: &mut Vec<usize>) {
    let Some((head, got, whole, len)) = message(&conn.got, false, false) else { return };
    assert_eq!(len, conn.got.len(), "nothing follows a request before its answer");
    let n: usize = head.split(['/', ' ']).nth(2).unwrap().parse().unwrap();
    let sent = requests[n].body.map_or(vec![], |(len, _)| body(n, len));
    assert!(sent.starts_with(&got) && (!whole || sent == got), "request {n}: {got:?}");
    let answer = responses[n].bytes(n, requests[n].head);
    // An upstream that dies without a byte is as good as stale: what may be done twice may come again.
    let silent = conn.stale || answer.is_empty();
    if whole && (!silent || requests[n].method(n) == "POST") {
        served.push(n);
    }
    if conn.stale {
        conn.ends = Some(false);
        return;
    }
    if conn.answers.is_none() && (whole || responses[n].early) {
        conn.answers = Some(n);
        conn.sends = answer;
        let until_close = responses[n].framing == Framing::UntilClose && !requests[n].head;
        conn.ends = responses[n].cut.map(|(_, reset)| reset).or(until_close.then_some(false));
    }
}

proptest! {
    #![proptest_config(crate::scale::properties(ProptestConfig::default()))]

    #[test]
    fn every_client_gets_its_own_answers_and_sees_what_is_cut(
        exchanges in proptest::collection::vec((request(), response()), 1..5),
        schedule in proptest::collection::vec((0u8..5, 1usize..120), 1..60),
        half_close in any::<bool>(),
    ) {
        let (requests, responses): (Vec<_>, Vec<_>) = exchanges.into_iter().unzip();
        let to_send = requests.iter().enumerate().flat_map(|(n, r)| r.bytes(n)).collect();
        let mut talk = Talk {
            rig: alone(TimeoutPolicy::OFF),
            requests,
            responses,
            to_send,
            conn: None,
            dialling: false,
            served: vec![],
            to_client: vec![],
        };
        talk.rig.keeps = true;
        for _ in 0..4 {
            for &(kind, size) in &schedule {
                talk.step(kind, size);
            }
        }
        while (0..5).any(|kind| talk.step(kind, usize::MAX)) {}
        if half_close && talk.rig.relay.interest().read_client {
            talk.rig.fin(Side::Client);
            while (0..5).any(|kind| talk.step(kind, usize::MAX)) {}
        }

        prop_assert!(!talk.rig.relay.is_active(), "it hangs: {:?}", talk.rig.relay);

        let Talk { rig, requests, responses, served, to_client, .. } = talk;
        let mut rest = &to_client[..];
        let mut ended = false;
        for (n, (request, response)) in requests.iter().zip(&responses).enumerate() {
            let answer = loop {
                match message(rest, request.head, false) {
                    Some((head, _, _, len)) if head.starts_with("http/1.1 1") => rest = &rest[len..],
                    other => break other,
                }
            };
            let Some((head, got, whole, len)) = answer else { break };
            prop_assert!(!ended, "an answer after the last one: {head}");
            rest = &rest[len..];
            ended = !whole || head.contains("connection: close");
            if !head.starts_with("http/1.1 200") {
                // What has a body or must not be done twice is not sent again on a stale connection.
                let lost = n > 0 && responses[n - 1].stale && (request.body.is_some() || request.method(n) == "POST");
                let cut = response.cut.is_some();
                prop_assert!((cut || lost) && head.starts_with("http/1.1 502"), "{head}");
                continue;
            }
            let sent = body(n, if request.head { 0 } else { response.len });
            let named = format!("\r\nn: {n}\r\n");
            prop_assert!(head.contains(&named), "{head}");
            prop_assert!(sent.starts_with(&got));
            let outcome = rig.outcomes[n];
            prop_assert_eq!(outcome.error.is_none(), whole);
            prop_assert_eq!(outcome.response_bytes, got.len() as u64);
            if whole {
                // All of it, unless it ended as a close-delimited body does.
                let fin = response.framing == Framing::UntilClose && response.cut.is_some_and(|c| !c.1);
                prop_assert!(got == sent || fin, "a cut response looks whole");
            } else {
                prop_assert!(response.cut.is_some());
            }
        }
        prop_assert!(rest.is_empty(), "surplus: {:?}", String::from_utf8_lossy(rest));
        // Nothing is done twice that must not be.
        let mut once = served.clone();
        once.dedup();
        prop_assert!(served.windows(2).all(|w| w[0] < w[1]) && once == served, "{served:?}");
    }
}
