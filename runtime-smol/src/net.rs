//! TCP on async-io: streams, connection attempts and listeners.
//!
//! An operation tries the system call first; once it came back short or with `WouldBlock`, it waits for the
//! reactor before the next one (`awaited.rs`). FIN, RST and the direct calls are those of `tidegate_core::runtime`:
//! `close()` of async-io sends no FIN.

use std::future::Future;
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use async_io::Async;
use tidegate_core::runtime;

use crate::awaited::Awaited;

/// A TCP connection.
///
/// Another kind of stream, here a Unix socket, is served by [`FuturesIo`](tidegate_core::runtime::FuturesIo), and
/// accepted by the application:
///
/// ```
/// # #[cfg(feature = "executor")]
/// # fn main() -> std::io::Result<()> {
/// use smol::io::{AsyncReadExt, AsyncWriteExt};
/// use smol::net::unix::UnixStream;
/// use tidegate_core::runtime::FuturesIo;
/// use tidegate_core::{Config, Decision, Proxy, Report, RequestHead, Upstreams};
/// use tidegate_smol::Smol;
///
/// smol::block_on(async {
///     let proxy = Proxy::new(Smol::new(), Upstreams::default(), Config::default());
///     // Closes idle upstream connections when their time is over; one for the proxy.
///     let keeper = smol::spawn(proxy.keeper());
///
///     let (mut client, socket) = UnixStream::pair()?;
///     // For each client. A Unix socket knows no RST: to abort it is to close it.
///     let stream = FuturesIo::new(socket, drop);
///     let route = |_: &RequestHead<'_>| Decision::respond(200, "well\n");
///     let observe = |report: &Report<'_>| assert_eq!(report.peer, None);
///     let served = smol::spawn(proxy.serve_connection(stream, None, route, observe));
///
///     client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
///     let mut response = String::new();
///     client.read_to_string(&mut response).await?;
///     assert!(response.ends_with("\r\n\r\nwell\n"));
///     served.await;
///     proxy.stop();
///     keeper.await;
///     Ok(())
/// })
/// # }
/// # #[cfg(not(feature = "executor"))]
/// # fn main() {}
/// ```
#[derive(Debug)]
pub struct Stream {
    io: Async<TcpStream>,
    /// The last read emptied the socket: another call would only learn that it still is.
    drained: bool,
    readable: Awaited,
    /// The last write filled the socket. The kernel goes on to take a few bytes at a time from there, which is
    /// no progress: it counts as writable when the kernel says so, as it does on every runtime.
    filled: bool,
    writable: Awaited,
}

impl Stream {
    fn new(io: Async<TcpStream>) -> Stream {
        Stream {
            io,
            drained: false,
            readable: Awaited::default(),
            filled: false,
            writable: Awaited::default(),
        }
    }
}

impl runtime::Stream for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        loop {
            if self.drained {
                ready!(self.readable.poll(cx, |cx| self.io.poll_readable(cx)))?;
            }
            let result = self.io.get_ref().read(buf);
            self.drained = came_short(&result, buf.len());
            if !would_block(&result) {
                return Poll::Ready(result);
            }
        }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let result = if self.filled {
                ready!(self.writable.poll(cx, |cx| self.io.poll_writable(cx)))?;
                // It may have been filled again since.
                runtime::try_write_vectored(&self.io, bufs)
            } else {
                self.io.get_ref().write_vectored(bufs)
            };
            self.filled = came_short(&result, bufs.iter().map(|buf| buf.len()).sum());
            if !would_block(&result) {
                return Poll::Ready(result);
            }
        }
    }

    fn set_bulk(&mut self, bulk: bool) {
        runtime::set_bulk(&self.io, bulk);
    }

    fn poll_shutdown_write(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(runtime::shutdown_write(&self.io))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The close that follows is FIN.
        Poll::Ready(Ok(()))
    }

    fn abort(self) {
        runtime::abort(&self.io);
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        runtime::try_read(&self.io, buf)
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        runtime::try_write_vectored(&self.io, bufs)
    }
}

/// Whether there was less to do than was asked for: the next call would find nothing.
fn came_short(result: &io::Result<usize>, asked: usize) -> bool {
    result.as_ref().map_or(true, |n| *n < asked)
}

fn would_block(result: &io::Result<usize>) -> bool {
    result.as_ref().is_err_and(|e| e.kind() == io::ErrorKind::WouldBlock)
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.io.as_fd()
    }
}

impl From<Async<TcpStream>> for Stream {
    /// Takes the stream as it is. [`set_accepted`](runtime::set_accepted) prepares it as a [`Listener`] does: otherwise
    /// small writes may wait, and Linux holds megabytes of what the peer does not read.
    fn from(stream: Async<TcpStream>) -> Stream {
        Stream::new(stream)
    }
}

impl TryFrom<TcpStream> for Stream {
    type Error = io::Error;

    /// Prepares the socket ([`set_accepted`](runtime::set_accepted)) and registers it with the reactor.
    ///
    /// # Errors
    ///
    /// The system's.
    fn try_from(stream: TcpStream) -> io::Result<Stream> {
        runtime::set_accepted(&stream)?;
        Async::new_nonblocking(stream).map(Stream::new)
    }
}

/// A connection attempt. The socket is opened at the first poll; dropping the future closes it inline.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Connect {
    to: SocketAddr,
    socket: Option<Async<TcpStream>>,
}

impl Connect {
    pub(crate) fn new(to: SocketAddr) -> Connect {
        Connect { to, socket: None }
    }
}

impl Future for Connect {
    type Output = io::Result<Stream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => Async::new_nonblocking(runtime::start_connect(self.to)?)?,
        };
        // The kernel is asked before the reactor, whose event may be late.
        while !runtime::connect_finished(&socket)? {
            match socket.poll_writable(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    self.socket = Some(socket);
                    return Poll::Pending;
                }
            }
        }
        Poll::Ready(Ok(Stream::new(socket)))
    }
}

/// A TCP listener.
#[derive(Debug)]
pub struct Listener {
    socket: Async<TcpListener>,
    inherits: bool,
}

impl Listener {
    /// Listens on `addr` with `SO_REUSEADDR`; port 0 lets the system choose.
    ///
    /// # Errors
    ///
    /// The system's, when the address is taken or not allowed.
    pub fn bind(addr: SocketAddr) -> io::Result<Listener> {
        Async::new_nonblocking(runtime::bind(addr)?).map(Listener::from)
    }

    /// The address that it listens on.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.get_ref().local_addr()
    }
}

impl runtime::Listener for Listener {
    type Stream = Stream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Option<SocketAddr>)>> {
        let (stream, peer) = loop {
            match self.socket.get_ref().accept() {
                Ok(accepted) => break accepted,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => ready!(self.socket.poll_readable(cx))?,
                Err(e) => return Poll::Ready(Err(e)),
            }
        };
        let stream = if self.inherits { Async::new(stream)?.into() } else { Stream::try_from(stream)? };
        Poll::Ready(Ok((stream, Some(peer))))
    }
}

impl From<Async<TcpListener>> for Listener {
    /// What it accepts is prepared as by [`set_accepted`](runtime::set_accepted).
    fn from(socket: Async<TcpListener>) -> Listener {
        let inherits = runtime::inherits(&socket);
        Listener { socket, inherits }
    }
}

impl TryFrom<TcpListener> for Listener {
    type Error = io::Error;

    /// Makes the socket nonblocking and registers it with the reactor.
    ///
    /// # Errors
    ///
    /// The system's.
    fn try_from(listener: TcpListener) -> io::Result<Listener> {
        Async::new(listener).map(Listener::from)
    }
}
