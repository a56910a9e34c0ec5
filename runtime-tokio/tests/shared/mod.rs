//! What every adapter's own tests check, over real sockets: written once, run by each adapter crate
//! through `#[path]`. The peers are plain `std::net`, so that an adapter cannot be wrong at both ends.
//!
//! These are the promises of the traits alone; the proxy on top is the conformance suite's.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::os::fd::AsFd;
use std::pin::{Pin, pin};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};
use tidegate_core::runtime::{Listener, ResolverPool, Runtime, Stream, Timer};
use tidegate_core::{Config, Decision, Instant, Proxy, Report, Target, TimeoutPolicy, Upstreams};

/// One `#[test]` per function of this module. `$run` is called with a closure from the runtime to a future;
/// `$bind` makes a listener of the adapter's and says where it listens.
#[macro_export]
macro_rules! adapter_tests {
    ($run:path, $bind:path) => {
        $crate::adapter_tests!(@each $run;
            fin_is_the_end_of_the_stream_for_the_peer,
            abort_is_a_reset_for_the_peer,
            a_stream_dropped_closes_inline,
            a_vectored_write_keeps_the_order,
            a_blocked_write_goes_on_when_the_peer_reads,
            a_refused_connect_says_so,
            connect_opens_its_socket_at_the_first_poll,
            a_dropped_connect_closes_its_socket_inline,
            try_read_ignores_cached_readiness,
            a_timer_unarmed_or_far_is_pending,
            a_timer_in_the_past_fires_at_once,
            a_timer_can_be_armed_earlier,
            a_timer_can_be_armed_later,
            a_timer_can_be_armed_again_after_it_fired,
        );
        #[test]
        fn a_listener_accepts_and_says_who() {
            $run(|_| shared::a_listener_accepts_and_says_who($bind));
        }
        #[test]
        fn who_was_in_the_queue_of_a_listener_that_is_taken_over_is_prepared_too() {
            $run(|_| shared::who_was_in_the_queue_is_prepared_too($bind));
        }
        #[test]
        fn s_04_a_lookup_that_hangs_holds_no_process_up() {
            shared::in_a_process_of_its_own("s_04_a_lookup_that_hangs_holds_no_process_up", || {
                $run(shared::drained_during_a_lookup);
            });
        }
    };
    (@each $run:path; $($name:ident),* $(,)?) => {
        $(#[test]
        fn $name() {
            $run(shared::$name);
        })*
    };
}

const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);
/// Only bounds a test that would otherwise hang.
const PATIENCE: Duration = Duration::from_secs(10);

fn poll_once<F: Future>(future: Pin<&mut F>) -> Poll<F::Output> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A stream of the adapter's, connected to a plain one.
async fn pair<R: Runtime>(rt: &R) -> (R::Stream, TcpStream) {
    let listener = TcpListener::bind(LOCALHOST).unwrap();
    let ours = rt.connect(listener.local_addr().unwrap()).await.unwrap();
    let (theirs, _) = listener.accept().unwrap();
    theirs.set_read_timeout(Some(PATIENCE)).unwrap();
    (ours, theirs)
}

async fn read(stream: &mut impl Stream, buf: &mut [u8]) -> io::Result<usize> {
    poll_fn(|cx| stream.poll_read(cx, buf)).await
}

async fn write(stream: &mut impl Stream, bufs: &[&[u8]]) -> io::Result<usize> {
    let bufs: Vec<_> = bufs.iter().map(|b| IoSlice::new(b)).collect();
    poll_fn(|cx| stream.poll_write_vectored(cx, &bufs)).await
}

pub(crate) async fn fin_is_the_end_of_the_stream_for_the_peer<R: Runtime>(rt: R) {
    let (mut ours, mut theirs) = pair(&rt).await;
    assert_eq!(write(&mut ours, &[b"last"]).await.unwrap(), 4);
    poll_fn(|cx| ours.poll_shutdown_write(cx)).await.unwrap();
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"last");

    // The other direction is still open.
    theirs.write_all(b"more").unwrap();
    drop(theirs);
    let mut buf = [0; 16];
    assert_eq!(read(&mut ours, &mut buf).await.unwrap(), 4);
    assert_eq!(read(&mut ours, &mut buf).await.unwrap(), 0, "the peer's FIN");
}

pub(crate) async fn abort_is_a_reset_for_the_peer<R: Runtime>(rt: R) {
    let (ours, mut theirs) = pair(&rt).await;
    ours.abort();
    let error = theirs.read(&mut [0; 16]).unwrap_err();
    assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
}

