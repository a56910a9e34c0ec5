//! Keeps the documents true: the Rust is that of the examples, which the build compiles, and the
//! defaults are the policy's.
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
        for kind in DeadlineKind::ALL {
            let name = kind.name();
            // `| read | 15 s | ...`, with the flag's hyphens as spaces.
            let row = format!("| {} | ", name.replace('-', " "));
            let row = if name == "keep-alive" { "| keep-alive | ".to_owned() } else { row };
            let default = match policy.limit(kind) {
                Some(limit) if limit >= Duration::from_secs(3600) => format!("{} h", limit.as_secs() / 3600),
                Some(limit) => format!("{} s", limit.as_secs()),
                None => "off".to_owned(),
            };
            // What does not exist yet has no row.
            if let Some(line) = text.lines().find(|line| line.starts_with(&row)) {
                assert!(line.starts_with(&format!("{row}{default} |")), "{document}: {line}");
            }
        }
        let rows = text.lines().filter(|line| line.starts_with("| ") && line.contains(" s | ")).count();
        assert!(rows >= 10, "{document} has lost its table: {rows} rows");
    }
}
