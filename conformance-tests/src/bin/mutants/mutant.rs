//! One mutant: a text file that says what to replace, and which tests must notice. It knows no cargo.
//!
//! ```text
//! what: a line for the table
//! row: the row of the contract's list
//! killer: virtual q_02_progress_does_not_reset
//!
//! file: core/src/relay/mod.rs
//! - the text to replace
//! + what stands there instead
//! ```
//!
//! The text may be part of a line or several lines; white space at the ends of lines does not count, so that a new
//! indentation breaks nothing. It must be found exactly once.

use std::collections::BTreeMap;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};

/// A program of tests.
#[derive(Copy, Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Suite {
    /// The unit tests of the core.
    Core,
    /// Those of the core that a model checker runs.
    Model,
    /// The cases in virtual time.
    Virtual,
    /// The cases in virtual time with a connection that is dropped.
    Cancel,
    /// The cases on a real runtime.
    Tokio,
    Smol,
    AsyncStd,
}

impl Suite {
    pub(crate) const ALL: [Suite; 7] = [
        Suite::Core,
        Suite::Model,
        Suite::Virtual,
        Suite::Cancel,
        Suite::Tokio,
        Suite::Smol,
        Suite::AsyncStd,
    ];

    /// The package, and which of its test programs; `lib` is that of its unit tests.
    pub(crate) fn program(self) -> (&'static str, &'static str) {
        match self {
            Suite::Core | Suite::Model => ("tidegate-core", "lib"),
            Suite::Virtual => ("tidegate-conformance", "virtual"),
            Suite::Cancel => ("tidegate-conformance", "cancel"),
            Suite::Tokio => ("tidegate-conformance", "tokio"),
            Suite::Smol => ("tidegate-conformance", "smol"),
            Suite::AsyncStd => ("tidegate-conformance", "async_std"),
        }
    }
}

impl fmt::Display for Suite {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Suite::Core => "core",
            Suite::Model => "model",
            suite => suite.program().1,
        })
    }
}

/// A test that must fail.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Killer {
    pub(crate) suite: Suite,
    /// The name of its function.
    pub(crate) test: String,
}

impl fmt::Display for Killer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} `{}`", self.suite, self.test)
    }
}

#[derive(Debug)]
pub(crate) struct Mutant {
    pub(crate) name: String,
    pub(crate) what: String,
    pub(crate) row: String,
    pub(crate) killers: Vec<Killer>,
    edits: Vec<Edit>,
}

#[derive(Debug, Default)]
struct Edit {
    file: String,
    old: String,
    new: String,
}

impl Mutant {
    /// All of a directory, by name.
    pub(crate) fn load_all(directory: &Path) -> Result<Vec<Mutant>, String> {
        let files = fs::read_dir(directory).map_err(|e| format!("{}: {e}", directory.display()))?;
        let mut mutants = Vec::new();
        for file in files {
            let path = file.map_err(|e| e.to_string())?.path();
            let text = fs::read_to_string(&path).map_err(|e| format!("{}: {e}", path.display()))?;
            let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
            mutants.push(Mutant::parse(name, &text)?);
        }
        mutants.sort_by(|a, b| a.name.cmp(&b.name));
        Ok(mutants)
    }

    fn parse(name: String, text: &str) -> Result<Mutant, String> {
        let mut mutant =
            Mutant { name, what: String::new(), row: String::new(), killers: Vec::new(), edits: Vec::new() };
        let mut file = String::new();
        for (i, line) in text.lines().enumerate() {
            let bad = || format!("mutants/{}.txt, line {}: {line:?}", mutant.name, i + 1);
            let (key, value) = line.split_once(' ').unwrap_or((line, ""));
            match key {
                "what:" => mutant.what = value.into(),
                "row:" => mutant.row = value.into(),
                "killer:" => {
                    let (suite, test) = value.split_once(' ').ok_or_else(bad)?;
                    let suite = Suite::ALL.into_iter().find(|s| s.to_string() == suite).ok_or_else(bad)?;
                    mutant.killers.push(Killer { suite, test: test.into() });
                }
                "file:" => file = value.into(),
                "-" => {
                    if mutant.edits.last().is_none_or(|e| !e.new.is_empty() || e.file != file) {
                        mutant.edits.push(Edit { file: file.clone(), ..Edit::default() });
                    }
                    push(&mut mutant.edits.last_mut().ok_or_else(bad)?.old, value);
                }
                "+" => push(&mut mutant.edits.last_mut().ok_or_else(bad)?.new, value),
                "" => {}
                _ => return Err(bad()),
            }
        }
        let whole = !mutant.what.is_empty() && !mutant.row.is_empty() && !mutant.killers.is_empty();
        if whole && mutant.edits.iter().all(|e| !e.old.is_empty() && !e.new.is_empty()) {
            Ok(mutant)
        } else {
            Err(format!("mutants/{}.txt lacks what:, row:, killer: or an edit", mutant.name))
        }
    }

    /// The changed files with their new contents, as if applied to the tree at `root`.
    ///
    /// # Errors
    ///
    /// What to replace is not there, or more than once: the code has changed, and the mutant must follow it.
    pub(crate) fn applied(&self, root: &Path) -> Result<BTreeMap<PathBuf, String>, String> {
        let mut files = BTreeMap::new();
        for Edit { file, old, new } in &self.edits {
            let path = PathBuf::from(file);
            let text = match files.remove(&path) {
                Some(text) => text,
                None => flush_left(&fs::read_to_string(root.join(file)).map_err(|e| format!("{file}: {e}"))?),
            };
            let count = text.matches(&**old).count();
            if count != 1 {
                return Err(format!("mutant {}: found {count} times in {file}, not once:\n{old}", self.name));
            }
            files.insert(path, text.replacen(&**old, new, 1));
        }
        Ok(files)
    }
}

fn push(text: &mut String, line: &str) {
    if !text.is_empty() {
        text.push('\n');
    }
    text.push_str(line.trim());
}

fn flush_left(text: &str) -> String {
    text.lines().map(str::trim).collect::<Vec<_>>().join("\n")
}