pub(crate) async fn a_stream_dropped_closes_inline<R: Runtime>(rt: R) {
    let (mut ours, mut theirs) = pair(&rt).await;
    // With a read that waits, so that the reactor holds a waker.
    assert!(poll_once(pin!(read(&mut ours, &mut [0; 16]))).is_pending());
    drop(ours);
    theirs.set_nonblocking(true).unwrap();
    assert_eq!(theirs.read(&mut [0; 16]).unwrap(), 0, "there already, without a turn of the runtime");
}

pub(crate) async fn a_vectored_write_keeps_the_order<R: Runtime>(rt: R) {
    let (mut ours, mut theirs) = pair(&rt).await;
    assert_eq!(write(&mut ours, &[b"one ", b"", b"two ", b"three"]).await.unwrap(), 13);
    assert_eq!(ours.try_write_vectored(&[IoSlice::new(b" fo"), IoSlice::new(b"ur")]).unwrap(), 5);
    drop(ours);
    let mut got = String::new();
    theirs.read_to_string(&mut got).unwrap();
    assert_eq!(got, "one two three four");
}

pub(crate) async fn a_blocked_write_goes_on_when_the_peer_reads<R: Runtime>(rt: R) {
    let (mut ours, mut theirs) = pair(&rt).await;
    let block = vec![7; 64 * 1024];
    let mut sent = write(&mut ours, &[&block]).await.unwrap();
    while let Poll::Ready(n) = poll_once(pin!(write(&mut ours, &[&block]))) {
        sent += n.unwrap();
    }
    let full = ours.try_write_vectored(&[IoSlice::new(&block)]);
    assert_eq!(full.unwrap_err().kind(), io::ErrorKind::WouldBlock);

    let reader = std::thread::spawn(move || io::copy(&mut theirs, &mut io::sink()).unwrap());
    sent += write(&mut ours, &[&block]).await.unwrap();
    drop(ours);
    assert_eq!(reader.join().unwrap(), sent as u64);
}

pub(crate) async fn a_refused_connect_says_so<R: Runtime>(rt: R) {
    // Bound and not listening: refused, and nobody else can take the port meanwhile.
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&LOCALHOST.into()).unwrap();
    let closed = socket.local_addr().unwrap().as_socket().unwrap();
    let error = rt.connect(closed).await.err().expect("nobody listens");
    assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
}

/// A listener whose backlog is full: later connects stay in SYN_SENT. The stream keeps it full.
fn stalled() -> (Socket, TcpStream, SocketAddr) {
    let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
    socket.bind(&LOCALHOST.into()).unwrap();
    socket.listen(0).unwrap();
    let addr = socket.local_addr().unwrap().as_socket().unwrap();
    let filler = TcpStream::connect(addr).unwrap();
    (socket, filler, addr)
}

/// The inodes of the sockets that are in SYN_SENT (state 02) towards `to`.
fn connecting(to: SocketAddr) -> Vec<String> {
    let remote = format!("0100007F:{:04X}", to.port());
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap();
    let rows = table.lines().map(|line| line.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row[2] == remote && row[3] == "02").map(|row| row[9].to_string()).collect()
}

/// Whether this process holds a descriptor of the socket.
fn open(inode: &str) -> bool {
    let wanted = format!("socket:[{inode}]");
    let fds = std::fs::read_dir("/proc/self/fd").unwrap().flatten();
    fds.filter_map(|fd| std::fs::read_link(fd.path()).ok()).any(|link| link.as_os_str() == wanted.as_str())
}

pub(crate) async fn connect_opens_its_socket_at_the_first_poll<R: Runtime>(rt: R) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let (_listener, _filler, addr) = stalled();
    let mut connect = pin!(rt.connect(addr));
    assert!(connecting(addr).is_empty());
    for _ in 0..3 {
        assert!(poll_once(connect.as_mut()).is_pending());
        assert_eq!(connecting(addr).len(), 1);
    }
}

pub(crate) async fn a_dropped_connect_closes_its_socket_inline<R: Runtime>(rt: R) {
    if !cfg!(target_os = "linux") {
        return;
    }
    let (_listener, _filler, addr) = stalled();
    let mut connect = Box::pin(rt.connect(addr));
    assert!(poll_once(connect.as_mut()).is_pending());
    let inode = connecting(addr).pop().expect("a SYN is out");
    assert!(open(&inode));
    drop(connect);
    assert!(!open(&inode));
    assert!(connecting(addr).is_empty());
}

