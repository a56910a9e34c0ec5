//! The virtual network: connections, listeners, handshakes, and the wire between two ends.
//!
//! Every operation returns the packets that it puts on the wire, with their delay; the world schedules
//! them and hands each to [`Net::deliver`] when it arrives. A SYN that meets a full accept queue is
//! dropped and sent again after a second, then two, as Linux does.

use std::collections::{BTreeMap, VecDeque};
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::task::{Poll, Waker};
use std::time::Duration;

use tidegate_core::Instant;

use super::kernel::{End, Segment, segments};
use super::{HOP, LATENCY, Owner};

/// A connection, by its number.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct ConnId(usize);

/// One end of a connection: 0 opened it, 1 accepted it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(super) struct EndId {
    pub(super) conn: ConnId,
    pub(super) side: usize,
}

pub(super) enum Packet {
    Syn { conn: ConnId, attempt: u32 },
    SynAck { conn: ConnId },
    Refusal { conn: ConnId },
    Segment { to: EndId, segment: Segment },
}

type Sent = Vec<(Duration, Packet)>;

#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum Handshake {
    SynSent,
    Refused,
    Cancelled,
    Established,
}

struct Conn {
    handshake: Handshake,
    connect_waker: Option<Waker>,
    /// Who opened it, and from where.
    from: SocketAddr,
    to: SocketAddr,
    ends: [End; 2],
    /// When the last segment to each end arrives: the next one is not earlier.
    arrivals: [Instant; 2],
}

impl Conn {
    /// Whether who opened it has a descriptor of it.
    fn is_held(&self) -> bool {
        self.ends[0].open && !matches!(self.handshake, Handshake::Cancelled | Handshake::Refused)
    }
}

struct Port {
    owner: Owner,
    room: usize,
    queue: VecDeque<ConnId>,
    waker: Option<Waker>,
}

pub(super) struct Net {
    conns: BTreeMap<ConnId, Conn>,
    ports: BTreeMap<SocketAddr, Port>,
    next_conn: usize,
    next_port: u16,
    hop: usize,
}

impl Net {
    pub(super) fn new() -> Net {
        Net { conns: BTreeMap::new(), ports: BTreeMap::new(), next_conn: 0, next_port: 10_000, hop: HOP }
    }

    pub(super) fn set_hop(&mut self, hop: usize) {
        self.hop = hop;
    }

    /// A free address.
    pub(super) fn address(&mut self) -> SocketAddr {
        self.next_port += 1;
        SocketAddr::new(IpAddr::V4(Ipv4Addr::LOCALHOST), self.next_port)
    }

    pub(super) fn listen(&mut self, at: SocketAddr, owner: Owner, room: usize) {
        self.ports.insert(at, Port { owner, room, queue: VecDeque::new(), waker: None });
    }

    pub(super) fn set_room(&mut self, at: SocketAddr, room: usize) {
        if let Some(port) = self.ports.get_mut(&at) {
            port.room = room;
        }
    }

    /// Closes a listener; connections that nobody accepted are reset.
    pub(super) fn unlisten(&mut self, at: SocketAddr) -> Sent {
        let Some(port) = self.ports.remove(&at) else { return Vec::new() };
        port.queue.into_iter().flat_map(|conn| self.abort(EndId { conn, side: 1 })).collect()
    }

    pub(super) fn connect(&mut self, owner: Owner, to: SocketAddr) -> (ConnId, Sent) {
        let conn = ConnId(self.next_conn);
        self.next_conn += 1;
        let from = self.address();
        let ends = [End::new(owner, self.hop), End::new(Owner::Peer, self.hop)];
        let handshake = Handshake::SynSent;
        let arrivals = [Instant::EPOCH; 2];
        self.conns.insert(conn, Conn { handshake, connect_waker: None, from, to, ends, arrivals });
        (conn, vec![(LATENCY, Packet::Syn { conn, attempt: 0 })])
    }

    pub(super) fn poll_connect(&mut self, id: ConnId, waker: &Waker) -> Poll<io::Result<()>> {
        let Some(conn) = self.conns.get_mut(&id) else { return Poll::Pending };
        match conn.handshake {
            Handshake::Established => Poll::Ready(Ok(())),
            Handshake::Refused => Poll::Ready(Err(io::ErrorKind::ConnectionRefused.into())),
            Handshake::SynSent | Handshake::Cancelled => {
                conn.connect_waker = Some(waker.clone());
                Poll::Pending
            }
        }
    }

