//! Socket operations that every adapter needs and no runtime offers alike: FIN, RST, one direct read
//! or write, and the two ends of a nonblocking connect.

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// Begins a nonblocking connect and returns the socket that is connecting (or already connected). Dropping it gives the
/// attempt up.
///
/// # Errors
///
/// The system's, if there is no descriptor for it, or if the attempt failed at once.
pub fn start_connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    set_accepted(&socket)?;
    match socket.connect(&to.into()) {
        Ok(()) => {}
        Err(e) if in_progress(&e) => {}
        Err(e) => return Err(e),
    }
    Ok(socket.into())
}

fn in_progress(e: &io::Error) -> bool {
    // EINPROGRESS has no stable `ErrorKind`: 115 on Linux, 36 on macOS and the BSDs.
    const EINPROGRESS: i32 = if cfg!(any(target_os = "linux", target_os = "android")) { 115 } else { 36 };
    e.raw_os_error() == Some(EINPROGRESS)
}

/// Whether a socket from [`start_connect`] is connected by now: `Ok(true)` connected, `Ok(false)` not
/// yet. Asks the kernel, not a cached readiness.
///
/// # Errors
///
/// Why the attempt failed. A socket that is connected to itself has been refused: nobody listens there.
pub fn connect_finished(stream: &impl AsFd) -> io::Result<bool> {
    let socket = SockRef::from(stream);
    if let Some(e) = socket.take_error()? {
        return Err(e);
    }
    match socket.peer_addr() {
        // Where nobody listens on a port that the system may choose for our end, the two ends can be one socket.
        Ok(peer) if peer == socket.local_addr()? => {
            // Without the wait that would keep the port from whoever is to listen there.
            abort(stream);
            Err(io::ErrorKind::ConnectionRefused.into())
        }
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(e) => Err(e),
    }
}

/// Clients that may wait to be accepted: what the system allows by default today.
const BACKLOG: i32 = 4096;

/// A listening socket: nonblocking, with `SO_REUSEADDR`, and a backlog of 4,096, or what the system
/// allows if that is less. On Linux it passes on to whoever comes what [`set_accepted`] sets ([`inherits`]).
///
/// # Errors
///
/// The system's, when the address is taken or not allowed.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    // Before it listens: who is in its queue has inherited already.
    set_options(&socket)?;
    socket.listen(BACKLOG)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// What the kernel takes of a socket's bytes before it can send them: one block. Left to itself, Linux takes megabytes of what a
/// peer does not read; and what is passed on to it fast widens the window of where it comes from, for more megabytes. A
/// thousand such peers bring it to drop everybody's packets. Besides, it calls the socket writable again only when a third
/// of that has gone, so that a peer that reads slowly shows no progress for long.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 64 * 1024;

/// The same while a long body comes fast: some of the largest blocks, so that one can be sent while the next is read.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_BULK: u32 = 2 * 1024 * 1024;

/// Prepares an accepted socket: nonblocking, small writes at once, and on Linux at most 64 KiB in the kernel that are
/// not on their way.
///
/// # Errors
///
/// The system's: it is no TCP socket.
pub fn set_accepted(stream: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(stream);
    socket.set_nonblocking(true)?;
    set_options(&socket)
}

/// Whether what `listener` accepts has inherited what [`set_accepted`] sets, so that all that such a socket still lacks is
/// being nonblocking: on Linux, if [`bind`] has made the listener. It saves two calls for each client.
///
/// On another listener nothing is set for that: clients may be in its queue who would not have it.
pub fn inherits(listener: &impl AsFd) -> bool {
    has_options(&SockRef::from(listener))
}

#[cfg(any(target_os = "linux", target_os = "android"))]
fn has_options(socket: &Socket) -> bool {
    socket.tcp_notsent_lowat().is_ok_and(|most| most == UNSENT) && socket.tcp_nodelay().is_ok_and(|on| on)
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn has_options(_socket: &Socket) -> bool {
    false
}

fn set_options(socket: &Socket) -> io::Result<()> {
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(UNSENT)?;
    socket.set_tcp_nodelay(true)
}

/// How much the kernel takes while the socket's peer does not: 2 MiB for a long body that comes fast, else 64 KiB. On Linux; elsewhere
/// the system's own rules hold.
pub fn set_bulk(stream: &impl AsFd, bulk: bool) {
    // Fails only on a descriptor that is no TCP socket; then there is nothing to set.
    #[cfg(any(target_os = "linux", target_os = "android"))]
    let _ = SockRef::from(stream).set_tcp_notsent_lowat(if bulk { UNSENT_BULK } else { UNSENT });
    #[cfg(not(any(target_os = "linux", target_os = "android")))]
    let _ = (stream, bulk);
}

/// Sends FIN.
///
/// # Errors
///
/// The system's; but none if the peer is gone already.
pub fn shutdown_write(stream: &impl AsFd) -> io::Result<()> {
    match SockRef::from(stream).shutdown(Shutdown::Write) {
        // The peer is gone already: there is nobody left to tell.
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(()),
        other => other,
    }
}

/// Makes the close that follows send RST. The caller drops the stream at once.
pub fn abort(stream: &impl AsFd) {
    // Fails only on a descriptor that is no socket; the close that follows is then all there is to do.
    let _ = SockRef::from(stream).set_linger(Some(Duration::ZERO));
}

/// One direct read, whatever readiness the runtime believes in.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] if nothing has come; else the system's.
pub fn try_read(stream: &impl AsFd, buf: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(stream)).read(buf)
}

