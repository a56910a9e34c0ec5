//! How an exchange ends: with an error, with an answer of our own, with a cut, or with its last byte.
//!
//! [`Relay::fail`] is what the client and the upstream see when something goes wrong (`docs/TIMEOUTS.md`, A visible
//! cut), and every exchange, however it went, ends in [`Relay::report`]. Which error it is was decided before, in
//! `exchange.rs` and `tunnel.rs`; to which status it leads is the table of `verdict.rs`.
//!
//! ```text
//! anything wrong ──▶ fail ──no head forwarded──▶ answer ──▶ Answering ──▶ finish ──┐
//!                     ├─────head forwarded─────▶ cut ─────────────────────────────┤
//!                     └─────nobody there───────▶ abandon_client ──────────────────┤
//! last byte sent ─────────────────────────────▶ finish ───────────────────────────┴──▶ report ──▶ Idle
//! ```

use core::mem;

use crate::error::{Error, TimeoutError};
use crate::http::{self, Framing, OwnResponse, RequestHead};
use crate::relay::Relay;
use crate::relay::client::ClientState;
use crate::relay::exchange::Stage;
use crate::relay::outcome::{End, Env, Outcome};
use crate::relay::verdict::Verdict;
use crate::timeout::DeadlineKind;

impl Relay {
    /// Something went wrong. The upstream is torn down first (`timeouts.md` T6); then the client gets a
    /// status, or, if a final head was forwarded, sees that the response is cut.
    pub(crate) fn fail(&mut self, error: Error, env: &mut Env<'_>) {
        if self.exchange.stage == Stage::Tunnel {
            return self.fail_tunnel(error, env);
        }
        if self.exchange.stage.is_forwarding() {
            self.actions.upstream = Some(End::Abort);
        }
        self.actions.step = None;
        if self.exchange.stage == Stage::Idle {
            // There is no request, only a broken beginning of one.
            self.begin_exchange(env);
            self.client.state = ClientState::Exchange;
        }
        self.exchange.held = false;
        self.blame(error);
        // A client that takes nothing takes no answer either.
        let slow = is_slow_client(error);
        let answerable = self.exchange.status.is_none() && !slow;
        match Verdict::of(error) {
            Some(verdict) if answerable => {
                // A request that was read to its end leaves the connection usable, unless it was faulty.
                let keep = self.may_keep() && verdict.spares_client();
                let body = verdict.body();
                let response = OwnResponse {
                    status: verdict.status,
                    fields: &[],
                    body: body.as_bytes(),
                    proxy_status: Some((verdict.error, verdict.details)),
                    request_id: None,
                    keep_alive: keep,
                    client: self.client.request.version,
                    to_head: self.client.request.is_head,
                    date: env.date,
                };
                self.answer(&response, env);
            }
            Some(_) => self.cut(slow, env),
            None => self.abandon_client(env),
        }
    }

    /// This is the error, unless there is one: what fails later never replaces what failed first (`timeouts.md` T7).
    pub(crate) fn blame(&mut self, error: Error) {
        match self.exchange.error {
            None => self.exchange.error = Some(error),
            Some(_) => self.exchange.secondary = self.exchange.secondary.or(error.io_failure()),
        }
    }

    /// Answers the request here instead of forwarding it. Its body is not looked at: whether the connection can be kept
    /// must not depend on how much of it came along with the head (`http.md` G1), so with a body it never is.
    pub(crate) fn begin_answer(
        &mut self,
        status: u16,
        fields: &[(&str, &str)],
        body: &[u8],
        env: &mut Env<'_>,
    ) {
        let response = OwnResponse {
            // What is no final status is a mistake of the route's.
            status: if (200..=599).contains(&status) { status } else { 500 },
            fields,
            body,
            proxy_status: None,
            request_id: None,
            keep_alive: self.may_keep(),
            client: self.client.request.version,
            to_head: self.client.request.is_head,
            date: env.date,
        };
        self.answer(&response, env);
    }

    /// Whether the client's connection may serve another request, as far as this one goes.
    pub(crate) fn may_keep(&self) -> bool {
        self.client.request.keep_alive && self.client.decoder.is_complete() && self.draining.is_none()
    }

