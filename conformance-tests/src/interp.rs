//! The interpreter of scripts: one for both worlds and both sides.
//!
//! It is written over [`PeerIo`], whose futures wait in virtual time in one world and block the thread in
//! the other, so that a step means the same in both. It notes what happens and judges nothing.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use crate::board::{Board, Log, lock};
use crate::pattern;
use crate::script::Step;
use crate::transcript::{End, Snapshot};

/// Why a script cannot go on.
#[derive(Debug)]
pub(crate) enum Halt {
    /// The case is over.
    Stopped,
    /// The connection failed.
    Failed(io::Error),
}

impl From<io::Error> for Halt {
    fn from(e: io::Error) -> Halt {
        Halt::Failed(e)
    }
}

type Stepped<T> = Result<T, Halt>;

/// What a peer can do in its world. Clones are the same connection.
pub(crate) trait PeerIo: Clone + 'static {
    /// Since the case began.
    fn now(&self) -> Duration;
    async fn connect(&self) -> Stepped<()>;
    async fn read(&self, buf: &mut [u8]) -> Stepped<usize>;
    async fn write(&self, bytes: &[u8]) -> Stepped<usize>;
    /// Writes, or gives up with zero at `until`.
    async fn write_until(&self, bytes: &[u8], until: Duration) -> Stepped<usize>;
    fn fin(&self);
    fn rst(&self);
    fn close(&self);
    async fn sleep_until(&self, at: Duration) -> Stepped<()>;
    /// Waits for an event of the board.
    async fn wait_for(&self, event: &'static str) -> Stepped<()>;
    /// Waits for the end of the case.
    async fn hold(&self);
    fn snapshot(&self) -> Snapshot;
    /// The number of the descriptor of the proxy's connection to this upstream.
    fn descriptor(&self, upstream: usize) -> Option<u64>;
    /// Runs steps beside this one.
    fn background(&self, steps: Vec<Step>, log: Log, board: Arc<Board>);
    /// Waits for the end of what runs in the background.
    async fn join(&self) -> Stepped<()>;
    /// Tells the background that the connection is about to end.
    fn end_background(&self);
}

/// Runs a connection's script to its end and closes the connection.
pub(crate) async fn run_script<I: PeerIo>(io: I, steps: &[Step], log: Log, board: Arc<Board>) {
    let mut player = Player { io: io.clone(), log: log.clone(), board: board.clone(), taken: 0 };
    let halted = player.play(steps).await;
    if let Err(Halt::Failed(e)) = &halted {
        player.note_failure(e);
    }
    io.end_background();
    io.close();
    if halted.is_ok() {
        lock(&log).step = "the end".into();
    }
    if !steps.contains(&Step::Hold) || !matches!(halted, Err(Halt::Stopped)) {
        board.rests();
    }
}

/// Runs background steps.
pub(crate) async fn run_background<I: PeerIo>(io: I, steps: &[Step], log: Log, board: Arc<Board>) {
    let mut player = Player { io, log, board, taken: 0 };
    if let Err(Halt::Failed(e)) = player.play(steps).await {
        player.note_failure(&e);
    }
}

struct Player<I> {
    io: I,
    log: Log,
    board: Arc<Board>,
    /// Messages that the script has read to their end.
    taken: usize,
}

impl<I: PeerIo> Player<I> {
    /// Boxed, because background steps make it recursive.
    fn play<'a>(&'a mut self, steps: &'a [Step]) -> Pin<Box<dyn Future<Output = Stepped<()>> + 'a>> {
        Box::pin(async move {
            for (i, step) in steps.iter().enumerate() {
                lock(&self.log).step = format!("step {i}, {}", short(step));
                self.step(step).await?;
            }
            Ok(())
        })
    }