    /// The descriptor of a connection attempt is closed.
    pub(super) fn cancel_connect(&mut self, id: ConnId) -> Sent {
        let Some(conn) = self.conns.get_mut(&id) else { return Vec::new() };
        if conn.handshake == Handshake::Established {
            return self.close(EndId { conn: id, side: 0 });
        }
        conn.handshake = Handshake::Cancelled;
        // Nobody waits any more.
        conn.connect_waker = None;
        Vec::new()
    }

    pub(super) fn poll_accept(&mut self, at: SocketAddr, waker: &Waker) -> Poll<(EndId, SocketAddr)> {
        let Some(port) = self.ports.get_mut(&at) else { return Poll::Pending };
        let Some(conn) = port.queue.pop_front() else {
            port.waker = Some(waker.clone());
            return Poll::Pending;
        };
        let from = self.conns.get(&conn).map_or(at, |c| c.from);
        Poll::Ready((EndId { conn, side: 1 }, from))
    }

    pub(super) fn read(&mut self, id: EndId, buf: &mut [u8]) -> (io::Result<usize>, Sent) {
        let Some(conn) = self.conns.get_mut(&id.conn) else {
            return (Err(io::ErrorKind::NotConnected.into()), Vec::new());
        };
        let result = conn.ends[id.side].read(buf);
        // What was read made room for what the other end has still to send.
        (result, self.flush(EndId { conn: id.conn, side: 1 - id.side }))
    }

    pub(super) fn write(&mut self, id: EndId, bytes: &[u8]) -> (io::Result<usize>, Sent) {
        let result = self.end(id).map(|end| end.write(bytes));
        (result.unwrap_or_else(|| Err(io::ErrorKind::NotConnected.into())), self.flush(id))
    }

    pub(super) fn end(&mut self, id: EndId) -> Option<&mut End> {
        self.conns.get_mut(&id.conn).map(|conn| &mut conn.ends[id.side])
    }

    pub(super) fn shutdown_write(&mut self, id: EndId) -> Sent {
        if let Some(end) = self.end(id) {
            end.shutdown_write();
        }
        self.flush(id)
    }

    pub(super) fn close(&mut self, id: EndId) -> Sent {
        let answer = self.end(id).and_then(End::close);
        self.after_close(id, answer)
    }

    pub(super) fn abort(&mut self, id: EndId) -> Sent {
        let answer = self.end(id).and_then(End::abort);
        self.after_close(id, answer)
    }

    fn after_close(&mut self, id: EndId, answer: Option<Segment>) -> Sent {
        let mut sent = self.flush(id);
        sent.extend(answer.map(|segment| to_other(id, segment)));
        self.forget(id.conn);
        sent
    }

    /// Removes a connection of which nothing is left at either end.
    fn forget(&mut self, id: ConnId) {
        if self.conns.get(&id).is_some_and(|conn| conn.ends.iter().all(End::gone)) {
            self.conns.remove(&id);
        }
    }

    fn flush(&mut self, id: EndId) -> Sent {
        let Some(conn) = self.conns.get_mut(&id.conn) else { return Vec::new() };
        if conn.handshake != Handshake::Established {
            return Vec::new();
        }
        let [a, b] = &mut conn.ends;
        let out = if id.side == 0 { segments(a, b) } else { segments(b, a) };
        out.into_iter().map(|segment| to_other(id, segment)).collect()
    }

    /// When a packet arrives that would by its delay at `at`: what goes to one end does not overtake.
    pub(super) fn arrival(&mut self, packet: &Packet, at: Instant) -> Instant {
        let (conn, side) = match packet {
            Packet::Segment { to, .. } => (to.conn, to.side),
            // The first segment of the one who accepted does not come before this.
            Packet::SynAck { conn } => (*conn, 0),
            Packet::Syn { .. } | Packet::Refusal { .. } => return at,
        };
        let Some(conn) = self.conns.get_mut(&conn) else { return at };
        conn.arrivals[side] = conn.arrivals[side].max(at);
        conn.arrivals[side]
    }

