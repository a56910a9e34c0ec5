//! The suite on every runtime that there is an adapter for, in one program, which runs them side by side. Each is a test
//! target besides, for those who want one alone: `cargo test -p tidegate-conformance --test smol`.

#[path = "../async_std.rs"]
mod async_std;
#[path = "../futures.rs"]
mod futures;
#[path = "../smol.rs"]
mod smol;
#[path = "../tokio.rs"]
mod tokio;
#[path = "../walkthrough/main.rs"]
mod walkthrough;
