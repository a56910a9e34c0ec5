//! Every case in virtual time alone, and that virtual time repeats itself exactly.

use tidegate_conformance::{cases, run_virtual};

mod cases_in_virtual_time {
    tidegate_conformance::virtual_suite!();
}

#[test]
fn the_same_case_gives_the_same_transcript() {
    for (name, case) in cases::all() {
        assert_eq!(run_virtual(&case()), run_virtual(&case()), "{name}");
    }
}

#[test]
fn tests_are_named_after_their_cases() {
    for (name, case) in cases::all() {
        assert_eq!(name, case().test_name());
    }
    for (name, test_name) in cases::all_waits() {
        assert_eq!(name, test_name);
    }
}
