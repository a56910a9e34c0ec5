//! The traits of [`tidegate_core::runtime`] on a [`World`], and the same operations for scripted peers.
//!
//! The timer behaves as the strictest real one: it fires once and is pending from then on until it is
//! armed again.

use std::cell::Cell;
use std::fmt;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_core::Instant;
use tidegate_core::runtime::{Listener, Runtime, Spawn, Stream, Timer};

use super::chaos::Hitch;
use super::net::{ConnId, EndId};
use super::{Event, EventKey, Owner, World};

/// A runtime of one [`World`].
#[derive(Clone, Debug)]
pub struct VirtualRuntime {
    world: World,
    owner: Owner,
}

impl VirtualRuntime {
    pub(super) fn new(world: World, owner: Owner) -> VirtualRuntime {
        VirtualRuntime { world, owner }
    }

    /// An address that nobody listens at yet.
    pub fn free_address(&self) -> SocketAddr {
        self.world.inner.net.borrow_mut().address()
    }

    /// Listens at `at`; at most `room` connections wait to be accepted, further ones hang.
    pub fn listen(&self, at: SocketAddr, room: usize) -> VirtualListener {
        self.world.inner.net.borrow_mut().listen(at, self.owner, room);
        VirtualListener { world: self.world.clone(), owner: self.owner, at }
    }

    /// Connections of this runtime to `to` that are in `SYN_SENT`.
    pub fn syn_sent(&self, to: SocketAddr) -> usize {
        self.world.inner.net.borrow().syn_sent(self.owner, to)
    }

    /// Connections of this runtime to `to` that are `ESTABLISHED` at this end.
    pub fn established(&self, to: SocketAddr) -> usize {
        self.world.inner.net.borrow().established(self.owner, to)
    }

    /// Connections of this runtime to `to` that a descriptor refers to.
    pub fn open(&self, to: SocketAddr) -> usize {
        self.world.inner.net.borrow().open(self.owner, to)
    }

    /// Connections of this runtime to `to` that no descriptor refers to, and whose kernel has bytes to deliver.
    pub fn trickling(&self, to: SocketAddr) -> usize {
        self.world.inner.net.borrow().trickling(self.owner, to)
    }

    /// Sockets of this runtime, listeners among them.
    pub fn sockets(&self) -> usize {
        self.world.inner.net.borrow().descriptors(self.owner)
    }
}

impl Runtime for VirtualRuntime {
    type Stream = VirtualStream;
    type Connect = VirtualConnect;
    type Timer = VirtualTimer;

    fn now(&self) -> Instant {
        self.world.inner.broken_at.get().unwrap_or_else(|| self.world.now())
    }

    fn timer(&self) -> VirtualTimer {
        VirtualTimer::new(self.world.clone(), self.owner)
    }

    fn unix_time(&self) -> u64 {
        // The world's own date, so that a run does not depend on the day.
        784_111_777 + self.world.now().as_nanos() / 1_000_000_000
    }

    fn id_seed(&self) -> u128 {
        // The same in every run.
        0x7469_6465_6761_7465
    }

    fn connect(&self, to: SocketAddr) -> VirtualConnect {
        VirtualConnect { world: self.world.clone(), owner: self.owner, to, conn: None }
    }
}

impl<F: Future<Output = ()> + 'static> Spawn<F> for VirtualRuntime {
    fn spawn(&self, task: F) {
        self.world.spawn(self.owner, task);
    }
}

/// A timer of a [`World`].
#[derive(Debug)]
pub struct VirtualTimer {
    world: World,
    owner: Owner,
    at: Option<Instant>,
    /// The scheduled wake-up.
    event: Option<EventKey>,
}

impl VirtualTimer {
    pub(super) fn new(world: World, owner: Owner) -> VirtualTimer {
        VirtualTimer { world, owner, at: None, event: None }
    }

    fn unschedule(&mut self) {
        if let Some(key) = self.event.take() {
            self.world.cancel(key);
            self.world.inner.armed[self.owner as usize].update(|n| n - 1);
        }
    }
}

