//! C: connecting to the upstream.

use tidegate_core::DeadlineKind::{Connect, Read, Total};
use tidegate_core::Side;

use super::upstreams::answers;
use crate::expect::*;
use crate::script::{Case, Step, Upstream, ms, script};

const HANGING: Upstream = Upstream::FullBacklog { freed_by: None };

/// A connect that hangs is given up in time, and nothing of it is left when the client has the answer.
pub fn c_01_hang() -> Case {
    Case::new("C-01", "hang")
        .upstream_is(HANGING)
        .client(script().mark("start").connect().get("/").read_some().snapshot("answered").read_message())
        .client(script().wait_until("hanging", 1, 0))
        .expect(before(Moment::Mark("hanging"), Moment::FirstByte(0, 0)))
        .expect(snapshot("answered", 0, 0))
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(100)))
        .expect(timeout(0, Connect, Some(Side::Upstream)))
        .expect(reported(0, Some(504)))
        .expect(attempts(0, 1))
        .expect(outcomes(1))
}

/// A connect that was given up never arrives, even when the backlog is freed before its SYN is sent
/// again. The control, which nobody gives up, shows that it would.
pub fn c_02_no_ghost() -> Case {
    Case::new("C-02", "no ghost")
        .upstream_is(Upstream::FullBacklog { freed_by: Some("freed") })
        .client(script().connect().get("/").read_message().mark("given up"))
        .control(script().connect().mark("control arrived"))
        .client(script().at(ms(150)).wait_for("given up").mark("freed").at(ms(1450)))
        .expect(status(0, 0, 504))
        .expect(timeout(0, Connect, None))
        .expect(before(Moment::Mark("freed"), Moment::Mark("control arrived")))
        .expect(accepted(1))
}

/// A refused connect is no timeout, and answered at once.
pub fn c_03_refused() -> Case {
    Case::new("C-03", "refused")
        .upstream_is(Upstream::Closed)
        .client(script().mark("start").connect().get("/").read_message())
        .expect(status(0, 0, 502))
        .expect(within(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(50)))
        .expect(failure(0, "Connect(Refused)"))
        .expect(attempts(0, 1))
        .expect(outcomes(1))
}

/// The kernel's handshake is a connection: the wait that follows is for the response.
pub fn c_04_accepted_by_the_kernel_only() -> Case {
    Case::new("C-04", "accepted by the kernel only")
        .upstream_is(Upstream::KernelOnly)
        .client(script().mark("start").connect().get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, Read, Some(Side::Upstream)))
        .expect(during(0, tidegate_core::Phase::ResponseHead))
        .expect(attempts(0, 1))
        .expect(outcomes(1))
}

/// The total caps a connect.
pub fn c_10_total_smaller() -> Case {
    Case::new("C-10", "total smaller")
        .policy(|p| {
            p.connect = Some(ms(200));
            p.total = Some(ms(80));
        })
        .upstream_is(HANGING)
        .client(script().mark("start").connect().get("/").read_some().snapshot("answered").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(80)))
        .expect(timeout(0, Total, Some(Side::Upstream)))
        .expect(during(0, tidegate_core::Phase::Connect))
        .expect(snapshot("answered", 0, 0))
}

/// A client that leaves takes the connect with it.
pub fn c_16_client_leaves_while_connecting() -> Case {
    Case::new("C-16", "client leaves while connecting")
        .policy(|p| p.connect = Some(ms(300)))
        .upstream_is(HANGING)
        .client(script().connect().get("/").wait_for("hanging").mark("leaves").step(Step::Rst))
        .client(script().wait_until("hanging", 1, 0).wait_for("leaves").wait_until("gone", 0, 0))
        .expect(within(Moment::Mark("leaves"), Moment::Mark("gone"), ms(30)))
        .expect(got_nothing(0))
        .expect(failure(0, "ClientAbort"))
        .expect(reported(0, None))
        .expect(within(Moment::Mark("leaves"), Moment::Outcome(0), ms(30)))
        .expect(outcomes(1))
}

/// If a connect's own limit and the total end together, it was the total.
pub fn c_11_equal() -> Case {
    Case::new("C-11", "equal")
        .policy(|p| p.total = p.connect)
        .upstream_is(HANGING)
        .client(script().mark("start").connect().get("/").read_some().snapshot("answered").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(100)))
        .expect(timeout(0, Total, Some(Side::Upstream)))
        .expect(during(0, tidegate_core::Phase::Connect))
        .expect(snapshot("answered", 0, 0))
}

/// Two hundred connects that hang, one after the other, with descriptors for a few: each gives its own back.
pub fn c_14_two_hundred_hangs_in_a_row() -> Case {
    const HANGS: usize = 200;
    let asks = (0..HANGS).fold(script().connect(), |script, _| script.get("/").read_message());
    let case = Case::new("C-14", "two hundred hangs in a row")
        .policy(|p| p.connect = Some(ms(1)))
        .few_descriptors(40)
        .upstream_is(HANGING)
        .client(asks)
        .expect(outcomes(HANGS));
    (0..HANGS).fold(case, |case, i| case.expect(status(0, i, 504)).expect(timeout(i, Connect, None)))
}

/// A connect that was given up is over before the next begins, which gets its descriptor. What was known of the old one does not
/// make the new one look connected: each hangs for its full time, and the last connects. (Whoever else opens something at that
/// moment may get the number; of five it is one that must be used twice.)
pub fn c_15_fd_number_reused() -> Case {
    const LIMIT: u64 = 60;
    const HANGS: [&str; 5] = ["first", "second", "third", "fourth", "fifth"];
    // In the middle of each: whoever looks has descriptors of its own.
    let looks = HANGS.iter().enumerate().fold(script(), |script, (i, event)| {
        script.at(ms(LIMIT * i as u64 + LIMIT / 2)).descriptor(i, event)
    });
    let case = Case::new("C-15", "fd number reused")
        .policy(|p| p.connect = Some(ms(LIMIT)))
        .logged()
        .upstream_is(HANGING)
        .client(script().mark("start").connect().get("/").read_message())
        .client(looks);
    let case = HANGS[1..].iter().fold(case, |case, _| case.other(HANGING));
    let all = LIMIT * HANGS.len() as u64;
    case.other(Upstream::Scripts(vec![answers("good")]))
        .expect(text(0, 0, "good"))
        // Five deadlines in a row, each late by a little.
        .expect(window_wider(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(all), ms(20)))
        .expect(used_again(&HANGS))
        .expect(ordered("upstream 0: given up", "upstream 1: connects"))
        .expect(ordered("upstream 1: given up", "upstream 2: connects"))
        .expect(ordered("upstream 2: given up", "upstream 3: connects"))
        .expect(ordered("upstream 3: given up", "upstream 4: connects"))
        .expect(ordered("upstream 4: given up", "upstream 5: connects"))
        .expect(attempts(0, 6))
        .expect(success(0))
        .expect(accepted(1))
}
