//! The machine without an executor: a reverse proxy for one upstream on nonblocking std sockets, one thread, and a loop
//! around `poll(2)`. It shows the sans-IO interface, and what a driver owes to `Relay`.
//!
//! `bare_loop LISTEN UPSTREAM` (two addresses) runs until it is killed; without arguments it tries itself on an
//! origin and clients of its own, and ends. No pool, no limits: each exchange connects.
//!
//! The crate `polling` would be the natural choice for such a loop, but its `add` is unsafe (a source must outlive its
//! registration), and there is no unsafe code here. `poll(2)` borrows its sockets for the call alone.

use std::hash::{BuildHasher, RandomState};
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, SystemTime};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tidegate_core::http::{HttpDate, IdSource};
use tidegate_core::relay::{Action, Env, MAX_SLICES, Op, Relay};
use tidegate_core::{BufPool, Config, Instant, IoFailure, Outcome, Side, TimeoutPolicy, UpstreamId, runtime};

fn main() -> io::Result<()> {
    let args: Vec<String> = std::env::args().skip(1).collect();
    match &args[..] {
        [] => try_it().map(drop),
        [listen, upstream] => {
            let upstream = upstream.parse().map_err(io::Error::other)?;
            // Two sockets a client, and 1,024 descriptors in many a shell.
            let config = Config { max_client_conns: 500, ..Config::default() };
            let mut proxy = Loop::new(TcpListener::bind(listen)?, upstream, config)?;
            loop {
                proxy.turn()?;
            }
        }
        _ => Err(io::Error::other("usage: bare_loop [LISTEN UPSTREAM]")),
    }
}

/// All clients, and what their turns share.
struct Loop {
    listener: TcpListener,
    upstream: SocketAddr,
    config: Arc<Config>,
    clients: Vec<Client>,
    bufs: BufPool,
    ids: IdSource,
    outcomes: Vec<Outcome>,
}

/// One client: the machine, and the sockets that it must not hold itself.
struct Client {
    relay: Relay,
    client: Option<TcpStream>,
    upstream: Option<TcpStream>,
    connecting: bool,
}

impl Loop {
    fn new(listener: TcpListener, upstream: SocketAddr, config: Config) -> io::Result<Loop> {
        listener.set_nonblocking(true)?;
        let (config, clients) = (Arc::new(config), Vec::new());
        // Ids are told apart by their seed: the machine has no randomness of its own.
        let seed = [(); 2].map(|()| u128::from(RandomState::new().hash_one(0)));
        let ids = IdSource::new(seed[0] << 64 | seed[1]);
        Ok(Loop { listener, upstream, config, clients, bufs: BufPool::new(16), ids, outcomes: Vec::new() })
    }

    /// Waits until a socket is ready or a deadline is due, accepts whoever is there, and gives each client that has
    /// something to do its turn.
    fn turn(&mut self) -> io::Result<()> {
        // What the machines want *now* is all that is asked for: what is absent is the back-pressure.
        let room = self.clients.len() < self.config.max_client_conns;
        let accept = if room { PollFlags::IN } else { PollFlags::empty() };
        let mut fds = vec![PollFd::new(&self.listener, accept)];
        let mut owners = Vec::new();
        for (i, client) in self.clients.iter().enumerate() {
            for (socket, flags) in client.wants() {
                fds.push(PollFd::new(socket, flags));
                owners.push(i);
            }
        }
        let next = self.clients.iter().filter_map(|c| c.relay.poll_timeout()).map(|d| d.at).min();
        // No deadline, and one beyond what the kernel can wait for, are both "until a socket is ready".
        let wait = next.and_then(|at| Timespec::try_from(at.saturating_since(now())).ok());
        match poll(&mut fds, wait.as_ref()) {
            Err(rustix::io::Errno::INTR) => return Ok(()),
            result => result?,
        };
        let ready = fds[0].revents();
        let mut has_work = vec![false; self.clients.len()];
        for (fd, owner) in fds[1..].iter().zip(owners) {
            has_work[owner] |= !fd.revents().is_empty();
        }

        // One reading of the clock a turn: all decisions are made about the same moment.
        let now = now();
        let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let date = HttpDate::from_unix(unix.as_secs());
        let mut env = Env { now, date: &date, bufs: &mut self.bufs, ids: &mut self.ids };
        for (client, has_work) in self.clients.iter_mut().zip(has_work) {
            if has_work || client.is_due(now) {
                client.turn(self.upstream, &mut self.outcomes, &mut env);
            }
        }
        self.clients.retain(|c| c.client.is_some());

        while !ready.is_empty() && self.clients.len() < self.config.max_client_conns {
            match self.listener.accept() {
                Ok((stream, peer)) => {
                    runtime::set_accepted(&stream)?;
                    let relay = Relay::new(Arc::clone(&self.config), Some(peer.ip()), now);
                    let client = Some(stream);
                    self.clients.push(Client { relay, client, upstream: None, connecting: false });
                }
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => break,
                // That client was gone before it was accepted.
                Err(e) if e.kind() == io::ErrorKind::ConnectionAborted => {}
                Err(e) => return Err(e),
            }
        }
        Ok(())
    }
}

