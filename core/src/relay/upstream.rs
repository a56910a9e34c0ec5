//! The upstream's half: writing the request, reading response heads and bodies, and whether the
//! connection may be used again.
//!
//! It decides no timeout and no retry; the transitions are in `exchange.rs`.

use core::time::Duration;

use crate::error::{IoFailure, IoKind};
use crate::http::{self, BodyDecoder, Framing, HeadScan, HttpError, ResponseContext, ResponseInfo};
use crate::relay::flow::{Inbound, Outbound};
use crate::relay::lent::Rest;
use crate::relay::outcome::Env;

/// Interim responses that are relayed for one request.
const MAX_INTERIM: usize = 100;

/// How long a body that must not follow is waited for: it is on its way, if it comes.
const SETTLE: Duration = Duration::from_millis(50);

/// How the upstream stopped sending.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Ended {
    Fin,
    Failed(IoFailure),
}

#[derive(Debug)]
pub(crate) struct UpstreamConn {
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    pub(crate) decoder: BodyDecoder,
    /// A byte of an answer came on this connection.
    pub(crate) answered: bool,
    /// The final response head was rewritten for the client.
    pub(crate) response: Option<ResponseInfo>,
    pub(crate) ended: Option<Ended>,
    /// Writing failed; the answer may still come (RFC 9112 section 9.5).
    pub(crate) write_failed: Option<IoFailure>,
    scan: HeadScan,
    interim: usize,
    /// An interim response says that the connection ends, or announces a body: one may follow, at any time.
    doubtful: bool,
}

impl Rest for UpstreamConn {
    const REST: UpstreamConn = UpstreamConn {
        inbound: Inbound::NONE,
        outbound: Outbound::NONE,
        decoder: BodyDecoder::new(Framing::None),
        answered: false,
        response: None,
        ended: None,
        write_failed: None,
        scan: HeadScan::new(),
        interim: 0,
        doubtful: false,
    };

    fn at_rest() -> &'static UpstreamConn {
        static REST: UpstreamConn = UpstreamConn::REST;
        &REST
    }
}

impl UpstreamConn {
    /// A connection is there; the request is still to be written, from its first byte.
    pub(crate) fn connected(&mut self) {
        self.outbound.rewind();
        self.answered = false;
        self.ended = None;
        self.write_failed = None;
    }

    /// The end of what the upstream sends. A socket reports its failure once, a reset or that nobody has answered for
    /// too long: if a write has had it, reading ends as if by FIN, and that must not pass for the end of a body.
    pub(crate) fn fin(&mut self) {
        self.ended = Some(match self.write_failed {
            Some(failure) if failure.kind != IoKind::BrokenPipe => Ended::Failed(failure),
            // The upstream's own FIN came before the failure.
            _ => Ended::Fin,
        });
    }

    /// The last byte of the request was taken by the kernel.
    pub(crate) fn request_written(&self) -> bool {
        self.outbound.is_done()
    }

    /// Whether more bytes of the response are wanted and have a place; not asked once it is complete. None are while an interim head
    /// waits in `out` for the client: what follows it cannot be looked at, and so not be bounded.
    pub(crate) fn wants_read(&self, out: &Outbound) -> bool {
        (self.outbound.head_sent() || self.write_failed.is_some())
            && self.ended.is_none()
            && (self.response.is_some() || out.head_sent())
            && self.inbound.has_room(self.response.is_none())
    }

    /// Looks for a complete response head and rewrites it into `out`. `Ok(None)`: more is needed, or an
    /// earlier interim head must reach the client first.
    pub(crate) fn receive_head(
        &mut self,
        max: usize,
        cx: &ResponseContext<'_>,
        out: &mut Outbound,
        env: &mut Env<'_>,
    ) -> Result<Option<ResponseInfo>, HttpError> {
        if self.inbound.unparsed().is_empty() || !out.head_sent() {
            return Ok(None);
        }
        let found = self.scan.advance(self.inbound.unparsed(), max).map_err(|e| match e {
            // A status line has no target.
            HttpError::TargetTooLong => HttpError::HeadTooLarge,
            e => e,
        });
        let Some(len) = found? else { return Ok(None) };
        out.release_head(env.bufs);
        out.head = env.bufs.take_head();
        let info = http::rewrite_response(&self.inbound.unparsed()[..len], cx, &mut out.head)?;
        self.inbound.skip(len);
        self.scan = HeadScan::new();
        if info.interim {
            self.interim += 1;
            self.doubtful |= !info.reusable;
            if self.interim > MAX_INTERIM {
                out.head.clear();
                return Err(HttpError::TooManyInterim);
            }
        } else {
            self.decoder = BodyDecoder::new(info.framing);
            self.response = Some(info);
        }
        Ok(Some(info))
    }

    /// Nothing is left of the response but what waits for the client, and the connection may serve
    /// another request (`http.md` C4).
    pub(crate) fn is_reusable(&self) -> bool {
        self.response.is_some_and(|r| r.reusable)
            && self.request_written()
            && !self.doubtful
            && self.write_failed.is_none()
            && self.ended.is_none()
            && self.inbound.unparsed().is_empty()
    }

    /// How long the connection is kept from the next request, as whose answer it would pass for: what must not follow a
    /// response to HEAD follows it from many a server, and not always in the same packet (`http.md` R4).
    pub(crate) fn settle(&self) -> Duration {
        if self.response.is_some_and(|r| r.suspect) { SETTLE } else { Duration::ZERO }
    }

    /// Forgets everything about the last request.
    pub(crate) fn reset(&mut self, env: &mut Env<'_>) {
        self.inbound.discard(env.bufs);
        self.outbound.reset(env.bufs);
        *self = UpstreamConn::REST;
    }
}
