//! What a proxy takes from the allocator and asks of its timers: over real sockets, on each runtime.
//!
//! Client and origin are plain blocking sockets with buffers of their own, so that everything that is counted in a
//! window is the proxy's or its runtime's. The counters are the process's, and the test harness allocates too: so
//! there is one test.

use std::alloc::System;
use std::future::Future;
use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Weak, mpsc};
use std::task::{Context, Poll};
use std::thread;
use std::time::Duration;

use stats_alloc::{INSTRUMENTED_SYSTEM, Region, StatsAlloc};
use tidegate_core::http::RequestHead;
use tidegate_core::runtime::{Listener, Runtime, Spawn, Timer};
use tidegate_core::{Config, Connection, Decision, Instant, Proxy, Report, UpstreamLimits, Upstreams};
use tidegate_tokio::Tokio;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// How often the allocator was asked during the turns of connections.
static IN_TURNS: AtomicUsize = AtomicUsize::new(0);
/// How often a timer of the proxy was armed.
static ARMED: AtomicUsize = AtomicUsize::new(0);

const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Only bounds a test that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(20);

/// A runtime whose timers are counted.
#[derive(Clone)]
struct Counted<R>(R);

struct CountedTimer<T>(Pin<Box<T>>);

impl<R: Runtime> Runtime for Counted<R> {
    type Stream = R::Stream;
    type Connect = R::Connect;
    type Timer = CountedTimer<R::Timer>;

    fn now(&self) -> Instant {
        self.0.now()
    }

    fn timer(&self) -> Self::Timer {
        CountedTimer(Box::pin(self.0.timer()))
    }

    fn connect(&self, to: SocketAddr) -> R::Connect {
        self.0.connect(to)
    }
}

impl<T: Timer> Timer for CountedTimer<T> {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        ARMED.fetch_add(1, Ordering::Relaxed);
        self.0.as_mut().arm(at);
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.0.as_mut().poll_fired(cx)
    }
}

impl<F, R: Spawn<Turns<F>>> Spawn<F> for Counted<R> {
    fn spawn(&self, task: F) {
        self.0.spawn(Turns(Box::pin(task)));
    }
}

/// A connection whose turns are looked at.
struct Turns<F>(Pin<Box<F>>);

impl<F: Future> Future for Turns<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<F::Output> {
        let region = Region::new(ALLOCATOR);
        let result = self.0.as_mut().poll(cx);
        IN_TURNS.fetch_add(taken(&region), Ordering::Relaxed);
        result
    }
}