    async fn step(&mut self, step: &Step) -> Stepped<()> {
        match step {
            Step::Connect => {
                lock(&self.log).dialled = Some(self.io.now());
                self.io.connect().await?;
                lock(&self.log).opened = Some(self.io.now());
            }
            Step::Head(text) => {
                lock(&self.log).sent = 0;
                self.write(text.as_bytes()).await?;
            }
            Step::Bytes(bytes) => self.write(bytes).await?,
            Step::Body(n) => self.pattern(*n).await?,
            Step::BodyUntilBlocked(patience) => loop {
                let run = pattern::run(lock(&self.log).sent);
                let until = self.io.now() + *patience;
                match self.io.write_until(run, until).await.inspect_err(|e| self.note_write_error(e))? {
                    0 => break,
                    sent => lock(&self.log).sent += sent as u64,
                }
            },
            Step::Chunk(n) => {
                self.write(format!("{n:x}\r\n").as_bytes()).await?;
                self.pattern(*n as u64).await?;
                self.write(b"\r\n").await?;
            }
            Step::LastChunk => self.write(b"0\r\n\r\n").await?,
            Step::Flood => self.pattern(u64::MAX).await?,
            Step::Drip { size, every, times } => {
                for _ in 0..*times {
                    self.pattern(*size as u64).await?;
                    self.pause(*every).await?;
                }
            }
            Step::ReadSome => {
                self.read(usize::MAX).await?;
            }
            Step::ReadExact(n) => {
                let mut left = *n;
                while left > 0 {
                    match self.read(left).await? {
                        0 => break,
                        got => left -= got,
                    }
                }
            }
            Step::ReadUntil(bytes) => {
                let holds = |log: &Log| {
                    let log = lock(log);
                    let text = log.received.messages.last().map_or(&[][..], |m| &m.text);
                    text.windows(bytes.len().max(1)).any(|w| w == bytes.as_slice())
                };
                while !holds(&self.log) && self.read(usize::MAX).await? > 0 {}
            }
            Step::ReadHead => {
                while lock(&self.log).received.messages.len() <= self.taken {
                    if self.read(usize::MAX).await? == 0 {
                        break;
                    }
                }
            }
            Step::ReadBody(n) => {
                let has = |log: &Log| lock(log).received.messages.last().map_or(0, |m| m.body_len);
                while has(&self.log) < *n && self.read(usize::MAX).await? > 0 {}
            }
            Step::ReadMessage => {
                while !lock(&self.log).received.messages.get(self.taken).is_some_and(|m| m.complete) {
                    if self.read(usize::MAX).await? == 0 {
                        break;
                    }
                }
                self.taken += 1;
            }
            Step::ReadSlowly { size, every, until } => {
                while self.board.marked(until).is_none() {
                    self.read(*size).await?;
                    self.pause(*every).await?;
                }
            }
            Step::Tunnel => {
                let now = self.io.now();
                lock(&self.log).received.switch(now);
            }
            Step::ReadToEnd => while self.read(usize::MAX).await? > 0 {},
            Step::Pause(d) => self.pause(*d).await?,
            Step::At(at) => self.io.sleep_until(*at).await?,
            Step::Mark(event) => self.board.mark(event, self.io.now()),
            Step::WaitFor(event) => self.io.wait_for(event).await?,
            Step::Snapshot(name) => {
                let snapshot = self.io.snapshot();
                self.board.snapshot(name, snapshot);
            }
            Step::Descriptor { of, event } => self.board.descriptor(event, self.io.descriptor(*of)),
            Step::Await { event, syn_sent, established } => {
                let is_wanted = |now: Snapshot| (now.syn_sent, now.established) == (*syn_sent, *established);
                while !is_wanted(self.io.snapshot()) {
                    self.pause(Duration::from_millis(1)).await?;
                }
                self.board.mark(event, self.io.now());
            }
            Step::Background(steps) => {
                self.io.background(steps.clone(), self.log.clone(), self.board.clone());
            }
            Step::Join => self.io.join().await?,
            Step::Fin => self.io.fin(),
            Step::Rst => {
                self.io.end_background();
                self.io.rst();
            }
            Step::Close => {
                self.io.end_background();
                self.io.close();
            }
            Step::Knock(event) => {
                let is_refusal = |e: &io::Error| e.kind() == io::ErrorKind::ConnectionRefused;
                loop {
                    match self.io.connect().await {
                        Err(Halt::Failed(e)) if is_refusal(&e) => break,
                        Err(Halt::Stopped) => return Err(Halt::Stopped),
                        Ok(()) | Err(Halt::Failed(_)) => self.io.close(),
                    }
                    self.pause(Duration::from_millis(2)).await?;
                }
                self.board.mark(event, self.io.now());
            }
            Step::Hold => {
                self.board.rests();
                self.io.hold().await;
                return Err(Halt::Stopped);
            }
        }
        Ok(())
    }

    async fn pause(&self, d: Duration) -> Stepped<()> {
        self.io.sleep_until(self.io.now() + d).await
    }

    async fn read(&self, at_most: usize) -> Stepped<usize> {
        if lock(&self.log).end.is_some() {
            return Ok(0);
        }
        let mut buf = vec![0; at_most.min(64 * 1024)];
        let result = self.io.read(&mut buf).await;
        let now = self.io.now();
        let mut log = lock(&self.log);
        match result {
            Ok(0) => {
                log.received.end();
                log.end.get_or_insert((End::Fin, now));
                Ok(0)
            }
            Ok(n) => {
                log.received.feed(&buf[..n], now);
                Ok(n)
            }
            // The way in which the proxy ends a connection is a result, not a failure of the script.
            Err(Halt::Failed(e)) if is_reset(&e) => {
                log.end.get_or_insert((End::Rst, now));
                Ok(0)
            }
            Err(e) => Err(e),
        }
    }

    async fn write(&self, mut bytes: &[u8]) -> Stepped<()> {
        while !bytes.is_empty() {
            let n = self.io.write(bytes).await.inspect_err(|e| self.note_write_error(e))?;
            bytes = &bytes[n..];
        }
        Ok(())
    }

    async fn pattern(&self, n: u64) -> Stepped<()> {
        let mut left = n;
        while left > 0 {
            let run = pattern::run(lock(&self.log).sent);
            let run = &run[..run.len().min(usize::try_from(left).unwrap_or(usize::MAX))];
            let sent = self.io.write(run).await.inspect_err(|e| self.note_write_error(e))? as u64;
            left -= sent;
            lock(&self.log).sent += sent;
        }
        Ok(())
    }

    fn note_write_error(&self, halt: &Halt) {
        if let Halt::Failed(_) = halt {
            let now = self.io.now();
            lock(&self.log).write_error.get_or_insert(now);
        }
    }

    /// A reset that a write met is how the proxy ended the connection, unless a read knows better.
    fn note_failure(&self, e: &io::Error) {
        let now = self.io.now();
        let mut log = lock(&self.log);
        if log.end.is_none() && e.kind() == io::ErrorKind::ConnectionReset {
            log.end = Some((End::Rst, now));
        }
        log.step.push_str(&format!(" (failed: {:?})", e.kind()));
    }
}

fn is_reset(e: &io::Error) -> bool {
    matches!(e.kind(), io::ErrorKind::ConnectionReset | io::ErrorKind::BrokenPipe)
}

fn short(step: &Step) -> String {
    match step {
        Step::Head(text) => format!("write {:?}", text.lines().next().unwrap_or_default()),
        Step::Bytes(bytes) => format!("write {} bytes", bytes.len()),
        Step::Background(_) => "start the background steps".into(),
        other => format!("{other:?}"),
    }
}
