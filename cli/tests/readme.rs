//! Keeps the documents true: the Rust is that of the examples, which the build compiles, the defaults are
//! the policy's, and the tests that a page names exist.
//!
//! It checks text against text; what the programs do is tested elsewhere.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tidegate_core::{DeadlineKind, TimeoutPolicy};

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// The fenced blocks of a language.
fn blocks(text: &str, language: &str) -> Vec<String> {
    let fence = format!("```{language}\n");
    text.split(&fence).skip(1).filter_map(|rest| rest.split("```").next()).map(str::to_owned).collect()
}

/// An example without the comment that opens it.
fn example(path: &str) -> String {
    let text = read(path);
    let (comment, code) = text.split_once("\n\n").expect("a comment, then code");
    assert!(comment.lines().all(|line| line.starts_with("//!")), "{path}");
    code.to_owned()
}

#[test]
fn the_readme_shows_the_examples_word_for_word() {
    let examples = [
        example("runtime-tokio/examples/reverse_proxy.rs"),
        example("runtime-smol/examples/reverse_proxy.rs"),
    ];
    assert_eq!(blocks(&read("README.md"), "rust"), examples);
}

#[test]
fn the_documents_state_the_real_defaults() {
    let policy = TimeoutPolicy::default();
    for document in ["README.md", "docs/TIMEOUTS.md"] {
        let text = read(document);
        // The share of one address is no limit of its own.
        for kind in DeadlineKind::ALL.into_iter().filter(|kind| *kind != DeadlineKind::ConnectAddress) {
            let name = kind.name();
            // `| read | 15 s | ...`, with the flag's hyphens as spaces.
            let row = format!("| {} | ", name.replace('-', " "));
            let row = if name == "keep-alive" { "| keep-alive | ".to_owned() } else { row };
            let default = match policy.limit(kind) {
                Some(limit) if limit >= Duration::from_secs(3600) => format!("{} h", limit.as_secs() / 3600),
                Some(limit) => format!("{} s", limit.as_secs()),
                None => "off".to_owned(),
            };
            let line = text.lines().find(|line| line.starts_with(&row));
            let line = line.unwrap_or_else(|| panic!("{document} has no row {row:?}"));
            assert!(line.starts_with(&format!("{row}{default} |")), "{document}: {line}");
        }
        let rows = text.lines().filter(|line| line.starts_with("| ") && line.contains(" s | ")).count();
        assert!(rows >= 10, "{document} has lost its table: {rows} rows");
    }
}

/// The text of every Rust file below a directory.
fn sources(path: &Path, text: &mut String) {
    for entry in fs::read_dir(path).unwrap_or_else(|e| panic!("{}: {e}", path.display())).flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, text);
        } else if path.extension().is_some_and(|e| e == "rs") {
            *text += &fs::read_to_string(&path).unwrap_or_default();
        }
    }
}

#[test]
fn the_http_page_names_tests_and_files_that_exist() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR")).join("../core/src");
    let mut tests = String::new();
    sources(&core, &mut tests);
    let mut cases = String::new();
    sources(&core.join("../../conformance-tests/src/cases"), &mut cases);
    let page = read("docs/HTTP.md");
    let mut rows = 0;
    for line in page.lines() {
        // row | requirement | state | where | test
        let [row, _, state, files, names, ""] = line.split(" |").collect::<Vec<_>>()[..] else { continue };
        if state.trim() == "state" || state.starts_with(" ---") {
            continue;
        }
        rows += 1;
        let quoted = |cell: &str| cell.split('`').skip(1).step_by(2).map(str::to_owned).collect::<Vec<_>>();
        for file in quoted(files) {
            assert!(core.join(&file).is_file(), "{row}: {file}");
        }
        for name in quoted(names) {
            let (among, name) = match name.strip_prefix("conformance: ") {
                Some(case) => (&cases, case),
                None => (&tests, name.as_str()),
            };
            assert!(among.contains(&format!("fn {name}(")), "{row}: {name}");
        }
    }
    assert!(rows >= 60, "docs/HTTP.md has lost its rows: {rows}");
}

#[test]
fn the_operators_page_names_every_flag_and_every_field_of_the_log() {
    let page = read("docs/OPERATING.md");
    let help = std::process::Command::new(env!("CARGO_BIN_EXE_tidegate")).arg("--help").output();
    let help = String::from_utf8(help.expect("the binary starts").stdout).expect("text");
    let flags: Vec<&str> = help
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("--"))
        .filter_map(|line| line.split([' ', '[']).next())
        .collect();
    assert!(flags.len() >= 20, "{help}");
    for flag in flags {
        assert!(page.contains(&format!("`--{flag}")), "--{flag}");
    }
    // The fields are the names that the log's own source gives them.
    let source = read("cli/src/access_log.rs");
    let calls = ["line.plain(\"", "line.bare(\"", "line.quoted(\""];
    let fields: Vec<&str> =
        calls.iter().flat_map(|c| source.split(c).skip(1)).filter_map(|s| s.split('"').next()).collect();
    assert_eq!(fields.len(), 22);
    for field in fields {
        assert!(page.contains(&format!("`{field}`")), "{field}");
    }
}
