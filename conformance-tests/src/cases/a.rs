//! A: adversarial schedules that a script can say. The others are in `schedules.rs` (exact
//! time) and `live.rs` (the runtime itself).

use tidegate_core::DeadlineKind::{Read, Total};
use tidegate_core::Phase;

use super::{ok, t};
use crate::expect::*;
use crate::hostile::Habits;
use crate::script::{BLOCKED, Case, ms, script};
use crate::transcript::End;

/// A flood under a read deadline that is far shorter than the total: each read resets it.
pub fn a_03_flood_while_the_read_timer_is_armed() -> Case {
    let flood = Case { id: "A-03", title: "flood while the read timer is armed", ..t::t_13_flood() };
    flood.policy(|p| p.read = Some(ms(50)))
}

/// One limit of 55 ms, and a thread that is blocked for `stall` from the moment at which the request is with
/// the upstream. The data comes so long after that, if it does. It is the second request of its connections: both deadlines
/// begin in one turn, however late the machine is.
fn stall(title: &'static str, stall: u64, data: Option<u64>, succeeds: bool) -> Case {
    const LIMIT: u64 = 55;
    let case = Case::new("A-04", title).route("/", |p| {
        p.read = Some(ms(LIMIT));
        p.total = data.is_none().then_some(ms(LIMIT + 20));
    });
    let case = if stall > 0 { case.stall("asked", ms(stall)) } else { case };
    let answer = || ok(5).body(5);
    let upstream = script().read_message().then(answer()).read_message().mark("asked");
    let upstream = if stall > 0 { upstream.wait_for(BLOCKED) } else { upstream };
    let case = match data {
        Some(after) => case.upstream(upstream.pause(ms(after)).then(answer()).read_to_end()),
        None => case.upstream(upstream.read_to_end()),
    };
    let asks = script().connect().get("/first").read_message().mark("asks").get("/").read_message();
    let case = case.client(asks).expect(success(0)).expect(reused(1, true)).expect(outcomes(2));
    if succeeds {
        return case.expect(status(0, 1, 200)).expect(body(0, 1, 5)).expect(success(1));
    }
    // Late by no more than the thread was blocked.
    let (since, ends) = if stall > LIMIT { (BLOCKED, stall) } else { ("asks", LIMIT) };
    case.expect(status(0, 1, 504))
        .expect(timeout(1, Read, None))
        .expect(upstream_end(0, End::Rst))
        .expect(window(Moment::Mark(since), Moment::Outcome(1), ms(ends)))
}

macro_rules! stalls {
    ($($name:ident = $title:literal, $stall:literal, $data:expr, $succeeds:literal;)*) => {
        $(
            #[doc = concat!("What had come by the end of the stall counts, and of two deadlines the earlier: ", $title, ".")]
            pub fn $name() -> Case {
                stall($title, $stall, $data, $succeeds)
            }
        )*
    };
}

stalls! {
    a_04_data_before_no_stall = "data before, no stall", 0, Some(0), true;
    a_04_data_before_30 = "data before, 30", 30, Some(0), true;
    a_04_data_before_60 = "data before, 60", 60, Some(0), true;
    a_04_data_before_200 = "data before, 200", 200, Some(0), true;
    a_04_data_after_no_stall = "data after, no stall", 0, Some(120), false;
    a_04_data_after_30 = "data after, 30", 30, Some(120), false;
    a_04_data_after_60 = "data after, 60", 60, Some(120), false;
    a_04_data_after_200 = "data after, 200", 200, Some(120), true;
    a_04_both_deadlines_no_stall = "both deadlines, no stall", 0, None, false;
    a_04_both_deadlines_30 = "both deadlines, 30", 30, None, false;
    a_04_both_deadlines_60 = "both deadlines, 60", 60, None, false;
    a_04_both_deadlines_200 = "both deadlines, 200", 200, None, false;
}

/// A silent upstream, under a runtime with these habits: the read deadline all the same.
fn silent(id: &'static str, title: &'static str, habits: Habits, fires: u64) -> Case {
    silent_since(Moment::Mark("asks"), id, title, habits, fires)
}

