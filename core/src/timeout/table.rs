//! The deadline table: one optional instant a kind, and the earliest of them.
//!
//! It stores; it knows neither policy nor state. (The shape is quinn-proto's timer table.)

use crate::time::Instant;
use crate::timeout::DeadlineKind;

/// An armed deadline.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Deadline {
    /// When it is due: at `now >= at`.
    pub at: Instant,
    /// Which one it is.
    pub kind: DeadlineKind,
}

/// A set of kinds.
#[derive(Copy, Clone, Debug, PartialEq, Eq, Default)]
pub struct Kinds(u16);

impl Kinds {
    /// The set without any.
    pub const NONE: Kinds = Kinds(0);

    /// This set, and `kind` if `member`.
    #[must_use]
    pub const fn with(self, kind: DeadlineKind, member: bool) -> Kinds {
        Kinds(self.0 | ((member as u16) << kind as u16))
    }

    /// What is in this set and not in `other`.
    #[must_use]
    pub const fn without(self, other: Kinds) -> Kinds {
        Kinds(self.0 & !other.0)
    }

    /// Whether `kind` is in it.
    pub const fn contains(self, kind: DeadlineKind) -> bool {
        self.0 & (1 << kind as u16) != 0
    }
}

impl Iterator for Kinds {
    type Item = DeadlineKind;

    /// Takes out the kind with the smallest rank.
    fn next(&mut self) -> Option<DeadlineKind> {
        let kind = *DeadlineKind::ALL.get(self.0.trailing_zeros() as usize)?;
        self.0 &= self.0 - 1;
        Some(kind)
    }
}

/// A fixed table of absolute deadlines.
///
/// ```
/// use tidegate_core::{DeadlineKind, Deadlines, Instant};
///
/// let (mut table, at) = (Deadlines::default(), Instant::from_millis);
/// table.arm(DeadlineKind::Read, at(150));
/// table.arm(DeadlineKind::Total, at(150));
/// // What one timer is armed for. At the same instant the outer one is reported.
/// assert_eq!(table.earliest().map(|d| (d.at, d.kind)), Some((at(150), DeadlineKind::Total)));
/// // A byte came: the read has its full time again.
/// table.arm(DeadlineKind::Read, at(290));
/// table.disarm(DeadlineKind::Total);
/// assert_eq!(table.due(at(289)), None);
/// assert_eq!(table.due(at(290)).map(|d| d.kind), Some(DeadlineKind::Read));
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Deadlines {
    at: [Instant; DeadlineKind::COUNT],
    armed: Kinds,
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines { at: [Instant::NEVER; DeadlineKind::COUNT], armed: Kinds::NONE }
    }
}

impl Deadlines {
    /// Arms `kind`; [`Instant::NEVER`] disarms it (`timeouts.md` T8).
    pub fn arm(&mut self, kind: DeadlineKind, at: Instant) {
        self.at[kind as usize] = at;
        self.armed = self.armed.without(Kinds::NONE.with(kind, true)).with(kind, at != Instant::NEVER);
    }

    /// Disarms `kind`.
    pub fn disarm(&mut self, kind: DeadlineKind) {
        self.arm(kind, Instant::NEVER);
    }

    /// Which ones are armed.
    pub fn armed(&self) -> Kinds {
        self.armed
    }

    /// When `kind` is due; [`Instant::NEVER`] if it is not armed.
    pub fn get(&self, kind: DeadlineKind) -> Instant {
        self.at[kind as usize]
    }

    /// The armed deadline with the smallest `(at, rank)`.
    pub fn earliest(&self) -> Option<Deadline> {
        // In the order of the ranks, of which the first minimum is the one.
        self.armed.map(|kind| Deadline { at: self.get(kind), kind }).min_by_key(|d| d.at)
    }

    /// The deadline that fires at `now`: the smallest `(at, rank)` among those due.
    pub fn due(&self, now: Instant) -> Option<Deadline> {
        self.earliest().filter(|d| d.at <= now)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn earliest_instant_wins_and_the_total_wins_a_tie() {
        let mut table = Deadlines::default();
        assert_eq!(table.earliest(), None);
        table.arm(DeadlineKind::Linger, Instant::from_millis(10));
        table.arm(DeadlineKind::ClientBody, Instant::from_millis(10));
        table.arm(DeadlineKind::Read, Instant::from_millis(10));
        table.arm(DeadlineKind::Total, Instant::from_millis(10));
        let mut order = alloc::vec::Vec::new();
        while let Some(d) = table.due(Instant::from_millis(10)) {
            order.push(d.kind);
            table.disarm(d.kind);
        }
        use DeadlineKind::{ClientBody, Linger, Read, Total};
        assert_eq!(order, [Total, Read, ClientBody, Linger]);

        table.arm(Total, Instant::from_millis(10));
        table.arm(Read, Instant::from_millis(9));
        assert_eq!(table.earliest().unwrap().kind, Read);
        assert_eq!(table.due(Instant::from_millis(8)), None);
    }

    #[test]
    fn kinds_are_in_the_order_of_the_table_and_of_their_ranks() {
        for (i, kind) in DeadlineKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, i);
        }
        assert!(DeadlineKind::ALL.is_sorted_by_key(|kind| kind.rank()));
    }
}
