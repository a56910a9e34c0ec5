//! An upstream that answers when the test says so, and that can die and come back.
//!
//! Blocking, with a thread a connection; it keeps connections alive. Everything that a test waits for is an
//! event: requests that have arrived, the gate that opens.

use std::io::{Read, Write};
use std::mem;
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Arc, Condvar, Mutex};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

/// A running upstream; its threads end with the test process.
pub(crate) struct Upstream {
    pub(crate) addr: SocketAddr,
    shared: Arc<Shared>,
    accepting: Option<JoinHandle<()>>,
    /// Keeps the port while nobody listens.
    port: Option<Socket>,
}

/// How an upstream's connections end.
#[derive(Copy, Clone, Debug)]
pub(crate) enum Death {
    /// With FIN, as when it is stopped.
    Closes,
    /// With RST, as when it is killed with something unread.
    Resets,
}

struct Shared {
    /// What it answers.
    body: Vec<u8>,
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    open: bool,
    dead: bool,
    arrived: usize,
    in_flight: usize,
    most_at_once: usize,
    streams: Vec<TcpStream>,
}

impl Upstream {
    /// Answers every request with `body`, at once.
    pub(crate) fn answering(body: impl Into<Vec<u8>>) -> Upstream {
        let upstream = Upstream::gated(body);
        upstream.open();
        upstream
    }

    /// Answers with `body` once it is opened; of every second answer the first half is sent before.
    pub(crate) fn gated(body: impl Into<Vec<u8>>) -> Upstream {
        let shared = Shared { body: body.into(), state: Mutex::default(), changed: Condvar::new() };
        let listener = bind_where_nobody_dials_from();
        let addr = listener.local_addr().expect("an address");
        let shared = Arc::new(shared);
        let accepting = Some(accept(listener, Arc::clone(&shared)));
        Upstream { addr, shared, accepting, port: None }
    }

    /// The value of `--upstream`.
    pub(crate) fn name(&self) -> String {
        self.addr.to_string()
    }

    /// Waits until that many requests have come, all together.
    pub(crate) fn wait_for(&self, arrived: usize) {
        let state = self.shared.state.lock().expect("no panic under the lock");
        drop(self.shared.changed.wait_while(state, |state| state.arrived < arrived));
    }

    /// How many requests have come.
    pub(crate) fn arrived(&self) -> usize {
        self.shared.state.lock().expect("no panic under the lock").arrived
    }

    /// How many requests were here at the same time, at most.
    pub(crate) fn most_at_once(&self) -> usize {
        self.shared.state.lock().expect("no panic under the lock").most_at_once
    }

    /// Lets all answers go.
    pub(crate) fn open(&self) {
        self.shared.state.lock().expect("no panic under the lock").open = true;
        self.shared.changed.notify_all();
    }

    /// Ends all connections and refuses new ones. Returns how many connections that were.
    pub(crate) fn die(&mut self, how: Death) -> usize {
        self.shared.state.lock().expect("no panic under the lock").dead = true;
        // Wakes the thread, which finds that it is dead.
        let _ = TcpStream::connect(self.addr);
        self.accepting.take().map(JoinHandle::join);
        let port = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        port.set_reuse_address(true).expect("a plain option");
        port.bind(&self.addr.into()).expect("the port was ours a moment ago");
        self.port = Some(port);
        let streams = mem::take(&mut self.shared.state.lock().expect("no panic under the lock").streams);
        for stream in &streams {
            let _ = match how {
                Death::Closes => stream.shutdown(Shutdown::Both),
                // Whoever lets it go last resets it; the thread that reads from it is told to.
                Death::Resets => SockRef::from(stream)
                    .set_linger(Some(Duration::ZERO))
                    .and_then(|()| stream.shutdown(Shutdown::Read)),
            };
        }
        streams.len()
    }

    /// Listens again, at the same address.
    pub(crate) fn revive(&mut self) {
        self.shared.state.lock().expect("no panic under the lock").dead = false;
        let port = self.port.take().expect("it is dead");
        port.listen(128).expect("a bound socket listens");
        self.accepting = Some(accept(port.into(), Arc::clone(&self.shared)));
    }
}

/// A port that no outgoing connection gets from the system, and nobody else in this process: it is still free when
/// whoever died comes back to it. (Two sockets may have one port as long as neither listens.)
fn bind_where_nobody_dials_from() -> TcpListener {
    static TRIED: AtomicU32 = AtomicU32::new(0);
    // Below the ports that Linux and macOS hand out; processes start at different ones.
    let first = std::process::id().wrapping_mul(61);
    loop {
        let n = TRIED.fetch_add(1, Ordering::Relaxed);
        assert!(n < 20_000, "no port is free");
        let port = 10_000 + (first.wrapping_add(n) % 20_000) as u16;
        if let Ok(listener) = TcpListener::bind(("127.0.0.1", port)) {
            return listener;
        }
    }
}

fn accept(listener: TcpListener, shared: Arc<Shared>) -> JoinHandle<()> {
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut state = shared.state.lock().expect("no panic under the lock");
            let Ok(stream) = stream else { return };
            if state.dead {
                return;
            }
            state.streams.push(stream.try_clone().expect("a descriptor"));
            drop(state);
            let shared = Arc::clone(&shared);
            thread::spawn(move || while answer(&stream, &shared).is_some() {});
        }
    })
}

/// Answers one request; `None` at the end of the connection.
fn answer(mut stream: &TcpStream, shared: &Shared) -> Option<()> {
    let mut request = Vec::new();
    let mut buf = [0; 4096];
    // No body follows, and the next request only comes after the answer.
    while !request.ends_with(b"\r\n\r\n") {
        match stream.read(&mut buf).ok()? {
            0 => return None,
            n => request.extend(&buf[..n]),
        }
    }
    let mut state = shared.state.lock().ok()?;
    if state.dead {
        // Shutting a socket down for reading keeps nobody from reading what is there.
        return None;
    }
    state.arrived += 1;
    state.in_flight += 1;
    state.most_at_once = state.most_at_once.max(state.in_flight);
    let begins = state.arrived.is_multiple_of(2);
    let head = format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n", shared.body.len());
    let answer = [head.as_bytes(), &shared.body].concat();
    let early = if begins { head.len() + shared.body.len() / 2 } else { 0 };
    shared.changed.notify_all();
    drop(state);
    stream.write_all(&answer[..early]).ok()?;
    let state = shared.state.lock().ok()?;
    // Before the answer: after it the next request may already be on its way.
    shared.changed.wait_while(state, |state| !state.open).ok()?.in_flight -= 1;
    stream.write_all(&answer[early..]).ok()
}
