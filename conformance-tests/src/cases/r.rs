//! R: reading the response.

use tidegate_core::DeadlineKind::{Read, Total};
use tidegate_core::Side;

use super::{ENDLESS, ok};
use crate::expect::*;
use crate::recorder::Framing;
use crate::script::{BLOCKED, Case, Script, Step, ms, script};
use crate::transcript::End;

/// A silent upstream: a well-formed 504, the upstream connection gone before it, and the client's
/// connection usable after it.
pub fn r_01_silent() -> Case {
    Case::new("R-01", "silent")
        .policy(|p| p.keep_alive = None)
        .upstream(script().read_to_end())
        .upstream(script().read_message().then(ok(5)).body(5))
        .client(
            script()
                .connect()
                .mark("start")
                .get("/1")
                .read_some()
                .snapshot("answered")
                .read_message()
                .get("/2")
                .read_message(),
        )
        .expect(status(0, 0, 504))
        .expect(Expect::new("a 504 with a length", |t, _| match t.response(0, 0).map(|m| m.framing) {
            Some(Framing::Length(_)) => Ok(()),
            other => Err(format!("it is framed by {other:?}")),
        }))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(snapshot("answered", 0, 0))
        .expect(timeout(0, Read, Some(Side::Upstream)))
        .expect(upstream_end(0, End::Rst))
        .expect(status(0, 1, 200))
        .expect(body(0, 1, 5))
        .expect(success(1))
        .expect(outcomes(2))
}

/// The read limit is for each read: a slow response that goes on is fine.
pub fn r_02_drip_is_fine() -> Case {
    Case::new("R-02", "drip is fine")
        .policy(|p| p.read = Some(ms(250)))
        .upstream(script().read_message().then(ok(10)).drip(1, ms(60), 10))
        .client(script().connect().mark("start").get("/").read_message().mark("done"))
        .expect(status(0, 0, 200))
        .expect(body(0, 0, 10))
        .expect(lasts(Moment::Mark("start"), Moment::Mark("done"), ms(540)))
        .expect(success(0))
        .expect(outcomes(1))
}

/// A response that stalls after its head is cut visibly; no second status line is written.
pub fn r_05_stall_in_a_content_length_body() -> Case {
    Case::new("R-05", "stall in a Content-Length body")
        .upstream(script().read_message().mark("stalls").then(ok(100)).body(40).read_to_end())
        .client(script().connect().get("/").read_to_end())
        .expect(cut(0, 0, 200, Some(40)))
        .expect(client_end(0, End::Fin))
        .expect(window(Moment::Mark("stalls"), Moment::ClientEnd(0), ms(150)))
        .expect(timeout(0, Read, Some(Side::Upstream)))
        .expect(reported(0, Some(200)))
        .expect(upstream_end(0, End::Rst))
}

/// A chunked response that stalls gets no last chunk.
pub fn r_06_stall_in_a_chunked_body() -> Case {
    Case::new("R-06", "stall in a chunked body")
        .upstream(
            script()
                .read_message()
                .mark("stalls")
                .head("HTTP/1.1 200 OK\ntransfer-encoding: chunked")
                .chunk(40)
                .read_to_end(),
        )
        .client(script().connect().get("/").read_to_end())
        .expect(cut(0, 0, 200, Some(40)))
        .expect(client_end(0, End::Fin))
        .expect(window(Moment::Mark("stalls"), Moment::ClientEnd(0), ms(150)))
        .expect(timeout(0, Read, Some(Side::Upstream)))
        .expect(reported(0, Some(200)))
        .expect(upstream_end(0, End::Rst))
}

fn framed(framing: Framing) -> Expect {
    Expect::new(format!("a response framed by {framing:?}"), move |t, _| {
        match t.response(0, 0).map(|m| m.framing) {
            Some(found) if found == framing => Ok(()),
            other => Err(format!("it is framed by {other:?}")),
        }
    })
}

/// A close-delimited response is re-framed for a client of HTTP/1.1, so that its cut is visible.
pub fn r_07_stall_in_a_close_delimited_body_chunked() -> Case {
    Case::new("R-07", "stall in a close-delimited body, chunked")
        .upstream(
            script()
                .read_message()
                .mark("stalls")
                .head("HTTP/1.1 200 OK\nconnection: close")
                .body(40)
                .read_to_end(),
        )
        .client(script().connect().get("/").read_to_end())
        .expect(framed(Framing::Chunked))
        .expect(cut(0, 0, 200, Some(40)))
        .expect(client_end(0, End::Fin))
        .expect(window(Moment::Mark("stalls"), Moment::ClientEnd(0), ms(150)))
        .expect(timeout(0, Read, Some(Side::Upstream)))
        .expect(reported(0, Some(200)))
        .expect(upstream_end(0, End::Rst))
}

