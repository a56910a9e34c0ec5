//! A string of bytes read as a string of decisions: the same bytes always give the same input. Where the bytes end, every
//! decision is the first one, so that a shorter string is a simpler case.

/// What is left to decide with.
#[derive(Clone, Debug)]
pub struct Choices<'a>(&'a [u8]);

impl<'a> Choices<'a> {
    /// Decisions from `bytes`.
    pub fn new(bytes: &'a [u8]) -> Choices<'a> {
        Choices(bytes)
    }

    /// The next byte, or zero.
    pub fn byte(&mut self) -> u8 {
        let Some((first, rest)) = self.0.split_first() else { return 0 };
        self.0 = rest;
        *first
    }

    /// A number below `n`.
    ///
    /// # Panics
    ///
    /// `n` is zero or more than 65,536.
    pub fn below(&mut self, n: usize) -> usize {
        assert!((1..=1 << 16).contains(&n));
        let low = usize::from(self.byte());
        let number = if n > 256 { low << 8 | usize::from(self.byte()) } else { low };
        number % n
    }

    /// True once in `n` times; never once the bytes have ended.
    pub fn once_in(&mut self, n: usize) -> bool {
        self.below(n) == n - 1
    }

    /// One of `all`.
    pub fn one<'t, T: ?Sized>(&mut self, all: &[&'t T]) -> &'t T {
        all[self.below(all.len())]
    }

    /// Sizes of the pieces in which a stream comes, to be used again and again; at least one.
    pub fn pieces(&mut self) -> Vec<usize> {
        let n = 1 + self.below(6);
        (0..n).map(|_| 1 + self.below(40)).collect()
    }

    /// Everything that is left.
    pub fn rest(&mut self) -> &'a [u8] {
        std::mem::take(&mut self.0)
    }
}
