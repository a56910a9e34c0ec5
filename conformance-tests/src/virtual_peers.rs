//! Scripted peers in virtual time: the interpreter over the pipes of a [`World`].
//!
//! Connects clients and accepts upstream connections; the machine under test meets them as sockets.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::Duration;

use tidegate_core::Instant;
use tidegate_core::runtime::{Listener, Runtime, Stream};

use crate::board::{Board, Log};
use crate::interp::{Halt, PeerIo, run_background, run_script};
use crate::recorder::Receives;
use crate::script::{Case, Step, Target, Upstream};
use crate::transcript::Snapshot;
use crate::virtual_rt::{Owner, VirtualListener, VirtualStream, World};

/// More connections than any case opens.
const ROOM: usize = 1024;

/// One run's setting.
#[derive(Clone)]
pub(crate) struct Stage {
    pub(crate) world: World,
    pub(crate) board: Arc<Board>,
    pub(crate) epoch: Instant,
    pub(crate) upstreams: Vec<SocketAddr>,
    pub(crate) proxy: SocketAddr,
}

impl Stage {
    pub(crate) fn now(&self) -> Duration {
        self.world.now().saturating_since(self.epoch)
    }

    /// Waits for an event.
    pub(crate) async fn happened(&self, event: &'static str) {
        poll_fn(|cx| match self.board.marked(event) {
            Some(_) => Poll::Ready(()),
            None => {
                self.board.watch(cx.waker());
                Poll::Pending
            }
        })
        .await;
    }

    /// Starts everybody but the proxy.
    pub(crate) fn start_peers(&self, case: &Case) {
        for (upstream, at) in case.upstreams().zip(&self.upstreams) {
            self.start_upstream(upstream, *at);
        }
        for client in &case.clients {
            let to = match client.target {
                Target::Proxy => self.proxy,
                Target::Upstream => self.upstreams.first().copied().unwrap_or(self.proxy),
            };
            let io = VirtualIo::new(self.clone(), to, None);
            let log = self.board.connection(Receives::Responses);
            let (steps, board) = (client.script.steps().to_vec(), self.board.clone());
            self.world.spawn(Owner::Peer, async move { run_script(io, &steps, log, board).await });
        }
    }

    fn start_upstream(&self, upstream: &Upstream, at: SocketAddr) {
        let runtime = self.world.runtime(Owner::Peer);
        match upstream {
            Upstream::Closed => {}
            Upstream::Scripts(scripts) => {
                let listener = runtime.listen(at, ROOM);
                let scripts = scripts.iter().map(|s| s.steps().to_vec()).collect();
                let stage = self.clone();
                self.world.spawn(Owner::Peer, async move { stage.accept(listener, scripts, &[]).await });
            }
            Upstream::KernelOnly => {
                let listener = runtime.listen(at, ROOM);
                self.world.spawn(Owner::Peer, async move {
                    let _never_accepts = listener;
                    std::future::pending::<()>().await;
                });
            }
            Upstream::FullBacklog { freed_by } => {
                let listener = runtime.listen(at, 0);
                let (stage, freed_by) = (self.clone(), *freed_by);
                self.world.spawn(Owner::Peer, async move {
                    match freed_by {
                        None => std::future::pending().await,
                        Some(event) => stage.happened(event).await,
                    }
                    listener.set_room(ROOM);
                    stage.accept(listener, Vec::new(), &[Step::ReadToEnd]).await;
                });
            }
        }
    }

    async fn accept(&self, mut listener: VirtualListener, scripts: Vec<Vec<Step>>, otherwise: &[Step]) {
        let mut scripts = scripts.into_iter();
        loop {
            let Ok((stream, _)) = poll_fn(|cx| listener.poll_accept(cx)).await else { return };
            let steps = scripts.next().unwrap_or_else(|| otherwise.to_vec());
            let log = self.board.connection(Receives::Requests);
            crate::board::lock(&log).opened = Some(self.now());
            let io = VirtualIo::new(self.clone(), self.proxy, Some(stream));
            let board = self.board.clone();
            self.world.spawn(Owner::Peer, async move { run_script(io, &steps, log, board).await });
        }
    }
}

/// A peer's connection in virtual time.
#[derive(Clone)]
pub(crate) struct VirtualIo {
    stage: Stage,
    to: SocketAddr,
    stream: Rc<RefCell<Option<Rc<VirtualStream>>>>,
    in_background: Rc<Cell<usize>>,
    ending: Rc<Cell<bool>>,
}

