//! A runtime with a bug in it, to show that the simulation finds it. Without one it passes everything through.

use std::cell::RefCell;
use std::future::{Future, poll_fn};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tidegate_core::runtime::{Listener, Runtime, Spawn, Stream, Timer};
use tidegate_core::{Config, Decision, Instant, Proxy, Upstreams};

use super::Rng;
use super::bug::Bug;
use crate::virtual_rt::{
    Owner, VirtualConnect, VirtualListener, VirtualRuntime, VirtualStream, VirtualTimer, World,
};

/// The simulated runtime as the proxy has it.
#[derive(Clone)]
pub struct SimRuntime {
    inner: VirtualRuntime,
    plant: Rc<Plant>,
}

/// How late readiness is noticed by [`Bug::StaleReadiness`].
const STALE: Duration = Duration::from_millis(100);

struct Plant {
    runtime: VirtualRuntime,
    bug: Option<Bug>,
    rng: RefCell<Rng>,
    kept: RefCell<Vec<(SocketAddr, VirtualStream)>>,
    /// What [`Bug::CrossedBytes`] has taken out of one write, for the next.
    crossed: RefCell<Vec<u8>>,
    began: Instant,
}

impl Plant {
    fn strikes(&self, bug: Bug, permille: u32) -> bool {
        self.bug == Some(bug) && self.rng.borrow_mut().permille(permille)
    }
}

impl SimRuntime {
    pub(super) fn new(inner: VirtualRuntime, bug: Option<Bug>, seed: u64) -> SimRuntime {
        let began = inner.now();
        let rng = RefCell::new(Rng::new(seed ^ 0xb06));
        let plant = Plant {
            runtime: inner.clone(),
            bug,
            rng,
            kept: RefCell::default(),
            crossed: RefCell::default(),
            began,
        };
        SimRuntime { inner, plant: Rc::new(plant) }
    }

    pub(super) fn has(&self, bug: Bug, permille: u32) -> bool {
        self.plant.strikes(bug, permille)
    }
}

impl Runtime for SimRuntime {
    type Stream = SimStream;
    type Connect = SimConnect;
    type Timer = SimTimer;

    fn now(&self) -> Instant {
        let now = self.inner.now();
        match self.plant.bug {
            Some(Bug::FastClock) => now + now.saturating_since(self.plant.began) / 50,
            Some(Bug::FrozenClock) => now.min(self.plant.began + Duration::from_millis(300)),
            _ => now,
        }
    }

    fn unix_time(&self) -> u64 {
        self.inner.unix_time()
    }

    fn id_seed(&self) -> u128 {
        self.inner.id_seed()
    }

    fn timer(&self) -> SimTimer {
        SimTimer { inner: self.inner.timer(), spent: false, plant: Rc::clone(&self.plant) }
    }

    fn connect(&self, to: SocketAddr) -> SimConnect {
        SimConnect { inner: Some(Box::pin(self.inner.connect(to))), to, plant: Rc::clone(&self.plant) }
    }
}

impl<F: Future<Output = ()> + 'static> Spawn<F> for SimRuntime {
    fn spawn(&self, task: F) {
        if self.plant.strikes(Bug::LeakedTask, 100) {
            // It is polled once and then forgotten, with all that it holds.
            let mut task = Box::pin(task);
            let _ = task.as_mut().poll(&mut Context::from_waker(Waker::noop()));
            std::mem::forget(task);
        } else {
            self.inner.spawn(task);
        }
    }
}

/// A connection that is being made.
pub struct SimConnect {
    /// Empty once it is done.
    inner: Option<Pin<Box<VirtualConnect>>>,
    to: SocketAddr,
    plant: Rc<Plant>,
}

