//! Ten times as many clients as there are places: each of them is served, in the memory and with the descriptors of
//! those for whom there is a place.
//!
//! At first as many come as the listen queue holds besides: nobody is in the kernel's hands alone, which may drop whom
//! it has no place for. Then whoever leaves is followed by another. A client of even number leaves when it has
//! its answer; one of odd number stays, idle, until the proxy asks it to leave. One thread drives them all.

// Descriptors, memory and epoll are Linux's.
#![cfg(target_os = "linux")]

mod support;

use std::collections::VecDeque;
use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use rustix::event::{Timespec, epoll};
use rustix::io::Errno;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use socket2::{Domain, Socket, Type};
use support::upstream::Upstream;
use support::{RUNTIMES, Running, get};

const CLIENTS: usize = 10_000;
const LIMIT: usize = 1_000;
/// Descriptors for everything here that is no client.
const SPARE: u64 = 1_000;
/// Longer than one run takes.
const GUARD: Duration = Duration::from_secs(60);
/// What the allocator may keep more or less, in KiB.
const SLACK: u64 = 2 * 1024;

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

#[test]
fn ten_thousand_clients_find_a_thousand_places() {
    let maximum = getrlimit(Resource::Nofile).maximum;
    assert!(maximum.is_none_or(|n| n >= CLIENTS as u64 + SPARE), "`ulimit -Hn` is too low: {maximum:?}");
    setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum }).expect("up to the hard limit");
    let body = "tide".repeat(250);
    let upstream = Upstream::answering(body.as_str());
    for (runtime, threads) in RUNTIMES.iter().flat_map(|runtime| [(*runtime, 1), (*runtime, 2)]) {
        run(runtime, threads, &upstream.name(), body.as_bytes());
    }
}

fn run(runtime: &str, threads: usize, upstream: &str, body: &[u8]) {
    let (began, what) = (Instant::now(), format!("{runtime}, {threads} threads"));
    let (limit, count) = (LIMIT.to_string(), threads.to_string());
    let mut args = vec!["--runtime", runtime, "--threads", &count, "--upstream", upstream];
    args.extend(["--max-client-conns", &limit, "--client-head-timeout", "1m", "--queue-timeout", "off"]);
    args.extend(["--pool-idle-timeout", "100ms"]);
    let proxy = Running::start(&args);
    // What is made only when it is first needed is there from now on.
    assert_eq!(get(&mut proxy.connect(), "/").status, 200);
    let before = settled(&proxy);

    // They come, and ask for nothing yet.
    let mut crowd = Crowd::come(proxy.addrs[0], at_once());
    // Each server holds one more that waits for its place; async-std has one server for all threads.
    let servers = if runtime == "async-std" { 1 } else { threads };
    let full = before + LIMIT + servers;
    let asked = Instant::now();
    while proxy.descriptors() != full {
        assert!(asked.elapsed() < GUARD, "{what}: {} and not {full} descriptors", proxy.descriptors());
        crowd.turn();
    }
    let known = Instant::now();
    while known.elapsed() < Duration::from_millis(200) {
        crowd.turn();
        assert_eq!(proxy.descriptors(), full, "{what}: the limit holds");
    }
    let waiting = proxy.resident();

    // They ask. From a fifth on all kinds of things have happened, and nothing may grow any more.
    crowd.ask();
    let (mut early, mut most) = (0, 0);
    while crowd.answered < CLIENTS {
        assert!(began.elapsed() < GUARD, "{what}: only {} were served", crowd.answered);
        crowd.turn();
        if crowd.answered >= CLIENTS / 5 {
            most = most.max(proxy.resident());
            early = if early == 0 { most } else { early };
        }
    }
    crowd.check(body, &what);
    // All others were asked to leave.
    let stay =
        crowd.clients.iter_mut().flatten().map(|client| usize::from(!client.is_closed())).sum::<usize>();
    assert!(stay <= LIMIT, "{what}: {stay} stay");
    drop(crowd);
    let asked = Instant::now();
    while proxy.descriptors() > before {
        assert!(asked.elapsed() < GUARD, "{what}: {} descriptors, {before} before", proxy.descriptors());
    }
    let after = proxy.resident();
    println!(
        "{what}: {waiting} KiB waiting, {early} early, {most} at most, {after} after; {:?}",
        began.elapsed()
    );
    assert!(most <= early + early / 10 + SLACK, "{what}: from {early} to {most} KiB");
    assert!(after <= most + SLACK, "{what}: from {most} to {after} KiB");
}

/// How many may be there at the same time: with places for all of them, in the proxy or in its listen queue, also
/// while the proxy has not noticed yet that some have left.
fn at_once() -> usize {
    let most = fs::read_to_string("/proc/sys/net/core/somaxconn").expect("Linux has it");
    let at_once = most.trim().parse::<usize>().expect("a number").min(4096);
    assert!(at_once > 2 * LIMIT, "`net.core.somaxconn` is too low");
    at_once
}

/// How many descriptors the proxy has when nothing happens.
fn settled(proxy: &Running) -> usize {
    let (mut count, mut since) = (proxy.descriptors(), Instant::now());
    while since.elapsed() < Duration::from_millis(400) {
        let now = proxy.descriptors();
        if now != count {
            (count, since) = (now, Instant::now());
        }
    }
    count
}

