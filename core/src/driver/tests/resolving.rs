//! Names and lists of addresses: what the driver holds of a lookup, and that one attempt to connect is open at a time.

use super::*;
use crate::driver::{Decision, Proxy, Report, Upstreams};
use crate::error::{Error, Phase};
use crate::relay::{Config, Outcome};
use crate::runtime::{Answer, Lookup, Resolution, Resolver};
use crate::timeout::{DeadlineKind, TimeoutPolicy};
use crate::upstream::{Addresses, Name, Target};
use std::sync::Mutex;

/// Keeps the questions for whoever answers them.
#[derive(Default)]
struct Asked(Mutex<Vec<(Name, Answer)>>, Mutex<Vec<(String, String)>>);

impl Resolver for Asked {
    fn resolve(&self, name: &Name) -> Resolution {
        let (answer, lookup) = Lookup::new();
        self.0.lock().unwrap().push((name.clone(), answer));
        Resolution::Waits(lookup)
    }

    fn unreached(&self, name: &Name, found: &Addresses) {
        self.1.lock().unwrap().push((name.to_string(), found.to_string()));
    }
}

struct Rig {
    fake: Fake,
    proxy: Proxy<Fake>,
    asked: Arc<Asked>,
    client: Handle,
    task: Task,
    outcomes: Rc<RefCell<Vec<Outcome>>>,
}

fn rig(target: impl Into<Target>) -> Rig {
    let fake = Fake::new();
    let asked = Arc::new(Asked::default());
    let connect = Some(Duration::from_millis(100));
    let timeouts = TimeoutPolicy { connect, ..TimeoutPolicy::OFF };
    let config = Config { timeouts, ..Config::default() };
    let proxy = Proxy::with_resolver(fake.clone(), Upstreams::new([target]), config, asked.clone());
    let (client, outcomes) = (peer(), Rc::new(RefCell::new(Vec::new())));
    let seen = outcomes.clone();
    let task = Task::new(proxy.serve_connection(
        fake.stream(&client),
        None,
        |_: &crate::RequestHead<'_>| Decision::forward(),
        move |report: &Report<'_>| seen.borrow_mut().push(*report.outcome),
    ));
    Rig { fake, proxy, asked, client, task, outcomes }
}

fn named() -> Rig {
    rig("backend.test:80".parse::<Target>().unwrap())
}

fn addr(n: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 1], n))
}

fn found() -> Result<Addresses, crate::IoFailure> {
    Ok([addr(1)].into_iter().collect())
}

impl Rig {
    fn at(&mut self, ms: u64) {
        self.fake.set_clock(ms);
        self.task.run();
    }

    fn question(&self) -> (Name, Answer) {
        self.asked.0.lock().unwrap().remove(0)
    }
}

#[test]
fn an_answer_wakes_the_connection_that_waits_for_it() {
    let mut rig = named();
    send(&rig.client, GET);
    rig.task.run();
    let (name, answer) = rig.question();
    assert_eq!(name.as_str(), "backend.test:80");
    assert_eq!(
        (rig.fake.open(), rig.proxy.gauges().in_flight),
        (1, 1),
        "no socket yet, and its place is taken"
    );
    assert!(!rig.task.is_woken());
    answer.give(found());
    assert!(rig.task.is_woken());
    rig.task.run();
    let upstream = rig.fake.upstream(0);
    assert!(got(&upstream).starts_with("GET / HTTP/1.1\r\n"));
    send(&upstream, OK5);
    rig.task.run();
    assert!(got(&rig.client).ends_with("hello"));
    // The idle connection needs no lookup.
    send(&rig.client, GET);
    rig.task.run();
    assert!(rig.asked.0.lock().unwrap().is_empty());
    assert!(got(&upstream).starts_with("GET / HTTP/1.1\r\n"));
}

#[test]
fn a_lookup_ends_with_its_deadline_its_client_or_its_connection() {
    type End = fn(&mut Rig);
    let ends: [(&str, End); 4] = [
        ("the deadline", |rig| rig.at(100)),
        ("the client", |rig| {
            at(&rig.client, |p| p.reset = true);
            rig.task.run();
        }),
        ("the proxy", |rig| {
            rig.proxy.stop();
            rig.task.run();
        }),
        ("a drop", |rig| rig.task.cancel()),
    ];
    for (what, end) in ends {
        let mut rig = named();
        send(&rig.client, GET);
        rig.task.run();
        let (_, answer) = rig.question();
        assert!(answer.is_wanted());
        end(&mut rig);
        assert!(!answer.is_wanted(), "{what}");
        assert_eq!(rig.proxy.gauges().in_flight, 0, "{what}");
        answer.give(found());
        rig.task.run();
        assert!(rig.fake.0.borrow().upstreams.is_empty(), "{what}");
        if what == "the deadline" {
            let Some(Error::Timeout(t)) = rig.outcomes.borrow()[0].error else { panic!() };
            assert_eq!((t.kind, t.during), (DeadlineKind::Connect, Phase::Dns));
        }
    }
}

#[test]
fn an_answer_that_is_there_in_the_turn_of_the_deadline_is_not_connected_to() {
    let mut rig = named();
    send(&rig.client, GET);
    rig.task.run();
    let (_, answer) = rig.question();
    rig.fake.set_clock(100);
    answer.give(found());
    rig.task.run();
    assert!(rig.fake.0.borrow().upstreams.is_empty());
    assert!(got(&rig.client).starts_with("HTTP/1.1 504 "));
}

#[test]
fn a_resolver_that_forgets_its_answer_has_not_found_the_name() {
    let mut rig = named();
    send(&rig.client, GET);
    rig.task.run();
    drop(rig.question());
    rig.task.run();
    let text = got(&rig.client);
    assert!(text.starts_with("HTTP/1.1 502 ") && text.contains("error=dns_error"), "{text}");
}

