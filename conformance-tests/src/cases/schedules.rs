//! H, V and A in exact time, where the driver's own turns are what it is about: a connection that is dropped at any
//! poll, woken too often, or whose clock jumps. Each plays one client and one upstream on the simulated runtime.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_core::runtime::{Listener, Runtime, Timer};
use tidegate_core::{Config, Decision, Error, Instant, Proxy, Report, RequestHead, TimeoutPolicy, Upstreams};

use crate::counted::{Counted, Counts, Held};
use crate::hostile::{Habits, Hostile};
use crate::run_fake::Exact;
use crate::script::{P, ms};
use crate::virtual_rt::{Owner, Ran, VirtualStream, World};

/// Whether the upstream answers.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
enum Answer {
    Whole,
    Half,
    Never,
}

/// What one exchange gave.
#[derive(Debug, Default)]
struct Played {
    polls: usize,
    /// What is left afterwards, in words.
    left: Vec<String>,
    outcomes: Vec<(Option<u16>, Option<Error>)>,
    /// Bytes that the client got.
    received: usize,
}

/// What is done to the connection.
#[derive(Copy, Clone, Default)]
struct Treatment {
    habits: Habits,
    /// It is dropped instead of this poll.
    drop_at: Option<usize>,
    /// The clock jumps at this reading, by so much.
    jump: Option<(usize, Duration)>,
}

async fn read_all(stream: &VirtualStream, at_least: usize) -> usize {
    let (mut got, mut buf) = (0, [0; 4096]);
    while got < at_least {
        match poll_fn(|cx| stream.poll_read_shared(cx, &mut buf)).await {
            Ok(0) | Err(_) => break,
            Ok(n) => got += n,
        }
    }
    got
}

async fn play(policy: TimeoutPolicy, answer: Answer, treatment: Treatment) -> Played {
    const REQUEST: &[u8] =
        b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    let world = World::new();
    let (runtime, peers) = (world.runtime(Owner::Proxy), world.runtime(Owner::Peer));
    let (front, back) = (runtime.free_address(), runtime.free_address());
    let counts = Counts::default();
    let jumpy = Jumpy { runtime: runtime.clone(), readings: Rc::default(), jump: treatment.jump };
    let counted = Counted::new(Hostile::new(jumpy, treatment.habits), &counts);
    let upstreams = Upstreams::new([back]);
    let config = Config { timeouts: policy, ..Config::default() };
    let proxy = Proxy::new(counted, upstreams.clone(), config);

    let mut origin = peers.listen(back, 16);
    world.spawn(Owner::Peer, async move {
        loop {
            let Ok((stream, _)) = poll_fn(|cx| origin.poll_accept(cx)).await else { return };
            read_all(&stream, 1).await;
            let whole = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
            let n = match answer {
                Answer::Whole => whole.len(),
                Answer::Half => whole.len() - 3,
                Answer::Never => 0,
            };
            if n > 0 {
                let _ = stream.write(&whole[..n]);
            }
            read_all(&stream, usize::MAX).await;
        }
    });
    let received = Rc::new(Cell::new(0));
    let got = Rc::clone(&received);
    let client = peers.clone();
    world.spawn(Owner::Peer, async move {
        let Ok(stream) = client.connect(front).await else { return };
        let _ = stream.write(REQUEST);
        got.set(read_all(&stream, usize::MAX).await);
    });
    let outcomes = Rc::new(RefCell::new(Vec::new()));
    let polls = Rc::new(Cell::new(0));
    let mut listener = runtime.listen(front, 16);
    let (seen, counted_polls, door, shared) =
        (Rc::clone(&outcomes), Rc::clone(&polls), counts.clone(), proxy.clone());
    world.spawn(Owner::Proxy, async move {
        let Ok((stream, peer)) = poll_fn(|cx| listener.poll_accept(cx)).await else { return };
        drop(listener);
        let route = |_: &RequestHead<'_>| Decision::forward();
        let observe = move |report: &Report<'_>| seen.borrow_mut().push((report.status, report.error));
        let mut task = Some(Box::pin(door.task(shared.serve_connection(stream, peer, route, observe))));
        poll_fn(|cx| {
            let Some(connection) = &mut task else { return Poll::Ready(()) };
            if treatment.drop_at == Some(counted_polls.get()) {
                task = None;
                return Poll::Ready(());
            }
            counted_polls.set(counted_polls.get() + 1);
            connection.as_mut().poll(cx)
        })
        .await;
    });
    let ran = world.run_until(world.now() + ms(3000), || world.tasks(Owner::Proxy) == 0).await;
    let mut left = Vec::new();
    if ran != Ran::Done {
        left.push(format!("a connection that never ends ({ran:?})"));
    }
    // Nobody watches the idle pool here: what it holds is closed with the proxy.
    proxy.stop();
    let gauges = proxy.gauges();
    for (what, n) in [
        ("sockets", runtime.sockets()),
        ("connections", gauges.tasks),
        ("granted upstreams", gauges.in_flight),
        ("places in the queue", gauges.waiting),
        ("idle connections", gauges.idle_upstreams),
    ] {
        if n > 0 {
            left.push(format!("{n} {what}"));
        }
    }
    left.extend(counts.held().beyond(Held::default(), "afterwards"));
    if counts.late_wakes() > 0 {
        left.push("wakes of a connection that is over".into());
    }
    world.run_until(world.now() + ms(500), || false).await;
    let outcomes = outcomes.borrow().clone();
    Played { polls: polls.get(), left, outcomes, received: received.get() }
}

