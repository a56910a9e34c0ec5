//! V: exact time. What is about the machine alone is played on the machine alone; the rest on the
//! simulated runtime. Each runs under every harness's executor and must give the same there.

use std::time::Duration;

use tidegate_core::DeadlineKind::{self, ClientBody, ClientHead, KeepAlive, Read, Total};
use tidegate_core::{Instant, Side, TimeoutPolicy};

use super::{a, answer, h, p, r, t, total};
use crate::machine::Machine;
use crate::run_fake::Exact;
use crate::script::{P, ms};

const GET: &[u8] = b"GET / HTTP/1.1\r\nhost: a\r\n\r\n";
const POST: &[u8] = b"POST / HTTP/1.1\r\nhost: a\r\ncontent-length: 10\r\n\r\n";
const OK5: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\nhello";
const START: Instant = Instant::from_millis(1000);

/// A machine whose request is on its way to the upstream.
fn asked(policy: TimeoutPolicy, request: &[u8], start: Instant) -> Machine {
    let mut machine = Machine::new(policy, start);
    machine.feed(Side::Client, request);
    machine.connected();
    machine.take(Side::Upstream, usize::MAX);
    machine
}

fn note(exact: &Exact, machine: &Machine, what: &str) {
    exact.note(format!("{what}: {:?}; {:?}; {:?}", machine.next(), machine.steps, machine.outcomes));
}

fn kind(machine: &Machine) -> Option<DeadlineKind> {
    match machine.outcomes.last()?.error? {
        tidegate_core::Error::Timeout(timeout) => Some(timeout.kind),
        _ => None,
    }
}

/// Cases of every kind, with the proxy, its peers and their clock under this executor: the logs are equal to the
/// last nanosecond.
pub async fn v_02_three_executors_one_trace(exact: &Exact) {
    for case in [
        r::r_13_resume_is_a_full_period(),
        h::h_02_order(),
        t::t_04_stall_past_both_outer_earlier(),
        p::p_01_poison(),
        total::t_12_pipelined(),
        answer::q_10_expect_late_100(),
        a::a_05_wake_storm(),
    ] {
        exact.check(case).await;
    }
}

/// A call before the deadline changes nothing: not the deadline, not the state.
pub async fn v_03_early_call(exact: &Exact) {
    let mut machine = asked(exact.limits(P), GET, START);
    let armed = machine.next();
    exact.expect(armed == Some((START + ms(150), Read)), "the read deadline to be armed");
    for early in [0, 1, 75_000, 149_999] {
        machine.at(START + Duration::from_micros(early));
        exact.expect(machine.next() == armed && machine.outcomes.is_empty(), "nothing of an early call");
    }
    machine.at(START + ms(150) - Duration::from_nanos(1));
    exact.expect(machine.next() == armed, "nothing a nanosecond before");
    machine.at(START + ms(150));
    machine.take(Side::Client, usize::MAX);
    exact.expect(kind(&machine) == Some(Read), "the timeout at its instant");
    note(exact, &machine, "end");
}

/// Two calls at one instant fire one deadline, and a late one fires it once.
pub async fn v_05_repeated_call(exact: &Exact) {
    for at in [ms(150), ms(400)] {
        let mut once = asked(exact.limits(P), GET, START);
        let mut again = asked(exact.limits(P), GET, START);
        once.at(START + at);
        for _ in 0..5 {
            again.at(START + at);
        }
        exact.expect(once.steps == again.steps && once.next() == again.next(), "calls to be idempotent");
        let sent = (once.take(Side::Client, usize::MAX), again.take(Side::Client, usize::MAX));
        exact.expect(sent.0 == sent.1 && sent.0.starts_with(b"HTTP/1.1 504"), "one answer");
        exact.expect(once.outcomes == again.outcomes && again.outcomes.len() == 1, "one outcome");
        note(exact, &again, "end");
    }
}

/// A clock that goes back has not advanced: no panic, and nothing early.
pub async fn v_06_clock_goes_back(exact: &Exact) {
    let mut machine = asked(exact.limits(P), POST, START + ms(100));
    machine.now = START;
    machine.feed(Side::Client, b"01234");
    machine.take(Side::Upstream, usize::MAX);
    machine.at(START + ms(100));
    exact.expect(machine.outcomes.is_empty(), "nothing to fire");
    machine.feed(Side::Client, b"56789");
    machine.take(Side::Upstream, usize::MAX);
    exact.expect(
        machine.next() == Some((START + ms(250), Read)),
        "a full period from the reading that counts",
    );
    machine.at(START);
    machine.at(START + ms(249));
    exact.expect(machine.outcomes.is_empty(), "nothing early");
    machine.at(START + ms(250));
    machine.take(Side::Client, usize::MAX);
    exact.expect(kind(&machine) == Some(Read), "the read timeout");
    note(exact, &machine, "end");
}