/// Likewise, counted from that moment.
fn silent_since(from: Moment, id: &'static str, title: &'static str, habits: Habits, fires: u64) -> Case {
    Case::new(id, title)
        .habits(habits)
        .upstream(script().read_message().read_to_end())
        .client(script().connect().mark("asks").get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(window(from, Moment::FirstByte(0, 0), ms(fires)))
        .expect(timeout(0, Read, None))
        .expect(during(0, Phase::ResponseHead))
        .expect(upstream_end(0, End::Rst))
        .expect(outcomes(1))
}

/// More calls than an exchange makes, also on an executor that polls a task some hundred times without cause. Whoever spins makes
/// as many in a few milliseconds.
const FEW: u64 = 2000;

/// Ten thousand wake-ups of each socket without a cause fire nothing early and change nothing. For each of them the proxy asks
/// the two sockets that it waits for once, and nobody else: no socket twice, and not its timer.
pub fn a_05_wake_storm() -> Case {
    const STORM: u32 = 10_000;
    let sockets = u64::from(2 * 2 * STORM) + FEW;
    silent("A-05", "wake storm", Habits { spurious: STORM, ..Habits::default() }, 150)
        .expect(calls(sockets, 10))
}

/// A timer that fires late makes the timeout late, and nothing else. It was armed when the client came, for the head, and
/// when it fires the read is over.
pub fn a_06_late_timer() -> Case {
    let late = Habits { late: ms(50), ..Habits::default() };
    silent_since(Moment::Dial(0), "A-06", "late timer", late, 200)
}

/// A timer that fires too early is armed for the rest.
pub fn a_06_early_timer() -> Case {
    silent("A-06", "early timer", Habits { early: ms(50), ..Habits::default() }, 150)
}

/// After a timer has fired, the next deadline of the same connection fires too: it was armed again.
pub fn a_07_spent_timer() -> Case {
    Case::new("A-07", "spent timer")
        .upstream(script().read_message().read_to_end())
        .client(script().connect().mark("asks").get("/").read_message().read_to_end())
        .expect(window(Moment::Mark("asks"), Moment::FirstByte(0, 0), ms(150)))
        .expect(status(0, 0, 504))
        .expect(timeout(0, Read, None))
        .expect(window_from_outcome(ms(150)))
        .expect(client_end(0, End::Fin))
        .expect(outcomes(1))
}

/// The keep-alive limit begins when the answer is with the socket, of which the outcome tells.
fn window_from_outcome(limit: std::time::Duration) -> Expect {
    window(Moment::Outcome(0), Moment::ClientEnd(0), limit)
}

/// Readiness without bytes is no read: the deadline is not reset.
pub fn a_12_spurious_readiness() -> Case {
    silent("A-12", "spurious readiness", Habits { spurious: 50, ..Habits::default() }, 150)
        .expect(calls(FEW, 10))
}

/// An interrupted operation is tried again: nothing is lost, nothing spins.
pub fn a_13_interrupted() -> Case {
    Case::new("A-13", "interrupted")
        .habits(Habits { interrupted: true, ..Habits::default() })
        .upstream(script().read_message().then(ok(100_000)).body(100_000).read_message().then(ok(3)).body(3))
        .client(script().connect().then(super::post(1000)).body(1000).read_message().get("/2").read_message())
        .expect(status(0, 0, 200))
        .expect(body(0, 0, 100_000))
        .expect(request_whole(0, 0, 1000))
        .expect(request_whole(0, 1, 0))
        .expect(status(0, 1, 200))
        .expect(body(0, 1, 3))
        .expect(reused(1, true))
        .expect(success(0))
        .expect(success(1))
        .expect(calls(FEW, 20))
        .expect(outcomes(2))
}

/// A write that takes nothing and does not wait is a broken stream, not progress: the request was not written, and never will
/// be, so that the write deadline is over; what the upstream may have to say is waited for. Nothing spins, not a byte has
/// left, and the client is told.
pub fn a_13_zero_byte_write() -> Case {
    Case::new("A-13", "zero-byte write")
        .habits(Habits { takes_nothing: true, ..Habits::default() })
        .upstream(script().read_to_end())
        .client(script().connect().mark("asks").get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("asks"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, Read, None))
        .expect(Expect::new("not a byte for the upstream", |t, _| match t.upstreams.first() {
            Some(log) if log.received.total == 0 => Ok(()),
            other => Err(format!("it got {:?}", other.map(|log| log.received.total))),
        }))
        .expect(upstream_end(0, End::Rst))
        .expect(calls(FEW, 10))
        .expect(outcomes(1))
}

/// A client's stream that takes nothing is broken likewise: nobody can be told, and the upstream is let go at once, by no
/// deadline.
pub fn a_13_zero_byte_write_to_the_client() -> Case {
    Case::new("A-13", "zero-byte write to the client")
        .patient()
        .habits(Habits { client_takes_nothing: true, ..Habits::default() })
        .upstream(script().read_message().mark("answers").then(ok(100)).body(40).read_to_end())
        .client(script().connect().get("/").read_to_end())
        .expect(got_nothing(0))
        .expect(failure(0, "ClientAbort"))
        .expect(within(Moment::Mark("answers"), Moment::Outcome(0), ms(50)))
        .expect(within(Moment::Mark("answers"), Moment::UpstreamEnd(0), ms(50)))
        .expect(upstream_end(0, End::Rst))
        .expect(calls(FEW, 10))
        .expect(outcomes(1))
}

/// A neighbour blocks the thread past the deadline: the timeout is late by that, and otherwise what it always is.
pub fn a_17_hostile_neighbour() -> Case {
    Case::new("A-17", "hostile neighbour")
        .stall("blocks", ms(100))
        .upstream(script().read_message().mark("asked").pause(ms(100)).mark("blocks").read_to_end())
        .client(script().connect().get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark(BLOCKED), Moment::FirstByte(0, 0), ms(100)))
        .expect(timeout(0, Read, None))
        .expect(upstream_end(0, End::Rst))
        .expect(outcomes(1))
}

