//! Request ids: which of the client's are kept, and what stands in their place otherwise.
//!
//! Two fields name a request to whoever serves it: `traceparent` (W3C Trace Context, version 00) and
//! `x-request-id`. What a client sends is kept only if it is sound, since it ends in other people's logs. Ids are
//! unique and nothing more: they must not serve as secrets. No randomness is had here: it comes in as a seed.

use alloc::vec::Vec;

use super::fields::{Survey, put_field};

/// The fields' names.
pub(super) const REQUEST_ID: &str = "x-request-id";
pub(super) const TRACEPARENT: &str = "traceparent";

/// The longest `x-request-id` that is kept.
const MAX_REQUEST_ID: usize = 128;

/// The flags of a new trace: none. "Sampled" would say that we may have recorded it, and we record no traces; a component
/// that leaves the decision to others should start with zero (Trace Context section 3.2.2.5.1).
const NEW_FLAGS: u8 = 0;

/// The flags that mean something: sampled, and random (of Trace Context level 2). The others must go out as zero.
const KNOWN_FLAGS: u8 = 3;

const HEX: &[u8; 16] = b"0123456789abcdef";

/// Where new ids come from: the generator xoroshiro128++. The same seed gives the same ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdSource([u64; 2]);

impl IdSource {
    /// The ids that follow from `seed`, which should be random and nobody else's.
    pub fn new(seed: u128) -> IdSource {
        // Zero is the one state that it cannot leave.
        let seed = if seed == 0 { u128::MAX } else { seed };
        IdSource([(seed >> 64) as u64, seed as u64])
    }

    /// Never zero: an id of zeros is none.
    pub(super) fn next_u64(&mut self) -> u64 {
        loop {
            let [a, mut b] = self.0;
            let result = a.wrapping_add(b).rotate_left(17).wrapping_add(a);
            b ^= a;
            self.0 = [a.rotate_left(49) ^ b ^ (b << 21), b.rotate_left(28)];
            if result != 0 {
                return result;
            }
        }
    }
}

/// Writes `x-request-id` and `traceparent`, and keeps `tracestate` back where it belongs to no trace that goes on.
pub(super) fn put_ids(survey: &mut Survey<'_>, source: &mut IdSource, out: &mut Vec<u8>) {
    let known = survey.traceparent.value.and_then(parse_traceparent);
    if known.is_none() {
        survey.remove(survey.tracestate);
    }
    let mut made = [0; 32];
    let (trace_id, flags) = known.unwrap_or_else(|| {
        made[..16].copy_from_slice(&hex(source.next_u64()));
        made[16..].copy_from_slice(&hex(source.next_u64()));
        (&made, NEW_FLAGS)
    });
    let request_id = survey.request_id.value.filter(|id| is_request_id(id));
    put_field(REQUEST_ID, request_id.unwrap_or(trace_id), out);
    let mut parent = *b"00-00000000000000000000000000000000-0000000000000000-00";
    parent[3..35].copy_from_slice(trace_id);
    // The upstream's parent is our part of the way, not the client's.
    parent[36..52].copy_from_slice(&hex(source.next_u64()));
    parent[54] = HEX[usize::from(flags & KNOWN_FLAGS)];
    put_field(TRACEPARENT, &parent, out);
}

/// The trace-id and the flags of a valid `traceparent` of version 00 (Trace Context section 3.2).
pub(super) fn parse_traceparent(value: &[u8]) -> Option<(&[u8; 32], u8)> {
    let value: &[u8; 55] = value.try_into().ok()?;
    let (trace_id, parent_id, flags) = (&value[3..35], &value[36..52], &value[53..]);
    let is_hex = |text: &[u8]| text.iter().all(|b| HEX.contains(b));
    let is_id = |text: &[u8]| is_hex(text) && text.iter().any(|b| *b != b'0');
    if !value.starts_with(b"00-") || value[35] != b'-' || value[52] != b'-' {
        return None;
    }
    if !is_id(trace_id) || !is_id(parent_id) || !is_hex(flags) {
        return None;
    }
    // The flags that are known lie in the last digit.
    let last = HEX.iter().position(|b| *b == flags[1])?;
    Some((trace_id.try_into().ok()?, last as u8))
}

/// Visible ASCII, but for what quotes, ends or starts something where ids are shown: logs, lists, pages.
pub(super) fn is_request_id(value: &[u8]) -> bool {
    let safe = |b: &u8| b.is_ascii_graphic() && !br#""'`\<>,;"#.contains(b);
    (1..=MAX_REQUEST_ID).contains(&value.len()) && value.iter().all(safe)
}

fn hex(n: u64) -> [u8; 16] {
    let mut text = [0; 16];
    for (i, digit) in text.iter_mut().enumerate() {
        *digit = HEX[(n >> (60 - 4 * i)) as usize & 15];
    }
    text
}
