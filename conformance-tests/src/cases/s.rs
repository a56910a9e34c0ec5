//! S: shutdown and drain.

use tidegate_core::DeadlineKind::{Drain, Read};
use tidegate_core::Phase;

use super::ok;
use super::u::{switch, upgrade};
use crate::expect::*;
use crate::script::{BY_THEN, Case, Command, SERVER_ENDED, Step, Upstream, ms, script};
use crate::transcript::End;

/// What runs when a drain begins is finished, and told that it is the last; nobody else is let in.
pub fn s_01_graceful() -> Case {
    Case::new("S-01", "graceful")
        .patient()
        .command("drain", Command::Drain)
        .upstream(script().read_message().mark("drain").pause(ms(100)).then(ok(5)).body(5))
        .client(script().connect().get("/").read_message().read_to_end())
        .client(script().wait_for("drain").knock("refused"))
        .expect(window(Moment::Mark("drain"), Moment::Mark("refused"), ms(0)))
        .expect(body(0, 0, 5))
        .expect(field(0, 0, "connection", "close"))
        .expect(client_end(0, End::Fin))
        .expect(success(0))
        .expect(window_wider(Moment::Mark("drain"), Moment::Mark(SERVER_ENDED), ms(100), ms(20)))
        .expect(outcomes(1))
}

fn expires(title: &'static str) -> Case {
    Case::new("S-02", title)
        .patient()
        .command("drain", Command::Drain)
        .expect(timeout(0, Drain, None))
        .expect(upstream_end(0, End::Rst))
        .expect(client_end(0, End::Fin))
        .expect(window_wider(Moment::Mark("drain"), Moment::Mark(SERVER_ENDED), ms(300), ms(20)))
        .expect(outcomes(1))
}

/// What has not been answered when the drain runs out gets a 504.
pub fn s_02_drain_expires_before_the_head() -> Case {
    expires("drain expires before the head")
        .upstream(script().read_message().mark("drain").read_to_end())
        .client(script().connect().get("/").read_some().snapshot("answered").read_message().read_to_end())
        .expect(status(0, 0, 504))
        .expect(snapshot("answered", 0, 0))
        .expect(window(Moment::Mark("drain"), Moment::FirstByte(0, 0), ms(300)))
}

/// What has begun to be answered is cut.
pub fn s_02_drain_expires_in_the_body() -> Case {
    expires("drain expires in the body")
        .upstream(script().read_message().then(ok(100)).body(40).wait_for("drain").read_to_end())
        .client(script().connect().get("/").read_body(40).mark("drain").read_to_end().snapshot("cut"))
        .expect(cut(0, 0, 200, Some(40)))
        .expect(snapshot("cut", 0, 0))
        .expect(window(Moment::Mark("drain"), Moment::ClientEnd(0), ms(300)))
}

/// What is idle is closed at once: a client between two requests, one before its first, and a pooled
/// connection.
pub fn s_03_idle_connections() -> Case {
    Case::new("S-03", "idle connections")
        .patient()
        .command("drain", Command::Drain)
        .upstream(script().read_message().then(ok(5)).body(5).read_to_end())
        // Who came after the other is answered: the other was let in.
        .client(script().wait_for("connected").connect().get("/").read_message().mark("drain").read_to_end())
        .client(script().connect().mark("connected").read_to_end())
        .expect(body(0, 0, 5))
        .expect(window(Moment::Mark("drain"), Moment::ClientEnd(0), ms(0)))
        .expect(window(Moment::Mark("drain"), Moment::ClientEnd(1), ms(0)))
        .expect(window(Moment::Mark("drain"), Moment::UpstreamEnd(0), ms(0)))
        .expect(window(Moment::Mark("drain"), Moment::Mark(SERVER_ENDED), ms(0)))
        .expect(client_end(0, End::Fin))
        .expect(client_end(1, End::Fin))
        .expect(upstream_end(0, End::Fin))
        .expect(got_nothing(1))
        .expect(outcomes(1))
}