impl Future for SimConnect {
    type Output = io::Result<SimStream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let plant = Rc::clone(&self.plant);
        let to = self.to;
        if plant.bug == Some(Bug::ReusedConnection) {
            let mut kept = plant.kept.borrow_mut();
            if let Some(at) = kept.iter().position(|(addr, _)| *addr == to) {
                let (_, stream) = kept.swap_remove(at);
                drop(kept);
                return Poll::Ready(Ok(SimStream::new(stream, Some(to), plant)));
            }
        }
        let deaf = plant.strikes(Bug::DeafConnect, 200);
        let Some(inner) = &mut self.inner else { return Poll::Pending };
        let polled = match deaf {
            true => inner.as_mut().poll(&mut Context::from_waker(Waker::noop())),
            false => inner.as_mut().poll(cx),
        };
        if polled.is_ready() {
            self.inner = None;
        }
        polled.map_ok(|stream| SimStream::new(stream, Some(to), plant))
    }
}

impl Drop for SimConnect {
    fn drop(&mut self) {
        if self.plant.bug == Some(Bug::GhostConnect) {
            std::mem::forget(self.inner.take());
        }
    }
}

/// A stream of the simulated runtime.
pub struct SimStream {
    inner: Option<VirtualStream>,
    to: Option<SocketAddr>,
    plant: Rc<Plant>,
    /// It wakes its task for ever.
    busy: bool,
    /// Wakes its task later than it should.
    late: Option<Late>,
    /// Bytes that it has taken and not passed on.
    held: Vec<u8>,
    /// They could not be passed on.
    failed: bool,
}

/// A wake-up that is passed on after a while.
struct Late {
    bell: Arc<Bell>,
    timer: VirtualTimer,
    /// Since when it is under way.
    until: Option<Instant>,
}

/// What the kernel wakes in place of the task.
struct Bell {
    rang: AtomicBool,
    task: Waker,
}

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        self.rang.store(true, Ordering::Relaxed);
        self.task.wake_by_ref();
    }
}

impl SimStream {
    fn new(inner: VirtualStream, to: Option<SocketAddr>, plant: Rc<Plant>) -> SimStream {
        SimStream { inner: Some(inner), to, plant, busy: false, late: None, held: Vec::new(), failed: false }
    }

    /// Whether what the kernel has told is still under way to the task.
    fn is_blind(&mut self, by: Duration, cx: Option<&mut Context<'_>>) -> bool {
        let now = self.plant.runtime.now();
        let Some(late) = &mut self.late else { return false };
        if !late.bell.rang.load(Ordering::Relaxed) {
            // Another task has it now.
            if cx.is_some_and(|cx| !late.bell.task.will_wake(cx.waker())) {
                self.late = None;
            }
            return self.late.is_some();
        }
        let until = *late.until.get_or_insert(now + by);
        if now >= until {
            self.late = None;
            return false;
        }
        if let Some(cx) = cx {
            Pin::new(&mut late.timer).arm(until);
            let _ = Pin::new(&mut late.timer).poll_fired(cx);
        }
        true
    }

    /// A read whose wake-up comes `by` late.
    fn read_late(&mut self, cx: &mut Context<'_>, buf: &mut [u8], by: Duration) -> Poll<io::Result<usize>> {
        if self.is_blind(by, Some(cx)) {
            return Poll::Pending;
        }
        let bell = Arc::new(Bell { rang: AtomicBool::new(false), task: cx.waker().clone() });
        let waker = Waker::from(Arc::clone(&bell));
        let polled = self.stream()?.poll_read(&mut Context::from_waker(&waker), buf);
        if polled.is_pending() {
            self.late = Some(Late { bell, timer: self.plant.runtime.timer(), until: None });
        }
        polled
    }

    /// Passes on what is held back, as far as it goes.
    fn pass_on(&mut self, cx: &mut Context<'_>) {
        while !self.held.is_empty() {
            let Some(inner) = &mut self.inner else { return };
            match inner.poll_write_shared(cx, &self.held) {
                Poll::Ready(Ok(n)) => drop(self.held.drain(..n)),
                Poll::Ready(Err(_)) => {
                    self.held.clear();
                    self.failed = true;
                }
                Poll::Pending => return,
            }
        }
    }

    fn stream(&mut self) -> io::Result<&mut VirtualStream> {
        self.inner.as_mut().ok_or_else(|| io::ErrorKind::NotConnected.into())
    }

