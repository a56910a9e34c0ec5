//! A short run of each target, and its corpus: everything that ever failed, and an input for each kind of end.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use tidegate_fuzz::marks;
use tidegate_fuzz::runner::{fails, run};
use tidegate_fuzz::targets::{ALL, Target};

/// Cases of a target that relays, and of one that looks at a message alone; a slow machine stops after [`MOST`].
const RELAYED: u64 = 2_000;
const ALONE: u64 = 20_000;
const MOST: Duration = Duration::from_secs(5);

/// `least`: how many kinds of end its corpus must come to.
fn short(name: &str, cases: u64, least: usize) {
    let target: Target = *ALL.iter().find(|(n, _)| *n == name).expect("a target of that name");
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus").join(name);
    let mut kinds = 0;
    for file in fs::read_dir(corpus).expect("its corpus") {
        let path = file.expect("a file").path();
        let bytes = fs::read(&path).expect("its bytes");
        assert_eq!(fails(target, &bytes), None, "{}", path.display());
        let kind = path.file_name().expect("it has a name").to_string_lossy();
        if !kind.starts_with("seed-") {
            // The name says what it comes to. Where a generator has changed, `tidegate-fuzz keep` finds new ones.
            let marks = marks::of(target, &bytes);
            assert!(marks.contains(&*kind), "{name}: {kind} comes to {marks:?}");
            kinds += 1;
        }
    }
    assert!(kinds >= least, "{name}: a corpus of {kinds} kinds");
    if let Err((bytes, why)) = run(target, 1, cases, Instant::now() + MOST) {
        panic!("{name}: {why}\ninput: {bytes:?}");
    }
}

#[test]
fn request() {
    short("request", RELAYED, 15);
}

#[test]
fn response() {
    short("response", RELAYED, 45);
}

#[test]
fn both() {
    short("both", RELAYED, 45);
}

#[test]
fn chunks() {
    short("chunks", ALONE, 4);
}

#[test]
fn heads() {
    short("heads", ALONE, 25);
}

/// A target that cannot fail finds nothing: a message of the wrong kind must be refused by the reader.
#[test]
fn the_strict_reader_refuses() {
    use tidegate_fuzz::strict::{Asked, request, responses};
    let fields = [
        "host: h\r\ncontent-length: 05\r\n",
        "host: h\r\ncontent-length: 1\r\ntransfer-encoding: chunked\r\n",
        "host: h\r\nhost: h\r\n",
        "",
        "host: h\r\nx:y\r\n",
        "host: h\r\nx: y \r\n",
        "host: h\r\nx y: z\r\n",
        "host: h\r\nx: a\rb\r\n",
        "host: h\r\nx: a\nb\r\n",
        "host: h\r\nte: trailers\r\n",
        "host: h\r\nconnection: close\r\n",
        "host: h\r\nx: \0\r\n",
        "host: h\r\n folded\r\n",
        "host: h\r\ntransfer-encoding: Chunked\r\n",
    ];
    for fields in fields {
        assert!(request(format!("GET / HTTP/1.1\r\n{fields}\r\n").as_bytes()).is_err(), "{fields:?}");
    }
    for line in [
        "GET  / HTTP/1.1",
        "GET / HTTP/1.0",
        "GET /",
        "G T / HTTP/1.1",
        "GET x HTTP/1.1",
        "GET /\x7f HTTP/1.1",
    ] {
        assert!(request(format!("{line}\r\nhost: h\r\n\r\n").as_bytes()).is_err(), "{line:?}");
    }
    for chunk in [
        "05\r\nhello\r\n0\r\n\r\n",
        "5;a\r\nhello",
        "5\r\nhelloX\r\n",
        "0\r\nX: y\r\n\r\n",
        "A\r\n",
        "5\nhello",
    ] {
        let head = "POST / HTTP/1.1\r\nhost: h\r\ntransfer-encoding: chunked\r\n\r\n";
        assert!(request(format!("{head}{chunk}").as_bytes()).is_err(), "{chunk:?}");
    }
    let ok = "HTTP/1.1 200 OK\r\ndate: x\r\ncontent-length: 0\r\n\r\n";
    let asked = [Asked::default()];
    assert!(responses(ok.as_bytes(), &asked).is_ok());
    for wrong in [
        format!("{ok}{ok}"),
        format!("{ok}x\r\n\r\n"),
        ok.replace("200", "99"),
        ok.replace("1.1", "1.0"),
        ok.replace("content-length: 0\r\n", ""),
        ok.replace("date: x\r\n", ""),
        ok.replace("200 OK", "204 OK"),
    ] {
        assert!(responses(wrong.as_bytes(), &asked).is_err(), "{wrong:?}");
    }
}
