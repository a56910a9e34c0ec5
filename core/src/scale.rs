//! How much the unit tests do. Miri interprets them, hundreds of times slower than they run, so there they do less of the
//! same: fewer cases, fewer turns, shorter bodies. Without Miri nothing here changes anything. It must not change what a test
//! asserts.

use proptest::test_runner::Config;

/// The cases of one property under Miri.
const CASES: u32 = 4;

/// `all`, and `few` under Miri.
pub(crate) const fn or_under_miri<T: Copy>(all: T, few: T) -> T {
    if cfg!(miri) { few } else { all }
}

/// The properties' configuration. Miri reads no files, so that there no earlier failures are played again, nor new ones kept.
pub(crate) fn properties(config: Config) -> Config {
    if cfg!(miri) {
        Config { cases: config.cases.min(CASES), failure_persistence: None, ..config }
    } else {
        config
    }
}
