//! P: the pool and keep-alive.

use tidegate_core::DeadlineKind::{ClientWrite, Read, Total, Write};

use tidegate_core::Side;

use super::upstreams::answers;
use super::{BIG, ok, post};
use crate::expect::*;
use crate::script::{BLOCKED, BY_THEN, Case, Script, Step, ms, script};
use crate::transcript::End;

/// A connection that timed out is never used again: its late answer reaches nobody.
pub fn p_01_poison() -> Case {
    Case::new("P-01", "poison")
        .upstream(script().read_message().pause(ms(300)).then(ok(3)).bytes("one"))
        .upstream(script().read_message().then(ok(3)).bytes("two"))
        .client(
            script().connect().mark("start").get("/1").read_message().pause(ms(10)).get("/2").read_message(),
        )
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, Read, None))
        .expect(text(0, 1, "two"))
        .expect(reused(1, false))
        .expect(success(1))
        .expect(upstream_end(0, End::Rst))
        .expect(accepted(2))
}

/// An idle connection serves the next request, is closed when its limit has passed, and not used after.
/// (The catalogue asks at 140 of 150; half of the limit leaves room for a busy machine.)
pub fn p_05_idle_expiry() -> Case {
    Case::new("P-05", "idle expiry")
        .policy(|p| p.keep_alive = None)
        .upstream(
            script()
                .read_message()
                .then(ok(3))
                .bytes("one")
                .read_message()
                .mark("answers")
                .then(ok(3))
                .bytes("two")
                .read_to_end()
                .mark("expired"),
        )
        .upstream(script().read_message().then(ok(5)).bytes("three"))
        .client(
            script()
                .connect()
                .get("/1")
                .read_message()
                .pause(ms(75))
                .get("/2")
                .read_message()
                .wait_for("expired")
                .pause(ms(50))
                .get("/3")
                .read_message(),
        )
        .expect(text(0, 0, "one"))
        .expect(text(0, 1, "two"))
        .expect(reused(1, true))
        .expect(window(Moment::Mark("answers"), Moment::UpstreamEnd(0), ms(150)))
        .expect(upstream_end(0, End::Fin))
        .expect(text(0, 2, "three"))
        .expect(reused(2, false))
        .expect(accepted(2))
        .expect(outcomes(3))
}

/// The first exchange, client 1's, goes wrong on the connection `first`; the next one, client 0's, has a connection
/// of its own.
fn never_reused(id: &'static str, title: &'static str, first: Script) -> Case {
    Case::new(id, title)
        .upstream(first)
        .upstream(answers("own"))
        .client(script().wait_for("over").connect().get("/2").read_message())
        .expect(text(0, 0, "own"))
        .expect(success(1))
        .expect(reused(1, false))
        .expect(upstream_end(0, End::Rst))
        .expect(accepted(2))
        .expect(outcomes(2))
}

/// A connection whose request was cut is never used again.
pub fn p_02_poison_after_a_write_timeout() -> Case {
    let first = script().read_head().wait_for("over").read_to_end();
    never_reused("P-02", "poison after a write timeout", first)
        // Full at once, so that at the limit it is the upstream that is waited for.
        .small_buffers()
        .policy(|p| p.write = Some(ms(100)))
        .client(
            script()
                .connect()
                .then(post(BIG))
                .background(script().body(BIG))
                .read_message()
                .mark("over")
                .read_to_end(),
        )
        .expect(status(1, 0, 504))
        .expect(timeout(0, Write, None))
}

/// A connection whose response was cut by the total is never used again.
pub fn p_03_poison_after_a_total_timeout_in_the_body() -> Case {
    let first = script().read_message().then(ok(100)).body(40).read_to_end();
    never_reused("P-03", "poison after a total timeout in the body", first)
        .policy(|p| p.total = Some(ms(100)))
        .client(script().connect().get("/1").read_to_end().mark("over"))
        .expect(cut(1, 0, 200, Some(40)))
        .expect(timeout(0, Total, None))
}

