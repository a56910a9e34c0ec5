//! What one side received, read as HTTP/1.1 messages while it arrives.
//!
//! A small parser of our own, so that a fault in the proxy's parser cannot hide in the suite. Bodies are
//! verified against the pattern and counted, not kept. It accepts what a message *means* and reports
//! the rest as broken; it decides nothing about time.

use std::time::Duration;

use crate::pattern;

/// How much of a body is kept to be read by people and compared literally.
const TEXT: usize = 512;

/// How a message body ends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Framing {
    /// There is none.
    None,
    /// After so many bytes.
    Length(u64),
    /// With the last chunk.
    Chunked,
    /// With the connection.
    Close,
}

/// A message whose head was complete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The start-line.
    pub start: String,
    /// The fields in order, names in lower case.
    pub fields: Vec<(String, String)>,
    /// How the body ends.
    pub framing: Framing,
    /// Body bytes received.
    pub body_len: u64,
    /// Whether they are a prefix of the pattern.
    pub is_pattern: bool,
    /// The first bytes of the body.
    pub text: Vec<u8>,
    /// Whether the end of the body was received.
    pub complete: bool,
    /// When its first byte came.
    pub first_byte: Duration,
    /// When its head was complete.
    pub head_at: Duration,
    /// When its last byte so far came.
    pub last_byte: Duration,
}

impl Message {
    /// The status code, if it is a response.
    pub fn status(&self) -> Option<u16> {
        status_of(&self.start)
    }

    /// The first value of a field.
    pub fn field(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, value)| value.as_str())
    }
}

/// Which kind of messages arrives.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Receives {
    /// An upstream's side.
    Requests,
    /// A client's side.
    Responses,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum State {
    Head,
    Body,
    ChunkLine,
    ChunkData(u64),
    ChunkEnd,
    Trailers,
    Broken,
}

/// Everything that one connection received.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Recorder {
    receives: Receives,
    state: State,
    /// An unfinished line or head.
    line: Vec<u8>,
    line_since: Duration,
    /// The messages so far.
    pub messages: Vec<Message>,
    /// Bytes received.
    pub total: u64,
    /// What was no HTTP, if anything was not.
    pub broken: Option<String>,
}

impl Recorder {
    /// Nothing yet.
    pub fn new(receives: Receives) -> Recorder {
        Recorder {
            receives,
            state: State::Head,
            line: Vec::new(),
            line_since: Duration::ZERO,
            messages: Vec::new(),
            total: 0,
            broken: None,
        }
    }

    /// Bytes of an unfinished head.
    pub fn partial_head(&self) -> &[u8] {
        if self.state == State::Head { &self.line } else { &[] }
    }

    /// Keeps of an unfinished line or head how long it is.
    pub(crate) fn blank_partial(&mut self) {
        self.line.fill(b'.');
    }

    /// Takes received bytes.
    pub fn feed(&mut self, mut bytes: &[u8], now: Duration) {
        self.total += bytes.len() as u64;
        while !bytes.is_empty() {
            let used = match self.state {
                State::Head => self.head(bytes, now),
                State::Body => self.body(bytes, now),
                State::ChunkLine | State::ChunkEnd | State::Trailers => self.chunk_line(bytes, now),
                State::ChunkData(left) => self.chunk_data(left, bytes, now),
                State::Broken => return,
            };
            bytes = &bytes[used..];
        }
    }

    /// The request is answered by a 101: what comes from here on is the tunnel, recorded as one more message.
    pub fn switch(&mut self, now: Duration) {
        if self.state != State::Head || !self.line.is_empty() {
            self.break_off("bytes of the tunnel before the 101".into());
            return;
        }
        self.messages.push(Message {
            start: "(the tunnel)".into(),
            fields: Vec::new(),
            framing: Framing::Close,
            body_len: 0,
            is_pattern: true,
            text: Vec::new(),
            complete: false,
            first_byte: now,
            head_at: now,
            last_byte: now,
        });
        self.state = State::Body;
    }

    /// The peer sent FIN: what is close-delimited is complete.
    pub fn end(&mut self) {
        if let Some(message) = self.messages.last_mut()
            && message.framing == Framing::Close
        {
            message.complete = true;
        }
    }

    fn break_off(&mut self, why: String) -> usize {
        self.broken = Some(why);
        self.state = State::Broken;
        0
    }

    /// Collects up to and including `end`; says how much of `bytes` that took, and whether it came.
    fn collect(&mut self, bytes: &[u8], end: &[u8], now: Duration) -> (usize, bool) {
        if self.line.is_empty() {
            self.line_since = now;
        }
        for (i, byte) in bytes.iter().enumerate() {
            self.line.push(*byte);
            if self.line.ends_with(end) {
                return (i + 1, true);
            }
        }
        (bytes.len(), false)
    }

