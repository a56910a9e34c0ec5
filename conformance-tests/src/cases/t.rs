//! T: the total, and deadlines inside deadlines. The same rules for
//! `wait_for` are in `wait.rs`.

use tidegate_core::DeadlineKind::{Read, Total};
use tidegate_core::{Phase, Side, TimeoutPolicy};

use super::{BIG, ENDLESS, ok, post};
use crate::expect::*;
use crate::script::{BLOCKED, Case, Script, Step, Upstream, ms, script};
use crate::transcript::End;

/// Of two deadlines at one instant the total wins. The connection is reused, so that both start in one
/// turn.
pub fn t_03_equal() -> Case {
    Case::new("T-03", "equal")
        .policy(|p| {
            p.read = Some(ms(100));
            p.total = Some(ms(100));
        })
        .upstream(script().read_message().then(ok(5)).body(5).read_message().read_to_end())
        .client(script().connect().get("/1").read_message().mark("start").get("/2").read_message())
        .expect(status(0, 0, 200))
        .expect(status(0, 1, 504))
        .expect(reused(1, true))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 1), ms(100)))
        .expect(timeout(1, Total, None))
        .expect(upstream_end(0, End::Rst))
}

/// Both deadlines pass while the thread is blocked: the earlier one is reported, here the outer.
pub fn t_04_stall_past_both_outer_earlier() -> Case {
    Case::new("T-04", "stall past both, outer earlier")
        .policy(|p| {
            p.read = Some(ms(120));
            p.total = Some(ms(100));
        })
        .stall("asked", ms(180))
        .upstream(script().read_message().mark("asked").read_to_end())
        .client(script().connect().get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark(BLOCKED), Moment::FirstByte(0, 0), ms(180)))
        .expect(timeout(0, Total, None))
        .expect(outcomes(1))
}

/// Both deadlines pass while the thread is blocked: the earlier one is reported, here the inner.
pub fn t_05_stall_past_both_inner_earlier() -> Case {
    Case::new("T-05", "stall past both, inner earlier")
        .policy(|p| {
            p.read = Some(ms(100));
            p.total = Some(ms(120));
        })
        .stall("asked", ms(180))
        // The connection is used again, so that both start in one turn.
        .upstream(script().read_message().then(ok(5)).body(5).read_message().mark("asked").read_to_end())
        .client(script().connect().get("/1").read_message().get("/2").read_message())
        .expect(success(0))
        .expect(status(0, 1, 504))
        .expect(reused(1, true))
        .expect(window(Moment::Mark(BLOCKED), Moment::FirstByte(0, 1), ms(180)))
        .expect(timeout(1, Read, None))
        .expect(outcomes(2))
}

/// A response as fast as the machine allows does not outrun the total.
pub fn t_13_flood() -> Case {
    Case::new("T-13", "flood")
        .alone()
        .policy(|p| p.total = Some(ms(100)))
        .upstream(script().read_message().then(ok(ENDLESS)).step(crate::script::Step::Flood))
        .client(script().connect().mark("start").get("/").read_to_end())
        .expect(window_wider(Moment::Mark("start"), Moment::ClientEnd(0), ms(100), ms(40)))
        .expect(cut(0, 0, 200, None))
        .expect(timeout(0, Total, None))
        .expect(reported(0, Some(200)))
        .expect(upstream_end(0, End::Rst))
}

/// What is left of the total caps the last of three connects.
pub fn t_15_remaining_budget() -> Case {
    let hanging = Upstream::FullBacklog { freed_by: None };
    Case::new("T-15", "remaining budget")
        .policy(|p| {
            p.connect = Some(ms(140));
            p.total = Some(ms(400));
        })
        .upstream_is(hanging.clone())
        .other(hanging.clone())
        .other(hanging)
        .client(script().mark("start").connect().get("/").read_some().snapshot("answered").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(400)))
        .expect(timeout(0, Total, Some(Side::Upstream)))
        .expect(during(0, Phase::Connect))
        .expect(attempts(0, 3))
        .expect(snapshot("answered", 0, 0))
}

/// Without limits nothing ends but by itself, here after three times the usual limit.
pub fn t_17_none() -> Case {
    Case::new("T-17", "None")
        .policy(|p| *p = TimeoutPolicy::OFF)
        .upstream(script().read_message().mark("asked").pause(ms(450)).then(ok(5)).body(5))
        .client(script().connect().get("/").read_message())
        .expect(body(0, 0, 5))
        .expect(window(Moment::Mark("asked"), Moment::FirstByte(0, 0), ms(450)))
        .expect(success(0))
        .expect(outcomes(1))
}

