//! Q and R, continued: what the upstream answers, and when.

use tidegate_core::DeadlineKind::Read;
use tidegate_core::Side;

use super::r::all_arrived;
use super::{ok, post};
use crate::expect::*;
use crate::recorder::Message;
use crate::script::{Case, Step, ms, script};
use crate::transcript::{End, Failure, Seen, Transcript};

/// Once the request is written its deadline is over, and the wait for the answer has a full one of its own: the answer comes
/// later than either ends, counted from the beginning. (Longer than the catalogue's, for busy machines.)
pub fn q_03_drained_in_time() -> Case {
    // More than a connection with small buffers swallows, and little enough for a busy machine.
    const BODY: u64 = 256 << 10;
    Case::new("Q-03", "drained in time")
        .small_buffers()
        .policy(|p| {
            p.client_body = None;
            p.write = Some(ms(450));
            p.read = Some(ms(550));
        })
        .upstream(script().read_head().pause(ms(250)).read_message().pause(ms(400)).then(ok(5)).body(5))
        .client(script().connect().mark("start").then(post(BODY)).body(BODY).read_message())
        .expect(window_within(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(650), ms(100)))
        .expect(body(0, 0, 5))
        .expect(request_whole(0, 0, BODY))
        .expect(success(0))
}

/// A late 100 is relayed and so is the body; it gives the final answer a full read limit. (At longer intervals
/// than the catalogue's, for busy machines.)
pub fn q_10_expect_late_100() -> Case {
    Case::new("Q-10", "expect, late 100")
        .policy(|p| {
            p.read = Some(ms(350));
            p.write = Some(ms(600));
        })
        .upstream(
            script()
                .read_head()
                .pause(ms(200))
                .head("HTTP/1.1 100 Continue")
                .read_message()
                .pause(ms(200))
                .then(ok(5))
                .body(5),
        )
        .client(
            script()
                .connect()
                .head("POST / HTTP/1.1\nhost: conformance\ncontent-length: 100\nexpect: 100-continue")
                .read_message()
                .body(100)
                .read_message(),
        )
        .expect(status(0, 0, 100))
        .expect(body(0, 1, 5))
        .expect(request_whole(0, 0, 100))
        .expect(success(0))
        .expect(outcomes(1))
}

/// An interim response is relayed and gives the final one a full read limit.
pub fn r_11_103_then_silence() -> Case {
    Case::new("R-11", "103 then silence")
        .upstream(
            script()
                .read_message()
                .pause(ms(50))
                .mark("hints")
                .head("HTTP/1.1 103 Early Hints\nlink: </style.css>")
                .read_to_end(),
        )
        .client(script().connect().get("/").read_message().read_message())
        .expect(status(0, 0, 103))
        .expect(status(0, 1, 504))
        .expect(window(Moment::Mark("hints"), Moment::FirstByte(0, 1), ms(150)))
        .expect(timeout(0, Read, Some(Side::Upstream)))
        .expect(upstream_end(0, End::Rst))
}

/// An upstream that has finished while a slow client held everything up is not timed out afterwards.
pub fn r_14_upstream_finished_during_the_suspension() -> Case {
    Case::new("R-14", "upstream finished during the suspension")
        .patient()
        .policy(|p| p.read = Some(ms(150)))
        .upstream(
            script()
                .read_message()
                .head("HTTP/1.1 200 OK\nconnection: close")
                .step(Step::BodyUntilBlocked(ms(80)))
                .step(Step::Fin)
                .mark("finished"),
        )
        .client(
            script()
                .connect()
                .get("/")
                .read_head()
                .wait_for("finished")
                .pause(ms(200))
                .mark("resumes")
                .read_message(),
        )
        .expect(before(Moment::Mark("finished"), Moment::Mark("resumes")))
        .expect(status(0, 0, 200))
        .expect(all_arrived())
        .expect(success(0))
}

