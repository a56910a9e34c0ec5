//! The built-in origin: a small HTTP/1.1 server for whoever tries the proxy without one of their own.
//!
//! It runs on the same runtime as the proxy, through the same traits, so that it adds no thread and costs
//! nothing while idle. It is a toy: it trusts its peer, which is the proxy, for more than a server may, and
//! it has no deadlines. Not for anything but trying things out.

mod wire;

use std::fmt::Write as _;
use std::future::{Future, poll_fn};
use std::io;
use std::pin::{Pin, pin};
use std::time::Duration;

use tidegate_core::runtime::{Listener, Runtime, Spawn, Stream, Timer};
use tidegate_core::{DeadlineKind, TimeoutPolicy};

use self::wire::{Body, Request, Wire};

/// A task of the origin's: boxed, so that it has a name that [`Spawn`] can be asked for.
pub(crate) type Task = Pin<Box<dyn Future<Output = ()> + Send>>;

/// What `/` answers.
const INDEX: &str = "\
This is the built-in origin. It offers:

  /echo          what you send comes back, in the framing in which it came
  /chunked       a chunked response
  /drip          a response that comes one byte at a time
  /big?bytes=N   a response of N bytes
  /slow          nothing, for longer than the proxy waits
";

const CHUNKS: [&str; 4] = ["This response ", "comes in ", "four ", "chunks.\n"];
const DRIP: &str = "Slow, but never silent.\n";
const DRIP_EVERY: Duration = Duration::from_millis(100);
/// How long to wait after a failed accept: descriptors come back as connections end.
const ACCEPT_AGAIN: Duration = Duration::from_millis(100);
/// What `/big` answers without a number.
const BIG: u64 = 1 << 20;

/// Which deadline ends a wait for `/slow`, and after how long; `None` if none is set.
pub(crate) fn first_deadline(timeouts: &TimeoutPolicy) -> Option<(DeadlineKind, Duration)> {
    // The total starts first and wins a tie.
    let of = |kind: DeadlineKind| timeouts.limit(kind).map(|limit| (kind, limit));
    [of(DeadlineKind::Total), of(DeadlineKind::Read)].into_iter().flatten().min_by_key(|(_, limit)| *limit)
}

/// How long `/slow` is silent: a second longer than the proxy waits.
pub(crate) fn slow(timeouts: &TimeoutPolicy) -> Duration {
    let waits = first_deadline(timeouts).map_or(Duration::from_secs(4), |(_, limit)| limit);
    waits.saturating_add(Duration::from_secs(1))
}

/// Accepts for ever; one task a connection.
pub(crate) async fn serve<R, L>(runtime: R, mut listener: L, timeouts: TimeoutPolicy)
where
    R: Runtime + Spawn<Task> + Clone + Send + Sync + 'static,
    R::Timer: Send,
    L: Listener,
    L::Stream: Send + 'static,
{
    loop {
        match poll_fn(|cx| listener.poll_accept(cx)).await {
            Ok((stream, _)) => {
                let runtime_of_task = runtime.clone();
                runtime.spawn(Box::pin(async move {
                    // However it ends, the connection is closed, and there is nobody to tell.
                    let _ = connection(&runtime_of_task, stream, slow(&timeouts)).await;
                }));
            }
            Err(_) => sleep(&runtime, ACCEPT_AGAIN).await,
        }
    }
}

