//! The driver on a runtime of fakes: sockets in memory, timers that misbehave in known ways, a clock in
//! hand. A task is polled only when its waker was woken, so that a lost wake-up shows as a hang.

mod closing;
mod connection;
mod endings;
mod limits;
mod liveness;
mod locks;
#[cfg(shuttle)]
mod model;
mod queue;
mod resolving;
mod serve;
mod stats;
mod tunnel;

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::cell::RefCell;
use std::collections::VecDeque;
use std::io::{self, ErrorKind, IoSlice, Read};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Wake, Waker};

use crate::runtime::wakes::Wakes;
use crate::runtime::{Listener, Runtime, Spawn, Stream, Timer};
use crate::time::Instant;

pub(super) const GET: &[u8] = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
pub(super) const OK5: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello";

/// When a timer fires that is armed for `at`.
#[derive(Copy, Clone, Debug)]
pub(super) enum Fires {
    InTime,
    Early(Duration),
    Late(Duration),
}

/// One end of a connection in memory, as its peer sees it.
#[derive(Default)]
pub(super) struct Peer {
    /// What the proxy will read.
    pub(super) sends: VecDeque<u8>,
    pub(super) fin: bool,
    pub(super) reset: bool,
    /// Every read finds these bytes, for ever.
    pub(super) floods: Option<&'static [u8]>,
    /// So many reads are interrupted by a signal.
    pub(super) interrupted: usize,
    /// Polls wait although a direct call would not.
    pub(super) asleep: bool,
    /// How many more bytes the proxy may write.
    pub(super) room: usize,
    /// Writes are taken in whole and go on when they are flushed, as TLS does it.
    pub(super) wraps: bool,
    held: Vec<u8>,
    /// What the proxy wrote.
    pub(super) got: Vec<u8>,
    pub(super) got_fin: bool,
    /// FIN cannot be sent: that fails, or never comes to an end.
    pub(super) no_fin: Option<Poll<()>>,
    /// How the proxy ended it: by RST or by a close.
    pub(super) aborted: bool,
    pub(super) closed: bool,
    /// What its stream was told of a long body.
    pub(super) bulk: Vec<bool>,
    /// Reads and writes that were tried.
    pub(super) calls: usize,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

pub(super) type Handle = Rc<RefCell<Peer>>;

pub(super) fn peer() -> Handle {
    Rc::new(RefCell::new(Peer { room: usize::MAX, ..Peer::default() }))
}

/// Changes something at a peer and wakes whoever waits for it.
pub(super) fn at<T>(peer: &Handle, change: impl FnOnce(&mut Peer) -> T) -> T {
    let (result, wakers) = {
        let mut peer = peer.borrow_mut();
        let result = change(&mut peer);
        let wakers = if peer.asleep { [None, None] } else { [peer.reader.take(), peer.writer.take()] };
        (result, wakers)
    };
    wakers.into_iter().flatten().for_each(Waker::wake);
    result
}

pub(super) fn send(peer: &Handle, bytes: &[u8]) {
    at(peer, |p| p.sends.extend(bytes));
}

pub(super) fn got(peer: &Handle) -> String {
    String::from_utf8(core::mem::take(&mut peer.borrow_mut().got)).unwrap()
}

#[derive(Default)]
struct Armed {
    at: Option<Instant>,
    waker: Option<Waker>,
}

/// What comes of an attempt to connect.
#[derive(Copy, Clone, Debug)]
pub(super) enum Came {
    Connected,
    Refused,
}

pub(super) struct World {
    now: Instant,
    pub(super) fires: Fires,
    timers: Vec<Rc<RefCell<Armed>>>,
    /// Sockets that are open on the proxy's side.
    pub(super) open: usize,
    /// What the next upstream is like, if it is not like [`peer`].
    pub(super) next: Option<Handle>,
    /// Upstream connections in the order in which they were begun.
    pub(super) upstreams: Vec<Handle>,
    /// Whether attempts to connect succeed, or wait.
    pub(super) connects: bool,
    /// Attempts fail at once.
    pub(super) refuses: bool,
    /// What comes of the first attempt, at the look after so many.
    pub(super) then: Option<(usize, Came)>,
    /// The wakers of attempts that wait, by their place among all upstream connections.
    connecting: Vec<(usize, Waker)>,
    tasks: Vec<Pin<Box<dyn Future<Output = ()>>>>,
}

/// The runtime.
#[derive(Clone)]
pub(super) struct Fake(pub(super) Rc<RefCell<World>>);

impl Fake {
    pub(super) fn new() -> Fake {
        Fake(Rc::new(RefCell::new(World {
            now: Instant::EPOCH,
            fires: Fires::InTime,
            timers: Vec::new(),
            open: 0,
            next: None,
            upstreams: Vec::new(),
            connects: true,
            refuses: false,
            then: None,
            connecting: Vec::new(),
            tasks: Vec::new(),
        })))
    }

