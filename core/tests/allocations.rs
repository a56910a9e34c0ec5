//! A request takes nothing from the allocator and asks nothing of a timer: shown on the machine alone, and on the
//! driver with sockets in memory. Real sockets are the conformance suite's (`allocations` there).
//!
//! The counter is the process's, and the test harness allocates too: so there is one test, and no allocation of its
//! own in a window.

use std::alloc::System;
use std::cell::{Cell, RefCell};
use std::future::{Future, Ready, ready};
use std::io::{self, ErrorKind, IoSlice};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tidegate_core::http::{HttpDate, IdSource, RequestHead};
use tidegate_core::relay::{Action, Env, Op, Relay};
use tidegate_core::runtime::{Runtime, Stream, Timer};
use tidegate_core::{BufPool, Config, Decision, Instant, Proxy, Report, Side, UpstreamId, Upstreams};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

const REQUESTS: usize = 1000;
/// Requests until the pool holds what they need.
const WARM_UP: usize = 10;

/// What is sent, what the upstream answers, and how the client's response ends.
const EXCHANGES: [(&[u8], &[u8], &[u8]); 3] = [
    (
        b"GET / HTTP/1.1\r\nHost: example.org\r\nAccept: */*\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 128\r\n\r\n\
            0123456789012345678901234567890123456789012345678901234567890123\
            012345678901234567890123456789012345678901234567890123456789-end",
        b"-end",
    ),
    (
        b"POST / HTTP/1.1\r\nHost: example.org\r\nContent-Length: 5\r\n\r\nhello",
        b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\n-end",
        b"-end",
    ),
    (
        b"GET / HTTP/1.1\r\nHost: example.org\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n4\r\n-end\r\n0\r\n\r\n",
        b"0\r\n\r\n",
    ),
];

/// Counts what `window` takes from the allocator: the least of three times, since the harness's thread may still
/// be about its own business in one of them.
fn allocations(mut window: impl FnMut()) -> usize {
    let counts = [(); 3].map(|()| {
        let region = Region::new(ALLOCATOR);
        window();
        let change = region.change();
        change.allocations + change.reallocations
    });
    counts.into_iter().min().unwrap_or_default()
}

#[test]
fn a_request_allocates_nothing_and_arms_no_timer() {
    the_machine_allocates_nothing_for_a_request();
    an_idle_machine_is_small();
    the_driver_allocates_nothing_for_a_request();
    timers_are_armed_for_the_time_that_passes_and_not_for_requests();
}

// ---- the machine alone ------------------------------------------------------------------------------

/// The driver's part, with a pool that always has a connection after the first request.
fn act(relay: &mut Relay, pooled: &mut bool, env: &mut Env<'_>) {
    while let Some(action) = relay.poll_action() {
        match action {
            Action::Route => relay.forward(None, env),
            Action::Admit => relay.granted(UpstreamId::new(0).unwrap(), env),
            Action::Checkout(_) if std::mem::take(pooled) => relay.connected(true, env),
            Action::Checkout(_) => relay.pool_miss(env),
            Action::Resolve(_) => {
                relay.resolved(Ok([([192, 0, 2, 1], 80).into()].into_iter().collect()), env)
            }
            Action::Connect { .. } => relay.connected(false, env),
            Action::Release { .. } => *pooled = true,
            Action::Report => assert_eq!(relay.outcome().and_then(|outcome| outcome.error), None),
            other => panic!("{other:?}"),
        }
    }
}

fn comes(relay: &mut Relay, side: Side, bytes: &[u8], env: &mut Env<'_>) {
    assert!(relay.interest().wants(Op::Read(side)));
    relay.recv_buf(side, env)[..bytes.len()].copy_from_slice(bytes);
    relay.received(side, bytes.len(), env);
}

/// All that waits for `side` goes; says whether it ends with `end`.
fn goes(relay: &mut Relay, side: Side, end: &[u8], env: &mut Env<'_>) -> bool {
    let (mut sent, mut tail) = (0, [0; 16]);
    for byte in relay.send_bufs(side).flatten() {
        tail.rotate_left(1);
        tail[15] = *byte;
        sent += 1;
    }
    relay.sent(side, sent, env);
    tail.ends_with(end)
}

fn the_machine_allocates_nothing_for_a_request() {
    let (date, mut bufs, mut ids) = (HttpDate::default(), BufPool::new(4), IdSource::new(1));
    let mut pooled = false;
    let mut now = Instant::EPOCH;
    let mut relay = Relay::new(Arc::new(Config::default()), None, now);
    for (request, response, end) in EXCHANGES {
        let mut exchange = || {
            now = now + Duration::from_millis(1);
            let env = &mut Env { now, date: &date, bufs: &mut bufs, ids: &mut ids };
            comes(&mut relay, Side::Client, request, env);
            act(&mut relay, &mut pooled, env);
            goes(&mut relay, Side::Upstream, b"", env);
            relay.not_ready(Side::Client, env);
            comes(&mut relay, Side::Upstream, response, env);
            act(&mut relay, &mut pooled, env);
            assert!(goes(&mut relay, Side::Client, end, env));
            act(&mut relay, &mut pooled, env);
            relay.not_ready(Side::Client, env);
            assert!(relay.is_idle());
        };
        (0..WARM_UP).for_each(|_| exchange());
        assert_eq!(allocations(|| (0..REQUESTS).for_each(|_| exchange())), 0);
    }
}

/// The sizes of what every connection holds, also while it is idle. They are a promise of the documentation; a
/// field that only a request needs belongs to what is lent to it.
fn an_idle_machine_is_small() {
    assert!(size_of::<Relay>() <= 640, "{}", size_of::<Relay>());
}

