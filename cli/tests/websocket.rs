//! A real WebSocket client and a real WebSocket server with the binary between them, on every runtime.

mod support;

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::thread;

use support::{GUARD, RUNTIMES, Running, connect, exchange};
use tungstenite::{Error, Message, WebSocket};

/// A server that sends back what it gets; its threads end with the test process.
fn echo() -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || {
                // What is no WebSocket handshake is dropped.
                let Ok(mut socket) = tungstenite::accept(stream) else { return };
                while let Ok(message) = socket.read() {
                    if (message.is_text() || message.is_binary()) && socket.send(message).is_err() {
                        return;
                    }
                }
            });
        }
    });
    addr
}

fn open(proxy: &Running) -> Result<WebSocket<TcpStream>, String> {
    let stream = proxy.connect();
    stream.set_read_timeout(Some(GUARD)).expect("a socket");
    let url = format!("ws://{}/chat", proxy.addrs[0]);
    tungstenite::client(url, stream).map(|(socket, _)| socket).map_err(|e| e.to_string())
}

#[test]
fn messages_pass_in_both_directions_to_the_closing_handshake() {
    let upstream = echo().to_string();
    for runtime in RUNTIMES {
        // Far shorter than the conversation may take: neither is about tunnels.
        let limits = ["--read-timeout", "1s", "--client-write-timeout", "1s", "--access-log"];
        let args = [&["--runtime", runtime, "--upstream", &upstream, "--threads", "1"], &limits[..]].concat();
        let mut proxy = Running::start(&args);
        let mut socket = open(&proxy).expect("a handshake");
        let messages = [
            Message::text("hello"),
            Message::binary(vec![7; 1 << 20]),
            Message::text("\u{e9}".repeat(70_000)),
        ];
        for message in messages {
            socket.send(message.clone()).expect("room");
            assert!(socket.read().expect("an echo") == message, "{runtime}");
        }
        socket.send(Message::Ping(vec![1, 2, 3].into())).expect("room");
        assert_eq!(socket.read().expect("a pong"), Message::Pong(vec![1, 2, 3].into()));
        socket.close(None).expect("room");
        let end = loop {
            match socket.read() {
                Ok(_) => {}
                Err(e) => break e,
            }
        };
        assert!(matches!(end, Error::ConnectionClosed), "{runtime}: {end}");
        // The tunnel lasts until both sides have closed it.
        drop(socket);
        let line = proxy.line_with("target=");
        for field in ["status=101 ", "timeout=- ", "error=-", "reused=false"] {
            assert!(line.contains(field), "{runtime}, {field}: {line}");
        }
    }
}

#[test]
fn an_upgrade_that_may_not_pass_is_none() {
    let upstream = echo().to_string();
    for upgrade in ["off", "other/1"] {
        let proxy = Running::start(&["--upstream", &upstream, "--upgrade", upgrade]);
        // The server is asked something that is no handshake, and hangs up.
        let refusal = open(&proxy).expect_err("no tunnel");
        assert!(refusal.contains("502"), "{refusal}");
    }
    // The built-in origin answers as if nobody had asked for more.
    let proxy = Running::start(&[]);
    let request = b"GET /chunked HTTP/1.1\r\nHost: a\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    assert_eq!(exchange(&mut connect(proxy.addrs[0]), request).status, 200);
}

#[test]
fn a_silent_tunnel_ends_at_its_limit() {
    let upstream = echo().to_string();
    for runtime in RUNTIMES {
        let args =
            ["--runtime", runtime, "--upstream", &upstream, "--tunnel-timeout", "200ms", "--access-log"];
        let mut proxy = Running::start(&args);
        let mut socket = open(&proxy).expect("a handshake");
        let end = socket.read().expect_err("nothing is sent");
        assert!(!matches!(end, Error::ConnectionClosed), "no closing handshake was made up: {end}");
        let line = proxy.line_with("target=");
        assert!(line.contains("status=101 ") && line.contains("timeout=tunnel "), "{line}");
    }
}
