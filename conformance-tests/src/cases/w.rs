//! W, for the proxy: what asyncio's `wait_for` promises, kept by the machine and its driver. The
//! cases about the primitive itself are in `wait.rs` and `wait_more.rs`.

use tidegate_core::DeadlineKind::{Connect, Drain, Write};
use tidegate_core::Side;

use super::upstreams::answers;
use super::{BIG, eager_sender, ok, post};
use crate::expect::*;
use crate::script::{BLOCKED, Case, Command, SERVER_ENDED, Step, Upstream, ms, script};
use crate::transcript::End;

/// With no time at all, what needs no waiting still succeeds: a request head that lies in the kernel when its
/// connection is accepted.
pub fn w_02_zero_already_done() -> Case {
    Case::new("W-02", "zero, already done")
        .policy(|p| {
            p.client_head = Some(ms(0));
            p.client_body = Some(ms(0));
        })
        .stall("stalled", ms(60))
        .upstream(script().read_message().then(ok(5)).body(5))
        .client(script().mark("stalled").wait_for(BLOCKED).connect().then(post(5)).body(5).read_message())
        .expect(request_whole(0, 0, 5))
        .expect(body(0, 0, 5))
        .expect(success(0))
}

/// A deadline that lies in the past when it is set fires at once, here a drain that leaves no time.
pub fn w_03_past_deadline_operation_running() -> Case {
    Case::new("W-03", "past deadline, operation running")
        .policy(|p| p.drain = Some(ms(0)))
        .command("drain", Command::Drain)
        .upstream(script().read_message().mark("drain").read_to_end())
        .client(script().connect().get("/").read_some().snapshot("answered").read_message().read_to_end())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("drain"), Moment::FirstByte(0, 0), ms(0)))
        .expect(timeout(0, Drain, None))
        .expect(snapshot("answered", 0, 0))
        .expect(upstream_end(0, End::Rst))
        .expect(outcomes(1))
}

/// The answer is there and the proxy was stopped, both while the thread was blocked: the stop is not swallowed, and
/// the answer reaches nobody.
fn stopped_in_the_same_turn(title: &'static str, answer: u64, stop: u64) -> Case {
    Case::new("W-11", title)
        .patient()
        .stall("asked", ms(100))
        .command("stop", Command::Stop)
        .upstream(
            script()
                .read_message()
                .mark("asked")
                .wait_for(BLOCKED)
                .pause(ms(answer))
                .then(ok(5))
                .body(5)
                .read_to_end(),
        )
        .client(script().connect().get("/").read_to_end())
        .client(script().wait_for(BLOCKED).pause(ms(stop)).mark("stop"))
        .expect(got_nothing(0))
        .expect(failure(0, "Stopped"))
        .expect(upstream_end(0, End::Rst))
        .expect(window(Moment::Mark(BLOCKED), Moment::Mark(SERVER_ENDED), ms(100)))
        .expect(outcomes(1))
}

/// First the answer, then the stop.
pub fn w_11_cancellation_not_swallowed_answer_first() -> Case {
    stopped_in_the_same_turn("cancellation not swallowed, answer first", 20, 50)
}

/// First the stop, then the answer.
pub fn w_11_cancellation_not_swallowed_stop_first() -> Case {
    stopped_in_the_same_turn("cancellation not swallowed, stop first", 50, 20)
}

/// A connection that lingers after its error response ends at once when the proxy is stopped.
pub fn w_12_cancelled_again_during_teardown() -> Case {
    Case::new("W-12", "cancelled again during teardown")
        .policy(|p| {
            p.write = Some(ms(100));
            p.linger = None;
        })
        .max_conns(1)
        .command("stop", Command::Stop)
        .upstream(script().read_to_end())
        .client(eager_sender().pause(ms(20)).mark("stop").step(Step::Join))
        .expect(status(0, 0, 408))
        .expect(timeout(0, Write, Some(Side::Client)))
        .expect(client_end(0, End::Fin))
        .expect(window(Moment::Mark("stop"), Moment::Mark(SERVER_ENDED), ms(0)))
        .expect(window_within(Moment::Mark("stop"), Moment::WriteError(0), ms(0), ms(20)))
        .expect(outcomes(1))
}

