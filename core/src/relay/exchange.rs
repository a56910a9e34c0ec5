//! One request and its response: every transition.
//!
//! With `deadlines.rs`, which says when each deadline runs, and `endings.rs`, which says what both sides see when
//! it is over, this file is the law of the project in code: [`Relay::expire`] decides every timeout
//! (`docs/TIMEOUTS.md`, The deadlines), and [`Relay::settle`] moves what can be moved after every event. It knows no
//! socket and no clock; byte formats are in `http/`, buffers in `flow.rs`, and an upstream's addresses in `address.rs`.
//!
//! ```text
//!           forward          pool miss       resolved        connected
//! Routing ──▶ Queued ──▶ Checkout ───▶ Resolving ──▶ Connecting ───▶ Relaying
//!    │        granted        └──── connected (pooled) ──────────▲ │
//!    │ respond               no address left: Queued again
//!    ▼                                                         │ response received, or cut off
//! Answering ◀───── fail, no response head forwarded ─────      ▼
//!    └──────────────▶ Idle ◀────── last byte sent ──────── Draining
//! ```
//!
//! A 101 leads from Relaying to Tunnel, and that to Idle (`tunnel.rs`); an idle connection that was dead leads from Relaying
//! to Resolving, once (`Relay::may_retry`). The ways to Answering and to Idle are in `endings.rs`.

use alloc::sync::Arc;
use alloc::vec::Vec;
use core::time::Duration;

use crate::error::{Error, IoFailure, Phase, TimeoutError};
use crate::http::{Framing, HttpError, RequestHead, ResponseContext};
use crate::relay::Relay;
use crate::relay::client::ClientState;
use crate::relay::lent::Rest;
use crate::relay::outcome::{End, Env, Step, Timing};
use crate::relay::tunnel;
use crate::relay::upstream::Ended;
use crate::time::Instant;
use crate::timeout::{Deadline, DeadlineKind, TimeoutPolicy};
use crate::upstream::{Addresses, UpstreamId};

/// Where the exchange stands; see the picture above.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Stage {
    Idle,
    Routing,
    /// An upstream is asked for, or waited for.
    Queued,
    Checkout,
    /// The upstream's addresses are asked for, or waited for.
    Resolving,
    Connecting,
    Relaying,
    /// A 101 was accepted: bytes pass in both directions as they are (`tunnel.rs`).
    Tunnel,
    /// The upstream is done with; what is left of the response goes to the client.
    Draining,
    /// A response of our own goes to the client.
    Answering,
}

impl Stage {
    /// The request is on its way to an upstream, and not done with it.
    pub(crate) fn is_forwarding(self) -> bool {
        use Stage::{Checkout, Connecting, Queued, Relaying, Resolving};
        matches!(self, Queued | Checkout | Resolving | Connecting | Relaying)
    }
}

#[derive(Debug)]
pub(crate) struct Exchange {
    pub(crate) stage: Stage,
    /// The limits of its route, where they are not the proxy's own.
    pub(crate) policy: Option<Arc<TimeoutPolicy>>,
    /// The upstreams that could not be reached.
    pub(crate) tried: Vec<UpstreamId>,
    /// The last of them, why.
    unreached: Option<Error>,
    /// What was asked for is not there yet: an upstream, and the queue's deadline runs, or its addresses.
    pub(crate) waiting: bool,
    /// Where the upstream is, while it is connected to and after that has failed, and which of it is tried.
    pub(crate) addresses: Option<Addresses>,
    pub(crate) address: u8,
    pub(crate) started: Instant,
    /// `Expect: 100-continue`, and neither a 100 nor a body byte has come.
    pub(crate) withheld: bool,
    /// A deadline was due before the next operation began: it is not begun (`timeouts.md` T5).
    pub(crate) held: bool,
    retried: bool,
    /// What the client was told about its connection.
    pub(crate) keep_alive: bool,
    pub(crate) status: Option<u16>,
    /// In a tunnel: writing to the client failed, and what it said before is still for the upstream.
    pub(crate) client_failed: bool,
    pub(crate) error: Option<Error>,
    pub(crate) secondary: Option<IoFailure>,
    pub(crate) upstream: Option<UpstreamId>,
    pub(crate) attempts: u16,
    /// The connection came from the pool.
    pub(crate) reused: bool,
    /// How long it was in each phase, and since when it is in which.
    pub(crate) timing: Timing,
    pub(crate) phase: (Phase, Instant),
    /// Body bytes that came from the client.
    body_bytes: u64,
    pub(crate) request_bytes: u64,
    pub(crate) response_bytes: u64,
}

