//! Q: writing the request.

use std::time::Duration;

use tidegate_core::DeadlineKind::{ClientBody, Read, Total, Write};
use tidegate_core::Side;

use super::{BIG, ok, post};
use crate::expect::*;
use crate::script::{Case, Script, Step, Upstream, ms, script};
use crate::transcript::End;

/// A client that sends more than anybody takes, until it is answered and after that.
fn uploads() -> Script {
    let sends = script().body(BIG);
    let start = script().connect().mark("start").then(post(BIG)).background(sends);
    start.read_message().mark("answered").read_to_end()
}

/// An upload that the upstream does not read is given up, and the upstream can see that it was cut.
pub fn q_01_upstream_never_reads() -> Case {
    Case::new("Q-01", "upstream never reads")
        // A client that is held up while it fills the buffers is no matter here.
        .policy(|p| p.client_body = None)
        .small_buffers()
        .upstream(script().wait_for("answered").read_to_end())
        .client(uploads())
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
    // Also at the limit itself: what is written in that turn does not change whom it waits for.
    let drain = Step::ReadSlowly { size: 4096, every: ms(40), until: "answered" };
    Case::new("Q-02", "progress does not reset")
        .small_buffers()
        .policy(|p| p.client_body = None)
        .upstream(script().step(drain).read_to_end())
        .client(uploads())
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
        .expect(outcomes(1))
}

/// A final response that comes while the request is being sent stops the write deadline and reaches the
/// client whole.
pub fn q_07_early_final_response() -> Case {
    Case::new("Q-07", "early final response")
        // An idle connection would not be closed by the time at which the client looks.
        .policy(|p| p.pool_idle = None)
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
                .snapshot("later")
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
        .expect(snapshot("later", 0, 0))
        .expect(upstream_end(0, End::Rst))
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
        .expect(messages(0, 1))
        .expect(request_cut(0, Some(0)))
        .expect(upstream_end(0, End::Rst))
        .expect(outcomes(1))
}

/// A small request that nobody reads has been written, since the kernel took it: the wait is for the response.
pub fn q_04_small_request_into_the_void() -> Case {
    Case::new("Q-04", "small request into the void")
        .policy(|p| p.client_body = None)
        .upstream_is(Upstream::KernelOnly)
        .client(script().connect().mark("start").then(post(200)).body(200).read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, Read, Some(Side::Upstream)))
        .expect(outcomes(1))
}

/// A final response head stops the write deadline; when nothing moves after it, the read deadline cuts the response.
pub fn q_08_response_started_request_unfinished() -> Case {
    Case::new("Q-08", "response started, request unfinished")
        // Full at once, so that at the limit nobody waits for the client.
        .small_buffers()
        .upstream(
            script()
                .read_head()
                .at(ms(50))
                .mark("responds")
                .then(ok(100))
                .body(10)
                .wait_for("cut")
                .read_to_end(),
        )
        .client(script().connect().then(post(BIG)).background(script().body(BIG)).read_to_end().mark("cut"))
        .expect(cut(0, 0, 200, Some(10)))
        .expect(window(Moment::Mark("responds"), Moment::ClientEnd(0), ms(150)))
        .expect(timeout(0, Read, None))
        .expect(reported(0, Some(200)))
        .expect(request_cut(0, None))
        .expect(client_end(0, End::Fin))
        .expect(upstream_end(0, End::Rst))
}

/// A chunked request that stops in the middle of a chunk never looks complete to the upstream.
pub fn q_11_chunked_request_cut() -> Case {
    Case::new("Q-11", "chunked request cut")
        .upstream(script().read_to_end())
        .client(
            script()
                .connect()
                .mark("stalls")
                .head("POST / HTTP/1.1\nhost: conformance\ntransfer-encoding: chunked")
                .chunk(50)
                .bytes("64\r\n")
                .body(10)
                .read_message()
                .read_to_end(),
        )
        .expect(status(0, 0, 408))
        .expect(window(Moment::Mark("stalls"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, ClientBody, Some(Side::Client)))
        .expect(request_cut(0, Some(60)))
        .expect(upstream_end(0, End::Rst))
        .expect(client_end(0, End::Fin))
}

/// Writes that were taken in part were counted right: what the upstream had when the request was given up is a
/// prefix of it, without a gap and without a repeat.
pub fn q_13_exact_prefix() -> Case {
    Case::new("Q-13", "exact prefix")
        .small_buffers()
        .upstream(script().read_head().wait_for("answered").read_to_end())
        .client(uploads())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(200)))
        .expect(timeout(0, Write, Some(Side::Upstream)))
        .expect(request_cut(0, None))
        .expect(Expect::new("some of the body", |t, _| match t.request(0, 0).map_or(0, |m| m.body_len) {
            0 => Err("none came".into()),
            _ => Ok(()),
        }))
        .expect(upstream_end(0, End::Rst))
}

