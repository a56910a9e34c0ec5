//! The connections of this machine, asked of the kernel directly (Linux: netlink, `sock_diag(7)`).
//!
//! `/proc/net/tcp` says the same, but lists every connection that ended in the last minute too. On a machine that has
//! made ten thousand of them, reading it takes a tenth of a second, in which the kernel delays everybody: more than the
//! limits of most cases. Asked here is only for what is of interest.

use std::io::{self, Read};

use socket2::{Domain, Protocol, Socket, Type};

use crate::gauges::{Row, TcpState};

const AF_INET: u8 = 2;
const AF_NETLINK: i32 = 16;
const NETLINK_SOCK_DIAG: i32 = 4;
const IPPROTO_TCP: u8 = 6;
const SOCK_DIAG_BY_FAMILY: u16 = 20;
/// `NLM_F_REQUEST | NLM_F_DUMP`.
const DUMP: u16 = 0x301;
const NLMSG_ERROR: u16 = 2;
const NLMSG_DONE: u16 = 3;
/// `struct nlmsghdr`.
const HEADER: usize = 16;
/// `struct inet_diag_req_v2`.
const REQUEST: usize = 56;

/// Every connection over IPv4 that is on its way, established, or not yet over at one of its ends.
pub(crate) fn rows() -> io::Result<Vec<Row>> {
    let socket =
        Socket::new(Domain::from(AF_NETLINK), Type::from(3), Some(Protocol::from(NETLINK_SOCK_DIAG)))?;
    socket.send(&request())?;
    let (mut rows, mut buf) = (Vec::new(), vec![0; 64 << 10]);
    loop {
        let n = (&socket).read(&mut buf)?;
        let mut rest = &buf[..n];
        while let Some((kind, body, next)) = message(rest) {
            match kind {
                NLMSG_DONE => return Ok(rows),
                NLMSG_ERROR => return Err(io::ErrorKind::Unsupported.into()),
                _ => rows.extend(row(body)),
            }
            rest = next;
        }
    }
}

fn request() -> Vec<u8> {
    let mut request = Vec::with_capacity(HEADER + REQUEST);
    request.extend(((HEADER + REQUEST) as u32).to_ne_bytes());
    request.extend(SOCK_DIAG_BY_FAMILY.to_ne_bytes());
    request.extend(DUMP.to_ne_bytes());
    request.extend([0; 8]);
    request.extend([AF_INET, IPPROTO_TCP, 0, 0]);
    // ESTABLISHED, SYN_SENT, FIN_WAIT1, FIN_WAIT2, CLOSE_WAIT, LAST_ACK and CLOSING.
    let states = [1, 2, 4, 5, 8, 9, 11].iter().fold(0_u32, |mask, state| mask | 1 << state);
    request.extend(states.to_ne_bytes());
    // Any addresses.
    request.resize(HEADER + REQUEST, 0);
    request
}

/// The kind and the body of the first message, and what follows it.
fn message(bytes: &[u8]) -> Option<(u16, &[u8], &[u8])> {
    let len = u32::from_ne_bytes(bytes.get(..4)?.try_into().ok()?) as usize;
    let kind = u16::from_ne_bytes(bytes.get(4..6)?.try_into().ok()?);
    let next = bytes.get(len.next_multiple_of(4)..).unwrap_or_default();
    Some((kind, bytes.get(HEADER..len)?, next))
}

/// `struct inet_diag_msg`.
fn row(body: &[u8]) -> Option<Row> {
    let state = match body.get(1)? {
        1 => TcpState::Established,
        2 => TcpState::SynSent,
        other => TcpState::Other(*other),
    };
    let port = |at: usize| Some(u16::from_be_bytes(body.get(at..at + 2)?.try_into().ok()?));
    let number = |at: usize| Some(u32::from_ne_bytes(body.get(at..at + 4)?.try_into().ok()?));
    let (queued, inode) = (number(60)?, number(68)?.into());
    Some(Row { local_port: port(4)?, remote_port: port(6)?, state, inode, queued })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::net::{TcpListener, TcpStream};

    #[test]
    fn a_connection_has_two_ends() -> io::Result<()> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let mut stream = TcpStream::connect(listener.local_addr()?)?;
        let (client, server) = (stream.local_addr()?.port(), listener.local_addr()?.port());
        let find = |from, to| -> io::Result<Option<Row>> {
            Ok(rows()?.into_iter().find(|row| (row.local_port, row.remote_port) == (from, to)))
        };
        for (from, to, has_descriptor) in [(client, server, true), (server, client, false)] {
            let row = find(from, to)?.expect("a row");
            assert_eq!((row.state, row.inode != 0), (TcpState::Established, has_descriptor), "{row:?}");
        }
        // Nobody reads: what the other end has no room for stays here, also when the descriptor is gone.
        stream.set_nonblocking(true)?;
        while stream.write(&[0; 1 << 16]).is_ok() {}
        drop(stream);
        let row = find(client, server)?.expect("a row");
        assert_eq!((row.state, row.inode), (TcpState::Other(4), 0));
        assert!(row.queued > 1000, "{row:?}");
        Ok(())
    }
}