// ---- the driver, in memory ---------------------------------------------------------------------------

/// A connection as its peer sees it.
#[derive(Default)]
struct Peer {
    sends: Cell<&'static [u8]>,
    got: RefCell<Vec<u8>>,
}

struct World {
    /// The connection's task. (A task has one waker; `Waker::noop()` need not be the same twice.)
    task: Waker,
    now: Cell<Instant>,
    upstream: Rc<Peer>,
    connects: Cell<usize>,
    armed: Cell<Instant>,
    waker: RefCell<Option<Waker>>,
    arms: Cell<usize>,
}

/// It is polled without being woken.
struct Polled;

impl Wake for Polled {
    fn wake(self: Arc<Self>) {}
}

impl World {
    fn new() -> World {
        World {
            task: Waker::from(Arc::new(Polled)),
            now: Cell::default(),
            upstream: Rc::default(),
            connects: Cell::default(),
            armed: Cell::new(Instant::NEVER),
            waker: RefCell::default(),
            arms: Cell::default(),
        }
    }

    /// Lets time pass and the timer ring.
    fn pass(&self, time: Duration) {
        self.now.set(self.now.get() + time);
        if self.armed.get() <= self.now.get() {
            self.waker.borrow_mut().take().into_iter().for_each(Waker::wake);
        }
    }
}

#[derive(Clone)]
struct Memory(Rc<World>);

struct MemoryStream(Rc<Peer>);

struct MemoryTimer(Rc<World>);

impl Runtime for Memory {
    type Stream = MemoryStream;
    type Connect = Ready<io::Result<MemoryStream>>;
    type Timer = MemoryTimer;

    fn now(&self) -> Instant {
        self.0.now.get()
    }

    fn timer(&self) -> MemoryTimer {
        MemoryTimer(Rc::clone(&self.0))
    }

    fn connect(&self, _: SocketAddr) -> Self::Connect {
        self.0.connects.set(self.0.connects.get() + 1);
        ready(Ok(MemoryStream(Rc::clone(&self.0.upstream))))
    }
}

impl Timer for MemoryTimer {
    fn arm(self: Pin<&mut Self>, at: Instant) {
        self.0.arms.set(self.0.arms.get() + 1);
        self.0.armed.set(at);
    }

    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        if self.0.armed.get() <= self.0.now.get() {
            self.0.armed.set(Instant::NEVER);
            return Poll::Ready(());
        }
        *self.0.waker.borrow_mut() = Some(cx.waker().clone());
        Poll::Pending
    }
}

impl Stream for MemoryStream {
    fn poll_read(&mut self, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.try_read(buf) {
            Err(e) if e.kind() == ErrorKind::WouldBlock => Poll::Pending,
            done => Poll::Ready(done),
        }
    }

    fn poll_write_vectored(&mut self, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.try_write_vectored(bufs))
    }

    fn poll_shutdown_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn abort(self) {}

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let bytes = self.0.sends.take();
        if bytes.is_empty() {
            return Err(ErrorKind::WouldBlock.into());
        }
        buf[..bytes.len()].copy_from_slice(bytes);
        Ok(bytes.len())
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut got = self.0.got.borrow_mut();
        bufs.iter().for_each(|buf| got.extend_from_slice(buf));
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }
}

/// One request through a connection that is polled by hand, `time` after the one before.
fn exchange(
    world: &World,
    client: &Peer,
    connection: &mut Pin<Box<impl Future<Output = ()>>>,
    (request, response, end): (&'static [u8], &'static [u8], &[u8]),
    time: Duration,
) {
    let mut turn = || assert!(connection.as_mut().poll(&mut Context::from_waker(&world.task)).is_pending());
    world.pass(time);
    client.sends.set(request);
    turn();
    assert!(!world.upstream.got.borrow().is_empty());
    world.upstream.got.borrow_mut().clear();
    world.upstream.sends.set(response);
    turn();
    assert!(client.got.borrow().ends_with(end));
    client.got.borrow_mut().clear();
}

/// A world, a client, and the connection between them.
fn connection() -> (Rc<World>, Rc<Peer>, Pin<Box<impl Future<Output = ()>>>) {
    let (world, client) = (Rc::new(World::new()), Rc::new(Peer::default()));
    let upstreams = Upstreams::new([SocketAddr::from((Ipv4Addr::LOCALHOST, 80))]);
    let proxy = Proxy::new(Memory(Rc::clone(&world)), upstreams, Config::default());
    let (route, observe) = (|_: &RequestHead<'_>| Decision::forward(), |_: &Report<'_>| {});
    let connection = proxy.serve_connection(MemoryStream(Rc::clone(&client)), None, route, observe);
    (world, client, Box::pin(connection))
}

fn the_driver_allocates_nothing_for_a_request() {
    let (world, client, mut connection) = connection();
    for kind in EXCHANGES {
        let mut one = || exchange(&world, &client, &mut connection, kind, Duration::from_millis(1));
        (0..WARM_UP).for_each(|_| one());
        assert_eq!(allocations(|| (0..REQUESTS).for_each(|_| one())), 0);
    }
    assert_eq!(world.connects.get(), 1, "the connection to the upstream is kept");
}

/// In a minute of requests the timer is armed as often as limits run out, however many requests there are.
fn timers_are_armed_for_the_time_that_passes_and_not_for_requests() {
    let minute = Duration::from_secs(60);
    let arms = [60u32, 600, 6000].map(|requests| {
        let (world, client, mut connection) = connection();
        for _ in 0..requests {
            exchange(&world, &client, &mut connection, EXCHANGES[0], minute / requests);
        }
        world.arms.get()
    });
    assert!(arms.iter().all(|arms| (1..=8).contains(arms)), "{arms:?}");
}
