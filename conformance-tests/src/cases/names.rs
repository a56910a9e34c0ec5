//! Names and lists of addresses: C-05 to C-09, and what H, S and T say of name resolution.

use std::sync::LazyLock;

use tidegate_core::DeadlineKind::{Connect, Total};
use tidegate_core::Phase;

use super::s::drained_while;
use super::upstreams::answers;
use crate::expect::*;
use crate::script::{ASKED, Aim, Case, Script, Takes, Upstream, ms, script};

const HANGING: Upstream = Upstream::FullBacklog { freed_by: None };

/// Longer than any limit here.
const HANGS: Takes = Takes::Time(ms(2000));

const SLOW: &str = "slow.test:80";

fn slow() -> Aim {
    Aim::Name { name: SLOW, takes: HANGS, found: vec![0] }
}

/// An address that hangs has a share of the connect deadline; the next one is tried within it, when the first attempt
/// is closed.
pub fn c_05_two_addresses_first_hangs() -> Case {
    Case::new("C-05", "two addresses, first hangs")
        .patient()
        .policy(|p| p.connect = Some(ms(300)))
        .upstream_is(HANGING)
        .other(Upstream::Scripts(vec![script().mark("second").snapshot("reached").then(answers("good"))]))
        .aim(Aim::List(vec![0, 1]))
        .client(script().mark("start").connect().get("/").read_message())
        .expect(text(0, 0, "good"))
        // Not the first byte of the response: a look at the kernel's table may take long, and comes before it.
        .expect(window(Moment::Mark("start"), Moment::Mark("second"), ms(150)))
        .expect(snapshot("reached", 0, 1))
        .expect(attempts(0, 1))
        .expect(success(0))
        .expect(outcomes(1))
}

/// An address that refuses leads to the next at once. So do the addresses of a name.
pub fn c_05_two_addresses_first_refuses() -> Case {
    Case::new("C-05", "two addresses, first refuses")
        .patient()
        .upstream_is(Upstream::Closed)
        .other(Upstream::Scripts(vec![answers("good")]))
        .aim(Aim::Name { name: "two.test:80", takes: Takes::Time(ms(0)), found: vec![0, 1] })
        .client(script().mark("start").connect().get("/").read_message())
        .expect(text(0, 0, "good"))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(0)))
        .expect(attempts(0, 1))
        .expect(success(0))
        .expect(lookups(1))
}

/// Addresses that all hang have one connect deadline together.
pub fn c_06_all_addresses_hang() -> Case {
    Case::new("C-06", "all addresses hang")
        .policy(|p| p.connect = Some(ms(150)))
        .upstream_is(HANGING)
        .other(HANGING)
        .other(HANGING)
        .aim(Aim::List(vec![0, 1, 2]))
        .client(script().mark("start").connect().get("/").read_some().snapshot("answered").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(150)))
        .expect(snapshot("answered", 0, 0))
        .expect(timeout(0, Connect, None))
        .expect(during(0, Phase::Connect))
        .expect(attempts(0, 1))
        .expect(outcomes(1))
}

/// A lookup that is too slow is given up like a connect, and what it finds later is nobody's.
pub fn c_07_slow_dns() -> Case {
    Case::new("C-07", "slow DNS")
        .patient()
        .policy(|p| p.connect = Some(ms(100)))
        .upstream(answers("too late"))
        .aim(Aim::Name { name: SLOW, takes: Takes::Time(ms(250)), found: vec![0] })
        .client(script().mark("start").connect().get("/").read_message())
        .client(script().at(ms(400)))
        .expect(status(0, 0, 504))
        .expect(field(0, 0, "proxy-status", "tidegate; error=dns_timeout; details=\"connect\""))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(100)))
        .expect(timeout(0, Connect, None))
        .expect(during(0, Phase::Dns))
        .expect(accepted(0))
        .expect(outcomes(1))
}

/// A name that is not found is no timeout, and answered at once.
pub fn c_07_unknown_name() -> Case {
    Case::new("C-07", "unknown name")
        .aim(Aim::Name { name: "nobody.test:80", takes: Takes::Time(ms(0)), found: Vec::new() })
        .client(script().mark("start").connect().get("/").read_message())
        .expect(status(0, 0, 502))
        .expect(field(0, 0, "proxy-status", "tidegate; error=dns_error"))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(0)))
        .expect(failure(0, "Resolve"))
        .expect(accepted(0))
}

