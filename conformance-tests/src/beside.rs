//! Several suites in one test program: each runs in a process of its own, all of them side by side.
//!
//! A program runs its tests in the order of their names, so the runtimes would come one after the other, though each
//! of them waits for a deadline nearly all the time. So whoever asks first starts the program again for each module
//! with a [`suite!`](crate::suite), for the cases that were asked of this process, and the tests here wait for what came
//! of theirs. Nothing is judged here. A program with one suite, or of which one case was asked, runs as it is.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::path::Path;
use std::process::{Command, Stdio};
use std::sync::{Arc, Condvar, Mutex, OnceLock, PoisonError};
use std::thread;

use serde_json::Value;

use crate::board::lock;
use crate::cases;

/// The variable. Whoever finds it set runs the cases of one suite, and tells its parent.
pub(crate) const PART: &str = "TIDEGATE_CONFORMANCE_PART";

/// What marks a result among the words of the tests.
const WORD: &str = "tidegate-result: ";

/// Whether the case ran in another process, and held there; false if it is to run here.
///
/// # Panics
///
/// If it failed there, in the words of there.
#[track_caller]
pub(crate) fn ran(module: &str, case: &str) -> bool {
    static PARTS: OnceLock<Option<Arc<Results>>> = OnceLock::new();
    if std::env::var_os(PART).is_some() {
        end_with_the_parent();
        return false;
    }
    // What cannot be started side by side runs here, one after the other.
    let parts = PARTS.get_or_init(|| start().unwrap_or_default());
    let Some(results) = parts else { return false };
    let test = name_of(module, case);
    let Some(result) = results.wait(&test) else {
        let words = lock(&results.facts).words.clone();
        panic!("{test}: its process ended without a result, and said:\n{words}");
    };
    repeat(case, &result);
    true
}

/// Says here what was said there.
#[track_caller]
fn repeat(case: &str, result: &Value) {
    match (result["result"].as_str(), result["why"].as_str().unwrap_or_default()) {
        (Some("passed"), _) => {}
        (Some("skipped"), why) => {
            println!("{case}: skipped on {}: {why}", result["runtime"].as_str().unwrap_or_default());
        }
        (_, why) => panic!("{why}"),
    }
}

/// How a test is called in its program, which names its tests without itself.
pub(crate) fn name_of(module: &str, case: &str) -> String {
    module.split_once("::").map_or_else(|| case.to_owned(), |(_, module)| format!("{module}::{case}"))
}

/// Tells the parent, if there is one, what came of a case.
pub(crate) fn tell(result: &Value) {
    if std::env::var_os(PART).is_some() {
        // Not `println`, which the test harness would keep. One write, so that lines do not mix.
        let _ = io::stdout().write_all(format!("\n{WORD}{result}\n").as_bytes());
    }
}

/// Whoever ends the parent ends this process with it.
fn end_with_the_parent() {
    static WATCH: OnceLock<()> = OnceLock::new();
    WATCH.get_or_init(|| {
        thread::spawn(|| {
            let _ = io::stdin().read(&mut [0]);
            std::process::exit(1);
        });
    });
}

/// What came of the cases so far.
#[derive(Default)]
struct Results {
    facts: Mutex<Facts>,
    change: Condvar,
}

#[derive(Default)]
struct Facts {
    /// By name of the test.
    results: BTreeMap<String, Value>,
    /// What was said besides results.
    words: String,
    /// The modules whose process has ended.
    over: Vec<String>,
}

impl Results {
    /// The result of a test; `None` if its process ended without it.
    fn wait(&self, test: &str) -> Option<Value> {
        let mut facts = lock(&self.facts);
        loop {
            if let Some(result) = facts.results.remove(test) {
                return Some(result);
            }
            let module = test.rsplit_once("::").map_or("", |(module, _)| module);
            if facts.over.iter().any(|over| over == module) {
                return None;
            }
            facts = self.change.wait(facts).unwrap_or_else(PoisonError::into_inner);
        }
    }