impl Rest for Exchange {
    const REST: Exchange = Exchange {
        stage: Stage::Idle,
        policy: None,
        tried: Vec::new(),
        unreached: None,
        waiting: false,
        addresses: None,
        address: 0,
        started: Instant::EPOCH,
        withheld: false,
        held: false,
        retried: false,
        keep_alive: false,
        status: None,
        client_failed: false,
        error: None,
        secondary: None,
        upstream: None,
        attempts: 0,
        reused: false,
        timing: Timing::ZERO,
        phase: (Phase::Connect, Instant::EPOCH),
        body_bytes: 0,
        request_bytes: 0,
        response_bytes: 0,
    };

    fn at_rest() -> &'static Exchange {
        static REST: Exchange = Exchange::REST;
        &REST
    }
}

impl Relay {
    /// One deadline is due: the only place where a timeout is decided.
    pub(crate) fn expire(&mut self, due: Deadline, env: &mut Env<'_>) {
        let Deadline { at, kind } = due;
        let limit = self.policy(kind).limit(kind).unwrap_or(Duration::ZERO);
        let started = at - limit;
        let error = Error::Timeout(TimeoutError {
            kind,
            limit,
            started,
            elapsed: env.now.saturating_since(started),
            during: self.phase(),
            blocked_on: self.blocked_on(kind),
            response_started: self.exchange.status.is_some(),
        });
        self.deadlines.disarm(kind);
        if self.exchange.held {
            self.exchange.held = false;
        }
        match kind {
            DeadlineKind::Linger => self.close_client(End::Close),
            DeadlineKind::KeepAlive => self.finish_client(env.now),
            DeadlineKind::ClientHead if self.client.state == ClientState::First => {
                self.finish_client(env.now)
            }
            DeadlineKind::Connect => {
                self.connect_failed(error, env);
                // Another deadline was due in the same turn, after this one: there is no time to try again, and
                // the one that was due first is reported (`timeouts.md` T3).
                if self.exchange.held {
                    self.give_up(env);
                }
            }
            // A share that ran out is no outcome: what it is a share of may be due as well.
            DeadlineKind::ConnectAddress => match self.deadlines.due(env.now) {
                Some(due) => self.expire(due, env),
                None => self.address_failed(error, env),
            },
            // A head that has not come by now is no request.
            DeadlineKind::Drain if self.exchange.stage == Stage::Idle => self.finish_client(env.now),
            _ => self.fail(error, env),
        }
    }

    // ---- towards the upstream --------------------------------------------------------------------

    /// The request goes to an upstream.
    pub(crate) fn begin_forward(&mut self, policy: Option<Arc<TimeoutPolicy>>, env: &mut Env<'_>) {
        self.exchange.policy = policy;
        self.progress(DeadlineKind::Total);
        self.upstream.outbound.begin_body(self.client.request.framing == Framing::Chunked);
        let announced = match self.client.request.framing {
            Framing::Length(length) => length,
            _ => 0,
        };
        if self.config.max_body.is_some_and(|max| announced > max) {
            return self.fail(Error::BadRequest(HttpError::BodyTooLarge), env);
        }
        self.begin(Stage::Queued, Step::Admit, env);
    }

    /// The request has an upstream. Once a pooled connection was stale, only a new one will do.
    pub(crate) fn begin_upstream(&mut self, id: UpstreamId, env: &mut Env<'_>) {
        self.exchange.upstream = Some(id);
        if self.exchange.retried {
            self.dial(env);
        } else {
            self.begin(Stage::Checkout, Step::Checkout(id), env);
        }
    }

    /// There is no upstream left to try: the last error is the answer (`timeouts.md` T10).
    pub(crate) fn give_up(&mut self, env: &mut Env<'_>) {
        let error = self.exchange.unreached.unwrap_or(Error::NoUpstream);
        self.fail(error, env);
    }

    /// Enters a stage whose operation is begun only if no deadline is due already (`timeouts.md` T5).
    pub(crate) fn begin(&mut self, stage: Stage, step: Step, env: &mut Env<'_>) {
        self.exchange.stage = stage;
        self.exchange.waiting = false;
        self.sync_deadlines(env.now);
        self.exchange.held = self.deadlines.due(env.now).is_some();
        if !self.exchange.held {
            self.actions.step = Some(step);
        }
    }

