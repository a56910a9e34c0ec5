//! Clients and origins that others have written, with the binary between them.
//!
//! Python's and Node's packages are installed below the target directory when they can be had. What is missing is
//! skipped, and said so past the harness: a registry that is down must not fail anything. Loopback only.

mod support;

use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use support::{GUARD, RUNTIMES, Running};

const PYTHON: &[&str] = &[
    "requests==2.34.2",
    "httpx==0.28.1",
    "aiohttp==3.14.5",
    "websockets==17.4",
    "gunicorn==27.0.1",
    "uvicorn==0.54.0",
];
const NODE: &str = "undici@6.29.1";

/// What is there to test with.
struct Have {
    python: Option<PathBuf>,
    node: bool,
    undici: Option<PathBuf>,
}

fn said(text: &str) {
    // Past the harness, which keeps what a test that passes has printed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

fn runs(command: &mut Command) -> bool {
    let silent = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    silent.status().is_ok_and(|status| status.success())
}

fn program(name: &str, version: &str) -> bool {
    // wrk fails when it is asked for its version.
    let silent = &mut Command::new(name);
    silent.arg(version).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    let there = silent.status().is_ok();
    if !there {
        said(&format!("SKIPPED: {name} is not installed"));
    }
    there
}

/// Installs what is missing, within so many seconds.
fn install(what: &str, seconds: u64, command: &mut Command, there: impl Fn() -> bool) -> bool {
    if there() {
        return true;
    }
    let quiet = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    if let Ok(mut child) = quiet.spawn() {
        let begun = Instant::now();
        while matches!(child.try_wait(), Ok(None)) {
            if begun.elapsed() > Duration::from_secs(seconds) {
                let _ = child.kill();
            }
            thread::sleep(Duration::from_millis(50));
        }
    }
    let there = there();
    if !there {
        said(&format!("SKIPPED: {what} cannot be installed"));
    }
    there
}

fn have() -> Have {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (python, modules) = (dir.join("peers-python"), dir.join("peers-node"));
    let imports = || {
        let import = "import requests, httpx, aiohttp, websockets, gunicorn, uvicorn";
        runs(Command::new("python3").args(["-c", import]).env("PYTHONPATH", &python))
    };
    let pip = ["-m", "pip", "install", "--quiet", "--timeout", "10", "--retries", "0", "--target"];
    let mut pip_install = Command::new("python3");
    pip_install.args(pip).arg(&python).args(PYTHON);
    let has_python =
        program("python3", "--version") && install("Python's packages", 40, &mut pip_install, imports);
    let node = program("node", "--version");
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--fetch-retries=0", "--prefix"]);
    npm.arg(&modules).arg(NODE);
    let undici = modules.join("node_modules/undici/package.json");
    let has_undici = node && install("undici", 15, &mut npm, || undici.is_file());
    Have { python: has_python.then_some(python), node, undici: has_undici.then_some(modules) }
}

fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

/// An origin; killed when dropped.
struct Origin {
    child: Child,
    addr: SocketAddr,
}

impl Origin {
    /// Starts what `command` makes of a free port, and waits until it listens.
    fn start(command: impl Fn(SocketAddr) -> Command) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        drop(listener);
        let mut command = command(addr);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn();
        let mut origin = Origin { child: child.expect("it has said its version"), addr };
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            assert!(matches!(origin.child.try_wait(), Ok(None)), "{command:?} has ended");
            assert!(begun.elapsed() < GUARD, "{command:?} does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        origin
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        // Gunicorn's and nginx's workers end with their master, if it may say so to them.
        support::signal(&self.child, "TERM");
        let _ = self.child.wait();
    }
}

fn python(dir: &Path) -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", dir).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(script(""));
    command
}

