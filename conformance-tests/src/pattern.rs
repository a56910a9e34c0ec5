//! The body pattern: byte `k` of every scripted body is a fixed function of `k`, so that a receiver can
//! verify any prefix of any length without keeping it, and a gap, a repeat or a swap shows.

use std::sync::OnceLock;

/// A prime, so that no power-of-two buffer size divides the period.
const PERIOD: usize = 65_521;

fn table() -> &'static [u8] {
    static TABLE: OnceLock<Vec<u8>> = OnceLock::new();
    TABLE.get_or_init(|| {
        let mut state = 0x2545_f491_u32;
        let mut next = move || {
            state ^= state << 13;
            state ^= state >> 17;
            state ^= state << 5;
            b'a' + (state % 26) as u8
        };
        (0..PERIOD).map(|_| next()).collect()
    })
}

/// The longest run of pattern bytes from `offset` on that lies in one piece; never empty.
pub(crate) fn run(offset: u64) -> &'static [u8] {
    &table()[(offset % PERIOD as u64) as usize..]
}

/// Whether `bytes` are the pattern from `offset` on.
pub(crate) fn matches(mut offset: u64, mut bytes: &[u8]) -> bool {
    while !bytes.is_empty() {
        let run = run(offset);
        let n = run.len().min(bytes.len());
        if run[..n] != bytes[..n] {
            return false;
        }
        bytes = &bytes[n..];
        offset += n as u64;
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shifted_pattern_does_not_match() {
        let bytes: Vec<u8> = run(0)[..1000].to_vec();
        assert!(matches(0, &bytes));
        assert!(!matches(1, &bytes));
        assert!(matches(PERIOD as u64, &bytes));
        assert!(matches(0, &[run(0), &run(0)[..10]].concat()));
    }
}
