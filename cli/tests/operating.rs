//! The binary as an operator meets it, on every runtime: drain, threads, limits, an upstream that dies.
//!
//! The clients and the upstreams are the test's own, so that it decides when an answer comes.

mod support;

use std::io::{Read, Write};
use std::net::TcpStream;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use support::upstream::{Death, Upstream};
use support::{GUARD, RUNTIMES, Running, connect, ended, exchange, get, signal, tidegate, try_exchange};

const REQUEST: &[u8] = b"GET / HTTP/1.1\r\nHost: test\r\n\r\n";

fn start(runtime: &str, args: &[&str]) -> Running {
    Running::start(&[&["--runtime", runtime], args].concat())
}

#[test]
fn a_signal_under_requests_in_flight_loses_none_of_them() {
    const REQUESTS: usize = 50;
    let body = "0123456789".repeat(10_000).into_bytes();
    for (runtime, threads) in RUNTIMES.iter().flat_map(|runtime| [(runtime, "1"), (runtime, "2")]) {
        let upstream = Upstream::gated(body.clone());
        let mut proxy = start(runtime, &["--upstream", &upstream.name(), "--threads", threads]);
        let addr = proxy.addrs[0];
        let mut idle = proxy.connect();
        thread::scope(|scope| {
            let clients: Vec<_> = (0..REQUESTS)
                .map(|_| {
                    scope.spawn(move || {
                        let mut client = connect(addr);
                        let response = exchange(&mut client, REQUEST);
                        ended(&mut client);
                        response
                    })
                })
                .collect();
            upstream.wait_for(REQUESTS);
            proxy.signal("TERM");
            proxy.line_with("draining");
            ended(&mut idle);
            // The listener goes away; a client that slipped into its queue is let go, too.
            let asked = Instant::now();
            while TcpStream::connect(addr).is_ok() {
                assert!(asked.elapsed() < GUARD, "it still listens");
            }
            upstream.open();
            for client in clients {
                let response = client.join().expect("a whole response");
                assert_eq!((response.status, response.body.len()), (200, body.len()));
                assert!(response.body == body);
            }
        });
        let (status, printed) = proxy.wait();
        assert!(status.success(), "{runtime}, {threads} threads: {status} {printed}");
    }
}

#[test]
fn the_requests_that_outlive_a_drain_are_told_why() {
    for runtime in RUNTIMES {
        let upstream = Upstream::gated("never");
        let args = ["--upstream", &upstream.name(), "--drain-timeout", "200ms", "--threads", "2"];
        let mut proxy = start(runtime, &args);
        let mut client = proxy.connect();
        client.write_all(REQUEST).expect("room for a request");
        upstream.wait_for(1);
        proxy.signal("INT");
        assert!(proxy.line_with("draining").contains("200ms"));
        let response = exchange(&mut client, b"");
        assert_eq!(response.status, 504);
        let expected = "tidegate; error=http_response_timeout; details=\"drain\"";
        assert_eq!(response.field("proxy-status"), Some(expected));
        assert_eq!(response.field("connection"), Some("close"));
        drop(client);
        let (status, printed) = proxy.wait();
        assert!(status.success(), "{runtime}: {status} {printed}");
    }
}

/// The idle ones among them leave at once, and are counted all the same.
#[test]
fn the_drain_says_how_many_clients_there_were() {
    for runtime in RUNTIMES {
        let mut proxy = start(runtime, &["--threads", "2"]);
        let mut idle: Vec<_> = (0..200).map(|_| proxy.connect()).collect();
        idle.iter_mut().for_each(|client| assert_eq!(get(client, "/").status, 200));
        proxy.signal("TERM");
        let said = proxy.line_with("draining");
        assert!(said.trim_end().ends_with(" clients=200"), "{runtime}: {said}");
        idle.iter_mut().for_each(ended);
        assert!(proxy.wait().0.success());
    }
}

