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

/// A fixed table of absolute deadlines.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Deadlines {
    at: [Instant; DeadlineKind::COUNT],
}

impl Default for Deadlines {
    fn default() -> Deadlines {
        Deadlines { at: [Instant::NEVER; DeadlineKind::COUNT] }
    }
}

impl Deadlines {
    /// Arms `kind`; [`Instant::NEVER`] disarms it (`timeouts.md` T8).
    pub fn arm(&mut self, kind: DeadlineKind, at: Instant) {
        self.at[kind as usize] = at;
    }

    /// Disarms `kind`.
    pub fn disarm(&mut self, kind: DeadlineKind) {
        self.at[kind as usize] = Instant::NEVER;
    }

    /// Disarms everything.
    pub fn clear(&mut self) {
        *self = Deadlines::default();
    }

    /// When `kind` is due; [`Instant::NEVER`] if it is not armed.
    pub fn get(&self, kind: DeadlineKind) -> Instant {
        self.at[kind as usize]
    }

    /// The armed deadline with the smallest `(at, rank)`.
    pub fn earliest(&self) -> Option<Deadline> {
        DeadlineKind::ALL
            .into_iter()
            .map(|kind| Deadline { at: self.get(kind), kind })
            .filter(|d| d.at != Instant::NEVER)
            .min_by_key(|d| (d.at, d.kind.rank()))
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
    fn the_list_of_kinds_is_in_table_order() {
        for (i, kind) in DeadlineKind::ALL.into_iter().enumerate() {
            assert_eq!(kind as usize, i);
        }
    }
}