impl Timer for VirtualTimer {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        self.unschedule();
        self.at = Some(at);
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.unschedule();
        if self.world.inner.broken_at.get().is_some() {
            return Poll::Pending;
        }
        match self.at {
            Some(at) if at <= self.world.now() => {
                self.at = None;
                Poll::Ready(())
            }
            Some(at) if at != Instant::NEVER => {
                let late = self.world.late_timer(self.owner);
                let key = self.world.schedule(at + late, Event::Wake(cx.waker().clone()));
                self.event = Some(key);
                self.world.inner.armed[self.owner as usize].update(|n| n + 1);
                Poll::Pending
            }
            _ => Poll::Pending,
        }
    }
}

impl Drop for VirtualTimer {
    fn drop(&mut self) {
        self.unschedule();
    }
}

/// A connection attempt; dropping it closes its socket.
#[derive(Debug)]
pub struct VirtualConnect {
    world: World,
    owner: Owner,
    to: SocketAddr,
    conn: Option<ConnId>,
}

impl Future for VirtualConnect {
    type Output = io::Result<VirtualStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let world = self.world.clone();
        let conn = match self.conn {
            Some(conn) => conn,
            None => {
                let (conn, sent) = world.inner.net.borrow_mut().connect(self.owner, self.to);
                world.transmit(sent);
                self.conn = Some(conn);
                conn
            }
        };
        let polled = world.inner.net.borrow_mut().poll_connect(conn, cx.waker());
        match polled {
            Poll::Pending => Poll::Pending,
            Poll::Ready(result) => {
                self.conn = None;
                let (id, owner) = (EndId { conn, side: 0 }, self.owner);
                Poll::Ready(result.map(|()| VirtualStream { world, owner, id, gone: Cell::new(false) }))
            }
        }
    }
}

impl Drop for VirtualConnect {
    fn drop(&mut self) {
        if let Some(conn) = self.conn.take() {
            let sent = self.world.inner.net.borrow_mut().cancel_connect(conn);
            self.world.transmit(sent);
        }
    }
}

/// One end of a virtual connection.
pub struct VirtualStream {
    world: World,
    owner: Owner,
    id: EndId,
    gone: Cell<bool>,
}

impl VirtualStream {
    /// One direct read.
    pub fn read(&self, buf: &mut [u8]) -> io::Result<usize> {
        let most = self.world.portion(self.owner, buf.len());
        let (result, sent) = self.world.inner.net.borrow_mut().read(self.id, &mut buf[..most]);
        self.world.transmit(sent);
        result
    }

    /// One direct write.
    pub fn write(&self, bytes: &[u8]) -> io::Result<usize> {
        let most = self.world.portion(self.owner, bytes.len());
        let (result, sent) = self.world.inner.net.borrow_mut().write(self.id, &bytes[..most]);
        self.world.transmit(sent);
        result
    }

    /// Reads, or leaves the waker.
    pub fn poll_read_shared(&self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.read(buf) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if let Some(end) = self.world.inner.net.borrow_mut().end(self.id) {
                    end.wait_read(cx.waker());
                }
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }

    /// Writes, or leaves the waker.
    pub fn poll_write_shared(&self, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.write(bytes) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if let Some(end) = self.world.inner.net.borrow_mut().end(self.id) {
                    end.wait_write(cx.waker());
                }
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }

    /// What comes in between an operation, if anything does.
    fn hitch(&self, cx: &mut Context<'_>) -> Option<Poll<io::Result<usize>>> {
        Some(match self.world.hitch(self.owner)? {
            Hitch::Interrupted => Poll::Ready(Err(io::ErrorKind::Interrupted.into())),
            Hitch::NotYet => {
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        })
    }

    /// Whether this end was closed by [`VirtualStream::rst`].
    pub fn is_gone(&self) -> bool {
        self.gone.get()
    }

    /// Whether the connection ended by RST, even if there are bytes from before that to be read.
    pub fn is_reset(&self) -> bool {
        self.world.inner.net.borrow_mut().end(self.id).is_none_or(|end| end.reset)
    }

    /// Whether RST ended it before the other end's FIN. A write may have been told so, and then reads are told nothing.
    pub fn is_cut(&self) -> bool {
        self.world.inner.net.borrow_mut().end(self.id).is_none_or(|end| end.cut())
    }

    /// Sends RST and closes, whoever else refers to it.
    pub fn rst(&self) {
        if !self.gone.replace(true) {
            let sent = self.world.inner.net.borrow_mut().abort(self.id);
            self.world.transmit(sent);
        }
    }

    /// Sends RST and closes, after a while.
    pub(crate) fn abort_later(self, after: Duration) {
        let world = self.world.clone();
        let at = world.now() + after;
        let sleep = world.sleep_until(at);
        world.spawn(Owner::Peer, async move {
            sleep.await;
            self.rst();
        });
    }

    /// Closes once these bytes are sent.
    pub(crate) fn write_behind(self, bytes: Vec<u8>) {
        if bytes.is_empty() {
            return;
        }
        let (world, mut sent) = (self.world.clone(), 0);
        world.spawn(
            Owner::Peer,
            poll_fn(move |cx| {
                while sent < bytes.len() {
                    match self.poll_write_shared(cx, &bytes[sent..]) {
                        Poll::Ready(Ok(n)) => sent += n,
                        Poll::Ready(Err(_)) => return Poll::Ready(()),
                        Poll::Pending => return Poll::Pending,
                    }
                }
                Poll::Ready(())
            }),
        );
    }

    /// Sends FIN.
    pub fn fin(&self) {
        let sent = self.world.inner.net.borrow_mut().shutdown_write(self.id);
        self.world.transmit(sent);
    }
}

impl Stream for VirtualStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.hitch(cx) {
            Some(hitch) => hitch,
            None => self.poll_read_shared(cx, buf),
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Some(hitch) = self.hitch(cx) {
            return hitch;
        }
        match self.try_write_vectored(bufs) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if let Some(end) = self.world.inner.net.borrow_mut().end(self.id) {
                    end.wait_write(cx.waker());
                }
                Poll::Pending
            }
            other => Poll::Ready(other),
        }
    }

    fn poll_shutdown_write(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.fin();
        Poll::Ready(Ok(()))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The close that follows is FIN.
        Poll::Ready(Ok(()))
    }

    fn abort(self) {
        self.rst();
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        self.read(buf)
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut total = 0;
        for buf in bufs.iter().filter(|buf| !buf.is_empty()) {
            match self.write(buf) {
                Ok(n) => {
                    total += n;
                    if n < buf.len() {
                        break;
                    }
                }
                Err(e) if total == 0 => return Err(e),
                Err(_) => break,
            }
        }
        Ok(total)
    }
}

impl Drop for VirtualStream {
    fn drop(&mut self) {
        if !self.gone.get() {
            let sent = self.world.inner.net.borrow_mut().close(self.id);
            self.world.transmit(sent);
        }
    }
}

impl fmt::Debug for VirtualStream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("VirtualStream").field("id", &self.id).finish_non_exhaustive()
    }
}

/// A listening socket of a [`World`].
#[derive(Debug)]
pub struct VirtualListener {
    world: World,
    owner: Owner,
    at: SocketAddr,
}

impl VirtualListener {
    /// Changes how many connections may wait to be accepted.
    pub fn set_room(&self, room: usize) {
        self.world.inner.net.borrow_mut().set_room(self.at, room);
    }
}

impl Listener for VirtualListener {
    type Stream = VirtualStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(VirtualStream, Option<SocketAddr>)>> {
        let accepted = self.world.inner.net.borrow_mut().poll_accept(self.at, cx.waker());
        accepted.map(|(id, from)| {
            Ok((
                VirtualStream { world: self.world.clone(), owner: self.owner, id, gone: Cell::new(false) },
                Some(from),
            ))
        })
    }
}

impl Drop for VirtualListener {
    fn drop(&mut self) {
        let sent = self.world.inner.net.borrow_mut().unlisten(self.at);
        self.world.transmit(sent);
    }
}