/// Answers the requests of one connection, one after the other.
async fn connection<R: Runtime, S: Stream>(runtime: &R, stream: S, slow: Duration) -> io::Result<()> {
    let mut wire = Wire::new(stream);
    while let Some(request) = wire.request().await? {
        let close = request.close;
        if request.expects_continue {
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        if request.path == "/echo" {
            echo(&mut wire, request).await?;
        } else {
            let mut body = request.body;
            while wire.body(&mut body).await?.is_some() {}
            answer(runtime, &mut wire, &request, slow).await?;
        }
        if close {
            break;
        }
    }
    Ok(())
}

async fn answer<R: Runtime, S: Stream>(
    runtime: &R,
    wire: &mut Wire<S>,
    request: &Request,
    slow: Duration,
) -> io::Result<()> {
    match request.path.as_str() {
        "/" => text(wire, request, "200 OK", INDEX).await,
        "/chunked" => {
            wire.send(head(request, "200 OK", Body::Chunked { left: 0 }).as_bytes()).await?;
            if !request.is_head {
                for piece in CHUNKS {
                    wire.send(&chunk(piece.as_bytes())).await?;
                }
                wire.send(b"0\r\n\r\n").await?;
            }
            Ok(())
        }
        "/slow" => {
            sleep(runtime, slow).await;
            text(wire, request, "200 OK", "You have waited for this.\n").await
        }
        "/drip" => {
            wire.send(head(request, "200 OK", Body::Length(DRIP.len() as u64)).as_bytes()).await?;
            if !request.is_head {
                for byte in DRIP.as_bytes().chunks(1) {
                    wire.send(byte).await?;
                    sleep(runtime, DRIP_EVERY).await;
                }
            }
            Ok(())
        }
        "/big" => match bytes_wanted(&request.query) {
            Some(bytes) => big(wire, request, bytes).await,
            None => text(wire, request, "400 Bad Request", "bytes=N takes a whole number.\n").await,
        },
        _ => text(wire, request, "404 Not Found", "There is no such page; `/` lists them.\n").await,
    }
}

/// Sends back the body as it comes: the response starts before the request is complete.
async fn echo<S: Stream>(wire: &mut Wire<S>, request: Request) -> io::Result<()> {
    let mut body = request.body;
    let chunked = matches!(body, Body::Chunked { .. });
    // The head waits for the first piece: one packet instead of two, and no answer to a request that breaks.
    let mut out = head(&request, "200 OK", body).into_bytes();
    while let Some(piece) = wire.body(&mut body).await? {
        if !request.is_head {
            match chunked {
                true => out.extend(chunk(&piece)),
                false => out.extend(piece),
            }
        }
        wire.send(&out).await?;
        out.clear();
    }
    if chunked && !request.is_head {
        out.extend(b"0\r\n\r\n");
    }
    wire.send(&out).await
}

async fn big<S: Stream>(wire: &mut Wire<S>, request: &Request, bytes: u64) -> io::Result<()> {
    const LINE: &[u8; 64] = b"tidegate 0123456789 abcdefghijklmnopqrstuvwxyz ABCDEFGHIJKLMNOP\n";
    wire.send(head(request, "200 OK", Body::Length(bytes)).as_bytes()).await?;
    if request.is_head {
        return Ok(());
    }
    let block = LINE.repeat(512);
    let mut left = bytes;
    while left > 0 {
        let piece = usize::try_from(left).unwrap_or(usize::MAX).min(block.len());
        wire.send(&block[..piece]).await?;
        left -= piece as u64;
    }
    Ok(())
}

/// The number in `bytes=N`, or the default if there is no query.
fn bytes_wanted(query: &str) -> Option<u64> {
    match query {
        "" => Some(BIG),
        given => given.strip_prefix("bytes=")?.parse().ok(),
    }
}

async fn text<S: Stream>(wire: &mut Wire<S>, request: &Request, status: &str, text: &str) -> io::Result<()> {
    let mut out = head(request, status, Body::Length(text.len() as u64));
    if !request.is_head {
        out.push_str(text);
    }
    wire.send(out.as_bytes()).await
}

fn head(request: &Request, status: &str, body: Body) -> String {
    let mut out = format!("HTTP/1.1 {status}\r\ncontent-type: text/plain\r\n");
    let _ = match body {
        Body::Length(bytes) => write!(out, "content-length: {bytes}\r\n"),
        Body::Chunked { .. } => write!(out, "transfer-encoding: chunked\r\n"),
    };
    if request.close {
        out.push_str("connection: close\r\n");
    }
    out.push_str("\r\n");
    out
}

fn chunk(piece: &[u8]) -> Vec<u8> {
    let mut out = format!("{:x}\r\n", piece.len()).into_bytes();
    out.extend(piece);
    out.extend(b"\r\n");
    out
}

async fn sleep<R: Runtime>(runtime: &R, how_long: Duration) {
    let at = runtime.now() + how_long;
    let mut timer = pin!(runtime.timer());
    // The timer is a hint; the clock decides.
    while runtime.now() < at {
        timer.as_mut().arm(at);
        poll_fn(|cx| timer.as_mut().poll_fired(cx)).await;
    }
}
