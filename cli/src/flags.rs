//! The command line: which flags there are, what they mean, and what is wrong with a wrong value.
//!
//! The durations are one table, so that a flag cannot forget its default, its help or its check. A wrong
//! value names the flag, what was given and what is allowed, and exits 2. Nothing here opens a socket; the
//! one thing that it asks the system for is the address of an upstream's name.

use std::net::{SocketAddr, ToSocketAddrs};
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::ErrorKind;
use clap::{Arg, ArgAction, ArgMatches, Command};
use tidegate_core::TimeoutPolicy;

/// What the operator asked for.
#[derive(Debug)]
pub(crate) struct Flags {
    /// Where to listen; at least one address.
    pub(crate) listen: Vec<SocketAddr>,
    /// Where to forward to, as given and as resolved; empty means the built-in origin.
    pub(crate) upstreams: Vec<Upstream>,
    /// On which runtime.
    pub(crate) runtime: RuntimeName,
    /// How long each wait may last.
    pub(crate) timeouts: TimeoutPolicy,
    /// The largest head, in bytes.
    pub(crate) max_head: usize,
}

/// An upstream: `HOST:PORT` as it was given, and the address that it has.
#[derive(Clone, Debug)]
pub(crate) struct Upstream {
    pub(crate) name: String,
    pub(crate) addr: SocketAddr,
}

/// A runtime that this binary was built with.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub(crate) enum RuntimeName {
    #[cfg(feature = "tokio")]
    Tokio,
    #[cfg(feature = "smol")]
    Smol,
    #[cfg(feature = "async-std")]
    AsyncStd,
}

impl RuntimeName {
    /// All of them; the first is the default.
    const ALL: &[RuntimeName] = &[
        #[cfg(feature = "tokio")]
        RuntimeName::Tokio,
        #[cfg(feature = "smol")]
        RuntimeName::Smol,
        #[cfg(feature = "async-std")]
        RuntimeName::AsyncStd,
    ];

    /// As `--runtime` takes it.
    pub(crate) const fn name(self) -> &'static str {
        match self {
            #[cfg(feature = "tokio")]
            RuntimeName::Tokio => "tokio",
            #[cfg(feature = "smol")]
            RuntimeName::Smol => "smol",
            #[cfg(feature = "async-std")]
            RuntimeName::AsyncStd => "async-std",
        }
    }
}

#[cfg(not(any(feature = "tokio", feature = "smol", feature = "async-std")))]
compile_error!("tidegate needs a runtime: enable at least one of the features tokio, smol and async-std");

/// A flag that takes a duration.
struct DurationFlag {
    long: &'static str,
    field: fn(&mut TimeoutPolicy) -> &mut Option<Duration>,
    help: &'static str,
    /// Why zero makes no sense.
    zero: &'static str,
}

const FAILS: &str = "zero would fail every request";

const UPSTREAM_DEADLINES: &[DurationFlag] = &[
    DurationFlag {
        long: "connect-timeout",
        field: |p| &mut p.connect,
        help: "One attempt to connect to an upstream",
        zero: FAILS,
    },
    DurationFlag {
        long: "read-timeout",
        field: |p| &mut p.read,
        help: "Each read of the response",
        zero: FAILS,
    },
    DurationFlag {
        long: "write-timeout",
        field: |p| &mut p.write,
        help: "Writing the whole request, head and body",
        zero: FAILS,
    },
    DurationFlag {
        long: "write-idle-timeout",
        field: |p| &mut p.write_idle,
        help: "Each progress of the request write; for long uploads",
        zero: FAILS,
    },
    DurationFlag {
        long: "total-timeout",
        field: |p| &mut p.total,
        help: "One request, from its head to the last byte to the client",
        zero: FAILS,
    },
    DurationFlag {
        long: "pool-idle-timeout",
        field: |p| &mut p.pool_idle,
        help: "An idle upstream connection",
        zero: "zero would close the upstream connection after every request",
    },
];

const CLIENT_DEADLINES: &[DurationFlag] = &[
    DurationFlag {
        long: "client-head-timeout",
        field: |p| &mut p.client_head,
        help: "A whole request head",
        zero: FAILS,
    },
    DurationFlag {
        long: "client-body-timeout",
        field: |p| &mut p.client_body,
        help: "Each read of a request body",
        zero: "zero would fail every request that has a body",
    },
    DurationFlag {
        long: "client-write-timeout",
        field: |p| &mut p.client_write,
        help: "Each progress of the response to the client",
        zero: FAILS,
    },
    DurationFlag {
        long: "keep-alive-timeout",
        field: |p| &mut p.keep_alive,
        help: "An idle client connection",
        zero: "zero would close the client's connection after every request",
    },
    DurationFlag {
        long: "linger-timeout",
        field: |p| &mut p.linger,
        help: "Reading on after an early or error response",
        zero: "zero would reset the client of every request that is answered early",
    },
];

