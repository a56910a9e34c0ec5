//! Runs the cases about `wait_for`: in virtual time, then on a runtime.

use std::cell::Cell;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::rc::Rc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::thread;
use std::time::{Duration, Instant};

use crate::attempt::{About, Failure, Lateness, Skips};
use crate::cases::wait::{EARLY, Env, WaitCase, test_name_of};
use crate::exec::block;
use crate::expect::SLACK_VIRTUAL;
use crate::gauges::{self, TcpState};
use crate::harness::{Harness, warm_up};
use crate::verdict::slack;
use crate::virtual_rt::{Owner, Ran, World};
use crate::watch::Watch;

/// Longer than any case takes.
const BOUND: Duration = Duration::from_secs(10);

/// What a run gave.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WaitRun {
    /// The log.
    pub lines: Vec<String>,
    /// How long it took.
    pub took: Duration,
}

/// Runs a case in virtual time.
///
/// # Panics
///
/// If the case fails; that is its purpose.
#[track_caller]
pub fn check_wait_virtual<C: WaitCase>() -> WaitRun {
    match run_wait_virtual::<C>(World::new()) {
        Ok(run) => match judge::<C>("in virtual time", &run, SLACK_VIRTUAL) {
            None => run,
            Some(wrong) => panic!("{wrong}"),
        },
        Err(ran) => panic!("{} {} fails in virtual time: it never ends ({ran:?})", C::ID, C::TITLE),
    }
}

/// Whether a case fails where it ought to: in a world whose clocks stand still.
pub fn wait_can_fail<C: WaitCase>() -> bool {
    let world = World::new();
    world.break_clocks();
    run_wait_virtual::<C>(world).map_or(true, |run| run.lines != C::LINES || run.took < C::LIMIT)
}

fn run_wait_virtual<C: WaitCase>(world: World) -> Result<WaitRun, Ran> {
    let (runtime, peer) = (world.runtime(Owner::Proxy), world.runtime(Owner::Peer));
    let at = runtime.free_address();
    let _listener = peer.listen(at, 16);
    let gauge = runtime.clone();
    let clock = world.clone();
    let env = Env::new(runtime, at, move || gauge.established(at), move |d| clock.block(d));
    let result = Rc::new(Cell::new(None));
    let done = Rc::clone(&result);
    world.spawn(Owner::Proxy, async move {
        let took = C::run(&env).await;
        done.set(Some((env, took)));
    });
    let ran = block(world.run_until(world.now() + BOUND, || world.tasks(Owner::Proxy) == 0));
    match result.take() {
        Some((env, took)) if ran == Ran::Done => Ok(WaitRun { lines: env.finish(), took }),
        _ => Err(ran),
    }
}

/// Runs a case in virtual time and on the harness's runtime, unless it is skipped.
///
/// # Panics
///
/// If the case fails; that is its purpose.
#[track_caller]
pub fn check_wait<H: Harness, C: WaitCase>(skips: &Skips) {
    let name = test_name_of::<C>();
    let about =
        About { name: &name, id: C::ID.into(), title: C::TITLE.into(), alone: C::ALONE, needs: C::NEEDS };
    about.attempt::<H, _>(skips, check_wait_virtual::<C>, |_| run_wait::<H, C>());
}

