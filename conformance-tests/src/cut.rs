//! Scissors for a case in virtual time: one connection is dropped in the middle, its future gone in place of its next
//! poll. Whatever it was doing, nothing of it may be left. What the peers see of it is not judged, nor does a script
//! have to end.

use std::cell::Cell;
use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use tidegate_core::Instant;
use tidegate_core::runtime::{Runtime, Spawn};

use crate::virtual_rt::VirtualRuntime;

/// How long peers may go on whose scripts do not end without the connection: longer than any limit.
pub(crate) const PATIENCE: Duration = Duration::from_secs(2);

/// What came of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Cut {
    /// Polls of connections, of all of them together.
    pub polls: usize,
    /// What is left afterwards, in words.
    pub left: Vec<String>,
}

/// A runtime whose tasks are counted at each poll, until one is dropped in place of its poll.
#[derive(Clone)]
pub(crate) struct Scissors {
    runtime: VirtualRuntime,
    state: Rc<State>,
    at: Option<usize>,
}

impl Scissors {
    /// The connection whose turn it is at poll `at` of all connections is dropped.
    pub(crate) fn new(runtime: VirtualRuntime, at: Option<usize>) -> Scissors {
        Scissors { runtime, state: Rc::default(), at }
    }

    pub(crate) fn have_cut(&self) -> bool {
        self.state.is_cut.get()
    }

    pub(crate) fn polls(&self) -> usize {
        self.state.polls.get()
    }
}

#[derive(Default)]
struct State {
    polls: Cell<usize>,
    is_cut: Cell<bool>,
}

impl Runtime for Scissors {
    type Stream = <VirtualRuntime as Runtime>::Stream;
    type Connect = <VirtualRuntime as Runtime>::Connect;
    type Timer = <VirtualRuntime as Runtime>::Timer;

    fn now(&self) -> Instant {
        self.runtime.now()
    }

    fn timer(&self) -> Self::Timer {
        self.runtime.timer()
    }

    fn unix_time(&self) -> u64 {
        self.runtime.unix_time()
    }

    fn connect(&self, to: SocketAddr) -> Self::Connect {
        self.runtime.connect(to)
    }
}

impl<F: Future<Output = ()> + 'static> Spawn<F> for Scissors {
    fn spawn(&self, task: F) {
        let task = Some(Box::pin(task));
        self.runtime.spawn(Cuttable { task, state: Rc::clone(&self.state), at: self.at });
    }
}

struct Cuttable<F> {
    /// `None` once it was dropped.
    task: Option<Pin<Box<F>>>,
    state: Rc<State>,
    at: Option<usize>,
}

impl<F: Future<Output = ()>> Future for Cuttable<F> {
    type Output = ();

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let poll = self.state.polls.replace(self.state.polls.get() + 1);
        if self.at == Some(poll) {
            self.task = None;
            self.state.is_cut.set(true);
            return Poll::Ready(());
        }
        self.task.as_mut().map_or(Poll::Ready(()), |task| task.as_mut().poll(cx))
    }
}