    /// Reads what a process says until it ends.
    fn listen(&self, module: &str, from: impl Read) {
        for line in BufReader::new(from).lines().map_while(Result::ok) {
            let mut facts = lock(&self.facts);
            match line.split_once(WORD).and_then(|(_, json)| serde_json::from_str::<Value>(json).ok()) {
                Some(result) => {
                    let case = result["case"].as_str().unwrap_or_default();
                    let test = if module.is_empty() { case.into() } else { format!("{module}::{case}") };
                    facts.results.insert(test, result);
                }
                None => {
                    facts.words.push_str(&line);
                    facts.words.push('\n');
                }
            }
            drop(facts);
            self.change.notify_all();
        }
    }

    /// Runs tests of a module in a process.
    fn run(&self, program: &Path, module: &str, tests: Vec<String>) -> io::Result<()> {
        let mut process = Command::new(program)
            .arg("--exact")
            .args(tests)
            .env(PART, module)
            // Nothing ever comes; it ends when this process does.
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()?;
        let _open = process.stdin.take();
        if let Some(out) = process.stdout.take() {
            self.listen(module, out);
        }
        process.wait().map(drop)
    }
}

/// Starts processes for each suite; `None` if there is one suite only.
fn start() -> io::Result<Option<Arc<Results>>> {
    let program = std::env::current_exe()?;
    let asked: Vec<OsString> = std::env::args_os().skip(1).collect();
    let listed = Command::new(&program).args(&asked).arg("--list").stdin(Stdio::null()).output()?;
    let suites = suites(&String::from_utf8_lossy(&listed.stdout));
    if !listed.status.success() || suites.len() < 2 {
        return Ok(None);
    }
    let results = Arc::new(Results::default());
    let alone = cases::alone();
    for (module, tests) in suites {
        // Those for which all others stop come first, so that nobody stops again and again.
        let is_alone = |test: &String| alone.iter().any(|name| test.rsplit("::").next() == Some(name));
        let (first, then): (Vec<_>, Vec<_>) = tests.into_iter().partition(is_alone);
        let (program, results) = (program.clone(), Arc::clone(&results));
        thread::spawn(move || {
            for tests in [first, then].into_iter().filter(|tests| !tests.is_empty()) {
                if let Err(e) = results.run(&program, &module, tests) {
                    lock(&results.facts).words.push_str(&e.to_string());
                }
            }
            lock(&results.facts).over.push(module);
            results.change.notify_all();
        });
    }
    Ok(Some(results))
}

/// The tests that were asked of this process, by the module of their suite.
fn suites(listed: &str) -> BTreeMap<String, Vec<String>> {
    let mut suites: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for test in listed.lines().filter_map(|line| line.strip_suffix(": test")) {
        let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
        let is_virtual = module.rsplit("::").next() == Some(crate::VIRTUAL);
        if cases::NAMES.contains(&name) && !is_virtual {
            suites.entry(module.to_owned()).or_default().push(test.to_owned());
        }
    }
    suites
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_what_was_asked_of_a_module() {
        let listed = format!(
            "a::c_01_hang: test\na::other: test\nc_01_hang: test\nb::{}::c_01_hang: test\n1 test, 0 benchmarks\n",
            crate::VIRTUAL
        );
        let suites = suites(&listed);
        let expected = [("", "c_01_hang"), ("a", "a::c_01_hang")];
        assert!(suites.iter().map(|(m, t)| (&**m, &*t[0])).eq(expected), "{suites:?}");
        assert_eq!((name_of("p::a", "x"), name_of("p", "x")), ("a::x".into(), "x".into()));
    }

    #[test]
    #[should_panic(expected = "EARLY")]
    fn what_fails_there_fails_here() {
        repeat("x", &serde_json::json!({ "result": "passed" }));
        repeat("x", &serde_json::json!({ "result": "skipped", "why": "one thread" }));
        repeat("x", &serde_json::json!({ "result": "failed", "why": "it was EARLY" }));
    }

    #[test]
    fn what_comes_of_a_case_is_heard_or_that_nothing_does() {
        let results = Results::default();
        let said = format!("test x ... {WORD}{{\"case\":\"x\",\"result\":\"failed\"}}\nnoise\n");
        results.listen("a", said.as_bytes());
        assert_eq!(results.wait("a::x").map(|result| result["result"] == "failed"), Some(true));
        lock(&results.facts).over.push("a".into());
        assert_eq!((results.wait("a::y"), &*lock(&results.facts).words), (None, "noise\n"));
    }
}
