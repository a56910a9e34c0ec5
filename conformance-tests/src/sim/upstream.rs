//! The upstreams of a simulation: they answer as the plan says, and check what comes to them.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::{Rc, Weak};
use std::task::{Poll, Waker};
use std::time::Duration;

use tidegate_core::Side;
use tidegate_core::runtime::Listener;

use super::ledger::{Invariant, Ledger};
use super::plan::{Answer, At, Body, Break, Fault, Id, Pace, Request};
use super::tunnel;
use super::wire::{Head, Stop, Wire, offset, sleep, write_body, write_telling};
use crate::pattern;
use crate::virtual_rt::{Owner, VirtualListener, VirtualStream};

/// Connections that may wait to be accepted.
const ROOM: usize = 1024;

/// One upstream: a port, and who is connected to it.
pub(super) struct Upstream {
    pub(super) addr: SocketAddr,
    ledger: Rc<Ledger>,
    listener: RefCell<Option<VirtualListener>>,
    /// It accepts nobody for now.
    full: Cell<bool>,
    changed: RefCell<Option<Waker>>,
    conns: RefCell<Vec<Weak<VirtualStream>>>,
}

impl Upstream {
    /// One that listens and answers from now on.
    pub(super) fn start(ledger: &Rc<Ledger>) -> Rc<Upstream> {
        let runtime = ledger.world.runtime(Owner::Peer);
        let addr = runtime.free_address();
        let upstream = Rc::new(Upstream {
            addr,
            ledger: Rc::clone(ledger),
            listener: RefCell::new(Some(runtime.listen(addr, ROOM))),
            full: Cell::new(false),
            changed: RefCell::default(),
            conns: RefCell::default(),
        });
        ledger.world.spawn(Owner::Peer, Rc::clone(&upstream).accept());
        upstream
    }

    /// Its connections are reset and its port refuses.
    pub(super) fn down(&self) {
        *self.listener.borrow_mut() = None;
        let conns = std::mem::take(&mut *self.conns.borrow_mut());
        conns.iter().filter_map(Weak::upgrade).for_each(|stream| stream.rst());
        self.change();
    }

    /// It accepts nobody any more.
    pub(super) fn full(&self) {
        self.full.set(true);
        self.listener.borrow().iter().for_each(|listener| listener.set_room(0));
    }

    /// It answers again.
    pub(super) fn up(&self) {
        self.full.set(false);
        let mut listener = self.listener.borrow_mut();
        match &*listener {
            Some(listener) => listener.set_room(ROOM),
            None => *listener = Some(self.ledger.world.runtime(Owner::Peer).listen(self.addr, ROOM)),
        }
        drop(listener);
        self.change();
    }

    fn change(&self) {
        self.changed.borrow_mut().take().into_iter().for_each(Waker::wake);
    }

    async fn accept(self: Rc<Upstream>) {
        loop {
            let stream = poll_fn(|cx| {
                *self.changed.borrow_mut() = Some(cx.waker().clone());
                match &mut *self.listener.borrow_mut() {
                    Some(listener) if !self.full.get() => listener.poll_accept(cx),
                    _ => Poll::Pending,
                }
            })
            .await;
            let Ok((stream, _)) = stream else { continue };
            let stream = Rc::new(stream);
            let mut conns = self.conns.borrow_mut();
            conns.retain(|conn| conn.strong_count() > 0);
            conns.push(Rc::downgrade(&stream));
            drop(conns);
            self.ledger.world.spawn(Owner::Peer, serve(Rc::clone(&self.ledger), stream));
        }
    }
}

/// What becomes of a connection after an answer.
enum Next {
    /// Another request.
    Request,
    /// Another request, if it comes soon.
    Soon(Duration),
    /// Nothing.
    End,
}

async fn serve(ledger: Rc<Ledger>, stream: Rc<VirtualStream>) {
    let mut wire = Wire::new(&ledger.world, Rc::clone(&stream));
    let mut patience = None;
    loop {
        let head = match patience {
            None => Some(wire.head(Pace::Fast).await),
            Some(length) => or(wire.head(Pace::Fast), sleep(&ledger.world, length)).await,
        };
        let head = match head {
            Some(Ok(head)) => head,
            Some(Err(Stop::Bad(what))) => {
                return ledger.fail(Invariant::Bytes, format!("to an upstream: {what}"));
            }
            // The proxy closed it, or nobody came in time.
            Some(Err(_)) | None => return,
        };
        match answer(&ledger, &stream, &mut wire, &head).await {
            Ok(Next::Request) => patience = None,
            Ok(Next::Soon(length)) => patience = Some(length),
            Ok(Next::End) => return,
            Err(Stop::Bad(what)) => return ledger.fail(Invariant::Bytes, format!("to an upstream: {what}")),
            Err(_) => return,
        }
    }
}

