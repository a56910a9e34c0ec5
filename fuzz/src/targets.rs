//! What is fuzzed. Each target makes its input out of bytes, and panics if something is wrong with what comes out.

use std::time::Duration;

use tidegate_core::http::{
    BodyDecoder, Framing, HttpDate, IdSource, PeerAddr, ResponseContext, Version, rewrite_request,
    rewrite_response,
};
use tidegate_core::relay::{Interest, Op};
use tidegate_core::{Config, Instant, IoFailure, IoKind, Prefix, Side, TimeoutPolicy};

use crate::choices::Choices;
use crate::marks;
use crate::messages::{self, Meant};
use crate::rig::{Cuts, Emitted, Rig, relay};
use crate::strict::{self, Message};

/// A target and its name.
pub type Target = (&'static str, fn(&[u8]));

/// All of them.
pub const ALL: &[Target] =
    &[("request", request), ("response", response), ("both", both), ("chunks", chunks), ("heads", heads)];

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

/// The same for every wait.
fn limits(limit: Duration) -> TimeoutPolicy {
    let limit = Some(limit);
    TimeoutPolicy {
        connect: limit,
        write: limit,
        write_idle: limit,
        read: limit,
        total: limit,
        client_head: limit,
        client_body: limit,
        client_write: limit,
        keep_alive: limit,
        tunnel: limit,
        tunnel_fin: limit,
        linger: limit,
        ..TimeoutPolicy::OFF
    }
}

/// Limits that no stream here comes near, however long it takes between its pieces.
fn config(c: &mut Choices<'_>) -> Config {
    let trusted =
        if c.once_in(3) { vec!["192.0.2.0/24".parse::<Prefix>().expect("a prefix")] } else { vec![] };
    Config { timeouts: limits(Duration::from_secs(24 * 3600)), max_head: 4096, trusted, ..Config::default() }
}

/// Asserts that all that was emitted is HTTP by the letter, and returns it as it was read.
pub fn read(emitted: &Emitted) -> (Vec<Message>, Vec<Message>) {
    let show = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    let responses = strict::responses(&emitted.to_client, &emitted.asked)
        .unwrap_or_else(|e| panic!("to the client: {e}\n{:?}\n{}", emitted.asked, show(&emitted.to_client)));
    let mut requests = Vec::new();
    // A tunnel may be open before the client has taken the 101.
    let switched = responses.iter().any(|r| r.start == ["101"])
        || emitted.outcomes.last().is_some_and(|(status, ..)| *status == Some(101));
    for (i, stream) in emitted.to_upstream.iter().enumerate() {
        let read = strict::request(stream);
        let read = read.unwrap_or_else(|e| panic!("to the upstream: {e}\n{}", show(stream)));
        let Some((message, rest)) = read else { continue };
        let last = i + 1 == emitted.to_upstream.len();
        assert!(rest.is_empty() || (last && switched), "bytes behind a request: {}", show(rest));
        requests.push(message);
    }
    requests.iter().for_each(|request| marks::message("request", request));
    responses.iter().for_each(|response| marks::message("response", response));
    emitted.outcomes.iter().for_each(|(status, error, _)| marks::outcome(*status, *error));
    (requests, responses)
}

/// Runs whole and in pieces; both must come to the same.
fn in_pieces(
    config: &Config,
    client: &[u8],
    answers: &[Vec<u8>],
    cuts: &Cuts,
) -> (Emitted, Vec<Message>, Vec<Message>) {
    let whole = relay(config.clone(), client, answers, &Cuts::none());
    let split = relay(config.clone(), client, answers, cuts);
    let ((requests, responses), (split_requests, split_responses)) = (read(&whole), read(&split));
    assert_eq!(whole.outcomes, split.outcomes, "the outcome depends on the pieces");
    assert_eq!(whole.closed, split.closed, "the end depends on the pieces");
    assert_eq!(responses, split_responses, "the responses depend on the pieces");
    // How much of a request had gone before its fault was found does depend on when it came.
    if whole.outcomes.iter().all(|(_, error, _)| error.is_none()) {
        assert_eq!(requests, split_requests, "the requests depend on the pieces");
        if whole.outcomes.last().is_some_and(|(status, ..)| *status == Some(101)) {
            let (whole, split) = (whole.to_upstream.last(), split.to_upstream.last());
            assert_eq!(whole, split, "what passes the tunnel depends on the pieces");
        }
    }
    (whole, requests, responses)
}

/// Asserts that `read` is the message that was meant: start-line, end-to-end fields in order, body.
fn is_meant(read: &Message, meant: &Meant) {
    assert_eq!(read.start, meant.start);
    let mut fields = read.fields.iter();
    for field in &meant.fields {
        assert!(fields.any(|f| f == field), "{field:?} is missing or out of order in {read:?}");
    }
    assert!(read.fields.iter().all(|(name, _)| name != "x-hop"), "{read:?}");
    assert!(read.complete && read.body == meant.body, "body of {read:?}, meant {meant:?}");
}

/// The client sends anything; the upstream answers well.
pub fn request(bytes: &[u8]) {
    let c = &mut Choices::new(bytes);
    let config = config(c);
    let (mut stream, mut meant) = (Vec::new(), Vec::new());
    let cuts = Cuts { pieces: c.pieces(), drain: 1 + c.below(200), step: c.below(16) as u64 };
    let sound = c.once_in(2);
    for _ in 0..1 + c.below(3) {
        meant.push(messages::request(c, &mut stream));
    }
    if !sound {
        messages::damage(c, &mut stream);
    }
    let answers = vec![OK.to_vec(); 16];
    let (_, requests, responses) = in_pieces(&config, &stream, &answers, &cuts);
    if sound {
        let served = meant.iter().position(|m| !m.persists).map_or(meant.len(), |last| last + 1);
        assert_eq!((requests.len(), responses.len()), (served, served));
        requests.iter().zip(&meant).for_each(|(read, meant)| is_meant(read, meant));
        assert!(responses.iter().all(|r| r.start == ["200"] && r.complete));
    }
}

/// The client asks well; the upstream answers anything.
pub fn response(bytes: &[u8]) {
    let c = &mut Choices::new(bytes);
    let config = config(c);
    let cuts = Cuts { pieces: c.pieces(), drain: 1 + c.below(200), step: c.below(16) as u64 };
    let sound = c.once_in(2);
    let mut stream = Vec::new();
    let mut asked_until = Vec::new();
    let asked: Vec<Meant> = (0..1 + c.below(2))
        .map(|_| {
            let meant = messages::request(c, &mut stream);
            asked_until.push(stream.len());
            meant
        })
        .collect();
    let mut meant = Vec::new();
    let mut answers = Vec::new();
    for to in &asked {
        let mut answer = Vec::new();
        meant.push(messages::response(c, to, &mut answer));
        if !sound {
            messages::damage(c, &mut answer);
        }
        answers.push(answer);
    }
    let (emitted, _, responses) = in_pieces(&config, &stream, &answers, &cuts);
    if sound {
        let is_final = |r: &&Message| !r.start[0].starts_with('1') || r.start == ["101"];
        let finals: Vec<_> = responses.iter().filter(is_final).collect();
        // All are answered, up to one after which the connection says that it ends, or is no longer HTTP.
        let ends = finals.last().is_some_and(|last| last.all("connection") == [b"close"]);
        let switched = responses.iter().any(|r| r.start == ["101"]);
        assert!(finals.len() == asked.len() || ends || switched, "{} answers to {asked:?}", finals.len());
        if let Some(at) = finals.iter().position(|r| r.start == ["101"]) {
            // What the client has sent behind the request that it answers.
            let last = emitted.to_upstream.last().expect("it was asked");
            let (_, through) = strict::request(last).ok().flatten().expect("read once already");
            assert_eq!(through, &stream[asked_until[at]..], "through the tunnel");
        }
        for ((read, meant), to) in finals.into_iter().zip(&meant).zip(&asked) {
            is_meant(read, meant);
            assert_eq!(to.head, meant.head);
        }
    }
}

/// Both sides send anything at any time, sockets fail, the clock jumps.
pub fn both(bytes: &[u8]) {
    let c = &mut Choices::new(bytes);
    let ms = |n: usize| Some(Duration::from_millis(n as u64));
    let timeouts = TimeoutPolicy {
        connect: ms(c.below(100)),
        write: ms(c.below(200)),
        write_idle: ms(c.below(100)),
        read: ms(c.below(150)),
        total: ms(c.below(400)),
        client_head: ms(c.below(150)),
        client_body: ms(c.below(150)),
        client_write: ms(c.below(150)),
        keep_alive: ms(c.below(150)),
        pool_idle: ms(c.below(150)),
        tunnel: ms(c.below(150)),
        tunnel_fin: ms(c.below(150)),
        linger: ms(c.below(80)),
        queue: ms(c.below(80)),
        drain: ms(c.below(80)),
    };
    let mut rig = Rig::new(Config { timeouts, max_head: 4096, ..config(c) });
    rig.keeps = c.once_in(2);
    let (mut client, mut upstream) = (Vec::new(), Vec::new());
    for _ in 0..1 + c.below(3) {
        let to = messages::request(c, &mut client);
        messages::response(c, &to, &mut upstream);
    }
    if c.once_in(2) {
        messages::damage(c, &mut client);
    }
    if c.once_in(2) {
        messages::damage(c, &mut upstream);
    }
    let (mut sent, mut answered, mut clock) = (0, 0, 0u64);
    let failure = IoFailure { kind: IoKind::Reset, os_code: None };
    for _ in 0..400 {
        let size = 1 + c.below(900);
        let lot = size & 63;
        match c.below(20) {
            0..5 => sent += rig.read(Side::Client, &client[sent..], size),
            5..9 => {
                answered += rig.read(Side::Upstream, &upstream[answered..], size);
                if answered == upstream.len() {
                    answered = 0;
                }
            }
            9..12 => drop(rig.write(Side::Client, size)),
            12..15 => drop(rig.write(Side::Upstream, size)),
            15 if rig.connecting && lot & 3 != 0 => rig.connected(),
            15 if rig.connecting => rig.with(|relay, env| relay.failed(Op::Connect, failure, env)),
            16 if lot & 7 == 0 => drop(rig.fin(Side::Client)),
            16 if lot & 7 == 1 => drop(rig.fin(Side::Upstream)),
            17 if lot & 7 == 0 => {
                let op = Op::PASS[size / 8 % 4];
                if rig.relay.interest().wants(op) {
                    rig.with(|relay, env| relay.failed(op, failure, env));
                }
            }
            18 if lot == 0 => {
                let now = rig.now;
                rig.with(|relay, env| relay.drain(now, env));
            }
            _ => {
                clock += size as u64 % 60;
                rig.now = Instant::from_millis(clock);
                let before = rig.relay.poll_timeout();
                rig.with(|relay, env| relay.handle_timeout(env));
                if before.is_some_and(|d| d.at > rig.now) {
                    assert_eq!(rig.relay.poll_timeout(), before, "a deadline fired early");
                }
            }
        }
        if rig.relay.is_closed() {
            assert_eq!((rig.relay.poll_timeout(), rig.relay.interest()), (None, Interest::default()));
            assert!(!rig.upstream && !rig.connecting, "an upstream connection outlives its client");
            break;
        }
        assert!(rig.relay.poll_timeout().is_some(), "a wait without a deadline: {:?}", rig.relay);
    }
    // Time alone must end it.
    for _ in 0..200 {
        let Some(next) = rig.relay.poll_timeout() else { break };
        rig.now = rig.now.max(next.at);
        rig.with(|relay, env| relay.handle_timeout(env));
        while rig.write(Side::Client, usize::MAX) > 0 {}
    }
    assert!(rig.relay.is_closed(), "time does not end it: {:?}", rig.relay);
    read(&rig.done());
}

/// The chunk decoder against a reader of the grammar, in any pieces.
pub fn chunks(bytes: &[u8]) {
    let c = &mut Choices::new(bytes);
    let pieces = c.pieces();
    let mut wire = Vec::new();
    if c.once_in(8) {
        wire = c.rest().to_vec();
    } else {
        let data: Vec<u8> = (0..c.below(2000)).map(|i| i as u8).collect();
        messages::chunked(c, &data, &mut wire);
        if c.once_in(2) {
            messages::damage(c, &mut wire);
        }
        wire.extend_from_slice(c.one(&["", "GET", "0\r\n\r\n"]).as_bytes());
    }
    let expected = grammar::chunked(&wire);
    for cuts in [&[usize::MAX][..], &[1], &pieces] {
        let mut decoder = BodyDecoder::new(Framing::Chunked);
        let (mut data, mut at, mut end) = (Vec::new(), 0, 0);
        let mut cuts = cuts.iter().copied().cycle();
        let found = loop {
            let step = match decoder.decode(&wire[at..end]) {
                Ok(step) => step,
                Err(why) => {
                    marks::mark(|| format!("{why:?}"));
                    break grammar::Found::Broken;
                }
            };
            data.extend_from_slice(&wire[at + step.skip..at + step.skip + step.data]);
            at += step.skip + step.data;
            if decoder.is_complete() {
                break grammar::Found::End(at);
            }
            if step.skip + step.data == 0 {
                if end == wire.len() {
                    break grammar::Found::More;
                }
                end = end.saturating_add(cuts.next().unwrap_or(1)).min(wire.len());
            }
        };
        marks::mark(|| format!("{found:?}").split('(').next().unwrap_or_default().to_owned());
        assert_eq!((&data, found), (&expected.0, expected.1), "{:?}", String::from_utf8_lossy(&wire));
    }
}

/// One head, rewritten: what comes out is by the letter, and comes out again when it goes in.
pub fn heads(bytes: &[u8]) {
    let c = &mut Choices::new(bytes);
    let trusted = ["192.0.2.7".parse::<Prefix>().expect("a prefix")];
    let peer = PeerAddr::new([192, 0, 2, 7].into(), if c.once_in(2) { &trusted } else { &[] });
    let upgrades = ["websocket".to_owned()];
    let mut head = Vec::new();
    let to = messages::request(c, &mut head);
    let is_request = c.once_in(2);
    if !is_request {
        head.clear();
        messages::response(c, &to, &mut head);
    }
    let end = head.windows(4).position(|w| w == b"\r\n\r\n").map_or(head.len(), |at| at + 4);
    head.truncate(end);
    messages::damage(c, &mut head);
    let mut out = Vec::new();
    if is_request {
        if let Err(why) = rewrite_request(&head, Some(&peer), &upgrades, &mut IdSource::new(1), &mut out) {
            marks::mark(|| format!("request {why:?}"));
            assert!(out.is_empty());
            return;
        }
        let whole = |out: &[u8]| match strict::request(out) {
            Ok(Some((message, _))) => message,
            other => panic!("{other:?}: {}", String::from_utf8_lossy(out)),
        };
        let first = whole(&out);
        marks::message("request", &first);
        if first.all("host") == [b""] {
            // From an HTTP/1.0 client that named none; we would not accept that in HTTP/1.1.
            return;
        }
        let mut again = Vec::new();
        rewrite_request(&out, Some(&peer), &upgrades, &mut IdSource::new(2), &mut again)
            .expect("what we write");
        let second = whole(&again);
        // OPTIONS and TRACE count Max-Forwards down; what tells of hops grows.
        const HOPS: [&str; 6] =
            ["via", "forwarded", "x-forwarded-for", "traceparent", "max-forwards", "x-forwarded-proto"];
        let end_to_end = |m: &Message| {
            let kept = m.fields.iter().filter(|(name, _)| !HOPS.contains(&name.as_str()));
            let mut kept: Vec<_> = kept.cloned().collect();
            kept.sort();
            (m.start.clone(), kept)
        };
        assert_eq!(end_to_end(&first), end_to_end(&second));
    } else {
        for client in [Version::Http10, Version::Http11] {
            out.clear();
            let date = HttpDate::default();
            let cx = ResponseContext {
                to_head: to.head,
                client,
                keep_alive: c.once_in(2),
                upgrade: Some("websocket").filter(|_| client == Version::Http11 && c.once_in(2)),
                date: &date,
            };
            match rewrite_response(&head, &cx, &mut out) {
                Ok(_) => {}
                Err(why) => {
                    marks::mark(|| format!("response {why:?}"));
                    assert!(out.is_empty());
                    continue;
                }
            }
            let asked = strict::Asked { head: to.head, old: client == Version::Http10 };
            let read = strict::responses(&out, &[asked]);
            assert!(read.is_ok(), "{read:?}: {}", String::from_utf8_lossy(&out));
            read.into_iter().flatten().for_each(|response| marks::message("response", &response));
        }
    }
}

/// The chunked coding as RFC 9112 section 7.1 has it, by recursive descent; without our limits, which no input here
/// reaches.
mod grammar {
    #[derive(Copy, Clone, Debug, PartialEq, Eq)]
    pub(super) enum Found {
        /// The body ends before this byte.
        End(usize),
        Broken,
        More,
    }

    struct Reader<'a> {
        wire: &'a [u8],
        at: usize,
        data: Vec<u8>,
    }

    pub(super) fn chunked(wire: &[u8]) -> (Vec<u8>, Found) {
        let mut reader = Reader { wire, at: 0, data: Vec::new() };
        let found = match reader.body() {
            Ok(()) => Found::End(reader.at),
            Err(found) => found,
        };
        (reader.data, found)
    }

    type Step<T> = Result<T, Found>;

    fn tchar(b: u8) -> bool {
        matches!(b, b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9') || b"!#$%&'*+-.^_`|~".contains(&b)
    }

    fn text(b: u8) -> bool {
        matches!(b, b'\t' | b' '..=b'~' | 0x80..)
    }

    impl Reader<'_> {
        fn peek(&self) -> Step<u8> {
            self.wire.get(self.at).copied().ok_or(Found::More)
        }

        fn take(&mut self, is: impl Fn(u8) -> bool) -> Step<u8> {
            let byte = self.peek()?;
            if !is(byte) {
                return Err(Found::Broken);
            }
            self.at += 1;
            Ok(byte)
        }

        fn many(&mut self, is: impl Fn(u8) -> bool) -> Step<usize> {
            let begin = self.at;
            while is(self.peek()?) {
                self.at += 1;
            }
            Ok(self.at - begin)
        }

        fn line_end(&mut self) -> Step<()> {
            self.take(|b| b == b'\r')?;
            self.take(|b| b == b'\n')?;
            Ok(())
        }

        fn body(&mut self) -> Step<()> {
            loop {
                let (mut size, mut digits) = (0u64, 0);
                while let Some(digit) = char::from(self.peek()?).to_digit(16) {
                    digits += 1;
                    // More than the size of any file: the number of digits is limited.
                    if digits > 16 {
                        return Err(Found::Broken);
                    }
                    size = size << 4 | u64::from(digit);
                    self.at += 1;
                }
                if digits == 0 {
                    return Err(Found::Broken);
                }
                self.extensions()?;
                self.line_end()?;
                if size == 0 {
                    break;
                }
                let size = usize::try_from(size).unwrap_or(usize::MAX);
                let n = size.min(self.wire.len() - self.at);
                self.data.extend_from_slice(&self.wire[self.at..self.at + n]);
                self.at += n;
                if n < size {
                    return Err(Found::More);
                }
                self.line_end()?;
            }
            while self.peek()? != b'\r' {
                self.take(tchar)?;
                self.many(tchar)?;
                self.take(|b| b == b':')?;
                self.many(text)?;
                self.line_end()?;
            }
            self.line_end()
        }

        fn blanks(&mut self) -> Step<usize> {
            self.many(|b| b == b' ' || b == b'\t')
        }

        fn extensions(&mut self) -> Step<()> {
            loop {
                let blanks = self.blanks()?;
                if self.peek()? != b';' {
                    return if blanks == 0 { Ok(()) } else { Err(Found::Broken) };
                }
                self.at += 1;
                self.blanks()?;
                self.take(tchar)?;
                self.many(tchar)?;
                let named = self.at;
                self.blanks()?;
                if self.peek()? != b'=' {
                    self.at = named;
                    continue;
                }
                self.at += 1;
                self.blanks()?;
                if self.peek()? == b'"' {
                    self.at += 1;
                    while self.take(text)? != b'"' {
                        if self.wire[self.at - 1] == b'\\' {
                            self.take(text)?;
                        }
                    }
                } else {
                    self.take(tchar)?;
                    self.many(tchar)?;
                }
            }
        }
    }
}