/// Every deadline with each extreme limit, at each end of the clock: no panic, none that is off fires, and a
/// limit of nothing leads to an end and not to a loop.
pub async fn v_07_extremes(exact: &Exact) {
    let limits = [None, Some(Duration::ZERO), Some(Duration::from_nanos(1)), Some(Duration::MAX)];
    let mut ended = 0;
    for which in DeadlineKind::ALL {
        for limit in limits {
            for start in [Instant::EPOCH, START, Instant::NEVER - ms(10), Instant::NEVER] {
                let mut policy = TimeoutPolicy::OFF;
                set(&mut policy, which, limit);
                let policy = exact.limits(policy);
                let mut machine = Machine::new(policy, start);
                machine.feed(Side::Client, &POST[..10]);
                machine.feed(Side::Client, &POST[10..]);
                machine.connected();
                machine.take(Side::Upstream, usize::MAX);
                machine.with(|relay, env| relay.drain(start, env));
                let mut calls = 0;
                while machine.next().is_some_and(|(at, _)| at <= start + ms(5)) && calls < 20 {
                    machine.at(start + ms(5));
                    machine.take(Side::Client, usize::MAX);
                    calls += 1;
                }
                exact.expect(calls < 20, format!("no loop with {which} of {limit:?} at {start:?}"));
                let off = limit.is_none_or(|l| l == Duration::MAX);
                exact.expect(!off || calls == 0, format!("{which} to be off with {limit:?}, at {start:?}"));
                ended += calls;
            }
        }
    }
    exact.expect(ended > 0, "some of them to fire");
    exact.note(format!("{ended} deadlines"));
}

fn set(policy: &mut TimeoutPolicy, kind: DeadlineKind, limit: Option<Duration>) {
    use DeadlineKind::*;
    *match kind {
        Total => &mut policy.total,
        Drain => &mut policy.drain,
        Connect => &mut policy.connect,
        Write => &mut policy.write,
        WriteIdle => &mut policy.write_idle,
        Read => &mut policy.read,
        Queue => &mut policy.queue,
        ClientHead => &mut policy.client_head,
        ClientBody => &mut policy.client_body,
        ClientWrite => &mut policy.client_write,
        KeepAlive => &mut policy.keep_alive,
        PoolIdle => &mut policy.pool_idle,
        Tunnel => &mut policy.tunnel,
        TunnelFin => &mut policy.tunnel_fin,
        Linger => &mut policy.linger,
        _ => return,
    } = limit;
}

/// Something that a turn brings.
type Event = fn(&mut Machine);

/// What one turn brings may come in any order that its sockets allow: the same class of outcome.
pub async fn v_09_order_independence(exact: &Exact) {
    // A turn at the read deadline, in which a client goes on sending, its response comes, and both sides take bytes.
    let events: [Event; 4] = [
        |m| _ = m.feed(Side::Client, b"56789"),
        |m| _ = m.feed(Side::Upstream, OK5),
        |m| drop(m.take(Side::Upstream, usize::MAX)),
        |m| drop(m.take(Side::Client, usize::MAX)),
    ];
    let mut seen = Vec::new();
    for order in permutations(events.len()) {
        let policy = TimeoutPolicy { total: Some(ms(150)), client_body: None, ..P };
        let mut machine = asked(exact.limits(policy), POST, START);
        machine.feed(Side::Client, b"01234");
        machine.take(Side::Upstream, usize::MAX);
        machine.now = START + ms(150);
        // What an event makes possible comes in the next pass of the same turn.
        for _ in 0..3 {
            order.iter().for_each(|&i| events[i](&mut machine));
        }
        machine.handle_timeout();
        let status = machine.outcomes.first().map(|o| (o.status, o.error.is_none()));
        exact.expect(status == Some((Some(200), true)), format!("completion to win in the order {order:?}"));
        seen.push(status);
    }
    // And without the upstream's part the total fires in every order.
    for order in permutations(events.len()) {
        let policy = TimeoutPolicy { total: Some(ms(150)), client_body: None, ..P };
        let mut machine = asked(exact.limits(policy), POST, START);
        machine.now = START + ms(150);
        order.iter().filter(|&&i| i != 1).for_each(|&i| events[i](&mut machine));
        machine.handle_timeout();
        machine.take(Side::Client, usize::MAX);
        exact.expect(kind(&machine) == Some(Total), format!("the total in the order {order:?}"));
    }
    exact.note(format!("{seen:?}"));
}

fn permutations(n: usize) -> Vec<Vec<usize>> {
    if n == 0 {
        return vec![Vec::new()];
    }
    let shorter = permutations(n - 1);
    let insert = |p: &Vec<usize>, at: usize| {
        let mut p = p.clone();
        p.insert(at, n - 1);
        p
    };
    shorter.iter().flat_map(|p| (0..n).map(move |at| insert(p, at))).collect()
}

