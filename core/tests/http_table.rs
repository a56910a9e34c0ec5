//! The tables of `docs/HTTP.md`: every row says where it is implemented and which tests show it, and these exist. What the
//! tests show is not looked at here.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

/// Every file below `dir` that ends in `.rs`, one after the other.
fn sources(dir: &Path, all: &mut String) {
    for entry in fs::read_dir(dir).expect("a directory").flatten() {
        let path = entry.path();
        if path.is_dir() {
            sources(&path, all);
        } else if path.extension().is_some_and(|ext| ext == "rs") {
            all.push_str(&fs::read_to_string(path).expect("text"));
        }
    }
}

/// What stands between backquotes.
fn quoted(cell: &str) -> impl Iterator<Item = &str> {
    cell.split('`').skip(1).step_by(2)
}

#[test]
fn every_row_names_code_and_tests_that_exist() {
    let core = Path::new(env!("CARGO_MANIFEST_DIR"));
    let (mut tests, mut cases) = (String::new(), String::new());
    sources(&core.join("src"), &mut tests);
    sources(&core.join("../conformance-tests/src/cases"), &mut cases);
    let doc = fs::read_to_string(core.join("../docs/HTTP.md")).expect("the document");
    let mut rows = BTreeSet::new();
    for line in doc.lines() {
        let cells: Vec<&str> = line.split(" | ").collect();
        let [row, _, _, code, shown] = cells[..] else { continue };
        let row = row.trim_start_matches("| ");
        if !row.starts_with(|c: char| c.is_ascii_uppercase()) || !row.ends_with(|c: char| c.is_ascii_digit())
        {
            continue;
        }
        rows.insert(row);
        assert!(quoted(code).next().is_some() && quoted(shown).next().is_some(), "{row} names too little");
        for file in quoted(code) {
            assert!(core.join("src").join(file).is_file(), "{row}: there is no {file}");
        }
        for test in quoted(shown) {
            match test.strip_prefix("conformance: ") {
                Some(case) => assert!(cases.contains(&format!("fn {case}()")), "{row}: no case {case}"),
                None => assert!(
                    tests.contains(&format!("    fn {test}(")) || tests.contains(&format!("fn {test}()")),
                    "{row}: no test {test}"
                ),
            }
        }
    }
    // No number is left out.
    let of = |letter: char, last: u8| (1..=last).map(move |n| format!("{letter}{n}"));
    let letters = [
        ('F', 17),
        ('L', 13),
        ('H', 12),
        ('E', 6),
        ('R', 8),
        ('C', 6),
        ('Y', 2),
        ('U', 5),
        ('B', 4),
        ('T', 7),
        ('G', 1),
    ];
    let all: BTreeSet<String> = letters.into_iter().flat_map(|(letter, last)| of(letter, last)).collect();
    assert_eq!(rows, all.iter().map(String::as_str).collect());
}
