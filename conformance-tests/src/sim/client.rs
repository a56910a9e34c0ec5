//! The clients of a simulation: they ask as the plan says, and check what comes back.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use tidegate_core::Side;
use tidegate_core::runtime::Runtime;

use super::ledger::{Invariant, Ledger};
use super::plan::{Batch, Body, Client, Goodbye, Last, Nonsense, Pace, Request};
use super::tunnel;
use super::upstream::or;
use super::wire::{Head, Stop, Wire, sleep, write, write_body, write_telling};
use crate::virtual_rt::{Owner, VirtualStream};

/// How long a client holds its body back for a 100.
const EXPECTS: Duration = Duration::from_millis(100);

/// Longer than the slowest plan takes for one request where no limit ends it.
const UNLIMITED: Duration = Duration::from_secs(3000);

/// What few bytes and an ordinary answer never need, whatever the world does to each step: a wake-up that is lost shows
/// itself by the deadline that makes up for it, which is later.
const SOON: Duration = Duration::from_secs(3);

/// See [`SOON`].
const SMALL: u32 = 5000;

/// Runs one client to its end.
pub(super) async fn run(ledger: Rc<Ledger>, number: usize, proxy: SocketAddr) {
    let plan = Rc::clone(&ledger.plan);
    let client = &plan.clients[number];
    sleep(&ledger.world, client.starts).await;
    if let Some(nonsense) = client.nonsense {
        babble(&ledger, proxy, nonsense).await;
    }
    converse(&ledger, number, client, proxy).await;
    ledger.clients.update(|n| n - 1);
}

async fn converse(ledger: &Rc<Ledger>, number: usize, client: &Client, proxy: SocketAddr) {
    let mut conn: Option<Conn> = None;
    for batch in &client.batches {
        sleep(&ledger.world, batch.after).await;
        let mut again = true;
        while again {
            again = false;
            let mut on = match conn.take() {
                Some(conn) => conn,
                None => match connect(ledger, proxy).await {
                    Some(conn) => conn,
                    None => return,
                },
            };
            match or(ask(ledger, &mut on, batch), sleep(&ledger.world, patience(ledger, batch))).await {
                Some(Fate::Kept) => {
                    on.used = true;
                    conn = Some(on);
                }
                Some(Fate::Over) => {}
                // It was closed while it was idle: that is nobody's fault, and nothing of the batch was served. Where
                // connections are dropped, what was sent may have gone on, and is not sent again.
                Some(Fate::Untouched) => again = ledger.cuts.get() == 0,
                Some(Fate::Silent) if behaves(ledger, batch) => {
                    let ids: Vec<_> = batch.requests.iter().map(|r| r.id).collect();
                    let what =
                        format!("client {number}: the connection ended without an answer to one of {ids:?}");
                    ledger.fail(Invariant::Answered, what);
                }
                Some(Fate::Silent) => {}
                None if batch.reads == Pace::Fast => {
                    let ids: Vec<_> = batch.requests.iter().map(|r| r.id).collect();
                    ledger.fail(Invariant::Answered, format!("client {number} waits without end: {ids:?}"));
                }
                None => {}
            }
            if ledger.is_broken() {
                return;
            }
        }
    }
}

/// Whether the batch must be answered in some way.
fn behaves(ledger: &Ledger, batch: &Batch) -> bool {
    // A tunnel that is reset may take its 101 with it.
    let resets = |r: &Request| {
        r.tunnel.is_some_and(|tunnel| tunnel.client.last == Last::Rst || tunnel.upstream.last == Last::Rst)
    };
    let strict = |r: &Request| r.stalls_at.is_none() && r.sends == Pace::Fast && !resets(r);
    batch.reads == Pace::Fast
        && batch.leaves.is_none()
        && batch.requests.iter().all(strict)
        && !ledger.ending.get()
        && ledger.cuts.get() == 0
}

/// Longer than the proxy's limits can let a batch take.
fn patience(ledger: &Ledger, batch: &Batch) -> Duration {
    let total = |r| ledger.plan.policy_of(r).total.unwrap_or(UNLIMITED);
    let all: Duration = batch.requests.iter().map(total).sum();
    let heads = ledger.plan.policy.client_head.unwrap_or_default() * batch.requests.len() as u32;
    let waits = if ledger.plan.max_clients < ledger.plan.clients.len() { 300 } else { 5 };
    // A tunnel has a patience of its own.
    let tunnel = if batch.requests.iter().any(|r| r.tunnel.is_some()) { 100 } else { 0 };
    all + heads + Duration::from_secs(waits + tunnel)
}

