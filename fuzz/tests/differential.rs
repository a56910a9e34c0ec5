//! What the machine emits, read by two parsers that others have written: h11, and Node's llhttp as httptools has it.
//! Both, and the strict reader here, must understand the same.
//!
//! They are Python packages: the test installs them below the target directory, or says that it was skipped.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::io::{Read, Write};
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::thread;

use tidegate_core::{Config, TimeoutPolicy};
use tidegate_fuzz::choices::Choices;
use tidegate_fuzz::messages;
use tidegate_fuzz::rig::{Cuts, Emitted, relay};
use tidegate_fuzz::runner::input;
use tidegate_fuzz::strict::Message;
use tidegate_fuzz::targets::read;

/// Pairs of a client's and an upstream's streams; more by `TIDEGATE_CASES`.
const CASES: u64 = 1_500;

/// A stream that was emitted, and how it is to be read.
struct Case {
    role: String,
    stream: Vec<u8>,
    fin: bool,
    expected: String,
}

/// Where the two parsers are; `None`, and a line that says so, if they cannot be had.
fn readers() -> Option<PathBuf> {
    let dir = PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join("readers");
    let have = || {
        let mut import = Command::new("python3");
        import.args(["-c", "import h11, httptools"]).env("PYTHONPATH", &dir);
        import.stderr(Stdio::null()).status().is_ok_and(|status| status.success())
    };
    if !have() {
        let install = [
            "-m",
            "pip",
            "install",
            "--quiet",
            "--disable-pip-version-check",
            "--timeout",
            "10",
            "--retries",
            "0",
        ];
        let packages = ["h11==0.16.0", "httptools==0.9.0", "--target"];
        let pip =
            Command::new("python3").args(install).args(packages).arg(&dir).stdin(Stdio::null()).output();
        if !have() {
            let why = pip.map_or_else(|e| e.to_string(), |o| String::from_utf8_lossy(&o.stderr).into_owned());
            // Past the harness, which keeps what a test that passes has printed.
            let _ = writeln!(
                std::io::stderr(),
                "SKIPPED: h11 and httptools (llhttp) cannot be installed: {}",
                why.lines().last().unwrap_or_default()
            );
            return None;
        }
    }
    Some(dir)
}

/// Any streams: sound ones, and damaged ones on either side.
fn emitted(case: u64) -> Emitted {
    let bytes = input(77, case);
    let c = &mut Choices::new(&bytes);
    let config = Config { timeouts: TimeoutPolicy::OFF, max_head: 4096, ..Config::default() };
    let (mut client, mut answers) = (Vec::new(), Vec::new());
    let wrong = c.below(4);
    for _ in 0..1 + c.below(3) {
        let to = messages::request(c, &mut client);
        let mut answer = Vec::new();
        if c.once_in(12) {
            answer.extend(b"HTTP/1.1 101 Switching Protocols\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\nraw\r\n\r\n");
        }
        messages::response(c, &to, &mut answer);
        if wrong & 1 != 0 {
            messages::damage(c, &mut answer);
        }
        answers.push(answer);
    }
    if wrong & 2 != 0 {
        messages::damage(c, &mut client);
    }
    relay(config, &client, &answers, &Cuts { pieces: c.pieces(), drain: usize::MAX, step: 0 })
}

/// As the readers write it.
fn line(message: &Message) -> String {
    let hex = |bytes: &[u8]| bytes.iter().map(|b| format!("{b:02x}")).collect::<String>();
    let or = |text: String| if text.is_empty() { "-".to_owned() } else { text };
    let fields: Vec<String> = message
        .fields
        .iter()
        .map(|(name, value)| format!("{}:{}", hex(name.as_bytes()), hex(value)))
        .collect();
    format!("{} {} {}", message.start.join(" "), or(fields.join(",")), or(hex(&message.body)))
}

/// All whole messages; `rest` behind them if the last was cut.
fn lines<'m>(messages: impl Iterator<Item = &'m Message>, mut cut: bool) -> String {
    let mut text = String::new();
    for message in messages {
        cut |= !message.complete;
        if message.complete {
            let _ = writeln!(text, "{}", line(message));
        }
    }
    text.push_str(if cut { "rest" } else { "" });
    text.trim_end().to_owned()
}