impl Client {
    /// What `poll` is to watch for: at most one entry a side.
    fn wants(&self) -> impl Iterator<Item = (&TcpStream, PollFlags)> {
        let want = self.relay.interest();
        let flags = |read, write| {
            let mut flags = PollFlags::empty();
            flags.set(PollFlags::IN, read);
            flags.set(PollFlags::OUT, write);
            flags
        };
        [
            (self.client.as_ref(), flags(want.read_client, want.write_client)),
            (self.upstream.as_ref(), flags(want.read_upstream, want.write_upstream || self.connecting)),
        ]
        .into_iter()
        // Without flags `poll` would still report a hang-up that nobody wants to know of, for ever.
        .filter(|(_, flags)| !flags.is_empty())
        .filter_map(|(socket, flags)| Some((socket?, flags)))
    }

    fn is_due(&self, now: Instant) -> bool {
        self.relay.poll_timeout().is_some_and(|d| d.at <= now)
    }

    /// The turn of the module `relay`: the sockets until nothing moves, then at most one deadline, then what
    /// follows from it.
    fn turn(&mut self, to: SocketAddr, outcomes: &mut Vec<Outcome>, env: &mut Env<'_>) {
        // Bounded, so that a fast client cannot keep the others waiting; `poll` reports again what is left.
        let work = |this: &mut Client, outcomes: &mut Vec<Outcome>, env: &mut Env<'_>| {
            (0..16).all(|_| this.pass(to, outcomes, env))
        };
        work(self, outcomes, env);
        // The sockets were asked directly just now: a deadline that is due with nothing there is a timeout.
        if self.is_due(env.now) {
            self.relay.handle_timeout(env);
            work(self, outcomes, env);
        }
    }

    /// Serves each operation that is wanted once, in order. False if nothing moved.
    fn pass(&mut self, to: SocketAddr, outcomes: &mut Vec<Outcome>, env: &mut Env<'_>) -> bool {
        let mut moved = self.act(to, outcomes, env);
        for op in Op::PASS {
            // Asked anew each time: the operation before may have changed it.
            if self.relay.interest().wants(op) {
                moved |= self.step(op, env);
                moved |= self.act(to, outcomes, env);
            }
        }
        moved
    }

    fn step(&mut self, op: Op, env: &mut Env<'_>) -> bool {
        let (Op::Read(side) | Op::Write(side)) = op else { return false };
        let socket = match side {
            Side::Client => self.client.as_mut(),
            Side::Upstream => self.upstream.as_mut(),
        };
        let Some(socket) = socket else { return false };
        let result = if op == Op::Read(side) {
            socket.read(self.relay.recv_buf(side, env))
        } else {
            let mut slices = [IoSlice::new(&[]); MAX_SLICES];
            let mut count = 0;
            for (slot, buf) in slices.iter_mut().zip(self.relay.send_bufs(side)) {
                *slot = IoSlice::new(buf);
                count += 1;
            }
            socket.write_vectored(&slices[..count])
        };
        match result {
            Ok(n) if op == Op::Read(side) => self.relay.received(side, n, env),
            Ok(n) => self.relay.sent(side, n, env),
            Err(e) if e.kind() == io::ErrorKind::WouldBlock => {
                if op == Op::Read(side) {
                    self.relay.not_ready(side, env);
                }
                return false;
            }
            Err(e) if e.kind() == io::ErrorKind::Interrupted => {}
            Err(e) => self.relay.failed(op, IoFailure::from(&e), env),
        }
        true
    }

    /// Takes every action. This is where a driver has decisions of its own to make: which route, which upstream.
    fn act(&mut self, to: SocketAddr, outcomes: &mut Vec<Outcome>, env: &mut Env<'_>) -> bool {
        let mut acted = self.finish_connect(env);
        while let Some(action) = self.relay.poll_action() {
            acted = true;
            match action {
                Action::Abort(Side::Upstream) => {
                    self.connecting = false;
                    self.upstream.take().iter().for_each(runtime::abort);
                }
                Action::Abort(Side::Client) => self.client.take().iter().for_each(runtime::abort),
                // There is no pool: what could go into one is closed.
                Action::Close(Side::Upstream) | Action::Discard | Action::Release { .. } => {
                    self.upstream = None
                }
                Action::Close(Side::Client) => {
                    self.client = None;
                    self.relay.closed(env);
                }
                // A failure shows at the next read.
                Action::ShutdownWrite(Side::Client) => {
                    let _ = self.client.as_ref().map(runtime::shutdown_write);
                }
                Action::ShutdownWrite(Side::Upstream) => {
                    let _ = self.upstream.as_ref().map(runtime::shutdown_write);
                }
                Action::Report => outcomes.extend(self.relay.outcome()),
                Action::Route => match self.relay.request().map(|r| r.path() == "/health") {
                    Some(true) => self.relay.respond(200, &[], b"well\n", env),
                    _ => {
                        let policy =
                            TimeoutPolicy { read: Some(Duration::from_millis(200)), ..Default::default() };
                        self.relay.forward(Some(Arc::new(policy)), env);
                    }
                },
                // One upstream: whoever could not reach it has nowhere else to go.
                Action::Admit => match UpstreamId::new(0).filter(|_| self.relay.tried().is_empty()) {
                    Some(id) => self.relay.granted(id, env),
                    None => self.relay.exhausted(env),
                },
                Action::Checkout(_) => self.relay.pool_miss(env),
                Action::Resolve(_) => self.relay.resolved(Ok([to].into_iter().collect()), env),
                Action::Connect { addr, .. } => match runtime::start_connect(addr) {
                    Ok(stream) => {
                        self.upstream = Some(stream);
                        self.connecting = true;
                    }
                    Err(e) => self.relay.failed(Op::Connect, IoFailure::from(&e), env),
                },
                _ => {}
            }
            acted |= self.finish_connect(env);
        }
        acted
    }

    /// Looks whether the connection that is being made is there.
    fn finish_connect(&mut self, env: &mut Env<'_>) -> bool {
        let Some(upstream) = self.upstream.as_ref().filter(|_| self.connecting) else { return false };
        let result = runtime::connect_finished(upstream);
        match result {
            Ok(false) => return false,
            Ok(true) => self.relay.connected(false, env),
            Err(e) => {
                self.upstream = None;
                self.relay.failed(Op::Connect, IoFailure::from(&e), env);
            }
        }
        self.connecting = false;
        true
    }
}

