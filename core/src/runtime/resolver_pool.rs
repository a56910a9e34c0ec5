//! The resolver of the system, on a few threads of its own.
//!
//! The system's lookup blocks, and nothing can end it. So it blocks a thread that nobody waits for: not the runtime's
//! blocking pool, which some runtimes join when they end. What is bounded is how many threads there are, not how
//! long they block: a lookup whose waiters have gone before its turn came is never begun.

use core::fmt;
use core::time::Duration;
use std::collections::{HashMap, VecDeque};
use std::io;
use std::net::{SocketAddr, ToSocketAddrs};
use std::panic::{self, AssertUnwindSafe};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::Instant;

use crate::error::{IoFailure, IoKind};
use crate::runtime::{Answer, Found, Lookup, Resolution, Resolver};
use crate::upstream::{Addresses, Name};

/// How long a thread without work stays.
const IDLE: Duration = Duration::from_secs(10);

/// Looks names up on at most so many threads, and remembers what it found for a while.
///
/// * Threads start when they are needed and end after ten idle seconds, or when the pool is dropped. None is ever
///   joined: the end of a runtime or of the process waits for no lookup.
/// * Lookups of one name at the same time are one. Those that find no thread free wait in the order in which they
///   came.
/// * What was found is used again for so long as `keep` says, unless none of it could be connected to; what was not
///   found is not remembered.
///
/// ```
/// use std::sync::Arc;
/// use std::time::Duration;
/// use tidegate_core::runtime::{ResolverPool, Runtime};
/// use tidegate_core::{Config, Proxy, Upstreams};
///
/// /// A proxy that asks for the address of its upstream again once a minute at most.
/// fn proxy<R: Runtime>(runtime: R) -> Result<Proxy<R>, tidegate_core::TargetError> {
///     let upstreams = Upstreams::new(["backend.example:9000".parse::<tidegate_core::Target>()?]);
///     let resolver = Arc::new(ResolverPool::new(2, Duration::from_secs(60)));
///     Ok(Proxy::with_resolver(runtime, upstreams, Config::default(), resolver))
/// }
/// ```
pub struct ResolverPool(Arc<Shared>);

type System = dyn Fn(&Name) -> io::Result<Vec<SocketAddr>> + Send + Sync;

struct Shared {
    max_threads: usize,
    keep: Duration,
    system: Box<System>,
    state: Mutex<State>,
    work: Condvar,
}

#[derive(Default)]
struct State {
    names: HashMap<Name, Entry>,
    queue: VecDeque<Name>,
    threads: usize,
    idle: usize,
    closed: bool,
}

#[derive(Default)]
struct Entry {
    /// What was found, and when.
    known: Option<(Addresses, Instant)>,
    /// It is in the queue, or being looked up.
    pending: bool,
    waiting: Vec<Answer>,
}

/// Asks the system for the addresses of `name`, in the order in which it wants them tried. Blocks for as long as that
/// takes.
///
/// # Errors
///
/// The system's, with its words.
pub fn system_lookup(name: &Name) -> io::Result<Vec<SocketAddr>> {
    Ok((name.host(), name.port()).to_socket_addrs()?.collect())
}

impl Default for ResolverPool {
    /// With [`ResolverPool::THREADS`] and [`ResolverPool::KEEP`].
    fn default() -> ResolverPool {
        ResolverPool::new(ResolverPool::THREADS, ResolverPool::KEEP)
    }
}

impl ResolverPool {
    /// Threads unless something else is said: 4.
    pub const THREADS: usize = 4;

    /// How long an address is used unless something else is said: 10 s.
    pub const KEEP: Duration = Duration::from_secs(10);

    /// At most `threads` threads (at least one), and an address is used again for `keep`: [`Duration::MAX`] is for ever.
    pub fn new(threads: usize, keep: Duration) -> ResolverPool {
        ResolverPool::with_lookup(threads, keep, system_lookup)
    }

    /// The same with another blocking lookup than the system's. If it panics, the lookup has failed.
    pub fn with_lookup(
        threads: usize,
        keep: Duration,
        lookup: impl Fn(&Name) -> io::Result<Vec<SocketAddr>> + Send + Sync + 'static,
    ) -> ResolverPool {
        ResolverPool(Arc::new(Shared {
            max_threads: threads.max(1),
            keep,
            system: Box::new(lookup),
            state: Mutex::default(),
            work: Condvar::new(),
        }))
    }

    /// How many threads there are now.
    pub fn threads(&self) -> usize {
        self.0.lock().threads
    }
}