/// A response without a body is over with its head: the connection is pooled, and no deadline is left.
pub fn r_15_no_body_to_come() -> Case {
    let head_alone = Expect::new("the head of a 200 and no byte after it", |t, _| match t.response(0, 2) {
        Some(m) if m.status() == Some(200) && m.body_len == 0 => Ok(()),
        other => Err(format!("there is {other:?}")),
    });
    Case::new("R-15", "no body to come")
        .policy(|p| {
            p.read = Some(ms(250));
            p.keep_alive = None;
            p.pool_idle = None;
        })
        .upstream(
            script()
                .read_message()
                .head("HTTP/1.1 204 No Content")
                .read_message()
                .head("HTTP/1.1 304 Not Modified\ncontent-length: 5")
                .read_message()
                .then(ok(5))
                .read_message()
                .then(ok(5))
                .body(5),
        )
        .client(
            script()
                .connect()
                .get("/1")
                .read_message()
                .get("/2")
                .read_message()
                // A server may send what this one has announced: its connection is kept from the next request for 50 ms.
                .pause(ms(80))
                .head("HEAD /3 HTTP/1.1\nhost: conformance")
                .step(Step::ReadHead)
                .mark("answered")
                .wait_for("over"),
        )
        .client(script().wait_for("answered").pause(ms(400)).connect().get("/4").read_message().mark("over"))
        .expect(status(0, 0, 204))
        .expect(status(0, 1, 304))
        .expect(head_alone)
        .expect(body(1, 0, 5))
        .expect(reused(1, true))
        .expect(reused(2, true))
        .expect(reused(3, true))
        .expect(success(2))
        .expect(success(3))
        .expect(accepted(1))
        .expect(outcomes(4))
}

/// An upstream that closes without a word is no timeout.
pub fn r_17_closed_before_a_byte() -> Case {
    Case::new("R-17", "closed before a byte")
        .patient()
        .upstream(script().read_message().pause(ms(20)).mark("closes"))
        .client(script().connect().get("/").read_message())
        .expect(status(0, 0, 502))
        .expect(window(Moment::Mark("closes"), Moment::FirstByte(0, 0), ms(0)))
        .expect(failure(0, "UpstreamClosed"))
        .expect(accepted(1))
        .expect(outcomes(1))
}

/// An upstream that resets in its response's body cuts it, and that is no timeout either.
pub fn r_18_reset_in_the_body() -> Case {
    Case::new("R-18", "reset in the body")
        .patient()
        .upstream(
            script()
                .read_message()
                .then(ok(100))
                .body(40)
                .wait_for("relayed")
                .pause(ms(20))
                .mark("resets")
                .step(Step::Rst),
        )
        .client(script().connect().get("/").read_body(40).mark("relayed").read_to_end())
        .expect(cut(0, 0, 200, Some(40)))
        .expect(client_end(0, End::Fin))
        .expect(window(Moment::Mark("resets"), Moment::ClientEnd(0), ms(0)))
        .expect(failure(0, "UpstreamReset"))
        .expect(reported(0, Some(200)))
        .expect(outcomes(1))
}

/// An answer that comes when the 504 is already there goes nowhere: the next request gets its own. (The late
/// answer waits for the 504 instead of 10 ms, so that it is late on every machine.)
pub fn r_21_late_answer() -> Case {
    Case::new("R-21", "late answer")
        .upstream(script().read_message().wait_for("timed out").then(ok(3)).bytes("one").read_to_end())
        .upstream(script().read_message().then(ok(3)).bytes("two"))
        .client(
            script()
                .connect()
                .mark("start")
                .get("/1")
                .read_some()
                .mark("timed out")
                .read_message()
                .get("/2")
                .read_message(),
        )
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(text(0, 1, "two"))
        .expect(messages(0, 2))
        .expect(reused(1, false))
        .expect(upstream_end(0, End::Rst))
        .expect(accepted(2))
}