/// Lookups that hang hold up nobody who needs none. One that waits for its turn counts against its request's connect
/// deadline; when that is over it is never begun. (The fourth upstream is an address. It takes over, too, what the
/// other three fail to reach: one at a time, so that nobody tries another name.)
pub fn c_08_dns_pool_full() -> Case {
    let named = |name| Aim::Name { name, takes: Takes::Until("free"), found: vec![0] };
    let answer = || {
        script().read_message().head("HTTP/1.1 200 OK\nconnection: close\ncontent-length: 4").bytes("here")
    };
    // Each comes after the one before it has its upstream, however late the machine is: the turns are theirs.
    let asks = |script: Script, mark| script.mark(mark).connect().get("/");
    Case::new("C-08", "DNS pool full")
        .patient()
        .policy(|p| p.connect = Some(ms(300)))
        .max_conns(1)
        .upstream_is(Upstream::Scripts(vec![answer(), answer(), answer(), answer()]))
        .aim(named("first.test:80"))
        .aim(named("second.test:80"))
        .aim(named("third.test:80"))
        .aim(Aim::Address(0))
        .client(asks(script(), "one").read_message())
        .client(asks(script().at(ms(60)).wait_for("first.test:80"), "two").read_message())
        .client(asks(script().at(ms(120)).wait_for("second.test:80"), "three").read_message())
        .client(asks(script().at(ms(180)).wait_for(ASKED[2]), "four").read_message())
        .client(script().at(ms(600)).mark("free").at(ms(660)))
        .expect(window(Moment::Mark("one"), Moment::FirstByte(0, 0), ms(300)))
        .expect(window(Moment::Mark("three"), Moment::FirstByte(2, 0), ms(300)))
        .expect(window(Moment::Mark("four"), Moment::FirstByte(3, 0), ms(0)))
        .expect(text(2, 0, "here"))
        .expect(text(3, 0, "here"))
        .expect(attempts(0, 2))
        .expect(attempts(1, 2))
        .expect(attempts(2, 2))
        .expect(attempts(3, 1))
        .expect(never("third.test:80"))
        .expect(lookups(2))
        .expect(outcomes(4))
}

/// With no time to connect, an idle connection is used and no other is made.
pub fn c_09_zero_and_pool_hit() -> Case {
    let closing = script().read_message().head("HTTP/1.1 200 OK\nconnection: close\ncontent-length: 3");
    Case::new("C-09", "zero and pool hit")
        .patient()
        .policy(|p| p.connect = Some(ms(1000)))
        .route("/hurry", |p| p.connect = Some(ms(0)))
        .logged()
        .upstream(answers("one").then(closing.bytes("two")).read_to_end())
        .client(
            script()
                .connect()
                .get("/")
                .read_message()
                .get("/hurry")
                .read_message()
                .mark("start")
                .get("/hurry")
                .read_message(),
        )
        .expect(text(0, 0, "one"))
        .expect(text(0, 1, "two"))
        .expect(reused(1, true))
        .expect(status(0, 2, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 2), ms(0)))
        .expect(timeout(2, Connect, None))
        .expect(connects(1))
        .expect(accepted(1))
        .expect(outcomes(3))
}

/// A hundred names, each looked up in vain: no more lookups are ever under way than there may be.
pub fn h_12_blocking_work() -> Case {
    static NAMES: LazyLock<Vec<String>> =
        LazyLock::new(|| (0..100).map(|n| format!("name-{n}.test:80")).collect());
    let case = Case::new("H-12", "blocking work").patient().policy(|p| p.connect = Some(ms(3)));
    NAMES
        .iter()
        .fold(case, |case, name| case.aim(Aim::Name { name, takes: HANGS, found: vec![0] }))
        .client(script().mark("start").connect().get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(timeout(0, Connect, None))
        .expect(during(0, Phase::Dns))
        .expect(attempts(0, 100))
        .expect(lookups(2))
        .expect(accepted(0))
}

/// A lookup that hangs holds no drain up, nor the end of the runtime.
pub fn s_04_during_name_resolution() -> Case {
    drained_while("during name resolution", Phase::Dns)
        .aim(slow())
        .client(script().connect().get("/").read_message())
        .client(script().wait_for(SLOW).mark("drain"))
        .expect(attempts(0, 1))
}

/// The total covers name resolution.
pub fn t_18_during_name_resolution() -> Case {
    Case::new("T-18", "during name resolution")
        .policy(|p| {
            p.connect = Some(ms(200));
            p.total = Some(ms(80));
        })
        .aim(slow())
        .client(script().mark("start").connect().get("/").read_message())
        .expect(status(0, 0, 504))
        .expect(window(Moment::Mark("start"), Moment::FirstByte(0, 0), ms(80)))
        .expect(timeout(0, Total, None))
        .expect(during(0, Phase::Dns))
        .expect(accepted(0))
        .expect(outcomes(1))
}