type Route = fn(&RequestHead<'_>) -> Decision;
type Observe = fn(&Report<'_>);
/// Where a proxy that has begun to listen is announced.
type Ready<R> = mpsc::Sender<(Proxy<Counted<R>>, SocketAddr)>;

/// A request, the origin's response to it, and how it ends at the client.
struct Kind {
    name: &'static str,
    request: &'static [u8],
    response: &'static [u8],
    end: &'static [u8],
}

const KINDS: [Kind; 3] = [
    Kind {
        name: "GET with 128 bytes",
        request: b"GET /a HTTP/1.1\r\nHost: example.org\r\nUser-Agent: test\r\nAccept: */*\r\n\r\n",
        response: b"HTTP/1.1 200 OK\r\nServer: o\r\nContent-Type: text/plain\r\nContent-Length: 128\r\n\r\n\
            0123456789012345678901234567890123456789012345678901234567890123\
            012345678901234567890123456789012345678901234567890123456789-end",
        end: b"-end",
    },
    Kind {
        name: "POST with a small body",
        request: b"POST /b HTTP/1.1\r\nHost: example.org\r\nContent-Length: 11\r\n\r\nsmall body.",
        response: b"HTTP/1.1 201 Created\r\nContent-Length: 4\r\n\r\n-end",
        end: b"-end",
    },
    Kind {
        name: "a chunked response",
        request: b"GET /c HTTP/1.1\r\nHost: example.org\r\n\r\n",
        response:
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n4\r\n-end\r\n0\r\n\r\n",
        end: b"\r\n0\r\n\r\n",
    },
];

/// Answers each request on a connection by its path, and allocates nothing while it does.
fn origin() -> SocketAddr {
    let listener = TcpListener::bind(LOCALHOST).unwrap();
    let addr = listener.local_addr().unwrap();
    thread::spawn(move || {
        while let Ok((mut stream, _)) = listener.accept() {
            thread::spawn(move || {
                let mut buf = [0; 4096];
                let mut len = 0;
                while let Ok(n @ 1..) = stream.read(&mut buf[len..]) {
                    len += n;
                    let Some(kind) = KINDS.iter().find(|kind| {
                        let path = |head: &[u8]| head.iter().position(|b| *b == b'/').map(|at| at + 1);
                        path(&buf[..len]).map(|at| buf[at]) == path(kind.request).map(|at| kind.request[at])
                    }) else {
                        continue;
                    };
                    let whole =
                        if kind.request.starts_with(b"POST") { &b"small body."[..] } else { b"\r\n\r\n" };
                    if buf[..len].ends_with(whole) {
                        len = 0;
                        stream.write_all(kind.response).unwrap();
                    }
                }
            });
        }
    });
    addr
}

fn client(proxy: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(proxy).unwrap();
    stream.set_read_timeout(Some(PATIENCE)).unwrap();
    stream
}

/// One request and its whole response.
fn exchange(client: &mut TcpStream, kind: &Kind) {
    client.write_all(kind.request).unwrap();
    let mut buf = [0; 4096];
    let mut len = 0;
    while !buf[..len].ends_with(kind.end) {
        let n = client.read(&mut buf[len..]).unwrap();
        assert!(n > 0, "the proxy has closed");
        len += n;
    }
    assert!(buf.starts_with(b"HTTP/1.1 20"));
}

/// The proxy on a runtime: serves until the proxy is stopped.
async fn serve<R, L>(runtime: R, origin: SocketAddr, ready: Ready<R>)
where
    R: Runtime + Spawn<Turns<Connection<Counted<R>, L::Stream, Route, Observe>>> + Clone,
    L: Listener + TryFrom<TcpListener, Error = io::Error>,
{
    let limits = UpstreamLimits { max_conns: 1000, ..UpstreamLimits::default() };
    let proxy = Proxy::new(Counted(runtime), Upstreams::with_limits([origin], limits), Config::default());
    let listener = TcpListener::bind(LOCALHOST).unwrap();
    let addr = listener.local_addr().unwrap();
    ready.send((proxy.clone(), addr)).unwrap();
    let route: Route = |_| Decision::forward();
    let observe: Observe = |_| {};
    proxy.serve(L::try_from(listener).unwrap(), route, observe).await;
}

/// Runs the proxy on a thread of its own while `test` is its client.
fn with_proxy<P: Stop + Send + 'static>(
    run: impl FnOnce(SocketAddr, mpsc::Sender<(P, SocketAddr)>) + Send + 'static,
    test: impl FnOnce(SocketAddr),
) {
    let (ready, is_ready) = mpsc::channel();
    let origin = origin();
    let server = thread::spawn(move || run(origin, ready));
    let (proxy, addr) = is_ready.recv_timeout(PATIENCE).unwrap();
    test(addr);
    proxy.stop();
    server.join().unwrap();
}

trait Stop {
    fn stop(&self);
}

impl<R: Runtime> Stop for Proxy<R> {
    fn stop(&self) {
        Proxy::stop(self);
    }
}

fn on_tokio(origin: SocketAddr, ready: Ready<Tokio>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async {
        let here = Tokio::new().unwrap();
        serve::<_, tidegate_tokio::Listener>(here, origin, ready).await;
    });
}

fn on_smol(origin: SocketAddr, ready: Ready<tidegate_smol::Smol<Weak<smol::Executor<'static>>>>) {
    let executor = Arc::new(smol::Executor::new());
    let here = tidegate_smol::Smol::on(&executor);
    smol::block_on(executor.run(serve::<_, tidegate_smol::Listener>(here, origin, ready)));
}