/// An answer at the limit comes in time or it does not; it never half comes. Fifty clients ask at once, and ask for something
/// else on the same connection then. Each gets a whole 200 or a whole 504, and its second answer is the second's; what is
/// reported is what they got; and a connection on which a request was given up is reset, and serves no other.
pub fn r_22_exactly_at_the_limit_many_times() -> Case {
    const RUNS: usize = 50;
    let mut case = Case::new("R-22", "exactly at the limit, many times")
        .by_chance()
        // Only the first of each two is in a hurry.
        .route("/again", |p| p.read = None)
        .expect(Expect::new("a whole 200 or a whole 504 for each client", |t, _| at_the_limit(t, RUNS)))
        .expect(outcomes(2 * RUNS));
    for i in 0..2 * RUNS {
        let late = script().read_message().pause(ms(148 + i as u64 % 5)).then(ok(5)).body(5);
        let last = script().head("HTTP/1.1 200 OK\nconnection: close\ncontent-length: 3").bytes("two");
        case = case.upstream(late.read_message().then(last).read_to_end());
    }
    (0..RUNS).fold(case, |case, i| {
        let asks = script().connect().get(&format!("/{i}")).read_message().get("/again").read_message();
        case.client(asks)
    })
}

fn at_the_limit(t: &Transcript, clients: usize) -> Result<(), String> {
    let mut good = 0;
    for i in 0..clients {
        messages(i, 2).check(t, Tolerance { slack: ms(0) })?;
        let (Some(first), Some(second)) = (t.response(i, 0), t.response(i, 1)) else {
            return Err(format!("client {i} has no two responses"));
        };
        let is_answer = |m: &Message| {
            let whole = m.is_pattern && m.body_len == 5 || m.text == b"two";
            m.complete && m.status() == Some(200) && whole
        };
        match first.status() {
            Some(200) if is_answer(first) => good += 1,
            Some(504) if first.complete => given_up(t, &format!("GET /{i} HTTP/1.1"))?,
            _ => return Err(format!("client {i} got {:?}, complete: {}", first.start, first.complete)),
        }
        if !is_answer(second) {
            return Err(format!("client {i} got {:?} then, complete: {}", second.start, second.complete));
        }
    }
    let (timeouts, answers): (Vec<&Seen>, Vec<&Seen>) = t.outcomes.iter().partition(|o| o.failure.is_some());
    if answers.len() != good + clients || answers.iter().any(|o| o.status != Some(200)) {
        return Err(format!("{good} and {clients} were good, {} are reported so", answers.len()));
    }
    let is_read = |o: &&Seen| {
        let failure = o.failure;
        let is_read = matches!(failure, Some(Failure::Timeout { kind: Read, response_started: false, .. }));
        is_read && o.status == Some(504)
    };
    match timeouts.into_iter().find(|o| !is_read(o)) {
        Some(other) => Err(format!("one is reported as {:?}, {:?}", other.status, other.failure)),
        None => Ok(()),
    }
}

/// The connection that this request came on was reset, and nothing came on it afterwards. (On a busy machine it may not have been
/// accepted yet.)
fn given_up(t: &Transcript, request: &str) -> Result<(), String> {
    for log in &t.upstreams {
        let messages = &log.received.messages;
        let is_last = messages.last().is_some_and(|m| m.start == request);
        match log.end {
            _ if messages.iter().all(|m| m.start != request) => {}
            Some((End::Rst, _)) if is_last => {}
            end => return Err(format!("the connection of {request:?} got {} and {end:?}", messages.len())),
        }
    }
    Ok(())
}

/// What follows a complete response is nobody's, and the connection that it came on is not used again.
pub fn r_23_two_responses_to_one_request() -> Case {
    let twice = "HTTP/1.1 200 OK\r\ncontent-length: 3\r\n\r\none".repeat(2);
    Case::new("R-23", "two responses to one request")
        .patient()
        .upstream(script().read_message().bytes(twice).read_to_end())
        .upstream(script().read_message().then(ok(3)).bytes("two"))
        .client(script().connect().get("/1").read_message().get("/2").read_message())
        .expect(text(0, 0, "one"))
        .expect(text(0, 1, "two"))
        .expect(messages(0, 2))
        .expect(reused(1, false))
        .expect(accepted(2))
        .expect(outcomes(2))
}
