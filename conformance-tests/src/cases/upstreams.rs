//! C and P, continued: which upstream gets a request, and who waits for one.

use std::time::Duration;

use tidegate_core::DeadlineKind::{Connect, Queue, Read, Total};
use tidegate_core::Phase;

use super::{ok, post};
use crate::expect::*;
use crate::script::{Case, Script, Step, Upstream, ms, script};
use crate::transcript::End;

const HANGING: Upstream = Upstream::FullBacklog { freed_by: None };

/// An answer with this text.
pub(super) fn answers(body: &'static str) -> Script {
    script().read_message().then(text_of(body))
}

fn text_of(body: &'static str) -> Script {
    ok(body.len() as u64).bytes(body)
}

/// When the first upstream cannot be reached in time, the next one is; the first attempt is gone by then. (That it goes before
/// the second begins is shown by C-15.)
pub fn c_17_next_upstream() -> Case {
    Case::new("C-17", "next upstream")
        .patient()
        .policy(|p| {
            p.connect = Some(ms(100));
            p.total = Some(ms(400));
        })
        .upstream_is(HANGING)
        .other(Upstream::Scripts(vec![script().snapshot("reached").then(answers("two"))]))
        .client(script().mark("start").connect().get("/").read_message())
        .expect(text(0, 0, "two"))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(100)))
        .expect(snapshot("reached", 0, 1))
        .expect(attempts(0, 2))
        .expect(success(0))
        .expect(outcomes(1))
}

/// All attempts together have no longer than the total: the third is cut short.
pub fn c_18_retries_use_up_the_total() -> Case {
    let mut case = Case::new("C-18", "retries use up the total").upstream_is(HANGING);
    for _ in 1..10 {
        case = case.other(HANGING);
    }
    // The third is cut in its middle, so that a late one of the three is still the third.
    let case = case.policy(|p| {
        p.connect = Some(ms(200));
        p.total = Some(ms(500));
    });
    case.client(script().mark("start").connect().get("/").read_some().snapshot("answered").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(500)))
        .expect(snapshot("answered", 0, 0))
        .expect(timeout(0, Total, None))
        .expect(during(0, Phase::Connect))
        .expect(attempts(0, 3))
        .expect(outcomes(1))
}

/// A connect that was given up gives its permit back: whoever waits begins to connect at once.
pub fn c_19_permit_freed() -> Case {
    Case::new("C-19", "permit freed")
        .policy(|p| p.queue = None)
        .max_conns(1)
        .upstream_is(HANGING)
        .client(script().mark("start").connect().get("/1").read_message())
        .client(script().wait_for("start").pause(ms(30)).connect().get("/2").read_message())
        .expect(status(0, 0, 504))
        .expect(status(1, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(100)))
        // The second one's time has begun when the first one's was over.
        .expect(window_wider(Moment::Mark("start"), Moment::Outcome(1), ms(200), ms(60)))
        .expect(begun_within(Moment::Outcome(0), Moment::Outcome(1), ms(100), ms(20)))
        .expect(timeout(0, Connect, None))
        .expect(timeout(1, Connect, None))
        .expect(attempts(1, 1))
        .expect(outcomes(2))
}

/// An idle connection that its upstream has closed is not used.
pub fn p_06_stale_connection_closed_before() -> Case {
    Case::new("P-06", "stale connection, closed before")
        .patient()
        .upstream(answers("one").wait_for("answered").pause(ms(50)).mark("closes"))
        .upstream(answers("two"))
        .client(
            script()
                .connect()
                .get("/1")
                .read_message()
                .mark("answered")
                .wait_for("closes")
                .pause(ms(50))
                .get("/2")
                .read_message(),
        )
        .expect(text(0, 0, "one"))
        .expect(text(0, 1, "two"))
        .expect(reused(1, false))
        .expect(attempts(1, 1))
        .expect(accepted(2))
}

/// An idle connection that is reset just as it is used: what may be repeated is, once, and has no longer than the total from its
/// beginning on.
pub fn p_06_stale_connection_reset_in_the_race_get() -> Case {
    Case::new("P-06", "stale connection, reset in the race, GET")
        .patient()
        .policy(|p| p.total = Some(ms(300)))
        .upstream(answers("one").read_message().step(Step::Rst))
        .upstream(answers("two").read_message().pause(ms(150)).step(Step::Rst))
        .upstream(script().read_to_end())
        .client(
            script()
                .connect()
                .get("/1")
                .read_message()
                .get("/2")
                .read_message()
                .mark("start")
                .get("/3")
                .read_message(),
        )
        .expect(text(0, 0, "one"))
        .expect(text(0, 1, "two"))
        .expect(success(1))
        .expect(attempts(1, 1))
        .expect(status(0, 2, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 2), ms(300)))
        .expect(timeout(2, Total, None))
        .expect(attempts(2, 1))
        .expect(upstream_end(2, End::Rst))
        .expect(accepted(3))
}

/// And what may not be repeated is not.
pub fn p_06_stale_connection_reset_in_the_race_post() -> Case {
    Case::new("P-06", "stale connection, reset in the race, POST")
        .patient()
        .upstream(answers("one").read_message().step(Step::Rst))
        .client(script().connect().get("/1").read_message().then(post(5)).body(5).read_message())
        .expect(text(0, 0, "one"))
        .expect(status(0, 1, 502))
        .expect(failure(1, "UpstreamReset"))
        .expect(reused(1, true))
        .expect(attempts(1, 0))
        .expect(accepted(1))
}

