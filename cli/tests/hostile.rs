//! Honest clients among hostile ones: the honest are served as before, memory stays in bounds, and nothing is left.
//!
//! Three kinds of clients that are up to no good (heads that come byte by byte, responses that nobody reads, resets
//! at random points) and an upstream that answers garbage, against one that works. Small as a test;
//! `TIDEGATE_HOSTILE=full` is the size of `docs/SECURITY-TESTING.md`, `TIDEGATE_RUNTIME` names one runtime alone.
//! Loopback only.

// Descriptors and memory are Linux's.
#![cfg(target_os = "linux")]

mod support;

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};
use support::{GUARD, RUNTIMES, Running, connect, get, try_exchange};

const HONEST: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);
const BLOCK: u64 = 64;

/// How many there are of each, and for how long.
#[derive(Copy, Clone)]
struct Size {
    slow: usize,
    deaf: usize,
    resets: usize,
    time: Duration,
}

const SMALL: Size = Size { slow: 300, deaf: 40, resets: 60, time: Duration::from_secs(2) };
const FULL: Size = Size { slow: 5000, deaf: 1000, resets: 1000, time: Duration::from_secs(15) };

/// Numbers that look random: the same in each run.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 % n as u64) as usize
    }
}

/// An upstream whose connections each run `serve`; its threads end with the test process.
fn upstream(serve: impl Fn(TcpStream, u64) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    let serve = Arc::new(serve);
    thread::spawn(move || {
        for (n, stream) in (1..).zip(listener.incoming().flatten()) {
            // Or a head waits for the proxy's delayed acknowledgement before its body goes.
            let _ = stream.set_nodelay(true);
            let serve = Arc::clone(&serve);
            let small = thread::Builder::new().stack_size(128 << 10);
            let _ = small.spawn(move || serve(stream, n));
        }
    });
    addr
}

/// Reads one request head; `None` at the end of the connection.
fn head(mut stream: &TcpStream) -> Option<Vec<u8>> {
    let mut head = Vec::new();
    let mut buf = [0; 4096];
    while !head.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buf).ok()? {
            0 => return None,
            n => head.extend(&buf[..n]),
        }
    }
    Some(head)
}

/// `/big` is more than any kernel buffers.
fn sound() -> SocketAddr {
    let big = vec![b'x'; 16 << 20];
    upstream(move |mut stream, _| {
        // What is copied into buffers for nobody would measure the machine and not the proxy.
        let _ = SockRef::from(&stream).set_send_buffer_size(64 << 10);
        while let Some(head) = head(&stream) {
            let body = if head.starts_with(b"GET /big") { &big[..] } else { &[b'x'; 1000][..] };
            let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", body.len());
            if stream.write_all(head.as_bytes()).and_then(|()| stream.write_all(body)).is_err() {
                return;
            }
        }
    })
}

