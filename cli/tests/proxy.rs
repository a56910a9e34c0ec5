//! The binary as a newcomer meets it, on every runtime: pages, bodies, a timeout, a dead upstream, a signal.
//!
//! What the proxy does in detail is the conformance suite's affair; this is about the program around it.

mod support;

use std::io::{Read, Write};
use std::net::TcpListener;
use std::thread;
use std::time::{Duration, Instant};

use support::{RUNTIMES, Running, connect, ended, exchange, get};

/// On every runtime, one after the other.
fn on_each(args: &[&str], test: impl Fn(Running)) {
    for runtime in RUNTIMES {
        test(Running::start(&[&["--runtime", runtime], args].concat()));
    }
}

#[test]
fn the_built_in_origin_answers_on_one_connection() {
    on_each(&[], |proxy| {
        let mut client = proxy.connect();
        let index = get(&mut client, "/");
        assert_eq!(index.status, 200);
        assert!(index.text().contains("/echo"), "{}", index.text());

        let chunked = get(&mut client, "/chunked");
        assert_eq!((chunked.status, chunked.text().as_str()), (200, "This response comes in four chunks.\n"));

        let drip = get(&mut client, "/drip");
        assert_eq!((drip.status, drip.text().as_str()), (200, "Slow, but never silent.\n"));

        let big = get(&mut client, "/big?bytes=1000001");
        assert_eq!((big.status, big.body.len()), (200, 1_000_001));

        assert_eq!(get(&mut client, "/big?bytes=x").status, 400);
        assert_eq!(get(&mut client, "/nowhere").status, 404);
    });
}

#[test]
fn bodies_come_back_in_both_framings() {
    on_each(&[], |proxy| {
        let mut client = proxy.connect();
        let hello = b"POST /echo HTTP/1.1\r\nHost: test\r\nContent-Length: 5\r\n\r\nhello";
        assert_eq!(exchange(&mut client, hello).text(), "hello");

        let chunked = b"POST /echo HTTP/1.1\r\nHost: test\r\nTransfer-Encoding: chunked\r\n\r\n\
            5\r\nhello\r\n7;ext=1\r\n, world\r\n0\r\n\r\n";
        let response = exchange(&mut client, chunked);
        assert_eq!(response.field("transfer-encoding"), Some("chunked"));
        assert_eq!(response.text(), "hello, world");

        let none = b"POST /echo HTTP/1.1\r\nHost: test\r\n\r\n";
        assert_eq!(exchange(&mut client, none).text(), "");
    });
}

#[test]
fn many_clients_at_once() {
    on_each(&[], |proxy| {
        let mut clients: Vec<_> = (0..64).map(|_| proxy.connect()).collect();
        for round in 0..3 {
            for client in &mut clients {
                client.write_all(b"GET /chunked HTTP/1.1\r\nHost: test\r\n\r\n").expect("room for a request");
            }
            for client in &mut clients {
                let response = exchange(client, b"");
                assert_eq!((round, response.status, response.body.len()), (round, 200, 36));
            }
        }
    });
}

#[test]
fn slow_gives_504_and_names_the_read_deadline() {
    let limit = Duration::from_millis(200);
    on_each(&["--read-timeout", "200ms"], |proxy| {
        let mut client = proxy.connect();
        let response = get(&mut client, "/slow");
        assert_eq!(response.status, 504);
        let expected = "tidegate; error=connection_read_timeout; details=\"read\"";
        assert_eq!(response.field("proxy-status"), Some(expected));
        assert!(response.took >= limit, "early: {:?}", response.took);
        // Late is no question: a second later the origin would have answered with 200.
        // The request was complete, so the connection still serves.
        assert_eq!(get(&mut client, "/").status, 200);
    });
}

#[test]
fn the_total_deadline_is_named_when_it_is_the_first() {
    on_each(&["--total-timeout", "200ms"], |proxy| {
        let response = get(&mut proxy.connect(), "/slow");
        assert_eq!(response.status, 504);
        let expected = "tidegate; error=http_response_timeout; details=\"total\"";
        assert_eq!(response.field("proxy-status"), Some(expected));
    });
}

#[test]
fn a_refusing_upstream_gives_502() {
    // Bound and never listening: connections are refused, and nobody else can take the port.
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    socket.bind(&std::net::SocketAddr::from(([127, 0, 0, 1], 0)).into()).expect("a free port");
    let addr = socket.local_addr().ok().and_then(|a| a.as_socket()).expect("an address").to_string();
    on_each(&["--upstream", &addr], |proxy| {
        let response = get(&mut proxy.connect(), "/");
        assert_eq!(response.status, 502);
        assert_eq!(response.field("proxy-status"), Some("tidegate; error=connection_refused"));
    });
}

#[test]
fn two_upstreams_take_turns() {
    let upstreams = [answering("one"), answering("two")];
    on_each(&["--upstream", &upstreams[0], "--upstream", &upstreams[1]], |proxy| {
        let mut answers: Vec<_> = (0..4).map(|_| get(&mut proxy.connect(), "/").text()).collect();
        assert_ne!(answers[0], answers[1]);
        assert_eq!(answers[..2], answers[2..]);
        answers.sort();
        assert_eq!(answers, ["one", "one", "two", "two"]);
    });
}