    /// The connection is there.
    pub(crate) fn begin_relaying(&mut self, reused: bool, env: &mut Env<'_>) {
        self.exchange.stage = Stage::Relaying;
        self.exchange.reused = reused;
        self.exchange.addresses = None;
        self.upstream.connected();
        self.settle(env);
        self.exchange.held = self.deadlines.due(env.now).is_some();
    }

    /// This upstream cannot be reached in time: the next one, or the error (`timeouts.md` T10).
    pub(crate) fn connect_failed(&mut self, error: Error, env: &mut Env<'_>) {
        let failed = self.exchange.upstream;
        self.exchange.tried.extend(failed);
        self.exchange.unreached = Some(error);
        self.actions.upstream = Some(End::Abort);
        self.begin(Stage::Queued, Step::Admit, env);
    }

    /// Whether a pooled connection turned out to be stale and the request may be sent once more
    /// (`timeouts.md` T10, RFC 9110 section 9.2.2).
    fn may_retry(&self) -> bool {
        let (upstream, request) = (&self.upstream, &self.client.request);
        self.exchange.reused
            && !self.exchange.retried
            && !upstream.answered
            && request.idempotent
            && request.framing.is_bodiless()
    }

    // ---- moving bytes ----------------------------------------------------------------------------

    /// Moves everything that can be moved without another event, then brings the deadlines up to date.
    pub(crate) fn settle(&mut self, env: &mut Env<'_>) {
        loop {
            let again = match self.client.state {
                ClientState::First | ClientState::Idle | ClientState::Head => self.settle_head(env),
                ClientState::Exchange => {
                    self.settle_exchange(env);
                    self.client.state != ClientState::Exchange
                }
                ClientState::Linger => {
                    if self.client.linger(env) {
                        self.close_client(End::Close);
                    } else if self.client.inbound.eof {
                        self.finish_client(env.now);
                    }
                    false
                }
                ClientState::Closing | ClientState::Closed => false,
            };
            if !again {
                break;
            }
        }
        self.sync_deadlines(env.now);
    }

    /// Looks for the next request head. True if there is a new state to settle.
    fn settle_head(&mut self, env: &mut Env<'_>) -> bool {
        let (max, peer) = (self.config.max_head, self.peer.as_ref());
        let upgrades = &self.config.upgrades;
        match self.client.receive_head(max, peer, upgrades, &mut self.upstream, env) {
            Ok(true) => {
                self.begin_exchange(env);
                self.exchange.stage = Stage::Routing;
                self.exchange.withheld =
                    self.client.request.expect_continue && !self.client.decoder.is_complete();
                if self.client.request.last_hop {
                    self.answer_last_hop(env);
                    return true;
                }
                self.actions.step = Some(Step::Route);
                false
            }
            Ok(false) => {
                if self.client.inbound.eof {
                    self.finish_client(env.now);
                }
                false
            }
            Err(e) => {
                self.fail(Error::BadRequest(e), env);
                true
            }
        }
    }

    /// There is a request, or what was to become one.
    pub(crate) fn begin_exchange(&mut self, env: &mut Env<'_>) {
        self.upstream.lend(&mut env.bufs.spares.upstreams);
        let exchange = self.exchange.lend(&mut env.bufs.spares.exchanges);
        exchange.started = env.now;
        exchange.phase.1 = env.now;
    }

    /// `Max-Forwards: 0`: we are the one that was asked (RFC 9110 section 7.6.2). We are there, which is
    /// what OPTIONS wants to know; TRACE would show a stranger what others must not see.
    fn answer_last_hop(&mut self, env: &mut Env<'_>) {
        let options = RequestHead::new(self.client.head()).method() == "OPTIONS";
        self.begin_answer(if options { 200 } else { 501 }, &[], b"", env);
    }

    fn settle_exchange(&mut self, env: &mut Env<'_>) {
        if self.exchange.stage.is_forwarding() {
            self.settle_request(env);
        }
        if self.exchange.stage == Stage::Relaying {
            self.settle_response(env);
        }
        match self.exchange.stage {
            Stage::Tunnel => self.settle_tunnel(env),
            Stage::Draining => {
                let complete = self.exchange.error.is_none();
                self.client.outbound.queue(&self.upstream.inbound, complete);
                if self.client.outbound.is_done() {
                    self.finish(env);
                } else if !complete && !self.client.outbound.is_pending() {
                    self.cut(false, env);
                }
            }
            Stage::Answering if !self.client.outbound.is_pending() => self.finish(env),
            _ => {}
        }
    }

