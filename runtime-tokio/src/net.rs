//! TCP on tokio: streams, connection attempts and listeners.
//!
//! Reads and writes go through tokio's readiness; FIN, RST and the direct calls go to the socket itself
//! (`tidegate_core::runtime`). There is no HTTP here, and no name resolution.

use std::future::Future;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tidegate_core::runtime;
use tokio::io::{AsyncRead, AsyncWrite, Interest, ReadBuf};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;

/// A TCP connection.
///
/// One that the application has accepted itself, and serves without a [`Listener`]:
///
/// ```
/// use tidegate_core::runtime::set_accepted;
/// use tidegate_core::{Config, Decision, Proxy, Report, RequestHead, Upstreams};
/// use tidegate_tokio::{Stream, Tokio};
/// use tokio::io::{AsyncReadExt, AsyncWriteExt};
///
/// # fn main() -> std::io::Result<()> {
/// # let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
/// # runtime.block_on(async {
/// let proxy = Proxy::new(Tokio::new()?, Upstreams::default(), Config::default());
/// // Closes idle upstream connections when their time is over; one for the proxy.
/// tokio::spawn(proxy.keeper());
///
/// let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
/// let mut client = tokio::net::TcpStream::connect(listener.local_addr()?).await?;
///
/// // For each client:
/// let (socket, peer) = listener.accept().await?;
/// set_accepted(&socket)?;
/// let route = |_: &RequestHead<'_>| Decision::respond(200, "well\n");
/// let observe = |report: &Report<'_>| assert!(report.peer.is_some());
/// let served = tokio::spawn(proxy.serve_connection(Stream::from(socket), Some(peer), route, observe));
///
/// client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: close\r\n\r\n").await?;
/// let mut response = String::new();
/// client.read_to_string(&mut response).await?;
/// assert!(response.ends_with("\r\n\r\nwell\n"));
/// served.await?;
/// # Ok(())
/// # })
/// # }
/// ```
#[derive(Debug)]
pub struct Stream(TcpStream);

impl runtime::Stream for Stream {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        let mut buf = ReadBuf::new(buf);
        ready!(Pin::new(&mut self.0).poll_read(cx, &mut buf))?;
        Poll::Ready(Ok(buf.filled().len()))
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write_vectored(cx, bufs)
    }

    fn set_bulk(&mut self, bulk: bool) {
        runtime::set_bulk(&self.0, bulk);
    }

    fn poll_shutdown_write(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(runtime::shutdown_write(&self.0))
    }

    fn poll_close(&mut self, _cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        // The close that follows is FIN.
        Poll::Ready(Ok(()))
    }

    fn abort(self) {
        runtime::abort(&self.0);
    }

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        runtime::try_read(&self.0, buf)
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        runtime::try_write_vectored(&self.0, bufs)
    }
}

impl AsFd for Stream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

impl From<TcpStream> for Stream {
    /// Takes the stream as it is. [`set_accepted`](runtime::set_accepted) prepares it as a [`Listener`] does: otherwise
    /// small writes may wait, and Linux holds megabytes of what the peer does not read.
    fn from(stream: TcpStream) -> Stream {
        Stream(stream)
    }
}

impl TryFrom<std::net::TcpStream> for Stream {
    type Error = io::Error;

    /// Prepares the socket ([`set_accepted`](runtime::set_accepted)) and registers it with the current runtime.
    ///
    /// # Errors
    ///
    /// The system's; and outside a runtime.
    ///
    /// # Panics
    ///
    /// In a runtime whose I/O driver is off, as tokio does. [`Tokio::new`](crate::Tokio::new) says so by an error.
    fn try_from(stream: std::net::TcpStream) -> io::Result<Stream> {
        crate::current()?;
        runtime::set_accepted(&stream)?;
        TcpStream::from_std(stream).map(Stream)
    }
}

/// A connection attempt. The socket is opened at the first poll; dropping the future closes it inline.
#[derive(Debug)]
#[must_use = "futures do nothing unless polled"]
pub struct Connect {
    handle: Handle,
    to: SocketAddr,
    socket: Option<TcpStream>,
}

impl Connect {
    pub(crate) fn new(handle: Handle, to: SocketAddr) -> Connect {
        Connect { handle, to, socket: None }
    }
}

impl Future for Connect {
    type Output = io::Result<Stream>;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<Stream>> {
        let socket = match self.socket.take() {
            Some(socket) => socket,
            None => {
                let _inside = self.handle.enter();
                TcpStream::from_std(runtime::start_connect(self.to)?)?
            }
        };
        // The kernel is asked before tokio, whose readiness may be late.
        let mut connected = runtime::connect_finished(&socket)?;
        while !connected {
            match socket.poll_write_ready(cx) {
                Poll::Ready(ready) => ready?,
                Poll::Pending => {
                    self.socket = Some(socket);
                    return Poll::Pending;
                }
            }
            // Inside `try_io` so that a "not yet" clears the readiness that brought us here.
            let look = || match runtime::connect_finished(&socket)? {
                true => Ok(()),
                false => Err(io::ErrorKind::WouldBlock.into()),
            };
            connected = match socket.try_io(Interest::WRITABLE, look) {
                Ok(()) => true,
                Err(e) if e.kind() == io::ErrorKind::WouldBlock => false,
                Err(e) => return Poll::Ready(Err(e)),
            };
        }
        Poll::Ready(Ok(Stream(socket)))
    }
}

/// A TCP listener.
#[derive(Debug)]
pub struct Listener {
    socket: TcpListener,
    inherits: bool,
}

impl Listener {
    /// Listens on `addr` with `SO_REUSEADDR`; port 0 lets the system choose.
    ///
    /// # Errors
    ///
    /// The system's, when the address is taken or not allowed; and where [`Tokio::new`](crate::Tokio::new) fails: outside
    /// a runtime, and in one whose I/O or time driver is off.
    pub fn bind(addr: SocketAddr) -> io::Result<Listener> {
        crate::Tokio::new()?;
        TcpListener::from_std(runtime::bind(addr)?).map(Listener::from)
    }

    /// The address that it listens on.
    ///
    /// # Errors
    ///
    /// The system's.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }
}

impl runtime::Listener for Listener {
    type Stream = Stream;

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<(Stream, Option<SocketAddr>)>> {
        let (stream, peer) = ready!(self.socket.poll_accept(cx))?;
        if !self.inherits {
            runtime::set_accepted(&stream)?;
        }
        Poll::Ready(Ok((Stream(stream), Some(peer))))
    }
}

impl From<TcpListener> for Listener {
    /// What it accepts is prepared as by [`set_accepted`](runtime::set_accepted).
    fn from(socket: TcpListener) -> Listener {
        let inherits = runtime::inherits(&socket);
        Listener { socket, inherits }
    }
}

impl TryFrom<std::net::TcpListener> for Listener {
    type Error = io::Error;

    /// Makes the socket nonblocking and registers it with the current runtime.
    ///
    /// # Errors
    ///
    /// The system's; and outside a runtime.
    ///
    /// # Panics
    ///
    /// In a runtime whose I/O driver is off, as tokio does. [`Tokio::new`](crate::Tokio::new) says so by an error.
    fn try_from(listener: std::net::TcpListener) -> io::Result<Listener> {
        crate::current()?;
        listener.set_nonblocking(true)?;
        TcpListener::from_std(listener).map(Listener::from)
    }
}
