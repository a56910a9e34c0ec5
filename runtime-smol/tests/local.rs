//! `!Send` by type: what a hook holds decides which executor takes the connection. The compiler is the test; that the
//! opposite does not compile is shown by the documentation of `Smol::local`.

use std::cell::Cell;
use std::rc::{Rc, Weak as LocalWeak};
use std::sync::{Arc, Weak};

use smol::{Executor, LocalExecutor};
use tidegate_core::runtime::Spawn;
use tidegate_core::{Connection, Decision, Report, RequestHead};
use tidegate_smol::{Global, Smol, Stream};

/// Compiles if connections with these hooks can be spawned on `E`.
fn spawns_on<E, F, G>(_route: F, _observe: G)
where
    F: Fn(&RequestHead<'_>) -> Decision + 'static,
    G: Fn(&Report<'_>) + 'static,
    Smol<E>: Spawn<Connection<Smol<E>, Stream, F, G>>,
{
}

/// Compiles if connections with these hooks may move to another thread.
fn may_move<E, F, G>(_route: F, _observe: G)
where
    F: Fn(&RequestHead<'_>) -> Decision,
    G: Fn(&Report<'_>),
    Connection<Smol<E>, Stream, F, G>: Send,
{
}

type Local = LocalWeak<LocalExecutor<'static>>;
type Shared = Weak<Executor<'static>>;

#[test]
fn a_local_executor_takes_hooks_that_hold_an_rc() {
    let seen = Rc::new(Cell::new(0));
    let routed = Rc::clone(&seen);
    spawns_on::<Local, _, _>(
        move |_| {
            routed.set(routed.get() + 1);
            Decision::forward()
        },
        move |_| seen.set(seen.get() + 1),
    );
}

#[test]
fn hooks_that_are_send_run_on_every_executor_and_make_the_connection_send() {
    let name: Arc<str> = "shared".into();
    let route = move |_: &RequestHead<'_>| Decision::respond(200, name.as_bytes());
    let observe = |_: &Report<'_>| {};
    spawns_on::<Local, _, _>(route.clone(), observe);
    spawns_on::<Shared, _, _>(route.clone(), observe);
    spawns_on::<Global, _, _>(route.clone(), observe);
    may_move::<Shared, _, _>(route.clone(), observe);
    may_move::<Global, _, _>(route, observe);
}
