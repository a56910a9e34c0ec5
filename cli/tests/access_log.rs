//! The access log: what a line holds, in both forms, and that neither a client nor a reader can do harm to it.

mod support;

use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener};
use std::sync::mpsc;
use std::thread;

use serde_json::Value;
use support::upstream::Upstream;
use support::{RUNTIMES, Running, connect, exchange, get};

fn start(runtime: &str, args: &[&str]) -> Running {
    Running::start(&[&["--runtime", runtime], args].concat())
}

/// The next line of the access log, as JSON.
fn json(proxy: &mut Running) -> Value {
    let line = proxy.line_with("\"time\":");
    serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"))
}

/// The value of `name=` in a text line, as it stands.
fn field<'a>(line: &'a str, name: &str) -> &'a str {
    let (_, rest) = line.split_once(&format!(" {name}=")).unwrap_or_else(|| panic!("{name} in {line}"));
    rest.split(' ').next().unwrap_or_default().trim_end()
}

#[test]
fn a_text_line_says_how_the_request_went() {
    for runtime in RUNTIMES {
        let mut proxy = start(runtime, &["--access-log"]);
        let mut client = proxy.connect();
        let peer = client.local_addr().expect("an address").to_string();
        let post = b"POST /echo?q=\"a\\b\" HTTP/1.1\r\nHost: test:8080\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(exchange(&mut client, post).status, 200);
        let line = proxy.line_with("POST");
        assert!(line.starts_with("time=20") && line.contains("Z client="), "{line}");
        for (name, value) in [
            ("client", peer.as_str()),
            ("method", "\"POST\""),
            ("target", r#""/echo?q=\"a\\b\"""#),
            ("host", "\"test:8080\""),
            ("status", "200"),
            ("bytes_in", "5"),
            ("bytes_out", "5"),
            ("retries", "0"),
            ("reused", "false"),
            ("timeout", "-"),
            ("blocked_on", "-"),
            ("error", "-"),
        ] {
            assert_eq!(field(&line, name), value, "{name} in {line}");
        }
        assert!(field(&line, "upstream").starts_with("127.0.0.1:"), "{line}");
        for name in ["total", "queue", "connect", "request", "response_head", "response_body"] {
            let value = field(&line, &format!("{name}_ms"));
            assert!(value.parse::<f64>().is_ok_and(|ms| ms >= 0.0), "{name}: {line}");
        }
        assert_eq!(get(&mut client, "/").status, 200);
        assert_eq!(field(&proxy.line_with("GET"), "reused"), "true");
    }
}

#[test]
fn a_json_line_has_the_same_fields() {
    for runtime in RUNTIMES {
        let mut proxy = start(runtime, &["--access-log=json", "--read-timeout", "200ms", "--threads", "2"]);
        let mut client = proxy.connect();
        let target = "/echo?q=\"a\\b\"&c={}";
        assert_eq!(get(&mut client, target).status, 200);
        let line = json(&mut proxy);
        assert_eq!(line["target"], target);
        assert_eq!(line["host"], "test");
        assert_eq!(line["status"], 200);
        assert_eq!(line["client"], client.local_addr().expect("an address").to_string());
        assert_eq!(line["error"], Value::Null);
        assert_eq!(line.as_object().map(|fields| fields.len()), Some(22));

        assert_eq!(get(&mut client, "/slow").status, 504);
        let line = json(&mut proxy);
        assert_eq!((&line["timeout"], &line["blocked_on"]), (&"read".into(), &"upstream".into()));
        assert!(line["error"].as_str().is_some_and(|e| e.contains("read timeout")), "{line}");
        assert!(line["response_head_ms"].as_f64().is_some_and(|ms| ms >= 200.0), "{line}");
        assert!(line["total_ms"].as_f64() >= line["response_head_ms"].as_f64(), "{line}");
    }
}

#[test]
fn an_ipv4_client_of_a_listener_for_both_is_logged_by_its_own_address() {
    let mut proxy = Running::start(&["--access-log", "--listen", "[::]:0"]);
    let mut client = connect((Ipv4Addr::LOCALHOST, proxy.addrs[1].port()).into());
    let peer = client.local_addr().expect("an address").to_string();
    assert_eq!(get(&mut client, "/").status, 200);
    assert_eq!(field(&proxy.line_with("GET"), "client"), peer);
}

#[test]
fn a_client_cannot_forge_a_line() {
    for (form, none) in [("text", "target=- "), ("json", "\"target\":null,")] {
        let mut proxy = Running::start(&[&format!("--access-log={form}")]);
        for forged in
            ["GET /\x01\x1b[2J HTTP/1.1\r\nHost: test\r\n\r\n", "GET /\nstatus=200 HTTP/1.1\r\n\r\n"]
        {
            assert_eq!(exchange(&mut proxy.connect(), forged.as_bytes()).status, 400);
            // What was no sound request has no target, whatever its bytes were.
            let line = proxy.line_with("status");
            assert!(line.contains(none) && line.contains("400"), "{line}");
        }
        let host = "GET / HTTP/1.1\r\nHost: a\" status=200\r\n\r\n";
        assert_eq!(exchange(&mut proxy.connect(), host.as_bytes()).status, 400);
        assert!(!proxy.line_with("status").contains("status=200"));
    }
}

#[test]
fn who_leaves_is_logged_without_a_status() {
    let upstream = Upstream::gated("never");
    let mut proxy = Running::start(&["--access-log=json", "--upstream", &upstream.name()]);
    let mut client = proxy.connect();
    client.write_all(b"GET /gone HTTP/1.1\r\nHost: test\r\n\r\n").expect("room for a request");
    upstream.wait_for(1);
    // RST: FIN alone would still be answered.
    socket2::SockRef::from(&client).set_linger(Some(std::time::Duration::ZERO)).expect("a plain option");
    drop(client);
    let line = json(&mut proxy);
    assert_eq!((&line["status"], &line["target"]), (&Value::Null, &"/gone".into()));
    assert_eq!(line["error"], "the client left");
}

#[test]
fn a_long_target_is_cut_and_the_line_stays_whole() {
    let mut proxy = Running::start(&["--access-log=json"]);
    let target = format!("/{}", "x".repeat(10_000));
    assert_eq!(get(&mut proxy.connect(), &target).status, 404);
    let line = json(&mut proxy);
    let logged = line["target"].as_str().expect("a string");
    let kept = logged.strip_suffix("...").expect("a mark");
    assert!(kept.len() > 2000 && target.starts_with(kept), "{logged}");
}

#[test]
fn a_reader_that_stops_reading_costs_lines_and_no_requests() {
    for runtime in RUNTIMES {
        let mut proxy = start(runtime, &["--access-log", "--threads", "2"]);
        let mut client = proxy.connect();
        let target = format!("/{}", "x".repeat(2000));
        // Four times what a pipe holds.
        for _ in 0..128 {
            assert_eq!(get(&mut client, &target).status, 404);
        }
        for _ in 0..16 {
            proxy.line_with("GET");
        }
        assert_eq!(get(&mut client, "/").status, 200);
        let said = proxy.line_with("were lost");
        assert!(said.contains(" WARN ") && said.contains(" lines="), "{said}");
        proxy.signal("TERM");
        proxy.line_with("draining");
        assert!(proxy.wait().0.success());
    }
}

#[test]
fn the_upstream_the_client_and_the_log_have_the_same_ids() {
    const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
    for runtime in RUNTIMES {
        let (upstream, heads) = reading();
        for form in ["json", "text"] {
            let access_log = format!("--access-log={form}");
            let mut proxy =
                start(runtime, &[&access_log, "--upstream", &upstream, "--read-timeout", "200ms"]);
            let logged = |proxy: &mut Running, name: &str| match form {
                "json" => json(proxy)[name].as_str().expect("a string").to_owned(),
                _ => field(&proxy.line_with("method="), name).to_owned(),
            };
            let mut client = proxy.connect();
            let kept = format!(
                "GET / HTTP/1.1\r\nHost: test\r\nX-Request-Id: mine-1\r\n\
                traceparent: 00-{TRACE}-00f067aa0ba902b7-00\r\n\r\n"
            );
            // The upstream never answers: the 504 is the proxy's own.
            let response = exchange(&mut client, kept.as_bytes());
            assert_eq!((response.status, response.field("x-request-id")), (504, Some("mine-1")));
            let head = heads.recv().expect("a request");
            assert!(head.contains("\r\nx-request-id: mine-1\r\n"), "{head}");
            assert!(head.contains(&format!("\r\ntraceparent: 00-{TRACE}-")), "{head}");
            assert!(!head.contains("00f067aa0ba902b7"), "{head}");
            assert_eq!(logged(&mut proxy, "request_id"), "mine-1");

            let response = get(&mut client, "/");
            let id = response.field("x-request-id").expect("an id").to_owned();
            assert_eq!(id.len(), 32);
            let head = heads.recv().expect("a request");
            assert!(head.contains(&format!("\r\nx-request-id: {id}\r\n")), "{head}");
            assert!(head.contains(&format!("\r\ntraceparent: 00-{id}-")), "{head}");
            assert_eq!(logged(&mut proxy, "trace_id"), id);
        }
    }
}

/// An upstream that reads heads and never answers.
fn reading() -> (String, mpsc::Receiver<String>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address").to_string();
    let (heads, received) = mpsc::channel();
    // Ends with the test process.
    thread::spawn(move || {
        let mut held = Vec::new();
        for mut stream in listener.incoming().flatten() {
            let (mut head, mut byte) = (Vec::new(), [0]);
            while !head.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                head.extend(byte);
            }
            held.push(stream);
            if heads.send(String::from_utf8_lossy(&head).into_owned()).is_err() {
                return;
            }
        }
    });
    (addr, received)
}

#[test]
fn the_programs_own_lines_have_the_form_of_the_access_log() {
    let mut proxy = Running::start(&["--access-log=json"]);
    proxy.signal("TERM");
    let line = proxy.line_with("draining");
    let line: Value = serde_json::from_str(&line).unwrap_or_else(|e| panic!("{line}: {e}"));
    assert_eq!(
        (&line["level"], &line["signal"], &line["clients"]),
        (&"INFO".into(), &"SIGTERM".into(), &0.into())
    );
    assert!(proxy.wait().0.success());
}