#[test]
fn a_name_that_is_not_found_is_said_at_the_start_and_costs_its_requests_alone() {
    let there = answering("there");
    on_each(&["--upstream", "no-such-host.invalid:9000"], |mut proxy| {
        let line = proxy.line_with("no-such-host.invalid");
        assert!(line.contains("is not found"), "{line}");
        let response = get(&mut proxy.connect(), "/");
        assert_eq!(response.status, 502);
        assert_eq!(response.field("proxy-status"), Some("tidegate; error=dns_error"));
    });
    on_each(&["--upstream", "no-such-host.invalid:9000", "--upstream", &there], |proxy| {
        for _ in 0..4 {
            assert_eq!(get(&mut proxy.connect(), "/").text(), "there");
        }
    });
}

/// An upstream that answers every connection once with `text`; its address, by name.
fn answering(text: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = listener.local_addr().expect("an address").port();
    // Ends with the test process.
    thread::spawn(move || {
        for stream in listener.incoming() {
            let Ok(mut stream) = stream else { return };
            let mut request = Vec::new();
            let mut byte = [0];
            while !request.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                request.extend(byte);
            }
            let size = text.len();
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\ncontent-length: {size}\r\nconnection: close\r\n\r\n{text}"
            );
        }
    });
    format!("localhost:{port}")
}

#[test]
fn listens_on_several_addresses() {
    on_each(&["--listen", "127.0.0.1:0", "--listen", "127.0.0.1:0"], |proxy| {
        assert_eq!(proxy.addrs.len(), 3);
        for addr in &proxy.addrs {
            assert_eq!(get(&mut connect(*addr), "/").status, 200);
        }
    });
}

#[test]
fn a_head_over_the_limit_is_refused() {
    on_each(&["--max-head", "2KiB"], |proxy| {
        let field = "x".repeat(3000);
        let request = format!("GET / HTTP/1.1\r\nHost: test\r\nX-Long: {field}\r\n\r\n");
        assert_eq!(exchange(&mut proxy.connect(), request.as_bytes()).status, 431);
        assert_eq!(get(&mut proxy.connect(), "/").status, 200);
    });
}

#[test]
fn a_second_signal_stops_it_at_once_with_success() {
    for signal in ["TERM", "INT"] {
        on_each(&[], |mut proxy| {
            // One connection idle, one in the middle of a request.
            let mut idle = proxy.connect();
            assert_eq!(get(&mut idle, "/").status, 200);
            let mut busy = proxy.connect();
            busy.write_all(b"GET /slow HTTP/1.1\r\nHost: test\r\n\r\n").expect("room for a request");

            let asked = Instant::now();
            proxy.signal(signal);
            let said = proxy.line_with("draining");
            assert!(
                said.contains(signal) && said.contains("30s") && said.contains("second signal"),
                "{said}"
            );
            ended(&mut idle);
            proxy.signal(signal);
            let (status, printed) = proxy.wait();
            assert!(status.success(), "{signal}: {status} {printed}");
            assert!(asked.elapsed() < Duration::from_secs(10), "{signal}: {:?}", asked.elapsed());
            ended(&mut busy);
        });
    }
}

#[test]
fn a_proxy_in_front_is_believed_if_it_is_trusted_and_only_then() {
    let request =
        b"GET / HTTP/1.1\r\nHost: test\r\nX-Forwarded-For: 192.0.2.1\r\nX-Forwarded-Proto: https\r\n\r\n";
    for (trust, expected) in [
        (&["--trust", "127.0.0.1"][..], ["192.0.2.1, 127.0.0.1", "https"]),
        (&["--trust", "10.0.0.0/8", "--trust", "127.0.0.0/8"], ["192.0.2.1, 127.0.0.1", "https"]),
        (&["--trust", "10.0.0.0/8"], ["127.0.0.1", "http"]),
        (&[], ["127.0.0.1", "http"]),
    ] {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let upstream = listener.local_addr().expect("an address").to_string();
        let proxy = Running::start(&[&["--upstream", &upstream], trust].concat());
        let serving = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a connection");
            let mut head = Vec::new();
            let mut buf = [0; 1024];
            while !head.ends_with(b"\r\n\r\n") {
                match stream.read(&mut buf).expect("a request") {
                    0 => break,
                    n => head.extend(&buf[..n]),
                }
            }
            stream.write_all(b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n").expect("room");
            String::from_utf8(head).expect("text")
        });
        let mut client = proxy.connect();
        client.write_all(request).expect("room for a request");
        let head = serving.join().expect("a head");
        for (name, value) in ["x-forwarded-for", "x-forwarded-proto"].iter().zip(expected) {
            assert!(head.contains(&format!("\r\n{name}: {value}\r\n")), "{trust:?} {head}");
        }
    }
}