fn durations() -> impl Iterator<Item = &'static DurationFlag> {
    UPSTREAM_DEADLINES.iter().chain(CLIENT_DEADLINES)
}

/// A limit on a wait; a type of its own because `off` is a value.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
struct Limit(Option<Duration>);

const AFTER_HELP: &str = "\
A DURATION is `150ms`, `1s`, `\"1m 30s\"` or `off`. Long uploads want `--write-timeout off` with a
`--write-idle-timeout`; `--total-timeout` bounds them all the same.

With no argument tidegate starts a small origin of its own, proxies 127.0.0.1:8080 to it, and prints
what to try. SIGTERM or SIGINT stops it at once.";

/// The command, for parsing and for its errors.
fn command() -> Command {
    let runtimes = RuntimeName::ALL.iter().map(|r| r.name());
    let runtime = PossibleValuesParser::new(runtimes).map(|given| {
        let of = |r: &&RuntimeName| r.name() == given;
        *RuntimeName::ALL.iter().find(of).unwrap_or(&RuntimeName::ALL[0])
    });
    Command::new("tidegate")
        .version(env!("CARGO_PKG_VERSION"))
        .about("A reverse proxy on which every wait has a deadline.")
        .after_help(AFTER_HELP)
        .term_width(100)
        .next_line_help(false)
        .disable_help_flag(true)
        .disable_version_flag(true)
        .next_help_heading("What and where")
        .arg(
            Arg::new("listen")
                .long("listen")
                .value_name("IP:PORT")
                .action(ArgAction::Append)
                .value_parser(listen)
                .default_value("127.0.0.1:8080")
                .help("Where to listen; repeatable; port 0 is a free one"),
        )
        .arg(
            Arg::new("upstream")
                .long("upstream")
                .value_name("HOST:PORT")
                .action(ArgAction::Append)
                .value_parser(upstream)
                .help("Where to forward to; repeatable, then in turn [default: a built-in origin]"),
        )
        .arg(
            Arg::new("runtime")
                .long("runtime")
                .value_name("NAME")
                .value_parser(runtime)
                .default_value(RuntimeName::ALL[0].name())
                .help("The runtime"),
        )
        .next_help_heading("Upstream deadlines")
        .args(UPSTREAM_DEADLINES.iter().map(duration_arg))
        .next_help_heading("Client deadlines")
        .args(CLIENT_DEADLINES.iter().map(duration_arg))
        .next_help_heading("Limits")
        .arg(
            Arg::new("max-head")
                .long("max-head")
                .value_name("BYTES")
                .allow_hyphen_values(true)
                .value_parser(max_head)
                .default_value("64KiB")
                .help("The largest head, from 1KiB to 1MiB"),
        )
        .next_help_heading("About")
        .arg(Arg::new("help").long("help").short('h').action(ArgAction::Help).help("Print this help"))
        .arg(
            Arg::new("version")
                .long("version")
                .short('V')
                .action(ArgAction::Version)
                .help("Print the version"),
        )
}

fn duration_arg(flag: &'static DurationFlag) -> Arg {
    let default = match *(flag.field)(&mut TimeoutPolicy::default()) {
        // Whole seconds, as the documentation has them: `75s` and not `1m 15s`.
        Some(limit) => format!("{}s", limit.as_secs()),
        None => "off".to_owned(),
    };
    Arg::new(flag.long)
        .long(flag.long)
        .value_name("DURATION")
        // So that `-1s` is a wrong value of this flag and not a flag that nobody knows.
        .allow_hyphen_values(true)
        .value_parser(|given: &str| limit(given, flag.zero))
        .help(format!("{} [default: {default}]", flag.help))
}

impl Flags {
    /// From the process's arguments. Prints and exits where there is nothing to run: 0 after `--help` and
    /// `--version`, 2 after a wrong flag or value.
    pub(crate) fn from_args() -> Flags {
        Flags::parse(std::env::args_os()).unwrap_or_else(|e| e.exit())
    }

