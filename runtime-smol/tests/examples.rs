//! The examples that end by themselves are run, and what they have counted is looked at.

#[path = "../examples/embedded.rs"]
mod embedded;

use std::rc::Rc;

use smol::LocalExecutor;

#[test]
fn the_embedding_application_runs_to_its_end() {
    embedded::main().unwrap();
}

#[test]
fn the_embedding_application_counts_how_its_requests_ended() {
    let executor = Rc::new(LocalExecutor::new());
    let counts = smol::block_on(executor.run(embedded::application(&executor))).unwrap();
    assert_eq!(counts.statuses, [(200, 5), (404, 1), (504, 1)].into());
    assert_eq!(counts.timeouts, [("total", 1)].into());
    assert_eq!(counts.errors, 0);
    assert_eq!(Rc::strong_count(&executor), 1, "no task keeps the executor that runs it");
}

#[test]
fn the_page_shows_the_guide_word_for_word() {
    let page = include_str!("../../docs/EMBEDDING-SMOL.md");
    let (_, guide) = include_str!("../examples/guide.rs").split_once("\n\n").unwrap();
    assert!(page.contains(&format!("```rust\n{guide}```\n")), "docs/EMBEDDING-SMOL.md");
}