fn cases(emitted: &Emitted) -> Vec<Case> {
    let (_, responses) = read(emitted);
    let mut cases = Vec::new();
    for stream in &emitted.to_upstream {
        let message = tidegate_fuzz::strict::request(stream).expect("read once already");
        let (message, rest) = message.map_or((None, 0), |(message, rest)| (Some(message), rest.len()));
        // What follows an upgrade is not theirs to read.
        let stream = stream[..stream.len() - rest].to_vec();
        let cut = message.is_none() && !stream.is_empty();
        let expected = lines(message.iter(), cut);
        cases.push(Case { role: "request".to_owned(), stream, fin: false, expected });
    }
    let asked = emitted
        .asked
        .iter()
        .map(|asked| format!("{}/1.{}", if asked.head { "HEAD" } else { "GET" }, u8::from(!asked.old)));
    let role = asked.collect::<Vec<_>>().join(" ");
    // A head that was cut is none that was read.
    let cut = !emitted.to_client.is_empty() && responses.is_empty();
    let expected = lines(responses.iter(), cut);
    if !role.is_empty() {
        cases.push(Case { role, stream: emitted.to_client.clone(), fin: true, expected });
    }
    cases
}

/// Whether the request's method is a registered one.
fn is_known(request: &[u8]) -> bool {
    ["GET ", "POST ", "HEAD ", "PUT ", "DELETE ", "OPTIONS ", "PATCH "]
        .iter()
        .any(|m| request.starts_with(m.as_bytes()))
}

/// What each of the two has read of every case.
fn ask(dir: &PathBuf, cases: &[Case]) -> Vec<[String; 2]> {
    let script = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("tests/readers.py");
    let mut child = Command::new("python3")
        .arg(script)
        .env("PYTHONPATH", dir)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3 has run a moment ago");
    let mut stdin = child.stdin.take().expect("it is piped");
    let mut all = Vec::new();
    for case in cases {
        let fin: &[u8] = if case.fin { b"fin" } else { b"" };
        for part in [case.role.as_bytes(), &case.stream, fin] {
            all.extend_from_slice(&(part.len() as u32).to_be_bytes());
            all.extend_from_slice(part);
        }
    }
    let writing = thread::spawn(move || stdin.write_all(&all));
    let mut answers = Vec::new();
    child.stdout.take().expect("it is piped").read_to_end(&mut answers).expect("its answers");
    writing.join().expect("no panic").expect("it reads all");
    assert!(child.wait().expect("it was not waited for").success());
    let mut rest = &answers[..];
    let mut next = || {
        let (size, after) = rest.split_first_chunk::<4>().expect("a length");
        let (text, after) = after.split_at(u32::from_be_bytes(*size) as usize);
        rest = after;
        String::from_utf8(text.to_vec()).expect("text")
    };
    cases.iter().map(|_| [next(), next()]).collect()
}

#[test]
fn two_other_parsers_read_what_was_meant() {
    let Some(dir) = readers() else { return };
    let n = std::env::var("TIDEGATE_CASES").ok().and_then(|n| n.parse().ok()).unwrap_or(CASES);
    let cases: Vec<Case> = (0..n).flat_map(|case| cases(&emitted(case))).collect();
    let mut seen = BTreeMap::new();
    for (case, by) in cases.iter().zip(ask(&dir, &cases)) {
        for (parser, got) in ["h11", "llhttp"].iter().zip(by) {
            if *parser == "llhttp" && got.starts_with("error ") && !is_known(&case.stream) {
                // llhttp has a list of methods. To refuse is not to read differently.
                *seen.entry("refused").or_insert(0) += 1;
                continue;
            }
            assert_eq!(
                got,
                case.expected,
                "{parser} has read something else than was meant ({}):\n{}",
                case.role,
                String::from_utf8_lossy(&case.stream)
            );
        }
        let status = case.expected.lines().last().and_then(|l| l.split(' ').next()).unwrap_or("nothing");
        *seen.entry(if case.fin { status } else { "requests" }).or_insert(0) += 1;
    }
    // Cases of every kind were among them.
    let _ = writeln!(std::io::stderr(), "{} streams read alike by three: {seen:?}", cases.len());
    for kind in ["requests", "200", "204", "304", "400", "502", "101", "rest"] {
        assert!(seen.contains_key(kind), "no case of {kind}: {seen:?}");
    }
}
