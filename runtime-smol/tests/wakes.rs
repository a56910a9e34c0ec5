//! One wake is enough, also when async-io's reactor turns in a thread of its own, as it does under an executor that does not
//! drive it, and for all threads but one.

use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::task::{Context, Poll, Wake, Waker};
use std::time::Duration;

use tidegate_core::runtime::Stream as _;
use tidegate_smol::Stream;

const GUARD: Duration = Duration::from_secs(10);

struct Bell(SyncSender<()>);

impl Wake for Bell {
    fn wake(self: Arc<Self>) {
        assert!(!matches!(self.0.try_send(()), Err(TrySendError::Disconnected(()))), "somebody waits");
    }
}

fn bell() -> (Waker, Receiver<()>) {
    let (rings, rung) = sync_channel(1);
    (Waker::from(Arc::new(Bell(rings))), rung)
}

fn pair() -> io::Result<(Stream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let peer = TcpStream::connect(listener.local_addr()?)?;
    peer.set_nodelay(true)?;
    Ok((listener.accept()?.0.try_into()?, peer))
}

#[test]
fn what_has_come_is_read_at_the_first_wake() -> io::Result<()> {
    let (mut stream, mut peer) = pair()?;
    let (waker, rung) = bell();
    let cx = &mut Context::from_waker(&waker);
    for round in 0..200 {
        let mut buf = [0; 8];
        assert!(stream.poll_read(cx, &mut buf).is_pending());
        peer.write_all(b"x")?;
        rung.recv_timeout(GUARD).expect("a wake");
        assert!(matches!(stream.poll_read(cx, &mut buf), Poll::Ready(Ok(1))), "round {round}");
    }
    Ok(())
}

#[test]
fn room_is_used_at_the_first_wake() -> io::Result<()> {
    let (mut stream, mut peer) = pair()?;
    let (waker, rung) = bell();
    let cx = &mut Context::from_waker(&waker);
    let block = vec![b'x'; 64 * 1024];
    for round in 0..50 {
        let mut sent = 0;
        while let Poll::Ready(n) = stream.poll_write_vectored(cx, &[IoSlice::new(&block)]) {
            sent += n?;
        }
        let mut all = vec![0; sent];
        peer.read_exact(&mut all)?;
        rung.recv_timeout(GUARD).expect("a wake");
        assert!(stream.poll_write_vectored(cx, &[IoSlice::new(b"y")]).is_ready(), "round {round}");
        peer.read_exact(&mut [0])?;
    }
    Ok(())
}
