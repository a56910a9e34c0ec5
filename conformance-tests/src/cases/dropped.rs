//! H on the runtime itself, continued: connections that are driven by hand, dropped at one of their events, or ended by a
//! hook that panics. Each is a function over a harness.

use std::collections::BTreeSet;
use std::future::{Future, poll_fn};
use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use tidegate_core::runtime::{self, Listener};
use tidegate_core::{Config, Decision, Proxy, Report, RequestHead, TimeoutPolicy, Upstreams};

use crate::counted::{Counted, Counts, Held};
use crate::gauges;
use crate::harness::{ClientStream, Harness};
use crate::run_live::*;
use crate::run_virtual::Observe;
use crate::script::{P, ms};

/// A proxy whose connections the case drives itself.
struct ByHand<H: Harness> {
    proxy: Proxy<Counted<H::Runtime>>,
    policy: TimeoutPolicy,
    listener: H::Listener,
    counts: Counts,
    origin: SocketAddr,
}

impl<H: Harness> ByHand<H> {
    /// The next client.
    async fn accept(&mut self) -> Option<(ClientStream<H>, Option<SocketAddr>)> {
        poll_fn(|cx| self.listener.poll_accept(cx)).await.ok()
    }

    /// Drives the next client's connection to its end, or drops it in the place of this poll. How often it was polled, and
    /// whether it was dropped.
    async fn drive(
        &mut self,
        drop_at: Option<usize>,
        observe: impl Fn(&Report<'_>),
    ) -> Option<(usize, bool)> {
        let (stream, peer) = self.accept().await?;
        // What is answered is answered, however late the machine is; only who is not meets the read limit.
        let route = |request: &RequestHead<'_>| match request.path() {
            "/" | "/closed" => Decision::forward_with(TimeoutPolicy { read: None, ..self.policy }),
            _ => Decision::forward(),
        };
        let connection = self.proxy.serve_connection(stream, peer, route, observe);
        let mut task = Some(Box::pin(self.counts.task(connection)));
        let mut polls = 0;
        let dropped = poll_fn(|cx| {
            let Some(running) = &mut task else { return Poll::Ready(true) };
            if drop_at == Some(polls) {
                task = None;
                return Poll::Ready(true);
            }
            polls += 1;
            running.as_mut().poll(cx).map(|()| false)
        })
        .await;
        drop(task);
        Some((polls, dropped))
    }

    /// What is left of the connections that have ended, in words. (Wakers may be let go of by a later turn of the reactor.)
    fn left(&self) -> Option<String> {
        let gauges = self.proxy.gauges();
        let held = Held { wakers: 0, ..self.counts.held() };
        let rows = gauges::rows_to(&[self.origin.port()]);
        let open = rows.iter().filter(|row| row.inode != 0).count();
        let rest = [gauges.tasks, gauges.in_flight, gauges.waiting];
        let is_clean = rest == [0; 3] && held == Held::default() && open == gauges.idle_upstreams;
        (!is_clean).then(|| format!("{gauges:?}, {held:?}, {open} descriptors of upstream connections"))
    }
}

/// Lets `drive` drive connections on the harness's runtime, while `clients` runs on another thread. What both give.
fn by_hand<H: Harness, T, C: Send + 'static>(
    live: &Live,
    policy: TimeoutPolicy,
    serve: impl Fn(TcpStream) + Send + Sync + 'static,
    clients: impl FnOnce(SocketAddr) -> C + Send + 'static,
    drive: impl AsyncFnOnce(&mut ByHand<H>) -> T,
) -> Option<(T, C)> {
    let origin = Origin::start(serve).ok()?;
    let front = runtime::bind(SocketAddr::from(([127, 0, 0, 1], 0))).ok()?;
    let at = front.local_addr().ok()?;
    let clients = thread::spawn(move || clients(at));
    let (behind, counts) = (origin.at, Counts::default());
    let counted = counts.clone();
    let driven = H::block_on(|runtime| async move {
        let listener = H::listener(front).ok()?;
        let config = Config { timeouts: policy, ..Config::default() };
        let proxy = Proxy::new(Counted::new(runtime, &counted), Upstreams::new([behind]), config);
        let mut scene = ByHand { proxy, policy, listener, counts: counted, origin: behind };
        let driven = drive(&mut scene).await;
        scene.proxy.stop();
        let left = scene.left();
        live.expect_certain(left.is_none(), format!("nothing left after a stop: {left:?}"));
        Some(driven)
    });
    let clients = clients.join().ok();
    origin.end();
    let held = gauges::settle(Duration::from_secs(1), || counts.held(), |held| *held == Held::default());
    live.expect_certain(held == Held::default(), format!("nothing left: {held:?}"));
    live.expect_certain(counts.surplus_timers() == 0, "one armed timer a connection at most");
    driven.zip(clients)
}