    /// What a bug makes of a write; `None` if it is an ordinary one.
    fn twisted(&mut self, bufs: &[IoSlice<'_>]) -> Option<io::Result<usize>> {
        let total: usize = bufs.iter().map(|buf| buf.len()).sum();
        if total < 200 {
            return None;
        }
        if self.plant.strikes(Bug::LostByte, 20) {
            let joined: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            let sent = self.inner.as_mut()?.try_write_vectored(&[IoSlice::new(&joined[..total - 1])]);
            return Some(sent.map(|n| if n == total - 1 { total } else { n }));
        }
        if self.plant.strikes(Bug::RepeatedByte, 20) {
            let joined: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            let sent = self.inner.as_mut()?.try_write_vectored(&[IoSlice::new(&joined)]);
            return Some(sent.map(|n| if n > 1 { n - 1 } else { n }));
        }
        if self.plant.strikes(Bug::CrossedBytes, 20) {
            let mut joined: Vec<u8> = bufs.iter().flat_map(|buf| buf.iter().copied()).collect();
            let end = joined.split_off(total - 50);
            let other = self.plant.crossed.replace(end.clone());
            joined.extend(if other.is_empty() { end } else { other });
            return Some(self.inner.as_mut()?.try_write_vectored(&[IoSlice::new(&joined)]));
        }
        None
    }
}

impl Stream for SimStream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        self.pass_on(cx);
        let late = self.plant.strikes(Bug::LateWaker, 20) || self.plant.strikes(Bug::StaleReadiness, 100);
        if self.late.is_some() || late {
            let stale = self.plant.bug == Some(Bug::StaleReadiness);
            return self.read_late(cx, buf, if stale { STALE } else { Duration::from_secs(10) });
        }
        if self.plant.strikes(Bug::LostWaker, 20) {
            return match self.stream()?.try_read(buf) {
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => Poll::Pending,
                other => Poll::Ready(other),
            };
        }
        self.busy = self.busy || self.plant.strikes(Bug::BusyTask, 2);
        let polled = self.stream()?.poll_read(cx, buf);
        match &polled {
            Poll::Pending if self.busy => cx.waker().wake_by_ref(),
            Poll::Ready(Ok(0)) if self.failed => {
                return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into()));
            }
            Poll::Ready(Err(e))
                if e.kind() == io::ErrorKind::ConnectionReset
                    && self.plant.bug == Some(Bug::SwallowedError) =>
            {
                return Poll::Ready(Ok(0));
            }
            _ => {}
        }
        polled
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if self.plant.bug == Some(Bug::EndlessUpload) && self.to.is_some() {
            let before = self.held.len();
            bufs.iter().for_each(|buf| self.held.extend_from_slice(buf));
            let taken = self.held.len() - before;
            self.pass_on(cx);
            return Poll::Ready(Ok(taken));
        }
        match self.twisted(bufs) {
            Some(Ok(n)) => Poll::Ready(Ok(n)),
            _ => self.stream()?.poll_write_vectored(cx, bufs),
        }
    }

    fn poll_shutdown_write(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.pass_on(cx);
        if !self.held.is_empty() {
            return Poll::Pending;
        }
        if self.plant.bug == Some(Bug::LostFin) {
            return Poll::Ready(Ok(()));
        }
        self.stream()?.poll_shutdown_write(cx)
    }

    fn poll_close(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.stream()?.poll_close(cx)
    }

    fn abort(mut self) {
        let Some(stream) = self.inner.take() else { return };
        match (self.plant.bug, self.to) {
            (Some(Bug::FinForRst), _) => drop(stream),
            (Some(Bug::ReusedConnection), Some(to)) => self.plant.kept.borrow_mut().push((to, stream)),
            (Some(Bug::LateClose), Some(_)) => stream.abort_later(Duration::from_millis(500)),
            (Some(Bug::LeakedSocket), _) if self.plant.strikes(Bug::LeakedSocket, 300) => {
                std::mem::forget(stream);
            }
            _ => stream.abort(),
        }
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.plant.bug == Some(Bug::StaleReadiness) && self.is_blind(STALE, None) {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.stream()?.try_read(buf)
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.stream()?.try_write_vectored(bufs)
    }
}