/// Those who are in the queue before the last thread has begun may take all descriptors that are left.
#[test]
fn a_crowd_at_the_start_does_not_take_the_descriptors_that_the_start_needs() {
    // Which comes first is for the system to say.
    for runtime in RUNTIMES.iter().cycle().take(3 * RUNTIMES.len()) {
        let args = ["--runtime", runtime, "--threads", "8", "--upstream", "127.0.0.1:9"];
        let mut proxy = Running::start_with(100, &args);
        let crowd: Vec<_> = (0..200).map(|_| proxy.connect()).collect();
        // All that it has are taken by now, or it has ended.
        let asked = Instant::now();
        while proxy.is_running() && proxy.descriptors() < 100 {
            assert!(asked.elapsed() < GUARD, "{runtime}: {} descriptors", proxy.descriptors());
        }
        drop(crowd);
        assert_eq!(get(&mut proxy.connect(), "/").status, 502, "{runtime}: nobody is there, but it serves");
        proxy.signal("TERM");
        let (status, printed) = proxy.wait();
        assert!(status.success(), "{runtime}: {status} {printed}");
    }
}

#[test]
fn two_threads_give_the_same_answers_as_one() {
    let requests: &[&[u8]] = &[
        REQUEST,
        b"GET /chunked HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /big?bytes=100001 HTTP/1.1\r\nHost: test\r\n\r\n",
        b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello",
        b"GET /nowhere HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n",
        b"GET / HTTP/1.1\r\n\r\n",
    ];
    for runtime in RUNTIMES {
        let of = |threads| {
            let proxy = start(runtime, &["--threads", threads, "--read-timeout", "200ms"]);
            let addr = proxy.addrs[0];
            // Many at once, so that each thread has some.
            thread::scope(|scope| {
                let client = || requests.iter().map(|request| exchange(&mut connect(addr), request));
                let client = move || client().map(|r| (r.status, r.body)).collect::<Vec<_>>();
                let clients: Vec<_> = (0..8).map(|_| scope.spawn(client)).collect();
                clients.into_iter().map(|c| c.join().expect("answers")).collect::<Vec<_>>()
            })
        };
        let one = of("1");
        let statuses: Vec<u16> = one[0].iter().map(|(status, _)| *status).collect();
        assert_eq!(statuses, [200, 200, 200, 200, 404, 504, 400]);
        assert!(one.iter().all(|answers| answers == &one[0]));
        assert!(of("2") == one, "{runtime}");
    }
}

#[test]
fn an_upstream_has_one_limit_over_all_threads() {
    for runtime in RUNTIMES {
        let upstream = Upstream::gated("answer");
        let args = ["--upstream", &upstream.name(), "--max-conns-per-upstream", "3", "--threads", "2"];
        let proxy = start(runtime, &[&args[..], &["--queue-timeout", "off"]].concat());
        let addr = proxy.addrs[0];
        thread::scope(|scope| {
            let client = move || exchange(&mut connect(addr), REQUEST).status;
            let clients: Vec<_> = (0..20).map(|_| scope.spawn(client)).collect();
            upstream.wait_for(3);
            upstream.open();
            clients.into_iter().for_each(|c| assert_eq!(c.join().expect("an answer"), 200));
        });
        assert_eq!((upstream.arrived(), upstream.most_at_once()), (20, 3), "{runtime}");
    }
}

#[test]
fn who_waits_too_long_for_an_upstream_gets_503() {
    for runtime in RUNTIMES {
        let upstream = Upstream::gated("answer");
        let args = ["--upstream", &upstream.name(), "--max-conns-per-upstream", "1"];
        let proxy = start(runtime, &[&args[..], &["--queue-timeout", "200ms"]].concat());
        let mut first = proxy.connect();
        first.write_all(REQUEST).expect("room for a request");
        upstream.wait_for(1);
        let response = exchange(&mut proxy.connect(), REQUEST);
        assert_eq!(response.status, 503);
        let expected = "tidegate; error=connection_limit_reached; details=\"queue\"";
        assert_eq!(response.field("proxy-status"), Some(expected));
        assert!(response.took >= Duration::from_millis(200), "early: {:?}", response.took);
        upstream.open();
        assert_eq!(exchange(&mut first, b"").status, 200);
    }
}

