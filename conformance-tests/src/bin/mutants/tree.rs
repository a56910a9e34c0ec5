//! A copy of the tree, with a target directory of its own that is kept between runs. It judges nothing.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use serde_json::Value;

use crate::mutant::Suite;

/// Longer than the named tests take together.
const PATIENCE: Duration = Duration::from_secs(300);

/// What became of a test.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum Died {
    /// It passed.
    No,
    Failed,
    /// It did not end.
    Hung,
}

pub(crate) struct Tree {
    copy: PathBuf,
    target: PathBuf,
}

impl Tree {
    /// Under cargo's target directory. Files that are the same already are not touched, so that little is built anew.
    pub(crate) fn copy_of(root: &Path) -> Result<Tree, String> {
        let root = root.canonicalize().map_err(|e| e.to_string())?;
        let place = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
        let place = root.join(place).join("mutants");
        let (copy, target) = (place.join("tree"), place.join("target"));
        fs::create_dir_all(&copy).map_err(|e| e.to_string())?;
        copy_directory(&root, &copy).map_err(|e| format!("copying the tree: {e}"))?;
        Ok(Tree { copy, target })
    }

    pub(crate) fn path(&self) -> &Path {
        &self.copy
    }

    /// Writes these files. Says what stood in them before.
    pub(crate) fn write(
        &self,
        files: BTreeMap<PathBuf, String>,
    ) -> Result<BTreeMap<PathBuf, String>, String> {
        let mut before = BTreeMap::new();
        for (path, text) in files {
            let place = self.copy.join(&path);
            before.insert(path, fs::read_to_string(&place).map_err(|e| e.to_string())?);
            fs::write(place, text).map_err(|e| e.to_string())?;
        }
        Ok(before)
    }

    /// Builds a program of tests and runs these of it: what became of each, in their order.
    pub(crate) fn run(&self, suite: Suite, tests: &[&str]) -> Result<Vec<Died>, String> {
        if tests.is_empty() {
            return Ok(Vec::new());
        }
        let program = self.build(suite)?;
        let log = self.target.join("tests.log");
        let file = File::create(&log).map_err(|e| e.to_string())?;
        let mut child = Command::new(program)
            .args(tests)
            .current_dir(&self.copy)
            .stdin(Stdio::null())
            .stdout(file)
            .stderr(Stdio::null())
            .spawn()
            .map_err(|e| e.to_string())?;
        let deadline = Instant::now() + PATIENCE;
        let hung = loop {
            if child.try_wait().map_err(|e| e.to_string())?.is_some() {
                break false;
            }
            if Instant::now() > deadline {
                let _ = child.kill();
                let _ = child.wait();
                break true;
            }
            thread::sleep(Duration::from_millis(20));
        };
        let log = fs::read_to_string(&log).map_err(|e| e.to_string())?;
        let results: Vec<(&str, bool)> = log.lines().filter_map(result).collect();
        let of = |test: &&str| {
            let mut own = results.iter().filter(|(path, _)| path.rsplit("::").next() == Some(*test));
            match own.clone().count() {
                0 if hung => Ok(Died::Hung),
                0 => Err(format!("{suite} has no test {test}, or it never ended:\n{log}")),
                _ if own.any(|(_, ok)| !ok) => Ok(Died::Failed),
                _ => Ok(Died::No),
            }
        };
        tests.iter().map(of).collect()
    }

    /// Runs the simulation: the number of the seed that breaks a promise, and the promise.
    pub(crate) fn simulate(&self) -> Result<Option<String>, String> {
        let mut command = Command::new(cargo());
        command.args(["run", "--quiet", "--release", "-p", "tidegate-conformance", "--bin", "simulate"]);
        let output = command
            .args(["--", "find"])
            .current_dir(&self.copy)
            .env("CARGO_TARGET_DIR", &self.target)
            .env("CARGO_PROFILE_RELEASE_LTO", "off")
            .env("CARGO_PROFILE_RELEASE_CODEGEN_UNITS", "16")
            .env("CARGO_PROFILE_RELEASE_INCREMENTAL", "true")
            .env("RUSTFLAGS", "-A warnings")
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        if !output.status.success() {
            return Err(format!("the simulation does not run:\n{}", String::from_utf8_lossy(&output.stderr)));
        }
        let said = String::from_utf8_lossy(&output.stdout).trim().to_owned();
        Ok(Some(said).filter(|said| !said.is_empty()))
    }

    fn build(&self, suite: Suite) -> Result<PathBuf, String> {
        let (package, target) = suite.program();
        // Not built anew for each change of the flags.
        let (flags, place) = match suite {
            Suite::Model => ("-A warnings --cfg shuttle", self.target.join("model")),
            _ => ("-A warnings", self.target.clone()),
        };
        let mut command = Command::new(cargo());
        command.args(["test", "--quiet", "--no-run", "--message-format", "json", "-p", package]);
        match target {
            "lib" => command.arg("--lib"),
            test => command.args(["--test", test]),
        };
        let output = command
            .current_dir(&self.copy)
            .env("CARGO_TARGET_DIR", place)
            .env("CARGO_PROFILE_DEV_DEBUG", "0")
            .env("CARGO_INCREMENTAL", "1")
            // A mutant leaves things unused.
            .env("RUSTFLAGS", flags)
            .stdin(Stdio::null())
            .output()
            .map_err(|e| e.to_string())?;
        let said = String::from_utf8_lossy(&output.stdout);
        let messages: Vec<Value> = said.lines().filter_map(|line| serde_json::from_str(line).ok()).collect();
        if !output.status.success() {
            let errors = messages.iter().filter_map(|m| m["message"]["rendered"].as_str());
            let errors: String = errors.collect();
            return Err(format!("it does not build:\n{errors}{}", String::from_utf8_lossy(&output.stderr)));
        }
        let executable = messages.iter().rev().find_map(|m| {
            let found = m["profile"]["test"] == true && (target == "lib" || m["target"]["name"] == target);
            m["executable"].as_str().filter(|_| found)
        });
        executable.map(PathBuf::from).ok_or_else(|| format!("cargo names no program of {suite}"))
    }
}

fn cargo() -> OsString {
    std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"))
}

/// A line of the test harness: which test, and whether it passed.
fn result(line: &str) -> Option<(&str, bool)> {
    let (test, result) = line.strip_prefix("test ")?.rsplit_once(" ... ")?;
    match result {
        "ok" => Some((test, true)),
        "FAILED" => Some((test, false)),
        _ => None,
    }
}

fn copy_directory(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    let mut there: Vec<OsString> = Vec::new();
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name();
        let (source, copy) = (entry.path(), to.join(&name));
        let is_built = name == "target" || source.join("CACHEDIR.TAG").exists();
        if name == ".git" || is_built {
            continue;
        }
        if entry.file_type()?.is_dir() {
            copy_directory(&source, &copy)?;
        } else if entry.file_type()?.is_file() {
            let bytes = fs::read(&source)?;
            if fs::read(&copy).ok().as_deref() != Some(&bytes) {
                fs::write(&copy, bytes)?;
            }
        }
        there.push(name);
    }
    // What was removed from the tree.
    for entry in fs::read_dir(to)? {
        let entry = entry?;
        if !there.contains(&entry.file_name()) {
            let path = entry.path();
            if entry.file_type()?.is_dir() { fs::remove_dir_all(path)? } else { fs::remove_file(path)? }
        }
    }
    Ok(())
}
