//! An executor for one thread around `poll(2)`, and Tidegate's adapter for it. Explained, piece by piece, in
//! `docs/ADAPTER.md`; it is complete, and no faster than it looks.

use std::cell::{Cell, RefCell};
use std::collections::{BTreeMap, VecDeque};
use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::pin::{Pin, pin};
use std::rc::{Rc, Weak};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll, Wake, Waker};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use tidegate_conformance::{Harness, Need};
use tidegate_core::Instant;
use tidegate_core::runtime::{self, Runtime, Spawn};

/// The executor. Clones are the same one.
#[derive(Clone)]
pub(crate) struct Tiny(Rc<Core>);

struct Core {
    tasks: RefCell<BTreeMap<u64, Task>>,
    ready: Arc<Ready>,
    sources: RefCell<BTreeMap<u64, Waiting>>,
    timers: RefCell<BTreeMap<(Instant, u64), Waker>>,
    next_id: Cell<u64>,
    /// The other end of `Ready::bell`.
    woken: UnixStream,
}

type Task = Pin<Box<dyn Future<Output = ()>>>;

/// Which tasks are to be polled. Wakers are called from any thread.
struct Ready {
    queue: Mutex<VecDeque<u64>>,
    /// A byte in here ends a `poll(2)` that is under way.
    bell: UnixStream,
}

struct TaskWaker {
    id: u64,
    ready: Arc<Ready>,
}

impl Wake for TaskWaker {
    fn wake(self: Arc<Self>) {
        self.ready.queue.lock().unwrap_or_else(PoisonError::into_inner).push_back(self.id);
        // If the pipe is full, it rings already.
        let _ = (&self.ready.bell).write(&[1]);
    }
}

/// The id of the future that `block_on` was given.
const MAIN: u64 = 0;

impl Tiny {
    pub(crate) fn new() -> io::Result<Tiny> {
        let (bell, woken) = UnixStream::pair()?;
        bell.set_nonblocking(true)?;
        woken.set_nonblocking(true)?;
        let ready = Arc::new(Ready { queue: Mutex::default(), bell });
        Ok(Tiny(Rc::new(Core {
            tasks: RefCell::default(),
            ready,
            sources: RefCell::default(),
            timers: RefCell::default(),
            next_id: Cell::new(MAIN + 1),
            woken,
        })))
    }

    pub(crate) fn block_on<F: Future>(&self, main: F) -> F::Output {
        let mut main = pin!(main);
        let waker = self.waker(MAIN);
        waker.wake_by_ref();
        loop {
            // Those that are ready now, and not what they wake: sockets and timers must have their turn.
            let ready = std::mem::take(&mut *self.queue());
            for id in ready {
                if id != MAIN {
                    self.poll_task(id);
                } else if let Poll::Ready(output) = main.as_mut().poll(&mut Context::from_waker(&waker)) {
                    // A task owns this executor: it must not be left in it.
                    let tasks = std::mem::take(&mut *self.0.tasks.borrow_mut());
                    drop(tasks);
                    return output;
                }
            }
            self.0.react();
        }
    }

    fn poll_task(&self, id: u64) {
        // Taken out meanwhile: it may spawn others.
        let Some(mut task) = self.0.tasks.borrow_mut().remove(&id) else { return };
        let waker = self.waker(id);
        if task.as_mut().poll(&mut Context::from_waker(&waker)).is_pending() {
            self.0.tasks.borrow_mut().insert(id, task);
        }
    }

    fn waker(&self, id: u64) -> Waker {
        Waker::from(Arc::new(TaskWaker { id, ready: Arc::clone(&self.0.ready) }))
    }

    fn queue(&self) -> std::sync::MutexGuard<'_, VecDeque<u64>> {
        self.0.ready.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Who waits for a socket.
struct Waiting {
    /// Not owned: whoever drops the socket closes it, here and now.
    socket: Weak<dyn AsFd>,
    reader: Option<Waker>,
    writer: Option<Waker>,
}

impl Core {
    fn id(&self) -> u64 {
        self.next_id.replace(self.next_id.get() + 1)
    }