/// A GET whose head has more than 300 bytes.
fn long_get() -> crate::script::Script {
    script().head(&format!("GET / HTTP/1.1\nhost: conformance\nx-long: {}", "x".repeat(300)))
}

/// An upstream whose socket takes one byte at a time gets the same bytes.
pub fn q_14_one_byte_writes() -> Case {
    Case::new("Q-14", "one-byte writes")
        .patient()
        .pace(1, Duration::from_micros(1))
        .upstream(script().read_message().then(ok(5)).body(5))
        .client(script().connect().then(long_get()).read_message())
        .expect(body(0, 0, 5))
        .expect(request_whole(0, 0, 0))
        .expect(Expect::new("the long field", |t, _| {
            match t.request(0, 0).and_then(|m| m.field("x-long").map(str::len)) {
                Some(300) => Ok(()),
                other => Err(format!("of its bytes came {other:?}")),
            }
        }))
        .expect(success(0))
}

/// Nor is it given more time: each byte is progress, and the write deadline does not care.
pub fn q_14_one_byte_writes_are_no_excuse() -> Case {
    Case::new("Q-14", "one-byte writes are no excuse")
        .pace(1, ms(1))
        .upstream(script().read_to_end())
        .client(script().connect().mark("start").then(long_get()).read_message())
        .expect(status(0, 0, 504))
        // A turn of sixteen such writes may be under way when the deadline passes.
        .expect(window_within(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(200), ms(40)))
        .expect(timeout(0, Write, Some(Side::Upstream)))
        .expect(upstream_end(0, End::Rst))
}

/// Without a limit on the write the total ends it.
pub fn q_15_write_none_total_250() -> Case {
    Case::new("Q-15", "write None, total 250")
        .policy(|p| {
            p.write = None;
            p.total = Some(ms(250));
        })
        // Full long before the limit: then nobody waits for the client.
        .small_buffers()
        .upstream(script().read_head().wait_for("answered").read_to_end())
        .client(uploads())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(250)))
        .expect(timeout(0, Total, Some(Side::Upstream)))
        .expect(request_cut(0, None))
        .expect(upstream_end(0, End::Rst))
}

/// An upstream that resets while it is written to is answered for at once.
pub fn q_16_upstream_resets_while_we_write() -> Case {
    Case::new("Q-16", "upstream resets while we write")
        .policy(|p| p.write = None)
        .upstream(script().read_head().at(ms(50)).mark("resets").step(Step::Rst))
        .client(
            script().connect().then(post(BIG)).background(script().body(BIG)).read_message().read_to_end(),
        )
        .expect(status(0, 0, 502))
        .expect(window(Moment::Mark("resets"), Moment::FirstByte(0, 0), ms(0)))
        .expect(failure(0, "UpstreamReset"))
        .expect(client_end(0, End::Fin))
        .expect(outcomes(1))
}

/// A long upload that goes on: the read deadline does not run before the request is written.
pub fn q_17_long_upload_read_timer_quiet() -> Case {
    Case::new("Q-17", "long upload, read timer quiet")
        .policy(|p| {
            p.write = None;
            p.client_body = None;
        })
        .upstream(script().read_message().then(ok(5)).body(5))
        .client(
            script().connect().mark("start").then(post(15)).drip(1, ms(30), 15).mark("sent").read_message(),
        )
        .expect(lasts(Moment::Mark("start"), Moment::Mark("sent"), ms(450)))
        .expect(request_whole(0, 0, 15))
        .expect(body(0, 0, 5))
        .expect(success(0))
}