/// A client that resets while its connection lingers gives nothing back a second time: the one place is the next request's by then,
/// and stays that one's alone.
pub fn w_12_cancelled_again_one_place() -> Case {
    Case::new("W-12", "cancelled again, one place")
        .patient()
        .policy(|p| {
            p.write = Some(ms(100));
            p.linger = None;
        })
        .max_conns(1)
        .upstream(script().read_to_end())
        .upstream(
            script()
                .read_message()
                .mark("occupied")
                .wait_for("asked")
                // By then the proxy knows, also on a busy machine.
                .pause(ms(60))
                .then(ok(3))
                .bytes("two")
                .then(answers("three")),
        )
        .client(
            script()
                .connect()
                .then(post(BIG))
                .background(script().drip(1024, ms(5), 10_000))
                .read_message()
                .mark("cut")
                .wait_for("occupied")
                .step(Step::Rst)
                .mark("left"),
        )
        .client(script().wait_for("cut").connect().get("/2").read_message())
        .client(script().wait_for("left").pause(ms(30)).connect().get("/3").mark("asked").read_message())
        .expect(status(0, 0, 408))
        .expect(timeout(0, Write, Some(Side::Client)))
        .expect(upstream_end(0, End::Rst))
        .expect(before(Moment::Mark("asked"), Moment::FirstByte(1, 0)))
        .expect(text(1, 0, "two"))
        .expect(text(2, 0, "three"))
        .expect(success(1))
        .expect(success(2))
        .expect(reused(2, true))
        .expect(accepted(2))
        .expect(outcomes(3))
}

/// No two requests share a connect, so none has to be shielded from another's end: there is one connect each, and
/// each ends at its own time.
pub fn w_13_shield() -> Case {
    Case::new("W-13", "shield")
        .policy(|p| p.connect = Some(ms(200)))
        .upstream_is(Upstream::FullBacklog { freed_by: None })
        .client(script().mark("first").connect().get("/1").read_some().snapshot("one left").read_message())
        .client(
            script()
                .wait_for("first")
                .pause(ms(100))
                .mark("second")
                .connect()
                .get("/2")
                .read_some()
                .snapshot("none left")
                .read_message(),
        )
        .expect(status(0, 0, 504))
        .expect(status(1, 0, 504))
        .expect(window(Moment::Mark("first"), Moment::FirstByte(0, 0), ms(200)))
        .expect(window(Moment::Mark("second"), Moment::FirstByte(1, 0), ms(200)))
        .expect(timeout(0, Connect, None))
        .expect(timeout(1, Connect, None))
        .expect(snapshot("one left", 1, 0))
        .expect(snapshot("none left", 0, 0))
}

/// A second deadline runs during the cleanup that a first one led to: the read limit, then the linger, which ends
/// for a client that neither sends nor leaves.
pub fn w_16_second_deadline_during_cleanup() -> Case {
    Case::new("W-16", "second deadline during cleanup")
        .upstream(script().mark("served first").read_to_end())
        .upstream(answers("next"))
        .max_client_conns(1)
        .client(
            script()
                .mark("start")
                .connect()
                .head("POST / HTTP/1.1\nhost: conformance\ncontent-length: 10\nexpect: 100-continue")
                .read_message()
                .read_to_end()
                .wait_for("served"),
        )
        // Its place is free when the first one's linger has ended.
        .client(script().wait_for("served first").connect().get("/next").read_message().mark("served"))
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(client_end(0, End::Fin))
        .expect(text(1, 0, "next"))
        .expect(window_wider(Moment::Mark("start"), Moment::FirstByte(1, 0), ms(230), ms(20)))
}
