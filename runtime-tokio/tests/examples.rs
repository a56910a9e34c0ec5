//! The examples that end by themselves are run, on both kinds of runtime, and what they have counted is looked at.

#[path = "../examples/embedded.rs"]
mod embedded;

use std::io;

use tokio::runtime::{Builder, Runtime};

fn counts_of(runtime: io::Result<Runtime>) -> embedded::Counts {
    runtime.unwrap().block_on(embedded::application()).unwrap()
}

#[test]
fn the_embedding_application_runs_to_its_end() {
    embedded::main().unwrap();
}

#[test]
fn the_embedding_application_counts_the_same_on_one_thread_and_on_several() {
    let several = counts_of(Builder::new_multi_thread().worker_threads(2).enable_all().build());
    let one = counts_of(Builder::new_current_thread().enable_all().build());
    assert_eq!(several, one);
    assert_eq!(one.statuses, [(200, 5), (404, 1), (504, 1)].into());
    assert_eq!(one.timeouts, [("total", 1)].into());
    assert_eq!(one.errors, 0);
}

#[test]
fn the_page_shows_the_guide_word_for_word() {
    let page = include_str!("../../docs/EMBEDDING-TOKIO.md");
    let (_, guide) = include_str!("../examples/guide.rs").split_once("\n\n").unwrap();
    assert!(page.contains(&format!("```rust\n{guide}```\n")), "docs/EMBEDDING-TOKIO.md");
}