    fn parse(
        args: impl IntoIterator<Item = impl Into<std::ffi::OsString> + Clone>,
    ) -> Result<Flags, clap::Error> {
        let mut command = command();
        let mut given = command.try_get_matches_from_mut(args)?;
        let mut timeouts = TimeoutPolicy::default();
        for flag in durations() {
            if let Some(Limit(limit)) = given.remove_one(flag.long) {
                *(flag.field)(&mut timeouts) = limit;
            }
        }
        let mut upstreams = Vec::new();
        for name in many::<String>(&mut given, "upstream") {
            match resolve(&name) {
                Ok(addr) => upstreams.push(Upstream { name, addr }),
                Err(why) => {
                    let message = format!("invalid value '{name}' for '--upstream <HOST:PORT>': {why}");
                    return Err(command.error(ErrorKind::ValueValidation, message));
                }
            }
        }
        Ok(Flags {
            listen: many(&mut given, "listen"),
            upstreams,
            runtime: given.remove_one("runtime").unwrap_or(RuntimeName::ALL[0]),
            timeouts,
            max_head: given.remove_one("max-head").unwrap_or(DEFAULT_MAX_HEAD),
        })
    }
}

fn many<T: Clone + Send + Sync + 'static>(given: &mut ArgMatches, id: &str) -> Vec<T> {
    given.remove_many(id).map(Iterator::collect).unwrap_or_default()
}

fn listen(given: &str) -> Result<SocketAddr, String> {
    given.parse().map_err(|_| {
        "expected an IP address and a port, such as 127.0.0.1:8080, 0.0.0.0:80 or [::1]:8080".to_owned()
    })
}

fn limit(given: &str, zero: &str) -> Result<Limit, String> {
    if given == "off" {
        return Ok(Limit(None));
    }
    match humantime::parse_duration(given) {
        Ok(Duration::ZERO) => Err(format!("{zero}; for no limit say `off`")),
        Ok(limit) => Ok(Limit(Some(limit))),
        Err(e) => Err(format!("{e}; expected a duration such as 150ms, 1s or \"1m 30s\", or `off`")),
    }
}

const DEFAULT_MAX_HEAD: usize = 64 << 10;
const MAX_HEAD: std::ops::RangeInclusive<usize> = 1 << 10..=1 << 20;

fn max_head(given: &str) -> Result<usize, String> {
    const UNITS: &[(&str, usize)] = &[("KiB", 1 << 10), ("MiB", 1 << 20), ("kB", 1_000), ("MB", 1_000_000)];
    let (digits, unit) = UNITS
        .iter()
        .find_map(|(name, size)| Some((given.strip_suffix(name)?.trim_end(), *size)))
        .unwrap_or((given, 1));
    // `usize::from_str` would take a sign.
    let number = if digits.bytes().all(|b| b.is_ascii_digit()) { digits.parse::<usize>().ok() } else { None };
    number
        .and_then(|n| n.checked_mul(unit))
        .filter(|size| MAX_HEAD.contains(size))
        .ok_or_else(|| "expected bytes from 1KiB to 1MiB, such as 16384, 64KiB or 100kB".to_owned())
}

/// Checks the form only: asking for a name's address waits until all flags are known to be good.
fn upstream(given: &str) -> Result<String, String> {
    const EXPECTED: &str = "expected a host and a port, such as 127.0.0.1:9000, [::1]:9000 or localhost:9000";
    if given.contains("://") {
        return Err(format!("{EXPECTED}, without a scheme"));
    }
    let (host, port) = given.rsplit_once(':').ok_or(EXPECTED)?;
    let bare_v6 = host.contains(':') && !(host.starts_with('[') && host.ends_with(']'));
    if host.is_empty() || bare_v6 || host.contains(['/', '@', ' ']) {
        return Err(EXPECTED.to_owned());
    }
    match port.parse::<u16>() {
        Ok(0) | Err(_) => Err(format!("{EXPECTED}; the port is a number from 1 to 65535")),
        Ok(_) => Ok(given.to_owned()),
    }
}

/// The first IPv4 address of the name, else its first address.
fn resolve(name: &str) -> Result<SocketAddr, String> {
    let found: Vec<SocketAddr> = match name.to_socket_addrs() {
        Ok(found) => found.collect(),
        Err(e) => return Err(format!("cannot resolve the name: {e}")),
    };
    let v4 = found.iter().find(|addr| addr.is_ipv4());
    v4.or(found.first()).copied().ok_or_else(|| "the name has no address".to_owned())
}
