//! Cases in exact time: ties, and orders that no kernel can be made to produce (the catalogue's rows V).
//! Each is a function that plays scripted cases, usually one for each order.

use std::time::Duration;

use tidegate_core::DeadlineKind::{ClientBody, ClientWrite, Connect, Queue, Read, Total, Write, WriteIdle};
use tidegate_core::{DeadlineKind, TimeoutPolicy};

use super::t::stuck_in;
use super::upstreams::answers;
use super::{ok, post};
use crate::expect::*;
use crate::run_fake::Exact;
use crate::script::{Case, P, Script, Step, ms, script};
use crate::transcript::End;
use crate::virtual_rt::HOP;

/// Microseconds: the virtual network takes a hundred for one way.
const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// So many bytes of head came before the first message's body.
fn head_len(received: &crate::recorder::Recorder) -> u64 {
    received.total - received.messages.first().map_or(0, |m| m.body_len)
}

/// What fails in the teardown never replaces the timeout. The response before it fills the client's socket but for
/// twenty bytes, so that the 504 is still being written when the client resets.
pub async fn w_09_error_in_cleanup(exact: &Exact) {
    let case = |first: u64| {
        Case::new("W-09", "error in cleanup")
            .upstream(script().read_message().then(ok(first)).body(first).read_message().read_to_end())
            .client(
                script()
                    .connect()
                    .bytes("GET / HTTP/1.1\r\nhost: conformance\r\n\r\n".repeat(2))
                    .wait_for("expired")
                    .step(Step::Rst),
            )
            .client(script().at(ms(200)).mark("expired"))
    };
    // With a client that reads: how long the head is.
    let reads = case(100_000).client(script().connect().get("/").read_message());
    let t = exact.look(reads).await;
    let head = t.clients.get(2).map_or(0, |log| head_len(&log.received));
    let first = HOP as u64 - 20 - head - 1;
    let case = case(first)
        .expect(success(0))
        .expect(timeout(1, Read, None))
        .expect(secondary(1))
        .expect(upstream_end(0, End::Rst))
        .expect(outcomes(2));
    exact.check(case).await;
}

/// The network's clock, from the client's connect: its SYN arrives at 100 us, its request at 300, the proxy's SYN at 400,
/// and the proxy is connected at 500.
fn connects() -> Case {
    Case::new("C-12", "tie, connected in the expiring turn")
        .upstream(script().read_message().then(ok(5)).body(5).read_to_end())
        .client(script().connect().get("/").read_message())
}

/// A connect that succeeds while the thread is blocked past its deadline has succeeded; not so if the total is past
/// too: then the connection that was made is closed, and not kept.
pub async fn c_12_tie_connected_in_the_expiring_turn(exact: &Exact) {
    // Blocked from before the proxy is connected until before, at and after its deadline, which is at 600 us.
    for length in [250, 251, 300, 1000, 100_000] {
        let blocked = || connects().client(script().at(us(350)).mark("blocked")).stall("blocked", us(length));
        let case = blocked().policy(|p| p.connect = Some(us(300)));
        exact
            .check(case.expect(body(0, 0, 5)).expect(success(0)).expect(attempts(0, 1)).expect(outcomes(1)))
            .await;
        let case = blocked().policy(|p| {
            p.connect = Some(us(300));
            p.total = Some(us(250));
        });
        let case = case
            .expect(status(0, 0, 504))
            .expect(timeout(0, Total, None))
            .expect(upstream_end(0, End::Rst))
            .expect(accepted(1))
            .expect(outcomes(1));
        exact.check(case).await;
    }
}

/// A connect that succeeds at the very instant of its deadline or one step after it is not noticed any more: nothing is
/// written to it, and its upstream never sees it.
pub async fn c_13_connected_just_after(exact: &Exact) {
    for limit in [190, 199, 200] {
        let case = connects()
            .policy(|p| p.connect = Some(us(limit)))
            .expect(status(0, 0, 504))
            .expect(timeout(0, Connect, None))
            .expect(accepted(0))
            .expect(outcomes(1));
        exact.check(case).await;
    }
    let in_time = connects().policy(|p| p.connect = Some(us(201))).expect(body(0, 0, 5)).expect(success(0));
    exact.check(in_time).await;
}

