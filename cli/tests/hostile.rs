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
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::{Duration, Instant};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, SockRef, Socket, Type};
use support::{GUARD, RUNTIMES, Running, connect, try_exchange};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";
const HONEST: usize = 50;
const PAUSE: Duration = Duration::from_millis(20);
const BLOCK: u64 = 64;

/// How many there are of each, and for how long.
#[derive(Copy, Clone)]
struct Size {
    slow: usize,
    deaf: usize,
    resets: usize,
    /// After how many seconds the proxy ends a head, and a client that takes nothing.
    head: usize,
    write: usize,
    time: Duration,
}

const SMALL: Size = Size { slow: 300, deaf: 40, resets: 60, head: 1, write: 1, time: Duration::from_secs(2) };
const FULL: Size =
    Size { slow: 5000, deaf: 1000, resets: 1000, head: 10, write: 5, time: Duration::from_secs(15) };

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

/// An upstream that serves so many connections at once; its threads end with the test process. They are there before the
/// first connection is, and each takes its connections itself: a new thread for each would cost more than the proxy does.
fn upstream(at_once: usize, serve: impl Fn(TcpStream, u64) + Send + Sync + 'static) -> SocketAddr {
    // A thousand connections come at once. Whom the listen queue has no place for waits a second until the kernel asks
    // again, whatever the proxy does.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
    socket.bind(&SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    socket.listen(4096).expect("a bound socket listens");
    let listener = TcpListener::from(socket);
    let addr = listener.local_addr().expect("an address");
    let shared = Arc::new((listener, serve, AtomicU64::new(1)));
    for _ in 0..at_once {
        let shared = Arc::clone(&shared);
        let server = move || {
            let (listener, serve, next) = &*shared;
            for stream in listener.incoming().flatten() {
                // Or a head waits for the proxy's delayed acknowledgement before its body goes.
                let _ = stream.set_nodelay(true);
                serve(stream, next.fetch_add(1, Ordering::Relaxed));
            }
        };
        thread::Builder::new().stack_size(128 << 10).spawn(server).expect("room for small threads");
    }
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
fn sound(at_once: usize) -> SocketAddr {
    let big = vec![b'x'; 16 << 20];
    upstream(at_once, move |mut stream, _| {
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

fn garbage(at_once: usize) -> SocketAddr {
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
    upstream(at_once, |mut stream, n| {
        let mut dice = Dice(n);
        if head(&stream).is_some() {
            let _ = stream.write_all(ANSWERS[dice.below(ANSWERS.len())]);
            if dice.below(3) == 0 {
                let _ = SockRef::from(&stream).set_linger(Some(Duration::ZERO));
            }
        }
    })
}

/// Calls `event` for one of `n` after the other, so many times a second, until it is over. What comes all at once would
/// show how long that takes, and nothing else.
fn paced(n: usize, per_second: usize, over: &AtomicBool, mut event: impl FnMut(usize)) {
    let every = Duration::from_secs(1) / per_second as u32;
    let mut due = Instant::now();
    for turn in 0.. {
        if over.load(Ordering::Relaxed) {
            return;
        }
        thread::sleep(due.saturating_duration_since(Instant::now()));
        // Who is late does not catch up.
        due = (due + every).max(Instant::now().checked_sub(every * 10).unwrap_or(due));
        event(turn % n);
    }
}

/// Clients that the proxy ends after so many seconds; a second later another one comes in the place of each. So many
/// more are needed for `n` to be there at any time, and `n / seconds` come in a second.
fn lives(n: usize, seconds: usize) -> (usize, usize) {
    (n * (seconds + 1) / seconds, (n / seconds).max(1))
}

/// Sends a head byte by byte, one byte a second.
fn slow(proxy: SocketAddr, size: Size, over: &AtomicBool) {
    let (n, births) = lives(size.slow, size.head);
    let all: Vec<Mutex<Option<TcpStream>>> = (0..n).map(|_| Mutex::new(None)).collect();
    let line = b"GET / HTTP/1.1\r\nHost: test\r\nX-Slow: aaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaaa";
    let slot = |i: usize| all[i].lock().expect("no panic under the lock");
    thread::scope(|scope| {
        scope.spawn(|| paced(n, births, over, |i| *slot(i) = TcpStream::connect(proxy).ok()));
        let mut sent = 0;
        paced(n, n, over, |i| {
            if let Some(stream) = &mut *slot(i) {
                let _ = stream.write(&line[sent / n % line.len()..][..1]);
            }
            sent += 1;
        });
    });
}

/// A connection that takes a few KiB unread, and no more.
fn with_a_small_window(proxy: SocketAddr) -> Option<TcpStream> {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).ok()?;
    socket.set_recv_buffer_size(4096).ok()?;
    socket.connect(&proxy.into()).ok()?;
    Some(socket.into())
}

/// Asks for much, more than once so that it is also the sound upstream's turn, and reads nothing.
fn deaf(proxy: SocketAddr, size: Size, over: &AtomicBool) {
    let (n, births) = lives(size.deaf, size.write);
    let mut all: Vec<Option<TcpStream>> = (0..n).map(|_| None).collect();
    let ask = b"GET /big HTTP/1.1\r\nHost: test\r\n\r\n".repeat(4);
    paced(n, births, over, |i| {
        all[i] = with_a_small_window(proxy).filter(|mut stream| stream.write_all(&ask).is_ok());
    });
}

/// Resets at any point of a request or a response.
fn resets(proxy: SocketAddr, n: usize, over: &AtomicBool) {
    let mut all: Vec<Option<TcpStream>> = (0..n).map(|_| None).collect();
    let mut dice = Dice(7);
    let request =
        b"POST /big HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n\
        GET /big HTTP/1.1\r\nHost: test\r\n\r\nGET / HT";
    // Each is there for a second, more or less.
    paced(n, n, over, |_| {
        let place = dice.below(n);
        if let Some(mut old) = all[place].take() {
            let _ = old.set_nonblocking(true);
            let _ = old.read(&mut vec![0; dice.below(100_000)]);
            let _ = SockRef::from(&old).set_linger(Some(Duration::ZERO));
        }
        if let Some(mut stream) = with_a_small_window(proxy) {
            let _ = stream.write_all(&request[..dice.below(request.len())]);
            all[place] = Some(stream);
        }
    });
    for old in all.iter().flatten() {
        let _ = SockRef::from(old).set_linger(Some(Duration::ZERO));
    }
}

/// The hostile clients are a process of their own, which gives way to the others: no proxy has its attackers on its own
/// processors. This is what it runs, until its standard input ends.
#[test]
#[ignore = "the process of the hostile clients"]
fn hostile_clients() {
    let Ok(order) = std::env::var("TIDEGATE_HOSTILE_CLIENTS") else { return };
    let (addr, full) = order.split_once(' ').expect("an address and a size");
    let (addr, size) = (addr.parse().expect("an address"), if full == "full" { FULL } else { SMALL });
    all_descriptors();
    let over = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| slow(addr, size, &over));
        scope.spawn(|| deaf(addr, size, &over));
        scope.spawn(|| resets(addr, size.resets, &over));
        let _ = std::io::stdin().read(&mut [0]);
        over.store(true, Ordering::Relaxed);
    });
}

/// That process; it ends with this value, and with the process of the test.
struct Crowd(Child);

impl Crowd {
    fn come(proxy: SocketAddr, full: bool) -> Crowd {
        // A figure is only worth something where they take what nobody else wants; a small test shares its machine with
        // others, who would leave them nothing.
        let (lower, how) = if full { ("chrt", ["--idle", "0"]) } else { ("nice", ["-n", "10"]) };
        let mut crowd = Command::new(lower);
        crowd.args(how).arg(std::env::current_exe().expect("a path"));
        crowd.args(["--exact", "hostile_clients", "--ignored", "--quiet"]);
        crowd.env("TIDEGATE_HOSTILE_CLIENTS", format!("{proxy} {}", if full { "full" } else { "small" }));
        crowd.stdin(Stdio::piped()).stdout(Stdio::null());
        Crowd(crowd.spawn().expect("`chrt` and `nice` are there"))
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        drop(self.0.stdin.take());
        let _ = self.0.wait();
    }
}

fn all_descriptors() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
}