impl Drop for SimStream {
    fn drop(&mut self) {
        let Some(stream) = self.inner.take() else { return };
        if self.plant.bug == Some(Bug::RstForFin) {
            return stream.abort();
        }
        // As a kernel would, which goes on.
        stream.write_behind(std::mem::take(&mut self.held));
    }
}

/// For [`Bug::LostPermit`]: somebody else on the same list of upstreams asks for one, and is forgotten, with all that
/// it holds, as soon as it was granted.
pub(super) async fn lose_a_place(world: World, upstreams: Upstreams) {
    let runtime = world.runtime(Owner::Peer);
    let other = Proxy::new(runtime.clone(), upstreams.clone(), Config::default());
    let at = runtime.free_address();
    let mut listener = runtime.listen(at, 1);
    let Ok(mut client) = runtime.connect(at).await else { return };
    let Ok((stream, from)) = poll_fn(|cx| listener.poll_accept(cx)).await else { return };
    let request = IoSlice::new(b"GET / HTTP/1.1\r\nhost: sim\r\n\r\n");
    let Ok(_) = client.try_write_vectored(&[request]) else { return };
    let mut lost = Box::pin(other.serve_connection(stream, from, |_| Decision::forward(), |_| {}));
    let held = || upstreams.list().iter().map(|(id, _)| upstreams.in_flight(*id)).sum::<usize>();
    let is_granted = poll_fn(|cx| {
        // All that is held besides stays the same during one poll.
        let before = held();
        let over = lost.as_mut().poll(cx).is_ready();
        match held() > before {
            true => Poll::Ready(true),
            false if over => Poll::Ready(false),
            false => Poll::Pending,
        }
    })
    .await;
    if is_granted {
        std::mem::forget(lost);
    }
}

/// A timer of the simulated runtime.
pub struct SimTimer {
    inner: VirtualTimer,
    /// It has fired.
    spent: bool,
    plant: Rc<Plant>,
}

impl Timer for SimTimer {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        let at = match self.plant.bug {
            Some(Bug::FastClock) => at - at.saturating_since(self.plant.began) / 51,
            _ => at,
        };
        let now = self.plant.runtime.now();
        let at = match self.plant.bug {
            Some(Bug::HastyTimer) => at.min(now),
            Some(Bug::EarlyTimer) if at != Instant::NEVER && at > now + Duration::from_millis(1) => {
                now + at.saturating_since(now) / 2
            }
            _ => at,
        };
        let lost = self.plant.strikes(Bug::LostTimer, 30);
        let lost = lost || (self.spent && self.plant.bug == Some(Bug::SpentTimer));
        let at = if lost { Instant::NEVER } else { at };
        let late = at != Instant::NEVER && self.plant.strikes(Bug::LateTimer, 30);
        let at = if late { at + Duration::from_secs(10) } else { at };
        Pin::new(&mut self.inner).arm(at);
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let fired = Pin::new(&mut self.inner).poll_fired(cx);
        self.spent |= fired.is_ready();
        fired
    }
}

impl Drop for SimTimer {
    fn drop(&mut self) {
        if self.plant.strikes(Bug::LeakedTimer, 100) {
            std::mem::forget(std::mem::replace(&mut self.inner, self.plant.runtime.timer()));
        }
    }
}

/// The proxy's listener in a simulation.
pub struct SimListener {
    inner: VirtualListener,
    plant: Rc<Plant>,
}

impl SimListener {
    pub(super) fn new(inner: VirtualListener, runtime: &SimRuntime) -> SimListener {
        SimListener { inner, plant: Rc::clone(&runtime.plant) }
    }
}

impl Listener for SimListener {
    type Stream = SimStream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(SimStream, Option<SocketAddr>)>> {
        let plant = Rc::clone(&self.plant);
        let mut deaf = Context::from_waker(Waker::noop());
        let cx = if plant.strikes(Bug::DeafListener, 50) { &mut deaf } else { cx };
        self.inner.poll_accept(cx).map_ok(|(stream, from)| (SimStream::new(stream, None, plant), from))
    }
}
