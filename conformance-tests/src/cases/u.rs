//! U: upgrades and tunnels.

use tidegate_core::DeadlineKind::{Drain, Read, Tunnel, TunnelFin};
use tidegate_core::{Phase, Side};

use super::ok;
use crate::expect::*;
use crate::script::{Case, Command, SERVER_ENDED, Script, Step, ms, script};
use crate::transcript::End;

/// A request that asks for a tunnel.
pub(super) fn upgrade() -> Script {
    script().head("GET /tunnel HTTP/1.1\nhost: conformance\nconnection: upgrade\nupgrade: websocket")
}

/// Reads such a request and agrees.
pub(super) fn switch() -> Script {
    script()
        .read_message()
        .tunnel()
        .head("HTTP/1.1 101 Switching Protocols\nconnection: upgrade\nupgrade: websocket")
}

/// What the upstream received through the tunnel is so many bytes of the pattern, and their end.
fn tunnelled(len: u64) -> Expect {
    request_whole(0, 1, len)
}

/// After a 101 neither the total nor the read limit runs: both are long over when the tunnel ends.
pub fn u_01_101_disarms() -> Case {
    let (mut client, mut upstream) = (script().connect().mark("start").then(upgrade()).read_head(), switch());
    for n in 1..=6 {
        client = client.body(1).read_body(n).pause(ms(100));
        upstream = upstream.read_body(n).body(1);
    }
    Case::new("U-01", "101 disarms")
        .policy(|p| (p.total, p.tunnel) = (Some(ms(200)), Some(ms(400))))
        .upstream(upstream.read_to_end())
        .client(client.fin().read_to_end().mark("done"))
        .expect(lasts(Moment::Mark("start"), Moment::Mark("done"), ms(600)))
        .expect(status(0, 0, 101))
        .expect(body(0, 0, 6))
        .expect(tunnelled(6))
        .expect(reported(0, Some(101)))
        .expect(success(0))
        .expect(outcomes(1))
}

/// A tunnel through which nothing passes is closed: FIN on both sides, since nothing is left to send.
pub fn u_02_idle() -> Case {
    Case::new("U-02", "idle")
        .patient()
        .policy(|p| p.tunnel = Some(ms(150)))
        .upstream(switch().read_body(10).read_to_end())
        .client(script().connect().then(upgrade()).read_head().mark("last").body(10).read_to_end())
        .expect(window(Moment::Mark("last"), Moment::ClientEnd(0), ms(150)))
        .expect(window(Moment::Mark("last"), Moment::UpstreamEnd(0), ms(150)))
        .expect(client_end(0, End::Fin))
        .expect(upstream_end(0, End::Fin))
        .expect(tunnelled(10))
        .expect(timeout(0, Tunnel, None))
        .expect(during(0, Phase::Tunnel))
        .expect(reported(0, Some(101)))
        .expect(outcomes(1))
}

/// One direction is enough to keep both open.
pub fn u_03_one_direction_active() -> Case {
    Case::new("U-03", "one direction active")
        .patient()
        .policy(|p| p.tunnel = Some(ms(250)))
        .upstream(switch().mark("begins").drip(1, ms(100), 6))
        .client(script().connect().then(upgrade()).read_to_end().mark("done"))
        .expect(lasts(Moment::Mark("begins"), Moment::Mark("done"), ms(600)))
        .expect(body(0, 0, 6))
        .expect(client_end(0, End::Fin))
        .expect(success(0))
        .expect(outcomes(1))
}

/// The client's FIN reaches the upstream, and the upstream goes on sending.
pub fn u_04_half_close_client_first() -> Case {
    Case::new("U-04", "half close, client first")
        .patient()
        .upstream(switch().read_to_end().body(100_000))
        .client(script().connect().then(upgrade()).read_head().body(10).mark("fin").fin().read_to_end())
        .expect(within(Moment::Mark("fin"), Moment::UpstreamEnd(0), ms(50)))
        .expect(upstream_end(0, End::Fin))
        .expect(tunnelled(10))
        .expect(body(0, 0, 100_000))
        .expect(client_end(0, End::Fin))
        .expect(success(0))
        .expect(outcomes(1))
}

/// The upstream's FIN reaches the client, and the client goes on sending.
pub fn u_04_half_close_upstream_first() -> Case {
    Case::new("U-04", "half close, upstream first")
        .patient()
        .upstream(switch().body(10).mark("fin").fin().read_to_end())
        .client(script().connect().then(upgrade()).read_to_end().body(100_000))
        .expect(within(Moment::Mark("fin"), Moment::ClientEnd(0), ms(50)))
        .expect(client_end(0, End::Fin))
        .expect(body(0, 0, 10))
        .expect(tunnelled(100_000))
        .expect(upstream_end(0, End::Fin))
        .expect(success(0))
        .expect(outcomes(1))
}

/// A tunnel with one FIN and nothing more has a limit of its own.
pub fn u_05_half_closed_and_silent() -> Case {
    Case::new("U-05", "half-closed and silent")
        .patient()
        .policy(|p| p.tunnel_fin = Some(ms(150)))
        .upstream(switch().read_to_end().hold())
        .client(script().connect().then(upgrade()).read_head().mark("fin").fin().read_to_end())
        .expect(window(Moment::Mark("fin"), Moment::UpstreamEnd(0), ms(0)))
        .expect(window(Moment::Mark("fin"), Moment::ClientEnd(0), ms(150)))
        .expect(client_end(0, End::Fin))
        .expect(timeout(0, TunnelFin, None))
        .expect(reported(0, Some(101)))
        .expect(outcomes(1))
}