/// A tunnel is not idle: it has until the drain runs out, and is then reset.
pub fn s_03_tunnels() -> Case {
    Case::new("S-03", "tunnels")
        .patient()
        .command("drain", Command::Drain)
        .upstream(switch().read_to_end())
        .client(script().connect().then(upgrade()).read_head().mark("drain").read_to_end())
        .expect(window(Moment::Mark("drain"), Moment::ClientEnd(0), ms(300)))
        .expect(window(Moment::Mark("drain"), Moment::UpstreamEnd(0), ms(300)))
        .expect(window_wider(Moment::Mark("drain"), Moment::Mark(SERVER_ENDED), ms(300), ms(20)))
        .expect(client_end(0, End::Rst))
        .expect(upstream_end(0, End::Rst))
        .expect(timeout(0, Drain, None))
        .expect(reported(0, Some(101)))
        .expect(outcomes(1))
}

pub(crate) fn drained_while(title: &'static str, phase: Phase) -> Case {
    Case::new("S-04", title)
        .patient()
        .policy(|p| p.drain = Some(ms(200)))
        .command("drain", Command::Drain)
        .upstream_is(Upstream::FullBacklog { freed_by: None })
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("drain"), Moment::FirstByte(0, 0), ms(200)))
        .expect(timeout(0, Drain, None))
        .expect(during(0, phase))
        .expect(window_wider(Moment::Mark("drain"), Moment::Mark(SERVER_ENDED), ms(200), ms(20)))
        .expect(outcomes(1))
}

/// A connect that hangs holds no drain up.
pub fn s_04_during_connect() -> Case {
    drained_while("during connect", Phase::Connect)
        .client(script().connect().get("/").read_some().snapshot("answered").read_message())
        .client(script().wait_until("drain", 1, 0))
        .expect(attempts(0, 1))
        .expect(snapshot("answered", 0, 0))
}

/// Nor does a request that waits for an upstream, here for one that takes nobody.
pub fn s_04_in_the_queue() -> Case {
    drained_while("in the queue", Phase::Queue)
        .max_conns(0)
        .client(script().connect().get("/").pause(BY_THEN).mark("drain").read_message())
        .expect(attempts(0, 0))
}

/// A server that is dropped leaves nobody without an end: a client that waits, an idle one, one that has said
/// nothing, and both kinds of upstream connections.
pub fn s_05_stop_without_drain() -> Case {
    let drop = Moment::Mark("drop");
    Case::new("S-05", "stop without drain")
        .patient()
        .command("drop", Command::Drop)
        .other(Upstream::Scripts(vec![script().read_message().mark("drop").read_to_end()]))
        .upstream(script().read_message().then(ok(5)).body(5).read_to_end())
        .client(script().connect().get("/1").read_message().mark("idle").read_to_end())
        .client(script().wait_for("connected").connect().get("/2").read_to_end())
        .client(script().wait_for("idle").connect().mark("connected").read_to_end())
        .expect(within(drop, Moment::ClientEnd(0), ms(50)))
        .expect(within(drop, Moment::ClientEnd(1), ms(50)))
        .expect(within(drop, Moment::ClientEnd(2), ms(50)))
        .expect(within(drop, Moment::UpstreamEnd(0), ms(50)))
        .expect(within(drop, Moment::UpstreamEnd(1), ms(50)))
        .expect(upstream_end(0, End::Fin))
        .expect(upstream_end(1, End::Rst))
        .expect(got_nothing(1))
        .expect(failure(1, "Stopped"))
        .expect(outcomes(2))
}

/// A second drain changes nothing: the deadline is the first one's.
pub fn s_06_drain_twice() -> Case {
    Case::new("S-06", "drain twice")
        .patient()
        .policy(|p| p.drain = Some(ms(200)))
        .command("drain", Command::Drain)
        .command("drain", Command::Drain)
        .command("again", Command::Drain)
        .upstream(script().read_message().mark("drain").read_to_end())
        .client(script().connect().get("/").read_message().read_to_end())
        .client(script().wait_for("drain").pause(ms(100)).mark("again"))
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("drain"), Moment::FirstByte(0, 0), ms(200)))
        .expect(timeout(0, Drain, None))
        .expect(outcomes(1))
}

