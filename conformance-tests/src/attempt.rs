//! One attempt at a case on one runtime: whether it is skipped, when its turn is, and the line about it that the
//! report reads. What the case does, and whether it holds, is decided elsewhere.

use std::any::Any;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::panic::{self, AssertUnwindSafe};
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde_json::json;

use crate::beside;
use crate::harness::Harness;
use crate::watch;

/// The environment variable that names a directory for results: a line of JSON for each case, in a file for each
/// process. Nothing is written if it is not set.
pub const RESULTS: &str = "TIDEGATE_CONFORMANCE_RESULTS";

/// The cases that are skipped on a runtime, and why.
pub type Skips = [(&'static str, &'static str)];

/// What a case may need of a runtime beyond the traits.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Need {
    /// Several threads that poll the same connections.
    Threads,
}

/// A case, as far as it matters before it runs.
pub(crate) struct About<'a> {
    /// The name of its test.
    pub(crate) name: &'a str,
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) alone: bool,
    pub(crate) needs: &'a [Need],
}

/// How late each deadline of a case was reported on the runtime.
pub(crate) type Lateness = Vec<Duration>;

/// A run that does not hold.
pub(crate) struct Failure {
    /// What is wrong, in words.
    pub(crate) words: String,
    /// What the machine did by itself meanwhile.
    pub(crate) machine: watch::Machine,
    /// Whether something is wrong that no machine explains, such as what came before it was due.
    pub(crate) certain: bool,
    /// Whether all that is wrong is that something came late.
    pub(crate) late_only: bool,
}

impl Failure {
    /// What the report says of a run that was repeated: what was missed first, and how late the machine was.
    fn brief(&self) -> String {
        let missed = self.words.lines().find_map(|line| line.strip_prefix("- ")).unwrap_or(&self.words);
        let late = self.machine.late.as_secs_f64() * 1e3;
        match self.machine.dropped {
            0 => format!("{missed} (the machine was up to {late:.0} ms late)"),
            n => format!("{missed} (the machine was up to {late:.0} ms late, and dropped {n} packets)"),
        }
    }

    /// Whether the machine alone may be to blame. The limits of a case differ by some fifty milliseconds: a machine that
    /// holds somebody up for so long, at once or one after the other, decides which of them comes first, and what a peer did
    /// by then; so does one that drops packets. One that does so for less makes things late, and nothing else.
    pub(crate) fn shows_nothing(&self) -> bool {
        let machine = &self.machine;
        let decides = machine.late > HELD_UP || machine.dropped > 0;
        (decides || self.late_only && machine.at_once > STEADY) && !self.certain
    }
}

/// How late a machine may be at once for what is late on it to count at once.
const STEADY: Duration = Duration::from_millis(15);

/// How long all threads of a case together may have waited for a core for anything else to: as much as its limits differ by.
const HELD_UP: Duration = Duration::from_millis(50);

/// How often a case is run before a failure on a machine that is not steady counts.
const RUNS: usize = 6;

/// How often a case that was repeated must hold.
const HOLDS: usize = 2;

/// For how long it is run again: a run that hangs takes ten seconds.
const PATIENCE: Duration = Duration::from_secs(15);

impl<'a> About<'a> {
    /// A case of which the name says it all: `v_05_repeated_call`.
    pub(crate) fn named(name: &'a str, alone: bool) -> About<'a> {
        let mut words = name.splitn(3, '_');
        let mut word = || words.next().unwrap_or_default();
        let id = format!("{}-{}", word().to_uppercase(), word());
        About { name, id, title: word().replace('_', " "), alone, needs: &[] }
    }

    /// Runs a case unless it is skipped: first the oracle, then the real run when it is its turn, and again if it fails
    /// in a way that shows nothing. Panics if it does not hold, after the line for the report was written.
    #[track_caller]
    pub(crate) fn attempt<H: Harness, O>(
        &self,
        skips: &Skips,
        oracle: impl FnOnce() -> O,
        real: impl Fn(&O) -> Result<Lateness, Failure>,
    ) {
        if let Some(why) = self.skipped::<H>(skips) {
            println!("{}: skipped on {}: {why}", self.name, H::NAME);
            self.record(H::NAME, H::NOTES, "skipped", json!({ "why": why }));
            return;
        }
        let (mut took, mut repeated) = (Duration::ZERO, Vec::new());
        let ran = panic::catch_unwind(AssertUnwindSafe(|| {
            let exact = {
                let _beside = Machine::shared();
                oracle()
            };
            let mut turn = Turn::take(H::NAME, self.alone);
            let (mut all, mut held) = (Duration::ZERO, 0);
            loop {
                let began = Instant::now();
                let result = real(&exact);
                took = began.elapsed();
                all += took;
                match result {
                    Ok(late) => {
                        held += 1;
                        if repeated.is_empty() || held == HOLDS {
                            return late;
                        }
                    }
                    Err(failure)
                        if failure.shows_nothing() && repeated.len() + 1 < RUNS && all < PATIENCE =>
                    {
                        let (name, runtime) = (self.name, H::NAME);
                        println!(
                            "{name} on {runtime}: the machine held it up, and it is run again: {}",
                            failure.words
                        );
                        repeated.push(failure);
                        // Whatever the suite itself adds to the load has its turn later: the machine has fewer excuses then.
                        turn.take_alone();
                    }
                    Err(failure) => panic!("{}", failure.words),
                }
            }
        }));
        let took = took.as_secs_f64();
        match ran {
            Ok(late) => {
                let late: Vec<u128> = late.iter().map(Duration::as_micros).collect();
                let repeated: Vec<_> = repeated.iter().map(Failure::brief).collect();
                let more = json!({ "took": took, "late": late, "repeated": repeated });
                self.record(H::NAME, H::NOTES, "passed", more);
            }
            Err(panic) => {
                let why = words(&*panic);
                self.record(H::NAME, H::NOTES, "failed", json!({ "took": took, "why": why }));
                panic::resume_unwind(panic);
            }
        }
    }

    fn skipped<H: Harness>(&self, skips: &Skips) -> Option<&'static str> {
        let lacks = H::LACKS.iter().find(|(need, _)| self.needs.contains(need)).map(|(_, why)| *why);
        skips.iter().find(|(name, _)| *name == self.name).map(|(_, why)| *why).or(lacks)
    }

