//! How late the machine itself is while a case runs: what a busy machine adds to the upper end of every window.
//!
//! Two measurements of time are added up, both without any runtime:
//!
//! - an event is passed along a chain of threads, again and again, and the worst trip counts;
//! - the chain may be lucky where the thread that matters was not. So the system is asked how long each thread of this
//!   process was ready to run and did not get a core (Linux). What a case waits for is never one wake-up: a deadline wakes
//!   the thread of a timer, that one perhaps another worker, that one a peer; where another upstream is connected to, it is a
//!   dozen, one after the other. So these waits add up, within the time that a limit of a case takes, but for those that
//!   others waited at the same time. The kernel's threads that deliver packets on a busy machine are asked too, where they
//!   can be seen: a peer whose packet waits for them waits for no core.
//!
//! And Linux counts the packets that it drops, loopback's too, because more came at once than a core had room for. What is
//! lost is sent again later than most limits of a case.
//!
//! An adapter that is late by itself shows in none of these. Nothing here shortens a window or moves its lower end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::board::lock;

/// How often the chain is started.
const NAP: Duration = Duration::from_millis(5);

/// How many threads pass an event on before the one that napped gets it back: a timer, a worker, a peer.
const LINKS: usize = 3;

/// No limit of a case is longer by much.
const LIMIT: Duration = Duration::from_millis(500);

/// The threads are asked about every so many trips: a hundred of them cost a millisecond.
const TRIPS: usize = 4;

/// What a machine did to a case.
#[derive(Copy, Clone, Debug, Default)]
pub(crate) struct Machine {
    /// The worst trip along the chain, and the longest wait of a thread.
    pub(crate) at_once: Duration,
    /// The worst trip, and all waits together: how late what is due may be.
    pub(crate) late: Duration,
    /// Packets that it dropped, of whatever process.
    pub(crate) dropped: u64,
}

/// A measurement under way.
pub(crate) struct Watch {
    stop: Arc<AtomicBool>,
    waits: Looks,
    dropped: u64,
    thread: JoinHandle<io::Result<Machine>>,
}

/// Looks at the threads once more: before some of them end, and what they waited is forgotten.
#[derive(Clone, Default)]
pub(crate) struct Looks(Arc<Mutex<Waits>>);

impl Looks {
    pub(crate) fn look(&self) {
        lock(&self.0).look();
    }
}

impl Watch {
    pub(crate) fn start() -> Watch {
        let stop = Arc::new(AtomicBool::new(false));
        let (stopped, waits) = (Arc::clone(&stop), Looks::default());
        let looks = waits.clone();
        // Here, since a busy machine may not start a thread before all is over; and how long it takes to, counts too.
        waits.look();
        let (began, dropped) = (Instant::now(), dropped());
        Watch { stop, waits, dropped, thread: thread::spawn(move || measure(&stopped, &looks, began)) }
    }

    pub(crate) fn looks(&self) -> Looks {
        self.waits.clone()
    }

    /// The worst that was seen.
    pub(crate) fn stop(self) -> Machine {
        self.stop.store(true, Ordering::Relaxed);
        // Without descriptors there is no measurement, and no allowance.
        let machine = self.thread.join().ok().and_then(Result::ok).unwrap_or_default();
        Machine { dropped: dropped().saturating_sub(self.dropped), ..machine }
    }
}

/// Packets that found no room in a core's backlog, since the system began: on each core's line, the second number.
fn dropped() -> u64 {
    counted(&fs::read_to_string("/proc/net/softnet_stat").unwrap_or_default())
}

fn counted(softnet: &str) -> u64 {
    let of_core = |line: &str| u64::from_str_radix(line.split_whitespace().nth(1)?, 16).ok();
    softnet.lines().filter_map(of_core).sum()
}

fn measure(stopped: &AtomicBool, waits: &Looks, began: Instant) -> io::Result<Machine> {
    // Unix sockets, which no gauge counts. Each thread ends when the one before it does.
    let (mut first, mut last) = UnixStream::pair()?;
    let mut links = Vec::new();
    let (own, ids) = mpsc::channel();
    let _ = own.send(thread_id());
    for _ in 0..LINKS {
        let (to, next) = UnixStream::pair()?;
        let from = std::mem::replace(&mut last, next);
        let own = own.clone();
        links.push(thread::spawn(move || {
            let _ = own.send(thread_id());
            drop(own);
            pass_on(from, to);
        }));
    }
    drop(own);
    lock(&waits.0).measuring = ids.into_iter().flatten().collect();
    let (mut worst, mut event) = (began.elapsed(), [0]);
    for trip in 1.. {
        let began = Instant::now();
        thread::sleep(NAP);
        first.write_all(&event)?;
        last.read_exact(&mut event)?;
        worst = worst.max(began.elapsed().saturating_sub(NAP));
        let is_over = stopped.load(Ordering::Relaxed);
        if is_over || trip % TRIPS == 0 {
            waits.look();
        }
        if is_over {
            break;
        }
    }
    drop(first);
    for link in links {
        let _ = link.join();
    }
    let waits = lock(&waits.0);
    let late = worst + waits.longest.max(waits.most);
    Ok(Machine { at_once: worst + waits.longest, late, dropped: 0 })
}

fn pass_on(mut from: UnixStream, mut to: UnixStream) {
    let mut event = [0];
    while from.read_exact(&mut event).and_then(|()| to.write_all(&event)).is_ok() {}
}

/// Of the calling thread, as the system counts them.
fn thread_id() -> Option<u64> {
    fs::read_link("/proc/thread-self").ok()?.file_name()?.to_str()?.parse().ok()
}

