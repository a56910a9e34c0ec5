//! Tunnels whose ends are not what one side alone has done: who is named, and who is waited for.

use super::tunnel::{RESET_BOTH, SIDES, other, send, tunnel};
use super::*;
use crate::timeout::DeadlineKind as Kind;
use alloc::vec;

/// What failed first is the error, and what failed after it stands beside it (`timeouts.md` T7).
#[test]
fn the_side_that_failed_first_is_the_one_that_is_named() {
    const BROKEN: IoFailure = IoFailure { kind: IoKind::BrokenPipe, os_code: None };
    let blames = |side, failure| match side {
        Side::Client => Error::ClientAbort(Some(failure)),
        Side::Upstream => Error::UpstreamReset(failure),
    };
    for first in SIDES {
        let second = other(first);
        for (op, failure) in
            [(Op::Read(second), RESET), (Op::Write(second), RESET), (Op::Write(second), BROKEN)]
        {
            let mut rig = tunnel(profile());
            rig.client(b"words");
            rig.upstream(b"words");
            rig.with(|relay, env| relay.failed(Op::Write(first), BROKEN, env));
            assert_eq!((rig.actions(), rig.outcomes.len()), (vec![], 0), "what it said is still delivered");
            rig.with(|relay, env| relay.failed(op, failure, env));
            assert_eq!(rig.actions(), RESET_BOTH, "{op:?}");
            let told = (rig.outcome().error, rig.outcome().secondary);
            assert_eq!(told, (Some(blames(first, BROKEN)), Some(failure)), "{op:?}");
        }
        // A limit that ends it is what ended it, and a stop, too; the failure stands beside it.
        let ends: [State; 2] =
            [("limit", |rig| rig.at(150)), ("stop", |rig| rig.with(|relay, env| relay.stop(env)))];
        for (name, end) in ends {
            let mut rig = tunnel(profile());
            send(&mut rig, second, b"words");
            rig.with(|relay, env| relay.failed(Op::Write(first), BROKEN, env));
            end(&mut rig);
            let outcome = rig.outcome();
            let ended = match outcome.error {
                Some(Error::Timeout(t)) => name == "limit" && t.kind == Kind::Tunnel,
                error => name == "stop" && error == Some(Error::Stopped),
            };
            assert!(ended, "{outcome:?}");
            assert_eq!(outcome.secondary, Some(BROKEN));
        }
    }
}

#[test]
fn a_tunnel_that_ends_in_order_waits_for_the_clients_stream_to_say_so() {
    for limit in [false, true] {
        let mut rig = tunnel(profile());
        rig.slow_end = true;
        if limit {
            rig.at(150);
        } else {
            rig.fin(Side::Client);
            rig.fin(Side::Upstream);
        }
        assert_eq!(rig.actions().last(), Some(&Action::Close(Side::Client)));
        assert_eq!((rig.relay.is_closed(), rig.next().map(|next| next.1)), (false, Some(Kind::Linger)));
        rig.with(|relay, env| relay.closed(env));
        assert!(rig.relay.is_closed());
    }
}