/// Where no limit applies nothing is armed, in every state that waits.
pub async fn v_10_nothing_armed(exact: &Exact) {
    // The case must be able to fail: where limits are to be wrong, there are some.
    let off = if exact.limits(P) == P { TimeoutPolicy::OFF } else { P };
    let mut machine = Machine::new(off, START);
    let check = |machine: &Machine, state: &str| {
        exact.expect(machine.next().is_none(), format!("nothing armed {state}"));
    };
    check(&machine, "for a client that was accepted");
    machine.feed(Side::Client, &POST[..10]);
    check(&machine, "in a request head");
    machine.feed(Side::Client, &POST[10..]);
    check(&machine, "while connecting");
    machine.connected();
    check(&machine, "while the request is written");
    machine.take(Side::Upstream, usize::MAX);
    check(&machine, "while the client is waited for");
    machine.feed(Side::Client, b"0123456789");
    machine.take(Side::Upstream, usize::MAX);
    check(&machine, "while the response is waited for");
    machine.feed(Side::Upstream, &OK5[..30]);
    check(&machine, "in the response head");
    machine.feed(Side::Upstream, &OK5[30..]);
    check(&machine, "while the response is written");
    machine.take(Side::Client, usize::MAX);
    check(&machine, "between two requests");
    machine.full = true;
    machine.feed(Side::Client, GET);
    check(&machine, "in the queue");
    note(exact, &machine, "end");
}

/// The machine at another time gives the same, later by the difference: it knows no clock.
pub async fn v_12_time_only_through_the_argument(exact: &Exact) {
    // The year 2500, in nanoseconds since 1970.
    let far = Instant::from_epoch(Duration::from_secs(530 * 365 * 86_400));
    let play = |start: Instant| {
        let mut machine = Machine::new(exact.limits(TimeoutPolicy { write: None, ..P }), start);
        let mut armed = vec![machine.next()];
        machine.now = start + ms(10);
        machine.feed(Side::Client, POST);
        armed.push(machine.next());
        machine.connected();
        armed.push(machine.next());
        machine.take(Side::Upstream, usize::MAX);
        armed.push(machine.next());
        machine.now = start + ms(60);
        machine.feed(Side::Client, b"012");
        machine.take(Side::Upstream, usize::MAX);
        armed.push(machine.next());
        machine.at(start + ms(210));
        machine.take(Side::Client, usize::MAX);
        armed.push(machine.next());
        let relative = |(at, kind): (Instant, DeadlineKind)| (at.saturating_since(start), kind);
        (armed.into_iter().map(|a| a.map(relative)).collect::<Vec<_>>(), kind(&machine))
    };
    let (now, then) = (play(START), play(far));
    exact.expect(now == then, format!("the same in the year 2500: {now:?}, {then:?}"));
    let kinds: Vec<_> = now.0.iter().flatten().map(|(_, kind)| *kind).collect();
    exact.expect(kinds.first() == Some(&ClientHead), "the client's head to be waited for first");
    exact.expect(now.1 == Some(ClientBody), "the body's timeout");
    exact.note(format!("{now:?}"));
}

/// The same bytes at the same instants, in pieces of one byte and all at once: the same outcome, bytes and deadlines.
pub async fn v_14_chunking_independence(exact: &Exact) {
    let answers: [&[u8]; 3] = [
        OK5,
        b"HTTP/1.1 103 Early\r\n\r\nHTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none",
        b"HTTP/1.1 200 OK\r\ncontent-length: 50\r\n\r\nnot all",
    ];
    for (i, answer) in answers.into_iter().enumerate() {
        let play = |piece: usize| {
            let mut machine = asked(exact.limits(P), GET, START);
            let mut got = Vec::new();
            let mut armed = Vec::new();
            // Half of it now, and half of it later.
            for (n, half) in answer.chunks(answer.len().div_ceil(2)).enumerate() {
                machine.now = START + ms(100) * (n as u32 + 1);
                for bytes in half.chunks(piece) {
                    let mut sent = 0;
                    while sent < bytes.len() {
                        let taken = machine.feed(Side::Upstream, &bytes[sent..]);
                        sent += taken;
                        got.append(&mut machine.take(Side::Client, usize::MAX));
                        if taken == 0 && !machine.relay.interest().read_upstream {
                            break;
                        }
                    }
                }
                armed.push(machine.next());
            }
            machine.at(START + ms(350));
            got.append(&mut machine.take(Side::Client, usize::MAX));
            armed.push(machine.next());
            (got, armed, machine.outcomes)
        };
        let (one, all) = (play(1), play(64 * 1024));
        exact.expect(one == all, format!("answer {i} to be the same in pieces: {one:?}, {all:?}"));
        let fired = all.2.first().is_some_and(|o| o.error.is_some());
        exact.expect(fired == (i == 2), "the part of a response to time out, and it alone");
        let is_idle = all.1.get(1) == Some(&Some((START + ms(350), KeepAlive)));
        exact.expect(i == 2 || is_idle, "the keep-alive limit from the last byte on");
    }
}
