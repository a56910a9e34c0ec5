//! Fuzzing of the machine: structured input out of bytes, the machine driven in memory, and a strict reader of all that
//! it emits.
//!
//! A target is a function from bytes to nothing that panics where something is wrong, so that any fuzzer can drive it;
//! `runner` does so on stable Rust. Nothing here opens a socket or shares code with the machine's own parsers.

pub mod choices;
pub mod marks;
pub mod messages;
pub mod rig;
pub mod runner;
pub mod strict;
pub mod targets;
