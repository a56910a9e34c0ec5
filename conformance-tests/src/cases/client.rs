//! K, continued: clients that stall, leave or say two things at once.

use std::time::Duration;

use tidegate_core::DeadlineKind::{ClientBody, ClientHead};
use tidegate_core::Side;

use super::{ok, post};
use crate::expect::*;
use crate::script::{Case, Step, ms, script};
use crate::transcript::{End, Transcript};

/// The limit for a later head runs from its first byte, not from the response before it.
pub fn k_04_second_request_half_sent() -> Case {
    Case::new("K-04", "second request half sent")
        .policy(|p| p.keep_alive = None)
        .upstream(script().read_message().then(ok(5)).body(5).read_to_end())
        .client(
            script()
                .connect()
                .get("/1")
                .read_message()
                .pause(ms(100))
                .mark("begins")
                .bytes("GET / HT")
                .read_message()
                .read_to_end(),
        )
        .expect(status(0, 0, 200))
        .expect(status(0, 1, 408))
        .expect(window(Moment::Mark("begins"), Moment::FirstByte(0, 1), ms(150)))
        .expect(timeout(1, ClientHead, Some(Side::Client)))
        .expect(client_end(0, End::Fin))
        .expect(accepted(1))
}

/// An idle client is closed without a word, and an empty line is no request that would prolong it.
pub fn k_05_idle_keep_alive() -> Case {
    Case::new("K-05", "idle keep-alive")
        .upstream(script().read_message().mark("answers").then(ok(5)).body(5).read_to_end())
        .client(script().connect().get("/").read_message().pause(ms(75)).bytes("\r\n").read_to_end())
        .expect(status(0, 0, 200))
        .expect(messages(0, 1))
        .expect(window(Moment::Mark("answers"), Moment::ClientEnd(0), ms(150)))
        .expect(client_end(0, End::Fin))
        .expect(outcomes(1))
}

/// A client that says that it sends no more still wants its answer.
pub fn k_12_half_closed_client() -> Case {
    Case::new("K-12", "half-closed client")
        .patient()
        .upstream(script().read_message().pause(ms(50)).then(ok(5)).body(5))
        .client(script().connect().get("/").step(Step::Fin).read_to_end())
        .expect(body(0, 0, 5))
        .expect(messages(0, 1))
        .expect(client_end(0, End::Fin))
        .expect(success(0))
}

/// A client that resets in the middle of its response takes the upstream with it, by no deadline.
pub fn k_13_client_reset_in_the_response() -> Case {
    Case::new("K-13", "client reset in the response")
        .patient()
        .upstream(script().read_message().pause(ms(20)).then(ok(100)).body(40).read_to_end())
        .client(script().connect().get("/").read_body(40).mark("leaves").step(Step::Rst))
        .expect(within(Moment::Mark("leaves"), Moment::UpstreamEnd(0), ms(50)))
        .expect(upstream_end(0, End::Rst))
        .expect(failure(0, "ClientAbort"))
        .expect(reported(0, Some(200)))
        .expect(outcomes(1))
}

/// A client that resets while it waits takes the upstream with it; nobody is answered.
pub fn k_14_client_gone_while_waiting() -> Case {
    Case::new("K-14", "client gone while waiting")
        .patient()
        .upstream(script().read_message().mark("asked").read_to_end())
        .client(script().connect().get("/").wait_for("asked").pause(ms(50)).mark("leaves").step(Step::Rst))
        .expect(within(Moment::Mark("leaves"), Moment::UpstreamEnd(0), ms(50)))
        .expect(upstream_end(0, End::Rst))
        .expect(got_nothing(0))
        .expect(failure(0, "ClientAbort"))
        .expect(reported(0, None))
        .expect(outcomes(1))
}

/// Once a response has begun there is no place for a 408: it is cut.
pub fn k_15_no_408_after_the_head_of_a_response() -> Case {
    Case::new("K-15", "no 408 after the head of a response")
        .policy(|p| p.read = None)
        .upstream(script().read_body(50).then(ok(100)).body(40).read_to_end())
        .client(script().connect().then(post(100)).mark("stalls").body(50).read_to_end())
        .expect(cut(0, 0, 200, Some(40)))
        .expect(messages(0, 1))
        .expect(window(Moment::Mark("stalls"), Moment::ClientEnd(0), ms(150)))
        .expect(timeout(0, ClientBody, Some(Side::Client)))
        .expect(reported(0, Some(200)))
        .expect(client_end(0, End::Fin))
        .expect(request_cut(0, Some(50)))
        .expect(upstream_end(0, End::Rst))
}

/// A hundred clients that stall at once get a hundred 408s, the last one as punctually as the first.
pub fn k_16_100_clients_stall_at_once() -> Case {
    let mut case = Case::new("K-16", "100 clients stall at once")
        .alone()
        .expect(accepted(0))
        .expect(outcomes(100))
        .expect(Expect::new("no drift with the position", drift));
    for i in 0..100 {
        case = case
            .client(script().connect().bytes("GET / HT").read_message().read_to_end())
            .expect(status(i, 0, 408))
            // A hundred threads start, and end, while the proxy shares their cores.
            .expect(window_wider(Moment::Dial(i), Moment::FirstByte(i, 0), ms(150), ms(90)))
            .expect(timeout(i, ClientHead, Some(Side::Client)))
            .expect(client_end(i, End::Fin));
    }
    case
}

/// How much later those who came last were answered than those who came first: in the middle of each quarter, so that threads that
/// were late themselves do not matter. (A hundred of them together always are, so that their waits are no measure here.)
fn drift(t: &Transcript, tolerance: Tolerance) -> Result<(), String> {
    let mut came = Vec::new();
    for i in 0..t.clients.len() {
        let dialled = Moment::Dial(i).of(t)?;
        came.push((dialled, Moment::FirstByte(i, 0).of(t)?.saturating_sub(dialled)));
    }
    came.sort_unstable();
    let quarter = came.len() / 4;
    let middle = |quarter: &[(Duration, Duration)]| {
        let mut took: Vec<_> = quarter.iter().map(|(_, took)| *took).collect();
        took.sort_unstable();
        took[took.len() / 2]
    };
    let (first, last) = (middle(&came[..quarter]), middle(&came[came.len() - quarter..]));
    let most = if tolerance == Tolerance::VIRTUAL { SLACK_VIRTUAL } else { ms(25) };
    match last.saturating_sub(first) < most {
        true => Ok(()),
        false => Err(format!("the first took {first:?}, the last {last:?}")),
    }
}

/// What is pipelined behind a request has its own head limit, from the end of the exchange before it.
pub fn k_17_408_and_pipelining() -> Case {
    Case::new("K-17", "408 and pipelining")
        .upstream(script().read_message().pause(ms(50)).mark("answers").then(ok(5)).body(5).read_to_end())
        .client(
            script()
                .connect()
                .bytes("GET /1 HTTP/1.1\r\nhost: conformance\r\n\r\nGET /2 HT")
                .read_message()
                .read_message()
                .read_to_end(),
        )
        .expect(status(0, 0, 200))
        .expect(status(0, 1, 408))
        .expect(window(Moment::Mark("answers"), Moment::FirstByte(0, 1), ms(150)))
        .expect(timeout(1, ClientHead, Some(Side::Client)))
        .expect(client_end(0, End::Fin))
        .expect(accepted(1))
}
