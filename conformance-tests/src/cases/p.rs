//! P: the pool and keep-alive (`timeouts.md` 4.7).

use tidegate_core::DeadlineKind::Read;

use super::ok;
use crate::expect::*;
use crate::script::{Case, ms, script};
use crate::transcript::End;

/// A connection that timed out is never used again: its late answer reaches nobody.
pub fn p_01_poison() -> Case {
    Case::new("P-01", "poison")
        .upstream(script().read_message().pause(ms(200)).then(ok(3)).bytes("one"))
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