/// The kernel's threads that deliver packets, below `/proc`. A process in a namespace of its own sees none.
fn delivering() -> &'static [PathBuf] {
    static THREADS: OnceLock<Vec<PathBuf>> = OnceLock::new();
    THREADS.get_or_init(|| {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten().map(|process| process.path());
        all.filter(|process| fs::read_to_string(process.join("comm")).is_ok_and(|name| delivers(&name)))
            .collect()
    })
}

fn delivers(comm: &str) -> bool {
    comm.starts_with("ksoftirqd/")
}

/// How long the threads of this process, and those that deliver its packets, waited for a core.
#[derive(Default)]
struct Waits {
    /// The threads of the measurement itself.
    measuring: BTreeSet<u64>,
    /// When it was looked for the first time.
    began: Option<Instant>,
    /// By thread, as the system counts it.
    total: BTreeMap<u64, Duration>,
    /// The longest between two looks. A wait counts when it is over, so a long one counts as a whole.
    longest: Duration,
    /// Of the last looks, when each was and how long somebody waited since the one before.
    recent: VecDeque<(Instant, Duration)>,
    /// The most that these came to.
    most: Duration,
}

impl Waits {
    fn look(&mut self) {
        let Ok(threads) = fs::read_dir("/proc/self/task") else { return };
        let own = threads.flatten().map(|thread| thread.path());
        let mut total = BTreeMap::new();
        for thread in own.chain(delivering().iter().cloned()) {
            let id = thread.file_name().and_then(|name| name.to_str()?.parse().ok());
            let text = fs::read_to_string(thread.join("schedstat"));
            // Nanoseconds: on a core, waiting for one.
            let wait = text.ok().and_then(|text| text.split_whitespace().nth(1)?.parse().ok());
            if let (Some(id), Some(wait)) = (id, wait) {
                total.insert(id, Duration::from_nanos(wait));
            }
        }
        let now = Instant::now();
        let (mut sum, mut longest) = (Duration::ZERO, Duration::ZERO);
        for (id, wait) in total.iter().filter(|(id, _)| !self.measuring.contains(id)) {
            // A thread that is new has waited since it began.
            let before = self.total.get(id).copied().unwrap_or_default();
            let waited = wait.saturating_sub(before);
            longest = longest.max(waited);
            sum += waited;
        }
        // What was waited before counts as a whole when it is over; but nobody was held up for longer than this lasts, at once
        // or one wait after the other.
        let lasts = now - *self.began.get_or_insert(now);
        longest = longest.min(lasts);
        if let Some((before, _)) = self.recent.back() {
            self.longest = self.longest.max(longest);
            // Several may have waited at the same time, but nobody for longer than it lasted.
            let waited = sum.min((now - *before).max(longest));
            self.recent.push_back((now, waited));
            self.recent.retain(|(at, _)| *at + LIMIT > now);
            let all: Duration = self.recent.iter().map(|(_, waited)| *waited).sum();
            self.most = self.most.max(all.min(lasts));
        } else {
            // What the threads waited before anything was measured says nothing.
            self.recent.push_back((now, Duration::ZERO));
        }
        self.total = total;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Threads that want the cores too are what makes a thread late.
    #[test]
    fn a_busy_machine_shows() {
        let stop = Arc::new(AtomicBool::new(false));
        let cores = thread::available_parallelism().map_or(1, usize::from);
        let busy: Vec<_> = (0..4 * cores)
            .map(|_| {
                let stop = Arc::clone(&stop);
                thread::spawn(move || while !stop.load(Ordering::Relaxed) {})
            })
            .collect();
        let began = Instant::now();
        let watch = Watch::start();
        thread::sleep(Duration::from_millis(600));
        let machine = watch.stop();
        let took = began.elapsed();
        stop.store(true, Ordering::Relaxed);
        busy.into_iter().for_each(|thread| thread.join().expect("it only spins"));
        assert!(machine.at_once > Duration::from_micros(500), "{machine:?}");
        // Of eight threads on two cores six wait at any time, but time passes once.
        assert!(machine.late > Duration::from_millis(100), "{machine:?}");
        assert!(machine.late < 3 * took, "{machine:?} in {took:?}");
    }

    #[test]
    fn threads_that_deliver_packets_are_asked_where_they_can_be_seen() {
        let mut waits = Waits::default();
        waits.look();
        for thread in delivering() {
            let id = thread.file_name().and_then(|name| name.to_str()).and_then(|name| name.parse().ok());
            assert!(waits.total.contains_key(&id.expect("a process is a number")), "{thread:?}");
        }
        assert!(delivers("ksoftirqd/0\n") && !delivers("kworker/0:1\n") && !delivers("tidegate\n"));
        assert_eq!(delivering().is_empty(), !delivering_is_visible());
    }

    /// Another way to find one of them: what the first line of its state names.
    fn delivering_is_visible() -> bool {
        let all = fs::read_dir("/proc").into_iter().flatten().flatten();
        let mut states = all.filter_map(|process| fs::read_to_string(process.path().join("status")).ok());
        states.any(|state| state.starts_with("Name:\tksoftirqd/"))
    }

    #[test]
    fn dropped_packets_are_the_second_number_of_each_core() {
        let two = "071a77c3 0000524b 00000005 00000000\n06d58f96 000033b7 00000002 00000000\n";
        assert_eq!(counted(two), 0x524b + 0x33b7);
        assert_eq!(counted(""), 0);
        let machine = Machine { dropped: 1, ..Machine::default() };
        let of = |machine| crate::attempt::Failure {
            words: String::new(),
            machine,
            certain: false,
            late_only: false,
        };
        assert!(of(machine).shows_nothing() && !of(Machine::default()).shows_nothing());
    }
}