#[test]
fn c_05_the_attempt_at_one_address_is_closed_before_that_at_the_next() {
    let mut rig = rig([addr(1), addr(2)]);
    rig.fake.0.borrow_mut().connects = false;
    send(&rig.client, GET);
    rig.at(0);
    assert_eq!((rig.fake.open(), rig.fake.0.borrow().upstreams.len()), (2, 1));
    rig.at(50);
    assert_eq!((rig.fake.open(), rig.fake.0.borrow().upstreams.len()), (2, 2));
    assert!(rig.fake.upstream(0).borrow().closed);
    rig.fake.connect();
    rig.at(90);
    assert!(got(&rig.fake.upstream(1)).starts_with("GET / HTTP/1.1\r\n"));
    assert_eq!(rig.proxy.gauges().in_flight, 1, "one attempt, one place");
}

/// Whenever it is in the turn in which an attempt's share has run out that something comes of it: it is not taken for what
/// has come of the next one.
#[test]
fn what_comes_of_an_attempt_that_was_given_up_is_not_taken_for_the_next_one() {
    let cases = [Came::Connected, Came::Refused].into_iter().flat_map(|c| (0..12).map(move |n| (c, n)));
    for (came, looks) in cases {
        let mut rig = rig([addr(1), addr(2)]);
        rig.fake.0.borrow_mut().connects = false;
        send(&rig.client, GET);
        rig.at(0);
        rig.fake.0.borrow_mut().then = Some((looks, came));
        rig.at(50);
        rig.fake.connect();
        rig.at(90);
        let upstreams = rig.fake.0.borrow().upstreams.clone();
        let asked: Vec<_> = upstreams.iter().filter(|peer| !peer.borrow().got.is_empty()).collect();
        assert_eq!(asked.len(), 1, "{came:?} after {looks} looks: it is sent to one of them");
        assert_eq!(rig.fake.open(), 2, "{came:?} after {looks} looks: the client, and that one");
        send(asked[0], OK5);
        rig.at(91);
        assert!(got(&rig.client).ends_with("hello"), "{came:?} after {looks} looks");
    }
}

#[test]
fn the_resolver_hears_of_an_answer_none_of_which_can_be_reached() {
    let both = || Ok([addr(1), addr(2)].into_iter().collect());
    let told = |rig: &Rig| core::mem::take(&mut *rig.asked.1.lock().unwrap());
    let unreached = [("backend.test:80".to_owned(), "192.0.2.1:1,192.0.2.1:2".to_owned())];

    let mut rig = named();
    rig.fake.0.borrow_mut().refuses = true;
    send(&rig.client, GET);
    rig.task.run();
    rig.question().1.give(both());
    rig.task.run();
    assert!(got(&rig.client).starts_with("HTTP/1.1 502 "));
    assert_eq!(rig.fake.0.borrow().upstreams.len(), 2);
    assert_eq!(told(&rig), unreached);

    // Both take too long; this time there was nothing to find; and this time it is there.
    rig.fake.0.borrow_mut().refuses = false;
    rig.fake.0.borrow_mut().connects = false;
    send(&rig.client, GET);
    rig.task.run();
    rig.question().1.give(both());
    for ms in [0, 50, 100] {
        rig.at(ms);
    }
    assert!(got(&rig.client).starts_with("HTTP/1.1 504 "));
    assert_eq!(told(&rig), unreached);
    send(&rig.client, GET);
    rig.task.run();
    drop(rig.question());
    rig.task.run();
    assert!(got(&rig.client).starts_with("HTTP/1.1 502 "));
    send(&rig.client, GET);
    rig.task.run();
    rig.question().1.give(both());
    rig.task.run();
    rig.fake.connect();
    rig.task.run();
    let upstream = rig.fake.upstream(4);
    send(&upstream, OK5);
    rig.task.run();
    assert!(got(&rig.client).ends_with("hello"));
    assert_eq!(told(&rig), []);
}

#[test]
fn an_upstream_without_addresses_cannot_be_reached() {
    let mut rig = rig(Vec::new());
    send(&rig.client, GET);
    rig.task.run();
    assert!(got(&rig.client).starts_with("HTTP/1.1 502 "));
    assert!(matches!(rig.outcomes.borrow()[0].error, Some(Error::Resolve(_))));
}

#[test]
fn an_address_whose_share_ran_out_is_not_used_after_the_connect_deadline() {
    let ms = |n| Some(Duration::from_millis(n));
    let fake = Fake::new();
    fake.0.borrow_mut().connects = false;
    let both: [SocketAddr; 2] = [([127, 0, 0, 1], 1).into(), ([127, 0, 0, 1], 2).into()];
    let config =
        Config { timeouts: TimeoutPolicy { connect: ms(100), ..TimeoutPolicy::OFF }, ..Config::default() };
    let proxy = Proxy::new(fake.clone(), Upstreams::new([both]), config);
    let client = peer();
    let route = |_: &crate::RequestHead<'_>| Decision::forward();
    let mut task = Task::new(proxy.serve_connection(fake.stream(&client), None, route, |_: &Report<'_>| {}));
    send(&client, GET);
    task.run();
    assert_eq!(fake.open(), 2, "the client, and the attempt");
    // The thread stalls past both deadlines.
    fake.set_clock(120);
    task.poll();
    let open = fake.open();
    // It completes only now, after the turn in which it was given up.
    fake.connect();
    task.run();
    let answer = got(&client);
    assert!(answer.starts_with("HTTP/1.1 504 "), "{answer}");
    assert_eq!(got(&fake.upstream(0)), "");
    assert_eq!(open, 1, "the attempt that was given up is closed in its turn");
}