    /// Sends a response of our own, whole.
    fn answer(&mut self, response: &OwnResponse<'_>, env: &mut Env<'_>) {
        // The request's head stays for whoever observes its end.
        let head = mem::take(&mut self.upstream.outbound.head);
        self.upstream.reset(env);
        self.client.inbound.discard_runs();
        let outbound = &mut self.client.outbound;
        outbound.release_head(env.bufs);
        if outbound.head.capacity() == 0 {
            outbound.head = env.bufs.take_head();
        }
        let request_id = RequestHead::new(&head).request_id();
        http::write_own(&OwnResponse { request_id, ..*response }, &mut outbound.head);
        outbound.begin_body(false);
        self.upstream.outbound.keep_sent(head);
        self.exchange.status = Some(response.status);
        self.exchange.keep_alive = response.keep_alive;
        self.exchange.stage = Stage::Answering;
    }

    /// The forwarded response stays incomplete, and the client can see it (`docs/TIMEOUTS.md`, A visible cut): fewer
    /// bytes than announced or no last chunk, then a staged FIN; RST where only that shows it (T11).
    pub(crate) fn cut(&mut self, slow: bool, env: &mut Env<'_>) {
        let unframed = self.is_unframed();
        self.report(env);
        if unframed || slow {
            self.close_client(End::Abort);
        } else {
            self.linger(env);
        }
    }

    /// Only RST shows the client that the response is not whole. (A response of our own has a length.)
    fn is_unframed(&self) -> bool {
        self.upstream.response.is_some_and(|r| r.relayed == Framing::UntilClose)
    }

    /// There is nobody left to answer; but somebody who has sent FIN may still read.
    fn abandon_client(&mut self, env: &mut Env<'_>) {
        let end = if self.is_unframed() { End::Abort } else { End::Close };
        self.report(env);
        self.close_client(end);
    }

    /// The last byte of the response was sent.
    pub(crate) fn finish(&mut self, env: &mut Env<'_>) {
        let complete = self.client.decoder.is_complete();
        let keep = complete && self.exchange.keep_alive && self.draining.is_none();
        let wished = self.client.request.keep_alive;
        // Where the end of the connection is the end of the body, RST for whatever may still come must not pass for a cut.
        let unframed = self.is_unframed();
        self.report(env);
        if keep {
            self.client.next_request();
        } else if complete && !wished && !unframed && self.client.inbound.unparsed().is_empty() {
            // The client asked for the close and sends no more: nothing can hit our last bytes.
            self.finish_client(env.now);
        } else {
            self.linger(env);
        }
    }

    /// The exchange is over: its outcome stands, and nothing of it is left.
    pub(crate) fn report(&mut self, env: &mut Env<'_>) {
        self.actions.report = true;
        self.clock_phase(env.now);
        let exchange = &self.exchange;
        let outcome = Outcome {
            status: exchange.status,
            error: exchange.error,
            secondary: exchange.secondary,
            upstream: exchange.upstream,
            attempts: exchange.attempts,
            reused: exchange.reused,
            request_bytes: exchange.request_bytes,
            response_bytes: exchange.response_bytes,
            timing: exchange.timing,
            started: exchange.started,
            finished: env.now,
        };
        let reported = self.reported.lend(&mut env.bufs.spares.reports);
        reported.outcome = Some(outcome);
        env.bufs.give_head(mem::replace(&mut reported.head, mem::take(&mut self.upstream.outbound.head)));
        self.exchange.stage = Stage::Idle;
        self.client.inbound.discard_runs();
        self.client.outbound.reset(env.bufs);
        self.upstream.reset(env);
        self.upstream.give_back(&mut env.bufs.spares.upstreams);
        self.exchange.give_back(&mut env.bufs.spares.exchanges);
        // The next exchange may begin before anything else looks at the deadlines.
        self.sync_deadlines(env.now);
    }
}

/// The client did not take what we sent: only RST discards it.
fn is_slow_client(error: Error) -> bool {
    matches!(error, Error::Timeout(TimeoutError { kind: DeadlineKind::ClientWrite, .. }))
}