fn garbage() -> SocketAddr {
    const ANSWERS: [&[u8]; 8] = [
        b"",
        b"HTTP/1.1 2",
        b"\0\xff\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 50\r\n\r\nshort",
        b"HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 0\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    ];
    upstream(|mut stream, n| {
        let mut dice = Dice(n);
        if head(&stream).is_some() {
            let _ = stream.write_all(ANSWERS[dice.below(ANSWERS.len())]);
            if dice.below(3) == 0 {
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        }
    })
}

/// Sends a head byte by byte, and begins again when it is cut off.
fn slow(proxy: SocketAddr, n: usize, over: &AtomicBool) {
    let mut all: Vec<Option<TcpStream>> = (0..n).map(|_| None).collect();
    let line = b"GET / HTTP/1.1\r\nHost: test\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    for turn in 0.. {
        let begun = Instant::now();
        for slot in &mut all {
            if over.load(Ordering::Relaxed) {
                return;
            }
            let sent =
                slot.as_mut().is_some_and(|stream| stream.write(&line[turn % line.len()..][..1]).is_ok());
            if !sent {
                *slot = TcpStream::connect(proxy).ok();
            }
        }
        thread::sleep(Duration::from_secs(1).saturating_sub(begun.elapsed()).min(Duration::from_secs(1)));
    }
}

/// A connection that takes a few KiB unread, and no more.
fn with_a_small_window(proxy: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.set_recv_buffer_size(4096).ok()?;
    socket.connect(&proxy.into()).ok()?;
    Some(socket.into())
}

/// Asks for much and reads nothing.
fn deaf(proxy: SocketAddr, n: usize, over: &AtomicBool) {
    let mut all: Vec<Option<TcpStream>> = (0..n).map(|_| None).collect();
    while !over.load(Ordering::Relaxed) {
        for slot in &mut all {
            let alive = slot.as_ref().is_some_and(|stream| matches!(stream.take_error(), Ok(None)));
            if !alive {
                let stream = with_a_small_window(proxy);
                let ask = |mut s: &TcpStream| s.write_all(b"GET /big HTTP/1.1\r\nHost: test\r\n\r\n");
                *slot = stream.filter(|s| ask(s).is_ok());
            }
        }
        thread::sleep(Duration::from_millis(250));
    }
}

/// Resets at any point of a request or a response.
fn resets(proxy: SocketAddr, n: usize, over: &AtomicBool) {
    let mut all: Vec<Option<TcpStream>> = (0..n).map(|_| None).collect();
    let mut dice = Dice(7);
    let request =
        b"POST /big HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\
        GET /big HTTP/1.1\r\nHost: test\r\n\r\nGET / HT";
    while !over.load(Ordering::Relaxed) {
        let place = dice.below(n);
        if let Some(mut old) = all[place].take() {
            let _ = old.set_nonblocking(true);
            let _ = old.read(&mut vec![0; dice.below(100_000)]);
            let _ = SockRef::from(&old).set_linger(Some(Duration::ZERO));
        }
        let Some(mut stream) = with_a_small_window(proxy) else { continue };
        let _ = stream.write_all(&request[..dice.below(request.len())]);
        all[place] = Some(stream);
        thread::sleep(Duration::from_millis(1));
    }
    for old in all.iter().flatten() {
        let _ = SockRef::from(old).set_linger(Some(Duration::ZERO));
    }
}

/// What the honest have seen.
struct Seen {
    p50: Duration,
    p99: Duration,
    good: usize,
    bad: usize,
}

/// They ask again and again, until `until`. What the good upstream answers must be whole; the other's is 502 or a cut.
fn honest(proxy: SocketAddr, until: Instant) -> Seen {
    let (good, bad) = (AtomicUsize::new(0), AtomicUsize::new(0));
    let client = |n: usize| {
        let (mut took, mut stream) = (Vec::new(), connect(proxy));
        thread::sleep(PAUSE * n as u32 / HONEST as u32);
        while Instant::now() < until {
            let asked = Instant::now();
            let response = try_exchange(&mut stream, b"GET / HTTP/1.1\r\nHost: test\r\n\r\n");
            took.push(asked.elapsed());
            match response {
                Ok(response) if response.status == 200 => {
                    assert_eq!(response.body, [b'x'; 1000]);
                    good.fetch_add(1, Ordering::Relaxed);
                }
                Ok(response) => {
                    assert_eq!(response.status, 502, "{}", response.head);
                    bad.fetch_add(1, Ordering::Relaxed);
                }
                // Fifty bytes were announced.
                Err(e) => {
                    assert_ne!(e.kind(), std::io::ErrorKind::WouldBlock, "nothing within {GUARD:?}");
                    bad.fetch_add(1, Ordering::Relaxed);
                    stream = connect(proxy);
                }
            }
            thread::sleep(PAUSE);
        }
        took
    };
    let mut took: Vec<Duration> = thread::scope(|scope| {
        let clients: Vec<_> = (0..HONEST).map(|n| scope.spawn(move || client(n))).collect();
        clients.into_iter().flat_map(|c| c.join().expect("an honest client is served")).collect()
    });
    took.sort_unstable();
    let at = |percent: usize| took[(took.len() * percent / 100).min(took.len() - 1)];
    Seen { p50: at(50), p99: at(99), good: good.into_inner(), bad: bad.into_inner() }
}

#[test]
fn honest_clients_are_served_among_hostile_ones() {
    let full = std::env::var("TIDEGATE_HOSTILE").is_ok_and(|size| size == "full");
    let size = if full { FULL } else { SMALL };
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    let upstreams = [sound().to_string(), garbage().to_string()];
    let only = std::env::var("TIDEGATE_RUNTIME").ok();
    for runtime in RUNTIMES.iter().filter(|runtime| only.as_deref().is_none_or(|only| only == **runtime)) {
        run(runtime, size, &upstreams, full);
    }
}

fn run(runtime: &str, size: Size, upstreams: &[String; 2], full: bool) {
    let clients = size.slow + size.deaf + size.resets + HONEST;
    let (limit, conns) = ((clients + 1000).to_string(), (clients + 1000).to_string());
    let args = [
        "--runtime",
        runtime,
        "--threads",
        "2",
        "--max-client-conns",
        &limit,
        "--max-conns-per-upstream",
        &conns,
    ];
    let limits =
        ["--client-head-timeout", "10s", "--client-write-timeout", "5s", "--pool-idle-timeout", "100ms"];
    let both = ["--upstream", &upstreams[0], "--upstream", &upstreams[1]];
    let proxy = Running::start(&[&args[..], &limits, &both].concat());
    let addr = proxy.addrs[0];
    let _ = get(&mut proxy.connect(), "/");
    let settled = |most: usize| {
        let asked = Instant::now();
        while proxy.descriptors() > most {
            assert!(asked.elapsed() < GUARD, "{runtime}: {} descriptors, {most} before", proxy.descriptors());
            thread::sleep(Duration::from_millis(20));
        }
    };
    // The upstream connection of the first request has been idle for too long, the client's is gone.
    thread::sleep(Duration::from_millis(500));
    let before = proxy.descriptors();

    let quiet = honest(addr, Instant::now() + size.time / 2);
    settled(before);
    let over = AtomicBool::new(false);
    let (seen, memory) = thread::scope(|scope| {
        scope.spawn(|| slow(addr, size.slow, &over));
        scope.spawn(|| deaf(addr, size.deaf, &over));
        scope.spawn(|| resets(addr, size.resets, &over));
        // All of them have come.
        let asked = Instant::now();
        while proxy.descriptors() < before + size.slow + size.deaf {
            assert!(asked.elapsed() < GUARD, "{runtime}: only {} descriptors", proxy.descriptors());
            thread::sleep(Duration::from_millis(20));
        }
        let watched = scope.spawn(|| {
            let (mut halves, begun) = ([0, 0], Instant::now());
            while !over.load(Ordering::Relaxed) {
                let half = &mut halves[usize::from(begun.elapsed() > size.time / 2)];
                *half = proxy.resident().max(*half);
                thread::sleep(Duration::from_millis(50));
            }
            halves
        });
        let seen = honest(addr, Instant::now() + size.time);
        over.store(true, Ordering::Relaxed);
        (seen, watched.join().expect("figures"))
    });
    settled(before);
    let line = |who: &str, seen: &Seen| {
        format!("{who}: p50 {:?}, p99 {:?}, {} good, {} bad", seen.p50, seen.p99, seen.good, seen.bad)
    };
    let text = format!(
        "{runtime}: {clients} clients; {}; {}; {memory:?} KiB; {before} descriptors before and after",
        line("quiet", &quiet),
        line("hostile", &seen)
    );
    println!("{text}");
    assert!(quiet.good > 0 && seen.good > 0 && quiet.bad > 0 && seen.bad > 0, "{text}");
    // Twice the quiet one; a test shares its machine with others and with its own hostile clients.
    let slack = Duration::from_millis(if full { 10 } else { 250 });
    assert!(seen.p99 <= 2 * quiet.p99 + slack, "{text}");
    // A block for what a side has sent and not been relieved of; larger ones are few.
    let bound = 64 * 1024 + clients as u64 * 2 * BLOCK;
    assert!(memory.iter().all(|kib| *kib <= bound), "more than {bound} KiB: {text}");
    assert!(memory[1] <= memory[0] + memory[0] / 4 + 16 * 1024, "it grows: {text}");
    // It works as before.
    assert!([200, 502].contains(&get(&mut connect(addr), "/").status));
}