/// The first future's result, unless the second ends before it.
pub(super) async fn or<T>(first: impl Future<Output = T>, second: impl Future<Output = ()>) -> Option<T> {
    let (mut first, mut second) = (pin!(first), pin!(second));
    poll_fn(|cx| match first.as_mut().poll(cx) {
        Poll::Ready(result) => Poll::Ready(Some(result)),
        Poll::Pending => second.as_mut().poll(cx).map(|()| None),
    })
    .await
}

async fn answer(ledger: &Ledger, stream: &VirtualStream, wire: &mut Wire, head: &Head) -> Result<Next, Stop> {
    let target = head.start.split(' ').nth(1).and_then(|target| target.strip_prefix('/'));
    let request = target.and_then(|id| id.parse().ok()).and_then(|id| ledger.request(id));
    let Some(request) = request else {
        return Err(Stop::Bad(format!("a request that nobody made: {head:?}")));
    };
    ledger.seen(request, stream.is_reset());
    // The bytes themselves are part of the history.
    ledger.world.note(head.number());
    let framing = match head.framing()? {
        Body::Close(_) => Body::None,
        framing => framing,
    };
    let plan = &request.answer;
    if request.tunnel.is_some_and(|tunnel| !tunnel.refused) {
        return open_tunnel(ledger, stream, wire, request, head).await;
    }
    if plan.early {
        ledger.not_taking(request.id);
    } else {
        if request.expects {
            say(ledger, stream, request.id, b"HTTP/1.1 100 Continue\r\n\r\n").await?;
        }
        let taken = Cell::new(0);
        let takes = |n| {
            taken.set(n);
            ledger.taking(request.id, n);
        };
        let body = wire.body(framing, Some(request.id), plan.takes, takes);
        let got = match plan.takes_only {
            None => body.await,
            Some(most) => {
                // Polled together with the body.
                let enough =
                    poll_fn(|_| if taken.get() >= u64::from(most) { Poll::Ready(()) } else { Poll::Pending });
                match or(body, enough).await {
                    Some(end) => end,
                    None => return stand_still(ledger, stream, request.id).await,
                }
            }
        };
        if got.is_err() {
            ledger.not_taking(request.id);
        }
        let got = got?;
        ledger.request_whole(request, got);
        if wire.has_more() {
            return Err(Stop::Bad(format!("more than /{} came", request.id)));
        }
    }
    sleep(&ledger.world, plan.after).await;
    for n in 0..plan.interim {
        let text = format!("HTTP/1.1 103 Early Hints\r\nlink: </{n}>\r\n\r\n");
        say(ledger, stream, request.id, text.as_bytes()).await?;
    }
    send(ledger, stream, wire, request).await?;
    let bodiless = request.method == "HEAD" || matches!(plan.status, 204 | 304);
    let unframed = matches!(plan.body, Body::Close(_)) && !bodiless;
    let ends = plan.early || plan.close || plan.fault.is_some() || unframed;
    Ok(match plan.goes_stale {
        _ if ends => Next::End,
        Some(after) => Next::Soon(after),
        None => Next::Request,
    })
}

async fn open_tunnel(
    ledger: &Ledger,
    stream: &VirtualStream,
    wire: &mut Wire,
    request: &Request,
    head: &Head,
) -> Result<Next, Stop> {
    if !head.has_token("connection", "upgrade") || head.get("upgrade") != Some("websocket") {
        return Err(Stop::Bad(format!("no upgrade in {head:?}")));
    }
    sleep(&ledger.world, request.answer.after).await;
    let id = request.id;
    let text = format!(
        "HTTP/1.1 101 Switching Protocols\r\nx-sim: {id}\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n"
    );
    say(ledger, stream, id, text.as_bytes()).await?;
    tunnel::run(ledger, wire, request, Side::Upstream).await?;
    Ok(Next::End)
}

/// Sends something about a request at once.
async fn say(ledger: &Ledger, stream: &VirtualStream, id: Id, bytes: &[u8]) -> Result<(), Stop> {
    Ok(write_telling(&ledger.world, stream, bytes, Pace::Fast, &|| ledger.fed(id)).await?)
}

