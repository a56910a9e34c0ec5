//! A proxy in a process of its own, for a case that stops a whole process from outside (`timeouts.md` A-20): the test
//! program starts itself again, for that one test, and tells it by an environment variable what to serve.
//!
//! The child serves one request and says how it ended; everybody else, and the judging, stays in the parent.

use std::future::{Future, poll_fn};
use std::io::{self, BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::pin::pin;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, mpsc};
use std::task::Poll;
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};
use tidegate_core::{Config, Decision, Error, Proxy, TimeoutPolicy, Upstreams, runtime};

use crate::beside;
use crate::counted::{Counted, Counts};
use crate::gauges;
use crate::harness::{Harness, sleep};
use crate::run_virtual::{Observe, Route};

/// The variable. Whoever finds it set is a child.
const ORDERS: &str = "TIDEGATE_CONFORMANCE_CHILD";

/// What marks the child's words among those of its test.
const WORD: &str = "tidegate-child: ";

/// Longer than any case takes: then a child ends although nobody has told it to.
const BOUND: Duration = Duration::from_secs(20);

/// What a child serves.
#[derive(Copy, Clone, Debug)]
pub(crate) struct Orders {
    pub(crate) policy: TimeoutPolicy,
    pub(crate) upstream: SocketAddr,
}

impl Orders {
    /// Of the limits, those that a case in a child is about.
    fn write(&self) -> String {
        let millis = |limit: Option<Duration>| limit.map_or(0, |limit| limit.as_millis());
        format!("{} {} {}", millis(self.policy.read), millis(self.policy.total), self.upstream)
    }

    fn read(text: &str) -> Option<Orders> {
        let mut words = text.split(' ');
        let mut limit = || {
            let millis = words.next()?.parse().ok()?;
            Some(Some(Duration::from_millis(millis)).filter(|limit| !limit.is_zero()))
        };
        let policy = TimeoutPolicy { read: limit()?, total: limit()?, ..TimeoutPolicy::OFF };
        Some(Orders { policy, upstream: words.next()?.parse().ok()? })
    }
}

/// Serves, if this process is a child; false if it is none.
pub(crate) fn enter<H: Harness>() -> bool {
    let Some(orders) = std::env::var(ORDERS).ok() else { return false };
    if let Some(orders) = Orders::read(&orders) {
        serve::<H>(orders, |word| println!("\n{WORD}{word}"));
    }
    true
}

/// Serves until one request is over: says where, and how it ended.
pub(crate) fn serve<H: Harness>(orders: Orders, say: impl Fn(String) + Clone + Send + Sync + 'static) {
    H::block_on(|runtime| async move {
        let bound = runtime::bind(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)));
        let Ok((bound, at)) = bound.and_then(|bound| bound.local_addr().map(|at| (bound, at))) else {
            return;
        };
        let Ok(listener) = H::listener(bound) else { return };
        let config = Config { timeouts: orders.policy, ..Config::default() };
        let counted = Counted::new(runtime.clone(), &Counts::default());
        let proxy = Proxy::new(counted, Upstreams::new([orders.upstream]), config);
        let (over, told) = (Arc::new(AtomicBool::new(false)), say.clone());
        let ends = Arc::clone(&over);
        let observe: Observe = Box::new(move |report| {
            told(match report.error {
                None => String::from("success"),
                Some(Error::Timeout(timeout)) => timeout.kind.to_string(),
                Some(other) => format!("{other:?}"),
            });
            ends.store(true, Ordering::Release);
        });
        let forward: Route = Box::new(|_| Decision::forward());
        let mut server = pin!(proxy.serve(listener, forward, observe));
        let mut bound = pin!(sleep(&runtime, BOUND));
        let mut first = Some(at);
        // The outcome is seen at the next look, of which there is one every so often.
        let mut look = Box::pin(sleep(&runtime, Duration::from_millis(5)));
        poll_fn(|cx| {
            let _ = server.as_mut().poll(cx);
            if let Some(at) = first.take() {
                say(at.to_string());
            }
            while look.as_mut().poll(cx).is_ready() {
                look = Box::pin(sleep(&runtime, Duration::from_millis(5)));
            }
            if over.load(Ordering::Acquire) { Poll::Ready(()) } else { bound.as_mut().poll(cx) }
        })
        .await;
        // What is on its way to the client gets there.
        proxy.drain();
        let mut rest = pin!(sleep(&runtime, Duration::from_millis(100)));
        poll_fn(
            |cx| if server.as_mut().poll(cx).is_ready() { Poll::Ready(()) } else { rest.as_mut().poll(cx) },
        )
        .await;
    });
}

/// A child, or what plays one in a thread of this process and cannot be stopped. It ends when this is dropped.
pub(crate) struct Child {
    words: mpsc::Receiver<String>,
    process: Option<std::process::Child>,
}

impl Child {
    /// Starts this program again, for the test of this name alone.
    pub(crate) fn start(test: &str, orders: Orders) -> io::Result<Child> {
        let mut process = Command::new(std::env::current_exe()?)
            .args(["--exact", test, "--nocapture"])
            .env(ORDERS, orders.write())
            .env_remove(beside::PART)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::inherit())
            .spawn()?;
        let (word, words) = mpsc::channel();
        if let Some(out) = process.stdout.take() {
            thread::spawn(move || {
                for line in BufReader::new(out).lines().map_while(Result::ok) {
                    if let Some((_, said)) = line.split_once(WORD) {
                        let _ = word.send(said.to_owned());
                    }
                }
            });
        }
        Ok(Child { words, process: Some(process) })
    }

    /// Plays one here.
    pub(crate) fn here<H: Harness>(orders: Orders) -> Child {
        let (word, words) = mpsc::channel();
        thread::spawn(move || {
            serve::<H>(orders, move |said| {
                let _ = word.send(said);
            });
        });
        Child { words, process: None }
    }

    /// The next thing that it says.
    pub(crate) fn says(&self) -> Option<String> {
        self.words.recv_timeout(Duration::from_secs(5)).ok()
    }

    /// Stops it, and comes back when it stands still.
    pub(crate) fn stop(&self) -> bool {
        let Some(process) = &self.process else { return true };
        let stat = format!("/proc/{}/stat", process.id());
        let state = || {
            let text = std::fs::read_to_string(&stat).unwrap_or_default();
            text.rsplit(')').next().and_then(|rest| rest.trim_start().chars().next())
        };
        self.signal(Signal::STOP)
            && gauges::settle(Duration::from_secs(1), state, |s| *s == Some('T')) == Some('T')
    }

    /// Lets it go on.
    pub(crate) fn go_on(&self) -> bool {
        self.signal(Signal::CONT)
    }

    fn signal(&self, signal: Signal) -> bool {
        let Some(process) = &self.process else { return true };
        Pid::from_raw(process.id().cast_signed()).is_some_and(|pid| kill_process(pid, signal).is_ok())
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if let Some(process) = &mut self.process {
            let _ = process.kill();
            let _ = process.wait();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::script::ms;

    #[test]
    fn orders_are_read_as_they_were_written() {
        let policy = TimeoutPolicy { read: Some(ms(200)), ..TimeoutPolicy::OFF };
        let orders = Orders { policy, upstream: SocketAddr::from(([127, 0, 0, 1], 80)) };
        let read = Orders::read(&orders.write());
        assert_eq!(read.map(|orders| (orders.policy, orders.upstream)), Some((policy, orders.upstream)));
        assert!(Orders::read("1 2").is_none());
    }
}