    pub(super) fn open(&self) -> usize {
        self.0.borrow().open
    }

    pub(super) fn upstream(&self, n: usize) -> Handle {
        self.0.borrow().upstreams[n].clone()
    }

    pub(super) fn stream(&self, peer: &Handle) -> FakeStream {
        self.0.borrow_mut().open += 1;
        FakeStream { world: self.clone(), peer: peer.clone() }
    }

    /// Lets attempts to connect succeed from now on.
    pub(super) fn connect(&self) {
        self.0.borrow_mut().connects = true;
        self.look_again();
    }

    /// Something has come of the attempts to connect that wait.
    pub(super) fn look_again(&self) {
        let wakers = core::mem::take(&mut self.0.borrow_mut().connecting);
        wakers.into_iter().for_each(|(_, waker)| waker.wake());
    }

    pub(super) fn spawned(&self) -> Vec<Task> {
        self.0.borrow_mut().tasks.drain(..).map(Task::of).collect()
    }

    /// Sets the clock and wakes whom a timer wakes: each once, as timers do.
    pub(super) fn set_clock(&self, ms: u64) {
        let mut wakers = Vec::new();
        let mut world = self.0.borrow_mut();
        world.now = Instant::from_millis(ms);
        for timer in &world.timers {
            let mut timer = timer.borrow_mut();
            if timer.at.is_some_and(|at| world.fired(at)) {
                wakers.extend(timer.waker.take());
            }
        }
        drop(world);
        wakers.into_iter().for_each(Waker::wake);
    }
}

impl World {
    /// What has come of the attempt that is looked at.
    fn look(&mut self) -> Option<Came> {
        if self.upstreams.len() != 1 {
            return None;
        }
        let (looks, came) = self.then.take()?;
        if looks == 0 {
            return Some(came);
        }
        self.then = Some((looks - 1, came));
        None
    }

    fn fired(&self, at: Instant) -> bool {
        self.now
            >= match self.fires {
                Fires::InTime => at,
                Fires::Early(by) => at - by,
                Fires::Late(by) => at + by,
            }
    }
}

impl Runtime for Fake {
    type Stream = FakeStream;
    type Connect = FakeConnect;
    type Timer = FakeTimer;

    fn now(&self) -> Instant {
        self.0.borrow().now
    }

    fn timer(&self) -> FakeTimer {
        let timer = Rc::new(RefCell::new(Armed::default()));
        self.0.borrow_mut().timers.push(timer.clone());
        FakeTimer { world: self.clone(), timer }
    }

    fn connect(&self, _: SocketAddr) -> FakeConnect {
        FakeConnect { world: self.clone(), stream: None, place: 0 }
    }
}

impl<F: Future<Output = ()> + 'static> Spawn<F> for Fake {
    fn spawn(&self, task: F) {
        self.0.borrow_mut().tasks.push(Box::pin(task));
    }
}

/// A timer with async-io's habit: once it was seen to have fired, it is pending until it is armed anew.
pub(super) struct FakeTimer {
    world: Fake,
    timer: Rc<RefCell<Armed>>,
}

