//! H, continued: what is left when a request is over. What must be weighed or counted on the
//! runtime itself is in `live.rs`.

use std::sync::LazyLock;

use tidegate_core::DeadlineKind::{Read, Write};

use super::{BIG, ENDLESS, post};
use crate::expect::*;
use crate::script::{Case, FIRST_OUTCOME, FREED, Step, ms, script};
use crate::transcript::End;
use crate::virtual_rt::HOP;

/// A client that goes on sending after an error response is listened to for the linger limit, and no longer.
pub fn h_11_linger_bounded_in_time() -> Case {
    Case::new("H-11", "linger bounded in time")
        .upstream(script().read_to_end())
        .client(
            script()
                .connect()
                .then(post(ENDLESS))
                .body(10)
                .read_message()
                .background(script().drip(10, ms(10), 100))
                .step(Step::Join),
        )
        .policy(|p| p.client_body = Some(ms(50)))
        .expect(status(0, 0, 408))
        // The client notices with one of its next writes, which it makes every 10 ms.
        .expect(window_within(Moment::Outcome(0), Moment::WriteError(0), ms(80), ms(30)))
}

/// A client that floods after an error response is cut off when it has sent a mebibyte: that, and what lies in the kernels'
/// buffers then.
pub fn h_11_linger_bounded_in_bytes() -> Case {
    const CAP: u64 = 1 << 20;
    Case::new("H-11", "linger bounded in bytes")
        .policy(|p| {
            p.client_body = Some(ms(50));
            p.linger = None;
        })
        .upstream(script().read_to_end())
        .client(
            script()
                .connect()
                .then(post(ENDLESS))
                .body(10)
                .read_message()
                .background(script().step(Step::Flood))
                .step(Step::Join),
        )
        .expect(status(0, 0, 408))
        .expect(Expect::new("the flood to be cut off after a mebibyte", |t, tolerance| {
            let buffers = if tolerance == Tolerance::VIRTUAL { 2 * HOP as u64 } else { 4 * BIG };
            let log = t.clients.first().ok_or("there is no client")?;
            match log.write_error {
                Some(_) if (CAP..CAP + buffers).contains(&log.sent) => Ok(()),
                Some(_) => Err(format!("it was, after {} bytes", log.sent)),
                None => Err(format!("{} bytes were taken", log.sent)),
            }
        }))
}

/// The upstream is closed where the timeout is decided: a neighbour that blocks the thread right after that turn delays it by
/// nothing, and the upstream sees it before the neighbour is done. Who left the close to a task, or to the executor, would be late
/// by the neighbour.
pub fn h_13_close_is_not_delayed_by_a_busy_executor() -> Case {
    Case::new("H-13", "close is not delayed by a busy executor")
        .stall(FIRST_OUTCOME, ms(600))
        .upstream(script().read_message().read_to_end())
        .client(script().connect().mark("asks").get("/").read_message().wait_for(FREED))
        .expect(status(0, 0, 504))
        .expect(timeout(0, Read, None))
        .expect(window(Moment::Mark("asks"), Moment::UpstreamEnd(0), ms(150)))
        .expect(before(Moment::UpstreamEnd(0), Moment::Mark(FREED)))
        .expect(upstream_end(0, End::Rst))
}

/// What was cut does not trickle on: after each of twenty write timeouts, one after the other, the kernel holds no connection
/// to the upstream that still has bytes to send, nor the proxy a descriptor of one.
pub fn h_14_kernel_leftovers() -> Case {
    const TIMES: usize = 20;
    static EVENTS: LazyLock<Vec<[String; 3]>> = LazyLock::new(|| {
        (0..TIMES).map(|n| ["cut", "looked", "over"].map(|what| format!("{what}, {n}"))).collect()
    });
    // Whom a busy machine waits for when the limit is due is chance.
    let mut case = Case::new("H-14", "kernel leftovers").by_chance().small_buffers().policy(|p| {
        p.client_body = None;
        p.write = Some(ms(50));
    });
    let mut before = None;
    for (i, [cut, looked, over]) in EVENTS.iter().enumerate() {
        let begins = before.map_or(script(), |over| script().wait_for(over));
        let uploads = begins.connect().then(post(BIG)).background(script().body(BIG)).read_message();
        case = case
            .upstream(script().wait_for(looked).read_to_end())
            // Of the one before, which has read what there was, nothing is left either.
            .client(uploads.wait_until(cut, 0, 0).snapshot(cut).mark(looked).read_to_end().mark(over))
            .expect(timeout(i, Write, None))
            .expect(snapshot(cut, 0, 0))
            .expect(request_cut(i, None))
            .expect(upstream_end(i, End::Rst));
        before = Some(over);
    }
    case.expect(outcomes(TIMES))
}