#[test]
fn the_queue_waits_as_long_as_a_connect_unless_told_otherwise() {
    let upstream = Upstream::gated("answer");
    let args =
        ["--upstream", &upstream.name(), "--max-conns-per-upstream", "1", "--connect-timeout", "150ms"];
    let proxy = Running::start(&args);
    let mut first = proxy.connect();
    first.write_all(REQUEST).expect("room for a request");
    upstream.wait_for(1);
    let response = exchange(&mut proxy.connect(), REQUEST);
    assert_eq!(response.status, 503);
    assert!(response.took < Duration::from_secs(1), "the default of 1s: {:?}", response.took);
}

#[test]
fn a_body_over_the_limit_is_refused_in_both_framings() {
    for runtime in RUNTIMES {
        let proxy = start(runtime, &["--max-body", "10"]);
        let post = |framing: &str| {
            let request = format!("POST /echo HTTP/1.1\r\nHost: test\r\n{framing}");
            exchange(&mut proxy.connect(), request.as_bytes()).status
        };
        assert_eq!(post("Content-Length: 10\r\n\r\n0123456789"), 200);
        assert_eq!(post("Content-Length: 11\r\n\r\n"), 413);
        assert_eq!(post("Transfer-Encoding: chunked\r\n\r\na\r\n0123456789\r\n0\r\n\r\n"), 200);
        assert_eq!(post("Transfer-Encoding: chunked\r\n\r\nb\r\n0123456789a\r\n0\r\n\r\n"), 413);
    }
}

#[test]
fn at_the_limit_the_oldest_idle_client_makes_room() {
    // On several threads, which async-std always has, a client may have its answer before its connection counts as
    // idle: which one is the oldest would be a race.
    for runtime in RUNTIMES.iter().filter(|runtime| **runtime != "async-std") {
        let proxy = start(runtime, &["--max-client-conns", "2", "--threads", "1"]);
        let [mut oldest, mut other] = [proxy.connect(), proxy.connect()];
        assert_eq!(get(&mut oldest, "/").status, 200);
        assert_eq!(get(&mut other, "/").status, 200);
        let mut third = proxy.connect();
        assert_eq!(get(&mut third, "/").status, 200);
        ended(&mut oldest);
        assert_eq!(get(&mut other, "/").status, 200);
        assert_eq!(get(&mut third, "/").status, 200);
    }
}

#[test]
fn at_the_limit_without_an_idle_client_the_next_one_waits() {
    const LIMIT: usize = 4;
    for (runtime, threads) in RUNTIMES.iter().flat_map(|runtime| [(runtime, "1"), (runtime, "2")]) {
        let upstream = Upstream::gated("answer");
        let args = ["--upstream", &upstream.name(), "--max-client-conns", "4", "--threads", threads];
        let proxy = start(runtime, &args);
        let addr = proxy.addrs[0];
        thread::scope(|scope| {
            let client = move || exchange(&mut connect(addr), REQUEST).status;
            let clients: Vec<_> = (0..5 * LIMIT).map(|_| scope.spawn(client)).collect();
            upstream.wait_for(LIMIT);
            upstream.open();
            clients.into_iter().for_each(|c| assert_eq!(c.join().expect("an answer"), 200));
        });
        assert_eq!(upstream.arrived(), 5 * LIMIT);
        assert_eq!(upstream.most_at_once(), LIMIT, "{runtime}, {threads} threads");
    }
}

#[test]
fn an_upstream_that_dies_costs_what_it_had_and_comes_back() {
    thread::scope(|scope| {
        // Its coming back takes some seconds: all at once.
        for runtime in RUNTIMES {
            for (threads, death) in
                [("1", Death::Closes), ("1", Death::Resets), ("2", Death::Closes), ("2", Death::Resets)]
            {
                scope.spawn(move || dies_and_comes_back(runtime, threads, death));
            }
        }
    });
}