impl Timer for FakeTimer {
    fn arm(self: Pin<&mut Self>, at: Instant) {
        *self.timer.borrow_mut() = Armed { at: Some(at), waker: None };
    }

    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut timer = self.timer.borrow_mut();
        let Some(at) = timer.at else { return Poll::Pending };
        if self.world.0.borrow().fired(at) {
            *timer = Armed::default();
            return Poll::Ready(());
        }
        timer.waker = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Drop for FakeTimer {
    fn drop(&mut self) {
        self.world.0.borrow_mut().timers.retain(|t| !Rc::ptr_eq(t, &self.timer));
    }
}

/// An attempt to connect; its socket is open from the first poll on.
pub(super) struct FakeConnect {
    world: Fake,
    stream: Option<FakeStream>,
    place: usize,
}

impl Future for FakeConnect {
    type Output = io::Result<FakeStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<FakeStream>> {
        if self.stream.is_none() {
            let next = self.world.0.borrow_mut().next.take();
            let peer = next.unwrap_or_else(peer);
            self.stream = Some(self.world.stream(&peer));
            let place = self.world.0.borrow().upstreams.len();
            self.place = place;
            self.world.0.borrow_mut().upstreams.push(peer);
        }
        let came = self.world.0.borrow_mut().look();
        if matches!(came, Some(Came::Connected)) {
            return Poll::Ready(self.stream.take().ok_or_else(|| ErrorKind::Other.into()));
        }
        if matches!(came, Some(Came::Refused)) || self.world.0.borrow().refuses {
            self.stream = None;
            return Poll::Ready(Err(ErrorKind::ConnectionRefused.into()));
        }
        let mut world = self.world.0.borrow_mut();
        if !world.connects {
            world.connecting.retain(|(place, _)| *place != self.place);
            world.connecting.push((self.place, cx.waker().clone()));
            return Poll::Pending;
        }
        drop(world);
        Poll::Ready(self.stream.take().ok_or_else(|| ErrorKind::Other.into()))
    }
}

pub(super) struct FakeStream {
    world: Fake,
    peer: Handle,
}

impl Drop for FakeStream {
    fn drop(&mut self) {
        locks::probe();
        self.world.0.borrow_mut().open -= 1;
        self.peer.borrow_mut().closed = true;
    }
}

impl Stream for FakeStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if !self.peer.borrow().asleep {
            match self.try_read(buf) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
        self.peer.borrow_mut().reader = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if !self.peer.borrow().asleep {
            match self.try_write_vectored(bufs) {
                Err(e) if e.kind() == ErrorKind::WouldBlock => {}
                done => return Poll::Ready(done),
            }
        }
        self.peer.borrow_mut().writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut peer = self.peer.borrow_mut();
        let n = peer.held.len().min(peer.room);
        peer.room -= if peer.room == usize::MAX { 0 } else { n };
        let flushed: Vec<u8> = peer.held.drain(..n).collect();
        peer.got.extend(flushed);
        if peer.held.is_empty() {
            return Poll::Ready(Ok(()));
        }
        peer.writer = Some(cx.waker().clone());
        Poll::Pending
    }

