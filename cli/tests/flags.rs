//! What the binary says about its flags: the help, and every kind of wrong value.
//!
//! A wrong value must name the flag, what was given and what is allowed, and exit 2; nothing may be
//! listening by then.

mod support;

use std::net::TcpListener;

use support::{RUNTIMES, tidegate};

/// Runs to the end; the exit code and what was printed on either stream.
fn run(args: &[&str]) -> (i32, String) {
    let output = tidegate(args).output().expect("the binary starts");
    let printed = [output.stdout, output.stderr].concat();
    (output.status.code().expect("no signal"), String::from_utf8(printed).expect("text"))
}

#[test]
fn wrong_values_name_the_flag_the_value_and_what_is_allowed() {
    let cases: &[(&str, &str, &str)] = &[
        ("--listen", "8080", "an IP address and a port"),
        ("--listen", "localhost:8080", "an IP address and a port"),
        ("--listen", "127.0.0.1:65536", "an IP address and a port"),
        ("--listen", "::1", "the port is missing"),
        ("--listen", "8080", "`0.0.0.0:8080` is every address"),
        ("--listen", ":8080", "`0.0.0.0:8080` is every address"),
        ("--listen", "http://127.0.0.1:8080/", "without a scheme: `127.0.0.1:8080`"),
        ("--listen", "localhost:8080", "not a name"),
        ("--upstream", "127.0.0.1", "a host and a port"),
        ("--upstream", "app.example", "the port is missing"),
        ("--upstream", "[::1]", "the port is missing"),
        ("--upstream", "::1:9000", "stands in brackets"),
        ("--upstream", "127.0.0.1:9000/api", "without a path"),
        ("--upstream", "https://app.example", "in plain HTTP"),
        ("--upstream", "http://app.example/api", "`app.example:80`"),
        ("--upstream", "http://[::1]", "`[::1]:80`"),
        ("--generate", "ksh", "possible values"),
        ("--upstream", ":9000", "a host and a port"),
        ("--upstream", "::1:9000", "a host and a port"),
        ("--upstream", "127.0.0.1:0", "a number from 1 to 65535"),
        ("--upstream", "127.0.0.1:http", "a number from 1 to 65535"),
        ("--upstream", "app.example:+9000", "a number from 1 to 65535"),
        ("--upstream", "http://127.0.0.1:9000", "without a scheme"),
        ("--upstream", "a host:9000", "a host and a port"),
        ("--runtime", "glommio", "possible values"),
        ("--read-timeout", "5", "150ms, 1s or \"1m 30s\", or `off`"),
        ("--read-timeout", "soon", "or `off`"),
        ("--read-timeout", "-1s", "or `off`"),
        ("--read-timeout", "", "or `off`"),
        ("--threads", "0", "from 1 to 1024"),
        ("--threads", "many", "from 1 to 1024"),
        ("--max-client-conns", "0", "zero would refuse every request"),
        ("--max-client-conns", "-1", "a whole number from 1"),
        ("--max-conns-per-upstream", "0", "zero would refuse every request"),
        ("--max-conns-per-upstream", "1k", "a whole number from 1"),
        ("--max-body", "0", "for no limit say `off`"),
        ("--max-body", "0MiB", "for no limit say `off`"),
        ("--max-body", "big", "or `off`"),
        ("--max-body", "99999999999GiB", "or `off`"),
        ("--upgrade", "web socket", "such as websocket, or `off`"),
        ("--upgrade", "a/b/c", "such as websocket, or `off`"),
        ("--upgrade", "", "such as websocket, or `off`"),
        ("--upgrade", "h2c", "HTTP inside a tunnel"),
        ("--upgrade", "HTTP/2.0", "HTTP inside a tunnel"),
        ("--trust", "localhost", "no IP address; expected an IP address, or a prefix"),
        ("--trust", "10.0.0.0/33", "no number of bits"),
        ("--trust", "10.0.0.1/8", "bits behind the prefix"),
        ("--trust", "", "such as 10.0.0.0/8"),
        ("--log-level", "loud", "possible values"),
        ("--access-log", "xml", "possible values"),
        ("--max-head", "1023", "from 1KiB to 1MiB"),
        ("--max-head", "1025KiB", "from 1KiB to 1MiB"),
        ("--max-head", "+64KiB", "from 1KiB to 1MiB"),
        ("--max-head", "64 GiB", "from 1KiB to 1MiB"),
        ("--max-head", "99999999999999999999MiB", "from 1KiB to 1MiB"),
    ];
    for (flag, value, allowed) in cases {
        let (code, printed) = run(&[&format!("{flag}={value}")]);
        assert_eq!(code, 2, "{flag} {value}: {printed}");
        assert!(printed.contains(flag), "{flag} {value}: {printed}");
        assert!(printed.contains(&format!("'{value}'")), "{flag} {value}: {printed}");
        assert!(printed.contains(allowed), "{flag} {value}: {printed}");
    }
}

