//! Runs a target over many inputs, each of which follows from a number, and makes what fails smaller.
//!
//! Without instrumentation, so that it works on stable Rust: the generators' structure is what leads it into the depth.

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::Instant;

use crate::marks;
use crate::targets::Target;

/// The input of a case: the same for the same numbers, on every machine.
pub fn input(seed: u64, case: u64) -> Vec<u8> {
    // Each case has a stream of its own: where the streams began one step apart, each input was the one before it but
    // for its first byte.
    let mut state = mix(mix(seed).wrapping_add(case));
    let mut next = move || {
        state = state.wrapping_add(STEP);
        mix(state)
    };
    let len = (next() % 600) as usize;
    // Small numbers are what most decisions take.
    (0..len).map(|_| next()).map(|n| if n >> 62 == 0 { (n % 8) as u8 } else { n as u8 }).collect()
}

const STEP: u64 = 0x9e37_79b9_7f4a_7c15;

/// The finaliser of splitmix64.
fn mix(mut z: u64) -> u64 {
    z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ z >> 31
}

/// Runs cases of `target` from `seed` on until `until`, at most `most`; says how many. The input that fails is made
/// smaller and returned with what was said of it.
pub fn run(target: Target, seed: u64, most: u64, until: Instant) -> Result<u64, (Vec<u8>, String)> {
    for case in 0..most {
        if case % 64 == 0 && Instant::now() >= until {
            return Ok(case);
        }
        let bytes = input(seed, case);
        if let Some(mut why) = fails(target, &bytes) {
            let mut smallest = bytes;
            while let Some((bytes, said)) = smaller(target, &smallest) {
                (smallest, why) = (bytes, said);
            }
            return Err((smallest, why));
        }
    }
    Ok(most)
}

/// For each kind of end (`marks`) the shortest of the first `cases` inputs of `seed` that come to it.
pub fn kinds(target: Target, seed: u64, cases: u64) -> BTreeMap<String, Vec<u8>> {
    let mut kinds: BTreeMap<String, Vec<u8>> = BTreeMap::new();
    for case in 0..cases {
        let bytes = input(seed, case);
        for mark in marks::of(target, &bytes) {
            let shortest = kinds.entry(mark).or_insert_with(|| bytes.clone());
            if bytes.len() < shortest.len() {
                shortest.clone_from(&bytes);
            }
        }
    }
    kinds
}

/// What the target panicked with.
pub fn fails(target: Target, bytes: &[u8]) -> Option<String> {
    let panic = catch_unwind(AssertUnwindSafe(|| target.1(bytes))).err()?;
    let text = panic.downcast_ref::<String>().cloned();
    Some(text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned())).unwrap_or_default())
}

/// A shorter input, or one of smaller numbers, that fails, too.
fn smaller(target: Target, bytes: &[u8]) -> Option<(Vec<u8>, String)> {
    let mut size = bytes.len().div_ceil(2);
    while size > 0 {
        for from in (0..bytes.len()).step_by(size) {
            let to = (from + size).min(bytes.len());
            let without = [&bytes[..from], &bytes[to..]].concat();
            if let Some(why) = fails(target, &without) {
                return Some((without, why));
            }
        }
        size /= 2;
    }
    for at in 0..bytes.len() {
        let mut lower = bytes.to_vec();
        lower[at] /= 2;
        if lower[at] == bytes[at] {
            continue;
        }
        if let Some(why) = fails(target, &lower) {
            return Some((lower, why));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::input;

    #[test]
    fn no_input_is_a_piece_of_one_before() {
        let inputs: Vec<_> = (1..3).flat_map(|seed| (0..200).map(move |case| input(seed, case))).collect();
        for (i, one) in inputs.iter().enumerate() {
            let Some(piece) = one.get(4..20) else { continue };
            let same = inputs.iter().enumerate().filter(|(other, _)| *other != i);
            assert!(same.into_iter().all(|(_, other)| !other.windows(16).any(|w| w == piece)), "input {i}");
        }
    }
}
