//! An executor that moves a task to another thread at each poll, around any adapter whose connections are `Send`
//! (`timeouts.md` A-09). Sockets, timers and the clock stay the adapter's; what changes is where they are used.

use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, Weak, mpsc};
use std::task::{Context, Wake, Waker};
use std::thread::{self, JoinHandle};

use tidegate_core::Instant;
use tidegate_core::runtime::{Runtime, Spawn};

use crate::board::lock;
use crate::counted::CountedConnection;
use crate::harness::{ClientStream, Harness};

/// A harness whose connections are polled by two threads in turn. What `block_on` is given stays on its own.
#[derive(Debug)]
pub struct Migrating<H>(PhantomData<fn() -> H>);

/// Polls on another thread than the poll before.
pub(crate) static MOVES: AtomicUsize = AtomicUsize::new(0);

impl<H: Harness> Harness for Migrating<H>
where
    CountedConnection<Hopping<H::Runtime>, ClientStream<H>>: Send,
{
    type Runtime = Hopping<H::Runtime>;
    type Listener = H::Listener;
    const NAME: &'static str = H::NAME;

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(Self::Runtime) -> F) -> T {
        H::block_on(|runtime| {
            let threads = Arc::new(Threads::start());
            let end = End(Arc::clone(&threads));
            let main = main(Hopping { runtime, threads });
            async move {
                let _end = end;
                main.await
            }
        })
    }

    fn listener(bound: TcpListener) -> io::Result<H::Listener> {
        H::listener(bound)
    }
}

/// A runtime, but for where its tasks run.
#[derive(Clone, Debug)]
pub struct Hopping<R> {
    runtime: R,
    threads: Arc<Threads>,
}

impl<R: Runtime> Runtime for Hopping<R> {
    type Stream = R::Stream;
    type Connect = R::Connect;
    type Timer = R::Timer;

    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn unix_time(&self) -> u64 {
        self.runtime.unix_time()
    }

    fn timer(&self) -> R::Timer {
        self.runtime.timer()
    }

    fn connect(&self, to: SocketAddr) -> R::Connect {
        self.runtime.connect(to)
    }
}

impl<R, F: Future<Output = ()> + Send + 'static> Spawn<F> for Hopping<R> {
    fn spawn(&self, task: F) {
        self.threads.spawn(Box::pin(task));
    }
}

type Polled = Pin<Box<dyn Future<Output = ()> + Send>>;
/// Nothing ends the thread.
type Queue = mpsc::Sender<Option<Arc<Task>>>;

struct Task {
    future: Mutex<Option<Polled>>,
    queued: AtomicBool,
    /// The thread that polls it next.
    next: AtomicUsize,
    queues: [Queue; 2],
}

impl Wake for Task {
    fn wake(self: Arc<Self>) {
        if !self.queued.swap(true, Ordering::AcqRel) {
            let queue = self.queues[self.next.load(Ordering::Acquire)].clone();
            let _ = queue.send(Some(self));
        }
    }
}

/// The two threads.
#[derive(Debug)]
struct Threads {
    queues: [Queue; 2],
    threads: Mutex<Vec<JoinHandle<()>>>,
    tasks: Mutex<Vec<Weak<Task>>>,
}

impl Threads {
    fn start() -> Threads {
        let (one, first) = mpsc::channel();
        let (other, second) = mpsc::channel();
        let threads = [first, second].into_iter().enumerate();
        let threads = threads.map(|(i, tasks)| thread::spawn(move || work(i, &tasks))).collect();
        Threads { queues: [one, other], threads: Mutex::new(threads), tasks: Mutex::default() }
    }

    fn spawn(&self, future: Polled) {
        let task = Arc::new(Task {
            future: Mutex::new(Some(future)),
            queued: AtomicBool::new(false),
            next: AtomicUsize::new(0),
            queues: self.queues.clone(),
        });
        lock(&self.tasks).push(Arc::downgrade(&task));
        task.wake();
    }
}

impl std::fmt::Debug for Task {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Task").finish_non_exhaustive()
    }
}

fn work(i: usize, tasks: &mpsc::Receiver<Option<Arc<Task>>>) {
    while let Ok(Some(task)) = tasks.recv() {
        // First, so that whoever wakes it from here on wakes it elsewhere.
        task.next.store(1 - i, Ordering::Release);
        task.queued.store(false, Ordering::Release);
        let waker = Waker::from(Arc::clone(&task));
        let mut slot = lock(&task.future);
        let Some(future) = slot.as_mut() else { continue };
        MOVES.fetch_add(1, Ordering::Relaxed);
        if future.as_mut().poll(&mut Context::from_waker(&waker)).is_ready() {
            *slot = None;
        }
    }
}

/// The end of the executor: its threads end, and then its tasks are dropped.
struct End(Arc<Threads>);

impl Drop for End {
    fn drop(&mut self) {
        self.0.queues.iter().for_each(|queue| drop(queue.send(None)));
        lock(&self.0.threads).drain(..).for_each(|thread| drop(thread.join()));
        let tasks = std::mem::take(&mut *lock(&self.0.tasks));
        tasks.iter().filter_map(Weak::upgrade).for_each(|task| *lock(&task.future) = None);
    }
}