#[test]
fn a_negative_value_is_a_wrong_value_and_not_an_unknown_flag() {
    for (flag, value) in [
        ("--read-timeout", "-1s"),
        ("--linger-timeout", "-0"),
        ("--max-head", "-1"),
        ("--listen", "-1"),
        ("--upstream", "-x:80"),
        ("--trust", "-1"),
        ("--runtime", "-tokio"),
        ("--log-level", "-1"),
        // What should have been its value was forgotten.
        ("--upstream", "--access-log"),
    ] {
        let (code, printed) = run(&[flag, value]);
        assert_eq!(code, 2, "{flag} {value}: {printed}");
        assert!(printed.contains(&format!("invalid value '{value}' for '{flag}")), "{printed}");
    }
}

#[test]
fn a_value_that_is_no_text_is_a_wrong_value_of_its_flag() {
    use std::os::unix::ffi::OsStrExt as _;
    let no_text = |text: &[u8]| std::ffi::OsStr::from_bytes(text).to_owned();
    for (flag, allowed) in [
        ("--listen", "an IP address and a port"),
        ("--upstream", "a host and a port"),
        ("--read-timeout", "or `off`"),
        ("--upgrade", "such as websocket"),
        ("--runtime", "possible values"),
        ("--max-head", "from 1KiB to 1MiB"),
    ] {
        let output = tidegate(&[flag]).arg(no_text(b"h\xff:80")).output().expect("the binary starts");
        let printed = String::from_utf8(output.stderr).expect("text");
        assert_eq!(output.status.code(), Some(2), "{flag}: {printed}");
        for word in [flag, "'h\u{fffd}:80'", allowed] {
            assert!(printed.contains(word), "{flag} lacks {word}: {printed}");
        }
    }
    let output = tidegate(&[]).arg(no_text(b"--read\xff")).output().expect("the binary starts");
    let printed = String::from_utf8(output.stderr).expect("text");
    assert_eq!(output.status.code(), Some(2), "{printed}");
    assert!(printed.contains("'--read\u{fffd}'"), "{printed}");
}

#[test]
fn zero_is_refused_with_a_reason_and_the_way_out() {
    let flags = [
        "queue",
        "connect",
        "read",
        "write",
        "write-idle",
        "total",
        "client-head",
        "client-body",
        "client-write",
        "keep-alive",
        "pool-idle",
        "tunnel",
        "tunnel-half-close",
        "linger",
        "drain",
    ];
    for flag in flags {
        let flag = format!("--{flag}-timeout");
        for zero in ["0", "0s", "0ms"] {
            let (code, printed) = run(&[&flag, zero]);
            assert_eq!(code, 2, "{flag} {zero}: {printed}");
            let what = if flag.starts_with("--tunnel") { "every tunnel" } else { "every request" };
            for word in [flag.as_str(), &format!("'{zero}'"), what, "`off`"] {
                assert!(printed.contains(word), "{flag} {zero} lacks {word}: {printed}");
            }
        }
    }
}

#[test]
fn off_excludes_every_upgrade() {
    let (code, printed) = run(&["--upgrade", "websocket", "--upgrade", "off"]);
    assert_eq!(code, 2);
    assert!(printed.contains("'--upgrade <TOKEN>'") && printed.contains("exclude each other"), "{printed}");
    // Twice `off` is no protocol: what is wrong is what comes after it.
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("an address").to_string();
    let (code, printed) = run(&["--upgrade", "off", "--upgrade", "off", "--listen", &addr]);
    assert_eq!(code, 1, "{printed}");
}

