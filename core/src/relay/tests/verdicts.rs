//! What the client is told of each error: the table of `docs/TIMEOUTS.md`, What the client is told, row by row.

use super::*;
use crate::relay::verdict::Verdict;
use DeadlineKind as Kind;

fn timeout(kind: DeadlineKind, during: Phase, blocked_on: Side) -> Error {
    let (limit, started, elapsed) = (Duration::from_secs(1), Instant::EPOCH, Duration::from_secs(1));
    Error::Timeout(TimeoutError {
        kind,
        limit,
        started,
        elapsed,
        during,
        blocked_on,
        response_started: false,
    })
}

#[test]
fn each_error_has_its_status_its_token_and_its_details() {
    use Phase::{Connect, Dns, Request, RequestHead, ResponseHead};
    use Side::{Client, Upstream};
    let io = |kind| IoFailure { kind, os_code: None };
    for (error, status, token, details) in [
        (timeout(Kind::Connect, Dns, Upstream), 504, "dns_timeout", "connect"),
        (Error::Resolve(io(IoKind::TimedOut)), 504, "dns_timeout", "resolver"),
        (Error::Resolve(io(IoKind::NotFound)), 502, "dns_error", ""),
        (timeout(Kind::Connect, Connect, Upstream), 504, "connection_timeout", "connect"),
        (Error::Connect(io(IoKind::Refused)), 502, "connection_refused", ""),
        (Error::Connect(io(IoKind::Unreachable)), 502, "destination_ip_unroutable", ""),
        (Error::Connect(io(IoKind::TimedOut)), 504, "connection_timeout", "kernel"),
        (Error::Connect(io(IoKind::Reset)), 502, "connection_terminated", ""),
        (Error::Connect(io(IoKind::Other)), 502, "proxy_internal_error", ""),
        (timeout(Kind::Write, Request, Upstream), 504, "connection_write_timeout", "write"),
        (timeout(Kind::WriteIdle, Request, Upstream), 504, "connection_write_timeout", "write-idle"),
        (timeout(Kind::Write, Request, Client), 408, "http_request_error", "write"),
        (timeout(Kind::WriteIdle, Request, Client), 408, "http_request_error", "write-idle"),
        (timeout(Kind::Read, ResponseHead, Upstream), 504, "connection_read_timeout", "read"),
        (timeout(Kind::Total, ResponseHead, Upstream), 504, "http_response_timeout", "total"),
        (timeout(Kind::Total, Request, Client), 408, "http_response_timeout", "total"),
        (timeout(Kind::Drain, ResponseHead, Upstream), 504, "http_response_timeout", "drain"),
        (timeout(Kind::Drain, Request, Client), 408, "http_response_timeout", "drain"),
        (timeout(Kind::Queue, Phase::Queue, Upstream), 503, "connection_limit_reached", "queue"),
        (timeout(Kind::ClientHead, RequestHead, Client), 408, "http_request_error", "client-head"),
        (timeout(Kind::ClientBody, Request, Client), 408, "http_request_error", "client-body"),
        (Error::UpstreamClosed, 502, "connection_terminated", ""),
        (Error::UpstreamReset(RESET), 502, "connection_terminated", ""),
        (Error::UpstreamProtocol(HttpError::Chunk), 502, "http_protocol_error", "malformed chunked body"),
        (Error::BadRequest(HttpError::HeadTooLarge), 431, "http_request_error", "head too large"),
        (Error::QueueFull, 503, "connection_limit_reached", "queue"),
        (Error::NoUpstream, 503, "destination_unavailable", ""),
    ] {
        let verdict = Verdict::of(error).unwrap();
        assert_eq!((verdict.status, verdict.error, verdict.details), (status, token, details), "{error:?}");
        // The fault is the client's, or it is not.
        assert_eq!(verdict.spares_client(), status >= 500, "{error:?}");
    }
    for error in [Error::ClientAbort(None), Error::Stopped] {
        assert_eq!(Verdict::of(error), None, "nobody is there to be told");
    }
}

#[test]
fn a_person_reads_what_a_program_reads() {
    let body = |error| Verdict::of(error).unwrap().body();
    assert_eq!(
        body(timeout(Kind::Read, Phase::ResponseHead, Side::Upstream)),
        "504 Gateway Timeout: connection_read_timeout (read)\n"
    );
    assert_eq!(body(Error::UpstreamClosed), "502 Bad Gateway: connection_terminated\n");
}