/// To a client of HTTP/1.0 only an RST can say that a close-delimited body was cut: a FIN would look
/// like success.
pub fn r_07_stall_in_a_close_delimited_body_http_1_0() -> Case {
    Case::new("R-07", "stall in a close-delimited body, HTTP/1.0")
        .upstream(
            script()
                .read_message()
                .mark("stalls")
                .head("HTTP/1.1 200 OK\nconnection: close")
                .body(40)
                .read_to_end(),
        )
        .client(script().connect().head("GET / HTTP/1.0\nhost: conformance").read_to_end())
        .expect(framed(Framing::Close))
        .expect(cut(0, 0, 200, Some(40)))
        .expect(client_end(0, End::Rst))
        .expect(window(Moment::Mark("stalls"), Moment::ClientEnd(0), ms(150)))
        .expect(timeout(0, Read, Some(Side::Upstream)))
        .expect(reported(0, Some(200)))
        .expect(upstream_end(0, End::Rst))
}

/// Every body byte that the upstream sent has arrived at the client.
pub(super) fn all_arrived() -> Expect {
    Expect::new("every byte that was sent to arrive", |t, _| {
        let sent = t.upstreams.first().map_or(0, |u| u.sent);
        let got = t.response(0, 0).map_or(0, |m| m.body_len);
        if got == sent { Ok(()) } else { Err(format!("{got} of {sent} came")) }
    })
}

/// While a slow client leaves no room, the proxy does not read, and the read deadline does not run.
pub fn r_12_slow_client_suspends() -> Case {
    Case::new("R-12", "slow client suspends")
        .policy(|p| p.client_write = None)
        .upstream(
            script()
                .read_message()
                .head("HTTP/1.1 200 OK\nconnection: close")
                .step(Step::BodyUntilBlocked(ms(100)))
                .mark("full")
                .body(8 << 20)
                .mark("all sent"),
        )
        .client(
            script()
                .connect()
                .get("/")
                .read_head()
                .wait_for("full")
                .pause(ms(300))
                .mark("resumes")
                .read_message(),
        )
        .expect(before(Moment::Mark("resumes"), Moment::Mark("all sent")))
        .expect(status(0, 0, 200))
        .expect(all_arrived())
        .expect(success(0))
}

/// When the client resumes, the read deadline gets its full period again.
pub fn r_13_resume_is_a_full_period() -> Case {
    Case::new("R-13", "resume is a full period")
        .policy(|p| p.client_write = None)
        .upstream(
            script()
                .read_message()
                .then(ok(ENDLESS))
                .step(Step::BodyUntilBlocked(ms(100)))
                .mark("falls silent")
                .read_to_end(),
        )
        .client(
            script()
                .connect()
                .get("/")
                .read_head()
                .wait_for("falls silent")
                .pause(ms(200))
                .mark("resumes")
                .read_to_end(),
        )
        .expect(before(Moment::Mark("falls silent"), Moment::Mark("resumes")))
        // The client reads megabytes from the kernels' buffers first.
        .expect(window_wider(Moment::Mark("resumes"), Moment::ClientEnd(0), ms(150), ms(200)))
        .expect(cut(0, 0, 200, None))
        .expect(all_arrived())
        .expect(timeout(0, Read, Some(Side::Upstream)))
        .expect(reported(0, Some(200)))
        .expect(client_end(0, End::Fin))
        .expect(upstream_end(0, End::Rst))
}

/// Data that came in time counts, though the thread was blocked until after the deadline.
pub fn r_19_stall_of_the_executor() -> Case {
    Case::new("R-19", "stall of the executor")
        .policy(|p| p.read = Some(ms(100)))
        .stall("asked", ms(200))
        .upstream(script().read_message().mark("asked").wait_for(BLOCKED).pause(ms(40)).then(ok(5)).body(5))
        .client(script().connect().get("/").read_message())
        .expect(status(0, 0, 200))
        .expect(body(0, 0, 5))
        .expect(success(0))
}

