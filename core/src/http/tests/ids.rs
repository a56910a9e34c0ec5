//! Request ids: which of the client's are kept, and that there are some on every request.

use super::*;
use alloc::format;

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const PARENT: &str = "00f067aa0ba902b7";

/// A request with these fields, as it goes upstream.
fn sent(fields: &str) -> String {
    request(format!("GET / HTTP/1.1\r\nHost: h\r\n{fields}\r\n")).unwrap().1
}

/// The one value of a field.
fn one<'a>(head: &'a str, name: &str) -> &'a str {
    let all = values(head, name);
    assert_eq!(all.len(), 1, "{name}: {head}");
    all[0]
}

/// The parts of the `traceparent` that was written.
fn parts(head: &str) -> [&str; 4] {
    let parts: Vec<&str> = one(head, "traceparent").split('-').collect();
    parts.try_into().unwrap()
}

#[test]
fn h9_a_request_without_ids_gets_new_ones() {
    let head = sent("");
    let [version, trace, parent, flags] = parts(&head);
    assert_eq!((version, flags), ("00", "00"), "we record nothing, and say so");
    assert_eq!((trace.len(), parent.len()), (32, 16));
    assert!(trace.bytes().chain(parent.bytes()).all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f')));
    assert_eq!(one(&head, "x-request-id"), trace);
    assert!(head.starts_with(&format!("GET / HTTP/1.1\r\nhost: h\r\n{NEW_IDS}")));
}

#[test]
fn h9_a_valid_trace_goes_on_with_us_as_a_part_of_it() {
    for (given, flags) in [("00", "00"), ("01", "01"), ("02", "02"), ("03", "03"), ("ff", "03"), ("f4", "00")]
    {
        let head = sent(&format!(
            "TraceParent: 00-{TRACE}-{PARENT}-{given}\r\nTracestate: a=1\r\nX: y\r\ntracestate: b=2\r\n"
        ));
        let [version, trace, parent, sent_flags] = parts(&head);
        assert_eq!((version, trace, sent_flags), ("00", TRACE, flags), "{given}");
        assert!(parent.len() == 16 && parent != PARENT, "{parent}");
        assert_eq!(values(&head, "tracestate"), ["a=1", "b=2"]);
        assert_eq!(one(&head, "x-request-id"), TRACE);
    }
}

#[test]
fn h9_an_invalid_trace_is_replaced_and_its_state_dropped() {
    let valid = format!("00-{TRACE}-{PARENT}-01");
    for value in [
        "",
        "x",
        TRACE,
        &format!("01-{TRACE}-{PARENT}-01"),
        &format!("ff-{TRACE}-{PARENT}-01"),
        &format!("0-{TRACE}-{PARENT}-01"),
        &format!("{valid}-"),
        &format!("{valid}-00"),
        &valid[..54],
        &valid[..52],
        &format!("00-{}-{PARENT}-01", "0".repeat(32)),
        &format!("00-{TRACE}-{}-01", "0".repeat(16)),
        &format!("00-{}-{PARENT}-01", TRACE.to_uppercase()),
        &format!("00-{TRACE}-{}-01", PARENT.to_uppercase()),
        &format!("00-{TRACE}-{PARENT}-0A"),
        &format!("00-{TRACE}-{PARENT}-0g"),
        &format!("00-{}g-{PARENT}-01", &TRACE[1..]),
        &format!("00-{TRACE}-{} -01", &PARENT[1..]),
        &format!("00_{TRACE}-{PARENT}-01"),
        &format!("00-{TRACE}_{PARENT}-01"),
        &format!("00-{TRACE}-{PARENT}_01"),
        &format!("00-{TRACE}{PARENT}---01"),
        &format!("{valid}, {valid}"),
        // Twice, and as what Connection keeps for us.
        &format!("{valid}\r\nTRACEPARENT: {valid}"),
        &format!("{valid}\r\nConnection: traceparent"),
        &format!("{valid}\r\nConnection: x, TraceParent"),
    ] {
        let head = sent(&format!("Tracestate: a=1\r\nTraceparent: {value}\r\nTracestate: b=2\r\n"));
        let [version, trace, _, flags] = parts(&head);
        assert_eq!((version, flags), ("00", "00"), "{value}");
        assert!(trace != TRACE && trace.len() == 32, "{value}: {trace}");
        assert_eq!(values(&head, "tracestate").len(), 0, "{value}");
        assert_eq!(one(&head, "x-request-id"), trace, "{value}");
    }
    let alone = sent("Tracestate: a=1\r\n");
    assert_eq!(values(&alone, "tracestate").len(), 0);
    let valid = sent(&format!("Traceparent:\t {valid} \r\nTracestate: a=1\r\nConnection: tracestate\r\n"));
    assert_eq!((parts(&valid)[1], values(&valid, "tracestate").len()), (TRACE, 0));
}

#[test]
fn h9_a_sound_request_id_is_kept_and_any_other_replaced() {
    let longest = "x".repeat(128);
    for id in ["1", "a-B_c.9~", "|4bf92f.1.", "f9ed4675-f0b9:1/2+3=", "{x}", "!#$%&()*?@[]^", &longest] {
        let head = sent(&format!("X-REQUEST-ID: \t{id} \r\n"));
        assert_eq!(one(&head, "x-request-id"), id);
        assert_ne!(parts(&head)[1], id);
    }
    let too_long = "x".repeat(129);
    for id in [
        "",
        &too_long,
        "a b",
        "a\tb",
        "a\"b",
        "a'b",
        "a`b",
        "a\\b",
        "<a>",
        "a,b",
        "a;b",
        "\u{e9}",
        "a\r\nX-Request-Id: a",
        "a\r\nX-Request-Id:",
        "a\r\nConnection: x-request-id",
    ] {
        let head = sent(&format!("X-Request-Id: {id}\r\n"));
        assert_eq!(one(&head, "x-request-id"), parts(&head)[1], "{id:?}");
    }
    // Each for itself: a kept trace names a request that brought no id.
    let head = sent(&format!("X-Request-Id: mine\r\nTraceparent: 00-{TRACE}-{PARENT}-00\r\n"));
    assert_eq!((one(&head, "x-request-id"), parts(&head)[1]), ("mine", TRACE));
}

#[test]
fn h9_the_ids_of_a_response_are_the_upstreams_affair() {
    reaches_the_client("X-Request-Id: a\r\nX-Request-Id: b\r\nTraceparent: x\r\nTracestate: y\r\n");
}

#[test]
fn h9_no_two_requests_have_the_same_ids() {
    let each = or_under_miri(1000, 20);
    let mut seen = alloc::collections::BTreeSet::new();
    for seed in [0, 1, 2, u128::MAX, 1 << 64] {
        let mut ids = IdSource::new(seed);
        for _ in 0..each {
            let mut out = Vec::new();
            rewrite_request(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n", None, &[], &mut ids, &mut out).unwrap();
            let head = RequestHead::new(&out);
            let trace = head.trace_id().unwrap();
            assert_eq!(head.request_id(), Some(trace));
            // Zero and the largest seed are one and the same.
            assert!(seen.insert(String::from(trace)) || seed == u128::MAX, "{seed}: {trace}");
        }
    }
    assert_eq!(seen.len(), 4 * each);
}

/// The numbers are those of the reference implementation, for the state (1, 2).
#[test]
fn the_generator_is_xoroshiro128_plus_plus() {
    let mut ids = IdSource::new((1 << 64) | 2);
    let expected = [393_217, 669_327_710_093_319, 1_732_421_326_133_921_491, 11_394_790_081_659_126_983];
    assert_eq!([(); 4].map(|()| ids.next_u64()), expected);
}