impl Resolver for ResolverPool {
    fn resolve(&self, name: &Name) -> Resolution {
        let mut state = self.0.lock();
        let entry = match state.names.get_mut(name) {
            Some(entry) => entry,
            None => state.names.entry(name.clone()).or_default(),
        };
        match &entry.known {
            Some((addresses, since)) if since.elapsed() < self.0.keep => {
                return Resolution::Known(Ok(addresses.clone()));
            }
            _ => entry.known = None,
        }
        let (answer, lookup) = Lookup::new();
        if entry.waiting.len() == entry.waiting.capacity() {
            // Those who have given up must not pile up behind a lookup that hangs.
            entry.waiting.retain(Answer::is_wanted);
        }
        entry.waiting.push(answer);
        if !entry.pending {
            entry.pending = true;
            state.queue.push_back(name.clone());
            let dropped = self.0.provide_thread(&mut state);
            drop(state);
            drop(dropped);
            self.0.work.notify_one();
        }
        Resolution::Waits(lookup)
    }

    /// That very answer is forgotten; one that was found since then is not.
    fn unreached(&self, name: &Name, found: &Addresses) {
        let mut state = self.0.lock();
        let Some(entry) = state.names.get_mut(name) else { return };
        if entry.known.as_ref().is_some_and(|(known, _)| known.is(found)) {
            entry.known = None;
            if !entry.pending {
                state.names.remove(name);
            }
        }
    }
}

impl Drop for ResolverPool {
    fn drop(&mut self) {
        let mut state = self.0.lock();
        state.closed = true;
        let names = std::mem::take(&mut state.names);
        state.queue.clear();
        drop(state);
        self.0.work.notify_all();
        // Outside of the lock: who still waits is woken.
        drop(names);
    }
}

impl fmt::Debug for ResolverPool {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("ResolverPool").field("max_threads", &self.0.max_threads).finish_non_exhaustive()
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Starts a thread if one is wanted. If none can be had at all, everything in the queue has failed: its waiters are
    /// to be dropped outside of the lock.
    fn provide_thread(self: &Arc<Self>, state: &mut State) -> Vec<Entry> {
        if state.queue.len() <= state.idle || state.threads >= self.max_threads {
            return Vec::new();
        }
        let shared = Arc::clone(self);
        match thread::Builder::new().name("tidegate-names".to_owned()).spawn(move || shared.work()) {
            Ok(_never_joined) => state.threads += 1,
            Err(_) if state.threads == 0 => {
                return state.queue.drain(..).filter_map(|name| state.names.remove(&name)).collect();
            }
            Err(_) => {}
        }
        Vec::new()
    }

    /// A thread's life.
    fn work(&self) {
        while let Some(name) = self.next() {
            let found = match panic::catch_unwind(AssertUnwindSafe(|| (self.system)(&name))) {
                Ok(Ok(addrs)) => Ok(Addresses::from_iter(addrs)),
                Ok(Err(e)) => Err(failure(&e)),
                Err(_) => Err(NOT_FOUND),
            };
            for answer in self.answered(&name, &found) {
                // It wakes somebody, who may panic; the thread is the pool's, and goes on.
                let _ = panic::catch_unwind(AssertUnwindSafe(|| answer.give(found.clone())));
            }
        }
    }

    /// The next name that somebody waits for; `None` if there is no more work for this thread.
    fn next(&self) -> Option<Name> {
        let mut state = self.lock();
        loop {
            if let Some(name) = state.next() {
                return Some(name);
            }
            if state.closed {
                break;
            }
            state.idle += 1;
            let (guard, waited) = self.work.wait_timeout(state, IDLE).unwrap_or_else(PoisonError::into_inner);
            state = guard;
            state.idle -= 1;
            if waited.timed_out() && state.queue.is_empty() {
                break;
            }
        }
        state.threads -= 1;
        None
    }

    /// Remembers what was found, and says who waits for it.
    fn answered(&self, name: &Name, found: &Found) -> Vec<Answer> {
        let now = Instant::now();
        let mut state = self.lock();
        let Some(entry) = state.names.get_mut(name) else { return Vec::new() };
        entry.pending = false;
        entry.known = match found {
            Ok(addresses) if !addresses.is_empty() => Some((addresses.clone(), now)),
            _ => None,
        };
        let waiting = std::mem::take(&mut entry.waiting);
        // What is too old goes, also of names that nobody asks for any more.
        let is_kept = |since: Instant| now.saturating_duration_since(since) < self.keep;
        state.names.retain(|_, e| e.pending || e.known.as_ref().is_some_and(|(_, since)| is_kept(*since)));
        waiting
    }
}

impl State {
    /// Takes the first name out of the queue that somebody still waits for.
    fn next(&mut self) -> Option<Name> {
        while let Some(name) = self.queue.pop_front() {
            let Some(entry) = self.names.get_mut(&name) else { continue };
            entry.waiting.retain(Answer::is_wanted);
            if !entry.waiting.is_empty() {
                return Some(name);
            }
            self.names.remove(&name);
        }
        None
    }
}

const NOT_FOUND: IoFailure = IoFailure { kind: IoKind::NotFound, os_code: None };

/// The system's resolver has errors of its own, which the standard library gives a text and no number.
fn failure(e: &io::Error) -> IoFailure {
    match IoFailure::from(e) {
        IoFailure { kind: IoKind::Other, os_code: None } => NOT_FOUND,
        failure => failure,
    }
}

#[cfg(test)]
mod tests;
