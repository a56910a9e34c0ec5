//! T: the total, and deadlines inside deadlines (`timeouts.md` 4.5). The same rules for
//! `wait_for` are in `wait.rs`.

use tidegate_core::DeadlineKind::{Read, Total};

use super::{ENDLESS, ok};
use crate::expect::*;
use crate::script::{Case, ms, script};
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
        .expect(window(Moment::Mark("asked"), Moment::FirstByte(0, 0), ms(180)))
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
        .upstream(script().read_message().mark("asked").read_to_end())
        .client(script().connect().get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("asked"), Moment::FirstByte(0, 0), ms(180)))
        .expect(timeout(0, Read, None))
        .expect(outcomes(1))
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
        .expect(upstream_end(0, End::Rst))
}