/// The last byte of the request is taken in the turn in which the write deadline is due: it was written. With one byte
/// left it was not.
pub async fn q_12_tie_on_the_last_byte(exact: &Exact) {
    // What is more than the sockets hold lies with the proxy.
    const BODY: u64 = HOP as u64 + 1000;
    let case = |takes: u64| {
        let takes = Step::ReadExact(usize::try_from(takes).unwrap_or(0));
        Case::new("Q-12", "tie on the last byte")
            .policy(|p| p.client_body = None)
            .upstream(
                script().at(ms(150)).step(takes).at(ms(250)).read_message().then(ok(5)).body(5).read_to_end(),
            )
            .client(script().connect().then(post(BODY)).body(BODY).read_message())
            .client(script().at(ms(100)).mark("blocked"))
    };
    let t = exact.look(case(0).policy(|p| p.write = None)).await;
    let head = t.upstreams.first().map_or(0, |log| head_len(&log.received));
    let all = (head + BODY).saturating_sub(HOP as u64);
    // The deadline is at 200.5 ms.
    for length in (995..=1010).map(|length| us(length * 100)) {
        let written = case(all).stall("blocked", length).expect(success(0)).expect(body(0, 0, 5));
        exact.check(written.expect(request_whole(0, 0, BODY)).expect(outcomes(1))).await;
        let cut =
            case(all - 1).stall("blocked", length).expect(status(0, 0, 504)).expect(timeout(0, Write, None));
        exact
            .check(cut.expect(request_cut(0, None)).expect(upstream_end(0, End::Rst)).expect(outcomes(1)))
            .await;
    }
}

/// A total that has fired is over: hours later nothing more has happened, and the connection serves its next request.
pub async fn t_14_once_only(exact: &Exact) {
    let case = Case::new("T-14", "once only")
        .patient()
        .policy(|p| p.total = Some(ms(100)))
        .lasts(Duration::from_secs(6 * 3600))
        .upstream(script().read_message().read_to_end())
        .upstream(answers("later"))
        .client(
            script()
                .connect()
                .get("/1")
                .read_message()
                .mark("over")
                .pause(Duration::from_secs(5 * 3600))
                .get("/2")
                .read_message(),
        )
        .expect(status(0, 0, 504))
        .expect(timeout(0, Total, None))
        .expect(text(0, 1, "later"))
        .expect(messages(0, 2))
        .expect(upstream_end(0, End::Rst))
        .expect(outcomes(2));
    exact.check(case).await;
}

/// The clock jumps past all deadlines at once, in each phase: exactly one is reported, the earliest, and of equals the
/// outermost.
pub async fn t_19_big_jump(exact: &Exact) {
    // In each phase another one is the first.
    let limits = TimeoutPolicy {
        queue: Some(ms(100)),
        connect: Some(ms(110)),
        write_idle: Some(ms(120)),
        write: Some(ms(300)),
        read: Some(ms(130)),
        client_body: Some(ms(140)),
        client_write: Some(ms(150)),
        total: Some(ms(300)),
        ..P
    };
    let phases: [(&str, DeadlineKind); 8] = [
        ("queue", Queue),
        ("connect", Connect),
        ("write, upstream slow", WriteIdle),
        ("write, client slow", ClientBody),
        ("100-wait", Read),
        ("read head", Read),
        ("read body", Read),
        ("client write", ClientWrite),
    ];
    let long = Duration::from_secs(20);
    for (phase, first) in phases {
        let jumps = |limits: TimeoutPolicy, kind| {
            stuck_in(phase, "T-19", "big jump")
                .policy(|p| *p = limits)
                .stall("reached", long)
                .expect(timeout(0, kind, None))
                .expect(outcomes(1))
        };
        exact.check(jumps(limits, first)).await;
        // All at the same instant, or the total first by a little, or by much.
        exact.check(jumps(TimeoutPolicy { total: Some(ms(99)), ..limits }, Total)).await;
        let mut equal = TimeoutPolicy { write_idle: None, ..limits };
        for limit in
            [&mut equal.queue, &mut equal.connect, &mut equal.write, &mut equal.read, &mut equal.client_body]
        {
            *limit = Some(ms(200));
        }
        equal.client_write = Some(ms(200));
        equal.total = Some(ms(200));
        exact.check(jumps(equal, Total)).await;
    }
}