/// What a number of requests has led to.
#[derive(Copy, Clone)]
struct Counts {
    /// Requests to the allocator by anybody.
    all: usize,
    /// Those of them that fell into a turn of a connection.
    in_turns: usize,
    /// Timers that were armed.
    arms: usize,
}

/// What `requests` of each kind lead to after a warm-up: the least of three times, since other threads may have been
/// about business of their own in one of them.
fn count(proxy: SocketAddr, requests: usize) -> [(&'static str, Counts); 3] {
    let mut client = client(proxy);
    KINDS.each_ref().map(|kind| {
        (0..50).for_each(|_| exchange(&mut client, kind));
        let windows = [(); 3].map(|()| {
            let (in_turns, arms) = (IN_TURNS.load(Ordering::Relaxed), ARMED.load(Ordering::Relaxed));
            let region = Region::new(ALLOCATOR);
            (0..requests).for_each(|_| exchange(&mut client, kind));
            Counts {
                all: taken(&region),
                in_turns: IN_TURNS.load(Ordering::Relaxed) - in_turns,
                arms: ARMED.load(Ordering::Relaxed) - arms,
            }
        });
        let least = |of: fn(&Counts) -> usize| windows.iter().map(of).min().unwrap_or_default();
        let counts =
            Counts { all: least(|c| c.all), in_turns: least(|c| c.in_turns), arms: least(|c| c.arms) };
        (kind.name, counts)
    })
}

/// How often the allocator was asked since `region` began.
fn taken(region: &Region<'_, System>) -> usize {
    let change = region.change();
    change.allocations + change.reallocations
}

/// Bytes that a connection holds which has served one request and is idle.
fn idle_bytes(proxy: SocketAddr) -> isize {
    const CLIENTS: usize = 512;
    let mut clients = Vec::with_capacity(2 * CLIENTS);
    let open = |clients: &mut Vec<TcpStream>| {
        for _ in 0..CLIENTS {
            let mut client = client(proxy);
            exchange(&mut client, &KINDS[0]);
            clients.push(client);
        }
    };
    // The tables that grow with the connections are about as full at the end as they are here.
    open(&mut clients);
    let region = Region::new(ALLOCATOR);
    open(&mut clients);
    let change = region.change();
    (change.bytes_allocated as isize - change.bytes_deallocated as isize) / CLIENTS as isize
}

/// What may be held for a client that has been answered and may send another request, on the heap: the runtime's
/// task and registrations are in it, the allocator's own part and the kernel's are not.
const IDLE_BYTES: isize = 1750;

#[test]
fn a_request_allocates_nothing_arms_no_timer_and_leaves_little_behind() {
    const REQUESTS: usize = 1000;

    // The largest part of it.
    type OnTokio = Connection<Tokio, tidegate_tokio::Stream, Route, Observe>;
    assert!(size_of::<OnTokio>() <= 1200, "{}", size_of::<OnTokio>());

    with_proxy(on_tokio, |proxy| {
        for (kind, counts) in count(proxy, REQUESTS) {
            assert_eq!(
                (counts.all, counts.in_turns, counts.arms),
                (0, 0, 0),
                "tokio: {REQUESTS} times {kind}"
            );
        }
        let idle = idle_bytes(proxy);
        assert!(idle <= IDLE_BYTES, "tokio: {idle} bytes");
    });

    // async-io takes memory at each turn of its reactor, and its own thread may do so in the middle of a turn of ours.
    with_proxy(on_smol, |proxy| {
        for (kind, counts) in count(proxy, REQUESTS) {
            assert!(counts.in_turns < REQUESTS / 4, "smol: {} in {REQUESTS} times {kind}", counts.in_turns);
            assert_eq!(counts.arms, 0, "smol: {REQUESTS} times {kind}");
        }
        let idle = idle_bytes(proxy);
        assert!(idle <= IDLE_BYTES, "smol: {idle} bytes");
    });
}
