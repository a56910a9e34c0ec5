//! Scripted peers in real time: the interpreter over plain blocking `std::net` sockets, a thread for each
//! connection. No code of the runtime under test runs here, so that a broken adapter cannot hide at both
//! ends.
//!
//! Every blocking call returns within [`TICK`] to see whether the case is over, so no thread outlives it.

use std::io::{self, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, OnceLock};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use socket2::{Domain, SockRef, Socket, Type};

use crate::board::{Board, Log, lock};
use crate::exec::block;
use crate::gauges::{self, Row, TcpState};
use crate::interp::{Halt, PeerIo, run_background, run_script};
use crate::recorder::Receives;
use crate::script::{Case, Step, Target, Upstream};
use crate::transcript::Snapshot;

/// How long a blocking call lasts at most before it looks whether the case is over.
const TICK: Duration = Duration::from_millis(10);

/// What all peers of one real run share.
pub(crate) struct Stage {
    pub(crate) board: Arc<Board>,
    pub(crate) proxy: SocketAddr,
    /// In the order in which they were started.
    upstreams: Mutex<Vec<SocketAddr>>,
    epoch: OnceLock<Instant>,
    stopped: AtomicBool,
    /// Ports of connections to the upstream that are not the proxy's.
    own_ports: Mutex<Vec<u16>>,
    threads: Mutex<Vec<JoinHandle<()>>>,
    /// Hold the ports of upstreams that never accept.
    reserved: Mutex<Vec<Socket>>,
    /// Peers' sockets take little at a time.
    small_buffers: bool,
}

/// `SO_RCVBUF` and `SO_SNDBUF` of small buffers; the kernel doubles it.
pub(crate) const SMALL: usize = 4096;

/// `TCP_MAXSEG` of an upstream with small buffers. The proxy's end of the connection is the adapter's, so nobody here sets
/// its buffer; but the kernel begins with room for so many segments, and those of this machine are 64 KiB. With small ones
/// the connection is full after some 200 kB instead of 3 MB, long before any limit, however slow the machine is.
const SMALL_SEGMENTS: u32 = 536;

impl Stage {
    pub(crate) fn new(board: Arc<Board>, proxy: SocketAddr, small_buffers: bool) -> Stage {
        Stage {
            board,
            proxy,
            upstreams: Mutex::default(),
            epoch: OnceLock::new(),
            stopped: AtomicBool::new(false),
            own_ports: Mutex::default(),
            threads: Mutex::default(),
            reserved: Mutex::default(),
            small_buffers,
        }
    }

    /// When the case began.
    pub(crate) fn epoch(&self) -> Instant {
        *self.epoch.get_or_init(Instant::now)
    }

    fn now(&self) -> Duration {
        self.epoch().elapsed()
    }

    fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    pub(crate) fn upstreams(&self) -> Vec<SocketAddr> {
        lock(&self.upstreams).clone()
    }

    fn upstream(&self) -> SocketAddr {
        lock(&self.upstreams).first().copied().unwrap_or(self.proxy)
    }

    /// The kernel's rows of the proxy's upstream connections.
    fn rows_of_the_proxy(&self) -> Vec<Row> {
        let ports: Vec<u16> = self.upstreams().iter().map(SocketAddr::port).collect();
        let own = lock(&self.own_ports).clone();
        gauges::rows_to(&ports).into_iter().filter(|row| !own.contains(&row.local_port)).collect()
    }

