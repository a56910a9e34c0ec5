//! A reader of HTTP/1.1 that accepts only what the machine may emit: it repairs nothing, skips nothing and has no option.
//!
//! Written by hand from RFC 9112, so that it shares no line, and no mistake, with the parser that the machine uses.

/// A message as it was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// Method and target, or the status.
    pub start: Vec<String>,
    /// Names in lower case.
    pub fields: Vec<(String, Vec<u8>)>,
    /// What came of it.
    pub body: Vec<u8>,
    /// The last byte came; if only the end of the connection can say so, true.
    pub complete: bool,
}

impl Message {
    /// The values of all fields called `name`.
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        self.fields.iter().filter(|(n, _)| n == name).map(|(_, value)| value.as_slice()).collect()
    }
}

/// To what a response answers.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub struct Asked {
    /// HEAD, which no body follows.
    pub head: bool,
    /// The client speaks HTTP/1.0.
    pub old: bool,
}

type Read<T> = Result<T, String>;

/// One request, and what follows it; none if its head was cut.
pub fn request(stream: &[u8]) -> Read<Option<(Message, &[u8])>> {
    let Some((line, fields, rest)) = head(stream)? else { return Ok(None) };
    let parts: Vec<&str> = line.split(' ').collect();
    let [method, target, "HTTP/1.1"] = parts[..] else { return Err(format!("request line {line:?}")) };
    if method.is_empty() || !method.bytes().all(is_tchar) {
        return Err(format!("method {method:?}"));
    }
    if !(target.starts_with('/') || target == "*") || !target.bytes().all(|b| (0x21..=0x7e).contains(&b)) {
        return Err(format!("target {target:?}"));
    }
    let mut message =
        Message { start: vec![method.into(), target.into()], fields, body: vec![], complete: true };
    if message.all("host").len() != 1 {
        return Err("not one Host".into());
    }
    let upgrade = message.all("upgrade").len();
    if message.all("connection") != vec![&b"upgrade"[..]; upgrade] || upgrade > 1 {
        return Err("Connection without Upgrade, or the other way round".into());
    }
    let rest = match framing(&message)? {
        Framing::None => rest,
        other => body(other, rest, &mut message)?,
    };
    Ok(Some((message, rest)))
}

/// All responses on a connection: those to `asked`, in order, with interim ones before. The last may be cut.
pub fn responses(mut stream: &[u8], asked: &[Asked]) -> Read<Vec<Message>> {
    let mut all = Vec::new();
    let mut asked = asked.iter();
    let mut current = asked.next();
    while !stream.is_empty() {
        let Some(to) = current else { return Err("a response that nobody asked for".into()) };
        let Some((line, fields, rest)) = head(stream)? else { break };
        let Some((status, reason)) = line.strip_prefix("HTTP/1.1 ").and_then(|l| l.split_once(' ')) else {
            return Err(format!("status line {line:?}"));
        };
        if status.len() != 3
            || !status.bytes().all(|b| b.is_ascii_digit())
            || !("100".."600").contains(&status)
        {
            return Err(format!("status {status:?}"));
        }
        if !reason.bytes().all(|b| b == b'\t' || (b' '..=b'~').contains(&b)) {
            return Err(format!("reason {reason:?}"));
        }
        let mut message = Message { start: vec![status.into()], fields, body: vec![], complete: true };
        let interim = status.starts_with('1') && status != "101";
        let framing = framing(&message)?;
        if to.old && (interim || framing == Framing::Chunked) {
            return Err("an old client got what only a new one knows".into());
        }
        if (status.starts_with('1') || status == "204") && framing != Framing::None {
            return Err(format!("{status} with framing"));
        }
        let connection = message.all("connection");
        let allowed: &[&[u8]] = match status {
            "101" => &[b"upgrade"],
            _ if interim => &[],
            _ => &[b"close", b"keep-alive"],
        };
        if connection.len() > 1 || !connection.iter().all(|value| allowed.contains(value)) {
            return Err(format!("Connection: {connection:?}"));
        }
        let closes = connection.contains(&&b"close"[..]);
        if !interim && message.all("date").is_empty() && status != "101" {
            return Err("no Date".into());
        }
        stream = match framing {
            _ if interim => rest,
            Framing::None if status == "101" => {
                message.body = rest.to_vec();
                &[]
            }
            _ if to.head || status == "204" || status == "304" => rest,
            Framing::None if to.old && closes => {
                message.body = rest.to_vec();
                &[]
            }
            Framing::None => return Err("a body without an end that a client can see".into()),
            other => body(other, rest, &mut message)?,
        };
        if !message.complete && !stream.is_empty() {
            return Err("bytes after a cut".into());
        }
        if closes && !stream.is_empty() {
            return Err("bytes after `close`".into());
        }
        if !interim {
            current = asked.next();
        }
        all.push(message);
    }
    Ok(all)
}

/// The start-line, the fields, and what follows the head.
type Head<'a> = (String, Vec<(String, Vec<u8>)>, &'a [u8]);

