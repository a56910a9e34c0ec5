//! The deadline table: which deadline runs in which state, and for whom it waits.
//!
//! [`Relay::wanted`] is the table of `docs/TIMEOUTS.md`, The deadlines: when a deadline starts, is suspended and
//! stops. What resets one is at the event ([`Relay::progress`]); what becomes of one that is due is in `exchange.rs`.

use crate::error::{Error, Phase, Side, TimeoutError};
use crate::relay::Relay;
use crate::relay::client::ClientState;
use crate::relay::exchange::Stage;
use crate::time::Instant;
use crate::timeout::{DeadlineKind, Kinds, TimeoutPolicy};

impl Relay {
    /// Which deadlines run now: the "start", "stop" and "suspended" columns of `docs/TIMEOUTS.md`, The deadlines.
    /// One that begins to be wanted gets its full limit; one that is no longer wanted is off.
    fn wanted(&self, now: Instant) -> Kinds {
        use DeadlineKind::*;
        let (client, upstream, stage) = (&self.client, &self.upstream, self.exchange.stage);
        if stage == Stage::Tunnel {
            let one_fin = client.inbound.eof != upstream.ended.is_some();
            return Kinds::NONE
                .with(Drain, self.awaits_drain(now))
                // The 101 itself is still a response.
                .with(ClientWrite, !client.outbound.head_sent())
                .with(Tunnel, true)
                .with(TunnelFin, one_fin);
        }
        // It covers everything but the error response that it has itself led to.
        let total = stage != Stage::Idle && !(stage == Stage::Answering && self.is_total_spent());
        // The pool's own deadline is kept by the pool.
        let kinds = Kinds::NONE
            .with(Total, total)
            .with(Drain, self.awaits_drain(now))
            .with(Queue, stage == Stage::Queued && self.exchange.waiting)
            .with(Connect, matches!(stage, Stage::Resolving | Stage::Connecting))
            .with(ConnectAddress, stage == Stage::Connecting && self.exchange.has_next_address())
            .with(ClientHead, matches!(client.state, ClientState::First | ClientState::Head))
            .with(ClientWrite, client.outbound.is_pending())
            .with(KeepAlive, client.state == ClientState::Idle)
            .with(Linger, matches!(client.state, ClientState::Linger | ClientState::Closing))
            .with(ClientBody, self.awaits_body());
        if stage != Stage::Relaying {
            return kinds;
        }
        let written = upstream.request_written();
        let writing = !written && upstream.response.is_none() && upstream.write_failed.is_none();
        let early = upstream.response.is_some() || !upstream.inbound.unparsed().is_empty();
        let read = upstream.wants_read(&client.outbound)
            && (written || early || upstream.write_failed.is_some() || self.exchange.withheld);
        kinds.with(Write, writing).with(WriteIdle, writing && upstream.outbound.is_pending()).with(Read, read)
    }

    /// A drain waits for this connection: but for a close that has a deadline of its own, and for the error
    /// response that the drain has itself led to.
    fn awaits_drain(&self, now: Instant) -> bool {
        let spent = matches!(self.exchange.error, Some(Error::Timeout(t)) if t.kind == DeadlineKind::Drain);
        let closes = match self.client.state {
            ClientState::Linger | ClientState::Closing => self.is_limited(DeadlineKind::Linger, now),
            state => state == ClientState::Closed,
        };
        self.draining.is_some() && !closes && !(self.exchange.stage == Stage::Answering && spent)
    }

    fn is_total_spent(&self) -> bool {
        matches!(self.exchange.error, Some(Error::Timeout(TimeoutError { kind: DeadlineKind::Total, .. })))
    }

    /// The exchange waits for the client to send more of its body: all of it that came has gone, and there
    /// is room for more.
    fn awaits_body(&self) -> bool {
        self.exchange.stage.is_forwarding()
            && !self.client.decoder.is_complete()
            && !self.upstream.outbound.is_pending()
            && self.upstream.write_failed.is_none()
            && !self.exchange.withheld
            && !self.client.inbound.eof
            && self.client.inbound.has_room(false)
    }

    pub(crate) fn policy(&self, kind: DeadlineKind) -> &TimeoutPolicy {
        match kind {
            DeadlineKind::ClientHead
            | DeadlineKind::KeepAlive
            | DeadlineKind::Linger
            | DeadlineKind::Drain => &self.config.timeouts,
            _ => self.exchange.policy.as_deref().unwrap_or(&self.config.timeouts),
        }
    }