/// A connection that is dropped at any of its polls leaves nothing: no socket, no permit, no timer, no waker.
pub async fn h_07_cancel_at_every_poll(exact: &Exact) {
    for answer in [Answer::Whole, Answer::Half, Answer::Never] {
        let whole = play(exact.limits(P), answer, Treatment::default()).await;
        exact.expect(whole.left.is_empty(), format!("nothing left of {answer:?}: {:?}", whole.left));
        exact.expect(whole.polls > 3 && whole.outcomes.len() == 1, "an exchange of several polls");
        for k in 0..whole.polls {
            let treatment = Treatment { drop_at: Some(k), ..Treatment::default() };
            let played = play(exact.limits(P), answer, treatment).await;
            exact.expect(
                played.left.is_empty(),
                format!("nothing left of {answer:?} dropped at poll {k}: {:?}", played.left),
            );
        }
        exact.note(format!("{answer:?}: {whole:?}"));
    }
}

/// A deadline between two ticks of a timer that knows whole milliseconds alone costs no wake-up more.
pub async fn v_08_sub_millisecond(exact: &Exact) {
    let limit = Duration::from_micros(150_400);
    let policy = exact.limits(TimeoutPolicy { read: Some(limit), ..P });
    let fine = play(policy, Answer::Never, Treatment::default()).await;
    let habits = Habits { grain: ms(1), ..Habits::default() };
    let coarse = play(policy, Answer::Never, Treatment { habits, ..Treatment::default() }).await;
    for played in [&fine, &coarse] {
        exact.expect(
            matches!(played.outcomes[..], [(Some(504), Some(Error::Timeout(_)))]),
            "the read timeout",
        );
    }
    exact.expect(fine.received > 0 && coarse.received == fine.received, "the client to be told");
    exact.expect(
        coarse.polls <= fine.polls + 2,
        format!("no spin: {} and {} polls", fine.polls, coarse.polls),
    );
    exact.note(format!("{fine:?} {coarse:?}"));
}

/// The clock jumps by a second between any two readings: one outcome, and a timeout
/// only of a limit that has passed on that clock.
pub async fn a_16_fake_slow_clock_reading(exact: &Exact) {
    let policy = exact.limits(TimeoutPolicy { total: Some(ms(600)), ..P });
    let mut kinds = Vec::new();
    for reading in 1..40 {
        let treatment = Treatment { jump: Some((reading, ms(1000))), ..Treatment::default() };
        let played = play(policy, Answer::Whole, treatment).await;
        exact.expect(played.left.is_empty(), format!("nothing left, reading {reading}: {:?}", played.left));
        exact.expect(played.outcomes.len() <= 1, format!("one outcome at most, reading {reading}"));
        for (status, error) in &played.outcomes {
            match error {
                None => exact.expect(*status == Some(200), "a success to be one"),
                Some(Error::Timeout(t)) => {
                    exact.expect(t.elapsed >= t.limit, format!("nothing early: {t:?}"));
                }
                Some(other) => exact.expect(false, format!("no other error than a timeout: {other:?}")),
            }
            kinds.push((reading, *status));
        }
    }
    let late = kinds.iter().filter(|(_, status)| *status != Some(200)).count();
    exact.expect(late > 0 && kinds.len() > late, "some readings to matter and some not");
    exact.note(format!("{kinds:?}"));
}

/// A runtime whose clock jumps once.
#[derive(Clone)]
struct Jumpy<R> {
    runtime: R,
    readings: Rc<Cell<usize>>,
    jump: Option<(usize, Duration)>,
}

impl<R> Jumpy<R> {
    fn ahead(&self) -> Duration {
        self.jump.filter(|(at, _)| self.readings.get() >= *at).map_or(Duration::ZERO, |(_, by)| by)
    }
}

impl<R: Runtime> Runtime for Jumpy<R> {
    type Stream = R::Stream;
    type Connect = R::Connect;
    type Timer = JumpyTimer<R>;

    fn now(&self) -> Instant {
        self.readings.set(self.readings.get() + 1);
        self.runtime.now() + self.ahead()
    }

    fn timer(&self) -> JumpyTimer<R> {
        JumpyTimer { timer: Box::pin(self.runtime.timer()), clock: self.clone_clock() }
    }

    fn connect(&self, to: SocketAddr) -> R::Connect {
        self.runtime.connect(to)
    }
}

impl<R> Jumpy<R> {
    fn clone_clock(&self) -> Jumpy<()> {
        Jumpy { runtime: (), readings: Rc::clone(&self.readings), jump: self.jump }
    }
}

struct JumpyTimer<R: Runtime> {
    timer: Pin<Box<R::Timer>>,
    clock: Jumpy<()>,
}

impl<R: Runtime> Timer for JumpyTimer<R> {
    fn arm(mut self: Pin<&mut Self>, at: Instant) {
        let at = if at == Instant::NEVER { at } else { at - self.clock.ahead() };
        self.timer.as_mut().arm(at);
    }

    fn poll_fired(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        self.timer.as_mut().poll_fired(cx)
    }
}