    /// Waits until a socket is ready, a timer is due or somebody is woken, and wakes those whom it concerns.
    fn react(&self) {
        let sources: Vec<(u64, Rc<dyn AsFd>, PollFlags)> = self
            .sources
            .borrow()
            .iter()
            .filter_map(|(id, waiting)| {
                let mut flags = PollFlags::empty();
                flags.set(PollFlags::IN, waiting.reader.is_some());
                flags.set(PollFlags::OUT, waiting.writer.is_some());
                Some((*id, waiting.socket.upgrade()?, flags)).filter(|_| !flags.is_empty())
            })
            .collect();
        let mut fds = vec![PollFd::new(&self.woken, PollFlags::IN)];
        fds.extend(sources.iter().map(|(_, socket, flags)| PollFd::new(socket, *flags)));
        let next = self.timers.borrow().keys().next().map(|(at, _)| *at);
        // No timer, and one beyond what the kernel can wait for, are both "until something happens".
        let wait = next.and_then(|at| Timespec::try_from(at.saturating_since(runtime::std_now())).ok());
        // Interrupted: then nothing is ready, and it is called again.
        let _ = poll(&mut fds, wait.as_ref());

        let rung = !fds[0].revents().is_empty();
        let ready: Vec<PollFlags> = fds[1..].iter().map(PollFd::revents).collect();
        while rung && matches!((&self.woken).read(&mut [0; 64]), Ok(64)) {}
        for ((id, ..), ready) in sources.iter().zip(ready) {
            let mut waiting = self.sources.borrow_mut();
            let Some(waiting) = waiting.get_mut(id) else { continue };
            // A socket that failed or was hung up is ready for both: the operation then says what happened.
            let failed = PollFlags::HUP | PollFlags::ERR;
            let reader = waiting.reader.take_if(|_| ready.intersects(PollFlags::IN | failed));
            let writer = waiting.writer.take_if(|_| ready.intersects(PollFlags::OUT | failed));
            reader.into_iter().chain(writer).for_each(Waker::wake);
        }
        let now = runtime::std_now();
        let mut timers = self.timers.borrow_mut();
        while let Some(timer) = timers.first_entry().filter(|timer| timer.key().0 <= now) {
            timer.remove().wake();
        }
    }
}

pub(crate) struct Timer {
    core: Rc<Core>,
    id: u64,
    at: Option<Instant>,
}

impl Timer {
    fn forget(&self) {
        if let Some(at) = self.at {
            self.core.timers.borrow_mut().remove(&(at, self.id));
        }
    }
}

impl runtime::Timer for Timer {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        self.forget();
        self.at = Some(at);
    }

    fn poll_fired(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        match self.at {
            Some(at) if runtime::std_now() >= at => Poll::Ready(()),
            Some(at) => {
                self.core.timers.borrow_mut().insert((at, self.id), cx.waker().clone());
                Poll::Pending
            }
            None => Poll::Pending,
        }
    }
}

impl Drop for Timer {
    fn drop(&mut self) {
        self.forget();
    }
}

/// A socket that one can wait for.
struct Source<S> {
    socket: Rc<S>,
    core: Rc<Core>,
    id: u64,
}

impl<S: AsFd + 'static> Source<S> {
    fn new(core: &Rc<Core>, socket: S) -> Source<S> {
        let (id, socket) = (core.id(), Rc::new(socket));
        let weak: Weak<S> = Rc::downgrade(&socket);
        core.sources.borrow_mut().insert(id, Waiting { socket: weak, reader: None, writer: None });
        Source { socket, core: Rc::clone(core), id }
    }

    fn wait_readable<T>(&self, cx: &Context<'_>) -> Poll<T> {
        if let Some(waiting) = self.core.sources.borrow_mut().get_mut(&self.id) {
            waiting.reader = Some(cx.waker().clone());
        }
        Poll::Pending
    }

    fn wait_writable<T>(&self, cx: &Context<'_>) -> Poll<T> {
        if let Some(waiting) = self.core.sources.borrow_mut().get_mut(&self.id) {
            waiting.writer = Some(cx.waker().clone());
        }
        Poll::Pending
    }
}