    fn set_bulk(&mut self, bulk: bool) {
        self.peer.borrow_mut().bulk.push(bulk);
    }

    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut peer = self.peer.borrow_mut();
        match peer.no_fin {
            Some(Poll::Ready(())) => return Poll::Ready(Err(ErrorKind::Unsupported.into())),
            Some(Poll::Pending) => {
                peer.writer = Some(cx.waker().clone());
                return Poll::Pending;
            }
            None => {}
        }
        peer.got_fin = true;
        Poll::Ready(Ok(()))
    }

    fn abort(self) {
        self.peer.borrow_mut().aborted = true;
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        assert!(!buf.is_empty());
        let mut peer = self.peer.borrow_mut();
        peer.calls += 1;
        if let Some(left) = peer.interrupted.checked_sub(1) {
            peer.interrupted = left;
            return Err(ErrorKind::Interrupted.into());
        }
        if let (true, Some(bytes)) = (peer.sends.is_empty(), peer.floods) {
            peer.sends.extend(bytes);
        }
        if !peer.sends.is_empty() {
            let n = buf.len().min(peer.sends.len());
            peer.sends.read_exact(&mut buf[..n]).map(|()| n)
        } else if peer.reset {
            Err(ErrorKind::ConnectionReset.into())
        } else if peer.fin {
            Ok(0)
        } else {
            Err(ErrorKind::WouldBlock.into())
        }
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut peer = self.peer.borrow_mut();
        peer.calls += 1;
        if peer.wraps {
            assert!(peer.held.is_empty(), "written to again before it was flushed");
            bufs.iter().for_each(|buf| peer.held.extend_from_slice(buf));
            return Ok(peer.held.len());
        }
        let mut written = 0;
        for buf in bufs {
            let n = buf.len().min(peer.room);
            peer.got.extend_from_slice(&buf[..n]);
            peer.room -= if peer.room == usize::MAX { 0 } else { n };
            written += n;
        }
        if written == 0 { Err(ErrorKind::WouldBlock.into()) } else { Ok(written) }
    }
}

/// What a listener has to give, one after the other.
#[derive(Clone, Default)]
pub(super) struct FakeListener(pub(super) Rc<RefCell<Backlog>>);

#[derive(Default)]
pub(super) struct Backlog {
    pub(super) queue: VecDeque<io::Result<FakeStream>>,
    waker: Option<Waker>,
    pub(super) calls: usize,
}

impl FakeListener {
    pub(super) fn push(&self, client: io::Result<FakeStream>) {
        self.0.borrow_mut().queue.push_back(client);
        let waker = self.0.borrow_mut().waker.take();
        waker.into_iter().for_each(Waker::wake);
    }
}

impl Listener for FakeListener {
    type Stream = FakeStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(FakeStream, Option<SocketAddr>)>> {
        let mut backlog = self.0.borrow_mut();
        backlog.calls += 1;
        match backlog.queue.pop_front() {
            Some(client) => Poll::Ready(client.map(|client| (client, None))),
            None => {
                backlog.waker = Some(cx.waker().clone());
                Poll::Pending
            }
        }
    }
}

/// A task: polled when it was woken, and once to begin with.
pub(super) struct Task {
    future: Option<Pin<Box<dyn Future<Output = ()>>>>,
    wakes: Arc<Wakes>,
    seen: Option<usize>,
    pub(super) polls: usize,
}

impl Task {
    pub(super) fn new(future: impl Future<Output = ()> + 'static) -> Task {
        Task::of(Box::pin(future))
    }

    fn of(future: Pin<Box<dyn Future<Output = ()>>>) -> Task {
        Task { future: Some(future), wakes: Arc::default(), seen: None, polls: 0 }
    }

    /// One poll, whether it was woken or not. Says whether the task has ended.
    pub(super) fn poll(&mut self) -> bool {
        let Some(future) = &mut self.future else { return true };
        self.seen = Some(self.wakes.count());
        self.polls += 1;
        let waker = Waker::from(self.wakes.clone());
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            self.future = None;
        }
        self.future.is_none()
    }

    /// From now on it is polled with another waker; the old one is given back.
    pub(super) fn swap_waker(&mut self) -> Arc<Wakes> {
        core::mem::take(&mut self.wakes)
    }

    pub(super) fn is_over(&self) -> bool {
        self.future.is_none()
    }

    pub(super) fn is_woken(&self) -> bool {
        self.seen != Some(self.wakes.count())
    }

    /// Polls as long as somebody wakes it. Says whether it has ended.
    pub(super) fn run(&mut self) -> bool {
        for _ in 0..1000 {
            if self.future.is_none() || !self.is_woken() {
                return self.future.is_none();
            }
            self.poll();
        }
        panic!("it spins");
    }

    pub(super) fn cancel(&mut self) {
        self.future = None;
    }
}
