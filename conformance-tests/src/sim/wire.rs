//! HTTP as the simulation's peers read and write it: a small reader of heads and bodies of its own, so that a mistake in
//! the proxy's cannot hide behind the same mistake here.
//!
//! Bodies are the pattern of their request: a byte that is lost, repeated, or of another request does not
//! match. Strict: whatever a proxy may not emit is an error.

use std::future::poll_fn;
use std::io;
use std::rc::Rc;
use std::time::Duration;

use super::plan::{Body, Id, Pace};
use crate::pattern;
use crate::virtual_rt::{VirtualStream, World};

/// Where the pattern of a request begins: far enough from its neighbours'.
pub(super) fn offset(id: Id) -> u64 {
    u64::from(id) * 1009
}

/// Why reading ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// FIN, where a message might have begun.
    Fin,
    /// FIN inside a message.
    Short,
    /// RST.
    Rst,
    /// What came is not what may come.
    Bad(String),
}

impl From<io::Error> for Stop {
    fn from(_: io::Error) -> Stop {
        Stop::Rst
    }
}

/// A head: start-line, and fields with lower-case names.
#[derive(Clone, Debug, Default)]
pub(super) struct Head {
    pub(super) start: String,
    fields: Vec<(String, String)>,
}

impl Head {
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.fields.iter().find(|(n, _)| n == name).map(|(_, v)| v.as_str())
    }

    pub(super) fn has_token(&self, name: &str, token: &str) -> bool {
        self.fields
            .iter()
            .any(|(n, v)| n == name && v.split(',').any(|t| t.trim().eq_ignore_ascii_case(token)))
    }

    /// Its bytes, in one number.
    pub(super) fn number(&self) -> u64 {
        let fields = self.fields.iter().flat_map(|(name, value)| name.bytes().chain(value.bytes()));
        let bytes = self.start.bytes().chain(fields);
        bytes.fold(0xcbf2_9ce4_8422_2325, |n, b| (n ^ u64::from(b)).wrapping_mul(0x0000_0100_0000_01b3))
    }

    /// The body that is announced; `Close` stands for none of a request, and for the end of a response.
    pub(super) fn framing(&self) -> Result<Body, Stop> {
        let bad = |what: &str| Stop::Bad(format!("{what} in {self:?}"));
        match (self.get("transfer-encoding"), self.get("content-length")) {
            (Some(_), Some(_)) => Err(bad("two framings")),
            (Some("chunked"), None) => Ok(Body::Chunked(0)),
            (Some(_), None) => Err(bad("an unknown coding")),
            (None, Some(n)) => n.parse().map(Body::Length).map_err(|_| bad("no length")),
            (None, None) => Ok(Body::Close(0)),
        }
    }
}

/// One end of a connection, as a peer uses it.
pub(super) struct Wire {
    world: World,
    stream: Rc<VirtualStream>,
    /// Came, and not yet looked at from `at` on.
    buf: Vec<u8>,
    at: usize,
    ended: bool,
}

impl Wire {
    pub(super) fn new(world: &World, stream: Rc<VirtualStream>) -> Wire {
        Wire { world: world.clone(), stream, buf: Vec::new(), at: 0, ended: false }
    }

    /// The connection itself.
    pub(super) fn stream(&self) -> Rc<VirtualStream> {
        Rc::clone(&self.stream)
    }

    /// Reads to the end what must be the pattern from `base` on, and says which end it was.
    pub(super) async fn until_end(&mut self, base: u64, pace: Pace, mut progress: impl FnMut(u64)) -> Stop {
        let mut got = 0;
        loop {
            let here = &self.buf[self.at..];
            if !pattern::matches(base + got, here) {
                let text = String::from_utf8_lossy(&here[..here.len().min(40)]).into_owned();
                return Stop::Bad(format!("byte {got} of a tunnel and so on is {text:?}"));
            }
            got += here.len() as u64;
            self.at = self.buf.len();
            progress(got);
            match self.fill(pace).await {
                Ok(true) => {}
                Ok(false) => return Stop::Fin,
                Err(stop) => return stop,
            }
        }
    }

