//! H and A on the runtime itself: what is counted, weighed, cut off or stopped from outside. Each is a function
//! over a harness.

use std::future::{Future, poll_fn};
use std::io::{self, IoSlice, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::pin::pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier, Mutex};
use std::task::{Context, Poll};
use std::thread;
use std::time::{Duration, Instant};

use tidegate_core::runtime::{Runtime, Stream};
use tidegate_core::{
    Config, DeadlineKind, Decision, Error, Proxy, Report, RequestHead, TimeoutPolicy, Upstreams,
};

pub use super::dropped::{h_08_cancel_at_every_event, h_09_panic_in_a_user_hook, h_10_no_cycles};
pub use super::outside::{a_20_whole_process_stopped, v_13_replay};
pub use super::timers::{a_08_waker_swapped, a_14_ten_thousand_equal_deadlines, a_15_arm_cancel_churn};
use crate::board::lock;
use crate::gauges;
use crate::harness::Harness;
use crate::run_live::*;
use crate::run_virtual::Observe;
use crate::script::{P, ms};
use crate::verdict::slack;

type Seen = Arc<Mutex<Vec<Option<Error>>>>;

fn watch() -> (Seen, Observe) {
    let seen = Seen::default();
    let noted = Arc::clone(&seen);
    (seen, Box::new(move |report: &Report<'_>| lock(&noted).push(report.error)))
}

fn kind(error: &Option<Error>) -> Option<DeadlineKind> {
    match error {
        Some(Error::Timeout(t)) => Some(t.kind),
        _ => None,
    }
}

/// One task a client, none an operation: ten clients with three requests each, one of which times out.
pub fn h_03_tasks<H: Harness>(live: &Live) {
    let (seen, observe) = watch();
    let left = site::<H>(live, TimeoutPolicy { read: Some(ms(60)), ..P }, answers_the_root, observe, |at| {
        let clients: Vec<_> = (0..10).map(|_| thread::spawn(move || three_requests(at))).collect();
        clients.into_iter().for_each(|c| drop(c.join()));
    });
    left.check(live);
    live.expect_certain(left.spawned == 10, format!("ten tasks to be spawned, not {}", left.spawned));
    let timeouts = lock(&seen).iter().filter(|e| kind(e) == Some(DeadlineKind::Read)).count();
    live.expect(timeouts == 10, format!("ten timeouts, not {timeouts}"));
}

fn three_requests(at: SocketAddr) -> io::Result<()> {
    let mut stream = TcpStream::connect(at)?;
    stream.set_read_timeout(Some(Duration::from_millis(500)))?;
    for path in ["/", "/silent", "/"] {
        write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\n\r\n")?;
        let head = read_head(&mut stream).unwrap_or_default();
        let field = head.to_ascii_lowercase();
        let length = field.split("content-length: ").nth(1).and_then(|l| l.lines().next()?.parse().ok());
        stream.read_exact(&mut vec![0; length.unwrap_or(0)])?;
    }
    Ok(())
}

/// A read that a timeout cancels, again and again: no timer armed beyond one a connection, none afterwards.
pub fn h_04_timers<H: Harness>(live: &Live) {
    cancelled_reads::<H>(live, |left| {
        left.surplus_timers == 0 && (left.held.timers, left.held.armed) == (0, 0)
    });
}

/// The waker of a cancelled read goes with its socket, and wakes nobody afterwards. (One that another thread is about to call
/// when the task ends is no fault; one for each of the sixteen connections is.)
pub fn h_05_wakers<H: Harness>(live: &Live) {
    cancelled_reads::<H>(live, |left| left.held.wakers == 0 && left.late_wakes < 4);
}

fn cancelled_reads<H: Harness>(live: &Live, holds: impl Fn(&Left) -> bool) {
    let (seen, observe) = watch();
    let left = site::<H>(live, TimeoutPolicy { read: Some(ms(30)), ..P }, answers_the_root, observe, |at| {
        let get = |_| thread::spawn(move || get(at, "/silent"));
        (0..2).for_each(|_| (0..8).map(get).collect::<Vec<_>>().into_iter().for_each(|c| drop(c.join())));
    });
    live.expect(holds(&left), format!("nothing left: {left:?}"));
    let cancelled = lock(&seen).iter().filter(|e| kind(e) == Some(DeadlineKind::Read)).count();
    live.expect(cancelled == 16, format!("16 cancelled reads, not {cancelled}"));
}

/// Timeouts, each with 64 KiB in the proxy: memory is flat over nine hundred, after the first three hundred.
pub fn h_06_buffers<H: Harness>(live: &Live) {
    let half = |mut stream: TcpStream| {
        if read_head(&mut stream).is_some() {
            let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n");
            let _ = stream.write_all(&[b'x'; 65_536]);
            let _ = stream.read(&mut [0]);
        }
    };
    let (seen, observe) = watch();
    let sizes = Mutex::new(Vec::new());
    let rounds = if live.is_spoilt() { 1 } else { 24 };
    // No other deadline comes first, however late the machine is.
    let policy = TimeoutPolicy { read: Some(ms(10)), linger: P.linger, ..TimeoutPolicy::OFF };
    let left = site::<H>(live, policy, half, observe, |at| {
        for _ in 0..rounds {
            let all_there = Arc::new(Barrier::new(50));
            let get = |_| {
                let all_there = Arc::clone(&all_there);
                thread::spawn(move || {
                    all_there.wait();
                    get(at, "/").map(|text| text.len())
                })
            };
            (0..50).map(get).collect::<Vec<_>>().into_iter().for_each(|c| drop(c.join()));
            lock(&sizes).push(gauges::resident());
        }
    });
    left.check(live);
    let timeouts = lock(&seen).iter().filter(|e| kind(e) == Some(DeadlineKind::Read)).count();
    live.expect(timeouts == 1200, format!("1,200 timeouts, not {timeouts}"));
    let sizes = lock(&sizes).clone();
    // What peers and allocators need at most they have had by the sixth round; on a busy machine not yet by the second.
    let (first, later) = sizes.split_at(sizes.len() / 4);
    if let (Some(first), Some(last)) = (first.iter().max(), later.last()) {
        // Less than 10 percent, whatever else there is by now.
        let most = first + (first / 10).min(4 << 20);
        live.expect_certain(*last <= most, format!("memory to be flat: {sizes:?}"));
    }
}

/// Every request that was asked is reported once, whatever became of it. (Whoever leaves at once may do so before its request was
/// read.)
pub fn h_15_metrics_add_up<H: Harness>(live: &Live) {
    const ASKED: usize = 500;
    let odd = |mut stream: TcpStream| {
        while let Some(head) = read_head(&mut stream) {
            let answer: &[u8] = match () {
                () if head.starts_with("GET /ok") => b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok",
                () if head.starts_with("GET /half") => b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nok",
                () if head.starts_with("GET /bad") => b"nonsense\r\n\r\n",
                () if head.starts_with("GET /closed") => return,
                () => b"",
            };
            if stream.write_all(answer).is_err() {
                return;
            }
        }
    };
    const PATHS: [&str; 8] = ["/ok", "/ok", "/ok", "/half", "/bad", "/closed", "/silent", "/gone"];
    let seen = Arc::new(Mutex::new(Vec::<(String, Option<Error>)>::new()));
    let noted = Arc::clone(&seen);
    let observe: Observe = Box::new(move |report: &Report<'_>| {
        let path = report.request.map_or("(no request)", |request| request.target());
        lock(&noted).push((path.to_owned(), report.error));
    });
    let policy = TimeoutPolicy { read: Some(ms(40)), ..P };
    let asked: Mutex<Vec<&str>> = Mutex::default();
    let left = site::<H>(live, policy, odd, observe, |at| {
        let ask = |worker: usize| {
            // A fixed sequence that looks random: the same mix every time.
            let mut state = worker as u32 + 1;
            for _ in 0..ASKED / 10 {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                let path = PATHS[state as usize >> 29];
                lock(&asked).push(path);
                if path != "/gone" {
                    let _ = get(at, path);
                } else if let Ok(mut stream) = TcpStream::connect(at) {
                    let _ = stream.write_all(b"GET /gone HTTP/1.1\r\nhost: a\r\n\r\n");
                    thread::sleep(ms(2));
                    let _ = socket2::SockRef::from(&stream).set_linger(Some(Duration::ZERO));
                }
            }
        };
        let ask = &ask;
        thread::scope(|scope| (0..10).for_each(|w| drop(scope.spawn(move || ask(w)))));
    });
    left.check(live);
    let (seen, asked) = (lock(&seen), lock(&asked));
    let count = |of: &dyn Fn(&Option<Error>) -> bool| seen.iter().filter(|(_, e)| of(e)).count();
    let (succeeded, timed_out) = (count(&Option::is_none), count(&|e| kind(e).is_some()));
    let aborted = count(&|e| matches!(e, Some(Error::ClientAbort(_))));
    let failed = count(&|e| e.is_some() && kind(e).is_none() && !matches!(e, Some(Error::ClientAbort(_))));
    for path in &PATHS[2..] {
        let asked = asked.iter().filter(|p| *p == path).count();
        let reported = seen.iter().filter(|(p, _)| p == path).count();
        let all = if *path == "/gone" { reported <= asked } else { reported == asked };
        live.expect_certain(
            all,
            format!("each of {asked} requests for {path} to be reported once, not {reported}"),
        );
    }
    live.expect_certain(
        asked.len() == ASKED && seen.len() <= ASKED,
        format!("{ASKED} requests, and no more reports"),
    );
    // What the proxy counted says the same.
    let (stats, told) = (left.stats, |of| u64::try_from(of).unwrap_or(u64::MAX));
    live.expect_certain(
        [stats.started, stats.completed, stats.timed_out(), stats.aborted, stats.failed]
            == [seen.len(), succeeded, timed_out, aborted, failed].map(told),
        format!("{} reports to be counted alike: {stats:?}", seen.len()),
    );
    for timeout in DeadlineKind::ALL {
        let reported = told(count(&|e| kind(e) == Some(timeout)));
        let counted = stats.timeouts(timeout);
        live.expect_certain(
            counted == reported,
            format!("{reported} {timeout} timeouts to be counted, not {counted}"),
        );
    }
    live.expect(succeeded > 100 && timed_out > 20 && failed > 60 && aborted > 20, "some of each kind");
}

/// A stream that is always ready: bytes without end come from it, and it takes whatever it is given.
struct Endless {
    head: &'static [u8],
    piece: usize,
}

impl Stream for Endless {
    fn poll_read(&mut self, _: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.try_read(buf))
    }

    fn poll_write_vectored(&mut self, _: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        Poll::Ready(self.try_write_vectored(bufs))
    }

    fn poll_shutdown_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn abort(self) {}

    fn try_read(&mut self, mut buf: &mut [u8]) -> io::Result<usize> {
        if !self.head.is_empty() {
            let n = buf.write(self.head)?;
            self.head = &self.head[n..];
            return Ok(n);
        }
        let n = buf.len().min(self.piece);
        buf[..n].fill(b'x');
        Ok(n)
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        Ok(bufs.iter().map(|buf| buf.len()).sum())
    }
}

