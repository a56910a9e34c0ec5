//! K: the client's side (`timeouts.md` 4.6).

use tidegate_core::DeadlineKind::{ClientHead, ClientWrite, Write};
use tidegate_core::Side;

use super::{BIG, ENDLESS, ok, post};
use crate::expect::*;
use crate::script::{Case, Step, ms, script};
use crate::transcript::End;

/// Half a head is answered with 408.
pub fn k_02_half_a_head() -> Case {
    Case::new("K-02", "half a head")
        .client(script().mark("start").connect().bytes("GET / HT").read_message().read_to_end())
        .expect(status(0, 0, 408))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, ClientHead, Some(Side::Client)))
        .expect(client_end(0, End::Fin))
        .expect(accepted(0))
}

/// The limit for the head is absolute: progress does not help, and the upstream never hears of it.
pub fn k_03_slowloris() -> Case {
    Case::new("K-03", "slowloris")
        .client(
            script()
                .mark("start")
                .connect()
                .bytes("GET / HTTP/1.1\r\nhost: conformance\r\nx: ")
                .background(script().drip(1, ms(40), 100))
                .read_message()
                .read_to_end(),
        )
        .expect(status(0, 0, 408))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(timeout(0, ClientHead, Some(Side::Client)))
        .expect(client_end(0, End::Fin))
        .expect(accepted(0))
}

/// A client that goes on sending can read the whole 408: the proxy sends FIN, and reads on until the
/// linger limit.
pub fn k_09_408_survives_an_eager_sender() -> Case {
    Case::new("K-09", "408 survives an eager sender")
        .upstream(script().read_to_end())
        .client(
            script()
                .connect()
                .mark("start")
                .then(post(BIG))
                .background(script().drip(1024, ms(5), 10_000))
                .read_message()
                .read_to_end()
                .step(Step::Join),
        )
        .expect(status(0, 0, 408))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(200)))
        .expect(timeout(0, Write, Some(Side::Client)))
        .expect(client_end(0, End::Fin))
        // The write limit, then the linger; a write fails soon after that.
        .expect(window_wider(Moment::Mark("start"), Moment::WriteError(0), ms(280), ms(20)))
        .expect(upstream_end(0, End::Rst))
}

/// A client that stops reading is reset, and the upstream is let go.
pub fn k_10_slow_reader() -> Case {
    Case::new("K-10", "slow reader")
        .upstream(script().read_message().then(ok(ENDLESS)).body(BIG).read_to_end())
        .client(
            script().connect().mark("start").get("/").read_head().wait_until("let go", 0, 0).read_to_end(),
        )
        .expect(cut(0, 0, 200, None))
        .expect(client_end(0, End::Rst))
        .expect(upstream_end(0, End::Rst))
        // Counted from the last byte that the kernel took: that is some time after the start.
        .expect(window_wider(Moment::Mark("start"), Moment::UpstreamEnd(0), ms(150), ms(60)))
        .expect(timeout(0, ClientWrite, Some(Side::Client)))
        .expect(reported(0, Some(200)))
}
