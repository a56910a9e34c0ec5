//! Cases that run a few of the others where they are not at home: on an executor that moves every connection to another
//! thread at each poll (`timeouts.md` A-09), and on one that is not the adapter's.

use std::cell::Cell;
use std::future::Future;
use std::io;
use std::marker::PhantomData;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::panic::{self, AssertUnwindSafe};
use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::task::{Context, Poll, Wake, Waker};
use std::thread::{self, Thread};

use tidegate_core::runtime;

use crate::attempt::{About, Failure, Lateness, Skips};
use crate::cases;
use crate::harness::Harness;
use crate::migrate::{MOVES, Migrating};
use crate::script::Case;
use crate::transcript::Transcript;
use crate::verdict::{oracle, real};
use crate::watch::Machine;

/// A case of this kind on a harness, or why it does not apply.
#[derive(Debug)]
pub struct Abroad {
    run: Result<Run, &'static str>,
    cases: &'static [&'static str],
}

type Run = fn(&Known) -> Result<Lateness, Failure>;

/// The cases that run, what ought to happen in them, and how many have passed.
struct Known {
    cases: Vec<(Arc<Case>, Transcript)>,
    passed: Cell<usize>,
}

impl Known {
    /// Runs those that have not passed yet.
    fn run<H: Harness>(&self) -> Result<Lateness, Failure> {
        let mut late = Lateness::new();
        for (case, oracle) in &self.cases[self.passed.get()..] {
            late.extend(real::<H>(case, oracle)?);
            self.passed.set(self.passed.get() + 1);
        }
        // If it is asked again, it is for all of them.
        self.passed.set(0);
        Ok(late)
    }
}

/// What holds whatever the machine did: it fails at once.
fn wrong(words: String) -> Failure {
    Failure { words, machine: Machine::default(), certain: true, late_only: false }
}

/// The cases on a harness. Those that only some can have are methods twice: of this type where the bounds hold, and of
/// [`Home`] where they do not.
#[derive(Debug)]
pub struct At<H>(PhantomData<fn() -> H>);

impl<H: Harness> At<H> {
    /// On a harness.
    pub fn harness() -> At<H> {
        At(PhantomData)
    }

    /// On an executor that is not the adapter's.
    pub fn a_11_wrong_runtime(&self) -> Abroad {
        let run: Result<Run, _> = match outside::<H>() {
            Some(Ok(_)) => Ok(|known| known.run::<Guest<H>>()),
            Some(Err(_)) => Ok(|_| refuses::<H>().map(|()| Lateness::new())),
            None => Err("the adapter is made of its executor and cannot be without it"),
        };
        Abroad { run, cases: &["c_01_hang", "r_06_stall_in_a_chunked_body", "u_04_half_close_client_first"] }
    }
}

/// What a case moves: of each kind one, the long ones apart.
const MOVED: &[&str] = &[
    "c_01_hang",
    "c_17_next_upstream",
    "q_05_client_stalls",
    "r_01_silent",
    "r_06_stall_in_a_chunked_body",
    "t_02_outer_first",
    "k_03_slowloris",
    "p_01_poison",
    "u_04_half_close_client_first",
    "s_02_drain_expires_in_the_body",
];

impl<H: Harness> At<H>
where
    Migrating<H>: Harness,
{
    /// Every connection on another thread at each poll.
    pub fn a_09_migration(&self) -> Abroad {
        let run: Run = |known| {
            let before = MOVES.load(Ordering::Relaxed);
            let late = known.run::<Migrating<H>>()?;
            if MOVES.load(Ordering::Relaxed) == before {
                return Err(wrong(String::from("no connection was moved: a fault of the suite")));
            }
            Ok(late)
        };
        Abroad { run: Ok(run), cases: MOVED }
    }
}

/// Cases that a harness cannot have.
pub trait Home {
    /// Connections that are not `Send` are on one thread for ever.
    fn a_09_migration(&self) -> Abroad {
        Abroad { run: Err("its connections are not `Send`, so no executor can move them"), cases: MOVED }
    }
}