/// All clients and what the kernel tells of them.
struct Crowd {
    epoll: OwnedFd,
    to: SocketAddr,
    clients: Vec<Option<Client>>,
    /// They may ask as soon as they are connected.
    asks: bool,
    connected: VecDeque<usize>,
    answered: usize,
    answers: Vec<Vec<u8>>,
}

struct Client {
    stream: TcpStream,
    connected: bool,
    got: Vec<u8>,
}

impl Crowd {
    fn come(to: SocketAddr, at_once: usize) -> Crowd {
        let epoll = epoll::create(epoll::CreateFlags::CLOEXEC).expect("a descriptor");
        let answers = Vec::with_capacity(CLIENTS);
        let (clients, connected) = (Vec::with_capacity(CLIENTS), VecDeque::new());
        let mut crowd = Crowd { epoll, to, clients, asks: false, connected, answered: 0, answers };
        (0..at_once).for_each(|_| crowd.one_more());
        crowd
    }

    /// Another one comes, unless all have come.
    fn one_more(&mut self) {
        let number = self.clients.len();
        if number == CLIENTS {
            return;
        }
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a descriptor");
        socket.set_nonblocking(true).expect("a plain option");
        if let Err(e) = socket.connect(&self.to.into()) {
            assert_eq!(Errno::from_io_error(&e), Some(Errno::INPROGRESS), "{e}");
        }
        let stream = TcpStream::from(socket);
        let flags = epoll::EventFlags::IN | epoll::EventFlags::OUT | epoll::EventFlags::ET;
        epoll::add(&self.epoll, &stream, epoll::EventData::new_u64(number as u64), flags).expect("memory");
        self.clients.push(Some(Client { stream, connected: false, got: Vec::new() }));
    }

    /// A client leaves, and another one comes.
    fn leaves(&mut self, number: usize) {
        self.answers.extend(self.clients[number].take().map(|client| client.got));
        self.one_more();
    }

    /// Whoever is connected asks, and so does whoever will be.
    fn ask(&mut self) {
        self.asks = true;
        while let Some(i) = self.connected.pop_front() {
            self.request(i);
        }
    }

    fn request(&mut self, i: usize) {
        let client = self.clients[i].as_mut().expect("it has not left");
        client.stream.write_all(REQUEST).expect("it was not dropped");
    }

    /// Serves what has happened, or waits a moment for something to happen.
    fn turn(&mut self) {
        let mut events = Vec::with_capacity(256);
        let moment = Timespec { tv_sec: 0, tv_nsec: 10_000_000 };
        let space = rustix::buffer::spare_capacity(&mut events);
        epoll::wait(&self.epoll, space, Some(&moment)).expect("a sound epoll");
        for event in events {
            self.serve(event.data.u64() as usize);
        }
    }

    fn serve(&mut self, i: usize) {
        let Some(client) = &mut self.clients[i] else { return };
        if !client.connected {
            if let Some(e) = client.stream.take_error().expect("a plain option") {
                panic!("client {i} was refused: {e}");
            }
            if client.stream.peer_addr().is_err() {
                return;
            }
            client.connected = true;
            if self.asks {
                self.request(i);
            } else {
                self.connected.push_back(i);
            }
            return;
        }
        let mut buf = [0; 4096];
        loop {
            match client.stream.read(&mut buf) {
                Ok(0) => {
                    assert!(client.is_answered(), "client {i} was dropped after {} bytes", client.got.len());
                    return self.leaves(i);
                }
                Ok(n) => {
                    client.got.extend(&buf[..n]);
                    if client.is_answered() {
                        self.answered += 1;
                        if i.is_multiple_of(2) {
                            return self.leaves(i);
                        }
                    }
                }
                Err(e) if e.kind() == ErrorKind::WouldBlock => return,
                Err(e) => panic!("client {i}: {e} after {} bytes", client.got.len()),
            }
        }
    }

    /// All answers are the same, and whole.
    fn check(&self, body: &[u8], what: &str) {
        let staying = self.clients.iter().flatten().map(|client| &client.got);
        let answers: Vec<_> = self.answers.iter().chain(staying).collect();
        assert_eq!(answers.len(), CLIENTS);
        assert!(answers.iter().all(|got| got.starts_with(b"HTTP/1.1 200 ") && got.ends_with(body)), "{what}");
    }
}

impl Client {
    /// The head and a body of the length that it announces.
    fn is_answered(&self) -> bool {
        let Some(end) = self.got.windows(4).position(|w| w == b"\r\n\r\n") else { return false };
        let head = String::from_utf8_lossy(&self.got[..end]).to_ascii_lowercase();
        let length = head.lines().find_map(|line| line.strip_prefix("content-length:"));
        let length: usize = length.and_then(|n| n.trim().parse().ok()).expect("a length");
        assert!(self.got.len() <= end + 4 + length, "more than one answer");
        self.got.len() == end + 4 + length
    }

    /// The proxy has closed it; anything but its end would have been read as a part of the answer.
    fn is_closed(&mut self) -> bool {
        matches!(self.stream.read(&mut [0]), Ok(0))
    }
}
