//! The suite on the executor and the adapter that `docs/ADAPTER.md` writes from nothing, and that the page shows exactly
//! this code. What the suite says if something of it is wrong is in `tests/mutants/`.

mod tiny;

mod whole {
    tidegate_conformance::suite!(super::tiny::OnTiny, skip: {
        h_09_panic_in_a_user_hook: "a panic in a task ends the executor that polls it: it catches none",
    });
}

/// The blocks of the page, one after the other, are the program.
#[test]
fn the_page_shows_the_program() {
    let page = include_str!("../../../docs/ADAPTER.md");
    let blocks: Vec<&str> = page
        .split("\n```rust\n")
        .skip(1)
        .map(|rest| rest.split_once("\n```\n").map_or(rest, |(block, _)| block))
        .collect();
    let (shown, program) = (blocks.join("\n\n"), include_str!("tiny.rs"));
    for (i, (shown, program)) in shown.lines().zip(program.lines()).enumerate() {
        assert_eq!(shown, program, "line {} of tiny.rs is not the one of docs/ADAPTER.md", i + 1);
    }
    assert_eq!(shown.lines().count(), program.lines().count());
}