/// An exchange that came to wait in one of its phases, and stays there: what happens then is for whoever sets the
/// limits. "reached" is marked in that phase.
pub(super) fn stuck_in(phase: &str, id: &'static str, title: &'static str) -> Case {
    let case = Case::new(id, title).patient();
    let asks = || script().connect().mark("start");
    let answered = || script().read_some().snapshot("answered").read_message();
    match phase {
        "queue" => case.max_conns(0).client(asks().get("/").pause(ms(10)).mark("reached").then(answered())),
        "connect" => case
            .upstream_is(Upstream::FullBacklog { freed_by: None })
            .client(asks().get("/").pause(ms(10)).mark("reached").then(answered())),
        // Full at once, so that at the limit it is the upstream that is waited for.
        "write, upstream slow" => case
            .small_buffers()
            .upstream(script().read_head().pause(ms(10)).mark("reached").wait_for("answered").read_to_end())
            .client(
                asks()
                    .then(post(BIG))
                    .background(script().body(BIG))
                    .then(answered())
                    .mark("answered")
                    .read_to_end(),
            ),
        "write, client slow" => case
            .upstream(falls_silent(script().read_body(50)))
            .client(asks().then(post(100)).body(50).then(answered()).read_to_end()),
        "100-wait" => case.upstream(falls_silent(script().read_head())).client(
            asks()
                .head("POST / HTTP/1.1\nhost: conformance\ncontent-length: 100\nexpect: 100-continue")
                .then(answered())
                .read_to_end(),
        ),
        "read head" => case
            .upstream(falls_silent(script().read_message().bytes("HTTP/1.1 2")))
            .client(asks().get("/").then(answered())),
        "read body" => case
            .upstream(falls_silent(script().read_message().then(ok(100)).body(40)))
            .client(asks().get("/").read_to_end()),
        // More than the machine and all kernels hold.
        _ => case
            .upstream(
                script()
                    .read_message()
                    .then(ok(ENDLESS))
                    .step(Step::BodyUntilBlocked(ms(40)))
                    .mark("reached")
                    .read_to_end(),
            )
            .client(asks().get("/").read_head().wait_until("let go", 0, 0).read_to_end()),
    }
}

/// The rest of an upstream that says nothing more.
fn falls_silent(script: Script) -> Script {
    script.pause(ms(10)).mark("reached").read_to_end()
}

/// The total ends an exchange in one of its phases: in each the same is left of it, which is nothing.
fn t_18(title: &'static str, phase: &str) -> Case {
    stuck_in(phase, "T-18", title)
        .policy(|p| p.total = Some(ms(100)))
        .expect(timeout(0, Total, None))
        .expect(outcomes(1))
}

/// One that ends in a status, and before it in the end of the upstream connection.
fn t_18_answered(title: &'static str, phase: &str, code: u16, waits: Phase) -> Case {
    t_18(title, phase)
        .expect(status(0, 0, code))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(100)))
        .expect(during(0, waits))
        .expect(reported(0, Some(code)))
        .expect(snapshot("answered", 0, 0))
}

/// The total ends the wait for a free upstream.
pub fn t_18_in_the_queue() -> Case {
    t_18_answered("in the queue", "queue", 504, Phase::Queue).expect(attempts(0, 0)).expect(accepted(0))
}

/// The total ends a connect.
pub fn t_18_in_the_connect() -> Case {
    t_18_answered("in the connect", "connect", 504, Phase::Connect).expect(attempts(0, 1))
}

/// The total ends a request that its upstream does not take.
pub fn t_18_in_the_write_upstream_slow() -> Case {
    t_18_answered("in the write, upstream slow", "write, upstream slow", 504, Phase::Request)
        .expect(timeout(0, Total, Some(Side::Upstream)))
        .expect(request_cut(0, None))
        .expect(upstream_end(0, End::Rst))
        .expect(client_end(0, End::Fin))
}

/// The total ends a request that its client does not send.
pub fn t_18_in_the_write_client_slow() -> Case {
    t_18_answered("in the write, client slow", "write, client slow", 408, Phase::Request)
        .expect(timeout(0, Total, Some(Side::Client)))
        .expect(request_cut(0, Some(50)))
        .expect(upstream_end(0, End::Rst))
        .expect(client_end(0, End::Fin))
}

/// The total ends the wait for a 100.
pub fn t_18_in_the_100_wait() -> Case {
    t_18_answered("in the 100-wait", "100-wait", 504, Phase::Request)
        .expect(request_cut(0, Some(0)))
        .expect(upstream_end(0, End::Rst))
        .expect(client_end(0, End::Fin))
}

/// The total ends a response head; the part that came reaches nobody.
pub fn t_18_in_the_response_head() -> Case {
    t_18_answered("in the response head", "read head", 504, Phase::ResponseHead)
        .expect(messages(0, 1))
        .expect(upstream_end(0, End::Rst))
}

/// The total ends a response body, visibly.
pub fn t_18_in_the_response_body() -> Case {
    t_18("in the response body", "read body")
        .expect(cut(0, 0, 200, Some(40)))
        .expect(window(Moment::Mark("start"), Moment::ClientEnd(0), ms(100)))
        .expect(during(0, Phase::ResponseBody))
        .expect(reported(0, Some(200)))
        .expect(client_end(0, End::Fin))
        .expect(upstream_end(0, End::Rst))
}

/// The total ends a response that its client does not take.
pub fn t_18_in_the_client_write() -> Case {
    t_18("in the client write", "client write")
        .expect(cut(0, 0, 200, None))
        .expect(window(Moment::Mark("start"), Moment::UpstreamEnd(0), ms(100)))
        .expect(during(0, Phase::ResponseBody))
        .expect(reported(0, Some(200)))
        .expect(upstream_end(0, End::Rst))
}
