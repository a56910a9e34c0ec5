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
        .client(script().connect().get("/").read_message())
        .control(script().connect().mark("control arrived"))
        .client(script().at(ms(150)).mark("freed").at(ms(1450)))
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
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(0)))
        .expect(failure(0, "Connect(Refused)"))
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
        .expect(window(Moment::Mark("leaves"), Moment::Mark("gone"), ms(0)))
        .expect(got_nothing(0))
        .expect(failure(0, "ClientAbort"))
        .expect(reported(0, None))
        .expect(window(Moment::Mark("leaves"), Moment::Outcome(0), ms(0)))
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

/// The descriptor of a connect that was given up is the next one's at once. What was known of the old one does not
/// make the new one look connected: the second hangs for its full time, and the third connects.
pub fn c_15_fd_number_reused() -> Case {
    Case::new("C-15", "fd number reused")
        .policy(|p| p.connect = Some(ms(80)))
        .upstream_is(HANGING)
        .other(HANGING)
        .other(Upstream::Scripts(vec![answers("good")]))
        .client(script().mark("start").connect().get("/").read_message())
        .expect(text(0, 0, "good"))
        .expect(window_wider(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(160), ms(10)))
        .expect(attempts(0, 3))
        .expect(success(0))
        .expect(accepted(1))
}
