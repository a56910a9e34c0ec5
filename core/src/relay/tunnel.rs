//! A tunnel: after a 101 the bytes of both sides pass as they are, until both have sent FIN or a limit ends it.
//!
//! It is the flow of two bodies that last until close, so back-pressure and memory are those of bodies. What may
//! become a tunnel is decided in `http/`; when its two deadlines run is in `deadlines.rs`.
//!
//! A side's FIN is passed on once everything before it was. The tunnel's end closes a connection to which nothing is
//! left to send, and resets one to which something is (`docs/TIMEOUTS.md`, The deadlines): a peer must not take a
//! part for the whole.

use crate::error::{Error, IoFailure, Side};
use crate::http::{BodyDecoder, Framing};
use crate::relay::client::ClientConn;
use crate::relay::exchange::Stage;
use crate::relay::flow::{Inbound, Outbound};
use crate::relay::outcome::{End, Env};
use crate::relay::upstream::{Ended, UpstreamConn};
use crate::relay::{Config, Relay};
use crate::timeout::DeadlineKind;

impl Relay {
    /// The 101 lies ready for the client. What it has sent after its request is for the upstream now.
    pub(crate) fn begin_tunnel(&mut self) {
        self.exchange.stage = Stage::Tunnel;
        self.exchange.status = Some(101);
        self.client.decoder = BodyDecoder::new(Framing::UntilClose);
        self.upstream.outbound.begin_body(false);
    }

    /// Moves what came on either side to the other, and the FIN behind it.
    pub(crate) fn settle_tunnel(&mut self, env: &mut Env<'_>) {
        if let Some(Ended::Failed(failure)) = self.upstream.ended {
            self.blame(Error::UpstreamReset(failure));
            return self.end_tunnel(false, env);
        }
        let (client, upstream) = (&mut self.client, &mut *self.upstream);
        let client_fin = client.inbound.eof;
        let upstream_fin = upstream.ended.is_some();
        // A tunnel may be idle for an hour: what it does not need is given back.
        client.outbound.release_head(env.bufs);
        let (client_failed, failed) = (self.exchange.client_failed, upstream.write_failed.is_some());
        let to_upstream =
            pass(&mut client.inbound, &mut client.decoder, client_fin, &mut upstream.outbound, failed);
        let to_client = pass(
            &mut upstream.inbound,
            &mut upstream.decoder,
            upstream_fin,
            &mut client.outbound,
            client_failed,
        );
        if (failed || upstream.outbound.is_done()) && (client_failed || client.outbound.is_done()) {
            // An upstream that takes no more had sent its FIN before, or else it has broken off.
            let in_order = !failed || upstream.ended == Some(Ended::Fin);
            return self.end_tunnel(in_order, env);
        }
        self.actions.fin_upstream |= to_upstream;
        self.actions.fin_client |= to_client;
    }

    /// One side takes no more, and what it said before is still for the other: that it failed is told at the tunnel's end.
    pub(crate) fn stop_writing(&mut self, side: Side, failure: IoFailure) {
        match side {
            Side::Client => {
                self.exchange.client_failed = true;
                self.client.outbound.cut();
                self.blame(Error::ClientAbort(Some(failure)));
            }
            Side::Upstream => {
                self.upstream.write_failed = Some(failure);
                self.upstream.outbound.cut();
                self.blame(Error::UpstreamReset(failure));
            }
        }
    }

    /// Something ends the tunnel: its own limits in order, all else as it is.
    pub(crate) fn fail_tunnel(&mut self, error: Error, env: &mut Env<'_>) {
        use DeadlineKind::{Tunnel, TunnelFin};
        // A side that took no more did not end it: a limit did, or whoever stopped it.
        if matches!(error, Error::Timeout(_) | Error::Stopped)
            && let Some(before) = self.exchange.error.replace(error)
        {
            self.exchange.secondary = before.io_failure();
        } else {
            self.blame(error);
        }
        let in_order = matches!(error, Error::Timeout(t) if matches!(t.kind, Tunnel | TunnelFin));
        self.end_tunnel(in_order, env);
    }

    /// The tunnel is over, in order or not: both connections end at once.
    fn end_tunnel(&mut self, in_order: bool, env: &mut Env<'_>) {
        let end = |out: &Outbound| if in_order && !out.is_pending() { End::Close } else { End::Abort };
        let (client, upstream) = (end(&self.client.outbound), end(&self.upstream.outbound));
        self.actions.fin_upstream = false;
        self.actions.upstream = Some(upstream);
        self.report(env);
        match client {
            End::Close => self.finish_client(env.now),
            _ => self.close_client(client),
        }
    }

    /// A side took bytes: that resets `kind`, and in a tunnel both of its deadlines.
    pub(crate) fn forwarded(&mut self, kind: DeadlineKind) {
        if self.exchange.stage == Stage::Tunnel {
            self.progress(DeadlineKind::Tunnel);
            self.progress(DeadlineKind::TunnelFin);
        }
        self.progress(kind);
    }
}

/// Queues what came `from` one side for the other, or throws it away if that one takes no more. Says whether its FIN is to
/// be sent now: once.
fn pass(from: &mut Inbound, decoder: &mut BodyDecoder, fin: bool, to: &mut Outbound, failed: bool) -> bool {
    // What lasts until close has no framing that could be broken.
    let _ = from.decode(decoder);
    if failed {
        from.discard_runs();
        return false;
    }
    to.queue(from, fin && decoder.eof());
    to.take_end()
}

/// The protocol that a 101 may switch to now: the one that was asked for, once the upstream has the whole request
/// (`http.md` U1).
pub(super) fn asked<'c>(config: &'c Config, client: &ClientConn, upstream: &UpstreamConn) -> Option<&'c str> {
    let protocol = config.upgrades.get(usize::from(client.request.upgrade?))?;
    upstream.request_written().then_some(protocol)
}