    /// A packet arrives; what the kernels answer.
    pub(super) fn deliver(&mut self, packet: Packet) -> Sent {
        match packet {
            Packet::Syn { conn, attempt } => self.syn(conn, attempt),
            Packet::SynAck { conn: id } => {
                let Some(conn) = self.conns.get_mut(&id).filter(|c| c.handshake == Handshake::SynSent) else {
                    return Vec::new();
                };
                conn.handshake = Handshake::Established;
                wake(&mut conn.connect_waker);
                match self.ports.get_mut(&conn.to) {
                    Some(port) => {
                        conn.ends[1].owner = port.owner;
                        port.queue.push_back(id);
                        wake(&mut port.waker);
                        Vec::new()
                    }
                    None => self.abort(EndId { conn: id, side: 1 }),
                }
            }
            Packet::Refusal { conn } => {
                if let Some(conn) = self.conns.get_mut(&conn).filter(|c| c.handshake == Handshake::SynSent) {
                    conn.handshake = Handshake::Refused;
                    wake(&mut conn.connect_waker);
                }
                Vec::new()
            }
            Packet::Segment { to, segment } => {
                let answer = self.end(to).and_then(|end| end.deliver(segment));
                self.forget(to.conn);
                answer.map(|segment| to_other(to, segment)).into_iter().collect()
            }
        }
    }

    fn syn(&mut self, id: ConnId, attempt: u32) -> Sent {
        let Some(conn) = self.conns.get(&id).filter(|c| c.handshake == Handshake::SynSent) else {
            return Vec::new();
        };
        match self.ports.get(&conn.to) {
            None => vec![(LATENCY, Packet::Refusal { conn: id })],
            Some(port) if port.queue.len() < port.room => vec![(LATENCY, Packet::SynAck { conn: id })],
            Some(_) => {
                let wait = Duration::from_secs(1 << attempt.min(6));
                vec![(wait, Packet::Syn { conn: id, attempt: attempt + 1 })]
            }
        }
    }

    /// Connections that `owner` opened to `to` and that are in `SYN_SENT`.
    pub(super) fn syn_sent(&self, owner: Owner, to: SocketAddr) -> usize {
        self.opened(owner, to).filter(|conn| conn.handshake == Handshake::SynSent).count()
    }

    /// Connections that `owner` opened to `to` and that are `ESTABLISHED` at its end.
    pub(super) fn established(&self, owner: Owner, to: SocketAddr) -> usize {
        let up = |conn: &&Conn| conn.handshake == Handshake::Established && conn.ends[0].established();
        self.opened(owner, to).filter(up).count()
    }

    /// Connections that `owner` opened to `to` and holds a descriptor of.
    pub(super) fn open(&self, owner: Owner, to: SocketAddr) -> usize {
        self.opened(owner, to).filter(|conn| conn.is_held()).count()
    }

    /// Those of which it holds none, while bytes wait to be sent.
    pub(super) fn trickling(&self, owner: Owner, to: SocketAddr) -> usize {
        self.opened(owner, to).filter(|conn| conn.ends[0].trickles()).count()
    }

    fn opened(&self, owner: Owner, to: SocketAddr) -> impl Iterator<Item = &Conn> {
        self.conns.values().filter(move |conn| conn.ends[0].owner == owner && conn.to == to)
    }

    /// Descriptors that `owner` holds: connections, attempts and listeners.
    pub(super) fn descriptors(&self, owner: Owner) -> usize {
        let held = |conn: &Conn| {
            let [opener, accepter] = &conn.ends;
            let opener = opener.owner == owner && conn.is_held();
            let accepter =
                accepter.owner == owner && accepter.open && conn.handshake == Handshake::Established;
            usize::from(opener) + usize::from(accepter)
        };
        let ports = self.ports.values().filter(|port| port.owner == owner).count();
        ports + self.conns.values().map(held).sum::<usize>()
    }
}

fn to_other(id: EndId, segment: Segment) -> (Duration, Packet) {
    (LATENCY, Packet::Segment { to: EndId { conn: id.conn, side: 1 - id.side }, segment })
}

fn wake(waker: &mut Option<Waker>) {
    if let Some(waker) = waker.take() {
        waker.wake();
    }
}
