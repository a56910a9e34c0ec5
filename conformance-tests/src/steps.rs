//! The language of scripts: what a peer of the proxy does, as data.
//!
//! One language serves both worlds and both sides: the steps of a client and of an upstream are run by
//! the same interpreter (`interp.rs`) over virtual pipes first and over plain `std::net` sockets then.
//! This module describes; it runs nothing.

use std::time::Duration;

/// One step of a peer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Opens the connection (clients; an upstream's connection is open when its script begins).
    Connect,
    /// Writes a message head and starts a new body: the pattern begins again.
    Head(String),
    /// Writes bytes as they are.
    Bytes(Vec<u8>),
    /// Writes so many body bytes, the continued pattern.
    Body(u64),
    /// Writes body bytes until the connection has taken none for so long: whatever the kernels on the way
    /// can hold is full then.
    BodyUntilBlocked(Duration),
    /// Writes one chunk of so many pattern bytes.
    Chunk(usize),
    /// Writes the last chunk and an empty trailer section.
    LastChunk,
    /// Writes pattern bytes as fast as possible until the connection ends.
    Flood,
    /// Writes `size` pattern bytes every `every`, `times` times or until the connection ends.
    Drip {
        /// Bytes a write.
        size: usize,
        /// The pause after each write.
        every: Duration,
        /// How often.
        times: u32,
    },
    /// Reads until at least one further byte has come.
    ReadSome,
    /// Reads exactly so many further bytes and not one more.
    ReadExact(usize),
    /// Reads until what was received in the current message contains this.
    ReadUntil(Vec<u8>),
    /// Reads until the head of the current message is complete.
    ReadHead,
    /// Reads until the current message holds at least so many body bytes.
    ReadBody(u64),
    /// Reads until the current message is complete; the next one is the current one from then on.
    ReadMessage,
    /// Reads `size` bytes every `every` until `event` has happened.
    ReadSlowly {
        /// Bytes a read, at most.
        size: usize,
        /// The pause after each read.
        every: Duration,
        /// What ends it.
        until: &'static str,
    },
    /// Takes what is read from here on for a tunnel (upstreams; a client sees by the 101 where it begins).
    Tunnel,
    /// Reads until the proxy ends the connection, and notes how it did.
    ReadToEnd,
    /// Waits.
    Pause(Duration),
    /// Waits until so long after the start of the case.
    At(Duration),
    /// Notes that the named event happens now. Put it *before* the stimulus that starts a clock: the
    /// lower bound of a window is hard.
    Mark(&'static str),
    /// Waits for another peer's event.
    WaitFor(&'static str),
    /// Notes the state of the proxy's upstream connections.
    Snapshot(&'static str),
    /// Notes the number of the descriptor of the proxy's connection to an upstream.
    Descriptor {
        /// Which upstream.
        of: usize,
        /// The event.
        event: &'static str,
    },
    /// Waits until the proxy's upstream connections are so many in `SYN_SENT` and so many `ESTABLISHED`, and
    /// marks the moment.
    Await {
        /// The event.
        event: &'static str,
        /// Connects on their way.
        syn_sent: usize,
        /// Connections.
        established: usize,
    },
    /// Runs these steps beside the ones that follow, on the same connection.
    Background(Vec<Step>),
    /// Waits for the end of the background steps.
    Join,
    /// Sends FIN, and can go on reading.
    Fin,
    /// Sends RST.
    Rst,
    /// Closes the way a process does that forgets about the connection. Every script ends with it.
    Close,
    /// Keeps the connection open and untouched to the end of the case.
    Hold,
    /// Connects and closes again and again until that is refused, and marks the moment.
    Knock(&'static str),
}

/// The steps of one connection.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Script {
    steps: Vec<Step>,
}

/// An empty script.
pub fn script() -> Script {
    Script::default()
}

impl Script {
    /// The steps in order.
    pub fn steps(&self) -> &[Step] {
        &self.steps
    }

    /// Appends any step.
    pub fn step(mut self, step: Step) -> Script {
        self.steps.push(step);
        self
    }

    /// Appends all steps of `other`.
    pub fn then(mut self, other: Script) -> Script {
        self.steps.extend(other.steps);
        self
    }

    /// [`Step::Connect`].
    pub fn connect(self) -> Script {
        self.step(Step::Connect)
    }

    /// [`Step::Head`]: the lines, separated by `\n`; the line ends and the blank line are added.
    pub fn head(self, lines: &str) -> Script {
        let mut text = String::new();
        for line in lines.lines() {
            text.push_str(line.trim());
            text.push_str("\r\n");
        }
        text.push_str("\r\n");
        self.step(Step::Head(text))
    }

    /// A GET without a body.
    pub fn get(self, path: &str) -> Script {
        self.head(&format!("GET {path} HTTP/1.1\nhost: conformance"))
    }

    /// [`Step::Bytes`].
    pub fn bytes(self, bytes: impl AsRef<[u8]>) -> Script {
        self.step(Step::Bytes(bytes.as_ref().to_vec()))
    }

    /// [`Step::Body`] of `n` bytes.
    pub fn body(self, n: u64) -> Script {
        self.step(Step::Body(n))
    }

    /// [`Step::Chunk`].
    pub fn chunk(self, n: usize) -> Script {
        self.step(Step::Chunk(n))
    }

    /// [`Step::LastChunk`].
    pub fn last_chunk(self) -> Script {
        self.step(Step::LastChunk)
    }

    /// [`Step::Drip`].
    pub fn drip(self, size: usize, every: Duration, times: u32) -> Script {
        self.step(Step::Drip { size, every, times })
    }

    /// [`Step::ReadSome`].
    pub fn read_some(self) -> Script {
        self.step(Step::ReadSome)
    }

    /// [`Step::ReadHead`].
    pub fn read_head(self) -> Script {
        self.step(Step::ReadHead)
    }

    /// [`Step::ReadBody`].
    pub fn read_body(self, n: u64) -> Script {
        self.step(Step::ReadBody(n))
    }

    /// [`Step::ReadMessage`].
    pub fn read_message(self) -> Script {
        self.step(Step::ReadMessage)
    }

    /// [`Step::ReadToEnd`].
    pub fn read_to_end(self) -> Script {
        self.step(Step::ReadToEnd)
    }

    /// [`Step::Tunnel`].
    pub fn tunnel(self) -> Script {
        self.step(Step::Tunnel)
    }

    /// [`Step::Fin`].
    pub fn fin(self) -> Script {
        self.step(Step::Fin)
    }

    /// [`Step::Pause`].
    pub fn pause(self, d: Duration) -> Script {
        self.step(Step::Pause(d))
    }

    /// [`Step::At`].
    pub fn at(self, t: Duration) -> Script {
        self.step(Step::At(t))
    }

    /// [`Step::Mark`].
    pub fn mark(self, event: &'static str) -> Script {
        self.step(Step::Mark(event))
    }

    /// [`Step::WaitFor`].
    pub fn wait_for(self, event: &'static str) -> Script {
        self.step(Step::WaitFor(event))
    }

    /// [`Step::Snapshot`].
    pub fn snapshot(self, name: &'static str) -> Script {
        self.step(Step::Snapshot(name))
    }

    /// [`Step::Descriptor`].
    pub fn descriptor(self, of: usize, event: &'static str) -> Script {
        self.step(Step::Descriptor { of, event })
    }

    /// [`Step::Await`].
    pub fn wait_until(self, event: &'static str, syn_sent: usize, established: usize) -> Script {
        self.step(Step::Await { event, syn_sent, established })
    }

    /// [`Step::Background`].
    pub fn background(self, other: Script) -> Script {
        self.step(Step::Background(other.steps))
    }

    /// [`Step::Hold`].
    pub fn hold(self) -> Script {
        self.step(Step::Hold)
    }

    /// [`Step::Knock`].
    pub fn knock(self, event: &'static str) -> Script {
        self.step(Step::Knock(event))
    }
}