/// What the honest have seen.
struct Seen {
    p50: Duration,
    p99: Duration,
    most: Duration,
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
    Seen { p50: at(50), p99: at(99), most: at(100), good: good.into_inner(), bad: bad.into_inner() }
}

#[test]
fn honest_clients_are_served_among_hostile_ones() {
    let full = std::env::var("TIDEGATE_HOSTILE").is_ok_and(|size| size == "full");
    let size = if full { FULL } else { SMALL };
    all_descriptors();
    // Enough for all who ask, and for those whom the proxy has not yet left.
    let at_once = HONEST + lives(size.deaf, size.write).0 + 2 * size.resets;
    let upstreams = [sound(at_once), garbage(at_once)].map(|addr| addr.to_string());
    let only = std::env::var("TIDEGATE_RUNTIME").ok();
    for runtime in RUNTIMES.iter().filter(|runtime| only.as_deref().is_none_or(|only| only == **runtime)) {
        run(runtime, size, &upstreams, full);
    }
}

fn run(runtime: &str, size: Size, upstreams: &[String; 2], full: bool) {
    let clients = lives(size.slow, size.head).0 + lives(size.deaf, size.write).0 + size.resets + HONEST;
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
    let [head, write] = [size.head, size.write].map(|seconds| format!("{seconds}s"));
    let limits =
        ["--client-head-timeout", &head, "--client-write-timeout", &write, "--pool-idle-timeout", "100ms"];
    let both = ["--upstream", &upstreams[0], "--upstream", &upstreams[1]];
    let start = || Running::start(&[&args[..], &limits, &both].concat());
    let proxy = start();
    let addr = proxy.addrs[0];
    // Whatever the answer: it may be the other upstream's turn.
    let _ = try_exchange(&mut proxy.connect(), REQUEST);
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
    let come = |proxy: &Running| {
        let crowd = Crowd::come(proxy.addrs[0], full);
        // All of them have come.
        let asked = Instant::now();
        while proxy.descriptors() < before + size.slow + size.deaf {
            assert!(asked.elapsed() < GUARD, "{runtime}: only {} descriptors", proxy.descriptors());
            thread::sleep(Duration::from_millis(20));
        }
        crowd
    };
    // The same attack on another proxy of this machine: what the processors cost, and not what the proxy does.
    let beside = full.then(|| {
        let other = start();
        let crowd = come(&other);
        let seen = honest(addr, Instant::now() + size.time);
        drop(crowd);
        seen
    });
    settled(before);
    let over = AtomicBool::new(false);
    let (seen, memory) = thread::scope(|scope| {
        let crowd = come(&proxy);
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
        drop(crowd);
        (seen, watched.join().expect("figures"))
    });
    settled(before);
    let line = |who: &str, seen: &Seen| {
        format!(
            "{who}: p50 {:?}, p99 {:?}, most {:?}, {} good, {} bad",
            seen.p50, seen.p99, seen.most, seen.good, seen.bad
        )
    };
    let beside_line = beside.as_ref().map(|seen| line("; another one attacked", seen)).unwrap_or_default();
    let text = format!(
        "{runtime}: {clients} clients; {}{beside_line}; {}; {memory:?} KiB; {before} descriptors before and after",
        line("quiet", &quiet),
        line("hostile", &seen)
    );
    println!("{text}");
    assert!(quiet.good > 0 && seen.good > 0 && quiet.bad > 0 && seen.bad > 0, "{text}");
    // Twice the quiet one, where the machine is nobody else's. A test shares it with others and with its own hostile
    // clients: there it shows that the honest are served, and how fast is printed.
    let most = if full { 2 * quiet.p99 + Duration::from_millis(10) } else { GUARD };
    assert!(seen.p99 <= most, "{text}");
    // And twice what it is next to a proxy that is attacked.
    assert!(beside.is_none_or(|beside| seen.p99 <= 2 * beside.p99), "{text}");
    // A block for what a side has sent and not been relieved of, and a small one for the beginning of a head; larger ones
    // are few.
    let slow = lives(size.slow, size.head).0;
    let bound = 64 * 1024 + slow as u64 * 4 + (clients - slow) as u64 * BLOCK;
    assert!(memory.iter().all(|kib| *kib <= bound), "more than {bound} KiB: {text}");
    assert!(memory[1] <= memory[0] + memory[0] / 4 + 16 * 1024, "it grows: {text}");
    // It works as before, whenever it is the sound upstream's turn.
    let well = || try_exchange(&mut connect(addr), REQUEST).is_ok_and(|response| response.status == 200);
    assert!((0..20).any(|_| well()), "{text}");
}