/// The machine's clock: any epoch will do, as long as it stays the same.
fn now() -> Instant {
    runtime::std_now()
}

/// Many clients at once against an origin in a thread; says how the requests ended.
pub(crate) fn try_it() -> io::Result<Vec<Outcome>> {
    const PATHS: [&str; 5] = ["/", "/large", "/slow", "/health", "/"];
    let origin = TcpListener::bind("127.0.0.1:0")?;
    let upstream = origin.local_addr()?;
    thread::spawn(move || {
        for stream in origin.incoming().flatten() {
            thread::spawn(|| serve(stream));
        }
    });
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let addr = listener.local_addr()?;
    let mut proxy = Loop::new(listener, upstream, Config::default())?;
    let clients: Vec<_> = (0..20).map(|i| thread::spawn(move || get(addr, PATHS[i % PATHS.len()]))).collect();
    while proxy.outcomes.len() < clients.len() || !proxy.clients.is_empty() {
        proxy.turn()?;
    }
    for client in clients {
        println!("{}", client.join().map_err(|_| io::Error::other("a client panicked"))??);
    }
    Ok(proxy.outcomes)
}

/// One request on a connection of its own.
fn get(proxy: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(proxy)?;
    write!(stream, "GET {path} HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n")?;
    let mut response = String::new();
    stream.read_to_string(&mut response)?;
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_default();
    Ok(format!("{path}: {}, {} bytes", head.lines().next().unwrap_or_default(), body.len()))
}

/// The origin: one request a connection.
fn serve(mut stream: TcpStream) -> io::Result<()> {
    let (mut request, mut buf) = (Vec::new(), [0; 1024]);
    while !request.ends_with(b"\r\n\r\n") {
        let n = stream.read(&mut buf)?;
        if n == 0 {
            return Ok(());
        }
        request.extend_from_slice(&buf[..n]);
    }
    if request.starts_with(b"GET /slow ") {
        // Never answers; ends when the proxy has had enough.
        return stream.read(&mut buf).map(drop);
    }
    let body = if request.starts_with(b"GET /large ") { vec![b'x'; 3 << 20] } else { b"hello".to_vec() };
    write!(stream, "HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())?;
    stream.write_all(&body)
}