#[test]
fn an_unknown_flag_is_named_and_a_near_one_suggested() {
    let (code, printed) = run(&["--read-timout", "1s"]);
    assert_eq!(code, 2);
    assert!(printed.contains("'--read-timout'") && printed.contains("'--read-timeout'"), "{printed}");
}

#[test]
fn help_groups_the_flags_and_shows_the_defaults() {
    let (code, printed) = run(&["--help"]);
    assert_eq!(code, 0);
    for heading in [
        "What and where:",
        "Upstream deadlines:",
        "Client deadlines:",
        "Upgrades:",
        "Shutdown:",
        "Limits:",
        "Logs,",
    ] {
        assert!(printed.contains(heading), "{heading}: {printed}");
    }
    for (flag, default) in [
        ("--listen", "127.0.0.1:8080"),
        ("--threads", "one a core"),
        ("--trust", "none"),
        ("--queue-timeout", "--connect-timeout"),
        ("--connect-timeout", "1s"),
        ("--read-timeout", "15s"),
        ("--write-timeout", "15s"),
        ("--write-idle-timeout", "off"),
        ("--total-timeout", "30s"),
        ("--client-head-timeout", "15s"),
        ("--client-body-timeout", "15s"),
        ("--client-write-timeout", "15s"),
        ("--keep-alive-timeout", "75s"),
        ("--pool-idle-timeout", "60s"),
        ("--linger-timeout", "1s"),
        ("--upgrade", "websocket"),
        ("--tunnel-timeout", "1h"),
        ("--tunnel-half-close-timeout", "30s"),
        ("--drain-timeout", "30s"),
        ("--max-client-conns", "1000"),
        ("--max-conns-per-upstream", "100"),
        ("--max-head", "64KiB"),
        ("--max-body", "off"),
        ("--log-level", "info"),
        ("--access-log", "off"),
    ] {
        let line = printed.lines().find(|line| line.trim_start().starts_with(flag));
        let line = line.unwrap_or_else(|| panic!("no line for {flag}: {printed}"));
        assert!(line.contains(&format!("[default: {default}]")), "{line}");
    }
    for runtime in RUNTIMES {
        assert!(printed.contains(runtime), "{runtime}: {printed}");
    }
}

#[test]
fn version_is_the_package_version() {
    assert_eq!(run(&["--version"]), (0, format!("tidegate {}\n", env!("CARGO_PKG_VERSION"))));
}

#[test]
fn a_taken_port_exits_1_and_names_the_address() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let addr = taken.local_addr().expect("an address").to_string();
    for runtime in RUNTIMES {
        let (code, printed) = run(&["--runtime", runtime, "--listen", &addr]);
        assert_eq!(code, 1, "{printed}");
        assert!(printed.contains(&addr), "{printed}");
    }
}

#[test]
fn one_address_twice_is_a_taken_port() {
    // A port that was free a moment ago; should somebody else have it now, the result is the same.
    let addr =
        TcpListener::bind("127.0.0.1:0").and_then(|l| l.local_addr()).expect("a free port").to_string();
    let (code, printed) = run(&["--listen", &addr, "--listen", &addr]);
    assert_eq!(code, 1, "{printed}");
    assert!(printed.contains(&addr), "{printed}");
}

/// On most systems, and then it is no other program that has to be looked for.
#[test]
fn a_listener_for_both_families_that_takes_anothers_port_says_so() {
    let taken = TcpListener::bind("0.0.0.0:0").expect("a free port");
    let port = taken.local_addr().expect("an address").port();
    let both = [format!("0.0.0.0:{port}"), format!("[::]:{port}")];
    let both_in_one = TcpListener::bind(&both[1]).is_err();
    drop(taken);
    // Elsewhere they are two, and the program runs.
    if both_in_one {
        let (code, printed) = run(&["--listen", &both[0], "--listen", &both[1]]);
        assert_eq!(code, 1, "{printed}");
        assert!(printed.contains(&both[1]), "{printed}");
        assert!(printed.contains(&format!("`--listen {}` has that port", both[0])), "{printed}");
    }
}

#[test]
fn a_port_that_another_program_has_is_not_said_to_be_ours() {
    // Where there is no IPv6 there is nothing to take for one another.
    let Ok(taken) = TcpListener::bind("[::1]:0") else { return };
    let port = taken.local_addr().expect("an address").port();
    let listens = [format!("0.0.0.0:{port}"), format!("[::1]:{port}")];
    let (code, printed) = run(&["--listen", &listens[0], "--listen", &listens[1]]);
    assert_eq!(code, 1, "{printed}");
    assert!(!printed.contains("has that port"), "{printed}");
}