    /// Whether something came that was not looked at.
    pub(super) fn has_more(&self) -> bool {
        self.at < self.buf.len()
    }

    /// Reads something; false at FIN.
    async fn fill(&mut self, pace: Pace) -> Result<bool, Stop> {
        if self.ended {
            return Ok(false);
        }
        if self.at == self.buf.len() {
            self.buf.clear();
            self.at = 0;
        }
        let most = match pace {
            Pace::Fast => 64 * 1024,
            Pace::Slow(n, every) => {
                sleep(&self.world, every).await;
                n.max(1) as usize
            }
        };
        let old = self.buf.len();
        self.buf.resize(old + most, 0);
        let stream = Rc::clone(&self.stream);
        let result = poll_fn(|cx| stream.poll_read_shared(cx, &mut self.buf[old..])).await;
        self.buf.truncate(old + *result.as_ref().unwrap_or(&0));
        let n = result?;
        // The peer's own write may have met the reset; then it knows that this is no end.
        if n == 0 && self.stream.is_cut() {
            return Err(Stop::Rst);
        }
        self.ended = n == 0;
        Ok(n > 0)
    }

    /// The next line, without its end.
    async fn line(&mut self, pace: Pace, first: bool) -> Result<String, Stop> {
        let mut searched = self.at;
        loop {
            if let Some(lf) = self.buf[searched..].iter().position(|b| *b == b'\n') {
                let end = searched + lf;
                let line = &self.buf[self.at..end];
                let Some(line) = line.strip_suffix(b"\r") else {
                    return Err(Stop::Bad("a line that ends with LF alone".into()));
                };
                let line = String::from_utf8_lossy(line).into_owned();
                self.at = end + 1;
                return Ok(line);
            }
            let before = self.buf.len() - self.at;
            if !self.fill(pace).await? {
                return Err(if first && before == 0 { Stop::Fin } else { Stop::Short });
            }
            searched = self.at + before;
        }
    }