pub(crate) async fn try_read_ignores_cached_readiness<R: Runtime>(rt: R) {
    let (mut ours, mut theirs) = pair(&rt).await;
    let mut buf = [0; 16];
    assert_eq!(ours.try_read(&mut buf).unwrap_err().kind(), io::ErrorKind::WouldBlock);
    theirs.write_all(b"ab").unwrap();
    assert_eq!(read(&mut ours, &mut buf).await.unwrap(), 2, "a short read: tokio now believes it is empty");

    theirs.write_all(b"cd").unwrap();
    let started = std::time::Instant::now();
    // No await in here, so the runtime has no turn in which to learn of the bytes.
    let got = loop {
        match ours.try_read(&mut buf[..1]) {
            Err(e) if e.kind() == io::ErrorKind::WouldBlock && started.elapsed() < PATIENCE => {
                std::thread::yield_now();
            }
            done => break done.unwrap(),
        }
    };
    assert_eq!((got, buf[0]), (1, b'c'));
    assert_eq!(read(&mut ours, &mut buf).await.unwrap(), 1, "and what was left is still announced");
    assert_eq!(buf[0], b'd');
}

pub(crate) async fn a_listener_accepts_and_says_who<L: Listener<Stream: AsFd>>(
    bind: fn(SocketAddr) -> io::Result<(L, SocketAddr)>,
) {
    let (mut listener, addr) = bind(LOCALHOST).unwrap();
    assert!(listener.poll_accept(&mut Context::from_waker(Waker::noop())).is_pending());
    let mut theirs = TcpStream::connect(addr).unwrap();
    let (mut ours, peer) = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
    assert_eq!(peer, Some(theirs.local_addr().unwrap()));
    is_prepared(&ours);

    assert_eq!(ours.try_read(&mut [0; 16]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "nonblocking");
    theirs.write_all(b"hello").unwrap();
    let mut buf = [0; 16];
    assert_eq!(read(&mut ours, &mut buf).await.unwrap(), 5);
    assert_eq!(write(&mut ours, &[b"hi"]).await.unwrap(), 2);
    drop(ours);
    let mut got = Vec::new();
    theirs.read_to_end(&mut got).unwrap();
    assert_eq!(got, b"hi");
}

/// A listener that others have made, such as that of a service manager, has had its clients before it is anybody's here.
/// `_bind` names the type.
pub(crate) async fn who_was_in_the_queue_is_prepared_too<L>(
    _bind: fn(SocketAddr) -> io::Result<(L, SocketAddr)>,
) where
    L: Listener<Stream: AsFd> + TryFrom<TcpListener, Error = io::Error>,
{
    let listener = TcpListener::bind(LOCALHOST).unwrap();
    let addr = listener.local_addr().unwrap();
    let _before = TcpStream::connect(addr).unwrap();
    let mut listener = L::try_from(listener).unwrap();
    let _after = TcpStream::connect(addr).unwrap();
    for _ in 0..2 {
        let (mut ours, _) = poll_fn(|cx| listener.poll_accept(cx)).await.unwrap();
        is_prepared(&ours);
        assert_eq!(ours.try_read(&mut [0; 16]).unwrap_err().kind(), io::ErrorKind::WouldBlock, "nonblocking");
    }
}

/// As `runtime::set_accepted` does it.
fn is_prepared(stream: &impl AsFd) {
    assert!(SockRef::from(stream).tcp_nodelay().unwrap());
    #[cfg(target_os = "linux")]
    assert_eq!(SockRef::from(stream).tcp_notsent_lowat().unwrap(), 64 * 1024);
}

const SHORT: Duration = Duration::from_millis(20);
const LONG: Duration = Duration::from_secs(30);

/// Waits for the timer, and checks that `at` has come and that a long wait did not happen.
async fn fires<R: Runtime>(rt: &R, mut timer: Pin<&mut R::Timer>, at: Instant) {
    poll_fn(|cx| timer.as_mut().poll_fired(cx)).await;
    let now = rt.now();
    assert!(now >= at, "early: {now} before {at}");
    assert!(now < at + LONG / 2, "the long wait, not the short one");
}

pub(crate) async fn a_timer_unarmed_or_far_is_pending<R: Runtime>(rt: R) {
    let mut cx = Context::from_waker(Waker::noop());
    let mut timer = pin!(rt.timer());
    assert!(timer.as_mut().poll_fired(&mut cx).is_pending());
    for far in [rt.now() + LONG, Instant::NEVER, Instant::from_nanos(u64::MAX - 1)] {
        timer.as_mut().arm(far);
        assert!(timer.as_mut().poll_fired(&mut cx).is_pending());
    }
}

pub(crate) async fn a_timer_in_the_past_fires_at_once<R: Runtime>(rt: R) {
    for past in [Instant::EPOCH, rt.now()] {
        let mut timer = pin!(rt.timer());
        timer.as_mut().arm(past);
        fires(&rt, timer.as_mut(), past).await;
    }
}

pub(crate) async fn a_timer_can_be_armed_earlier<R: Runtime>(rt: R) {
    let mut timer = pin!(rt.timer());
    let now = rt.now();
    timer.as_mut().arm(now + LONG);
    assert!(timer.as_mut().poll_fired(&mut Context::from_waker(Waker::noop())).is_pending());
    timer.as_mut().arm(now + SHORT);
    fires(&rt, timer, now + SHORT).await;
}

pub(crate) async fn a_timer_can_be_armed_later<R: Runtime>(rt: R) {
    let mut timer = pin!(rt.timer());
    let now = rt.now();
    timer.as_mut().arm(now + SHORT);
    // Polled by another task first: its waker must not be the one that is remembered.
    assert!(timer.as_mut().poll_fired(&mut Context::from_waker(Waker::noop())).is_pending());
    timer.as_mut().arm(now + 3 * SHORT);
    fires(&rt, timer, now + 3 * SHORT).await;
}

pub(crate) async fn a_timer_can_be_armed_again_after_it_fired<R: Runtime>(rt: R) {
    let mut timer = pin!(rt.timer());
    for _ in 0..3 {
        let at = rt.now() + SHORT;
        timer.as_mut().arm(at);
        assert!(
            timer.as_mut().poll_fired(&mut Context::from_waker(Waker::noop())).is_pending(),
            "spent no more"
        );
        fires(&rt, timer.as_mut(), at).await;
    }
}

/// Runs `test` in a child, and checks that the child ends long before a lookup that hangs does.
pub(crate) fn in_a_process_of_its_own(name: &str, test: impl FnOnce()) {
    const IN_CHILD: &str = "TIDEGATE_TEST_CHILD";
    if std::env::var_os(IN_CHILD).is_some() {
        return test();
    }
    let began = std::time::Instant::now();
    let mut child = Command::new(std::env::current_exe().unwrap());
    assert!(child.args(["--exact", name]).env(IN_CHILD, "1").status().unwrap().success());
    assert!(began.elapsed() < PATIENCE, "the process ended after {:?}", began.elapsed());
}

/// A proxy that is drained while a name is looked up, which takes far longer than the drain may.
pub(crate) async fn drained_during_a_lookup<R: Runtime>(rt: R) {
    let (ours, mut client) = pair(&rt).await;
    let begun = Arc::new(AtomicBool::new(false));
    let begins = Arc::clone(&begun);
    let resolver = ResolverPool::with_lookup(1, Duration::ZERO, move |_| {
        begins.store(true, Ordering::Release);
        thread::sleep(3 * PATIENCE);
        Ok(Vec::new())
    });
    let upstreams = Upstreams::new(["slow.test:80".parse::<Target>().unwrap()]);
    let timeouts = TimeoutPolicy { drain: Some(Duration::from_millis(100)), ..TimeoutPolicy::OFF };
    let config = Config { timeouts, ..Config::default() };
    let proxy = Proxy::with_resolver(rt, upstreams, config, Arc::new(resolver));
    let route = |_: &tidegate_core::RequestHead<'_>| Decision::forward();
    let mut served = pin!(proxy.serve_connection(ours, None, route, |_: &Report<'_>| {}));
    client.write_all(b"GET / HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    poll_fn(|cx| {
        if served.as_mut().poll(cx).is_ready() || begun.load(Ordering::Acquire) {
            return Poll::Ready(());
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
    proxy.drain();
    // It lingers for a client that goes on sending; this one is done.
    client.shutdown(std::net::Shutdown::Write).unwrap();
    served.await;
    let mut answer = String::new();
    client.read_to_string(&mut answer).unwrap();
    assert!(answer.starts_with("HTTP/1.1 504 ") && answer.contains("details=\"drain\""), "{answer}");
}
