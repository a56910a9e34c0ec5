//! An order of slots in which each may move to the end at no cost in memory, and be taken out, wherever it stands.
//!
//! It knows nothing of what is in the slots. Who makes room for another is decided in `lifecycle.rs`.

/// A list through an array: a slot's neighbours stand at its number plus one. At zero lies what is before the first and
/// after the last; a slot that is in no place is its own neighbour.
#[derive(Debug)]
pub(crate) struct Order(Vec<Link>);

#[derive(Copy, Clone, Debug)]
struct Link {
    before: usize,
    after: usize,
}

impl Default for Order {
    fn default() -> Order {
        Order(vec![Link { before: 0, after: 0 }])
    }
}

impl Order {
    /// Has room for `slots` slots from now on: the one call that may allocate.
    pub(crate) fn reserve(&mut self, slots: usize) {
        self.0.extend((self.0.len()..=slots).map(|own| Link { before: own, after: own }));
    }

    /// Moves `slot` to the end, or puts it there.
    pub(crate) fn put_last(&mut self, slot: usize) {
        self.remove(slot);
        let (own, last) = (slot + 1, self.0[0].before);
        self.0[own] = Link { before: last, after: 0 };
        self.0[last].after = own;
        self.0[0].before = own;
    }

    /// Takes `slot` out, if it is in.
    pub(crate) fn remove(&mut self, slot: usize) {
        let own = slot + 1;
        let Link { before, after } = self.0[own];
        self.0[before].after = after;
        self.0[after].before = before;
        self.0[own] = Link { before: own, after: own };
    }

    /// The first of all, or the one after `slot`, which is in.
    pub(crate) fn next(&self, slot: Option<usize>) -> Option<usize> {
        self.0[slot.map_or(0, |slot| slot + 1)].after.checked_sub(1)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #![proptest_config(crate::scale::properties(ProptestConfig::default()))]

        #[test]
        fn it_is_a_list(events in proptest::collection::vec((any::<bool>(), 0usize..9), 0..60)) {
            let (mut order, mut model) = (Order::default(), Vec::new());
            for (put, slot) in events {
                order.reserve(slot + 1);
                model.retain(|s| *s != slot);
                if put {
                    order.put_last(slot);
                    model.push(slot);
                } else {
                    order.remove(slot);
                }
                let all: Vec<usize> =
                    std::iter::successors(order.next(None), |slot| order.next(Some(*slot))).collect();
                prop_assert_eq!(&all, &model);
            }
        }
    }
}
