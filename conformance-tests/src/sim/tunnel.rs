//! One side of a tunnel, the same for clients and upstreams: it sends its bytes, ends as the plan says, and checks what
//! comes from the other side.
//!
//! What must hold: the bytes are those of the other side, in order; FIN comes when there is no more and not instead of RST; and
//! where both sides end with FIN and nothing is in the way, both have everything.

use std::cell::Cell;
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use tidegate_core::Side;

use super::ledger::{Invariant, Ledger};
use super::plan::{Half, Last, Pace, Request, Tunnel};
use super::upstream::or;
use super::wire::{Stop, Wire, offset, sleep, write};
use crate::pattern;

/// Longer than the two directions of any plan and the limits of a tunnel take.
const PATIENCE: Duration = Duration::from_secs(60);

/// Where the upstream's pattern begins, from where the client's does.
const OTHER_WAY: u64 = 500_009;

/// Runs one side to its end.
pub(super) async fn run(ledger: &Ledger, wire: &mut Wire, request: &Request, side: Side) -> Result<(), Stop> {
    let Some(tunnel) = request.tunnel else {
        return Err(Stop::Bad(format!("a tunnel that /{} did not ask for", request.id)));
    };
    let id = request.id;
    let (mine, theirs) = halves(&tunnel, side);
    let stream = wire.stream();
    let (here, there) = match side {
        Side::Client => (offset(id), offset(id) + OTHER_WAY),
        Side::Upstream => (offset(id) + OTHER_WAY, offset(id)),
    };
    let (sent_all, fin_came) = (Cell::new(false), Cell::new(false));
    let writes = async {
        let mut sent = 0u64;
        while sent < u64::from(mine.bytes) {
            let run = pattern::run(here + sent);
            let run = &run[..run.len().min((u64::from(mine.bytes) - sent) as usize)];
            sent += run.len() as u64;
            if write(&ledger.world, &stream, run, mine.sends).await.is_err() {
                return;
            }
        }
        sent_all.set(true);
        ledger.event(id, 20, || format!("{side}: /{id} has sent its {sent} bytes, now {:?}", mine.last));
        match mine.last {
            Last::Fin => stream.fin(),
            Last::Second => {
                // Polled together with the reads, which are woken.
                poll_fn(|_| if fin_came.get() { Poll::Ready(()) } else { Poll::Pending }).await;
                stream.fin();
            }
            Last::Rst => {
                ledger.with(id, |r| r.left = true);
                stream.rst();
            }
            Last::Idle => std::future::pending().await,
        }
    };
    let got = Cell::new(0);
    let now = || ledger.world.now();
    let fast = mine.reads == Pace::Fast;
    let reads = wire.until_end(there, mine.reads, |n| {
        if n > got.replace(n) && fast {
            ledger.with(id, |r| r.moved = Some(now()));
        }
    });
    let both = async {
        let (mut writes, mut reads) = (pin!(writes), pin!(reads));
        let (mut end, mut written) = (None, false);
        poll_fn(|cx| {
            if end.is_none()
                && let Poll::Ready(stop) = reads.as_mut().poll(cx)
            {
                fin_came.set(stop == Stop::Fin);
                end = Some(stop);
            }
            written = written || writes.as_mut().poll(cx).is_ready();
            match &end {
                // FIN ends one direction alone.
                Some(Stop::Fin) if !(written || sent_all.get()) => Poll::Pending,
                Some(stop) => Poll::Ready(stop.clone()),
                None => Poll::Pending,
            }
        })
        .await
    };
    let Some(end) = or(both, sleep(&ledger.world, PATIENCE)).await else {
        if side == Side::Client {
            ledger.fail(Invariant::EveryWaitHasADeadline, format!("the tunnel of /{id} has no end"));
        }
        return Err(Stop::Rst);
    };
    let got = got.get();
    ledger.event(id, 21, || format!("{side}: the tunnel of /{id} ends, {end:?} after {got} bytes"));
    if mine.last == Last::Rst && sent_all.get() {
        return Ok(());
    }
    let whole = got == u64::from(theirs.bytes);
    match end {
        Stop::Bad(what) => return Err(Stop::Bad(what)),
        Stop::Fin if !whole || theirs.last == Last::Rst => {
            let what =
                format!("the tunnel of /{id} ends for the {side} with FIN after {got} bytes of {theirs:?}");
            ledger.fail(Invariant::Bytes, what);
        }
        Stop::Rst | Stop::Short if tunnel.is_orderly() && ledger.plan.is_steady() => {
            let what =
                format!("the tunnel of /{id} ends for the {side} with RST after {got} bytes of {theirs:?}");
            ledger.fail(Invariant::Answered, what);
        }
        _ => {}
    }
    if end == Stop::Fin && mine.last == Last::Idle {
        // The other direction is still open, until its limit.
        let policy = ledger.plan.policy_of(request);
        let limit = policy.tunnel_fin.or(policy.tunnel).unwrap_or_default();
        sleep(&ledger.world, limit + Duration::from_secs(5)).await;
        let cut_off = ledger.ending.get() || ledger.cuts.get() > 0;
        if ledger.with(id, |r| r.outcome.is_none()) && !cut_off {
            let what = format!("the tunnel of /{id} stays half open for ever");
            ledger.fail(Invariant::EveryWaitHasADeadline, what);
        }
    }
    Ok(())
}

fn halves(tunnel: &Tunnel, side: Side) -> (Half, Half) {
    match side {
        Side::Client => (tunnel.client, tunnel.upstream),
        Side::Upstream => (tunnel.upstream, tunnel.client),
    }
}
