//! A and V on the runtime itself, continued: a process that is stopped from outside, and a real run that is played
//! again (`timeouts.md` A-20, V-13).

use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::pin::pin;
use std::thread;
use std::time::{Duration, Instant};

use tidegate_core::runtime::{self, Listener};
use tidegate_core::{Config, Decision, Proxy, Report, RequestHead, TimeoutPolicy, Upstreams};

use crate::child::{Child, Orders};
use crate::exec::block;
use crate::harness::{ClientStream, Harness};
use crate::replay::{Asked, Tape, Taped, TapedStream, Told};
use crate::run_live::{Live, read_head};
use crate::script::ms;

/// The whole process is stopped past its limits, which no scheduler can route around. Half of a body that has come
/// meanwhile is a read, and saves the read deadline; it is not the end, and does not save the total.
pub fn a_20_whole_process_stopped<H: Harness>(live: &Live) {
    const READ: Duration = ms(200);
    let succeeds = TimeoutPolicy { read: Some(READ), ..TimeoutPolicy::OFF };
    let ends = TimeoutPolicy { total: Some(ms(400)), ..succeeds };
    for (policy, expected) in [(succeeds, "success"), (ends, "total")] {
        if let Err(why) = stopped::<H>(live, policy, expected) {
            live.expect(false, format!("{why} (limits: read {:?}, total {:?})", policy.read, policy.total));
        }
    }
}

/// The words are what was expected to happen.
fn stopped<H: Harness>(live: &Live, policy: TimeoutPolicy, expected: &str) -> Result<(), String> {
    let say = |what: &str| what.to_owned();
    let back = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).map_err(|_| say("to be able to listen"))?;
    let upstream = back.local_addr().map_err(|_| say("an address"))?;
    let orders = Orders { policy: live.limits(policy), upstream };
    let child = match live.test() {
        Some(test) => Child::start(&test, orders).map_err(|e| format!("a child process: {e}"))?,
        None => Child::here::<H>(orders),
    };
    let at: SocketAddr =
        child.says().and_then(|at| at.parse().ok()).ok_or_else(|| say("the child to serve"))?;

    let mut client = TcpStream::connect(at).map_err(|e| format!("the child to accept: {e}"))?;
    let _ = client.set_read_timeout(Some(Duration::from_secs(2)));
    let _ = client.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    // The proxy connects before it has anything to send, so this ends or the kernel refuses.
    let (mut server, _) = back.accept().map_err(|e| format!("the child to connect: {e}"))?;
    let _ = server.set_read_timeout(Some(Duration::from_secs(2)));
    read_head(&mut server).ok_or_else(|| say("a request"))?;
    let _ = server.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\n");
    read_head(&mut client).ok_or_else(|| say("a response head"))?;

    let began = Instant::now();
    live.expect(child.stop(), "the child to stand still");
    thread::sleep(ms(300));
    let _ = server.write_all(b"hello");
    // Longer than each limit by half, whenever it began.
    thread::sleep(ms(600).saturating_sub(began.elapsed()));
    live.expect(child.go_on(), "the child to go on");

    let mut half = [0; 5];
    let read = client.read_exact(&mut half);
    if expected == "success" {
        live.expect(read.is_ok() && half == *b"hello", "what had come by the end of the stop to count");
        let _ = server.write_all(b"world");
        let read = client.read_exact(&mut half);
        live.expect(read.is_ok() && half == *b"world", "the rest");
    } else {
        live.expect(read.is_err() || half == *b"hello", "a prefix of the body");
        let rest = client.read(&mut half);
        live.expect(!matches!(rest, Ok(1..)), "no further byte after the cut");
    }
    let ended = child.says();
    live.expect(ended.as_deref() == Some(expected), format!("{expected}, not {ended:?}"));
    Ok(())
}