struct Conn {
    stream: Rc<VirtualStream>,
    wire: Wire,
    /// A request was answered on it.
    used: bool,
}

async fn connect(ledger: &Rc<Ledger>, proxy: SocketAddr) -> Option<Conn> {
    match ledger.world.runtime(Owner::Peer).connect(proxy).await {
        Ok(stream) => {
            let stream = Rc::new(stream);
            Some(Conn { wire: Wire::new(&ledger.world, Rc::clone(&stream)), stream, used: false })
        }
        Err(e) => {
            if !ledger.ending.get() {
                ledger.fail(Invariant::Answered, format!("the proxy refuses a client: {e}"));
            }
            None
        }
    }
}

/// What became of a batch and its connection.
enum Fate {
    /// All was answered, and the connection stays.
    Kept,
    /// The connection is over, and that could be seen.
    Over,
    /// The connection ended, and before it any answer.
    Silent,
    /// The same, on a connection that had been idle.
    Untouched,
}

async fn ask(ledger: &Rc<Ledger>, conn: &mut Conn, batch: &Batch) -> Fate {
    let begun = ledger.world.now();
    let go_on = Cell::new(false);
    let fresh = !conn.used;
    let stream = Rc::clone(&conn.stream);
    let writes = send(ledger, &stream, batch, &go_on);
    let reads = read(ledger, &mut conn.wire, batch, &go_on);
    // What is still to be sent when everything was answered never is.
    let both = async {
        let (mut writes, mut reads) = (pin!(writes), pin!(reads));
        let mut written = false;
        poll_fn(|cx| {
            if !written {
                written = writes.as_mut().poll(cx).is_ready();
            }
            reads.as_mut().poll(cx).map(|read| (read, written))
        })
        .await
    };
    let (read, written) = match batch.leaves {
        None => both.await,
        Some(leave) => {
            let until = begun + leave.after;
            match or(both, ledger.world.sleep_until(until)).await {
                Some(done) => done,
                None => {
                    for request in &batch.requests {
                        ledger.with(request.id, |r| r.left = true);
                    }
                    ledger.event(batch.requests[0].id, 6, || {
                        format!("client: leaves /{}", batch.requests[0].id)
                    });
                    if leave.how == Goodbye::Rst {
                        stream.rst();
                    }
                    return Fate::Over;
                }
            }
        }
    };
    match read {
        Ok(Read::Kept) if written && !batch.half_closes => Fate::Kept,
        Ok(_) => Fate::Over,
        Err(Unread::Bad(what)) => {
            ledger.fail(Invariant::Bytes, format!("to a client: {what}"));
            Fate::Over
        }
        // Nothing at all came.
        Err(Unread::Nothing) if fresh || is_touched(ledger, batch) => Fate::Silent,
        Err(Unread::Nothing) => Fate::Untouched,
        Err(Unread::Cut) => Fate::Over,
    }
}

/// Whether anything came of a batch.
fn is_touched(ledger: &Ledger, batch: &Batch) -> bool {
    batch.requests.iter().any(|r| ledger.with(r.id, |r| r.seen > 0 || r.outcome.is_some()))
}

async fn send(ledger: &Ledger, stream: &VirtualStream, batch: &Batch, go_on: &Cell<bool>) {
    for request in &batch.requests {
        let id = request.id;
        let now = ledger.world.now();
        ledger.with(id, |r| {
            r.began = Some(now);
            r.sent = 0;
        });
        ledger.event(id, 7, || format!("client: sends {} /{id}", request.method));
        let mut head = format!("{} /{id} HTTP/1.{}\r\nhost: sim\r\n", request.method, u8::from(!request.old));
        match request.body {
            Body::None => {}
            Body::Length(n) => head += &format!("content-length: {n}\r\n"),
            Body::Chunked(_) | Body::Close(_) => head += "transfer-encoding: chunked\r\n",
        }
        if request.expects {
            head += "expect: 100-continue\r\n";
        }
        if request.close {
            head += "connection: close\r\n";
        } else if request.keeps {
            head += "connection: keep-alive\r\n";
        }
        if request.tunnel.is_some() {
            head += "connection: upgrade\r\nupgrade: websocket\r\n";
        }
        head += "\r\n";
        let told = || ledger.sent(id);
        if write_telling(&ledger.world, stream, head.as_bytes(), Pace::Fast, &told).await.is_err() {
            return;
        }
        if request.expects {
            let until = ledger.world.now() + EXPECTS;
            while !go_on.get() && ledger.world.now() < until {
                sleep(&ledger.world, Duration::from_millis(5)).await;
            }
        }
        let limits = (request.sends, request.stalls_at);
        let progress = |n| ledger.sending(id, n);
        if write_body(&ledger.world, stream, request.body, id, limits, progress, &told).await.is_err() {
            return;
        }
        if request.stalls_at.is_some() {
            return std::future::pending().await;
        }
    }
    if batch.half_closes {
        stream.fin();
    }
}