/// A runtime that connects to [`Endless`] streams.
#[derive(Clone)]
struct Flooded<R>(R, usize);

impl<R: Runtime> Runtime for Flooded<R> {
    type Stream = Endless;
    type Connect = std::future::Ready<io::Result<Endless>>;
    type Timer = R::Timer;

    fn now(&self) -> tidegate_core::Instant {
        self.0.now()
    }

    fn timer(&self) -> R::Timer {
        self.0.timer()
    }

    fn connect(&self, _: SocketAddr) -> Self::Connect {
        let head = b"HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n";
        std::future::ready(Ok(Endless { head, piece: self.1 }))
    }
}

/// The total ends a transfer between two sides that are always ready, and others get their turns meanwhile.
fn flood<H: Harness>(live: &Live, piece: usize) {
    let ((errors, took, gap), machine) = with_machine(|| {
        H::block_on(|runtime| async move {
            let (seen, observe) = watch();
            let policy = TimeoutPolicy {
                total: Some(ms(if live.is_spoilt() { 1000 } else { 100 })),
                read: Some(ms(50)),
                ..P
            };
            let config = Config { timeouts: policy, ..Config::default() };
            let upstreams = Upstreams::new([SocketAddr::from(([127, 0, 0, 1], 1))]);
            let proxy = Proxy::new(Flooded(runtime, piece), upstreams, config);
            let client = Endless { head: b"GET / HTTP/1.1\r\nhost: a\r\n\r\n", piece: 0 };
            let route = |_: &RequestHead<'_>| Decision::forward();
            let began = Instant::now();
            let mut connection = pin!(proxy.serve_connection(WaitsAfterHead(client), None, route, observe));
            let (mut gap, mut last) = (Duration::ZERO, began);
            poll_fn(|cx| {
                gap = gap.max(last.elapsed());
                let polled = connection.as_mut().poll(cx);
                // The neighbour, whose turn it is after each of the connection's.
                gap = gap.max(last.elapsed());
                last = Instant::now();
                if lock(&seen).is_empty() && polled.is_pending() { Poll::Pending } else { Poll::Ready(()) }
            })
            .await;
            (lock(&seen).clone(), began.elapsed(), gap)
        })
    });
    let kinds: Vec<_> = errors.iter().map(kind).collect();
    live.expect(kinds == [Some(DeadlineKind::Total)], format!("the total, and no other: {kinds:?}"));
    live.expect_certain(took >= ms(100), format!("no total before its limit, as after {took:?}"));
    live.expect_in_time(
        took < ms(100) + slack().slack + machine,
        format!("the total in time, not after {took:?}"),
    );
    live.expect_in_time(
        gap < ms(5) + machine,
        format!("the neighbour's turn at least every 5 ms, not after {gap:?}"),
    );
}

