//! Breaks a copy of the tree in each way of `conformance-tests/mutants/`, and shows that a named test notices.
//!
//! ```text
//! cargo run -p tidegate-conformance --bin mutants [-- NAME...]   every mutant, or these
//! cargo run -p tidegate-conformance --bin mutants -- --check     only whether each still applies (CI does it)
//! cargo run -p tidegate-conformance --bin mutants -- --write     the table in docs/MUTANTS.md
//! cargo run -p tidegate-conformance --bin mutants -- --simulate [NAME...]
//!                                                                in how many seeds the simulation finds each
//! ```
//!
//! The tree itself is never changed, and no mutant's code is in it.

mod mutant;
mod tree;

use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Instant;
use std::{env, fs};

use crate::mutant::{Killer, Mutant, Suite};
use crate::tree::{Died, Tree};

const PAGE: &str = "docs/MUTANTS.md";
const BEGIN: &str = "<!-- the table that `mutants --write` writes -->\n";
const END: &str = "<!-- end of the table -->\n";

fn main() -> ExitCode {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let result = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        ["--check"] => check().map(|n| println!("{n} mutants apply, and {PAGE} lists them")),
        ["--write"] => write(),
        ["--simulate", ..] => simulate(&arguments[1..]),
        _ if arguments.iter().any(|a| a.starts_with('-')) => {
            Err("usage: mutants [--check | --write | [--simulate] NAME...]".into())
        }
        _ => run(&arguments),
    };
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(e) => {
            eprintln!("error: {e}");
            ExitCode::FAILURE
        }
    }
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn load() -> Result<Vec<Mutant>, String> {
    Mutant::load_all(&root().join("conformance-tests/mutants"))
}

fn page() -> Result<String, String> {
    fs::read_to_string(root().join(PAGE)).map_err(|e| format!("{PAGE}: {e}"))
}

fn table(mutants: &[Mutant]) -> String {
    let mut table = String::from("| mutant | what it does | row | killed by |\n| --- | --- | --- | --- |\n");
    for m in mutants {
        let killers: Vec<String> = m.killers.iter().map(ToString::to_string).collect();
        table += &format!("| `{}` | {} | {} | {} |\n", m.name, m.what, m.row, killers.join("<br>"));
    }
    table
}

/// The page with the table in its place.
fn with_table(page: &str, table: &str) -> Result<String, String> {
    let (before, rest) = page.split_once(BEGIN).ok_or(format!("{PAGE} has no {}", BEGIN.trim()))?;
    let (_, after) = rest.split_once(END).ok_or(format!("{PAGE} has no {}", END.trim()))?;
    Ok([before, BEGIN, table, END, after].concat())
}

fn write() -> Result<(), String> {
    let page = with_table(&page()?, &table(&load()?))?;
    fs::write(root().join(PAGE), page).map_err(|e| e.to_string())
}

/// Whether every mutant applies to the tree as it is, and whether the page lists them all.
fn check() -> Result<usize, String> {
    let mutants = load()?;
    let wrong: Vec<String> = mutants.iter().filter_map(|m| m.applied(&root()).err()).collect();
    if !wrong.is_empty() {
        return Err(wrong.join("\n"));
    }
    let page = page()?;
    if with_table(&page, &table(&mutants))? != page {
        return Err(format!("{PAGE} does not list these mutants: `mutants --write` writes the table"));
    }
    Ok(mutants.len())
}

/// Those of these names, or all.
fn chosen(names: &[String]) -> Result<Vec<Mutant>, String> {
    let mut mutants = load()?;
    if let Some(unknown) = names.iter().find(|name| !mutants.iter().any(|m| m.name == **name)) {
        return Err(format!("there is no mutant {unknown:?}"));
    }
    mutants.retain(|m| names.is_empty() || names.contains(&m.name));
    Ok(mutants)
}

/// Runs the simulation on each, and prints a line of a table.
fn simulate(names: &[String]) -> Result<(), String> {
    let mutants = chosen(names)?;
    let tree = Tree::copy_of(&root())?;
    if let Some(found) = tree.simulate()? {
        return Err(format!("a promise is broken without any mutation: {found}"));
    }
    for mutant in &mutants {
        let original = tree.write(mutant.applied(tree.path())?)?;
        let found = tree.simulate();
        tree.write(original)?;
        match found?.as_ref().and_then(|found| found.split_once(' ')) {
            Some((seeds, promise)) => println!("| `{}` | {seeds} | {promise} |", mutant.name),
            None => println!("| `{}` | not found | |", mutant.name),
        }
    }
    Ok(())
}

fn run(names: &[String]) -> Result<(), String> {
    let mutants = chosen(names)?;
    let began = Instant::now();
    let tree = Tree::copy_of(&root())?;
    println!("the tree as it is, in {}", tree.path().display());
    let mut killers: Vec<&Killer> = mutants.iter().flat_map(|m| &m.killers).collect();
    killers.sort();
    killers.dedup();
    for suite in Suite::ALL {
        let tests: Vec<&str> = killers.iter().filter(|k| k.suite == suite).map(|k| &*k.test).collect();
        for (test, died) in tests.iter().zip(tree.run(suite, &tests)?) {
            if died != Died::No {
                return Err(format!("{suite} {test} fails without any mutation ({died:?})"));
            }
        }
    }
    let mut failed = Vec::new();
    for mutant in &mutants {
        let original = tree.write(mutant.applied(tree.path())?)?;
        for suite in Suite::ALL {
            let tests: Vec<&str> =
                mutant.killers.iter().filter(|k| k.suite == suite).map(|k| &*k.test).collect();
            // What cannot be tried shows nothing, and keeps nobody from trying the others.
            let ran = tree.run(suite, &tests).unwrap_or_else(|why| {
                println!("{:<44} CANNOT BE TRIED by {suite}", mutant.name);
                failed.push(format!("{} with {suite}: {why}", mutant.name));
                Vec::new()
            });
            for (test, died) in tests.iter().zip(ran) {
                let verdict = match died {
                    Died::Failed => "killed by",
                    Died::Hung => "killed (it hung) by",
                    Died::No => "SURVIVES",
                };
                println!("{:<44} {verdict} {suite} {test}", mutant.name);
                if died == Died::No {
                    failed.push(format!("{} survives {suite} {test}", mutant.name));
                }
            }
        }
        tree.write(original)?;
    }
    println!("{} mutants in {} s", mutants.len(), began.elapsed().as_secs());
    if failed.is_empty() { Ok(()) } else { Err(failed.join("\n")) }
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_mutant_applies_and_is_listed() {
        if let Err(wrong) = super::check() {
            panic!("{wrong}");
        }
    }
}