#[test]
fn what_is_no_flag_is_named_with_what_was_meant() {
    for (args, given, meant) in [
        (&["127.0.0.1:9000"][..], "'127.0.0.1:9000'", "'--upstream 127.0.0.1:9000'"),
        (&["--access-log", "json"], "'json'", "'--access-log=json'"),
        (&["-upstream", "127.0.0.1:9000"], "'-u'", "two hyphens"),
        (&["--timeout", "5s"], "'--timeout'", "'--read-timeout'"),
        (&["serve"], "'serve'", "--help"),
    ] {
        let (code, printed) = run(args);
        assert_eq!(code, 2, "{args:?}: {printed}");
        assert!(printed.contains(given) && printed.contains(meant), "{args:?}: {printed}");
    }
}

#[test]
fn an_address_of_somebody_else_exits_1_and_is_named() {
    // For documentation (RFC 5737): no machine has it.
    let (code, printed) = run(&["--listen", "192.0.2.1:8080"]);
    assert_eq!(code, 1, "{printed}");
    assert!(
        printed.contains("192.0.2.1:8080") && printed.contains("no address of this machine"),
        "{printed}"
    );
}

/// Every flag that the help lists, without its hyphens.
fn all_flags() -> Vec<String> {
    let (_, help) = run(&["--help"]);
    let flags = help.split_whitespace().filter_map(|word| word.strip_prefix("--"));
    let name = |flag: &str| flag.split(['[', ']', ',', '`', '=']).next().unwrap_or_default().to_owned();
    let mut flags: Vec<String> = flags.map(name).filter(|name| !name.is_empty()).collect();
    flags.sort();
    flags.dedup();
    assert!(flags.len() >= 25, "{flags:?}");
    flags
}

#[test]
fn the_man_page_has_its_header_and_names_every_flag() {
    let (code, page) = run(&["--generate", "man"]);
    assert_eq!(code, 0, "{page}");
    let head = page.lines().find(|line| !line.starts_with(".ie") && !line.starts_with(".el"));
    assert!(head.is_some_and(|line| line.starts_with(".TH tidegate 1 ")), "{page}");
    for section in ["NAME", "SYNOPSIS", "\"UPSTREAM DEADLINES\"", "NOTES", "\"EXIT STATUS\""] {
        assert!(page.contains(&format!(".SH {section}\n")), "{section}: {page}");
    }
    for flag in all_flags() {
        let flag = format!("\n\\fB\\-\\-{}\\fR", flag.replace('-', "\\-"));
        let short = flag.replace("\n\\fB", "\\fR, \\fB");
        assert!(page.contains(&flag) || page.contains(&short), "{flag}: {page}");
    }
}

#[test]
fn the_completions_of_every_shell_name_every_flag() {
    for (shell, sign) in [
        ("bash", "complete -F _tidegate"),
        ("zsh", "#compdef tidegate"),
        ("fish", "complete -c tidegate"),
        ("elvish", "edit:completion:arg-completer[tidegate]"),
        ("powershell", "Register-ArgumentCompleter -Native -CommandName 'tidegate'"),
    ] {
        let (code, script) = run(&["--generate", shell]);
        assert_eq!(code, 0, "{shell}: {script}");
        assert!(script.contains(sign), "{shell}: {script}");
        for flag in all_flags() {
            let flag = if shell == "fish" { format!("-l {flag}") } else { format!("--{flag}") };
            let ends = |rest: &str| !rest.starts_with(|c: char| c.is_ascii_lowercase() || c == '-');
            assert!(script.split(&flag).skip(1).any(ends), "{shell}: {flag}");
        }
    }
    let (code, printed) = run(&["--generate", "man", "--threads", "1"]);
    assert_eq!(code, 2, "{printed}");
}

#[test]
fn what_cannot_be_printed_exits_1() {
    let full = std::fs::OpenOptions::new().write(true).open("/dev/full");
    // Where there is such a device.
    let Ok(full) = full else { return };
    let output = tidegate(&["--generate", "man"]).stdout(full).output().expect("the binary starts");
    assert_eq!(output.status.code(), Some(1));
}
