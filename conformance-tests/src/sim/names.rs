//! Looking up the upstreams' names in a simulation: at once, late, never, wrongly, or with an address at which nobody is.
//!
//! What happens to a lookup is drawn when it is asked for; a task of the world answers.

use std::collections::VecDeque;
use std::future::poll_fn;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Poll, Waker};
use std::time::Duration;

use tidegate_core::runtime::{Answer, Found, Lookup, Resolution, Resolver};
use tidegate_core::{IoFailure, IoKind, Name, Target};

use super::Rng;
use super::plan::{Names, Plan};
use super::wire::sleep;
use crate::virtual_rt::{Owner, VirtualListener, World};

/// The names of a simulation, and who looks them up. Clones are the same.
#[derive(Clone)]
pub(super) struct SimResolver(Arc<Mutex<State>>);

struct State {
    names: Names,
    rng: Rng,
    known: Vec<(Name, SocketAddr)>,
    /// One refuses, one hangs.
    dead: [SocketAddr; 2],
    asked: VecDeque<(Answer, Duration, Option<Found>)>,
    waker: Option<Waker>,
    /// Those that are never answered.
    hanging: Vec<Answer>,
}

impl SimResolver {
    /// One that answers as the plan says from now on; and what hangs, for as long as it is kept.
    pub(super) fn start(world: &World, plan: &Plan) -> (SimResolver, VirtualListener) {
        let runtime = world.runtime(Owner::Peer);
        let dead = [runtime.free_address(), runtime.free_address()];
        let hangs = runtime.listen(dead[1], 0);
        let state = State {
            names: plan.names.unwrap_or_default(),
            rng: Rng::new(plan.seed ^ 0x5ee),
            known: Vec::new(),
            dead,
            asked: VecDeque::new(),
            waker: None,
            hanging: Vec::new(),
        };
        let resolver = SimResolver(Arc::new(Mutex::new(state)));
        world.spawn(Owner::Peer, resolver.clone().answers(world.clone()));
        (resolver, hangs)
    }

    /// What the proxy is told of an upstream at `addr`: a name, if the plan has names.
    pub(super) fn target(&self, plan: &Plan, addr: SocketAddr) -> Target {
        let mut state = self.lock();
        let name = format!("u{}.sim:80", state.known.len()).parse::<Name>();
        match (plan.names, name) {
            (Some(_), Ok(name)) => {
                state.known.push((name.clone(), addr));
                name.into()
            }
            _ => addr.into(),
        }
    }

    /// Lookups that somebody still waits for.
    pub(super) fn wanted(&self) -> usize {
        self.lock().hanging.iter().filter(|answer| answer.is_wanted()).count()
    }

    async fn answers(self, world: World) {
        loop {
            let (answer, after, found) = poll_fn(|cx| {
                let mut state = self.lock();
                state.waker = Some(cx.waker().clone());
                state.asked.pop_front().map_or(Poll::Pending, Poll::Ready)
            })
            .await;
            match found {
                None => self.lock().hanging.push(answer),
                Some(found) => {
                    let later = sleep_then(world.clone(), after, answer, found);
                    world.spawn(Owner::Peer, later);
                }
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sleep_then(world: World, after: Duration, answer: Answer, found: Found) {
    sleep(&world, after).await;
    answer.give(found);
}

impl Resolver for SimResolver {
    fn resolve(&self, name: &Name) -> Resolution {
        let mut guard = self.lock();
        let State { names, rng, known, dead, .. } = &mut *guard;
        let right = known.iter().find(|(known, _)| known == name).map(|(_, addr)| *addr);
        let failure = IoFailure { kind: rng.pick(&[IoKind::NotFound, IoKind::TimedOut]), os_code: None };
        let found = match right {
            Some(addr) if !rng.permille(names.fail) => {
                let first = rng.permille(names.dead).then(|| rng.pick(dead));
                Ok(first.into_iter().chain([addr]).collect())
            }
            _ => Err(failure),
        };
        if rng.permille(names.known) {
            return Resolution::Known(found);
        }
        let after = Duration::from_nanos(rng.between(0, names.slow.as_nanos() as u64));
        let found = (!rng.permille(names.hang)).then_some(found);
        let (answer, lookup) = Lookup::new();
        guard.asked.push_back((answer, after, found));
        let waker = guard.waker.take();
        drop(guard);
        waker.into_iter().for_each(Waker::wake);
        Resolution::Waits(lookup)
    }
}
