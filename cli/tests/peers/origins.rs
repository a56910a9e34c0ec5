//! The origins: how each is started on a free port, and that none outlives the test.

use std::fs;
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use super::install::Program;
use super::support::GUARD;

/// Runs a server until standard input ends, which it also does if the test is killed.
const KEEPER: &str = "\"$@\" </dev/null & server=$!; read -r line\n\
    kill -s TERM $server; tries=0\n\
    while kill -s 0 $server 2>/dev/null && [ $tries -lt 30 ]; do sleep 0.1; tries=$((tries + 1)); done\n\
    kill -s KILL $server 2>/dev/null; wait $server";

/// A server that somebody else has written.
pub(crate) struct Origin {
    keeper: Child,
    pub(crate) addr: SocketAddr,
}

impl Origin {
    /// Starts what `command` makes of a free port, and waits until it listens.
    pub(crate) fn start(command: impl Fn(SocketAddr) -> Command) -> Origin {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a free port");
        let addr = listener.local_addr().expect("an address");
        drop(listener);
        let server = command(addr);
        let mut keeper = Command::new("sh");
        keeper.args(["-c", KEEPER, "sh"]).arg(server.get_program()).args(server.get_args());
        for (name, value) in server.get_envs() {
            keeper.envs(value.map(|value| (name, value)));
        }
        keeper.current_dir(server.get_current_dir().unwrap_or(Path::new("/")));
        keeper.stdin(Stdio::piped()).stdout(Stdio::null()).stderr(Stdio::null());
        let origin = Origin { keeper: keeper.spawn().expect("a shell"), addr };
        let begun = Instant::now();
        while TcpStream::connect(addr).is_err() {
            assert!(begun.elapsed() < GUARD, "{server:?} does not listen");
            thread::sleep(Duration::from_millis(20));
        }
        origin
    }
}

impl Drop for Origin {
    fn drop(&mut self) {
        drop(self.keeper.stdin.take());
        let _ = self.keeper.wait();
    }
}

pub(crate) fn script(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/peers").join(name)
}

/// Python, with the packages that were installed there.
pub(crate) fn python(packages: &Path) -> Command {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", packages).env("PYTHONDONTWRITEBYTECODE", "1").current_dir(script(""));
    command
}

pub(crate) fn uvicorn(packages: &Path, addr: SocketAddr) -> Command {
    let mut command = python(packages);
    command.args(["-m", "uvicorn", "origin:asgi", "--log-level", "critical", "--port"]);
    command.arg(addr.port().to_string());
    command
}

pub(crate) fn gunicorn(packages: &Path, addr: SocketAddr) -> Command {
    let mut command = python(packages);
    // A client of wrk's holds a thread for as long as it is connected.
    command.args(["-m", "gunicorn", "--threads", "64", "--graceful-timeout", "1", "origin:wsgi", "--bind"]);
    command.arg(addr.to_string());
    command
}

pub(crate) fn node(addr: SocketAddr) -> Command {
    let mut command = Command::new("node");
    command.arg(script("origin.mjs")).arg(addr.port().to_string());
    command
}

/// A directory of its own, and in it `site`, with the files that clients ask for.
fn site(name: &str, addr: SocketAddr) -> (PathBuf, PathBuf) {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join(format!("peers-{name}-{}", addr.port()));
    let site = dir.join("site");
    fs::create_dir_all(&site).expect("a directory");
    let big = "0123456789abcdef".repeat(187_500);
    let text = "a text that compresses well, ".repeat(200);
    for (name, content) in [("hello", "hello\n"), ("big", &big), ("range", &big), ("gzip", &text)] {
        fs::write(site.join(name), content).expect("a file");
    }
    (dir, site)
}

/// nginx with files, which may also be written.
pub(crate) fn nginx(program: &Program, addr: SocketAddr) -> Command {
    let (dir, site) = site("nginx", addr);
    let conf = format!(
        "daemon off; master_process off; pid {dir}/pid; error_log {dir}/error; events {{}}\n\
        http {{ access_log off; default_type text/plain; gzip on; gzip_http_version 1.1; gzip_proxied any;\n\
        client_body_temp_path {dir}/1; proxy_temp_path {dir}/2; fastcgi_temp_path {dir}/3;\n\
        uwsgi_temp_path {dir}/4; scgi_temp_path {dir}/5; client_max_body_size 10m;\n\
        server {{ listen {addr}; root {site}; dav_methods PUT; location = /hello {{ gzip off; }}\n\
        location = /big {{ gzip off; }} }} }}\n",
        dir = dir.display(),
        site = site.display()
    );
    fs::write(dir.join("conf"), conf).expect("a file");
    let mut command = program.command();
    command.arg("-p").arg(&dir).arg("-c").arg(dir.join("conf")).arg("-e").arg(dir.join("error"));
    command
}

/// Where Apache's modules are, if where Debian has them: next to its program.
pub(crate) fn apache_modules(program: &Program) -> Option<PathBuf> {
    let modules = program.path.parent()?.parent()?.join("lib/apache2/modules");
    modules.is_dir().then_some(modules)
}

/// Apache with files, which may also be written.
pub(crate) fn apache(program: &Program, modules: &Path, addr: SocketAddr) -> Command {
    let (dir, site) = site("apache", addr);
    let mut conf = String::new();
    for module in ["mpm_event", "authz_core", "headers", "deflate", "filter", "dav", "dav_fs"] {
        conf += &format!("LoadModule {module}_module {}/mod_{module}.so\n", modules.display());
    }
    conf += &format!(
        "Listen {addr}\nServerName test\nServerRoot {dir}\nPidFile {dir}/pid\nErrorLog {dir}/error\nMutex file:{dir}\n\
        DefaultRuntimeDir {dir}\nDavLockDB {dir}/lock\nDocumentRoot {site}\nKeepAliveTimeout 30\n\
        <Directory />\nRequire all denied\n</Directory>\n\
        <Directory {site}>\nRequire all granted\nDav On\n</Directory>\n\
        <Location /gzip>\nSetOutputFilter DEFLATE\n</Location>\n",
        dir = dir.display(),
        site = site.display()
    );
    fs::write(dir.join("conf"), conf).expect("a file");
    let mut command = program.command();
    command.args(["-D", "FOREGROUND", "-d"]).arg(&dir).arg("-f").arg(dir.join("conf"));
    command
}