fn dies_and_comes_back(runtime: &str, threads: &str, death: Death) {
    const CLIENTS: usize = 8;
    let what = format!("{runtime}, {threads} threads, {death:?}");
    let (mut dying, staying) = (Upstream::answering("dying"), Upstream::answering("staying"));
    let args = ["--upstream", &dying.name(), "--upstream", &staying.name(), "--threads", threads];
    let proxy = start(runtime, &args);
    let addr = proxy.addrs[0];
    let (dead, enough) = (AtomicBool::new(false), AtomicBool::new(false));
    let (lost, sent_after) = (AtomicUsize::new(0), AtomicUsize::new(0));
    thread::scope(|scope| {
        for _ in 0..CLIENTS {
            scope.spawn(|| {
                while !enough.load(Ordering::Acquire) {
                    let after = dead.load(Ordering::Acquire);
                    let response = try_exchange(&mut connect(addr), REQUEST);
                    // What was in flight may be cut; what came later may not.
                    if after {
                        let response = response.expect("a whole response");
                        sent_after.fetch_add(1, Ordering::Relaxed);
                        assert_eq!((response.status, response.text().as_str()), (200, "staying"), "{what}");
                    } else if !response.is_ok_and(|response| response.status == 200) {
                        lost.fetch_add(1, Ordering::Relaxed);
                    }
                }
            });
        }
        dying.wait_for(20);
        let connections = dying.die(death);
        dead.store(true, Ordering::Release);
        staying.wait_for(staying.arrived() + 100);
        enough.store(true, Ordering::Release);
        // A request had a connection of its own.
        let lost = lost.load(Ordering::Relaxed);
        assert!(lost <= connections.min(CLIENTS), "{what}: {lost} of {connections} connections");
    });
    assert!(sent_after.into_inner() > 50, "{what}");
    dying.revive();
    let began = Instant::now();
    while get(&mut connect(addr), "/").text() != "dying" {
        assert!(began.elapsed() < GUARD, "{what}: it is not tried again");
    }
    // And takes its turns again.
    let had = dying.arrived();
    for _ in 0..20 {
        assert_eq!(get(&mut connect(addr), "/").status, 200);
    }
    assert!(dying.arrived() >= had + 5, "{what}: {} of 20", dying.arrived() - had);
}

#[test]
fn a_second_process_cannot_take_the_port() {
    for runtime in RUNTIMES {
        let proxy = start(runtime, &["--threads", "2"]);
        let addr = proxy.addrs[0].to_string();
        let output =
            tidegate(&["--runtime", runtime, "--listen", &addr]).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(1));
        assert!(String::from_utf8_lossy(&output.stderr).contains(&addr));
    }
}

#[test]
fn the_log_level_decides_what_is_said() {
    let mut proxy = Running::start(&["--threads", "2", "--log-level", "debug"]);
    proxy.line_with("DEBUG thread starts name=\"tidegate-1\"");

    let addr = proxy.addrs[0].to_string();
    let failing = |args: &[&str]| {
        let output = tidegate(&[&["--listen", &addr], args].concat()).output().expect("the binary starts");
        assert_eq!(output.status.code(), Some(1));
        String::from_utf8(output.stderr).expect("text")
    };
    // Why it ends is said at every level, once, and in the form of the other lines.
    let why = format!("cannot listen on {addr}: ");
    for level in ["debug", "error", "off"] {
        let text = failing(&["--log-level", level]);
        assert!(text.contains(&format!("Z ERROR {why}")) && text.lines().count() == 1, "{level}: {text}");
        let json = failing(&["--log-level", level, "--access-log=json"]);
        let read: serde_json::Value = serde_json::from_str(&json).unwrap_or_else(|e| panic!("{json}: {e}"));
        assert_eq!(read["level"], "ERROR");
        assert!(read["message"].as_str().is_some_and(|message| message.starts_with(&why)), "{json}");
    }
    proxy.signal("TERM");
    let (status, mut printed) = proxy.wait();
    assert!(status.success() && printed.contains("draining"), "{printed}");

    // At `warn` nothing is said of a start and an end that go well. The address is free again by now.
    let mut child = tidegate(&["--listen", &addr, "--log-level", "warn"]).spawn().expect("the binary starts");
    let asked = Instant::now();
    let mut client = loop {
        match TcpStream::connect(&addr) {
            Ok(client) => break client,
            Err(e) => assert!(asked.elapsed() < GUARD, "{e}"),
        }
    };
    assert_eq!(get(&mut client, "/").status, 200);
    signal(&child, "TERM");
    assert!(child.wait().expect("it was not waited for").success());
    printed.clear();
    child.stderr.take().expect("stderr is piped").read_to_string(&mut printed).expect("text");
    assert_eq!(printed, "");
}