    /// Whether a wait of this kind that begins now has an end: a limit that is off has none, nor one beyond the clock's
    /// end (`timeouts.md` T8).
    pub(crate) fn is_limited(&self, kind: DeadlineKind, now: Instant) -> bool {
        self.policy(kind).expiry(kind, now) != Instant::NEVER
    }

    /// Counts the time that has passed to the phase in which it did.
    pub(crate) fn clock_phase(&mut self, now: Instant) {
        if !self.exchange.is_some() {
            return;
        }
        let phase = self.phase();
        let (was, since) = self.exchange.phase;
        if phase != was || self.actions.report {
            self.exchange.timing.add(was, now.saturating_since(since));
            self.exchange.phase = (phase, now);
        }
    }

    /// Arms what has begun to be wanted and disarms what is no longer.
    pub(crate) fn sync_deadlines(&mut self, now: Instant) {
        self.clock_phase(now);
        let (wanted, armed) = (self.wanted(now), self.deadlines.armed());
        for kind in armed.without(wanted) {
            self.deadlines.disarm(kind);
        }
        for kind in wanted.without(armed) {
            let start = match kind {
                DeadlineKind::Total => self.exchange.started,
                DeadlineKind::Drain => self.draining.unwrap_or(now),
                _ => now,
            };
            let at = match kind {
                DeadlineKind::ConnectAddress => self.share_of_connect(now),
                _ => self.policy(kind).expiry(kind, start),
            };
            self.deadlines.arm(kind, at);
        }
        // A drain that has begun since may leave the address that is tried less than it had.
        if wanted.without(armed).contains(DeadlineKind::Drain) && armed.contains(DeadlineKind::ConnectAddress)
        {
            let share = self.share_of_connect(now).min(self.deadlines.get(DeadlineKind::ConnectAddress));
            self.deadlines.arm(DeadlineKind::ConnectAddress, share);
        }
    }

    /// Until when one address may be tried: an equal share of what is left for all that were not (the last has all of
    /// it, and no deadline of its own). The kinds that it is a share of have smaller ranks, and are armed by now.
    fn share_of_connect(&self, now: Instant) -> Instant {
        use DeadlineKind::{Connect, Drain, Total};
        let end = [Connect, Total, Drain].map(|kind| self.deadlines.get(kind)).into_iter().min();
        match end {
            Some(end) if end != Instant::NEVER => {
                now + end.saturating_since(now) / self.exchange.untried_addresses().max(1)
            }
            _ => Instant::NEVER,
        }
    }

    /// Progress resets `kind`: [`Relay::sync_deadlines`] gives it its full limit again if it is wanted.
    pub(crate) fn progress(&mut self, kind: DeadlineKind) {
        self.deadlines.disarm(kind);
    }

    /// Whom the exchange waits for (`timeouts.md` T9; once the response lies with us, for the client).
    pub(crate) fn blocked_on(&self, kind: DeadlineKind) -> Side {
        use DeadlineKind::{ClientBody, ClientHead, ClientWrite};
        let ours = matches!(self.exchange.stage, Stage::Draining | Stage::Answering);
        if ours || matches!(kind, ClientBody | ClientHead | ClientWrite) {
            Side::Client
        } else if self.upstream.outbound.is_pending() {
            Side::Upstream
        } else if self.exchange.stage == Stage::Tunnel && self.client.outbound.is_pending() {
            Side::Client
        } else if self.client.decoder.is_complete()
            // The body is not asked for yet.
            || self.exchange.withheld
            // It took no more, and what it left is not kept.
            || self.upstream.write_failed.is_some()
        {
            Side::Upstream
        } else {
            Side::Client
        }
    }

    pub(crate) fn phase(&self) -> Phase {
        match (self.client.state, self.exchange.stage) {
            (ClientState::First | ClientState::Head, _) => Phase::RequestHead,
            (ClientState::Linger | ClientState::Closing | ClientState::Closed, _) => Phase::Linger,
            (_, Stage::Idle) => Phase::Idle,
            (_, Stage::Queued) => Phase::Queue,
            // A list of addresses is not waited for.
            (_, Stage::Resolving) if self.exchange.waiting => Phase::Dns,
            (_, Stage::Routing | Stage::Checkout | Stage::Resolving | Stage::Connecting) => Phase::Connect,
            (_, Stage::Draining | Stage::Answering) => Phase::ResponseBody,
            (_, Stage::Tunnel) => Phase::Tunnel,
            (_, Stage::Relaying) if self.upstream.response.is_some() => Phase::ResponseBody,
            (_, Stage::Relaying) if self.upstream.request_written() => Phase::ResponseHead,
            (_, Stage::Relaying) => Phase::Request,
        }
    }
}