/// A stop in a drain ends what is left, at once; more of either changes nothing.
pub fn s_06_stop_twice_in_a_drain() -> Case {
    Case::new("S-06", "stop twice in a drain")
        .patient()
        .command("drain", Command::Drain)
        .command("stop", Command::Stop)
        .command("stop", Command::Stop)
        .command("stop", Command::Drain)
        .upstream(script().read_message().mark("drain").read_to_end())
        .client(script().connect().get("/").read_to_end())
        .client(script().wait_for("drain").pause(ms(50)).mark("stop"))
        .expect(got_nothing(0))
        .expect(window(Moment::Mark("stop"), Moment::ClientEnd(0), ms(0)))
        .expect(window(Moment::Mark("stop"), Moment::UpstreamEnd(0), ms(0)))
        .expect(window(Moment::Mark("stop"), Moment::Mark(SERVER_ENDED), ms(0)))
        .expect(upstream_end(0, End::Rst))
        .expect(failure(0, "Stopped"))
        .expect(outcomes(1))
}

/// A stop may come from inside a connection's own task: here from `observe`.
pub fn s_07_from_inside_a_task() -> Case {
    Case::new("S-07", "from inside a task")
        .patient()
        .stopped_by_observer()
        .upstream(script().read_message().mark("answers").then(ok(5)).body(5).read_to_end())
        .client(script().wait_for("connected").connect().get("/").read_message().read_to_end())
        .client(script().connect().mark("connected").read_to_end())
        .expect(body(0, 0, 5))
        .expect(success(0))
        .expect(window(Moment::Mark("answers"), Moment::ClientEnd(0), ms(0)))
        .expect(window(Moment::Mark("answers"), Moment::ClientEnd(1), ms(0)))
        .expect(window(Moment::Mark("answers"), Moment::UpstreamEnd(0), ms(0)))
        .expect(window(Moment::Mark("answers"), Moment::Mark(SERVER_ENDED), ms(0)))
        .expect(got_nothing(1))
        .expect(outcomes(1))
}

/// The other deadlines go on in a drain.
pub fn s_11_own_limits_still_run_while_draining() -> Case {
    Case::new("S-11", "own limits still run while draining")
        .policy(|p| p.read = Some(ms(100)))
        .command("drain", Command::Drain)
        .upstream(script().read_message().mark("drain").read_to_end())
        .client(script().connect().mark("start").get("/").read_message().step(Step::ReadToEnd))
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(100)))
        .expect(timeout(0, Read, None))
        .expect(field(0, 0, "connection", "close"))
        .expect(client_end(0, End::Fin))
        .expect(outcomes(1))
}

/// A proxy can be started again at once where one was stopped, twenty times, each on a runtime of its own.
pub fn s_09_restart_in_the_same_process() -> Case {
    Case::new("S-09", "restart in the same process")
        .patient()
        .rounds(20)
        .command("stop", Command::Stop)
        .upstream(script().read_message().then(ok(5)).body(5).read_to_end())
        .client(script().connect().get("/").read_message().mark("stop").read_to_end())
        .expect(body(0, 0, 5))
        .expect(success(0))
        .expect(client_end(0, End::Fin))
        .expect(upstream_end(0, End::Fin))
        .expect(window(Moment::Mark("stop"), Moment::Mark(SERVER_ENDED), ms(0)))
}

/// Clients that were not let in yet when the proxy is stopped are reset; none of them is half served.
pub fn s_10_half_read_backlog() -> Case {
    let waits = |after, mark| script().wait_for(after).connect().get("/").mark(mark).read_to_end();
    let case = Case::new("S-10", "half-read backlog")
        .patient()
        .max_client_conns(1)
        .command("stop", Command::Stop)
        .upstream(script().read_message().mark("occupied").read_to_end())
        .client(script().connect().get("/").read_to_end())
        .client(waits("occupied", "second"))
        .client(waits("second", "third"))
        .client(waits("third", "fourth"))
        .client(script().wait_for("fourth").pause(ms(50)).mark("stop"))
        .expect(got_nothing(0))
        .expect(failure(0, "Stopped"))
        .expect(upstream_end(0, End::Rst))
        .expect(accepted(1))
        .expect(outcomes(1));
    (1..=3).fold(case, |case, i| {
        case.expect(got_nothing(i)).expect(client_end(i, End::Rst)).expect(window(
            Moment::Mark("stop"),
            Moment::ClientEnd(i),
            ms(0),
        ))
    })
}