    /// The next head.
    pub(super) async fn head(&mut self, pace: Pace) -> Result<Head, Stop> {
        let mut head = Head { start: self.line(pace, true).await?, fields: Vec::new() };
        loop {
            let line = self.line(pace, false).await?;
            if line.is_empty() {
                return Ok(head);
            }
            let Some((name, value)) = line.split_once(':') else {
                return Err(Stop::Bad(format!("a field without a colon: {line}")));
            };
            head.fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// Reads the body of request `id`, or one of the proxy's own (`None`), telling `progress` how much of it has come.
    pub(super) async fn body(
        &mut self,
        framing: Body,
        id: Option<Id>,
        pace: Pace,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, Stop> {
        let mut got = 0;
        match framing {
            Body::None => {}
            Body::Length(n) => self.bytes(u64::from(n), id, pace, &mut got, &mut progress).await?,
            Body::Close(_) => loop {
                let there = (self.buf.len() - self.at) as u64;
                self.bytes(there, id, pace, &mut got, &mut progress).await?;
                if !self.fill(pace).await? {
                    break;
                }
            },
            Body::Chunked(_) => loop {
                let line = self.line(pace, false).await?;
                let size = u64::from_str_radix(&line, 16)
                    .map_err(|_| Stop::Bad(format!("a chunk size that is none: {line}")))?;
                self.bytes(size, id, pace, &mut got, &mut progress).await?;
                let end = self.line(pace, false).await?;
                if !end.is_empty() {
                    return Err(Stop::Bad(format!("a chunk that does not end: {end}")));
                }
                if size == 0 {
                    break;
                }
            },
        }
        Ok(got)
    }

    async fn bytes(
        &mut self,
        n: u64,
        id: Option<Id>,
        pace: Pace,
        got: &mut u64,
        progress: &mut impl FnMut(u64),
    ) -> Result<(), Stop> {
        let mut left = n;
        while left > 0 {
            if self.at == self.buf.len() && !self.fill(pace).await? {
                return Err(Stop::Short);
            }
            let here = &self.buf[self.at..];
            let take = here.len().min(left as usize);
            if let Some(id) = id
                && !pattern::matches(offset(id) + *got, &here[..take])
            {
                let text = String::from_utf8_lossy(&here[..take.min(40)]).into_owned();
                return Err(Stop::Bad(format!("byte {got} of the body of /{id} and so on is {text:?}")));
            }
            self.at += take;
            left -= take as u64;
            *got += take as u64;
            progress(*got);
        }
        Ok(())
    }

    /// Reads on to the end and says which it was.
    pub(super) async fn drain(&mut self) -> Stop {
        loop {
            self.at = self.buf.len();
            match self.fill(Pace::Fast).await {
                Ok(true) => {}
                Ok(false) => return Stop::Fin,
                Err(stop) => return stop,
            }
        }
    }
}

/// Waits.
pub(super) async fn sleep(world: &World, length: Duration) {
    world.sleep_until(world.now() + length).await;
}

/// Writes all of it, unless the connection ends.
pub(super) async fn write(world: &World, stream: &VirtualStream, bytes: &[u8], pace: Pace) -> io::Result<()> {
    write_telling(world, stream, bytes, pace, &|| {}).await
}

/// The same, and tells each time when the kernel has taken something.
pub(super) async fn write_telling(
    world: &World,
    stream: &VirtualStream,
    bytes: &[u8],
    pace: Pace,
    told: &impl Fn(),
) -> io::Result<()> {
    let mut rest = bytes;
    while !rest.is_empty() {
        let most = match pace {
            Pace::Fast => rest.len(),
            Pace::Slow(n, every) => {
                sleep(world, every).await;
                rest.len().min(n.max(1) as usize)
            }
        };
        let n = poll_fn(|cx| stream.poll_write_shared(cx, &rest[..most])).await?;
        rest = &rest[n..];
        told();
    }
    Ok(())
}

/// Writes the body of request `id`, at most its first `most` bytes as they are framed: the last chunk only if there is no
/// such limit. `progress` is told how much has been handed to the kernel before more is; `told` as in [`write_telling`].
pub(super) async fn write_body(
    world: &World,
    stream: &VirtualStream,
    body: Body,
    id: Id,
    (pace, most): (Pace, Option<u32>),
    mut progress: impl FnMut(u64),
    told: &impl Fn(),
) -> io::Result<()> {
    let len = most.unwrap_or(u32::MAX).min(body.len());
    let mut sent = 0u64;
    // A fixed sequence of chunk sizes, among them the smallest.
    let sizes = [1000, 1, 16 * 1024, 17, 70_000, 4];
    let mut next = id as usize;
    while sent < u64::from(len) {
        let left = u64::from(len) - sent;
        let run = pattern::run(offset(id) + sent);
        let piece = match body {
            Body::Chunked(_) => sizes[next % sizes.len()],
            _ => usize::MAX,
        };
        next += 1;
        let run = &run[..run.len().min(piece).min(left as usize)];
        sent += run.len() as u64;
        progress(sent);
        if matches!(body, Body::Chunked(_)) {
            let mut chunk = format!("{:x}\r\n", run.len()).into_bytes();
            chunk.extend_from_slice(run);
            chunk.extend_from_slice(b"\r\n");
            write_telling(world, stream, &chunk, pace, told).await?;
        } else {
            write_telling(world, stream, run, pace, told).await?;
        }
    }
    if matches!(body, Body::Chunked(_)) && most.is_none() {
        write_telling(world, stream, b"0\r\n\r\n", pace, told).await?;
    }
    Ok(())
}
