//! What the tests of the binary share: the running program and a plain blocking client.
//!
//! Nothing here waits by sleeping: the program says when it listens, and a read ends by data, by the end of
//! the stream, or by the guard that turns a hang into a failure.

// Each test program uses a part of this.
#![allow(dead_code)]

pub(crate) mod upstream;

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStderr, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

/// Longer than anything here takes.
pub(crate) const GUARD: Duration = Duration::from_secs(20);

/// The runtimes that the binary was built with.
pub(crate) const RUNTIMES: &[&str] = &[
    #[cfg(feature = "tokio")]
    "tokio",
    #[cfg(feature = "smol")]
    "smol",
    #[cfg(feature = "async-std")]
    "async-std",
];

/// The command, before it runs.
pub(crate) fn tidegate(args: &[&str]) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_tidegate"));
    // Where async-std looks for what the others are told by the flag.
    let threads = args.iter().position(|arg| *arg == "--threads").and_then(|at| args.get(at + 1));
    command.envs(threads.map(|threads| ("ASYNC_STD_THREAD_COUNT", threads)));
    command.args(args).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// A running proxy; killed when dropped.
pub(crate) struct Running {
    child: Child,
    stderr: BufReader<ChildStderr>,
    /// Where it listens.
    pub(crate) addrs: Vec<SocketAddr>,
}

impl Running {
    /// Starts it and waits until it has said where it listens. `args` must leave `--listen` alone, unless
    /// it names more addresses than the free one that is added here.
    pub(crate) fn start(args: &[&str]) -> Running {
        Running::of(&mut tidegate(&[&["--listen", "127.0.0.1:0"], args].concat()))
    }

    /// The same with so many descriptors at most.
    pub(crate) fn start_with(descriptors: usize, args: &[&str]) -> Running {
        let limited = format!("ulimit -n {descriptors} && exec \"$0\" --listen 127.0.0.1:0 \"$@\"");
        let mut shell = Command::new("sh");
        shell.args(["-c", &limited]).arg(env!("CARGO_BIN_EXE_tidegate")).args(args);
        Running::of(shell.stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped()))
    }

    fn of(command: &mut Command) -> Running {
        let mut child = command.spawn().expect("the binary starts");
        let mut stderr = BufReader::new(child.stderr.take().expect("stderr is piped"));
        let mut addrs = Vec::new();
        loop {
            let mut line = String::new();
            let read = stderr.read_line(&mut line).expect("stderr is text");
            assert_ne!(read, 0, "the program ended before it listened");
            if line.contains("INFO") && line.contains("listening") {
                addrs.push(value(&line, "address").parse().expect("a real address"));
            }
            if line.contains("forwarding") {
                break;
            }
        }
        Running { child, stderr, addrs }
    }

    /// A connection to the first listener.
    pub(crate) fn connect(&self) -> TcpStream {
        connect(self.addrs[0])
    }

    /// The number of its process.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Whether it has not ended.
    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().expect("a child of ours").is_none()
    }

    /// The descriptors that the proxy has now.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid())).expect("it runs").count()
    }

    /// The memory that it has now, in KiB.
    pub(crate) fn resident(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("it runs");
        let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line of its own");
        line.trim().trim_end_matches(" kB").parse().expect("a number")
    }

    /// Sends a signal by its name.
    pub(crate) fn signal(&self, name: &str) {
        signal(&self.child, name);
    }

    /// The next line on standard error that contains `part`.
    pub(crate) fn line_with(&mut self, part: &str) -> String {
        loop {
            let mut line = String::new();
            let read = self.stderr.read_line(&mut line).expect("stderr is text");
            assert_ne!(read, 0, "the program ended without a line with {part:?}");
            if line.contains(part) {
                return line;
            }
        }
    }

    /// Waits for the end; what it still printed comes along.
    pub(crate) fn wait(mut self) -> (ExitStatus, String) {
        let mut rest = String::new();
        self.stderr.read_to_string(&mut rest).expect("stderr is text");
        (self.child.wait().expect("it was not waited for"), rest)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The value of a field of one of the program's own lines, in either form.
pub(crate) fn value(line: &str, name: &str) -> String {
    let value = match line.split_once(&format!(" {name}=")) {
        Some((_, rest)) => rest.split_whitespace().next(),
        None => line.split_once(&format!("\"{name}\":")).and_then(|(_, rest)| rest.split([',', '}']).next()),
    };
    value.unwrap_or_else(|| panic!("{name} in {line}")).trim_matches('"').to_owned()
}

/// Sends a signal by its name.
pub(crate) fn signal(child: &Child, name: &str) {
    let pid = child.id().to_string();
    // The shell has `kill` built in; the program of that name may be missing.
    let killed = Command::new("sh").args(["-c", "kill -s \"$0\" \"$1\"", name, &pid]).status();
    assert!(killed.expect("a shell").success());
}

/// A connection whose reads give up after the guard.
pub(crate) fn connect(to: SocketAddr) -> TcpStream {
    let stream = TcpStream::connect(to).expect("it listens");
    stream.set_read_timeout(Some(GUARD)).expect("a guard");
    stream
}

/// A response as it came.
#[derive(Debug)]
pub(crate) struct Response {
    pub(crate) status: u16,
    /// The head, in lower case.
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
    /// From before the request to the last response byte: a limit that begins with the request has begun later.
    pub(crate) took: Duration,
}

impl Response {
    /// The value of the first field of that (lower-case) name, in lower case.
    pub(crate) fn field(&self, name: &str) -> Option<&str> {
        self.head.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Sends `request` and reads one response; the connection stays usable.
pub(crate) fn exchange(stream: &mut TcpStream, request: &[u8]) -> Response {
    try_exchange(stream, request).expect("a whole response")
}

/// [`exchange`] where the response may be cut.
pub(crate) fn try_exchange(stream: &mut TcpStream, request: &[u8]) -> std::io::Result<Response> {
    let began = Instant::now();
    stream.write_all(request)?;
    let mut reader = BufReader::new(stream);
    let mut head = String::new();
    while !head.ends_with("\r\n\r\n") {
        let read = reader.read_line(&mut head)?;
        if read == 0 {
            return Err(std::io::ErrorKind::UnexpectedEof.into());
        }
    }
    let head = head.to_ascii_lowercase();
    let status = head.split(' ').nth(1).expect("a status line").parse().expect("a status");
    let mut response = Response { status, head, body: Vec::new(), took: Duration::ZERO };
    if response.field("transfer-encoding") == Some("chunked") {
        loop {
            let mut line = String::new();
            reader.read_line(&mut line)?;
            let size = usize::from_str_radix(line.trim_end(), 16).expect("a chunk size");
            let mut chunk = vec![0; size + 2];
            reader.read_exact(&mut chunk)?;
            response.body.extend(&chunk[..size]);
            if size == 0 {
                break;
            }
        }
    } else {
        let length = response.field("content-length").expect("a length").parse().expect("a number");
        response.body.resize(length, 0);
        reader.read_exact(&mut response.body)?;
    }
    response.took = began.elapsed();
    Ok(response)
}

/// A bodiless GET.
pub(crate) fn get(stream: &mut TcpStream, path: &str) -> Response {
    exchange(stream, format!("GET {path} HTTP/1.1\r\nHost: test\r\n\r\n").as_bytes())
}

/// Waits for the end of the connection, by FIN or RST; a read that times out would be neither.
pub(crate) fn ended(client: &mut TcpStream) {
    match client.read(&mut [0; 1]) {
        Ok(read) => assert_eq!(read, 0),
        Err(e) => assert_eq!(e.kind(), std::io::ErrorKind::ConnectionReset),
    }
}