impl VirtualIo {
    fn new(stage: Stage, to: SocketAddr, stream: Option<VirtualStream>) -> VirtualIo {
        VirtualIo {
            stage,
            to,
            stream: Rc::new(RefCell::new(stream.map(Rc::new))),
            in_background: Rc::default(),
            ending: Rc::default(),
        }
    }

    fn stream(&self) -> Result<Rc<VirtualStream>, Halt> {
        let stream = self.stream.borrow().clone();
        stream.ok_or_else(|| Halt::Failed(std::io::ErrorKind::NotConnected.into()))
    }
}

impl PeerIo for VirtualIo {
    fn now(&self) -> Duration {
        self.stage.now()
    }

    async fn connect(&self) -> Result<(), Halt> {
        let stream = self.stage.world.runtime(Owner::Peer).connect(self.to).await?;
        *self.stream.borrow_mut() = Some(Rc::new(stream));
        Ok(())
    }

    async fn read(&self, buf: &mut [u8]) -> Result<usize, Halt> {
        let stream = self.stream()?;
        Ok(poll_fn(|cx| stream.poll_read_shared(cx, buf)).await?)
    }

    async fn write(&self, bytes: &[u8]) -> Result<usize, Halt> {
        let written = poll_fn(|cx| {
            if self.ending.get() {
                return Poll::Ready(Err(Halt::Stopped));
            }
            let stream = self.stream()?;
            stream.poll_write_shared(cx, bytes).map_err(Halt::Failed)
        });
        written.await
    }

    async fn write_until(&self, bytes: &[u8], until: Duration) -> Result<usize, Halt> {
        let mut written = pin!(self.write(bytes));
        let mut patience = pin!(self.stage.world.sleep_until(self.stage.epoch + until));
        poll_fn(|cx| {
            if let Poll::Ready(result) = written.as_mut().poll(cx) {
                return Poll::Ready(result);
            }
            patience.as_mut().poll(cx).map(|()| Ok(0))
        })
        .await
    }

    fn fin(&self) {
        if let Ok(stream) = self.stream() {
            stream.fin();
        }
    }

    fn rst(&self) {
        let stream = self.stream.borrow_mut().take();
        if let Some(stream) = stream.and_then(|s| Rc::try_unwrap(s).ok()) {
            stream.abort();
        }
    }

    fn close(&self) {
        *self.stream.borrow_mut() = None;
    }

    async fn sleep_until(&self, at: Duration) -> Result<(), Halt> {
        self.stage.world.sleep_until(self.stage.epoch + at).await;
        if self.ending.get() { Err(Halt::Stopped) } else { Ok(()) }
    }

    async fn wait_for(&self, event: &'static str) -> Result<(), Halt> {
        self.stage.happened(event).await;
        Ok(())
    }

    async fn hold(&self) {
        // The world is dropped around it.
        std::future::pending().await
    }

    fn snapshot(&self) -> Snapshot {
        let proxy = self.stage.world.runtime(Owner::Proxy);
        let sum = |of: &dyn Fn(SocketAddr) -> usize| self.stage.upstreams.iter().map(|at| of(*at)).sum();
        Snapshot {
            syn_sent: sum(&|at| proxy.syn_sent(at)),
            established: sum(&|at| proxy.established(at)),
            open: sum(&|at| proxy.open(at)),
            trickling: sum(&|at| proxy.trickling(at)),
        }
    }

    fn descriptor(&self, _: usize) -> Option<u64> {
        None
    }

    fn background(&self, steps: Vec<Step>, log: Log, board: Arc<Board>) {
        self.in_background.set(self.in_background.get() + 1);
        let io = self.clone();
        self.stage.world.spawn(Owner::Peer, async move {
            run_background(io.clone(), &steps, log, board.clone()).await;
            io.in_background.set(io.in_background.get() - 1);
            board.changed();
        });
    }

    async fn join(&self) -> Result<(), Halt> {
        poll_fn(|cx| {
            if self.in_background.get() == 0 {
                return Poll::Ready(());
            }
            self.stage.board.watch(cx.waker());
            Poll::Pending
        })
        .await;
        Ok(())
    }

    fn end_background(&self) {
        self.ending.set(true);
    }
}
