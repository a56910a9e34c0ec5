//! Idle upstream connections: last in, first out, each with its deadline.
//!
//! The pool keeps; it does not look at what it keeps. Whether a connection is still good is asked by
//! whoever takes it out, and by the keeper. It drops none of them: what is over is handed out, for whoever guards the
//! pool by a lock to drop after it.

use alloc::vec::Vec;
use core::ops::Range;

use crate::time::Instant;
use crate::upstream::UpstreamId;

#[derive(Debug)]
struct Idle<S> {
    stream: S,
    usable: Range<Instant>,
}

/// Idle connections of type `S`, by upstream.
///
/// ```
/// use tidegate_core::{Instant, Pool, UpstreamId};
///
/// let (id, at) = (UpstreamId::new(0).ok_or("no such upstream")?, Instant::from_millis);
/// let (mut pool, mut gone) = (Pool::new(256), Vec::new());
/// pool.put(id, "older", at(0)..at(100))?;
/// pool.put(id, "newer", at(0)..at(200))?;
/// assert_eq!(pool.take(id, at(0), &mut gone), Some("newer"));
///
/// // Whoever watches the pool moves out what is due or dead, and knows when to look again.
/// assert_eq!(pool.sweep(at(99), &mut gone, |_, _| false), at(100));
/// assert_eq!(pool.sweep(at(100), &mut gone, |_, _| false), Instant::NEVER);
/// assert_eq!(gone, ["older"]);
/// # Ok::<(), &str>(())
/// ```
#[derive(Debug)]
pub struct Pool<S> {
    idle: Vec<Vec<Idle<S>>>,
    len: usize,
    most: usize,
}

impl<S> Pool<S> {
    /// A pool that keeps at most `most` connections to one upstream.
    pub fn new(most: usize) -> Pool<S> {
        Pool { idle: Vec::new(), len: 0, most }
    }

    /// Keeps a connection until the end of `usable`, and hands it out from its start on. Gives it back if there are enough
    /// already.
    pub fn put(&mut self, id: UpstreamId, stream: S, usable: Range<Instant>) -> Result<(), S> {
        if self.idle.len() <= id.index() {
            self.idle.resize_with(id.index() + 1, Vec::new);
        }
        let idle = &mut self.idle[id.index()];
        if idle.len() >= self.most {
            return Err(stream);
        }
        idle.push(Idle { stream, usable });
        self.len += 1;
        Ok(())
    }

    /// The connection to `id` that became idle last, of those that are usable. Those whose deadline is due at `now` are not
    /// handed out: what is met of them goes to `gone`, so that without a [`Pool::sweep`] too they take nobody's place.
    pub fn take(&mut self, id: UpstreamId, now: Instant, gone: &mut Vec<S>) -> Option<S> {
        let idle = self.idle.get_mut(id.index())?;
        while let Some(last) = idle.iter().rposition(|i| i.usable.start <= now) {
            let last = idle.remove(last);
            self.len -= 1;
            if last.usable.end > now {
                return Some(last.stream);
            }
            gone.push(last.stream);
        }
        None
    }

    /// Moves every connection that is due at `now` or of which `dead` says so to `gone`, and returns the
    /// earliest deadline that remains ([`Instant::NEVER`] if none).
    pub fn sweep(
        &mut self,
        now: Instant,
        gone: &mut Vec<S>,
        mut dead: impl FnMut(UpstreamId, &mut S) -> bool,
    ) -> Instant {
        let mut next = Instant::NEVER;
        let mut len = 0;
        for (index, idle) in self.idle.iter_mut().enumerate() {
            let Some(id) = UpstreamId::new(index) else { continue };
            let ended = idle.extract_if(.., |i| {
                let ends = i.usable.end <= now || dead(id, &mut i.stream);
                if !ends {
                    next = next.min(i.usable.end);
                }
                ends
            });
            gone.extend(ended.map(|i| i.stream));
            len += idle.len();
        }
        self.len = len;
        next
    }

    /// Takes everything out.
    pub fn clear(&mut self) -> Vec<S> {
        self.len = 0;
        core::mem::take(&mut self.idle).into_iter().flatten().map(|i| i.stream).collect()
    }