    /// Writes a line for the report. A line is one write to a file of this process, so that lines do not mix.
    fn record(&self, runtime: &str, notes: &[&str], result: &str, more: serde_json::Value) {
        let mut line = json!({
            "runtime": runtime, "notes": notes, "case": self.name, "id": self.id, "title": self.title, "result": result,
        });
        if let (Some(line), serde_json::Value::Object(more)) = (line.as_object_mut(), more) {
            line.extend(more);
        }
        beside::tell(&line);
        let Some(directory) = std::env::var_os(RESULTS) else { return };
        let file = PathBuf::from(directory).join(format!("{}.jsonl", std::process::id()));
        let written = OpenOptions::new().create(true).append(true).open(&file);
        let written = written.and_then(|mut file| file.write_all(format!("{line}\n").as_bytes()));
        if let Err(e) = written {
            panic!("the result cannot be written to {}: {e}", file.display());
        }
    }
}

/// What a panic said.
fn words(panic: &(dyn Any + Send)) -> &str {
    let owned = panic.downcast_ref::<String>().map(String::as_str);
    owned.or_else(|| panic.downcast_ref::<&str>().copied()).unwrap_or("a panic without words")
}

/// Real cases run one at a time within a process, because they count its sockets, and within a runtime, because they
/// would make each other late. Whatever opens sockets in a process of the suite takes its turn.
pub(crate) struct Turn {
    // Given back in this order.
    machine: Option<Machine>,
    _file: Option<File>,
    _turn: MutexGuard<'static, ()>,
}

impl Turn {
    /// Waits for the turn on a runtime, with the machine alone or shared with cases in other processes.
    pub(crate) fn take(runtime: &str, alone: bool) -> Turn {
        static TURN: Mutex<()> = Mutex::new(());
        let _turn = TURN.lock().unwrap_or_else(PoisonError::into_inner);
        let _file = runtime_lock(runtime);
        let machine = Some(if alone { Machine::alone() } else { Machine::shared() });
        Turn { machine, _file, _turn }
    }

    /// Waits for the machine alone. Of those who hold it together, nobody could have it alone before all of them let go.
    fn take_alone(&mut self) {
        self.machine = None;
        self.machine = Some(Machine::alone());
    }
}

/// A runner that gives each test a process of its own runs one program in all of them.
fn runtime_lock(runtime: &str) -> Option<File> {
    let program = std::env::current_exe().ok();
    let program = program.as_ref().and_then(|path| path.file_stem()?.to_str()).unwrap_or_default();
    let name: String =
        format!("{program}-{runtime}").chars().filter(|c| c.is_ascii_alphanumeric() || *c == '-').collect();
    lock_file(&name).and_then(|file| file.lock().map(|()| file)).ok()
}

/// The machine, shared with cases in other processes or for one case alone. Given back when it is dropped, or when the
/// process ends.
struct Machine {
    _lock: Option<File>,
}

impl Machine {
    fn shared() -> Machine {
        Machine::locked(File::lock_shared)
    }

    fn alone() -> Machine {
        Machine::locked(File::lock)
    }

    /// Two locks: whoever wants to be alone keeps the others from the second one while those who hold it finish. One
    /// lock alone would be shared for ever by those who come and go.
    fn locked(lock: impl Fn(&File) -> io::Result<()>) -> Machine {
        let locked = || {
            let gate = lock_file("gate")?;
            lock(&gate)?;
            let machine = lock_file("machine")?;
            lock(&machine)?;
            io::Result::Ok(machine)
        };
        // A directory for temporary files that cannot be written costs the order between processes, no more.
        Machine { _lock: locked().ok() }
    }
}

fn lock_file(name: &str) -> io::Result<File> {
    let path = std::env::temp_dir().join(format!("tidegate-conformance.{name}.lock"));
    let made = OpenOptions::new().create(true).truncate(false).write(true).open(&path);
    // Another user's file may be locked, though not written.
    made.or_else(|_| fs::File::open(&path))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_machine_excuses_what_it_can_have_done_and_no_more() {
        let ms = Duration::from_millis;
        let failed = |at_once, late, dropped, certain, late_only| {
            let machine = watch::Machine { at_once: ms(at_once), late: ms(late), dropped };
            Failure { words: String::new(), machine, certain, late_only }.shows_nothing()
        };
        // A steady machine excuses nothing.
        assert!(!failed(15, 50, 0, false, true) && !failed(15, 50, 0, false, false));
        // One that held somebody up for a moment makes things late; for longer than limits differ by, it decides.
        assert!(failed(16, 16, 0, false, true) && !failed(16, 50, 0, false, false));
        assert!(failed(16, 51, 0, false, false) && failed(0, 0, 1, false, false));
        // Nothing explains what is certain.
        assert!(!failed(500, 5000, 9, true, true) && !failed(500, 5000, 9, true, false));
    }
}
