//! Socket operations that every adapter needs and no runtime offers alike: FIN, RST, one direct read
//! or write, and the two ends of a nonblocking connect (`timeouts.md` 1.3, rules 4 and 6).

use std::io::{self, IoSlice, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::time::Duration;

use socket2::{Domain, Protocol, SockRef, Socket, Type};

/// How many bytes the kernel takes that it has not sent yet.
///
/// By default that is megabytes, and "not writable" only means that less than a third of them is free: a
/// direct write to a peer that reads nothing then still succeeds for a long time, and would pass for
/// progress. With this limit a socket that says that it is full is full, and a connection's share of
/// the kernel's memory is bounded.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT: u32 = 128 * 1024;

/// The options of every stream: nonblocking, small writes at once, and a bounded send queue.
fn set_stream_options(socket: &Socket) -> io::Result<()> {
    socket.set_nonblocking(true)?;
    socket.set_tcp_nodelay(true)?;
    #[cfg(any(target_os = "linux", target_os = "android"))]
    socket.set_tcp_notsent_lowat(UNSENT)?;
    Ok(())
}

/// Begins a nonblocking connect and returns the socket that is connecting (or already connected).
pub fn start_connect(to: SocketAddr) -> io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(to), Type::STREAM, Some(Protocol::TCP))?;
    set_stream_options(&socket)?;
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
/// yet, an error if the attempt failed. Asks the kernel, not a cached readiness.
pub fn connect_finished(stream: &impl AsFd) -> io::Result<bool> {
    let socket = SockRef::from(stream);
    if let Some(e) = socket.take_error()? {
        return Err(e);
    }
    match socket.peer_addr() {
        Ok(_) => Ok(true),
        Err(e) if e.kind() == io::ErrorKind::NotConnected => Ok(false),
        Err(e) => Err(e),
    }
}

/// A listening socket: nonblocking, with `SO_REUSEADDR`, and a backlog of 1,024.
pub fn bind(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.bind(&addr.into())?;
    socket.listen(1024)?;
    socket.set_nonblocking(true)?;
    Ok(socket.into())
}

/// Prepares an accepted socket: nonblocking, small writes at once, a bounded send queue.
pub fn set_accepted(stream: &impl AsFd) -> io::Result<()> {
    set_stream_options(&SockRef::from(stream))
}

/// Sends FIN.
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
pub fn try_read(stream: &impl AsFd, buf: &mut [u8]) -> io::Result<usize> {
    (&*SockRef::from(stream)).read(buf)
}

/// One direct vectored write, whatever readiness the runtime believes in.
pub fn try_write_vectored(stream: &impl AsFd, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
    (&*SockRef::from(stream)).write_vectored(bufs)
}
