//! Builds the test programs with cargo, finds the suites in them, and runs each in a process of its own.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use serde_json::Value;
use tidegate_conformance::{RESULTS, cases};

use crate::results::Report;

/// Where the workspace is.
pub(crate) struct Place {
    pub(crate) root: PathBuf,
    pub(crate) target: PathBuf,
}

/// The tests that one `suite!` made.
struct Suite {
    program: PathBuf,
    /// The directory in which cargo would run it.
    directory: PathBuf,
    /// Where it is: program and module.
    name: String,
    tests: Vec<String>,
}

fn cargo() -> Command {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| OsString::from("cargo"));
    let mut command = Command::new(cargo);
    command.stdin(Stdio::null());
    command
}

/// The output of a command that must succeed.
fn output(command: &mut Command) -> Result<String, String> {
    let output =
        command.stderr(Stdio::inherit()).output().map_err(|e| format!("{:?}: {e}", command.get_program()))?;
    if !output.status.success() {
        return Err(format!("{command:?} failed"));
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

pub(crate) fn place(package: Option<&str>) -> Result<Place, String> {
    let metadata = output(cargo().args(["metadata", "--no-deps", "--format-version", "1"]))?;
    let metadata: Value = serde_json::from_str(&metadata).map_err(|e| e.to_string())?;
    let path = |key: &str| metadata[key].as_str().map(PathBuf::from).ok_or(format!("cargo names no {key}"));
    let mut packages = metadata["packages"].as_array().into_iter().flatten();
    match package {
        Some(name) if !packages.any(|p| p["name"] == name) => {
            Err(format!("this workspace has no package {name:?}"))
        }
        _ => Ok(Place { root: path("workspace_root")?, target: path("target_directory")? }),
    }
}

/// Runs every suite and collects what it wrote.
pub(crate) fn run(place: &Place, package: Option<&str>) -> Result<Report, String> {
    let suites = suites(package)?;
    if suites.is_empty() {
        return Err("no test calls tidegate_conformance::suite!".into());
    }
    let results = place.target.join("conformance");
    // What an earlier run left must not be read again.
    let _ = fs::remove_dir_all(&results);
    let mut running = Vec::new();
    for (i, suite) in suites.iter().enumerate() {
        let directory = results.join(i.to_string());
        fs::create_dir_all(&directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        println!("running {}: {} cases", suite.name, suite.tests.len());
        running.push((suite, start(suite, &directory)?, directory));
    }
    let mut report = Report::default();
    for (suite, mut child, directory) in running {
        let status = child.wait().map_err(|e| format!("{}: {e}", suite.name))?;
        let lines = lines(&directory)?;
        for line in &lines {
            report.add(line)?;
        }
        if lines.len() != suite.tests.len() {
            let (log, count) = (directory.join("log"), lines.len());
            return Err(format!(
                "{} has {} cases and left {count} results ({status}); see {}",
                suite.name,
                suite.tests.len(),
                log.display()
            ));
        }
    }
    report.sort();
    Ok(report)
}

/// Collects what tests wrote that somebody else has run.
pub(crate) fn read(directory: &Path) -> Result<Report, String> {
    let mut report = Report::default();
    for line in lines(directory).map_err(|e| format!("{}: {e}", directory.display()))? {
        report.add(&line)?;
    }
    // Whoever tries single cases, on an adapter that is broken on purpose for example, is no suite.
    report.runtimes.retain(|runtime| runtime.cases.len() >= cases::NAMES.len());
    report.sort();
    match report.runtimes.iter().find(|runtime| runtime.cases.len() > cases::NAMES.len()) {
        _ if report.runtimes.is_empty() => Err(format!("{} has no whole suite", directory.display())),
        Some(runtime) => Err(format!("{} has more than one run on {}", directory.display(), runtime.name)),
        None => Ok(report),
    }
}

fn start(suite: &Suite, directory: &Path) -> Result<Child, String> {
    let log = File::create(directory.join("log")).map_err(|e| e.to_string())?;
    let errors = log.try_clone().map_err(|e| e.to_string())?;
    Command::new(&suite.program)
        .current_dir(&suite.directory)
        .arg("--exact")
        .args(&suite.tests)
        .env(RESULTS, directory)
        .stdin(Stdio::null())
        .stdout(log)
        .stderr(errors)
        .spawn()
        .map_err(|e| format!("{}: {e}", suite.program.display()))
}

/// The lines of all files that the processes of a suite wrote.
fn lines(directory: &Path) -> Result<Vec<String>, String> {
    let mut lines = Vec::new();
    for entry in fs::read_dir(directory).map_err(|e| e.to_string())?.flatten() {
        if entry.path().extension().is_some_and(|ext| ext == "jsonl") {
            let text = fs::read_to_string(entry.path()).map_err(|e| e.to_string())?;
            lines.extend(text.lines().map(str::to_owned));
        }
    }
    Ok(lines)
}

/// Every suite in the tests of a package: what a program lists, by module, where a module has a test for each case.
fn suites(package: Option<&str>) -> Result<Vec<Suite>, String> {
    let mut build = cargo();
    build.args(["test", "--no-run", "--tests", "--message-format", "json-render-diagnostics"]);
    if let Some(package) = package {
        build.args(["--package", package]);
    }
    let mut suites = Vec::new();
    for line in output(&mut build)?.lines() {
        let Ok(message) = serde_json::from_str::<Value>(line) else { continue };
        let is_test =
            message["target"]["kind"].as_array().is_some_and(|kinds| kinds.iter().any(|k| k == "test"));
        let (Some(program), true) = (message["executable"].as_str(), is_test) else { continue };
        let manifest = Path::new(message["manifest_path"].as_str().unwrap_or_default());
        let directory = manifest.parent().unwrap_or(Path::new("."));
        let target = message["target"]["name"].as_str().unwrap_or_default();
        let listed =
            output(Command::new(program).current_dir(directory).args(["--list", "--format", "terse"]))?;
        for (module, tests) in by_module(&listed) {
            suites.push(Suite {
                program: program.into(),
                directory: directory.into(),
                name: format!("{target} {module}").trim_end().to_owned(),
                tests,
            });
        }
    }
    Ok(suites)
}

/// The tests of each module that has one for every case. Those of virtual time write no results and are no suite.
fn by_module(listed: &str) -> BTreeMap<&str, Vec<String>> {
    let mut modules: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for test in listed.lines().filter_map(|line| line.strip_suffix(": test")) {
        let (module, name) = test.rsplit_once("::").unwrap_or(("", test));
        if cases::NAMES.contains(&name) {
            modules.entry(module).or_default().push(test.to_owned());
        }
    }
    modules.retain(|module, tests| {
        let is_virtual = module.rsplit("::").next() == Some(tidegate_conformance::VIRTUAL);
        tests.len() == cases::NAMES.len() && !is_virtual
    });
    modules
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_suite_is_a_module_with_all_cases() {
        let mut listed = String::from("other: test\nb::c_01_hang: test\n");
        for name in cases::NAMES {
            listed
                .push_str(&format!("a::{name}: test\nx::{}::{name}: test\n", tidegate_conformance::VIRTUAL));
        }
        let modules = by_module(&listed);
        assert_eq!(modules.keys().collect::<Vec<_>>(), [&"a"]);
        assert_eq!(modules["a"].len(), cases::NAMES.len());
    }
}
