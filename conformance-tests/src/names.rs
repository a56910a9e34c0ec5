//! What the proxy is told of its upstreams, and a resolver of their names for each world: in real time the pool of the
//! core with lookups that block their threads, in virtual time a model of it.
//!
//! A question marks the next of [`ASKED`], and a lookup the event of its name when it begins. The model remembers no address and joins no lookups: a case
//! that is about that belongs beside the pool.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll, Waker};
use std::thread;
use std::time::Duration;

use tidegate_core::runtime::{Answer, Found, Lookup, Resolution, Resolver, ResolverPool};
use tidegate_core::{Addresses, IoFailure, IoKind, Name, Target};

use crate::board::lock;
use crate::script::{ASKED, Aim, Case, Takes};
use crate::virtual_rt::Owner;
use crate::{peers, virtual_peers};

/// Longer than any lookup of a case waits for its event.
const BOUND: Duration = Duration::from_secs(10);

/// The upstreams as the proxy is given them; `places` are the addresses of [`Case::upstreams`].
pub(crate) fn targets(case: &Case, places: &[SocketAddr]) -> Vec<Target> {
    let at = |indices: &[usize]| indices.iter().map(|i| places[*i]).collect::<Vec<_>>();
    let target = |aim: &Aim| match aim {
        Aim::Address(place) => Target::from(places[*place]),
        Aim::List(list) => Target::from(at(list)),
        Aim::Name { name, .. } => Target::Name(parsed(name)),
    };
    match case.aims.is_empty() {
        true => places.iter().map(|addr| Target::from(*addr)).collect(),
        false => case.aims.iter().map(target).collect(),
    }
}

fn parsed(name: &str) -> Name {
    name.parse().unwrap_or_else(|e| panic!("{name:?} is no name, a fault of the case: {e}"))
}

/// A name that a resolver knows.
#[derive(Clone)]
struct Known {
    name: &'static str,
    takes: Takes,
    found: Vec<SocketAddr>,
}

fn known(case: &Case, places: &[SocketAddr]) -> Vec<Known> {
    let known = |aim: &Aim| match aim {
        Aim::Name { name, takes, found } => {
            Some(Known { name, takes: *takes, found: found.iter().map(|i| places[*i]).collect() })
        }
        _ => None,
    };
    case.aims.iter().filter_map(known).collect()
}

/// The pool, whose questions are noted.
struct Noted<F> {
    pool: ResolverPool,
    asked: AtomicUsize,
    mark: F,
}

impl<F: Fn(&'static str) + Send + Sync> Resolver for Noted<F> {
    fn resolve(&self, name: &Name) -> Resolution {
        let resolution = self.pool.resolve(name);
        if let Some(event) = ASKED.get(self.asked.fetch_add(1, Ordering::Relaxed)) {
            (self.mark)(event);
        }
        resolution
    }

    fn unreached(&self, name: &Name, found: &Addresses) {
        self.pool.unreached(name, found);
    }
}

/// The pool, over lookups that nothing ends before their time.
pub(crate) fn real(case: &Case, stage: &Arc<peers::Stage>) -> Arc<dyn Resolver> {
    let known = known(case, &stage.upstreams());
    let (board, epoch) = (Arc::clone(&stage.board), Arc::clone(stage));
    let (asked, since) = (Arc::clone(&board), Arc::clone(stage));
    let lookup = move |name: &Name| {
        let Some(known) = known.iter().find(|k| k.name == name.as_str()) else {
            return Err(io::Error::other("nobody has this name"));
        };
        board.mark(known.name, epoch.epoch().elapsed());
        match known.takes {
            Takes::Time(d) => thread::sleep(d),
            Takes::Until(event) => board.wait(BOUND, || board.marked(event).is_some()),
        }
        match known.found.is_empty() {
            true => Err(io::Error::other("no such name")),
            false => Ok(known.found.clone()),
        }
    };
    let pool = ResolverPool::with_lookup(case.lookups_at_once, ResolverPool::KEEP, lookup);
    let mark = move |event| asked.mark(event, since.epoch().elapsed());
    Arc::new(Noted { pool, asked: AtomicUsize::new(0), mark })
}

/// Questions that wait for a lookup to be free.
#[derive(Default)]
struct Questions(Mutex<Queue>);

#[derive(Default)]
struct Queue {
    asked: VecDeque<(Name, Answer)>,
    not_noted: usize,
    free: Vec<Waker>,
}

impl Resolver for Questions {
    fn resolve(&self, name: &Name) -> Resolution {
        let (answer, lookup) = Lookup::new();
        let free = {
            let mut queue = lock(&self.0);
            queue.not_noted += 1;
            queue.asked.push_back((name.clone(), answer));
            std::mem::take(&mut queue.free)
        };
        free.into_iter().for_each(Waker::wake);
        Resolution::Waits(lookup)
    }
}

impl Questions {
    /// One more question than were noted.
    fn poll_asked(&self, cx: &mut Context<'_>) -> Poll<()> {
        let mut queue = lock(&self.0);
        if queue.not_noted == 0 {
            queue.free.push(cx.waker().clone());
            return Poll::Pending;
        }
        queue.not_noted -= 1;
        Poll::Ready(())
    }

    /// The next one that somebody still waits for.
    fn poll_next(&self, cx: &mut Context<'_>) -> Poll<(Name, Answer)> {
        let mut queue = lock(&self.0);
        while let Some((name, answer)) = queue.asked.pop_front() {
            if answer.is_wanted() {
                return Poll::Ready((name, answer));
            }
        }
        queue.free.push(cx.waker().clone());
        Poll::Pending
    }
}

/// The model: as many lookups at once as there are tasks.
pub(crate) fn in_virtual_time(case: &Case, stage: &virtual_peers::Stage) -> Arc<dyn Resolver> {
    let questions = Arc::new(Questions::default());
    let known = known(case, &stage.upstreams);
    let (asked, clock) = (Arc::clone(&questions), stage.clone());
    stage.world.spawn(Owner::Peer, async move {
        for event in ASKED {
            poll_fn(|cx| asked.poll_asked(cx)).await;
            clock.board.mark(event, clock.now());
        }
    });
    for _ in 0..case.lookups_at_once {
        let (questions, known, stage) = (Arc::clone(&questions), known.clone(), stage.clone());
        stage.world.clone().spawn(Owner::Peer, async move {
            loop {
                let (name, answer) = poll_fn(|cx| questions.poll_next(cx)).await;
                let Some(known) = known.iter().find(|k| k.name == name.as_str()) else { continue };
                stage.board.mark(known.name, stage.now());
                match known.takes {
                    Takes::Time(d) => stage.world.sleep_until(stage.world.now() + d).await,
                    Takes::Until(event) => stage.happened(event).await,
                }
                answer.give(found(&known.found));
            }
        });
    }
    questions
}

fn found(addrs: &[SocketAddr]) -> Found {
    match addrs.is_empty() {
        true => Err(IoFailure { kind: IoKind::NotFound, os_code: None }),
        false => Ok(addrs.iter().copied().collect()),
    }
}
