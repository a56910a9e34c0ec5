//! Looking up names: what a resolver is, and the answer that one waits for.
//!
//! A resolver only finds addresses. How long a lookup may take, and which address is tried when, is decided by the
//! machine; the resolver learns that nobody waits any more from the drop of the [`Lookup`].

use core::fmt;
use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use std::sync::{Arc, PoisonError};
use std::task::Waker;

use crate::error::{IoFailure, IoKind};
use crate::runtime::sync::Mutex;
use crate::upstream::{Addresses, Name};

/// What a lookup leads to.
pub type Found = Result<Addresses, IoFailure>;

/// Finds the addresses of a name.
///
/// It is shared by all connections and threads of a proxy, which is why it alone among these traits is `Send + Sync`
/// and used through a pointer. [`ResolverPool`](super::ResolverPool) is the one that a proxy has unless it is given
/// another.
///
/// ```
/// use std::sync::mpsc;
/// use tidegate_core::runtime::{Answer, Lookup, Resolution, Resolver};
/// use tidegate_core::Name;
///
/// /// Hands every question to whoever holds the other end: a task with an asynchronous resolver, for example.
/// struct Ask(mpsc::Sender<(Name, Answer)>);
///
/// impl Resolver for Ask {
///     fn resolve(&self, name: &Name) -> Resolution {
///         let (answer, lookup) = Lookup::new();
///         // If it is not taken the answer is dropped, and the lookup fails.
///         let _ = self.0.send((name.clone(), answer));
///         Resolution::Waits(lookup)
///     }
/// }
///
/// let (questions, asked) = mpsc::channel();
/// let Resolution::Waits(lookup) = Ask(questions).resolve(&"backend.example:80".parse()?) else { panic!() };
/// let (name, answer) = asked.recv()?;
/// assert!(answer.is_wanted());
/// drop(lookup);
/// assert!(!answer.is_wanted(), "it need not even be looked for");
/// # Ok::<(), Box<dyn std::error::Error>>(())
/// ```
pub trait Resolver: Send + Sync {
    /// Starts to look `name` up, or knows already. It is called inside a task, and must not block.
    fn resolve(&self, name: &Name) -> Resolution;

    /// None of `found`, which was an answer for `name`, could be connected to: one that remembers it should not give it
    /// again, but look `name` up for whoever asks next. It must not block. A resolver that remembers nothing has nothing
    /// to do here, which is the default.
    fn unreached(&self, _name: &Name, _found: &Addresses) {}
}

/// What a [`Resolver`] says at once.
#[derive(Debug)]
pub enum Resolution {
    /// It is known.
    Known(Found),
    /// It takes time.
    Waits(Lookup),
}

/// An answer that is waited for. Dropping it is cancellation: whoever holds the [`Answer`] can see that it is not
/// wanted any more, and what comes all the same goes nowhere.
#[must_use = "a lookup that is dropped is not wanted"]
pub struct Lookup(Arc<Slot>);

/// The other end of a [`Lookup`]. If it is dropped without [`Answer::give`], the lookup fails.
pub struct Answer(Option<Arc<Slot>>);

struct Slot(Mutex<State>);

enum State {
    Awaited(Option<Waker>),
    Given(Found),
}

impl Lookup {
    /// Both ends.
    // The lookup is of use together with the other end alone.
    #[allow(clippy::new_ret_no_self)]
    pub fn new() -> (Answer, Lookup) {
        let slot = Arc::new(Slot(Mutex::new(State::Awaited(None))));
        (Answer(Some(Arc::clone(&slot))), Lookup(slot))
    }
}

#[cfg(test)]
impl Answer {
    pub(crate) fn is_locked(&self) -> bool {
        self.0.as_ref().is_some_and(|slot| slot.0.try_lock().is_err())
    }
}

impl Future for Lookup {
    type Output = Found;

    /// May be polled again after it was ready.
    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Found> {
        let mut before = None;
        let polled = match &mut *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Given(found) => Poll::Ready(found.clone()),
            State::Awaited(waker) => {
                if !waker.as_ref().is_some_and(|w| w.will_wake(cx.waker())) {
                    before = waker.replace(cx.waker().clone());
                }
                Poll::Pending
            }
        };
        // Outside the lock: it may be the last handle of a task.
        drop(before);
        polled
    }
}

impl Drop for Lookup {
    /// Nobody is woken for an answer that nobody waits for.
    fn drop(&mut self) {
        let was = match &mut *self.0.0.lock().unwrap_or_else(PoisonError::into_inner) {
            State::Awaited(waker) => waker.take(),
            State::Given(_) => None,
        };
        // Outside the lock: it may be the last handle of a task.
        drop(was);
    }
}

impl Answer {
    /// Whether somebody still waits for it.
    pub fn is_wanted(&self) -> bool {
        self.0.as_ref().is_some_and(|slot| Arc::strong_count(slot) > 1)
    }

    /// Gives the answer, and wakes whoever waits for it. From any thread.
    pub fn give(mut self, found: Found) {
        self.put(found);
    }

    fn put(&mut self, found: Found) {
        let Some(slot) = self.0.take() else { return };
        let was = {
            let mut state = slot.0.lock().unwrap_or_else(PoisonError::into_inner);
            core::mem::replace(&mut *state, State::Given(found))
        };
        if let State::Awaited(Some(waker)) = was {
            waker.wake();
        }
    }
}

impl Drop for Answer {
    fn drop(&mut self) {
        self.put(Err(IoFailure { kind: IoKind::NotFound, os_code: None }));
    }
}

impl fmt::Debug for Lookup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Lookup").finish_non_exhaustive()
    }
}

impl fmt::Debug for Answer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Answer").field("is_wanted", &self.is_wanted()).finish_non_exhaustive()
    }
}