/// Every client that there is, against one origin, on one runtime.
fn all_clients(have: &Have, runtime: &str, origin: SocketAddr, kind: &str, websocket: bool) {
    let proxy = Running::start(&["--runtime", runtime, "--upstream", &origin.to_string()]);
    let url = format!("http://{}", proxy.addrs[0]);
    let mut clients: Vec<(&str, Command)> = Vec::new();
    if let Some(dir) = &have.python {
        let mut names = vec!["requests", "httpx", "aiohttp"];
        names.extend(program("curl", "--version").then_some("curl"));
        names.extend(websocket.then_some("websockets"));
        for name in names {
            let mut client = python(dir);
            client.arg(script("clients.py")).args([name, &url, kind]);
            clients.push((name, client));
        }
    }
    if have.node {
        for name in ["http", "undici"] {
            let mut client = Command::new("node");
            client.arg(script("clients.mjs")).args([name, &url, kind]);
            if name == "undici" {
                let Some(modules) = &have.undici else { continue };
                client.env("TIDEGATE_NODE_MODULES", modules);
            }
            clients.push((name, client));
        }
    }
    for (name, client) in &mut clients {
        let output = client.stdin(Stdio::null()).output().expect("it has said its version");
        let text = String::from_utf8_lossy(&[output.stdout, output.stderr].concat()).into_owned();
        assert!(output.status.success(), "{name} through {runtime}: {text}");
        assert!(text.contains("checks"), "{name}: {text}");
    }
    if program("wrk", "--version") {
        let wrk = Command::new("wrk").args(["-t1", "-c20", "-d1s", &format!("{url}/hello")]).output();
        let text = String::from_utf8_lossy(&wrk.expect("it is installed").stdout).into_owned();
        assert!(text.contains("requests in"), "{text}");
        assert!(
            !text.contains("Non-2xx") && !text.contains("Socket errors"),
            "wrk through {runtime}: {text}"
        );
    }
    let names: Vec<&str> = clients.iter().map(|(name, _)| *name).collect();
    said(&format!("{runtime}: {} {names:?}", if kind == "static" { "files" } else { "pages" }));
}

#[test]
fn real_clients_reach_real_origins() {
    let have = have();
    let runtime = |n: usize| RUNTIMES[n % RUNTIMES.len()];
    thread::scope(|scope| {
        let have = &have;
        if let Some(dir) = &have.python {
            scope.spawn(move || {
                let uvicorn = Origin::start(|addr| {
                    let mut command = python(dir);
                    command.args(["-m", "uvicorn", "origin:asgi", "--log-level", "critical", "--port"]);
                    command.arg(addr.port().to_string());
                    command
                });
                all_clients(have, runtime(0), uvicorn.addr, "dynamic", true);
            });
            scope.spawn(move || {
                let gunicorn = Origin::start(|addr| {
                    let mut command = python(dir);
                    command.args(["-m", "gunicorn", "--threads", "8", "origin:wsgi", "--bind"]);
                    command.arg(addr.to_string());
                    command
                });
                all_clients(have, runtime(1), gunicorn.addr, "dynamic", false);
            });
        }
        if have.node {
            scope.spawn(move || {
                let node = Origin::start(|addr| {
                    let mut command = Command::new("node");
                    command.arg(script("origin.mjs")).arg(addr.port().to_string());
                    command
                });
                all_clients(have, runtime(2), node.addr, "dynamic", false);
            });
        }
        if program("nginx", "-v") {
            scope.spawn(move || {
                let nginx = Origin::start(nginx);
                all_clients(have, runtime(0), nginx.addr, "static", false);
            });
        }
    });
}

/// nginx with files in a directory of its own.
fn nginx(addr: SocketAddr) -> Command {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("peers-nginx-{}", addr.port()));
    let site = dir.join("site");
    fs::create_dir_all(&site).expect("a directory");
    let big = "0123456789abcdef".repeat(187_500);
    let text = "a text that compresses well, ".repeat(200);
    for (name, content) in [("hello", "hello\n"), ("big", &big), ("range", &big), ("gzip", &text)] {
        fs::write(site.join(name), content).expect("a file");
    }
    let conf = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error; events {{}}\n\
        http {{ access_log off; default_type text/plain; gzip on; gzip_http_version 1.1; gzip_proxied any;\n\
        client_body_temp_path {dir}/1; proxy_temp_path {dir}/2; fastcgi_temp_path {dir}/3;\n\
        uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5;\n\
        server {{ listen {addr}; root {site}; location = /hello {{ gzip off; }} location = /big {{ gzip off; }} }} }}\n",
        dir = dir.display(),
        site = site.display()
    );
    fs::write(dir.join("conf"), conf).expect("a file");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(&dir).arg("-c").arg(dir.join("conf")).arg("-e").arg(dir.join("error"));
    command
}
