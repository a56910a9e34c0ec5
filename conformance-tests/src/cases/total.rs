//! T, continued: what the total includes, and what it does not.

use tidegate_core::DeadlineKind::{Read, Total};
use tidegate_core::Phase;

use super::{BIG, ENDLESS, ok};
use crate::expect::*;
use crate::script::{Case, Script, Step, Upstream, ms, script};
use crate::transcript::End;

fn silent(id: &'static str, title: &'static str) -> Case {
    Case::new(id, title)
        .upstream(script().read_to_end())
        .client(script().mark("start").connect().get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(100)))
        .expect(upstream_end(0, End::Rst))
        .expect(outcomes(1))
}

/// The inner deadline comes first.
pub fn t_01_inner_first() -> Case {
    silent("T-01", "inner first")
        .policy(|p| {
            p.read = Some(ms(100));
            p.total = Some(ms(250));
        })
        .expect(timeout(0, Read, None))
}

/// The outer deadline comes first.
pub fn t_02_outer_first() -> Case {
    silent("T-02", "outer first")
        .policy(|p| {
            p.read = Some(ms(250));
            p.total = Some(ms(100));
        })
        .expect(timeout(0, Total, None))
}

/// The total starts at the complete head, however long that took to come.
pub fn t_06_starts_at_the_complete_head() -> Case {
    Case::new("T-06", "starts at the complete head")
        .policy(|p| {
            p.client_head = Some(ms(400));
            p.read = None;
            p.total = Some(ms(100));
        })
        .upstream(script().read_to_end())
        .client(
            script()
                .connect()
                .bytes("GET / HTTP/1.1\r\n")
                .pause(ms(60))
                .bytes("host: conformance\r\n")
                .pause(ms(60))
                .mark("complete")
                .bytes("\r\n")
                .read_message(),
        )
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("complete"), Moment::FirstByte(0, 0), ms(100)))
        .expect(timeout(0, Total, None))
}

/// The total includes the wait for a free upstream.
pub fn t_07_includes_the_queue() -> Case {
    Case::new("T-07", "includes the queue")
        .policy(|p| {
            p.queue = None;
            p.read = None;
            p.total = Some(ms(350));
        })
        .max_conns(1)
        .upstream(
            script()
                .read_message()
                .mark("occupied")
                .pause(ms(80))
                .then(ok(5))
                .body(5)
                .read_message()
                .read_to_end(),
        )
        .client(script().connect().get("/1").read_message())
        .client(script().wait_for("occupied").mark("start").connect().get("/2").read_message())
        .expect(success(0))
        .expect(status(1, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(1, 0), ms(350)))
        .expect(timeout(1, Total, None))
        .expect(during(1, Phase::ResponseHead))
        .expect(reused(1, true))
        .expect(accepted(1))
}

/// The total includes the upstreams that could not be reached.
pub fn t_08_includes_retries() -> Case {
    Case::new("T-08", "includes retries")
        .policy(|p| {
            p.connect = Some(ms(60));
            p.read = None;
            p.total = Some(ms(300));
        })
        .upstream_is(Upstream::FullBacklog { freed_by: None })
        .other(Upstream::FullBacklog { freed_by: None })
        .other(Upstream::Scripts(vec![script().read_to_end()]))
        .client(script().mark("start").connect().get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(300)))
        .expect(timeout(0, Total, None))
        .expect(during(0, Phase::ResponseHead))
        .expect(attempts(0, 3))
        .expect(upstream_end(0, End::Rst))
}

/// The total includes a client that takes its time.
pub fn t_09_includes_a_slow_client() -> Case {
    let slowly = Step::ReadSlowly { size: 1024, every: ms(50), until: "let go" };
    Case::new("T-09", "includes a slow client")
        .patient()
        .policy(|p| p.total = Some(ms(300)))
        .upstream(script().read_message().then(ok(ENDLESS)).body(BIG).read_to_end())
        .client(script().mark("start").connect().get("/").step(slowly).read_to_end())
        .client(script().wait_until("reached", 0, 1).wait_until("let go", 0, 0))
        .expect(cut(0, 0, 200, None))
        .expect(window(Moment::Mark("start"), Moment::UpstreamEnd(0), ms(300)))
        .expect(timeout(0, Total, None))
        .expect(reported(0, Some(200)))
        .expect(client_end(0, End::Fin))
        .expect(upstream_end(0, End::Rst))
}

/// An upstream that answers each of two requests after so long.
fn answers_twice(after: u64) -> Script {
    let once = script().read_message().pause(ms(after)).then(ok(5)).body(5);
    once.clone().then(once)
}

/// Two requests that take longer together than the total allows one. (At longer intervals than the catalogue's, for
/// busy machines.)
fn both_fine(id: &'static str, title: &'static str, after: u64, client: Script) -> Case {
    Case::new(id, title)
        .policy(|p| {
            p.read = None;
            p.keep_alive = None;
            p.pool_idle = None;
            p.total = Some(ms(350));
        })
        .upstream(answers_twice(after))
        .client(client)
        .expect(body(0, 0, 5))
        .expect(body(0, 1, 5))
        .expect(success(0))
        .expect(success(1))
        .expect(reused(1, true))
}

/// Each request of a connection has a total of its own.
pub fn t_10_fresh_per_request() -> Case {
    let client = script().connect().get("/1").read_message().get("/2").read_message();
    both_fine("T-10", "fresh per request", 200, client)
}

/// The idle time between two requests belongs to neither.
pub fn t_11_idle_costs_nothing() -> Case {
    let client = script().connect().get("/1").read_message().pause(ms(150)).get("/2").read_message();
    both_fine("T-11", "idle costs nothing", 110, client)
}

/// A pipelined request's total starts when its turn comes.
pub fn t_12_pipelined() -> Case {
    let client = script()
        .connect()
        .bytes("GET /1 HTTP/1.1\r\nhost: conformance\r\n\r\n".repeat(2))
        .read_message()
        .read_message();
    both_fine("T-12", "pipelined", 200, client)
}

/// Nothing is begun when there is no time at all.
pub fn t_16_total_0() -> Case {
    Case::new("T-16", "total 0")
        .policy(|p| p.total = Some(ms(0)))
        .upstream(script().read_to_end())
        .client(script().mark("start").connect().get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(0)))
        .expect(timeout(0, Total, None))
        .expect(attempts(0, 0))
        .expect(accepted(0))
}