/// What the runtime believes about readiness is not asked: after a short read two more bytes come while
/// the thread is blocked past the deadline.
pub fn r_20_stale_readiness() -> Case {
    Case::new("R-20", "stale readiness")
        .policy(|p| p.read = Some(ms(100)))
        .stall("two read", ms(160))
        .upstream(script().read_message().then(ok(4)).body(2).wait_for(BLOCKED).pause(ms(30)).body(2))
        .client(script().connect().get("/").read_head().read_body(2).mark("two read").read_message())
        .expect(status(0, 0, 200))
        .expect(body(0, 0, 4))
        .expect(success(0))
}

/// A response that drips on and on meets the total.
pub fn r_03_drip_against_total() -> Case {
    Case::new("R-03", "drip against total")
        .policy(|p| {
            p.read = Some(ms(200));
            p.total = Some(ms(400));
        })
        .upstream(script().read_message().then(ok(10)).drip(1, ms(60), 10))
        .client(script().connect().mark("start").get("/").read_to_end())
        .expect(cut(0, 0, 200, None))
        .expect(window(Moment::Mark("start"), Moment::ClientEnd(0), ms(400)))
        .expect(timeout(0, Total, Some(Side::Upstream)))
        .expect(reported(0, Some(200)))
        .expect(client_end(0, End::Fin))
        .expect(upstream_end(0, End::Rst))
}

/// The response stops before its head is complete: 504, counted from the last byte, and nothing of the part leaks.
fn stall_in_the_head(title: &'static str, part: &'static str) -> Case {
    Case::new("R-04", title)
        .upstream(script().read_message().pause(ms(50)).mark("stalls").bytes(part).read_to_end())
        .client(script().connect().get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("stalls"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, Read, Some(Side::Upstream)))
        .expect(messages(0, 1))
        .expect(upstream_end(0, End::Rst))
        .expect(outcomes(1))
}

/// The stall is in the status line.
pub fn r_04_stall_inside_the_status_line() -> Case {
    stall_in_the_head("stall inside the status line", "HTTP/1.1 20")
}

/// The stall is in a field.
pub fn r_04_stall_inside_a_header() -> Case {
    stall_in_the_head("stall inside a header", "HTTP/1.1 200 OK\r\ncontent-le")
}

/// A chunked response of 40 bytes that stops just before it would be complete is cut.
fn stall_at_the_end(id: &'static str, title: &'static str, part: Script) -> Case {
    let head = script()
        .read_message()
        .mark("stalls")
        .head("HTTP/1.1 200 OK\ntransfer-encoding: chunked\ntrailer: x-after");
    Case::new(id, title)
        .upstream(head.chunk(40).then(part).read_to_end())
        .client(script().connect().get("/").read_to_end())
        .expect(cut(0, 0, 200, Some(40)))
        .expect(window(Moment::Mark("stalls"), Moment::ClientEnd(0), ms(150)))
        .expect(timeout(0, Read, Some(Side::Upstream)))
        .expect(reported(0, Some(200)))
        .expect(client_end(0, End::Fin))
        .expect(upstream_end(0, End::Rst))
}

/// The size of a chunk is no part of the body.
pub fn r_08_stall_after_the_chunk_size_line() -> Case {
    stall_at_the_end("R-08", "stall after the chunk-size line", script().bytes("28\r\n"))
}

/// The body is not complete before its trailers are.
pub fn r_09_stall_in_the_trailers() -> Case {
    stall_at_the_end("R-09", "stall in the trailers", script().bytes("0\r\nx-after: so"))
}

/// Nor before the very last line end.
pub fn r_10_stall_before_the_very_last_crlf() -> Case {
    stall_at_the_end("R-10", "stall before the very last CRLF", script().bytes("0\r\nx-after: some\r\n"))
}

/// A FIN that came in time ends a close-delimited body, though the thread was blocked until after the deadline.
pub fn r_16_eof_ends_a_close_delimited_body_at_the_tie() -> Case {
    Case::new("R-16", "EOF ends a close-delimited body at the tie")
        .policy(|p| p.read = Some(ms(100)))
        .stall("read", ms(160))
        .upstream(
            script()
                .read_message()
                .head("HTTP/1.1 200 OK\nconnection: close")
                .body(40)
                .wait_for(BLOCKED)
                .pause(ms(30)),
        )
        .client(script().connect().get("/").read_head().read_body(40).mark("read").read_message())
        .expect(body(0, 0, 40))
        .expect(success(0))
}
