//! Q: writing the request (`timeouts.md` 4.3).

use tidegate_core::DeadlineKind::{ClientBody, Read, Write};
use tidegate_core::Side;

use super::{BIG, post};
use crate::expect::*;
use crate::script::{Case, Step, ms, script};
use crate::transcript::End;

/// An upload that the upstream does not read is given up, and the upstream can see that it was cut.
pub fn q_01_upstream_never_reads() -> Case {
    Case::new("Q-01", "upstream never reads")
        .alone()
        .upstream(script().wait_for("answered").read_to_end())
        .client(
            script()
                .connect()
                .mark("start")
                .then(post(BIG))
                .background(script().body(BIG))
                .read_message()
                .mark("answered")
                .read_to_end(),
        )
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(200)))
        .expect(timeout(0, Write, Some(Side::Upstream)))
        .expect(request_cut(0, None))
        .expect(upstream_end(0, End::Rst))
        .expect(client_end(0, End::Fin))
        .expect(outcomes(1))
}

/// The write deadline is absolute: an upstream that drains slowly does not prolong it.
pub fn q_02_progress_does_not_reset() -> Case {
    let drain = Step::ReadSlowly { size: 4096, every: ms(40), until: "answered" };
    Case::new("Q-02", "progress does not reset")
        .alone()
        .upstream(script().step(drain).read_to_end())
        .client(
            script()
                .connect()
                .mark("start")
                .then(post(BIG))
                .background(script().body(BIG))
                .read_message()
                .mark("answered")
                .read_to_end(),
        )
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(200)))
        .expect(timeout(0, Write, Some(Side::Upstream)))
        .expect(request_cut(0, None))
        .expect(upstream_end(0, End::Rst))
}

/// A client that stops in the middle of its body gets a 408; the upstream never sees the end of the
/// request.
pub fn q_05_client_stalls() -> Case {
    Case::new("Q-05", "client stalls")
        .upstream(script().read_to_end())
        .client(script().connect().mark("stalls").then(post(100)).body(50).read_message().read_to_end())
        .expect(status(0, 0, 408))
        .expect(window(Moment::Mark("stalls"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, ClientBody, Some(Side::Client)))
        .expect(request_cut(0, Some(50)))
        .expect(upstream_end(0, End::Rst))
        .expect(client_end(0, End::Fin))
}

/// A client that drips never stalls long enough for its own limit: the write deadline ends it, and
/// blames the client.
pub fn q_06_client_drips() -> Case {
    Case::new("Q-06", "client drips")
        .upstream(script().read_to_end())
        .client(
            script()
                .connect()
                .mark("start")
                .then(post(1000))
                .background(script().drip(1, ms(50), 100))
                .read_message()
                .read_to_end(),
        )
        .expect(status(0, 0, 408))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(200)))
        .expect(timeout(0, Write, Some(Side::Client)))
        .expect(request_cut(0, None))
        .expect(upstream_end(0, End::Rst))
}

/// A final response that comes while the request is being sent stops the write deadline and reaches the
/// client whole.
pub fn q_07_early_final_response() -> Case {
    Case::new("Q-07", "early final response")
        .upstream(
            script()
                .read_head()
                .at(ms(50))
                .mark("refuses")
                .head("HTTP/1.1 413 Content Too Large\ncontent-length: 9")
                .bytes("too large")
                .wait_for("over")
                .read_to_end(),
        )
        .client(
            script()
                .connect()
                .then(post(BIG))
                .background(script().body(BIG))
                .read_message()
                .at(ms(300))
                .mark("over")
                .read_to_end(),
        )
        .expect(text(0, 0, "too large"))
        .expect(status(0, 0, 413))
        .expect(field(0, 0, "connection", "close"))
        .expect(window(Moment::Mark("refuses"), Moment::FirstByte(0, 0), ms(0)))
        .expect(success(0))
        .expect(reported(0, Some(413)))
        .expect(request_cut(0, None))
        .expect(accepted(1))
        .expect(outcomes(1))
}

/// With `Expect: 100-continue`, a silent upstream is a read timeout: nobody invents a 100.
pub fn q_09_expect_silence() -> Case {
    Case::new("Q-09", "expect silence")
        .upstream(script().read_to_end())
        .client(
            script()
                .connect()
                .mark("start")
                .head("POST / HTTP/1.1\nhost: conformance\ncontent-length: 100\nexpect: 100-continue")
                .read_message()
                .read_to_end(),
        )
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, Read, None))
        .expect(request_cut(0, Some(0)))
        .expect(upstream_end(0, End::Rst))
}
