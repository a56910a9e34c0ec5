//! That tokio's clock and the standard one show the same time: a proxy may be on runtimes of several kinds at once, and the
//! instant at which a drain was asked for is the same for all of them. In a process of its own, where nothing has asked the
//! time before.

use std::thread;
use std::time::Duration;

use tidegate_core::runtime::{Runtime as _, std_now};
use tidegate_tokio::Tokio;

#[test]
fn the_time_is_that_of_the_standard_clock() -> std::io::Result<()> {
    std_now();
    thread::sleep(Duration::from_millis(50));
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let tokio = runtime.block_on(async { Tokio::new() })?;
    for _ in 0..2 {
        let (before, now, after) = (std_now(), tokio.now(), std_now());
        // Between the two readings from which the epoch follows there may be a moment, when the machine is busy.
        let slack = Duration::from_millis(20);
        assert!(before <= now && now <= after + slack, "{before} {now} {after}");
    }
    Ok(())
}