/// An idle connection that says something is closed at once, and what it said reaches nobody.
pub fn p_08_unsolicited_bytes_on_an_idle_connection() -> Case {
    Case::new("P-08", "unsolicited bytes on an idle connection")
        .patient()
        .upstream(
            answers("one")
                .wait_for("answered")
                .pause(ms(20))
                .mark("intrudes")
                // In one write: the connection is reset as soon as a byte of it has come.
                .bytes("HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nevil")
                .read_to_end()
                .mark("closed"),
        )
        .upstream(answers("two"))
        .client(
            script()
                .connect()
                .get("/1")
                .read_message()
                .mark("answered")
                .wait_for("closed")
                .get("/2")
                .read_message(),
        )
        .expect(window(Moment::Mark("intrudes"), Moment::UpstreamEnd(0), ms(0)))
        .expect(text(0, 1, "two"))
        .expect(messages(0, 2))
        .expect(reused(1, false))
        .expect(accepted(2))
}

/// A request that times out gives its permit back: whoever waits begins at once.
pub fn p_09_permit_freed() -> Case {
    Case::new("P-09", "permit freed")
        .policy(|p| p.queue = None)
        .max_conns(1)
        .upstream(script().read_message().mark("occupied").read_to_end())
        .upstream(script().mark("begins").then(answers("two")))
        .client(script().mark("start").connect().get("/1").read_message())
        .client(script().wait_for("occupied").connect().get("/2").read_message())
        .expect(status(0, 0, 504))
        .expect(timeout(0, Read, None))
        .expect(window(Moment::Mark("start"), Moment::Mark("begins"), ms(150)))
        .expect(within(Moment::Outcome(0), Moment::Mark("begins"), ms(20)))
        .expect(text(1, 0, "two"))
        .expect(success(1))
        .expect(accepted(2))
}

/// A client that leaves the queue takes nobody's turn. (That it may leave at any moment, the one of the grant
/// among them, is shown exhaustively beside `Admission`.)
pub fn p_10_cancelled_waiter() -> Case {
    Case::new("P-10", "cancelled waiter")
        .patient()
        .max_conns(1)
        .upstream(
            script()
                .read_message()
                .mark("occupied")
                .wait_for("left")
                // By then the proxy knows, also on a busy machine.
                .pause(ms(120))
                .then(ok(3))
                .bytes("one")
                .then(answers("two")),
        )
        .client(script().connect().get("/1").read_message())
        .client(script().wait_for("occupied").connect().get("/2").pause(ms(50)).step(Step::Rst).mark("left"))
        .client(script().wait_for("left").connect().get("/3").read_message())
        .expect(text(0, 0, "one"))
        .expect(got_nothing(1))
        .expect(text(2, 0, "two"))
        .expect(failure(1, "ClientAbort"))
        .expect(attempts(1, 0))
        .expect(success(0))
        .expect(success(2))
        .expect(accepted(1))
        .expect(outcomes(3))
}

/// One request occupies the only upstream; a second is refused with 503 so long after it has come.
fn second_is_refused(title: &'static str, after: Duration) -> Case {
    Case::new("P-11", title)
        .patient()
        .max_conns(1)
        .upstream(
            script()
                .read_message()
                .mark("occupied")
                .wait_for("refused")
                .pause(ms(30))
                .then(ok(3))
                .bytes("one"),
        )
        .client(script().connect().get("/1").read_message())
        .client(
            script().wait_for("occupied").mark("start").connect().get("/2").read_message().mark("refused"),
        )
        .expect(status(1, 0, 503))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(1, 0), after))
        .expect(text(0, 0, "one"))
        .expect(accepted(1))
        .expect(outcomes(2))
}

/// Nobody waits for ever: 503, and the upstream hears nothing of it.
pub fn p_11_queue_limit() -> Case {
    second_is_refused("queue limit", ms(100))
        .policy(|p| p.queue = Some(ms(100)))
        .expect(timeout(1, Queue, None))
        .expect(during(1, Phase::Queue))
        .expect(attempts(1, 0))
}

/// Nor do more wait than may: 503 at once.
pub fn p_11_queue_full() -> Case {
    second_is_refused("queue full", ms(0)).max_queue(0).expect(failure(1, "QueueFull"))
}

/// At the limit of clients the one that is idle makes room for one that comes, and not before. (The catalogue has no
/// row for this limit; it stands with that of the queue.)
pub fn p_11_client_limit() -> Case {
    Case::new("P-11", "client limit")
        .patient()
        .max_client_conns(1)
        .upstream(answers("one").then(answers("two")))
        .client(script().connect().get("/1").read_message().mark("idle").read_to_end())
        .client(script().wait_for("idle").mark("comes").connect().get("/2").read_message())
        .expect(text(0, 0, "one"))
        .expect(client_end(0, End::Fin))
        .expect(window(Moment::Mark("comes"), Moment::FirstByte(1, 0), ms(0)))
        .expect(text(1, 0, "two"))
        .expect(reused(1, true))
}
