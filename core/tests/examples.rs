//! The example that drives the machine by hand is run, and how its requests ended is looked at.

// What only its command line uses.
#[allow(dead_code)]
#[path = "../examples/bare_loop.rs"]
mod bare_loop;

use tidegate_core::{DeadlineKind, Error};

#[test]
fn a_loop_without_an_executor_relays_and_keeps_the_deadlines() {
    let outcomes = bare_loop::try_it().unwrap();
    let with = |status| outcomes.iter().filter(move |o| o.status == Some(status));
    assert_eq!((with(200).count(), with(504).count(), outcomes.len()), (16, 4, 20));
    assert!(with(200).all(|o| o.error.is_none()));
    let is_read = |e| matches!(e, Some(Error::Timeout(t)) if t.kind == DeadlineKind::Read);
    assert!(with(504).all(|o| is_read(o.error)));
    assert_eq!(outcomes.iter().filter(|o| o.response_bytes == 3 << 20).count(), 4);
}