/// Reads and sends nothing any more, until the proxy resets the connection: with FIN a part of a request could pass for
/// the whole.
async fn stand_still(ledger: &Ledger, stream: &VirtualStream, id: Id) -> Result<Next, Stop> {
    ledger.event(id, 9, || format!("upstream: takes no more of /{id}"));
    while !stream.is_reset() {
        // Whoever does not read is told nothing: it has to look.
        sleep(&ledger.world, Duration::from_millis(2)).await;
        if !stream.is_reset() && ledger.is_overdue(id, Duration::from_millis(3)) {
            ledger.fail(
                Invariant::NothingAfter,
                format!("the upstream of /{id} is not reset after its outcome"),
            );
            break;
        }
    }
    Err(Stop::Rst)
}

/// The final answer, as far as it comes.
async fn send(
    ledger: &Ledger,
    stream: &VirtualStream,
    wire: &mut Wire,
    request: &Request,
) -> Result<(), Stop> {
    let Answer { status, body, pace, close, fault, .. } = request.answer;
    let id = request.id;
    let mut head = format!("HTTP/1.1 {status} Sim\r\nx-sim: {id}\r\n");
    match body {
        Body::Length(n) => head += &format!("content-length: {n}\r\n"),
        Body::Chunked(_) => head += "transfer-encoding: chunked\r\n",
        Body::None | Body::Close(_) => {}
    }
    if close {
        head += "connection: close\r\n";
    }
    head += "\r\n";
    let most = match fault {
        Some(Fault { at: At::Start, kind }) => return break_off(ledger, stream, wire, id, kind).await,
        Some(Fault { at: At::Head, kind }) => {
            say(ledger, stream, id, &head.as_bytes()[..head.len() / 2]).await?;
            return break_off(ledger, stream, wire, id, kind).await;
        }
        Some(Fault { at: At::Body(n), .. }) => Some(n),
        None => None,
    };
    if request.answer.surplus && fault.is_none() {
        // In one piece: what comes a moment later could be the answer to the next request, as far as anybody can tell.
        let mut text = head.into_bytes();
        if request.method != "HEAD" && !matches!(status, 204 | 304) {
            let end = text.len() + body.len() as usize;
            while text.len() < end {
                let left = end - text.len();
                let run = pattern::run(offset(id) + u64::from(body.len()) - left as u64);
                text.extend_from_slice(&run[..run.len().min(left)]);
            }
        }
        text.extend_from_slice(b"HTTP/1.1 200 OK\r\nx-sim: 0\r\ncontent-length: 3\r\n\r\nbad");
        return say(ledger, stream, id, &text).await;
    }
    say(ledger, stream, id, head.as_bytes()).await?;
    if request.method != "HEAD" && !matches!(status, 204 | 304) {
        let answering = |n| ledger.answering(id, n);
        write_body(&ledger.world, stream, body, id, (pace, most), answering, &|| ledger.fed(id)).await?;
    }
    match fault {
        // Garbage would be body where nothing tells it apart.
        Some(Fault { kind: Break::Garbage, .. }) if !matches!(body, Body::Chunked(_)) => {
            break_off(ledger, stream, wire, id, Break::Rst).await
        }
        Some(fault) => break_off(ledger, stream, wire, id, fault.kind).await,
        None => Ok(()),
    }
}

async fn break_off(
    ledger: &Ledger,
    stream: &VirtualStream,
    wire: &mut Wire,
    id: u32,
    kind: Break,
) -> Result<(), Stop> {
    ledger.event(id, 5, || format!("upstream: /{id} breaks off: {kind:?}"));
    match kind {
        Break::Fin => stream.fin(),
        Break::Rst => stream.rst(),
        Break::Garbage => {
            say(ledger, stream, id, b"\x00\x01 tide \r\n\r\n").await?;
            wire.drain().await;
        }
        Break::Stall => {
            // Its end came before it fell silent.
            let over = stream.is_reset();
            let end = wire.drain().await;
            let whole = ledger.request(id).is_some_and(nothing_missing);
            // One whose answer is whole is a connection like any other, and one's own end is no news.
            if !whole && !over && !stream.is_gone() {
                ledger.stalled_end(id, end == Stop::Rst);
            }
        }
    }
    Err(Stop::Rst)
}

/// Whether an answer that breaks off is whole all the same.
fn nothing_missing(request: &Request) -> bool {
    let answer = &request.answer;
    let bodiless = request.method == "HEAD" || matches!(answer.status, 204 | 304);
    match answer.fault.map(|fault| fault.at) {
        Some(At::Body(n)) => bodiless || matches!(answer.body, Body::Length(len) if n >= len),
        Some(_) => false,
        None => true,
    }
}