/// `None` if it was cut.
fn head(stream: &[u8]) -> Read<Option<Head<'_>>> {
    let Some(end) = stream.windows(4).position(|w| w == b"\r\n\r\n") else { return Ok(None) };
    let mut lines = Vec::new();
    let mut rest = &stream[..end + 2];
    while !rest.is_empty() {
        let cr = rest.iter().position(|&b| b == b'\r' || b == b'\n').ok_or("a line without an end")?;
        if rest.get(cr..cr + 2) != Some(b"\r\n") {
            return Err(format!("a bare line end in {:?}", String::from_utf8_lossy(rest)));
        }
        lines.push(&rest[..cr]);
        rest = &rest[cr + 2..];
    }
    let (start, fields) = lines.split_first().ok_or("no start-line")?;
    let start = String::from_utf8(start.to_vec()).map_err(|_| "a start-line that is no text")?;
    let field = |line: &&[u8]| {
        let colon = line.iter().position(|&b| b == b':').ok_or("a line without a colon")?;
        let (name, value) = (&line[..colon], &line[colon + 1..]);
        if name.is_empty() || !name.iter().copied().all(is_tchar) {
            return Err(format!("field name {:?}", String::from_utf8_lossy(name)));
        }
        let value = value.strip_prefix(b" ").ok_or("no blank after the colon")?;
        let sound = |&b: &u8| b == b'\t' || (b >= b' ' && b != 0x7f);
        let blank = |b: Option<&u8>| matches!(b, Some(b' ' | b'\t'));
        if !value.iter().all(sound) || blank(value.first()) || blank(value.last()) {
            return Err(format!("field value {:?}", String::from_utf8_lossy(value)));
        }
        Ok((String::from_utf8_lossy(name).to_ascii_lowercase(), value.to_vec()))
    };
    let fields = fields.iter().map(field).collect::<Read<Vec<_>>>()?;
    Ok(Some((start, fields, &stream[end + 4..])))
}

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Framing {
    None,
    Length(usize),
    Chunked,
}

fn framing(message: &Message) -> Read<Framing> {
    for name in ["keep-alive", "te", "trailer", "proxy-connection"] {
        if !message.all(name).is_empty() {
            return Err(format!("{name} has travelled"));
        }
    }
    match (&message.all("content-length")[..], &message.all("transfer-encoding")[..]) {
        ([], []) => Ok(Framing::None),
        ([length], []) => {
            let text = std::str::from_utf8(length).unwrap_or_default();
            let number: u64 = text.parse().map_err(|_| format!("length {text:?}"))?;
            if number.to_string() != text {
                return Err(format!("length {text:?}"));
            }
            Ok(Framing::Length(usize::try_from(number).unwrap_or(usize::MAX)))
        }
        ([], [coding]) if *coding == b"chunked" => Ok(Framing::Chunked),
        (lengths, codings) => Err(format!("framing {lengths:?} {codings:?}")),
    }
}

/// Reads a body; returns what follows it.
fn body<'a>(framing: Framing, stream: &'a [u8], message: &mut Message) -> Read<&'a [u8]> {
    let Framing::Chunked = framing else {
        let Framing::Length(length) = framing else { return Ok(stream) };
        let n = length.min(stream.len());
        message.body = stream[..n].to_vec();
        message.complete = n == length;
        return Ok(&stream[n..]);
    };
    let (data, used, end) = chunks(stream)?;
    message.body = data;
    message.complete = end;
    Ok(&stream[used..])
}

/// The data of a chunked body in our own spelling (lower-case sizes, no extensions, no trailers), how many bytes it
/// took, and whether its end came.
fn chunks(stream: &[u8]) -> Read<(Vec<u8>, usize, bool)> {
    let mut data = Vec::new();
    let mut at = 0;
    loop {
        let rest = &stream[at..];
        let Some(line) = rest.windows(2).position(|w| w == b"\r\n") else {
            let begun = rest.strip_suffix(b"\r").unwrap_or(rest);
            let sound = begun.iter().all(|b| b"0123456789abcdef".contains(b)) && begun.len() <= 16;
            return if sound { Ok((data, stream.len(), false)) } else { Err("a broken chunk line".into()) };
        };
        let digits = std::str::from_utf8(&rest[..line]).unwrap_or_default();
        let size = usize::from_str_radix(digits, 16).map_err(|_| format!("chunk line {digits:?}"))?;
        if format!("{size:x}") != digits {
            return Err(format!("chunk line {digits:?}"));
        }
        at += line + 2;
        let n = size.min(stream.len() - at);
        data.extend_from_slice(&stream[at..at + n]);
        at += n;
        let end = &stream[at..(at + 2).min(stream.len())];
        if n < size || !b"\r\n".starts_with(end) {
            return if n < size { Ok((data, at, false)) } else { Err("no line end after a chunk".into()) };
        }
        at += end.len();
        if end.len() < 2 || size == 0 {
            return Ok((data, at, end.len() == 2));
        }
    }
}

fn is_tchar(b: u8) -> bool {
    b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b)
}
