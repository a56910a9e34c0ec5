//! `conformance report`: runs every suite of a package, the runtimes side by side, and writes down what holds where.
//!
//! It starts the test programs that cargo builds and reads what they wrote (`tidegate_conformance::RESULTS`). It judges
//! nothing: whether a case holds was decided by its test.

mod junit;
mod markdown;
mod results;
mod run;

use std::path::PathBuf;
use std::process::ExitCode;

use crate::results::{Report, Verdict};

const USAGE: &str = "\
usage: conformance report [OPTIONS]

Builds the tests of a package with cargo, runs each suite! in a process of its own, all of them side by side, and
writes CONFORMANCE.md and conformance.xml (JUnit). Exits with 1 if a case fails.

  --package NAME   the package whose tests hold the suites; of the current directory if not given
  --output FILE    the report; CONFORMANCE.md at the root of the workspace if not given
  --junit FILE     conformance.xml in the target directory if not given
  --results DIR    runs nothing, but reads what tests wrote that ran with TIDEGATE_CONFORMANCE_RESULTS=DIR
  --check          writes no report: exits with 1 if the one that is there says something else, figures apart
";

struct Options {
    package: Option<String>,
    output: Option<PathBuf>,
    junit: Option<PathBuf>,
    results: Option<PathBuf>,
    check: bool,
}

fn main() -> ExitCode {
    let options = match options(std::env::args().skip(1)) {
        Ok(Some(options)) => options,
        Ok(None) => {
            print!("{USAGE}");
            return ExitCode::SUCCESS;
        }
        Err(e) => {
            eprint!("conformance: {e}\n\n{USAGE}");
            return ExitCode::from(2);
        }
    };
    match report(&options) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(e) => {
            eprintln!("conformance: {e}");
            ExitCode::from(2)
        }
    }
}

/// `None` if help was asked for.
fn options(mut args: impl Iterator<Item = String>) -> Result<Option<Options>, String> {
    match args.next().as_deref() {
        Some("report") => {}
        Some("--help" | "-h" | "help") => return Ok(None),
        Some(other) => return Err(format!("there is no command {other:?}")),
        None => return Err("what is to be done?".into()),
    }
    let mut options = Options { package: None, output: None, junit: None, results: None, check: false };
    while let Some(arg) = args.next() {
        let mut value = || args.next().ok_or_else(|| format!("{arg} needs a value"));
        match arg.as_str() {
            "--package" | "-p" => options.package = Some(value()?),
            "--output" => options.output = Some(value()?.into()),
            "--junit" => options.junit = Some(value()?.into()),
            "--results" => options.results = Some(value()?.into()),
            "--check" => options.check = true,
            "--help" | "-h" => return Ok(None),
            other => return Err(format!("there is no option {other:?}")),
        }
    }
    Ok(Some(options))
}

/// Whether everything holds, and the report with it if it was checked.
fn report(options: &Options) -> Result<bool, String> {
    let place = run::place(options.package.as_deref())?;
    let report = match &options.results {
        Some(directory) => run::read(directory)?,
        None => run::run(&place, options.package.as_deref())?,
    };
    let junit = options.junit.clone().unwrap_or_else(|| place.target.join("conformance.xml"));
    write(&junit, &junit::write(&report))?;

    let mut holds = true;
    for (runtime, result) in report.all() {
        if let Verdict::Failed { why } = &result.verdict {
            holds = false;
            println!("\n{} fails on {runtime}:\n{why}", result.case);
        }
    }
    summary(&report);
    let output = options.output.clone().unwrap_or_else(|| place.root.join("CONFORMANCE.md"));
    let text = markdown::write(&report);
    if !options.check {
        write(&output, &text)?;
        println!("\nwritten: {}, {}", output.display(), junit.display());
        return Ok(holds);
    }
    let there = std::fs::read_to_string(&output).map_err(|e| format!("{}: {e}", output.display()))?;
    if let Some(difference) = markdown::difference(&there, &text) {
        holds = false;
        println!("\n{} is stale. {difference}\nWrite it anew: conformance report", output.display());
    }
    Ok(holds)
}

fn write(path: &PathBuf, text: &str) -> Result<(), String> {
    std::fs::write(path, text).map_err(|e| format!("{}: {e}", path.display()))
}

fn summary(report: &Report) {
    println!();
    for runtime in &report.runtimes {
        let (passed, skipped, failed) = runtime.counts();
        let seconds = runtime.seconds();
        println!("{}: {passed} passed, {skipped} skipped, {failed} failed, {seconds:.0} s", runtime.name);
    }
}