/// An upstream that answers wholly, by half, not at all, or by closing.
fn answers_in_many_ways(mut stream: TcpStream) {
    while let Some(head) = read_head(&mut stream) {
        let answer = match head.split(' ').nth(1) {
            Some("/") => "HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello",
            Some("/half") => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhello",
            Some("/silent") => "",
            _ => return,
        };
        if stream.write_all(answer.as_bytes()).is_err() {
            return;
        }
    }
}

/// Two hundred connections that are dropped at one of their events, on real sockets: nothing is left of any of them, at once,
/// and the next is served.
pub fn h_08_cancel_at_every_event<H: Harness>(live: &Live) {
    const RUNS: usize = 200;
    const MOST: usize = 12;
    const PATHS: [(&str, &str); 4] =
        [("/", "hello"), ("/half", "HTTP/1.1 200"), ("/silent", "HTTP/1.1 504"), ("/closed", "HTTP/1.1 502")];
    let limit = Some(ms(5));
    // No other deadline comes first, however late the machine is; nor that one before half an answer.
    let policy = TimeoutPolicy { read: Some(ms(20)), linger: limit, keep_alive: limit, ..TimeoutPolicy::OFF };
    let clients = |at: SocketAddr| {
        let is_served = |&(path, says): &(&str, &str)| get(at, path).is_ok_and(|text| text.contains(says));
        let whole = PATHS.iter().filter(|path| is_served(path)).count();
        (0..RUNS).for_each(|run| drop(get(at, PATHS[run % PATHS.len()].0)));
        [whole, PATHS.iter().filter(|path| is_served(path)).count()]
    };
    let spoilt = live.is_spoilt();
    let driven = by_hand::<H, _, _>(live, policy, answers_in_many_ways, clients, async |scene| {
        let mut polls = [0; PATHS.len()];
        for polls in &mut polls {
            *polls = scene.drive(None, |_| {}).await?.0;
        }
        let (mut cut, mut times) = (BTreeSet::new(), 0);
        // A fixed sequence that looks random: the same sample every time.
        let mut state = 1_u32;
        for run in 0..RUNS {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            let (path, sample) = (run % PATHS.len(), (state >> 16) as usize);
            // Some executors poll a task hundreds of times without cause.
            let at = sample % (polls[path].min(MOST) + 1);
            let (polled, dropped) = scene.drive((!spoilt).then_some(at), |_| {}).await?;
            if dropped {
                times += 1;
                cut.insert((PATHS[path].0, at));
            } else {
                // It had fewer this time, or more.
                polls[path] = polled;
            }
            if let Some(left) = scene.left() {
                live.expect_certain(
                    false,
                    format!("nothing left of {:?}, dropped at {at}: {left}", PATHS[path]),
                );
            }
        }
        for _ in PATHS {
            scene.drive(None, |_| {}).await?;
        }
        Some((times, cut))
    });
    let Some((Some((times, cut)), served)) = driven else { return live.expect(false, "connections") };
    live.expect(served == [PATHS.len(); 2], format!("whole ones to be served, before and after: {served:?}"));
    live.expect(times >= RUNS / 4, format!("many to be dropped, not {times}"));
    for (path, _) in PATHS {
        let events = cut.iter().filter(|(of, _)| *of == path).count();
        live.expect(events >= 2, format!("several events of {path:?} to be tried: {cut:?}"));
    }
}