    /// A socket whose receive buffer is as the case wants it.
    fn socket(&self) -> io::Result<Socket> {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None)?;
        if self.small_buffers {
            socket.set_recv_buffer_size(SMALL)?;
        }
        Ok(socket)
    }

    fn thread(&self, run: impl FnOnce() + Send + 'static) {
        let thread = std::thread::spawn(run);
        lock(&self.threads).push(thread);
    }

    /// Ends all scripts, waits for their threads and closes their sockets.
    pub(crate) fn stop(&self) {
        self.stopped.store(true, Ordering::Release);
        self.board.changed();
        loop {
            let Some(thread) = lock(&self.threads).pop() else { break };
            if thread.join().is_err() {
                self.board.fault("a scripted peer panicked: a fault of the suite".into());
            }
        }
        lock(&self.reserved).clear();
    }

    /// Opens a further upstream's address.
    pub(crate) fn start_upstream(self: &Arc<Self>, upstream: &Upstream) -> io::Result<()> {
        let socket = self.socket()?;
        if self.small_buffers {
            socket.set_tcp_mss(SMALL_SEGMENTS)?;
        }
        socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
        let address = socket.local_addr()?.as_socket().ok_or(io::ErrorKind::AddrNotAvailable)?;
        lock(&self.upstreams).push(address);
        socket.set_read_timeout(Some(TICK))?;
        match upstream {
            Upstream::Closed => lock(&self.reserved).push(socket),
            Upstream::KernelOnly => {
                socket.listen(128)?;
                lock(&self.reserved).push(socket);
            }
            Upstream::Scripts(scripts) => {
                socket.listen(128)?;
                let scripts = scripts.iter().map(|s| s.steps().to_vec()).collect();
                let stage = Arc::clone(self);
                self.thread(move || stage.accept(&socket.into(), scripts, &[]));
            }
            Upstream::FullBacklog { freed_by } => {
                socket.listen(0)?;
                let filler = TcpStream::connect(address)?;
                lock(&self.own_ports).push(filler.local_addr()?.port());
                let (stage, freed_by) = (Arc::clone(self), *freed_by);
                self.thread(move || stage.free_backlog(socket, filler, freed_by));
            }
        }
        Ok(())
    }

    fn free_backlog(self: Arc<Self>, socket: Socket, filler: TcpStream, freed_by: Option<&'static str>) {
        let freed = || freed_by.is_some_and(|event| self.board.marked(event).is_some());
        self.board.wait(Duration::from_secs(60), || self.is_stopped() || freed());
        if !freed() {
            return;
        }
        // A second listen() widens the queue of the same socket.
        let accepted = socket.listen(128).and_then(|()| socket.accept());
        self.accept(&socket.into(), Vec::new(), &[Step::ReadToEnd]);
        drop((accepted, filler));
    }

    fn accept(self: &Arc<Self>, listener: &TcpListener, scripts: Vec<Vec<Step>>, otherwise: &[Step]) {
        let mut scripts = scripts.into_iter();
        while !self.is_stopped() {
            let stream = match listener.accept() {
                Ok((stream, _)) => stream,
                Err(e) if is_tick(&e) => continue,
                Err(e) => {
                    self.board.fault(format!("the scripted upstream cannot accept: {e}"));
                    return;
                }
            };
            let steps = scripts.next().unwrap_or_else(|| otherwise.to_vec());
            let log = self.board.connection(Receives::Requests);
            lock(&log).opened = Some(self.now());
            let io = RealIo::new(self, self.upstream());
            io.set(stream);
            self.run(io, steps, log);
        }
    }

    /// Starts the clients; the case begins now.
    pub(crate) fn start_clients(self: &Arc<Self>, case: &Case) {
        let logs: Vec<Log> =
            case.clients.iter().map(|_| self.board.connection(Receives::Responses)).collect();
        self.epoch();
        for (client, log) in case.clients.iter().zip(logs) {
            let to = match client.target {
                Target::Proxy => self.proxy,
                Target::Upstream => self.upstream(),
            };
            self.run(RealIo::new(self, to), client.script.steps().to_vec(), log);
        }
    }

    fn run(&self, io: RealIo, steps: Vec<Step>, log: Log) {
        let board = Arc::clone(&self.board);
        self.thread(move || block(run_script(io, &steps, log, board)));
    }
}

fn is_tick(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut | io::ErrorKind::Interrupted)
}

/// A peer's connection in real time.
#[derive(Clone)]
pub(crate) struct RealIo {
    inner: Arc<Inner>,
}

struct Inner {
    stage: Arc<Stage>,
    to: SocketAddr,
    stream: Mutex<Option<Arc<TcpStream>>>,
    background: Mutex<Vec<JoinHandle<()>>>,
    in_background: AtomicUsize,
    ending: AtomicBool,
}

impl RealIo {
    fn new(stage: &Arc<Stage>, to: SocketAddr) -> RealIo {
        let inner = Inner {
            stage: Arc::clone(stage),
            to,
            stream: Mutex::default(),
            background: Mutex::default(),
            in_background: AtomicUsize::new(0),
            ending: AtomicBool::new(false),
        };
        RealIo { inner: Arc::new(inner) }
    }

    fn set(&self, stream: TcpStream) {
        // These fail on a dead descriptor alone; the first read then says so.
        let _ = stream.set_read_timeout(Some(TICK));
        let _ = stream.set_write_timeout(Some(TICK));
        let _ = stream.set_nodelay(true);
        *lock(&self.inner.stream) = Some(Arc::new(stream));
    }

    fn stream(&self) -> Result<Arc<TcpStream>, Halt> {
        lock(&self.inner.stream).clone().ok_or_else(|| Halt::Failed(io::ErrorKind::NotConnected.into()))
    }

    fn is_over(&self) -> bool {
        self.inner.stage.is_stopped() || self.inner.ending.load(Ordering::Acquire)
    }

    /// Repeats a call that returns every [`TICK`] until it is done or the case is over.
    fn repeat(
        &self,
        is_over: impl Fn() -> bool,
        mut call: impl FnMut(&TcpStream) -> io::Result<usize>,
    ) -> Result<usize, Halt> {
        let stream = self.stream()?;
        loop {
            if is_over() {
                return Err(Halt::Stopped);
            }
            match call(&stream) {
                Ok(n) => return Ok(n),
                Err(e) if is_tick(&e) => {}
                Err(e) => return Err(e.into()),
            }
        }
    }
}