/// Clients that waited in the backlog while the thread was blocked have their full time from the accept on.
pub fn a_18_deadline_in_the_same_turn_as_accept() -> Case {
    const CLIENTS: usize = 10;
    let mut case = Case::new("A-18", "deadline in the same turn as accept").stall("blocks", ms(200)).client(
        script()
            .mark("blocks")
            .wait_for(BLOCKED)
            .pause(ms(60))
            .connect()
            .pause(ms(200))
            .get("/")
            .read_message(),
    );
    for _ in 1..CLIENTS {
        case = case.client(
            script().wait_for(BLOCKED).pause(ms(60)).connect().pause(ms(200)).get("/").read_message(),
        );
    }
    for i in 0..CLIENTS {
        // One connection each: they ask at the same time.
        case = case.upstream(script().read_message().then(ok(1)).body(1)).expect(status(i, 0, 200));
    }
    case.expect(outcomes(CLIENTS)).expect(no_timeout())
}

fn no_timeout() -> Expect {
    Expect::new("no timeout at all", |t, _| match t.outcomes.iter().find_map(|seen| seen.failure) {
        None => Ok(()),
        Some(failure) => Err(format!("there was {failure:?}")),
    })
}

/// Of the total and the read deadline, both far past when the thread comes back, the earlier is reported.
pub fn a_17_neighbour_past_two_deadlines() -> Case {
    Case::new("A-17", "neighbour past two deadlines")
        .policy(|p| p.total = Some(ms(120)))
        .stall("blocks", ms(200))
        .upstream(script().read_message().mark("blocks").read_to_end())
        .client(script().connect().get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark(BLOCKED), Moment::FirstByte(0, 0), ms(200)))
        .expect(timeout(0, Total, None))
        .expect(outcomes(1))
}