    /// Request body: client to upstream.
    fn settle_request(&mut self, env: &mut Env<'_>) {
        let decoded = self.client.inbound.decode(&mut self.client.decoder);
        let complete = self.client.decoder.is_complete();
        match decoded {
            Err(e) => return self.fail(Error::BadRequest(e), env),
            Ok(body) if body > 0 => self.exchange.withheld = false,
            Ok(_) => {}
        }
        self.exchange.body_bytes += decoded.unwrap_or(0);
        if self.config.max_body.is_some_and(|max| self.exchange.body_bytes > max) {
            return self.fail(Error::BadRequest(HttpError::BodyTooLarge), env);
        }
        if self.upstream.write_failed.is_some() {
            self.client.inbound.discard_runs();
        } else {
            self.upstream.outbound.queue(&self.client.inbound, complete);
        }
        if self.client.inbound.eof && !complete {
            self.fail(Error::ClientAbort(None), env);
        }
    }

    /// Response heads and body: upstream to client.
    fn settle_response(&mut self, env: &mut Env<'_>) {
        while self.upstream.response.is_none() {
            let cx = ResponseContext {
                to_head: self.client.request.is_head,
                client: self.client.request.version,
                keep_alive: self.may_keep(),
                upgrade: tunnel::asked(&self.config, &self.client, &self.upstream),
                date: env.date,
            };
            let max = self.config.max_head;
            match self.upstream.receive_head(max, &cx, &mut self.client.outbound, env) {
                Ok(None) => break,
                Ok(Some(info)) if info.interim => {
                    self.exchange.withheld &= info.status != 100;
                }
                Ok(Some(info)) if info.status == 101 => return self.begin_tunnel(),
                Ok(Some(info)) => {
                    self.exchange.status = Some(info.status);
                    self.exchange.keep_alive = info.keep_alive;
                    self.client.outbound.begin_body(info.relayed == Framing::Chunked);
                }
                Err(e) => return self.fail(Error::UpstreamProtocol(e), env),
            }
        }
        if self.upstream.response.is_some() {
            let upstream = &mut *self.upstream;
            if let Err(e) = upstream.inbound.decode(&mut upstream.decoder) {
                return self.cut_off(Error::UpstreamProtocol(e));
            }
            if self.upstream.ended == Some(Ended::Fin) && !self.upstream.decoder.is_complete() {
                self.upstream.decoder.eof();
            }
            if self.upstream.decoder.is_complete() {
                return self.release_upstream();
            }
            self.client.outbound.queue(&self.upstream.inbound, false);
        }
        // While an interim head waits for the client, what follows it is not looked at, and no end can be met: nothing
        // is read then (`UpstreamConn::wants_read`).
        let error = match self.upstream.ended {
            None => return,
            Some(Ended::Fin) => Error::UpstreamClosed,
            Some(Ended::Failed(failure)) => Error::UpstreamReset(failure),
        };
        if self.upstream.response.is_some() {
            self.cut_off(error);
        } else if self.may_retry() {
            self.exchange.retried = true;
            // It keeps its upstream: whoever came later must not be served before it.
            self.actions.upstream = Some(End::Discard);
            self.dial(env);
        } else {
            self.fail(error, env);
        }
    }

    /// The response is complete on our side: the connection is pooled, or closed.
    fn release_upstream(&mut self) {
        let end = match self.exchange.upstream {
            Some(upstream) if self.upstream.is_reusable() => {
                let idle = self.policy(DeadlineKind::PoolIdle).pool_idle;
                End::Release { upstream, settle: self.upstream.settle(), idle }
            }
            _ if self.upstream.request_written() => End::Close,
            // What is left of the request must not trickle in.
            _ => End::Abort,
        };
        self.actions.upstream = Some(end);
        self.exchange.stage = Stage::Draining;
    }

    /// The upstream broke off: what came before is still sent to the client, and nothing after it.
    fn cut_off(&mut self, error: Error) {
        self.actions.upstream = Some(End::Abort);
        self.exchange.error = Some(error);
        self.exchange.stage = Stage::Draining;
    }
}
