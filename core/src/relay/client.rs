//! The client's half: finding request heads, their bodies, keep-alive and the lingering close.
//!
//! Of the upstream it knows where the rewritten head goes, and it decides no timeout; the transitions are in `exchange.rs`.

use alloc::string::String;

use crate::http::{self, BodyDecoder, Framing, HeadScan, HttpError, PeerAddr, RequestInfo, Version};
use crate::relay::flow::{Inbound, Outbound};
use crate::relay::lent::Lent;
use crate::relay::outcome::Env;
use crate::relay::upstream::UpstreamConn;

/// Empty lines that are skipped in front of a request line (RFC 9112 section 2.2).
const MAX_BLANK_LINES: usize = 4;

/// Bytes that are read and thrown away while lingering.
const MAX_LINGER: usize = 1024 * 1024;

/// Where the client's connection stands.
///
/// ```text
/// First ──byte──▶ Head ──blank line──▶ Exchange ──kept──▶ Idle ──byte──▶ Head
///   │               │                     │                │
///   └───────────────┴─────▶ Closing ◀── Linger ◀── not kept
///                              └──▶ Closed
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum ClientState {
    /// Accepted; no byte came.
    First,
    /// Between two requests.
    Idle,
    /// Inside a request head.
    Head,
    /// A request is being served.
    Exchange,
    /// FIN was sent; what still comes is thrown away so that the client can read our last bytes.
    Linger,
    /// Nothing is wanted of the client any more, and its stream has still to say that this is the end.
    Closing,
    /// Over.
    Closed,
}

#[derive(Debug)]
pub(crate) struct ClientConn {
    pub(crate) state: ClientState,
    pub(crate) inbound: Inbound,
    pub(crate) outbound: Outbound,
    pub(crate) decoder: BodyDecoder,
    pub(crate) request: RequestInfo,
    pub(crate) head_len: usize,
    scan: HeadScan,
    blank_lines: usize,
    lingered: usize,
}

impl ClientConn {
    pub(crate) fn new() -> ClientConn {
        ClientConn {
            state: ClientState::First,
            inbound: Inbound::NONE,
            outbound: Outbound::NONE,
            decoder: BodyDecoder::new(Framing::None),
            request: NO_REQUEST,
            head_len: 0,
            scan: HeadScan::new(),
            blank_lines: 0,
            lingered: 0,
        }
    }

    /// Whether the next read belongs to a head, which may grow its block.
    pub(crate) fn expects_head(&self) -> bool {
        matches!(self.state, ClientState::First | ClientState::Idle | ClientState::Head)
    }

    /// Looks for a complete head, rewrites it for `upstream` and leaves it behind as
    /// [`ClientConn::head`]. `Ok(false)`: more is needed.
    pub(crate) fn receive_head(
        &mut self,
        max: usize,
        peer: Option<&PeerAddr>,
        upgrades: &[String],
        upstream: &mut Lent<UpstreamConn>,
        env: &mut Env<'_>,
    ) -> Result<bool, HttpError> {
        if self.state != ClientState::Head {
            let blank = http::leading_crlf(self.inbound.unparsed());
            self.inbound.skip(blank);
            self.blank_lines += blank / 2;
            if self.blank_lines > MAX_BLANK_LINES {
                return Err(HttpError::Malformed);
            }
            match self.inbound.unparsed() {
                [] | [b'\r'] => return Ok(false),
                _ => self.state = ClientState::Head,
            }
        }
        let Some(len) = self.scan.advance(self.inbound.unparsed(), max)? else { return Ok(false) };
        let out = &mut upstream.lend(&mut env.bufs.spares.upstreams).outbound;
        out.head = env.bufs.take_head();
        let head = &self.inbound.unparsed()[..len];
        self.request = http::rewrite_request(head, peer, upgrades, env.ids, &mut out.head)?;
        self.inbound.skip(len);
        self.head_len = len;
        self.decoder = BodyDecoder::new(self.request.framing);
        self.state = ClientState::Exchange;
        Ok(true)
    }

    /// The head that was just received. Valid until the next read from the client.
    pub(crate) fn head(&self) -> &[u8] {
        self.inbound.just_parsed(self.head_len)
    }

    /// The request is over and the connection is kept.
    pub(crate) fn next_request(&mut self) {
        self.state = ClientState::Idle;
        self.scan = HeadScan::new();
        self.blank_lines = 0;
        self.decoder = BodyDecoder::new(Framing::None);
        self.request = NO_REQUEST;
    }

    /// Throws away what came while lingering. Says whether the client has sent too much.
    pub(crate) fn linger(&mut self, env: &mut Env<'_>) -> bool {
        self.lingered += self.inbound.unparsed().len();
        self.inbound.discard(env.bufs);
        self.lingered >= MAX_LINGER
    }
}

/// What stands in place of a request while there is none: one whose sender has not asked for a close.
const NO_REQUEST: RequestInfo = RequestInfo {
    version: Version::Http11,
    framing: Framing::None,
    keep_alive: true,
    expect_continue: false,
    is_head: false,
    idempotent: false,
    last_hop: false,
    upgrade: None,
};
