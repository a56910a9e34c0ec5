//! Cases in exact time: ties, and orders that no kernel can be made to produce (`timeouts.md` section 4, the rows
//! marked V). Each is a function that plays scripted cases, usually one for each order.

use std::time::Duration;

use super::ok;
use crate::expect::*;
use crate::run_fake::Exact;
use crate::script::{Case, ms, script};

/// Microseconds: the virtual network takes a hundred for one way.
const fn us(n: u64) -> Duration {
    Duration::from_micros(n)
}

/// An idle connection whose limit ends before, while and after it is asked for is either used or closed, never both:
/// every request is answered, on a connection that its upstream has not seen the end of.
pub async fn p_14_idle_expiry_and_checkout_in_one_turn(exact: &Exact) {
    let (mut used, mut dialled) = (0, 0);
    // Some hundred microseconds go by on the network around the limit of 150 ms.
    for early in (0..=12).map(|step| us(50) * step) {
        let answers = |text| script().read_message().then(ok(3)).bytes(text);
        let case = Case::new("P-14", "idle expiry and checkout in one turn")
            .policy(|p| p.keep_alive = None)
            .upstream(answers("one").then(answers("two")))
            .upstream(answers("new"))
            .client(
                script().connect().get("/1").read_message().pause(ms(150) - early).get("/2").read_message(),
            )
            .expect(text(0, 0, "one"))
            .expect(status(0, 1, 200))
            .expect(success(1))
            .expect(outcomes(2));
        let t = exact.check(case).await;
        let was_reused = t.outcomes.get(1).is_some_and(|o| o.reused);
        let body = t.response(0, 1).map_or(&[][..], |m| &m.text);
        exact.expect(body == if was_reused { b"two" } else { b"new" }, "the answer of the connection in use");
        let ended = t.upstreams.first().and_then(|log| log.end);
        exact.note(format!("{early:?} early: reused {was_reused}, the idle one ended {ended:?}"));
        *if was_reused { &mut used } else { &mut dialled } += 1;
    }
    exact.expect(used > 0 && dialled > 0, "the limit to end among these instants");
}
