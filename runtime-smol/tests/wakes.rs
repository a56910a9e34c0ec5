//! What has come is heard of at the first wake that is for it, also when async-io's reactor turns in a thread of its own, as it does under an executor that does not
//! drive it, and for all threads but one.

use std::io::{self, IoSlice, Read, Write};
use std::net::{TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, TrySendError, sync_channel};
use std::task::{Context, Poll, Wake, Waker};
use std::time::{Duration, Instant};

use tidegate_core::runtime::Stream as _;
use tidegate_smol::Stream;

/// One, and one that had been asked for before.
const MOST: usize = 2;

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

/// How many wakes it takes.
fn wakes_until(rung: &Receiver<()>, mut poll: impl FnMut() -> Poll<()>) -> usize {
    (1..)
        .find(|_| {
            rung.recv_timeout(GUARD).expect("a wake");
            poll().is_ready()
        })
        .unwrap_or(usize::MAX)
}

fn pair() -> io::Result<(Stream, TcpStream)> {
    let listener = TcpListener::bind("127.0.0.1:0")?;
    let peer = TcpStream::connect(listener.local_addr()?)?;
    peer.set_nodelay(true)?;
    Ok((listener.accept()?.0.try_into()?, peer))
}

#[test]
fn what_has_come_is_read_without_further_wakes() -> io::Result<()> {
    let (mut stream, mut peer) = pair()?;
    let (waker, rung) = bell();
    let cx = &mut Context::from_waker(&waker);
    for round in 0..200 {
        let mut buf = [0; 8];
        assert!(stream.poll_read(cx, &mut buf).is_pending());
        peer.write_all(b"x")?;
        let wakes =
            wakes_until(&rung, || stream.poll_read(cx, &mut buf).map(|read| assert!(matches!(read, Ok(1)))));
        assert!(wakes <= MOST, "round {round}: {wakes}");
    }
    Ok(())
}

#[test]
fn room_is_used_without_further_wakes() -> io::Result<()> {
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
        let wakes = wakes_until(&rung, || {
            stream.poll_write_vectored(cx, &[IoSlice::new(b"y")]).map(|sent| assert!(sent.is_ok()))
        });
        assert!(wakes <= MOST, "round {round}: {wakes}");
        peer.read_exact(&mut [0])?;
    }
    Ok(())
}

/// A waker keeps its task's memory, and an idle connection may lie in a pool for long.
#[test]
fn a_waker_is_kept_no_longer_than_its_operation_is_pending() -> io::Result<()> {
    let (mut stream, mut peer) = pair()?;
    let (rings, rung) = sync_channel(1);
    let task = Arc::new(Bell(rings));
    let waker = Waker::from(Arc::clone(&task));
    let cx = &mut Context::from_waker(&waker);
    let own = Arc::strong_count(&task);
    // The reactor's thread lets go of what it has just woken when it comes round to it.
    let let_go = || {
        let until = Instant::now() + GUARD;
        while Arc::strong_count(&task) > own {
            assert!(Instant::now() < until, "{} handles are left", Arc::strong_count(&task) - own);
            std::thread::yield_now();
        }
    };

    let block = vec![b'x'; 64 * 1024];
    let mut sent = 0;
    while let Poll::Ready(n) = stream.poll_write_vectored(cx, &[IoSlice::new(&block)]) {
        sent += n?;
    }
    assert!(Arc::strong_count(&task) > own, "it waits");
    peer.read_exact(&mut vec![0; sent])?;
    wakes_until(&rung, || {
        stream.poll_write_vectored(cx, &[IoSlice::new(b"y")]).map(|sent| assert!(sent.is_ok()))
    });
    let_go();

    let mut buf = [0; 8];
    assert!(stream.poll_read(cx, &mut buf).is_pending());
    assert!(Arc::strong_count(&task) > own, "it waits");
    peer.write_all(b"x")?;
    wakes_until(&rung, || stream.poll_read(cx, &mut buf).map(|read| assert!(read.is_ok())));
    let_go();
    Ok(())
}