/// Runs a case on the runtime; how late it ended.
fn run_wait<H: Harness, C: WaitCase>() -> Result<Lateness, Failure> {
    warm_up::<H>();
    let before = gauges::sockets();
    // How long the looks at the kernel's table took: many milliseconds if it holds thousands of old rows.
    let looking = Arc::new(AtomicU64::new(0));
    let looked = Arc::clone(&looking);
    let watch = Watch::start();
    let looks = watch.looks();
    let (sender, receiver) = mpsc::channel();
    let thread = thread::spawn(move || {
        // Declared first, so that it is closed last.
        let listener = match TcpListener::bind((Ipv4Addr::LOCALHOST, 0)) {
            Ok(listener) => listener,
            Err(e) => panic!("the suite could not listen: {e}"),
        };
        let at = listener.local_addr().unwrap_or_else(|_| SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let looked = Arc::clone(&looking);
        let established = move || {
            let began = Instant::now();
            let rows = gauges::rows_to(&[at.port()]);
            looked.fetch_add(began.elapsed().as_micros() as u64, Ordering::Relaxed);
            rows.iter().filter(|row| row.state == TcpState::Established).count()
        };
        let (env, took) = H::block_on(|runtime| async move {
            let env = Env::new(runtime, at, established, thread::sleep);
            let took = C::run(&env).await;
            looks.look();
            (env, took)
        });
        let _ = sender.send(WaitRun { lines: env.finish(), took });
    });
    let (mut late, mut failed) = (Lateness::new(), None);
    match receiver.recv_timeout(BOUND) {
        Ok(run) => {
            let looking = Duration::from_micros(looked.load(Ordering::Relaxed));
            let machine = watch.stop();
            let late_by_itself = machine.late + looking;
            let certain = is_early::<C>(&run) || is_out_of_order::<C>(&run);
            let late_only = run.lines == C::LINES && run.took >= C::LIMIT;
            failed = judge::<C>(&format!("on {}", H::NAME), &run, slack().slack + late_by_itself)
                .map(|words| Failure { words, machine, certain, late_only });
            if !C::LIMIT.is_zero() {
                late.push(run.took.saturating_sub(C::LIMIT + looking));
            }
        }
        // It panicked.
        Err(mpsc::RecvTimeoutError::Disconnected) => {}
        Err(_) => panic!("{} {} fails on {}: it never ends", C::ID, C::TITLE, H::NAME),
    }
    if let Err(panic) = thread.join() {
        std::panic::resume_unwind(panic);
    }
    let left = gauges::settle(Duration::from_secs(1), gauges::sockets, |n| *n <= before);
    assert!(
        left <= before,
        "{} {} on {}: {left} sockets after it, {before} before",
        C::ID,
        C::TITLE,
        H::NAME
    );
    failed.map_or(Ok(late), Err)
}

/// Whether something came before it was due, which no machine excuses. Where something else happened than ought to have, it is
/// not the case's limit that was too short: then what the case found early itself counts, and says so.
fn is_early<C: WaitCase>(run: &WaitRun) -> bool {
    let found = run.lines.iter().any(|line| line.contains(EARLY));
    found || run.lines == C::LINES && run.took < C::LIMIT
}

/// Whether what ought to have happened did, in another order. A machine that is late leads to other events, not to these.
fn is_out_of_order<C: WaitCase>(run: &WaitRun) -> bool {
    let sorted = |lines: &mut dyn Iterator<Item = &str>| {
        let mut lines: Vec<_> = lines.map(str::to_owned).collect();
        lines.sort();
        lines
    };
    let (here, there) = (&mut run.lines.iter().map(String::as_str), &mut C::LINES.iter().copied());
    run.lines != C::LINES && sorted(here) == sorted(there)
}

/// What is wrong with a run.
#[must_use]
fn judge<C: WaitCase>(place: &str, run: &WaitRun, slack: Duration) -> Option<String> {
    let (id, title, limit, took) = (C::ID, C::TITLE, C::LIMIT, run.took);
    let latest = limit + slack;
    let wrong = if run.lines != C::LINES {
        let (expected, lines) = (C::LINES, &run.lines);
        format!("something else happened, or in another order\n expected: {expected:?}\n happened: {lines:?}")
    } else if took < limit {
        format!("it ended after {took:?} of {limit:?}: EARLY, which no runtime is allowed to be")
    } else if took >= latest {
        format!("it ended after {took:?}, later than {latest:?}")
    } else {
        return None;
    };
    Some(format!("{id} {title} fails {place}: {wrong}"))
}

#[cfg(test)]
mod tests {
    use tidegate_core::runtime::Runtime;

    use super::*;

    /// Does nothing, and ought to have waited.
    struct Idle;

    impl WaitCase for Idle {
        const ID: &'static str = "W-00";
        const TITLE: &'static str = "nothing";
        const LINES: &'static [&'static str] = &[];
        const LIMIT: Duration = Duration::from_millis(5);

        async fn run<R: Runtime + Clone + 'static>(_env: &Env<R>) -> Duration {
            Duration::ZERO
        }
    }

    #[test]
    fn what_a_case_finds_early_itself_is_early_too() {
        let run = |line: &str, took| WaitRun { lines: vec![line.to_owned()], took };
        assert!(is_early::<Idle>(&run(&format!("fired {EARLY}"), Idle::LIMIT)));
        assert!(is_early::<Idle>(&WaitRun { lines: Vec::new(), took: Duration::ZERO }));
        assert!(!is_early::<Idle>(&run("something else", Duration::ZERO)));
    }

    #[test]
    fn the_same_events_in_another_order_are_wrong_on_any_machine() {
        type Ordered = crate::cases::wait::w_04_plain_timeout;
        let run = |lines: &[&str]| WaitRun {
            lines: lines.iter().map(|line| String::from(*line)).collect(),
            took: Duration::ZERO,
        };
        let [first, second] = Ordered::LINES else { panic!("two lines") };
        assert!(is_out_of_order::<Ordered>(&run(&[second, first])));
        assert!(!is_out_of_order::<Ordered>(&run(&[first, second])));
        assert!(!is_out_of_order::<Ordered>(&run(&[second])));
    }

    #[test]
    #[should_panic(expected = "W-00 nothing fails in virtual time: it ended after 0ns of 5ms: EARLY")]
    fn a_case_that_ends_early_in_virtual_time_fails() {
        check_wait_virtual::<Idle>();
    }
}