/// One direct vectored write, whatever readiness the runtime believes in, if the kernel calls the socket
/// writable.
///
/// A write alone would not tell: a socket that is not writable (less than a third of its send buffer is
/// free) still takes bytes, for minutes if each attempt comes at a deadline, and a peer that reads nothing
/// would pass for one that makes progress. Readiness as the kernel reports it is what all runtimes wait for.
///
/// # Errors
///
/// [`io::ErrorKind::WouldBlock`] if it is not writable; else the system's.
pub fn try_write_vectored(stream: &impl AsFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut fds = [PollFd::new(stream, PollFlags::OUT)];
    if poll(&mut fds, Some(&Timespec::default()))? == 0 {
        return Err(io::ErrorKind::WouldBlock.into());
    }
    (&*SockRef::from(stream)).write_vectored(bufs)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[cfg(any(target_os = "linux", target_os = "android"))]
    #[test]
    #[cfg_attr(miri, ignore = "Miri has no kernel whose sockets it could ask")]
    fn the_kernel_takes_little_for_a_peer_that_reads_nothing() {
        let taken = |bulk: &[bool]| {
            let (stream, _deaf) = pair();
            bulk.iter().for_each(|bulk| set_bulk(&stream, *bulk));
            fill(&stream)
        };
        // It is on its way as far as the peer's window goes.
        let few = taken(&[]);
        assert!((UNSENT as usize..1 << 20).contains(&few), "{few}");
        let many = taken(&[true]);
        assert!(many > few + UNSENT as usize, "{many}, {few}");
        let again = taken(&[true, false]);
        assert!(again < 1 << 20, "{again}");
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no kernel whose sockets it could ask")]
    fn what_a_listener_passes_on_need_not_be_set_again() {
        for any in ["127.0.0.1:0", "[::1]:0"] {
            let Ok(listener) = bind(any.parse().expect("an address")) else { continue };
            let linux = cfg!(any(target_os = "linux", target_os = "android"));
            assert_eq!(inherits(&listener), linux);
            let _peer = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
            listener.set_nonblocking(false).expect("a plain option");
            let (stream, _) = listener.accept().expect("somebody has connected");
            let socket = SockRef::from(&stream);
            assert_eq!(socket.tcp_nodelay().expect("an option"), linux);
            #[cfg(any(target_os = "linux", target_os = "android"))]
            assert_eq!(socket.tcp_notsent_lowat().expect("an option"), UNSENT);
            // What is no socket is not served the quick way, nor is what others have made.
            assert!(!inherits(&TcpListener::bind(any).expect("a free port")));
            assert!(!inherits(&std::fs::File::open("/dev/null").expect("it is there everywhere")));
        }
    }

    #[test]
    #[cfg_attr(miri, ignore = "Miri has no kernel whose sockets it could ask")]
    fn a_socket_that_is_connected_to_itself_was_refused() {
        let any: SocketAddr = ([127, 0, 0, 1], 0).into();
        let socket = || Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP)).expect("a socket");
        let itself = socket();
        itself.bind(&any.into()).expect("a free port");
        let own = itself.local_addr().expect("an address");
        itself.connect(&own).expect("an open from both sides (RFC 9293 section 3.5), which are one");
        assert!(connect_finished(&itself).is_err_and(|e| e.kind() == io::ErrorKind::ConnectionRefused));
        drop(itself);
        socket().bind(&own).expect("without SO_REUSEADDR: the port is free at once");

        let listener = TcpListener::bind(any).expect("a free port");
        let other = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
        assert!(connect_finished(&other).expect("it is connected"));
    }

    /// An accepted socket, and a peer that reads nothing.
    fn pair() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let deaf = TcpStream::connect(listener.local_addr().expect("an address")).expect("it listens");
        let (stream, _) = listener.accept().expect("somebody has connected");
        set_accepted(&stream).expect("plain options");
        (stream, deaf)
    }

    /// Writes until the kernel takes no more.
    fn fill(stream: &TcpStream) -> usize {
        let (block, mut taken) = (vec![b'x'; 64 * 1024], 0);
        loop {
            match try_write_vectored(stream, &[IoSlice::new(&block)]) {
                Ok(n) => taken += n,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => return taken,
                Err(e) => panic!("{e}"),
            }
        }
    }
}