enum Read {
    Kept,
    Closes,
}

enum Unread {
    /// The connection ended before a byte of an answer.
    Nothing,
    /// It ended later.
    Cut,
    Bad(String),
}

async fn read(ledger: &Ledger, wire: &mut Wire, batch: &Batch, go_on: &Cell<bool>) -> Result<Read, Unread> {
    let mut first = true;
    for request in &batch.requests {
        match read_one(ledger, wire, batch, request, first, go_on).await? {
            Read::Kept => first = false,
            Read::Closes => {
                // What follows a response that ends the connection would be nobody's.
                return match wire.head(Pace::Fast).await {
                    Ok(head) => Err(Unread::Bad(format!("after the end of a connection: {head:?}"))),
                    Err(Stop::Bad(what)) => Err(Unread::Bad(what)),
                    Err(stop) => {
                        // A reset can destroy what a client has not read yet.
                        if stop == Stop::Rst {
                            let what = format!("behind the whole answer to /{} comes RST", request.id);
                            ledger.fail(Invariant::Answered, what);
                        }
                        Ok(Read::Closes)
                    }
                };
            }
        }
    }
    if wire.has_more() {
        return Err(Unread::Bad("more came than was asked for".into()));
    }
    Ok(Read::Kept)
}

async fn read_one(
    ledger: &Ledger,
    wire: &mut Wire,
    batch: &Batch,
    request: &Request,
    first: bool,
    go_on: &Cell<bool>,
) -> Result<Read, Unread> {
    let id = request.id;
    let mut untouched = first;
    let head = loop {
        let head = wire.head(batch.reads).await.map_err(|stop| match stop {
            Stop::Bad(what) => Unread::Bad(what),
            Stop::Fin | Stop::Rst if untouched => Unread::Nothing,
            _ => Unread::Cut,
        })?;
        untouched = false;
        if !head.start.starts_with("HTTP/1.1 1") || head.start.starts_with("HTTP/1.1 101") {
            break head;
        }
        if request.old {
            return Err(Unread::Bad(format!("an interim response to HTTP/1.0: {head:?}")));
        }
        go_on.set(true);
    };
    ledger.world.note(head.number());
    let status: u16 = head.start.get(9..12).and_then(|digits| digits.parse().ok()).unwrap_or(0);
    let own = head.get("proxy-status").is_some();
    if !own && head.get("x-sim") != Some(&id.to_string()) {
        return Err(Unread::Bad(format!("an answer to another request than /{id}: {head:?}")));
    }
    if !own && status >= 500 && status != request.answer.status {
        return Err(Unread::Bad(format!("an error that does not say whose: {head:?}")));
    }
    if status == 101 {
        ledger.with(id, |r| r.status = Some((101, own)));
        return match tunnel::run(ledger, wire, request, Side::Client).await {
            Ok(()) => Err(Unread::Cut),
            Err(Stop::Bad(what)) => Err(Unread::Bad(what)),
            Err(_) => Err(Unread::Cut),
        };
    }
    let bodiless = request.method == "HEAD" || matches!(status, 204 | 304);
    let framing = match head.framing() {
        Ok(_) if bodiless => Body::None,
        Ok(Body::Chunked(_)) if request.old => return Err(Unread::Bad("chunks to HTTP/1.0".into())),
        Ok(framing) => framing,
        Err(_) => return Err(Unread::Bad(format!("framing of {head:?}"))),
    };
    let got = Cell::new(0);
    let progress = |n| {
        got.set(n);
        ledger.getting(id, n);
    };
    let pattern = (!own).then_some(id);
    let body = wire.body(framing, pattern, batch.reads, progress).await;
    ledger.response(id, status, own, body.is_ok(), got.get());
    expect_success(ledger, batch, request, status, own, body.is_ok());
    match body {
        Err(Stop::Bad(what)) => return Err(Unread::Bad(what)),
        Err(_) => return Err(Unread::Cut),
        Ok(_) => {}
    }
    Ok(if is_kept(&head, framing, request) { Read::Kept } else { Read::Closes })
}

