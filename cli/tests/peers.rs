//! Clients and origins that others have written, with the binary between them: every client against every origin, on
//! every runtime.
//!
//! What is missing is installed below the target directory when it can be had, and else skipped with a word
//! (`peers/install.rs`); no server outlives the test (`peers/origins.rs`). Loopback only.

#[path = "peers/install.rs"]
mod install;
#[path = "peers/origins.rs"]
mod origins;
mod support;

use std::net::SocketAddr;
use std::process::{Command, Stdio};
use std::thread;
use std::time::Instant;

use install::{Have, have, said};
use origins::{Origin, python, script};
use support::{RUNTIMES, Running};

/// What an origin offers.
#[derive(Copy, Clone, PartialEq, Eq)]
enum Kind {
    /// Files, which may also be written.
    Files,
    /// An application.
    Pages,
    /// An application that also speaks WebSocket.
    WebSocket,
}

/// Every client that there is, against one origin, on one runtime.
fn all_clients(have: &Have, runtime: &str, origin: SocketAddr, name: &str, kind: Kind) {
    let begun = Instant::now();
    let proxy = Running::start(&["--runtime", runtime, "--upstream", &origin.to_string()]);
    let url = format!("http://{}", proxy.addrs[0]);
    let site = if kind == Kind::Files { "static" } else { "dynamic" };
    let mut clients: Vec<(Vec<&str>, Command)> = Vec::new();
    if let Some(dir) = &have.python {
        let mut names = vec!["requests", "httpx", "aiohttp"];
        let mut client = python(dir);
        if let Some(curl) = &have.curl {
            client.env("TIDEGATE_CURL", &curl.path).envs(curl.libraries());
            names.push("curl");
        }
        names.extend((kind == Kind::WebSocket).then_some("websockets"));
        client.arg(script("clients.py")).args([&url, site]).args(&names);
        clients.push((names, client));
    }
    if have.node {
        let mut client = Command::new("node");
        let mut names = vec!["http"];
        if let Some(modules) = &have.undici {
            client.env("TIDEGATE_NODE_MODULES", modules);
            names.push("undici");
            names.extend((kind == Kind::WebSocket).then_some("undici.WebSocket"));
        }
        client.arg(script("clients.mjs")).args([&url, site]).args(&names);
        clients.push((names, client));
    }
    for (names, client) in &mut clients {
        let output = client.stdin(Stdio::null()).output().expect("it has said its version");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{name} through {runtime}: {text}");
        for client in names {
            let done = |line: &str| line.starts_with(&format!("{client} ")) && line.ends_with("checks");
            assert!(text.lines().any(done), "{client} to {name}: {text}");
        }
    }
    if let Some(wrk) = &have.wrk {
        let wrk = wrk.command().args(["-t1", "-c20", "-d1s", &format!("{url}/hello")]).output();
        let text = String::from_utf8_lossy(&wrk.expect("it is installed").stdout).into_owned();
        assert!(text.contains("requests in"), "{text}");
        assert!(
            !text.contains("Non-2xx") && !text.contains("Socket errors"),
            "wrk to {name} through {runtime}: {text}"
        );
    }
    let mut names: Vec<&str> = clients.iter().flat_map(|(names, _)| names).copied().collect();
    names.extend(have.wrk.iter().map(|_| "wrk"));
    said(&format!("{name} through {runtime}: {}, {:.1?}", names.join(", "), begun.elapsed()));
}

#[test]
fn real_clients_reach_real_origins() {
    let have = have();
    let mut all: Vec<(&str, Kind, Origin)> = Vec::new();
    if let Some(dir) = &have.python {
        all.push(("uvicorn", Kind::WebSocket, Origin::start(|addr| origins::uvicorn(dir, addr))));
        all.push(("gunicorn", Kind::Pages, Origin::start(|addr| origins::gunicorn(dir, addr))));
    }
    if have.node {
        all.push(("node", Kind::Pages, Origin::start(origins::node)));
    }
    if let Some(program) = &have.nginx {
        all.push(("nginx", Kind::Files, Origin::start(|addr| origins::nginx(program, addr))));
    }
    if let Some(program) = &have.apache {
        match origins::apache_modules(program) {
            Some(modules) => {
                let start = |addr| origins::apache(program, &modules, addr);
                all.push(("Apache", Kind::Files, Origin::start(start)));
            }
            None => said("SKIPPED: Apache's modules are not where Debian has them"),
        }
    }
    // The runtimes one after the other, the origins at the same time: two cores have enough to do.
    for runtime in RUNTIMES {
        thread::scope(|scope| {
            for (name, kind, origin) in &all {
                let have = &have;
                scope.spawn(move || all_clients(have, runtime, origin.addr, name, *kind));
            }
        });
    }
}
