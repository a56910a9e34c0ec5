//! A tunnel: after a 101 the bytes of both sides pass as they are, until both have sent FIN or a limit ends it.
//!
//! It is the flow of two bodies that last until close, so back-pressure and memory are those of bodies. What may
//! become a tunnel is decided in `http/`; when its two deadlines run is in `deadlines.rs`.
//!
//! A side's FIN is passed on once everything before it was. The tunnel's end closes a connection to which nothing is
//! left to send, and resets one to which something is (`docs/TIMEOUTS.md`, The deadlines): a peer must not take a
//! part for the whole.

use crate::error::{Error, IoFailure, TimeoutError};
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
            return self.end_tunnel(Some(Error::UpstreamReset(failure)), env);
        }
        let (client, upstream) = (&mut self.client, &mut *self.upstream);
        let client_fin = client.inbound.eof;
        let upstream_fin = upstream.ended.is_some();
        // A tunnel may be idle for an hour: what it does not need is given back.
        client.outbound.release_head(env.bufs);
        let (client_failed, failed) = (self.exchange.client_failed, upstream.write_failed);
        let to_upstream =
            pass(&mut client.inbound, &mut client.decoder, client_fin, &mut upstream.outbound, failed);
        let to_client = pass(
            &mut upstream.inbound,
            &mut upstream.decoder,
            upstream_fin,
            &mut client.outbound,
            client_failed,
        );
        let over = |out: &Outbound, failed: Option<IoFailure>| out.is_done() || failed.is_some();
        if over(&upstream.outbound, failed) && over(&client.outbound, client_failed) {
            let abort = client_failed.map(|failure| Error::ClientAbort(Some(failure)));
            return self.end_tunnel(failed.map(Error::UpstreamReset).or(abort), env);
        }
        self.actions.fin_upstream |= to_upstream;
        self.actions.fin_client |= to_client;
    }

    /// The tunnel is over, in order or not: both connections end at once.
    pub(crate) fn end_tunnel(&mut self, error: Option<Error>, env: &mut Env<'_>) {
        let in_order = match error {
            None => true,
            // It had sent its FIN before it took no more.
            Some(Error::UpstreamReset(_)) => self.upstream.ended == Some(Ended::Fin),
            Some(Error::ClientAbort(_)) => self.exchange.client_failed.is_some() && self.client.inbound.eof,
            Some(Error::Timeout(TimeoutError { kind, .. })) => {
                matches!(kind, DeadlineKind::Tunnel | DeadlineKind::TunnelFin)
            }
            Some(_) => false,
        };
        let end = |out: &Outbound| if in_order && !out.is_pending() { End::Close } else { End::Abort };
        let (client, upstream) = (end(&self.client.outbound), end(&self.upstream.outbound));
        self.exchange.error = error;
        self.actions.fin_upstream = false;
        self.actions.upstream = Some(upstream);
        self.report(env);
        self.close_client(client);
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
fn pass(
    from: &mut Inbound,
    decoder: &mut BodyDecoder,
    fin: bool,
    to: &mut Outbound,
    failed: Option<IoFailure>,
) -> bool {
    // What lasts until close has no framing that could be broken.
    let _ = from.decode(decoder);
    if failed.is_some() {
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