fn is_kept(head: &Head, framing: Body, request: &Request) -> bool {
    !matches!(framing, Body::Close(_))
        && !head.has_token("connection", "close")
        && (!request.old || head.has_token("connection", "keep-alive"))
}

/// Where nothing was in the way of a request, its answer must be the upstream's, whole.
fn expect_success(ledger: &Ledger, batch: &Batch, request: &Request, status: u16, own: bool, whole: bool) {
    let plan = &ledger.plan;
    let found = plan.names.is_none_or(|names| names.are_found());
    let (calm, answer) = (plan.calm && found, &request.answer);
    let clean = answer.fault.is_none() && !answer.early && answer.takes_only.is_none();
    let clean = clean && answer.pace == Pace::Fast && answer.takes == Pace::Fast;
    let free = plan.is_steady() && plan.limits.max_conns >= plan.clients.len() && behaves(ledger, batch);
    if !(calm && free && clean) {
        return;
    }
    let id = request.id;
    if own || !whole {
        let what = format!("/{id} has {status} (own: {own}, whole: {whole}) though nothing was in its way");
        ledger.fail(Invariant::Answered, what);
    }
    let bytes: u32 = batch.requests.iter().map(|r| r.body.len() + r.answer.body.len()).sum();
    let began = ledger.with(batch.requests[0].id, |r| r.began).unwrap_or(ledger.world.now());
    let took = ledger.world.now().saturating_since(began);
    if bytes < SMALL && took > SOON {
        ledger.fail(Invariant::Answered, format!("/{id} took {took:?} though nothing was in its way"));
    }
}

/// Whoever reads it by its length finds another request in it.
const SMUGGLED: &[u8] =
    b"POST /0 HTTP/1.1\r\nhost: sim\r\ncontent-length: 5\r\ntransfer-encoding: chunked\r\n\r\n\
    0\r\n\r\nGET /0 HTTP/1.1\r\nhost: sim\r\n\r\n";

/// A client that makes no sense: it is to be got rid of in time.
async fn babble(ledger: &Rc<Ledger>, proxy: SocketAddr, nonsense: Nonsense) {
    let Some(mut conn) = connect(ledger, proxy).await else { return };
    let world = &ledger.world;
    let stream = Rc::clone(&conn.stream);
    let writes = async {
        let head = b"GET /0 HTTP/1.1\r\nhost: sim\r\nx: y\r\n";
        let _ = match nonsense {
            Nonsense::Nothing => Ok(()),
            Nonsense::HalfHead => write(world, &stream, &head[..20], Pace::Fast).await,
            Nonsense::Garbage => write(world, &stream, b"\x16\x03\x01 tide\r\n\r\n", Pace::Fast).await,
            Nonsense::Smuggled => write(world, &stream, SMUGGLED, Pace::Fast).await,
            Nonsense::Drip => write(world, &stream, head, Pace::Slow(1, Duration::from_millis(20))).await,
        };
        std::future::pending::<()>().await
    };
    let reads = async {
        let mut writes = pin!(writes);
        let mut end = pin!(conn.wire.drain());
        poll_fn(|cx| match end.as_mut().poll(cx) {
            Poll::Ready(_) => Poll::Ready(()),
            Poll::Pending => {
                let _ = writes.as_mut().poll(cx);
                Poll::Pending
            }
        })
        .await
    };
    let policy = &ledger.plan.policy;
    let patience = policy.client_head.unwrap_or_default() + policy.linger.unwrap_or_default();
    let waits = if ledger.plan.max_clients < ledger.plan.clients.len() { 300 } else { 2 };
    if or(reads, sleep(world, patience + Duration::from_secs(waits))).await.is_none() {
        ledger.fail(Invariant::EveryWaitHasADeadline, format!("a client stays for ever: {nonsense:?}"));
    }
}