    /// How many connections are idle.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether none is.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids() -> (UpstreamId, UpstreamId) {
        (UpstreamId(0), UpstreamId(1))
    }

    fn at(ms: u64) -> Instant {
        Instant::from_millis(ms)
    }

    /// Takes one out, and drops at once what was met on the way.
    fn take<S>(pool: &mut Pool<S>, id: UpstreamId, now: Instant) -> Option<S> {
        pool.take(id, now, &mut Vec::new())
    }

    fn sweep<S>(pool: &mut Pool<S>, now: Instant, dead: impl FnMut(UpstreamId, &mut S) -> bool) -> Instant {
        pool.sweep(now, &mut Vec::new(), dead)
    }

    #[test]
    fn last_in_is_first_out_and_upstreams_do_not_mix() {
        let (a, b) = ids();
        let mut pool = Pool::new(9);
        for (id, name) in [(a, "a1"), (b, "b1"), (a, "a2")] {
            pool.put(id, name, at(0)..at(100)).unwrap();
        }
        assert!(!pool.is_empty());
        assert_eq!(take(&mut pool, a, at(0)), Some("a2"));
        assert_eq!(take(&mut pool, a, at(0)), Some("a1"));
        assert_eq!(take(&mut pool, a, at(0)), None);
        assert_eq!(take(&mut pool, b, at(0)), Some("b1"));
        assert!(pool.is_empty());
    }

    #[test]
    fn what_is_due_is_closed_and_never_handed_out() {
        let (a, _) = ids();
        let mut pool = Pool::new(9);
        pool.put(a, "early", at(0)..at(100)).unwrap();
        pool.put(a, "late", at(0)..at(200)).unwrap();
        assert_eq!(sweep(&mut pool, at(99), |_, _| false), at(100));
        assert_eq!(sweep(&mut pool, at(150), |_, _| false), at(200));
        assert_eq!(pool.len(), 1);
        assert_eq!(sweep(&mut pool, at(150), |_, s| *s == "late"), Instant::NEVER);
        assert!(pool.is_empty());
        pool.put(a, "early", at(0)..at(100)).unwrap();
        pool.put(a, "late", at(0)..at(200)).unwrap();
        assert_eq!(take(&mut pool, a, at(200)), None);
        assert!(pool.is_empty(), "nobody else may sweep");
    }

    #[test]
    fn what_is_not_usable_yet_is_passed_over_and_kept() {
        let (a, _) = ids();
        let mut pool = Pool::new(9);
        for (name, usable) in [("old", at(0)..at(200)), ("new", at(50)..at(200)), ("never", at(150)..at(100))]
        {
            pool.put(a, name, usable).unwrap();
        }
        assert_eq!(take(&mut pool, a, at(49)), Some("old"));
        assert_eq!(take(&mut pool, a, at(49)), None);
        assert_eq!(pool.len(), 2);
        // It ends when it would have ended.
        assert_eq!(sweep(&mut pool, at(100), |_, s| *s == "old"), at(200));
        assert_eq!(take(&mut pool, a, at(100)), Some("new"));
        assert!(pool.is_empty());
    }

    #[test]
    fn p_14_expiry_and_checkout_in_one_turn_never_both_have_it() {
        use alloc::rc::Rc;
        let (a, _) = ids();
        // Before, at and after the deadline; whoever comes first.
        for (now, sweeps_first) in [99, 100, 101].into_iter().flat_map(|now| [(now, true), (now, false)]) {
            let connection = Rc::new(());
            let mut pool = Pool::new(9);
            pool.put(a, Rc::clone(&connection), at(0)..at(100)).unwrap();
            if sweeps_first {
                sweep(&mut pool, at(now), |_, _| false);
            }
            let taken = take(&mut pool, a, at(now));
            sweep(&mut pool, at(now), |_, _| false);
            assert_eq!(taken.is_some(), now < 100, "at {now}");
            // Handed out and open, or closed: nobody else holds it.
            assert_eq!(Rc::strong_count(&connection), 1 + usize::from(taken.is_some()));
            assert_eq!((pool.len(), take(&mut pool, a, at(now))), (0, None));
        }
    }

    #[test]
    fn a_full_pool_gives_the_connection_back() {
        let (a, _) = ids();
        let mut pool = Pool::new(3);
        for n in 0..3 {
            pool.put(a, n, at(0)..at(1)).unwrap();
        }
        assert_eq!(pool.put(a, 999, at(0)..at(1)), Err(999));
        assert_eq!((pool.clear().len(), pool.len()), (3, 0));
        assert_eq!(pool.put(a, 0, at(0)..at(1)), Ok(()), "emptied, and no smaller");
        assert_eq!(Pool::new(0).put(a, 0, at(0)..at(1)), Err(0));
    }
}
