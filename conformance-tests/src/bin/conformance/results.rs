//! What the test programs wrote, read back and put in order. Nothing is judged here.

use std::collections::BTreeSet;
use std::time::Duration;

use serde_json::Value;

/// How a case went.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    Passed,
    Skipped { why: String },
    Failed { why: String },
}

/// A case on one runtime.
#[derive(Clone, Debug)]
pub(crate) struct Case {
    /// The name of its test.
    pub(crate) case: String,
    /// In the catalogue.
    pub(crate) id: String,
    pub(crate) title: String,
    pub(crate) verdict: Verdict,
    pub(crate) took: f64,
    /// Why it was run again, each time: the machine held it up.
    pub(crate) repeated: Vec<String>,
    /// How late each deadline was.
    pub(crate) late: Vec<Duration>,
}

/// All cases on one runtime.
#[derive(Clone, Debug, Default)]
pub(crate) struct Runtime {
    pub(crate) name: String,
    pub(crate) notes: Vec<String>,
    pub(crate) cases: Vec<Case>,
}

/// All runtimes, by name.
#[derive(Clone, Debug, Default)]
pub(crate) struct Report {
    pub(crate) runtimes: Vec<Runtime>,
}

/// A case as the rows of the table have it.
pub(crate) type Row<'a> = (&'a str, &'a str, &'a str);

impl Runtime {
    /// Passed, skipped, failed.
    pub(crate) fn counts(&self) -> (usize, usize, usize) {
        let count = |of: fn(&Verdict) -> bool| self.cases.iter().filter(|case| of(&case.verdict)).count();
        (
            count(|v| *v == Verdict::Passed),
            count(|v| matches!(v, Verdict::Skipped { .. })),
            count(|v| matches!(v, Verdict::Failed { .. })),
        )
    }

    pub(crate) fn seconds(&self) -> f64 {
        self.cases.iter().map(|case| case.took).sum()
    }

    pub(crate) fn verdict(&self, case: &str) -> Option<&Verdict> {
        self.cases.iter().find(|c| c.case == case).map(|c| &c.verdict)
    }

    /// Every lateness, the least first.
    pub(crate) fn lateness(&self) -> Vec<Duration> {
        let mut all: Vec<_> = self.cases.iter().flat_map(|case| case.late.iter().copied()).collect();
        all.sort_unstable();
        all
    }
}

impl Report {
    /// Adds a line that a test wrote.
    pub(crate) fn add(&mut self, line: &str) -> Result<(), String> {
        let value: Value = serde_json::from_str(line).map_err(|e| format!("{e} in {line:?}"))?;
        let text = |key: &str| value[key].as_str().map(str::to_owned).ok_or(format!("no {key} in {line:?}"));
        let why = || text("why");
        let verdict = match text("result")?.as_str() {
            "passed" => Verdict::Passed,
            "skipped" => Verdict::Skipped { why: why()? },
            _ => Verdict::Failed { why: why()? },
        };
        let texts = |key: &str| {
            let all = value[key].as_array().into_iter().flatten();
            all.filter_map(Value::as_str).map(str::to_owned).collect()
        };
        let late = value["late"].as_array().into_iter().flatten();
        let case = Case {
            case: text("case")?,
            id: text("id")?,
            title: text("title")?,
            verdict,
            took: value["took"].as_f64().unwrap_or(0.0),
            repeated: texts("repeated"),
            late: late.filter_map(Value::as_u64).map(Duration::from_micros).collect(),
        };
        let name = text("runtime")?;
        let at = match self.runtimes.binary_search_by(|runtime| runtime.name.cmp(&name)) {
            Ok(at) => at,
            Err(at) => {
                self.runtimes.insert(at, Runtime { name, notes: texts("notes"), cases: Vec::new() });
                at
            }
        };
        self.runtimes[at].cases.push(case);
        Ok(())
    }

    /// Puts the cases of each runtime into the catalogue's order, and leaves out runtimes without any.
    pub(crate) fn sort(&mut self) {
        self.runtimes.retain(|runtime| !runtime.cases.is_empty());
        for runtime in &mut self.runtimes {
            runtime.cases.sort_by(|a, b| (&a.id, &a.case).cmp(&(&b.id, &b.case)));
        }
    }

    pub(crate) fn all(&self) -> impl Iterator<Item = (&str, &Case)> {
        self.runtimes.iter().flat_map(|runtime| runtime.cases.iter().map(|case| (&*runtime.name, case)))
    }

    /// Every case once: its id, test name and title, in the catalogue's order.
    pub(crate) fn rows(&self) -> BTreeSet<Row<'_>> {
        self.all().map(|(_, case)| (&*case.id, &*case.case, &*case.title)).collect()
    }
}
