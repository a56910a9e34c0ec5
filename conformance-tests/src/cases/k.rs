//! K: the client's side.

use tidegate_core::DeadlineKind::{ClientBody, ClientHead, ClientWrite, Write};
use tidegate_core::Side;

use super::{BIG, ENDLESS, eager_sender, ok, post};
use crate::expect::*;
use crate::script::{Case, Step, ms, script};
use crate::transcript::End;

/// Half a head is answered with 408.
pub fn k_02_half_a_head() -> Case {
    Case::new("K-02", "half a head")
        .client(script().mark("start").connect().bytes("GET / HT").read_message().read_to_end())
        .expect(status(0, 0, 408))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, ClientHead, Some(Side::Client)))
        .expect(client_end(0, End::Fin))
        .expect(accepted(0))
}

/// The limit for the head is absolute: progress does not help, and the upstream never hears of it.
pub fn k_03_slowloris() -> Case {
    Case::new("K-03", "slowloris")
        .client(
            script()
                .mark("start")
                .connect()
                .bytes("GET / HTTP/1.1\r\nhost: conformance\r\nx: ")
                .background(script().drip(1, ms(40), 100))
                .read_message()
                .read_to_end(),
        )
        .expect(status(0, 0, 408))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, ClientHead, Some(Side::Client)))
        .expect(client_end(0, End::Fin))
        .expect(accepted(0))
}

/// A client that goes on sending can read the whole 408: the proxy sends FIN, and reads on until the
/// linger limit.
pub fn k_09_408_survives_an_eager_sender() -> Case {
    Case::new("K-09", "408 survives an eager sender")
        .upstream(script().read_to_end())
        .client(eager_sender().step(Step::Join))
        .expect(status(0, 0, 408))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(200)))
        .expect(timeout(0, Write, Some(Side::Client)))
        .expect(client_end(0, End::Fin))
        // The write limit, then the linger; a write fails soon after that.
        .expect(window_within(Moment::Mark("start"), Moment::WriteError(0), ms(280), ms(20)))
        .expect(upstream_end(0, End::Rst))
}

/// A client that stops reading is reset, and the upstream is let go.
pub fn k_10_slow_reader() -> Case {
    Case::new("K-10", "slow reader")
        .patient()
        .policy(|p| p.client_write = Some(ms(150)))
        .upstream(script().read_message().then(ok(ENDLESS)).body(BIG).read_to_end())
        .client(
            script().connect().mark("start").get("/").read_head().wait_until("let go", 0, 0).read_to_end(),
        )
        .expect(cut(0, 0, 200, None))
        .expect(client_end(0, End::Rst))
        .expect(upstream_end(0, End::Rst))
        // Counted from the last byte that the kernel took. When that was depends on how fast the upstream writes, so
        // the upper end says no more than that it is not for ever.
        .expect(window_wider(Moment::Mark("start"), Moment::UpstreamEnd(0), ms(150), ms(2000)))
        .expect(timeout(0, ClientWrite, Some(Side::Client)))
        .expect(reported(0, Some(200)))
}

/// A client that says nothing is told nothing.
pub fn k_01_nothing_sent() -> Case {
    Case::new("K-01", "nothing sent")
        .client(script().mark("start").connect().read_to_end())
        .expect(got_nothing(0))
        .expect(client_end(0, End::Fin))
        .expect(window(Moment::Mark("start"), Moment::ClientEnd(0), ms(150)))
        .expect(outcomes(0))
        .expect(accepted(0))
}

/// Q-05 with a chunked body: the client's limit is for each read, and begins again with each.
pub fn k_06_body_stall() -> Case {
    Case::new("K-06", "body stall")
        .policy(|p| p.write = None)
        .upstream(script().read_to_end())
        .client(
            script()
                .connect()
                .head("POST / HTTP/1.1\nhost: conformance\ntransfer-encoding: chunked")
                .chunk(20)
                .pause(ms(60))
                .mark("stalls")
                .chunk(30)
                .read_message()
                .read_to_end(),
        )
        .expect(status(0, 0, 408))
        .expect(window(Moment::Mark("stalls"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, ClientBody, Some(Side::Client)))
        .expect(request_cut(0, Some(50)))
        .expect(client_end(0, End::Fin))
        .expect(upstream_end(0, End::Rst))
}

/// A client that drips within its limit is fine, however long it takes.
pub fn k_07_body_drip() -> Case {
    Case::new("K-07", "body drip")
        .policy(|p| {
            p.write = None;
            p.client_body = Some(ms(250));
        })
        .upstream(script().read_message().then(ok(5)).body(5))
        .client(script().connect().then(post(8)).drip(1, ms(50), 8).read_message())
        .expect(request_whole(0, 0, 8))
        .expect(body(0, 0, 5))
        .expect(success(0))
}

/// While the upstream takes nothing the client is not waited for, and its limit does not run.
pub fn k_08_body_timer_suspended() -> Case {
    // A receiver that has read fast may have been given the largest buffer that the system allows: 32 MiB on some.
    const LENGTH: u64 = 4 * BIG;
    Case::new("K-08", "body timer suspended")
        // Nor is it about how fast an upstream reads what the kernels have taken: the read limit begins before.
        .policy(|p| (p.write, p.read) = (None, None))
        .upstream(script().read_head().pause(ms(400)).mark("resumes").read_message().then(ok(5)).body(5))
        .client(
            script()
                .connect()
                .then(post(LENGTH))
                .background(script().body(LENGTH).mark("sent"))
                .read_message(),
        )
        .expect(before(Moment::Mark("resumes"), Moment::Mark("sent")))
        .expect(request_whole(0, 0, LENGTH))
        .expect(body(0, 0, 5))
        .expect(success(0))
}

/// A client that reads slowly, but reads, is not given up.
pub fn k_11_slow_but_reading() -> Case {
    // More than fits into all buffers, and little enough for a busy machine to bring in time.
    const LENGTH: u64 = 120_000;
    // All that is there: the kernel calls a socket writable when a good part of its buffer is free.
    let slowly = Step::ReadSlowly { size: 16 * 1024, every: ms(100), until: "enough" };
    Case::new("K-11", "slow but reading")
        .policy(|p| p.client_write = Some(ms(250)))
        .small_buffers()
        .upstream(script().read_message().then(ok(LENGTH)).body(LENGTH))
        .client(script().connect().mark("start").get("/").step(slowly).read_message())
        .client(script().wait_for("start").pause(ms(400)).mark("enough"))
        .expect(window_wider(Moment::Mark("start"), Moment::Outcome(0), ms(400), ms(110)))
        .expect(body(0, 0, LENGTH))
        .expect(success(0))
}