impl<S> Drop for Source<S> {
    fn drop(&mut self) {
        self.core.sources.borrow_mut().remove(&self.id);
    }
}

fn would_block<T>(result: &io::Result<T>) -> bool {
    result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

pub(crate) struct Stream(Source<TcpStream>);

impl runtime::Stream for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        match self.try_read(buf) {
            result if would_block(&result) => self.0.wait_readable(cx),
            result => Poll::Ready(result),
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        match self.try_write_vectored(bufs) {
            result if would_block(&result) => self.0.wait_writable(cx),
            result => Poll::Ready(result),
        }
    }

    fn poll_shutdown_write(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(runtime::shutdown_write(&self.0.socket))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn abort(self) {
        runtime::abort(&self.0.socket);
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        runtime::try_read(&self.0.socket, buf)
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        runtime::try_write_vectored(&self.0.socket, bufs)
    }
}

pub(crate) struct Connect {
    core: Rc<Core>,
    to: SocketAddr,
    socket: Option<Source<TcpStream>>,
}

impl Future for Connect {
    type Output = io::Result<Stream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let source = match self.socket.take() {
            Some(source) => source,
            None => Source::new(&self.core, runtime::start_connect(self.to)?),
        };
        if runtime::connect_finished(&source.socket)? {
            return Poll::Ready(Ok(Stream(source)));
        }
        let pending = source.wait_writable(cx);
        self.socket = Some(source);
        pending
    }
}

pub(crate) struct Listener(Source<TcpListener>);

impl Tiny {
    pub(crate) fn listener(&self, bound: TcpListener) -> io::Result<Listener> {
        bound.set_nonblocking(true)?;
        Ok(Listener(Source::new(&self.0, bound)))
    }
}

impl runtime::Listener for Listener {
    type Stream = Stream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Option<SocketAddr>)>> {
        match self.0.socket.accept() {
            result if would_block(&result) => self.0.wait_readable(cx),
            Ok((socket, peer)) => {
                runtime::set_accepted(&socket)?;
                Poll::Ready(Ok((Stream(Source::new(&self.0.core, socket)), Some(peer))))
            }
            Err(e) => Poll::Ready(Err(e)),
        }
    }
}

impl Runtime for Tiny {
    type Stream = Stream;
    type Connect = Connect;
    type Timer = Timer;

    fn now(&self) -> Instant {
        runtime::std_now()
    }

    fn timer(&self) -> Timer {
        Timer { core: Rc::clone(&self.0), id: self.0.id(), at: None }
    }

    fn connect(&self, to: SocketAddr) -> Connect {
        Connect { core: Rc::clone(&self.0), to, socket: None }
    }
}

impl<F: Future<Output = ()> + 'static> Spawn<F> for Tiny {
    fn spawn(&self, task: F) {
        let id = self.0.id();
        self.0.tasks.borrow_mut().insert(id, Box::pin(task));
        self.waker(id).wake();
    }
}

thread_local! {
    /// The executor of this thread, for those who are not given one.
    static CURRENT: RefCell<Option<Tiny>> = const { RefCell::new(None) };
}

pub(crate) struct OnTiny;

impl Harness for OnTiny {
    type Runtime = Tiny;
    type Listener = Listener;
    const NAME: &'static str = "tiny, the walk-through";
    const NOTES: &'static [&'static str] =
        &["An example of an adapter, written in docs/ADAPTER.md from nothing."];
    const LACKS: &'static [(Need, &'static str)] = &[(Need::Threads, "the executor is one thread")];

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Tiny) -> F) -> T {
        let tiny = Tiny::new().expect("two sockets for the bell");
        CURRENT.set(Some(tiny.clone()));
        let output = tiny.block_on(main(tiny.clone()));
        CURRENT.take();
        output
    }

    fn listener(bound: TcpListener) -> io::Result<Listener> {
        let tiny = CURRENT.with_borrow(Clone::clone).ok_or(io::ErrorKind::NotConnected)?;
        tiny.listener(bound)
    }
}
