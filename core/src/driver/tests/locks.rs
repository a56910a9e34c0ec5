//! No lock of the driver is held while foreign code runs: the drop of a waker, which may be the last handle of a task,
//! or of a connection.

use super::*;
use crate::driver::lifecycle::Lifecycle;
use crate::driver::{Keeper, Proxy, UpstreamLimits, Upstreams};
use crate::relay::Config;
use crate::runtime::Lookup;
use crate::upstream::{Admitted, Ticket};

type Look = Box<dyn Fn() -> bool>;

thread_local! {
    /// Tells whether the lock in question is held; what it told, and how often it was asked.
    static PROBE: RefCell<Option<Look>> = const { RefCell::new(None) };
    static TOLD: RefCell<(bool, usize)> = const { RefCell::new((false, 0)) };
}

/// Foreign code runs here.
pub(super) fn probe() {
    if let Some(is_locked) = PROBE.with_borrow(|probe| probe.as_ref().map(|probe| probe())) {
        TOLD.with_borrow_mut(|(held, times)| {
            *held |= is_locked;
            *times += 1;
        });
    }
}

/// Runs `act` and says how often foreign code ran meanwhile; never under the lock.
fn foreign(is_locked: impl Fn() -> bool + 'static, act: impl FnOnce()) -> usize {
    PROBE.set(Some(Box::new(is_locked)));
    act();
    PROBE.set(None);
    let (held, times) = TOLD.take();
    assert!(!held, "under the lock");
    times
}

/// A waker whose last handle runs something.
struct Last;

impl Wake for Last {
    fn wake(self: Arc<Self>) {}
}

impl Drop for Last {
    fn drop(&mut self) {
        probe();
    }
}

fn waker() -> Waker {
    Waker::from(Arc::new(Last))
}

#[test]
fn the_upstreams_queue_lets_go_of_wakers_outside_its_lock() {
    let limits = UpstreamLimits { max_conns: 1, max_queue: 9 };
    let upstreams = Upstreams::with_limits([SocketAddr::from(([192, 0, 2, 1], 1))], limits);
    let locked = upstreams.clone();
    let times = foreign(
        move || locked.is_locked(),
        || {
            let now = Instant::EPOCH;
            let Admitted::Granted(id) = upstreams.admit(&[], now, &waker()) else { panic!() };
            let wait = |ticket: Option<Ticket>| match ticket {
                None => upstreams.admit(&[], now, &waker()),
                Some(ticket) => upstreams.fetch(ticket, now, &waker()),
            };
            let Admitted::Waits(first) = wait(None) else { panic!() };
            let Admitted::Waits(second) = wait(None) else { panic!() };
            // Another task waits in its place; one that leaves; one that is woken; and one that fetches what it has.
            let Admitted::Waits(first) = wait(Some(first)) else { panic!() };
            upstreams.cancel(second, now);
            upstreams.release(id, false, now);
            assert_eq!(wait(Some(first)), Admitted::Granted(id));
        },
    );
    assert_eq!(times, 5, "every waker was dropped");
}

#[test]
fn the_queue_for_places_lets_go_of_wakers_outside_its_lock() {
    let root = Arc::new(Lifecycle::new(1));
    let locked = root.clone();
    let times = foreign(
        move || locked.is_locked(),
        || {
            let (mut first, mut second) = (None, None);
            let member = root.join(true);
            let join = |waiting: &mut _| root.poll_join(waiting, &Context::from_waker(&waker())).is_pending();
            assert!(join(&mut first) && join(&mut first) && join(&mut second));
            drop(second);
            drop(member);
            assert!(root.poll_join(&mut first, &Context::from_waker(&waker())).is_ready());
        },
    );
    assert_eq!(times, 4, "every waker was dropped");
}

#[test]
fn a_lookup_lets_go_of_wakers_outside_its_lock() {
    let (answer, lookup) = Lookup::new();
    let mut lookup = Some(Box::pin(lookup));
    let answer = Rc::new(answer);
    let locked = answer.clone();
    let times = foreign(
        move || locked.is_locked(),
        || {
            for _ in 0..2 {
                let polled = lookup.as_mut().map(|l| l.as_mut().poll(&mut Context::from_waker(&waker())));
                assert!(polled.is_some_and(|polled| polled.is_pending()));
            }
            lookup = None;
        },
    );
    assert_eq!(times, 2, "every waker was dropped");
}

fn keeper(proxy: &Proxy<Fake>) -> Pin<Box<Keeper<Fake>>> {
    Box::pin(proxy.keeper())
}

fn poll(keeper: &mut Pin<Box<Keeper<Fake>>>) {
    assert!(keeper.as_mut().poll(&mut Context::from_waker(&waker())).is_pending());
}

#[test]
fn the_idle_pool_lets_go_of_wakers_and_connections_outside_its_lock() {
    let fake = Fake::new();
    let address = SocketAddr::from(([192, 0, 2, 1], 1));
    let proxy = Proxy::new(fake.clone(), Upstreams::new([address]), Config::default());
    let id = proxy.upstreams().list()[0].0;
    let shared = proxy.shared();
    let locked = shared.clone();
    let put = |until| {
        let peer = peer();
        shared.idle.put(
            id,
            fake.stream(&peer),
            Instant::EPOCH..Instant::from_millis(until),
            &shared.upstreams,
        );
        peer
    };
    let times = foreign(
        move || locked.idle.is_locked() || locked.upstreams.is_locked(),
        || {
            let mut first = keeper(&proxy);
            poll(&mut first);
            let dead = put(100);
            put(100);
            // The keeper runs in another task, and finds one that has died.
            at(&dead, |p| p.fin = true);
            poll(&mut first);
            assert_eq!(proxy.gauges().idle_upstreams, 1);
            // Another keeper takes over, and what is too old goes.
            let mut second = keeper(&proxy);
            drop(first);
            fake.set_clock(100);
            poll(&mut second);
            // One that was first for so long that a connection was put to it, and never ran meanwhile, is gone, too.
            let mut third = keeper(&proxy);
            poll(&mut third);
            put(130);
            drop(second);
            put(130);
            drop(third);
            let mut second = keeper(&proxy);
            poll(&mut second);
            // One dies on its way in; one is too old for whoever asks; the last goes with the pool.
            let dead = peer();
            dead.borrow_mut().fin = true;
            shared.idle.put(id, fake.stream(&dead), Instant::EPOCH..Instant::NEVER, &shared.upstreams);
            put(150);
            let mut cx = Context::from_waker(Waker::noop());
            assert!(shared.idle.take(id, Instant::from_millis(150), &mut cx).is_none());
            put(200);
            proxy.stop();
            put(300);
        },
    );
    // Six connections, and the wakers that were replaced.
    assert!(times >= 8, "{times}");
    assert_eq!(fake.open(), 0);
}