/// A connection whose client left in the middle of the response is never used again.
pub fn p_04_poison_after_a_client_abort() -> Case {
    let first = script().read_message().then(ok(100)).body(40).read_to_end().mark("over");
    never_reused("P-04", "poison after a client abort", first)
        .patient()
        .client(script().connect().get("/1").read_body(40).step(Step::Rst))
        .expect(failure(0, "ClientAbort"))
}

/// A connection that is given back carries no timer of its exchange: used again after three times the read limit,
/// nothing has fired.
pub fn p_07_clean_hand_back() -> Case {
    Case::new("P-07", "clean hand-back")
        .policy(|p| {
            p.keep_alive = None;
            p.pool_idle = None;
        })
        .upstream(answers("one").then(answers("two")))
        .client(script().connect().get("/1").read_message().pause(ms(450)).get("/2").read_message())
        .expect(text(0, 0, "one"))
        .expect(text(0, 1, "two"))
        .expect(success(0))
        .expect(success(1))
        .expect(reused(1, true))
        .expect(accepted(1))
        .expect(outcomes(2))
}

/// A connection on which a request was answered before it was sent to its end is not given back.
pub fn p_13_request_sent_incompletely() -> Case {
    let early = script().read_body(50).then(ok(5)).bytes("early").read_to_end();
    Case::new("P-13", "request sent incompletely")
        .upstream(early)
        .upstream(answers("own"))
        .client(script().connect().then(post(100)).body(50).read_message().mark("over").read_to_end())
        .client(script().wait_for("over").connect().get("/2").read_message())
        .expect(text(0, 0, "early"))
        .expect(field(0, 0, "connection", "close"))
        .expect(request_cut(0, Some(50)))
        .expect(upstream_end(0, End::Rst))
        .expect(success(0))
        .expect(text(1, 0, "own"))
        .expect(reused(1, false))
        .expect(accepted(2))
}

/// While the thread is blocked an idle connection's limit ends and a request comes: it is not handed out, whoever is
/// polled first, and the request gets a new one. (Exact ties are in `exact.rs`.)
pub fn p_14_idle_expiry_and_checkout_after_a_stall() -> Case {
    Case::new("P-14", "idle expiry and checkout after a stall")
        .policy(|p| {
            p.keep_alive = None;
            p.pool_idle = Some(ms(60));
        })
        .stall("idle", ms(120))
        .upstream(answers("one").read_to_end())
        .upstream(answers("new"))
        .client(
            script()
                .connect()
                .get("/1")
                .read_message()
                .mark("idle")
                .wait_for(BLOCKED)
                .pause(ms(30))
                .get("/2")
                .read_message(),
        )
        .expect(text(0, 0, "one"))
        .expect(text(0, 1, "new"))
        .expect(reused(1, false))
        .expect(upstream_end(0, End::Fin))
        .expect(window(Moment::Mark(BLOCKED), Moment::UpstreamEnd(0), ms(120)))
        .expect(accepted(2))
}

/// A response that lies whole with the proxy frees its upstream connection, though the client is slow to take it;
/// what ends that client later does not touch whoever uses the connection then.
pub fn p_15_response_fully_read_client_slow() -> Case {
    Case::new("P-15", "response fully read, client slow")
        .policy(|p| p.read = None)
        .small_buffers()
        .upstream(
            script()
                .read_message()
                .then(ok(60_000))
                .body(60_000)
                .read_message()
                .mark("used again")
                .wait_for("given up")
                .then(ok(3))
                .bytes("two"),
        )
        .client(
            script()
                .connect()
                .mark("asks")
                .get("/1")
                .read_head()
                .mark("slow")
                .wait_for("given up")
                .read_to_end(),
        )
        .client(script().wait_for("slow").pause(BY_THEN).connect().get("/2").read_message())
        .client(script().wait_for("used again").pause(ms(300)).mark("given up"))
        .expect(before(Moment::Mark("slow"), Moment::Mark("used again")))
        .expect(cut(0, 0, 200, None))
        .expect(client_end(0, End::Rst))
        .expect(timeout(0, ClientWrite, Some(Side::Client)))
        .expect(window_wider(Moment::Mark("asks"), Moment::Outcome(0), ms(150), ms(10)))
        .expect(text(1, 0, "two"))
        .expect(success(1))
        .expect(reused(1, true))
        .expect(accepted(1))
}
