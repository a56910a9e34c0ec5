//! What others have written, and where it is: found on the machine, or put below the target directory from Debian, PyPI
//! and npm. What cannot be had is said so past the harness, and skipped: a registry that is down must not fail anything.
//!
//! Nothing is installed into the system, so that no right is needed for it and no service begins to run.

use std::env;
use std::ffi::OsString;
use std::fs;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

const PYTHON: &[&str] = &[
    "requests==2.34.2",
    "httpx==0.28.1",
    "aiohttp==3.14.5",
    "websockets==17.4",
    "gunicorn==27.0.1",
    "uvicorn==0.54.0",
];
const NODE: &str = "undici@6.29.1";

pub(crate) fn said(text: &str) {
    // Past the harness, which keeps what a test that passes has printed.
    let _ = writeln!(std::io::stderr(), "{text}");
}

/// A program and what it needs to run.
#[derive(Clone)]
pub(crate) struct Program {
    pub(crate) path: PathBuf,
    libraries: Option<PathBuf>,
}

impl Program {
    /// It, with its libraries.
    pub(crate) fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.envs(self.libraries());
        command
    }

    pub(crate) fn libraries(&self) -> Option<(&'static str, &Path)> {
        Some(("LD_LIBRARY_PATH", self.libraries.as_deref()?))
    }
}

/// What is there to test with.
pub(crate) struct Have {
    /// Where Python's packages are.
    pub(crate) python: Option<PathBuf>,
    pub(crate) node: bool,
    /// Where undici is.
    pub(crate) undici: Option<PathBuf>,
    pub(crate) curl: Option<Program>,
    pub(crate) wrk: Option<Program>,
    pub(crate) nginx: Option<Program>,
    pub(crate) apache: Option<Program>,
}

fn quiet(command: &mut Command) -> &mut Command {
    command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null())
}

/// Whether it ends well within so many seconds.
fn runs(command: &mut Command, seconds: u64) -> bool {
    let Ok(mut child) = quiet(command).spawn() else { return false };
    let begun = Instant::now();
    loop {
        match child.try_wait() {
            Ok(None) if begun.elapsed() > Duration::from_secs(seconds) => {
                let _ = child.kill();
                let _ = child.wait();
                return false;
            }
            Ok(None) => thread::sleep(Duration::from_millis(20)),
            ended => return ended.is_ok_and(|status| status.is_some_and(|status| status.success())),
        }
    }
}

/// Installs what is missing, within so many seconds.
fn install(what: &str, seconds: u64, command: &mut Command, there: impl Fn() -> bool) -> bool {
    let there = there() || (runs(command, seconds) && there());
    if !there {
        said(&format!("SKIPPED: {what} cannot be installed"));
    }
    there
}

/// A program of the system, or from Debian's packages, which are taken apart and not installed. `version` makes it say
/// its version, so that one whose libraries are missing is found out.
fn debian(name: &str, version: &str, packages: &[&str]) -> Option<Program> {
    let works = |program: &Program| {
        // wrk fails when it is asked for its version; what cannot be loaded ends with 127.
        let status = quiet(program.command().arg(version)).status();
        status.is_ok_and(|status| status.code() != Some(127)).then(|| program.clone())
    };
    let path = env::var_os("PATH").unwrap_or_default();
    let known = env::split_paths(&path).chain(["/usr/sbin".into(), "/usr/local/sbin".into()]);
    let found = known.map(|dir| dir.join(name)).find(|path| path.is_file());
    let of_the_system = found.and_then(|path| works(&Program { path, libraries: None }));
    if of_the_system.is_some() {
        return of_the_system;
    }
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR")).join("peers-debian").join(name);
    let unpacked = || {
        let mut entries = fs::read_dir(dir.join("usr/lib")).ok()?.flatten().map(|entry| entry.path());
        let libraries = entries.find(|path| path.to_string_lossy().ends_with("-linux-gnu"));
        let places = ["usr/sbin", "usr/bin"].map(|place| dir.join(place).join(name));
        let path = places.into_iter().find(|path| path.is_file())?;
        works(&Program { path, libraries })
    };
    let _ = fs::create_dir_all(&dir);
    let list: Vec<OsString> = packages.iter().map(OsString::from).collect();
    let mut get = Command::new("sh");
    let script = "apt-get download -qq \"$@\" || { apt-get update -qq && apt-get download -qq \"$@\"; } || exit 1\n\
        for package in *.deb; do dpkg -x \"$package\" . || exit 1; done";
    get.current_dir(&dir).args(["-c", script, "sh"]).args(list);
    install(name, 60, &mut get, || unpacked().is_some()).then(unpacked).flatten()
}

pub(crate) fn have() -> Have {
    let dir = Path::new(env!("CARGO_TARGET_TMPDIR"));
    let (python, modules) = (dir.join("peers-python"), dir.join("peers-node"));
    let imports = || {
        let import = "import requests, httpx, aiohttp, websockets, gunicorn, uvicorn";
        runs(Command::new("python3").args(["-c", import]).env("PYTHONPATH", &python), 20)
    };
    let there = |name: &str| {
        let there = runs(Command::new(name).arg("--version"), 10);
        if !there {
            said(&format!("SKIPPED: {name} is not installed"));
        }
        there
    };
    let pip = ["-m", "pip", "install", "--quiet", "--timeout", "10", "--retries", "0", "--target"];
    let mut pip_install = Command::new("python3");
    pip_install.args(pip).arg(&python).args(PYTHON);
    let has_python = there("python3") && install("Python's packages", 40, &mut pip_install, imports);
    let node = there("node");
    let mut npm = Command::new("npm");
    npm.args(["install", "--silent", "--no-audit", "--no-fund", "--fetch-retries=0", "--prefix"]);
    npm.arg(&modules).arg(NODE);
    let undici = modules.join("node_modules/undici/package.json");
    let has_undici = node && install("undici", 15, &mut npm, || undici.is_file());
    Have {
        python: has_python.then_some(python),
        node,
        undici: has_undici.then_some(modules),
        curl: debian("curl", "--version", &["curl", "libcurl4"]),
        wrk: debian("wrk", "--version", &["wrk", "libluajit-5.1-2"]),
        nginx: debian("nginx", "-v", &["nginx"]),
        apache: debian("apache2", "-v", &["apache2-bin", "libapr1", "libaprutil1"]),
    }
}
