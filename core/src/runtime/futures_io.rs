//! A wrapper that drives any `futures::io` stream. (Written with the adapters.)

/// A `futures::io` stream as a [`Stream`](super::Stream).
#[derive(Debug)]
pub struct FuturesIo<S> {
    io: S,
}