impl PeerIo for RealIo {
    fn now(&self) -> Duration {
        self.inner.stage.now()
    }

    async fn connect(&self) -> Result<(), Halt> {
        let socket = self.inner.stage.socket()?;
        if self.inner.to != self.inner.stage.proxy {
            socket.bind(&SocketAddr::from((Ipv4Addr::LOCALHOST, 0)).into())?;
            let port = socket.local_addr()?.as_socket().map(|addr| addr.port());
            lock(&self.inner.stage.own_ports).extend(port);
        }
        socket.connect_timeout(&self.inner.to.into(), Duration::from_secs(5))?;
        self.set(socket.into());
        Ok(())
    }

    async fn read(&self, buf: &mut [u8]) -> Result<usize, Halt> {
        self.repeat(|| self.inner.stage.is_stopped(), |mut stream| stream.read(buf))
    }

    async fn write(&self, bytes: &[u8]) -> Result<usize, Halt> {
        self.repeat(|| self.is_over(), |mut stream| stream.write(bytes))
    }

    async fn write_until(&self, bytes: &[u8], until: Duration) -> Result<usize, Halt> {
        let is_late = || self.is_over() || self.now() >= until;
        match self.repeat(is_late, |mut stream| stream.write(bytes)) {
            Err(Halt::Stopped) if !self.is_over() => Ok(0),
            other => other,
        }
    }

    fn fin(&self) {
        if let Ok(stream) = self.stream() {
            let _ = stream.shutdown(std::net::Shutdown::Write);
        }
    }

    fn rst(&self) {
        if let Some(stream) = lock(&self.inner.stream).take() {
            let _ = SockRef::from(&*stream).set_linger(Some(Duration::ZERO));
        }
    }

    fn close(&self) {
        lock(&self.inner.stream).take();
    }

    async fn sleep_until(&self, at: Duration) -> Result<(), Halt> {
        loop {
            let left = at.saturating_sub(self.now());
            if self.is_over() {
                return Err(Halt::Stopped);
            }
            if left.is_zero() {
                return Ok(());
            }
            std::thread::sleep(left.min(TICK));
        }
    }

    async fn wait_for(&self, event: &'static str) -> Result<(), Halt> {
        let board = &self.inner.stage.board;
        let happened = || board.marked(event).is_some();
        while !happened() {
            if self.is_over() {
                return Err(Halt::Stopped);
            }
            board.wait(TICK, happened);
        }
        Ok(())
    }

    async fn hold(&self) {
        while !self.inner.stage.is_stopped() {
            self.inner.stage.board.wait(TICK, || self.inner.stage.is_stopped());
        }
    }

    fn snapshot(&self) -> Snapshot {
        let rows = self.inner.stage.rows_of_the_proxy();
        let count = |of: &dyn Fn(&Row) -> bool| rows.iter().filter(|row| of(row)).count();
        Snapshot {
            syn_sent: count(&|row| row.state == TcpState::SynSent),
            established: count(&|row| row.state == TcpState::Established),
            open: count(&|row| row.inode != 0),
            // A FIN that is on its way is one.
            trickling: count(&|row| row.inode == 0 && row.queued > 1),
        }
    }

    fn descriptor(&self, upstream: usize) -> Option<u64> {
        let port = self.inner.stage.upstreams().get(upstream)?.port();
        let rows = self.inner.stage.rows_of_the_proxy();
        let row = rows.iter().find(|row| row.remote_port == port && row.inode != 0)?;
        gauges::descriptor(row.inode)
    }

    fn background(&self, steps: Vec<Step>, log: Log, board: Arc<Board>) {
        let io = self.clone();
        self.inner.in_background.fetch_add(1, Ordering::AcqRel);
        let thread = std::thread::spawn(move || {
            block(run_background(io.clone(), &steps, log, board.clone()));
            io.inner.in_background.fetch_sub(1, Ordering::AcqRel);
            board.changed();
        });
        lock(&self.inner.background).push(thread);
    }

    async fn join(&self) -> Result<(), Halt> {
        while self.inner.in_background.load(Ordering::Acquire) > 0 {
            if self.is_over() {
                return Err(Halt::Stopped);
            }
            self.inner.stage.board.wait(TICK, || self.inner.in_background.load(Ordering::Acquire) == 0);
        }
        Ok(())
    }

    fn end_background(&self) {
        self.inner.ending.store(true, Ordering::Release);
        let threads = std::mem::take(&mut *lock(&self.inner.background));
        for thread in threads {
            if thread.join().is_err() {
                self.inner.stage.board.fault("background steps panicked: a fault of the suite".into());
            }
        }
    }
}