impl<H> Home for At<H> {}

/// Runs a case of this kind unless it is skipped, and panics unless it holds.
///
/// # Panics
///
/// If the case fails; that is its purpose.
#[track_caller]
pub fn check_abroad<H: Harness>(name: &'static str, case: &Abroad, skips: &Skips) {
    let mut skips = skips.to_vec();
    if let Err(why) = case.run {
        skips.push((name, why));
    }
    let known = || {
        let few = cases::few().into_iter().filter(|(name, _)| case.cases.contains(name));
        let few = few.map(|(_, case)| Arc::new(case()));
        let cases = few.map(|case| (Arc::clone(&case), oracle(&case))).collect();
        Known { cases, passed: Cell::new(0) }
    };
    About::named(name, false).attempt::<H, _>(&skips, known, |known| match case.run {
        Ok(run) => run(known),
        Err(why) => Err(wrong(why.to_owned())),
    });
}

/// Where its runtime is not, an adapter that cannot work says so when it is made, in words, and so does its listener.
fn refuses<H: Harness>() -> Result<(), Failure> {
    let bound = runtime::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
    let listener = bound.and_then(|bound| no_panic(|| H::listener(bound)).map(drop));
    refused("the adapter", outside::<H>().map_or(Ok(()), |made| made.map(drop)))?;
    refused("a listener", listener)
}

fn outside<H: Harness>() -> Option<io::Result<H::Runtime>> {
    no_panic(|| H::outside().transpose()).transpose()
}

/// Who panics does not refuse in words.
fn no_panic<T>(make: impl FnOnce() -> io::Result<T>) -> io::Result<T> {
    panic::catch_unwind(AssertUnwindSafe(make))
        .unwrap_or_else(|_| Err(io::Error::other("it panics instead of returning an error")))
}

fn refused(what: &str, made: io::Result<()>) -> Result<(), Failure> {
    match made {
        Err(e) if e.to_string().contains("runtime") => Ok(()),
        Err(e) => {
            Err(wrong(format!("{what} is refused outside the runtime, in words that do not name it: {e}")))
        }
        Ok(()) => {
            Err(wrong(format!("{what} can be made outside the runtime, where the other part is refused")))
        }
    }
}

/// A harness whose adapter runs on an executor that knows nothing of it: this thread, which sleeps until it is woken.
struct Guest<H>(PhantomData<fn() -> H>);

impl<H: Harness> Harness for Guest<H> {
    type Runtime = H::Runtime;
    type Listener = H::Listener;
    const NAME: &'static str = H::NAME;

    fn block_on<F: Future<Output = T>, T>(main: impl FnOnce(H::Runtime) -> F) -> T {
        match outside::<H>() {
            Some(Ok(runtime)) => sleep_on(main(runtime)),
            Some(Err(e)) => panic!("the adapter was made outside its runtime once, and then no more: {e}"),
            None => panic!("the adapter was made outside its runtime once, and then no more"),
        }
    }

    fn listener(bound: TcpListener) -> io::Result<H::Listener> {
        H::listener(bound)
    }
}

struct Sleeper(Thread);

impl Wake for Sleeper {
    fn wake(self: Arc<Self>) {
        self.0.unpark();
    }
}

fn sleep_on<T>(future: impl Future<Output = T>) -> T {
    let mut future = pin!(future);
    let waker = Waker::from(Arc::new(Sleeper(thread::current())));
    let mut cx = Context::from_waker(&waker);
    loop {
        match future.as_mut().poll(&mut cx) {
            Poll::Ready(done) => return done,
            Poll::Pending => thread::park(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refusal_names_the_runtime() {
        let words = |made| refused("a listener", made).err().map(|failure| failure.words).unwrap_or_default();
        assert_eq!(words(Err(io::Error::other("there is no runtime"))), "");
        assert!(words(Err(io::Error::other("no"))).contains("do not name it"));
        assert!(words(Ok(())).contains("can be made outside"));
        assert!(words(no_panic(|| std::panic::resume_unwind(Box::new(0)))).contains("panics"));
    }
}
