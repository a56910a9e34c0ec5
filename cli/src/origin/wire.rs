//! One connection of the built-in origin: reads request heads and bodies, writes bytes.
//!
//! Enough HTTP/1.1 for a peer that frames correctly, as the proxy does; what is broken ends the connection.
//! Nothing here is fit for the open network.

use std::future::poll_fn;
use std::io::{self, IoSlice};

use tidegate_core::runtime::Stream;

const MAX_HEAD: usize = 1 << 20;
const MAX_FIELDS: usize = 1024;
const MAX_LINE: usize = 4096;
/// How much one read takes.
const READ: usize = 16 << 10;

/// How a body is framed, and how much of it is still to come.
#[derive(Copy, Clone, Debug)]
pub(super) enum Body {
    /// So many bytes.
    Length(u64),
    /// Chunks; so many bytes of the current one.
    Chunked { left: u64 },
}

/// A request, without its body.
#[derive(Debug)]
pub(super) struct Request {
    pub(super) is_head: bool,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) body: Body,
    pub(super) expects_continue: bool,
    /// The connection ends after the answer.
    pub(super) close: bool,
}

/// A stream with what was read ahead.
#[derive(Debug)]
pub(super) struct Wire<S> {
    stream: S,
    ahead: Vec<u8>,
}

fn broken(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what)
}

impl<S: Stream> Wire<S> {
    pub(super) fn new(stream: S) -> Wire<S> {
        Wire { stream, ahead: Vec::new() }
    }

    /// Reads once; zero is the peer's FIN.
    async fn fill(&mut self) -> io::Result<usize> {
        let had = self.ahead.len();
        let (stream, ahead) = (&mut self.stream, &mut self.ahead);
        let read = poll_fn(|cx| {
            // Inside the poll, so that an idle connection holds no room to read into.
            ahead.resize(had + READ, 0);
            let polled = stream.poll_read(cx, &mut ahead[had..]);
            if polled.is_pending() {
                ahead.truncate(had);
                if had == 0 {
                    *ahead = Vec::new();
                }
            }
            polled
        })
        .await;
        self.ahead.truncate(had + *read.as_ref().unwrap_or(&0));
        read
    }

    /// As [`Wire::fill`], where FIN means that something is missing.
    async fn more(&mut self) -> io::Result<()> {
        match self.fill().await? {
            0 => Err(io::ErrorKind::UnexpectedEof.into()),
            _ => Ok(()),
        }
    }

    /// The next request's head; `None` when the peer has none.
    pub(super) async fn request(&mut self) -> io::Result<Option<Request>> {
        loop {
            if !self.ahead.is_empty()
                && let Some((request, size)) = parse(&self.ahead)?
            {
                self.ahead.drain(..size);
                return Ok(Some(request));
            }
            if self.ahead.len() > MAX_HEAD {
                return Err(broken("head too large"));
            }
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// The next piece of a body; `None` at its end.
    pub(super) async fn body(&mut self, body: &mut Body) -> io::Result<Option<Vec<u8>>> {
        match body {
            Body::Length(0) => Ok(None),
            Body::Length(left) => self.piece(left).await.map(Some),
            Body::Chunked { left } => {
                if *left == 0 {
                    let line = self.line().await?;
                    let digits = line.split(|b| *b == b';').next().unwrap_or_default();
                    let digits = std::str::from_utf8(digits).map_err(|_| broken("chunk line"))?;
                    *left = u64::from_str_radix(digits.trim_end(), 16).map_err(|_| broken("chunk line"))?;
                    if *left == 0 {
                        while !self.line().await?.is_empty() {}
                        *body = Body::Length(0);
                        return Ok(None);
                    }
                }
                let piece = self.piece(left).await?;
                if *left == 0 && !self.line().await?.is_empty() {
                    return Err(broken("chunk end"));
                }
                Ok(Some(piece))
            }
        }
    }

    /// Some of the `left` bytes that are to come; at least one.
    async fn piece(&mut self, left: &mut u64) -> io::Result<Vec<u8>> {
        if self.ahead.is_empty() {
            self.more().await?;
        }
        let size = usize::try_from(*left).unwrap_or(usize::MAX).min(self.ahead.len());
        *left -= size as u64;
        Ok(self.ahead.drain(..size).collect())
    }

    /// A line without its end.
    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(at) = self.ahead.iter().position(|b| *b == b'\n') {
                let mut line: Vec<u8> = self.ahead.drain(..=at).collect();
                line.pop();
                line.pop_if(|b| *b == b'\r');
                return Ok(line);
            }
            if self.ahead.len() > MAX_LINE {
                return Err(broken("line too long"));
            }
            self.more().await?;
        }
    }

    /// Writes all of `bytes`.
    pub(super) async fn send(&mut self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            match poll_fn(|cx| self.stream.poll_write_vectored(cx, &[IoSlice::new(bytes)])).await? {
                0 => return Err(io::ErrorKind::WriteZero.into()),
                sent => bytes = &bytes[sent..],
            }
        }
        Ok(())
    }
}

/// A request and the size of its head, once the head is complete.
fn parse(bytes: &[u8]) -> io::Result<Option<(Request, usize)>> {
    let mut fields = vec![httparse::EMPTY_HEADER; MAX_FIELDS];
    let mut parsed = httparse::Request::new(&mut fields);
    let size = match parsed.parse(bytes).map_err(|_| broken("malformed head"))? {
        httparse::Status::Complete(size) => size,
        httparse::Status::Partial => return Ok(None),
    };
    let target = parsed.path.unwrap_or("/");
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        is_head: parsed.method == Some("HEAD"),
        path: path.to_owned(),
        query: query.to_owned(),
        body: Body::Length(0),
        expects_continue: false,
        close: parsed.version == Some(0),
    };
    for field in parsed.headers {
        let value = std::str::from_utf8(field.value).unwrap_or_default().trim();
        if field.name.eq_ignore_ascii_case("content-length") {
            request.body = Body::Length(value.parse().map_err(|_| broken("content-length"))?);
        } else if field.name.eq_ignore_ascii_case("transfer-encoding") {
            request.body = Body::Chunked { left: 0 };
        } else if field.name.eq_ignore_ascii_case("expect") {
            request.expects_continue = value.eq_ignore_ascii_case("100-continue");
        } else if field.name.eq_ignore_ascii_case("connection") {
            request.close |= value.split(',').any(|option| option.trim().eq_ignore_ascii_case("close"));
        }
    }
    Ok(Some((request, size)))
}