/// Asks, and reads a whole answer of five bytes.
fn is_served(stream: &mut TcpStream) -> bool {
    let mut body = [0; 5];
    let asked = stream.write_all(b"GET / HTTP/1.1\r\nhost: a\r\n\r\n");
    asked.is_ok() && read_head(stream).is_some() && stream.read_exact(&mut body).is_ok() && body == *b"hello"
}

/// Whether a client who asks for this sees the end of its connection, in whatever way.
fn ends(at: SocketAddr, path: &str) -> bool {
    let Ok(mut stream) = TcpStream::connect(at) else { return false };
    let _ = stream.set_read_timeout(Some(Duration::from_secs(2)));
    let asked = write!(stream, "GET {path} HTTP/1.1\r\nhost: a\r\n\r\n");
    let ended = stream.read_to_end(&mut Vec::new());
    asked.is_ok() && ended.map_or_else(|e| e.kind() == ErrorKind::ConnectionReset, |_| true)
}

/// A hook that panics ends its own connection, and nothing else: not the process, not the executor, no permit, and no other
/// connection, neither a later one nor one that was there before.
pub fn h_09_panic_in_a_user_hook<H: Harness>(live: &Live) {
    let spoilt = live.is_spoilt();
    let panicked = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&panicked);
    let observe: Observe = Box::new(move |report| {
        if report.error.is_some() && !spoilt {
            count.fetch_add(1, Ordering::AcqRel);
            std::panic::resume_unwind(Box::new("a hook of the embedder's"));
        }
    });
    let policy = TimeoutPolicy { read: Some(ms(100)), linger: P.linger, ..TimeoutPolicy::OFF };
    let left = site::<H>(live, policy, answers_the_root, observe, |at| {
        let Ok(mut other) = TcpStream::connect(at) else { return live.expect(false, "to connect") };
        let _ = other.set_read_timeout(Some(Duration::from_secs(2)));
        live.expect(is_served(&mut other), "a client to be served before a panic");
        for _ in 0..2 {
            live.expect(ends(at, "/silent"), "the end of the connection whose hook panicked");
            live.expect(is_served(&mut other), "a client that was there before to be served again");
            let text = get(at, "/").unwrap_or_default();
            live.expect(text.ends_with("hello"), format!("the next client to be served: {text:?}"));
        }
    });
    left.check(live);
    let panicked = panicked.load(Ordering::Acquire);
    live.expect(panicked == 2, format!("two panics, not {panicked}"));
}

/// Nothing holds itself: what the hooks of a connection own is dropped with it, while the proxy goes on, and what those of a
/// server own with the server.
pub fn h_10_no_cycles<H: Harness>(live: &Live) {
    let policy = TimeoutPolicy { read: Some(ms(40)), linger: P.linger, ..TimeoutPolicy::OFF };
    let spoilt = live.is_spoilt();
    let kept = Arc::new(());
    const PATHS: [&str; 4] = ["/", "/half", "/silent", "/closed"];
    let clients = |at: SocketAddr| PATHS.map(|path| get(at, path).is_ok());
    let driven = by_hand::<H, _, _>(live, policy, answers_in_many_ways, clients, async |scene| {
        let mut alive = Vec::new();
        for path in PATHS {
            let owned = if spoilt { Arc::clone(&kept) } else { Arc::new(()) };
            let weak = Arc::downgrade(&owned);
            scene.drive(None, move |_| drop(Arc::clone(&owned))).await?;
            alive.extend(weak.upgrade().map(|_| path));
        }
        Some(alive)
    });
    let alive = driven.and_then(|(alive, _)| alive);
    let dead = alive.as_ref().is_some_and(Vec::is_empty);
    live.expect_certain(dead, format!("nothing to hold a connection that has ended, as after {alive:?}"));

    let owned = Arc::new(());
    let weak = Arc::downgrade(&owned);
    let observe: Observe = Box::new(move |_| drop(Arc::clone(&owned)));
    let left = site::<H>(live, policy, answers_the_root, observe, |at| {
        let _ = (get(at, "/"), get(at, "/").map(drop));
        if !spoilt {
            let _ = get(at, "/silent");
        }
    });
    left.check(live);
    let dead = gauges::settle(Duration::from_secs(1), || weak.upgrade().is_none(), |dead| *dead);
    live.expect(dead, "the hooks to be dropped: something of the proxy holds itself");
}