    fn head(&mut self, bytes: &[u8], now: Duration) -> usize {
        let (used, done) = self.collect(bytes, b"\r\n\r\n", now);
        if !done {
            return used;
        }
        let text = String::from_utf8_lossy(&self.line).into_owned();
        self.line.clear();
        let mut lines = text.split("\r\n");
        let start = lines.next().unwrap_or_default().to_owned();
        let mut fields = Vec::new();
        for line in lines.filter(|line| !line.is_empty()) {
            let field = line.split_once(':').filter(|(name, _)| is_token(name));
            let Some((name, value)) = field else {
                return self.break_off(format!("a field line without a name: {line:?}"));
            };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
        let is_sound = match self.receives {
            Receives::Responses => status_of(&start).is_some(),
            Receives::Requests => is_request_line(&start),
        };
        if !is_sound {
            return self.break_off(format!("unexpected start-line: {start:?}"));
        }
        let switched = status_of(&start) == Some(101);
        let mut message = Message {
            start,
            fields,
            framing: Framing::None,
            body_len: 0,
            is_pattern: true,
            text: Vec::new(),
            complete: false,
            first_byte: self.line_since,
            head_at: now,
            last_byte: now,
        };
        message.framing = match framing(&message, self.receives) {
            // What follows is the tunnel, and lasts as long as it does.
            _ if switched => Framing::Close,
            Ok(framing) => framing,
            Err(why) => return self.break_off(why),
        };
        self.state = match message.framing {
            Framing::None | Framing::Length(0) => {
                message.complete = true;
                State::Head
            }
            Framing::Length(_) | Framing::Close => State::Body,
            Framing::Chunked => State::ChunkLine,
        };
        self.messages.push(message);
        used
    }

    fn body(&mut self, bytes: &[u8], now: Duration) -> usize {
        let Some(message) = self.messages.last_mut() else { return bytes.len() };
        let take = match message.framing {
            Framing::Length(n) => {
                bytes.len().min(usize::try_from(n - message.body_len).unwrap_or(usize::MAX))
            }
            _ => bytes.len(),
        };
        message.take(&bytes[..take], now);
        if message.framing == Framing::Length(message.body_len) {
            message.complete = true;
            self.state = State::Head;
        }
        take
    }

    fn chunk_data(&mut self, left: u64, bytes: &[u8], now: Duration) -> usize {
        let take = bytes.len().min(usize::try_from(left).unwrap_or(usize::MAX));
        if let Some(message) = self.messages.last_mut() {
            message.take(&bytes[..take], now);
        }
        self.state = match left - take as u64 {
            0 => State::ChunkEnd,
            left => State::ChunkData(left),
        };
        take
    }

    fn chunk_line(&mut self, bytes: &[u8], now: Duration) -> usize {
        let (used, done) = self.collect(bytes, b"\r\n", now);
        if !done {
            return used;
        }
        let line = String::from_utf8_lossy(&self.line).trim_end().to_owned();
        self.line.clear();
        self.state = match self.state {
            State::ChunkEnd if line.is_empty() => State::ChunkLine,
            State::ChunkEnd => {
                return self.break_off(format!("{line:?} after a chunk"));
            }
            State::ChunkLine => {
                let size = line.split(';').next().unwrap_or_default();
                match u64::from_str_radix(size, 16) {
                    Ok(0) => State::Trailers,
                    Ok(n) => State::ChunkData(n),
                    Err(_) => {
                        return self.break_off(format!("a chunk line {line:?}"));
                    }
                }
            }
            _ if line.is_empty() => {
                if let Some(message) = self.messages.last_mut() {
                    message.complete = true;
                    message.last_byte = now;
                }
                State::Head
            }
            _ => State::Trailers,
        };
        used
    }
}

impl Message {
    fn take(&mut self, bytes: &[u8], now: Duration) {
        self.is_pattern &= pattern::matches(self.body_len, bytes);
        let keep = bytes.len().min(TEXT - self.text.len());
        self.text.extend_from_slice(&bytes[..keep]);
        self.body_len += bytes.len() as u64;
        self.last_byte = now;
    }
}

/// The status code of a sound status line: `HTTP/1.x`, a space, three digits, and a space before the reason.
fn status_of(start: &str) -> Option<u16> {
    let (minor, rest) = start.strip_prefix("HTTP/1.")?.split_once(' ')?;
    let (code, _) = rest.split_once(' ')?;
    let digits = |text: &str, n: usize| text.len() == n && text.bytes().all(|b| b.is_ascii_digit());
    (digits(minor, 1) && digits(code, 3)).then(|| code.parse().ok()).flatten()
}

fn is_request_line(start: &str) -> bool {
    let mut words = start.split(' ');
    let (method, target, version) = (words.next(), words.next(), words.next());
    let is_visible = |target: &str| !target.is_empty() && target.bytes().all(|b| b.is_ascii_graphic());
    method.is_some_and(is_token)
        && target.is_some_and(is_visible)
        && matches!(version, Some("HTTP/1.1" | "HTTP/1.0"))
        && words.next().is_none()
}

/// RFC 9110, section 5.6.2.
fn is_token(text: &str) -> bool {
    let is_tchar = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !text.is_empty() && text.bytes().all(is_tchar)
}

fn framing(message: &Message, receives: Receives) -> Result<Framing, String> {
    let bodyless = message.status().is_some_and(|s| s < 200 || s == 204 || s == 304);
    if bodyless {
        return Ok(Framing::None);
    }
    if let Some(coding) = message.field("transfer-encoding") {
        return match coding {
            "chunked" if message.field("content-length").is_none() => Ok(Framing::Chunked),
            _ => Err(format!("ambiguous framing: {:?}", message.fields)),
        };
    }
    match (message.field("content-length"), receives) {
        (Some(n), _) => n.parse().map(Framing::Length).map_err(|_| format!("content-length {n:?}")),
        (None, Receives::Requests) => Ok(Framing::None),
        (None, Receives::Responses) => Ok(Framing::Close),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fed(receives: Receives, text: &str) -> Recorder {
        let mut whole = Recorder::new(receives);
        whole.feed(text.as_bytes(), Duration::ZERO);
        let mut split = Recorder::new(receives);
        for byte in text.as_bytes() {
            split.feed(&[*byte], Duration::ZERO);
        }
        assert_eq!(whole, split);
        whole
    }

    #[test]
    fn reads_every_framing_in_any_pieces() {
        let text = "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\nabc\
                    HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n\
                    HTTP/1.1 200 OK\r\n\r\nrest";
        let mut seen = fed(Receives::Responses, text);
        let complete: Vec<bool> = seen.messages.iter().map(|m| m.complete).collect();
        assert_eq!(complete, [true, true, true, false]);
        assert_eq!(seen.messages[2].text, b"abc");
        seen.end();
        assert!(seen.messages[3].complete);
    }

    #[test]
    fn what_follows_a_101_is_its_tunnel() {
        let mut seen = fed(Receives::Responses, "HTTP/1.1 103 x\r\n\r\nHTTP/1.1 101 x\r\n\r\nHTTP/1.1 no");
        assert_eq!((seen.messages.len(), seen.messages[1].complete), (2, false));
        seen.end();
        assert_eq!((&seen.messages[1].text[..], seen.messages[1].complete), (&b"HTTP/1.1 no"[..], true));

        let mut seen = fed(Receives::Requests, "GET / HTTP/1.1\r\n\r\n");
        seen.switch(Duration::ZERO);
        seen.feed(b"GET", Duration::ZERO);
        assert_eq!((seen.messages.len(), &seen.messages[1].text[..]), (2, &b"GET"[..]));
        let mut seen = fed(Receives::Requests, "GET / HTTP/1.1\r\n\r\nearly");
        seen.switch(Duration::ZERO);
        assert!(seen.broken.is_some());
    }

    #[test]
    fn a_second_status_line_in_a_body_is_body() {
        let seen = fed(
            Receives::Responses,
            "HTTP/1.1 200 OK\r\nContent-Length: 90\r\n\r\naaHTTP/1.1 504 Gateway Timeout\r\n\r\n",
        );
        assert_eq!(seen.messages.len(), 1);
        assert!(!seen.messages[0].is_pattern && !seen.messages[0].complete);
    }

    #[test]
    fn a_start_line_that_is_none_is_broken() {
        let broken = |receives, start: &str| fed(receives, &format!("{start}\r\n\r\n")).broken.is_some();
        for start in [
            "HTTP/1.1 2x0 OK",
            "HTTP/1.1 20 OK",
            "HTTP/1.1 2000 OK",
            "HTTP/1.1 200",
            "HTTP/1.1  200 OK",
            "HTTP/1. 200 OK",
            "HTTP/1.1\t200 OK",
            "HTTP/2 200 OK",
            "200",
        ] {
            assert!(broken(Receives::Responses, start), "{start}");
        }
        for start in
            ["GET  / HTTP/1.1", "GET / HTTP/1.2", "GET / HTTP/1.1 ", "G@T / HTTP/1.1", "GET HTTP/1.1", "GET"]
        {
            assert!(broken(Receives::Requests, start), "{start}");
        }
        assert!(
            !broken(Receives::Responses, "HTTP/1.1 200 ")
                && !broken(Receives::Responses, "HTTP/1.0 204 No Content")
        );
        assert!(!broken(Receives::Requests, "POST /a?b HTTP/1.0"));
        for field in ["no colon", ": no name", "a name: x", "name : x", "\tname: x"] {
            assert!(broken(Receives::Responses, &format!("HTTP/1.1 200 OK\r\n{field}")), "{field}");
        }
    }

    #[test]
    fn a_response_where_a_request_belongs_is_broken() {
        assert!(fed(Receives::Requests, "HTTP/1.1 200 OK\r\n\r\n").broken.is_some());
        assert!(fed(Receives::Responses, "garbage\r\n\r\n").broken.is_some());
    }
}
