//! What the client is told: the table of `docs/TIMEOUTS.md` from an error to a status and to
//! `Proxy-Status` (RFC 9209). Nothing here acts.

use alloc::format;
use alloc::string::String;

use crate::error::{Error, IoKind, Phase, Side};
use crate::http;
use crate::timeout::DeadlineKind;

/// The answer to an error, as long as no final response head was forwarded.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) struct Verdict {
    pub(crate) status: u16,
    /// The `error` parameter of `Proxy-Status`.
    pub(crate) error: &'static str,
    /// Its `details`: the deadline's name, or what is wrong with the message.
    pub(crate) details: &'static str,
}

impl Verdict {
    /// `None` if there is nobody to answer.
    pub(crate) fn of(error: Error) -> Option<Verdict> {
        let (status, token, details) = match error {
            Error::Timeout(t) => {
                let client = t.blocked_on == Side::Client;
                let (status, token) = match t.kind {
                    DeadlineKind::Connect if t.during == Phase::Dns => (504, "dns_timeout"),
                    DeadlineKind::Connect => (504, "connection_timeout"),
                    DeadlineKind::Write | DeadlineKind::WriteIdle if client => (408, "http_request_error"),
                    DeadlineKind::Write | DeadlineKind::WriteIdle => (504, "connection_write_timeout"),
                    DeadlineKind::Read => (504, "connection_read_timeout"),
                    DeadlineKind::Queue => (503, "connection_limit_reached"),
                    DeadlineKind::ClientHead | DeadlineKind::ClientBody => (408, "http_request_error"),
                    _ if client => (408, "http_response_timeout"),
                    _ => (504, "http_response_timeout"),
                };
                (status, token, t.kind.name())
            }
            Error::Resolve(f) => match f.kind {
                IoKind::TimedOut => (504, "dns_timeout", "resolver"),
                _ => (502, "dns_error", ""),
            },
            Error::Connect(f) => match f.kind {
                IoKind::Refused => (502, "connection_refused", ""),
                IoKind::Unreachable => (502, "destination_ip_unroutable", ""),
                IoKind::TimedOut => (504, "connection_timeout", "kernel"),
                IoKind::Reset | IoKind::BrokenPipe => (502, "connection_terminated", ""),
                IoKind::NotFound | IoKind::Other => (502, "proxy_internal_error", ""),
            },
            Error::UpstreamClosed | Error::UpstreamReset(_) => (502, "connection_terminated", ""),
            Error::UpstreamProtocol(e) => (502, "http_protocol_error", e.reason()),
            Error::BadRequest(e) => (e.status(), "http_request_error", e.reason()),
            Error::QueueFull => (503, "connection_limit_reached", "queue"),
            Error::NoUpstream => (503, "destination_unavailable", ""),
            Error::ClientAbort(_) | Error::Stopped => return None,
        };
        Some(Verdict { status, error: token, details })
    }

    /// Whether the client's connection may serve another request: the fault was not the client's.
    pub(crate) fn spares_client(&self) -> bool {
        self.status >= 500 && self.error != "http_request_error"
    }

    /// A line for a person.
    pub(crate) fn body(&self) -> String {
        let reason = http::reason(self.status);
        if self.details.is_empty() {
            format!("{} {reason}: {}\n", self.status, self.error)
        } else {
            format!("{} {reason}: {} ({})\n", self.status, self.error, self.details)
        }
    }
}