/// A real run, recorded at the border between the driver and the runtime, and played again without a runtime: every
/// operation, every armed instant and every outcome is the same, to the nanosecond.
pub fn v_13_replay<H: Harness>(live: &Live) {
    for requests in [&["/", "/", "/part"][..], &["/", "/silent"]] {
        let Some(tape) = record::<H>(requests) else { return live.expect(false, "a recording") };
        let played = tape.rewound();
        let policy = live.limits(LIMITS);
        // On a thread of its own, as the recording was: blocks that a thread keeps are lent to the next connection.
        let replayed = thread::scope(|scope| scope.spawn(|| replay::<H>(&played, policy)).join().is_ok());
        live.expect(replayed && tape.len() > 50, format!("a replay of a recording: {} events", tape.len()));
        let wrong = played.wrong();
        live.expect_certain(
            wrong.is_none(),
            format!("the replay of {requests:?} to decide alike: {wrong:?}"),
        );
    }
}

const LIMITS: TimeoutPolicy =
    TimeoutPolicy { read: Some(ms(60)), linger: Some(ms(60)), keep_alive: Some(ms(60)), ..crate::script::P };

/// Where the upstream is said to be. A replay connects to nobody.
fn answers(mut stream: TcpStream) {
    while let Some(head) = read_head(&mut stream) {
        let _ = match head.split(' ').nth(1) {
            Some("/part") => stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 10\r\n\r\nhello"),
            Some("/silent") => Ok(()),
            _ => stream
                .write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
                .and_then(|()| stream.write_all(&[b'x'; 100_000])),
        };
    }
}

fn record<H: Harness>(requests: &'static [&str]) -> Option<Tape> {
    let front = runtime::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0))).ok()?;
    let at = front.local_addr().ok()?;
    let back = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).ok()?;
    let behind = back.local_addr().ok()?;
    let upstream = thread::spawn(move || back.accept().map(|(stream, _)| answers(stream)));
    let client = thread::spawn(move || -> std::io::Result<()> {
        let mut stream = TcpStream::connect(at)?;
        stream.set_read_timeout(Some(Duration::from_secs(5)))?;
        for path in requests {
            write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")?;
            let Some(head) = read_head(&mut stream) else { break };
            let length = if head.contains("content-length: 100000") { 100_000 } else { 5 };
            stream.read_exact(&mut vec![0; length])?;
        }
        std::io::copy(&mut stream, &mut std::io::sink()).map(drop)
    });
    let tape = Tape::default();
    let recorded = tape.clone();
    let recorder = thread::spawn(move || {
        H::block_on(|runtime| async move {
            let Ok(mut listener) = H::listener(front) else { return };
            let Ok((stream, _)) = poll_fn(|cx| listener.poll_accept(cx)).await else { return };
            let stream = TapedStream::client(Some(stream), &recorded);
            let runtime = Taped::new(Some(runtime), &recorded);
            connection::<H>(runtime, stream, behind, LIMITS).await;
        });
    });
    let ran = recorder.join().is_ok();
    let _ = client.join();
    // If nobody connected, it waits for somebody.
    drop(TcpStream::connect(behind));
    let _ = upstream.join();
    ran.then_some(tape)
}

fn replay<H: Harness>(tape: &Tape, policy: TimeoutPolicy) {
    let stream: TapedStream<ClientStream<H>> = TapedStream::client(None, tape);
    let runtime: Taped<H::Runtime> = Taped::new(None, tape);
    let Some(behind) = tape.connects_to() else { return };
    block(connection::<H>(runtime, stream, behind, policy));
}

/// A client's connection and everything that it does, up to its end, or to where a replay differs.
async fn connection<H: Harness>(
    runtime: Taped<H::Runtime>,
    stream: TapedStream<ClientStream<H>>,
    behind: SocketAddr,
    policy: TimeoutPolicy,
) {
    let tape = runtime.tape.clone();
    let replays = runtime.runtime.is_none();
    let config = Config { timeouts: policy, ..Config::default() };
    let proxy = Proxy::new(runtime, Upstreams::new([behind]), config);
    let heard = tape.clone();
    let observe = move |report: &Report<'_>| {
        heard.ask(Asked::Observed(format!("{:?}", report.outcome)), || Told::Nothing);
    };
    let route = |_: &RequestHead<'_>| Decision::forward();
    let mut connection = pin!(proxy.serve_connection(stream, None, route, observe));
    if replays {
        while tape.polls() && tape.poll(connection.as_mut(), None).is_pending() {}
    } else {
        poll_fn(|cx| tape.poll(connection.as_mut(), Some(cx))).await;
    }
    tape.end();
}
