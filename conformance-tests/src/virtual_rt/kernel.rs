//! One end of a virtual connection, as the kernel keeps it: buffers, FIN, RST, and who waits.
//!
//! Follows what Linux was seen to do on loopback: bytes received before an RST can still be read; an RST throws
//! away what its sender had not transmitted and what its receiver had not sent; closing with unread bytes sends
//! RST, without them FIN; after a plain close the kernel goes on delivering what it had accepted. Knows no
//! addresses and no time.

use std::collections::VecDeque;
use std::io::{self, Read, Write};
use std::mem;
use std::task::Waker;

use super::Owner;

/// The most one packet carries, as on loopback.
const SEGMENT: usize = 64 * 1024;

/// One end of a connection.
pub(super) struct End {
    pub(super) owner: Owner,
    /// Whether a descriptor refers to it.
    pub(super) open: bool,
    /// Whether the connection is over by RST, sent or received.
    pub(super) reset: bool,
    /// Reported by the next read or write, once.
    error: Option<io::ErrorKind>,
    unsent: VecDeque<u8>,
    send_room: usize,
    fin_wanted: bool,
    pub(super) fin_sent: bool,
    received: VecDeque<u8>,
    receive_room: usize,
    /// Bytes on the wire to this end.
    in_flight: usize,
    fin_received: bool,
    read_waker: Option<Waker>,
    write_waker: Option<Waker>,
}

/// What one end puts on the wire.
pub(super) enum Segment {
    Data(Vec<u8>),
    Fin,
    Rst,
}

impl End {
    /// An end of a connection each direction of which holds `hop` bytes.
    pub(super) fn new(owner: Owner, hop: usize) -> End {
        End {
            owner,
            open: true,
            reset: false,
            error: None,
            unsent: VecDeque::new(),
            send_room: hop / 2,
            fin_wanted: false,
            fin_sent: false,
            received: VecDeque::new(),
            receive_room: hop / 2,
            in_flight: 0,
            fin_received: false,
            read_waker: None,
            write_waker: None,
        }
    }

    /// Takes received bytes. [`io::ErrorKind::WouldBlock`] if there is nothing yet; zero at the end.
    pub(super) fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if !self.received.is_empty() {
            return self.received.read(buf);
        }
        if self.fin_received {
            // A reset that comes after FIN is for writers alone.
            return Ok(0);
        }
        match self.error.take() {
            Some(kind) => Err(kind.into()),
            None if self.reset => Ok(0),
            None => Err(io::ErrorKind::WouldBlock.into()),
        }
    }

    /// Accepts bytes to send.
    pub(super) fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if let Some(kind) = self.error.take() {
            return Err(kind.into());
        }
        if self.reset || self.fin_wanted {
            return Err(io::ErrorKind::BrokenPipe.into());
        }
        let n = bytes.len().min(self.send_room - self.unsent.len());
        if n == 0 && !bytes.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.unsent.write(&bytes[..n])
    }

    pub(super) fn wait_read(&mut self, waker: &Waker) {
        self.read_waker = Some(waker.clone());
    }

    pub(super) fn wait_write(&mut self, waker: &Waker) {
        self.write_waker = Some(waker.clone());
    }

    /// Wants a FIN behind what is unsent.
    pub(super) fn shutdown_write(&mut self) {
        self.fin_wanted = true;
    }

    /// The descriptor is closed the plain way; says whether that takes an RST.
    pub(super) fn close(&mut self) -> Option<Segment> {
        self.forget_descriptor();
        if self.reset {
            return None;
        }
        if self.received.is_empty() {
            self.fin_wanted = true;
            return None;
        }
        self.abort()
    }

    /// The descriptor is closed with `SO_LINGER` zero.
    pub(super) fn abort(&mut self) -> Option<Segment> {
        self.forget_descriptor();
        if self.reset {
            return None;
        }
        self.reset = true;
        self.unsent.clear();
        // Another handle's task may wait on it.
        wake(&mut self.read_waker);
        wake(&mut self.write_waker);
        Some(Segment::Rst)
    }

    /// Nothing refers to it any more, and nobody waits.
    fn forget_descriptor(&mut self) {
        self.open = false;
        (self.read_waker, self.write_waker) = (None, None);
    }

    /// A segment from the other end; what this end's kernel answers.
    pub(super) fn deliver(&mut self, segment: Segment) -> Option<Segment> {
        match segment {
            Segment::Data(bytes) => {
                self.in_flight -= bytes.len();
                if self.reset {
                    return None;
                }
                if !self.open {
                    return self.abort();
                }
                self.received.extend(&bytes);
                wake(&mut self.read_waker);
            }
            Segment::Fin => {
                self.fin_received = true;
                wake(&mut self.read_waker);
            }
            Segment::Rst => {
                if !self.reset {
                    self.reset = true;
                    self.error = Some(if self.fin_received {
                        io::ErrorKind::BrokenPipe
                    } else {
                        io::ErrorKind::ConnectionReset
                    });
                    self.unsent.clear();
                }
                wake(&mut self.read_waker);
                wake(&mut self.write_waker);
            }
        }
        None
    }

    /// Whether this end can still move bytes both ways, as `ESTABLISHED` says.
    pub(super) fn established(&self) -> bool {
        self.open && !self.reset && !self.fin_sent
    }

    /// Whether the kernel goes on delivering what it had accepted.
    pub(super) fn trickles(&self) -> bool {
        !self.open && !self.reset && !self.unsent.is_empty()
    }

    /// Whether RST came, or went, before the other end's FIN: what can be read is not all.
    pub(super) fn cut(&self) -> bool {
        self.reset && !self.fin_received
    }

    /// Whether nothing is left of it in the kernel.
    pub(super) fn gone(&self) -> bool {
        !self.open && (self.reset || (self.fin_sent && self.unsent.is_empty()))
    }
}

/// What `from` can put on the wire to `to` now.
pub(super) fn segments(from: &mut End, to: &mut End) -> Vec<Segment> {
    let mut out = Vec::new();
    if from.reset {
        return out;
    }
    while !from.unsent.is_empty() {
        let window = to.receive_room.saturating_sub(to.received.len() + to.in_flight);
        let n = from.unsent.len().min(window).min(SEGMENT);
        if n == 0 {
            break;
        }
        to.in_flight += n;
        let rest = from.unsent.split_off(n);
        out.push(Segment::Data(mem::replace(&mut from.unsent, rest).into()));
        wake(&mut from.write_waker);
    }
    if from.fin_wanted && !from.fin_sent && from.unsent.is_empty() {
        from.fin_sent = true;
        out.push(Segment::Fin);
    }
    out
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