/// What comes in and does not go out is no activity; whom it was for is reset. In virtual time the upstream's connection is full at
/// once, and the proxy has room for what comes in the 30 ms after that. (Where a kernel takes more, all comes at once.)
pub fn u_06_bytes_in_but_not_out() -> Case {
    Case::new("U-06", "bytes in but not out")
        .patient()
        .small_buffers()
        .policy(|p| p.tunnel = Some(ms(300)))
        .upstream(switch().wait_for("let go").read_to_end())
        .client(
            script()
                .connect()
                .then(upgrade())
                .read_head()
                .mark("sends")
                .drip(2048, ms(1), 30)
                .step(Step::BodyUntilBlocked(ms(100)))
                .read_to_end(),
        )
        // Somebody else says so: a client that is held up may still be writing when it is reset, and that ends its script.
        .client(script().wait_for("sends").wait_until("let go", 0, 0))
        .expect(window_wider(Moment::Mark("sends"), Moment::ClientEnd(0), ms(300), ms(200)))
        .expect(timeout(0, Tunnel, Some(Side::Upstream)))
        .expect(upstream_end(0, End::Rst))
        // It has sent what nobody read.
        .expect(client_end(0, End::Rst))
        .expect(reported(0, Some(101)))
        .expect(outcomes(1))
}

/// Any other answer is a response like all others, under the ordinary limits; what the client has sent after its
/// request is a request.
pub fn u_07_refused_upgrade() -> Case {
    Case::new("U-07", "refused upgrade")
        .upstream(script().read_message().mark("answers").then(ok(5)).body(5).read_message().read_to_end())
        .client(script().connect().then(upgrade()).get("/2").read_message().read_message())
        .expect(body(0, 0, 5))
        .expect(success(0))
        .expect(reported(0, Some(200)))
        .expect(status(0, 1, 504))
        .expect(window(Moment::Mark("answers"), Moment::FirstByte(0, 1), ms(150)))
        .expect(timeout(1, Read, Some(Side::Upstream)))
        .expect(Expect::new("the second request as one of its own", |t, _| match t.request(0, 1) {
            Some(m) if m.start == "GET /2 HTTP/1.1" => Ok(()),
            other => Err(format!("it is {other:?}")),
        }))
        .expect(outcomes(2))
}

/// What comes in one piece with the 101 is delivered, and so is what the client sent too early, once it may be.
pub fn u_08_payload_glued_to_the_101() -> Case {
    let glued = "HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\nglued";
    Case::new("U-08", "payload glued to the 101")
        .patient()
        .policy(|p| p.tunnel = Some(ms(150)))
        .upstream(script().read_message().pause(ms(50)).tunnel().mark("answers").bytes(glued).read_to_end())
        .client(script().connect().then(upgrade()).bytes("early").read_to_end())
        .expect(window(Moment::Mark("answers"), Moment::ClientEnd(0), ms(150)))
        .expect(text(0, 0, "glued"))
        .expect(Expect::new("the early bytes at the upstream, after its 101", |t, _| match t.request(0, 1) {
            Some(m) if m.text == b"early" => Ok(()),
            other => Err(format!("there is {other:?}")),
        }))
        .expect(timeout(0, Tunnel, None))
        .expect(client_end(0, End::Fin))
        .expect(upstream_end(0, End::Fin))
        .expect(outcomes(1))
}

/// A client that resets its side resets the upstream's.
pub fn u_09_reset_by_the_client() -> Case {
    Case::new("U-09", "reset by the client")
        .patient()
        .upstream(switch().body(5).read_to_end())
        .client(script().connect().then(upgrade()).read_head().read_body(5).mark("resets").step(Step::Rst))
        .expect(within(Moment::Mark("resets"), Moment::UpstreamEnd(0), ms(50)))
        .expect(upstream_end(0, End::Rst))
        .expect(failure(0, "ClientAbort"))
        .expect(reported(0, Some(101)))
        .expect(outcomes(1))
}

/// An upstream that resets its side resets the client's.
pub fn u_09_reset_by_the_upstream() -> Case {
    Case::new("U-09", "reset by the upstream")
        .patient()
        .upstream(switch().read_body(5).mark("resets").step(Step::Rst))
        .client(script().connect().then(upgrade()).read_head().body(5).read_to_end())
        .expect(within(Moment::Mark("resets"), Moment::ClientEnd(0), ms(50)))
        .expect(client_end(0, End::Rst))
        .expect(failure(0, "UpstreamReset"))
        .expect(reported(0, Some(101)))
        .expect(outcomes(1))
}

/// Until there is a 101 it is a request like all others.
pub fn u_10_upgrade_never_answered() -> Case {
    Case::new("U-10", "upgrade never answered")
        .upstream(script().read_to_end())
        .client(script().connect().mark("start").then(upgrade()).read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, Read, Some(Side::Upstream)))
        .expect(upstream_end(0, End::Rst))
        .expect(outcomes(1))
}

/// A tunnel that never rests ends with the drain: turns are bounded in tunnels too.
pub fn u_11_flood_in_one_direction_drain_asked() -> Case {
    Case::new("U-11", "flood in one direction, drain asked")
        .patient()
        .command("drain", Command::Drain)
        .upstream(switch().step(Step::Flood))
        .client(script().connect().then(upgrade()).read_body(1).mark("drain").read_to_end())
        // As with T-13: the flood itself keeps the machine busy.
        .expect(window_wider(Moment::Mark("drain"), Moment::ClientEnd(0), ms(300), ms(60)))
        .expect(window_wider(Moment::Mark("drain"), Moment::Mark(SERVER_ENDED), ms(300), ms(80)))
        .expect(timeout(0, Drain, None))
        .expect(client_end(0, End::Rst))
        .expect(upstream_end(0, End::Rst))
        .expect(reported(0, Some(101)))
        .expect(outcomes(1))
}