/// A client that has sent its request and then waits; it takes everything.
struct WaitsAfterHead(Endless);

impl Stream for WaitsAfterHead {
    fn poll_read(&mut self, cx: &mut Context<'_>, buf: &mut [u8]) -> Poll<io::Result<usize>> {
        if self.0.head.is_empty() { Poll::Pending } else { self.0.poll_read(cx, buf) }
    }

    fn poll_write_vectored(&mut self, cx: &mut Context<'_>, bufs: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        self.0.poll_write_vectored(cx, bufs)
    }

    fn poll_shutdown_write(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn abort(self) {}

    fn try_read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        if self.0.head.is_empty() { Err(io::ErrorKind::WouldBlock.into()) } else { self.0.try_read(buf) }
    }

    fn try_write_vectored(&mut self, bufs: &[IoSlice<'_>]) -> io::Result<usize> {
        self.0.try_write_vectored(bufs)
    }
}

/// An upstream that is always ready and gives one byte a read does not outrun the total.
pub fn a_01_one_byte_flood<H: Harness>(live: &Live) {
    flood::<H>(live, 1);
}

/// Nor does one that gives as much as there is room for; no poll keeps the thread.
pub fn a_02_always_ready_transport<H: Harness>(live: &Live) {
    flood::<H>(live, usize::MAX);
}

/// One connection floods, fifty ask now and then, four times each: of a hundred answers 99 are there in time, and the others
/// too. Ten more wait for an upstream that says nothing, and their deadline is as punctual as ever.
pub fn a_19_fairness_between_connections<H: Harness>(live: &Live) {
    const FLOOD: usize = 1 << 20;
    let flood = |mut stream: TcpStream| {
        while let Some(head) = read_head(&mut stream) {
            if head.starts_with("GET /flood") {
                let _ = stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 1099511627776\r\n\r\n");
                while stream.write_all(&[b'x'; 16_384]).is_ok() {}
                return;
            }
            if head.starts_with("GET /silent") {
                continue;
            }
            if stream.write_all(b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nok").is_err() {
                return;
            }
        }
    };
    const READ: Duration = ms(200);
    let (took, ended) = (Mutex::new(Vec::new()), Mutex::new(Vec::new()));
    let total = Some(ms(3000));
    let policy = TimeoutPolicy { total, read: Some(READ), linger: P.linger, ..TimeoutPolicy::OFF };
    let (left, machine) = with_machine(|| {
        site::<H>(live, policy, flood, unseen(), |at| {
            let over = Arc::new(AtomicBool::new(live.is_spoilt()));
            let (ends, spoilt) = (Arc::clone(&over), live.is_spoilt());
            let flooded = thread::spawn(move || -> io::Result<usize> {
                let mut stream = TcpStream::connect(at)?;
                stream.write_all(b"GET /flood HTTP/1.1\r\nhost: a\r\n\r\n")?;
                let (mut buf, mut got) = (vec![0; 65_536], 0);
                // On a slow machine the others may be done before it is one.
                while !ends.load(Ordering::Acquire) || (got <= FLOOD && !spoilt) {
                    match stream.read(&mut buf)? {
                        0 => break,
                        n => got += n,
                    }
                }
                Ok(got)
            });
            let normal = |i: u64| {
                thread::spawn(move || {
                    thread::sleep(ms(50 + i * 5));
                    let ask = |_| {
                        let began = Instant::now();
                        get(at, "/").is_ok_and(|text| text.ends_with("ok")).then(|| began.elapsed())
                    };
                    (0..4).filter_map(ask).collect::<Vec<_>>()
                })
            };
            let silent = |i: u64| {
                thread::spawn(move || {
                    thread::sleep(ms(50 + i * 10));
                    let began = Instant::now();
                    get(at, "/silent")
                        .is_ok_and(|text| text.starts_with("HTTP/1.1 504"))
                        .then(|| began.elapsed())
                })
            };
            let silents: Vec<_> = (0..10).map(silent).collect();
            let normals: Vec<_> = (0..50).map(normal).collect();
            lock(&took).extend(normals.into_iter().filter_map(|n| n.join().ok()).flatten());
            lock(&ended).extend(silents.into_iter().filter_map(|n| n.join().ok()).flatten());
            over.store(true, Ordering::Release);
            let got = flooded.join().ok().and_then(Result::ok).unwrap_or(0);
            live.expect(got > FLOOD, format!("a flood, not {got} bytes"));
        })
    });
    left.check(live);
    let mut took = lock(&took).clone();
    took.sort_unstable();
    let ended = lock(&ended);
    live.expect(ended.len() == 10, format!("ten read timeouts, not {}", ended.len()));
    live.expect_certain(ended.iter().all(|took| *took >= READ), format!("none early: {ended:?}"));
    let latest = READ + slack().slack + machine;
    live.expect_in_time(ended.iter().all(|took| *took < latest), format!("all within {latest:?}: {ended:?}"));
    live.expect(took.len() == 200, format!("two hundred answers, not {}", took.len()));
    if let Some(p99) = took.get(took.len().saturating_sub(3)) {
        // It is the client's turn, the proxy's, the upstream's and the proxy's again: each may wait for a core.
        live.expect_in_time(*p99 < ms(20) + 4 * machine, format!("99 of 100 within 20 ms, not {p99:?}"));
    }
}