/// Of three that wait for one place the one in the middle leaves: before, while and after it is its turn. The place is
/// never lost.
pub async fn p_10_cancelled_waiter_in_all_orders(exact: &Exact) {
    let (mut unasked, mut asked) = (0, 0);
    for late in (0..=30).map(|step| us(50) * step) {
        let all = || (0..3).fold(script(), |script: Script, _| script.then(answers("ok"))).read_to_end();
        let case = Case::new("P-10", "cancelled waiter, in all orders")
            .patient()
            .policy(|p| p.pool_idle = P.pool_idle)
            .max_conns(1)
            .upstream(script().read_message().at(ms(50)).then(ok(2)).bytes("ok").then(all()))
            .upstream(all())
            .client(script().connect().get("/1").read_message())
            .client(script().at(ms(10)).connect().get("/2").at(ms(49) + us(500) + late).step(Step::Rst))
            .client(script().at(ms(20)).connect().get("/3").read_message().mark("served"))
            .expect(text(0, 0, "ok"))
            .expect(text(2, 0, "ok"))
            .expect(before(Moment::FirstByte(0, 0), Moment::Mark("served")))
            .expect(outcomes(3));
        let t = exact.check(case).await;
        let requests = t.upstreams.iter().flat_map(|log| &log.received.messages).count();
        *if requests == 2 { &mut unasked } else { &mut asked } += 1;
        let outcomes: Vec<_> =
            t.outcomes.iter().map(|seen| (seen.failure, seen.attempts, seen.reused)).collect();
        exact.note(format!("{late:?} late: {requests} requests, {outcomes:?}"));
    }
    exact.expect(unasked > 0 && asked > 0, "its turn to come among these instants");
}

/// A client leaves before, while and after the connection that was to serve it is made. The connection is closed,
/// never kept, and nothing reaches the client.
pub async fn p_12_connect_finishes_after_its_waiter_left(exact: &Exact) {
    let (mut unmade, mut made) = (0, 0);
    // The client's RST takes a hundred microseconds; the proxy connects at 500.
    for at in (5..=14).map(|step| us(50) * step) {
        let case = Case::new("P-12", "connect finishes after its waiter left")
            .patient()
            .upstream(script().read_to_end())
            .client(script().connect().get("/").at(at).step(Step::Rst))
            .client(script().at(ms(10)))
            .expect(got_nothing(0))
            .expect(failure(0, "ClientAbort"))
            .expect(reported(0, None))
            .expect(attempts(0, 1))
            .expect(outcomes(1));
        let t = exact.check(case).await;
        for log in &t.upstreams {
            exact.expect(log.end.is_some(), "the end of the connection");
        }
        *if t.upstreams.is_empty() { &mut unmade } else { &mut made } += 1;
    }
    exact.expect(unmade > 0 && made > 0, "the connection to be made among these instants");
}

/// An idle connection whose limit ends before, while and after it is asked for is either used or closed, never both:
/// every request is answered, on a connection that its upstream has not seen the end of.
pub async fn p_14_idle_expiry_and_checkout_in_one_turn(exact: &Exact) {
    let (mut used, mut dialled) = (0, 0);
    // Some hundred microseconds go by on the network around the limit of 150 ms.
    for early in (0..=12).map(|step| us(50) * step) {
        let case = Case::new("P-14", "idle expiry and checkout in one turn")
            .policy(|p| p.keep_alive = None)
            .upstream(answers("one").then(answers("two")))
            .upstream(answers("new"))
            .client(
                script().connect().get("/1").read_message().pause(ms(150) - early).get("/2").read_message(),
            )
            .expect(text(0, 0, "one"))
            .expect(status(0, 1, 200))
            .expect(success(1))
            .expect(outcomes(2));
        let t = exact.check(case).await;
        let was_reused = t.outcomes.get(1).is_some_and(|o| o.reused);
        let body = t.response(0, 1).map_or(&[][..], |m| &m.text);
        exact.expect(body == if was_reused { b"two" } else { b"new" }, "the answer of the connection in use");
        let ended = t.upstreams.first().and_then(|log| log.end);
        exact.note(format!("{early:?} early: reused {was_reused}, the idle one ended {ended:?}"));
        *if was_reused { &mut used } else { &mut dialled } += 1;
    }
    exact.expect(used > 0 && dialled > 0, "the limit to end among these instants");
}
