//! The command line: which flags there are, what they mean, and what is wrong with a wrong value.
//!
//! The durations are one table, so that a flag cannot forget its default, its help or its check. A wrong
//! value names the flag, what was given and what is allowed, and exits 2. Nothing here opens a socket or looks a
//! name up.

mod generate;
mod values;

use std::net::SocketAddr;
use std::time::Duration;

use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::error::{ContextKind, ContextValue, ErrorKind};
use clap::{Arg, ArgAction, ArgMatches, Command};
use tidegate_core::{Prefix, Target, TimeoutPolicy, UpstreamLimits};
use tracing::level_filters::LevelFilter;

use self::generate::Form;
use self::values::{
    Limit, MaxBody, byte_limit, count, duration, listen, max_head, positive, protocol, trusted, upstream,
};
use crate::access_log::Format;
use crate::log;

/// More would be a mistake of typing.
const MAX_THREADS: usize = 1024;

/// What the operator asked for.
#[derive(Debug)]
pub(crate) struct Flags {
    /// Where to listen; at least one address.
    pub(crate) listen: Vec<SocketAddr>,
    /// Where to forward to; empty means the built-in origin.
    pub(crate) upstreams: Vec<Target>,
    /// On which runtime.
    pub(crate) runtime: RuntimeName,
    /// On how many threads; `None` if nothing was said.
    pub(crate) threads: Option<usize>,
    /// How long each wait may last.
    pub(crate) timeouts: TimeoutPolicy,
    /// Client connections at once.
    pub(crate) max_client_conns: usize,
    /// What may be asked of the upstreams.
    pub(crate) upstream_limits: UpstreamLimits,
    /// The largest head, in bytes.
    pub(crate) max_head: usize,
    /// The largest request body, in bytes.
    pub(crate) max_body: Option<u64>,
    /// The protocols to which a client may upgrade.
    pub(crate) upgrades: Vec<String>,
    /// The proxies in front of this one.
    pub(crate) trusted: Vec<Prefix>,
    /// What the program says about itself.
    pub(crate) log_level: LevelFilter,
    /// Whether there is a line a request, and of which form.
    pub(crate) access_log: Option<Format>,
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
        long: QUEUE,
        field: |p| &mut p.queue,
        help: "Waiting for a free upstream connection",
        zero: "zero would fail every request that has to wait",
    },
    DurationFlag {
        long: "connect-timeout",
        field: |p| &mut p.connect,
        help: "One attempt to connect to an upstream, looking up its name included",
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

const TUNNEL_DEADLINES: &[DurationFlag] = &[
    DurationFlag {
        long: "tunnel-timeout",
        field: |p| &mut p.tunnel,
        help: "An idle tunnel",
        zero: "zero would close every tunnel at once; to have none say `--upgrade off`",
    },
    DurationFlag {
        long: "tunnel-half-close-timeout",
        field: |p| &mut p.tunnel_fin,
        help: "A tunnel with one direction closed",
        zero: "zero would cut off the last words of every tunnel",
    },
];

const SHUTDOWN: &[DurationFlag] = &[DurationFlag {
    long: "drain-timeout",
    field: |p| &mut p.drain,
    help: "After SIGTERM or SIGINT, finishing what runs",
    zero: "zero would cut off every request that runs, as a second signal does",
}];

/// One of its values excludes the others.
const UPGRADE: &str = "upgrade";

/// Its default is another flag's value.
const QUEUE: &str = "queue-timeout";

fn durations() -> impl Iterator<Item = &'static DurationFlag> {
    UPSTREAM_DEADLINES.iter().chain(CLIENT_DEADLINES).chain(TUNNEL_DEADLINES).chain(SHUTDOWN)
}

const AFTER_HELP: &str = "\
A DURATION is `150ms`, `1s`, `\"1m 30s\"` or `off`. Long uploads want `--write-timeout off` with a
`--write-idle-timeout`; `--total-timeout` bounds them all the same.

With no argument tidegate starts a small origin of its own, proxies 127.0.0.1:8080 to it, and prints
what to try. The first SIGTERM or SIGINT drains: nothing new is accepted, what runs is finished within the
drain timeout. A second one stops at once. docs/OPERATING.md has the rest.";

/// The command, for parsing and for its errors.
fn command() -> Command {
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
            Arg::new("trust")
                .long("trust")
                .value_name("CIDR")
                .action(ArgAction::Append)
                .value_parser(trusted)
                .help("Proxies whose X-Forwarded-* and Forwarded are passed on; repeatable [default: none]"),
        )
        .arg(
            Arg::new("runtime")
                .long("runtime")
                .value_name("NAME")
                .value_parser(names(RuntimeName::ALL, RuntimeName::name))
                .default_value(RuntimeName::ALL[0].name())
                .help("The async runtime"),
        )
        .arg(
            Arg::new("threads")
                .long("threads")
                .value_name("N")
                .value_parser(|given: &str| count(given, 1..=MAX_THREADS))
                .help("Threads; async-std takes ASYNC_STD_THREAD_COUNT instead [default: one a core]"),
        )
        .next_help_heading("Upstream deadlines")
        .args(UPSTREAM_DEADLINES.iter().map(duration_arg))
        .next_help_heading("Client deadlines")
        .args(CLIENT_DEADLINES.iter().map(duration_arg))
        .next_help_heading("Upgrades")
        .arg(
            Arg::new(UPGRADE)
                .long(UPGRADE)
                .value_name("TOKEN")
                .action(ArgAction::Append)
                .value_parser(protocol)
                .default_value("websocket")
                .help("A protocol; repeatable; or `off`"),
        )
        .args(TUNNEL_DEADLINES.iter().map(duration_arg))
        .next_help_heading("Shutdown")
        .args(SHUTDOWN.iter().map(duration_arg))
        .next_help_heading("Limits")
        .arg(
            Arg::new("max-client-conns")
                .long("max-client-conns")
                .value_name("N")
                .value_parser(positive)
                .default_value("1000")
                .help("Client connections; then idle ones are closed, and new ones wait"),
        )
        .arg(
            Arg::new("max-conns-per-upstream")
                .long("max-conns-per-upstream")
                .value_name("N")
                .value_parser(positive)
                .default_value("100")
                .help("Requests in flight on one upstream; then further ones queue"),
        )
        .arg(
            Arg::new("max-head")
                .long("max-head")
                .value_name("BYTES")
                .value_parser(max_head)
                .default_value("64KiB")
                .help("The largest head, from 1KiB to 1MiB"),
        )
        .arg(
            Arg::new("max-body")
                .long("max-body")
                .value_name("BYTES")
                .value_parser(byte_limit)
                .default_value("off")
                .help("The largest request body, or `off`"),
        )
        .next_help_heading("Logs, on standard error")
        .arg(
            Arg::new("log-level")
                .long("log-level")
                .value_name("LEVEL")
                .value_parser(names(log::LEVELS, log::name))
                .default_value(log::name(LevelFilter::INFO))
                .help("What the program says about itself"),
        )
        .arg(
            Arg::new("access-log")
                .long("access-log")
                .value_name("FORM")
                .num_args(0..=1)
                .require_equals(true)
                .default_missing_value(Format::Text.name())
                .value_parser(names(Format::ALL, Format::name))
                .help("A line for each request [default: off]"),
        )
        .next_help_heading("About")
        .arg(
            Arg::new("generate")
                .long("generate")
                .value_name("WHAT")
                .exclusive(true)
                .value_parser(names(Form::ALL, Form::name))
                .help("Print the man page, or completions for a shell"),
        )
        .arg(Arg::new("help").long("help").short('h').action(ArgAction::Help).help("Print this help"))
        .arg(
            Arg::new("version")
                .long("version")
                .short('V')
                .action(ArgAction::Version)
                .help("Print the version"),
        )
        // So that `-1s` is a wrong value of its flag, and not a flag that nobody knows. A protocol may begin so.
        .mut_args(|arg| {
            let takes = arg.get_action().takes_values() && !arg.is_require_equals_set();
            let hyphens = takes && arg.get_id() != UPGRADE;
            arg.allow_hyphen_values(hyphens)
        })
}

/// One of `all`, by its name.
fn names<T: Copy + Send + Sync + 'static>(
    all: &'static [T],
    name: fn(T) -> &'static str,
) -> impl TypedValueParser<Value = T> {
    PossibleValuesParser::new(all.iter().map(move |one| name(*one))).map(move |given| {
        // The parser before this one has let nothing else through.
        *all.iter().find(|one| name(**one) == given).unwrap_or(&all[0])
    })
}

fn duration_arg(flag: &'static DurationFlag) -> Arg {
    let default = match *(flag.field)(&mut TimeoutPolicy::default()) {
        _ if flag.long == QUEUE => "--connect-timeout".to_owned(),
        // Whole units, as the documentation has them: `75s` and not `1m 15s`.
        Some(limit) if limit.as_secs() >= 3600 => format!("{}h", limit.as_secs() / 3600),
        Some(limit) => format!("{}s", limit.as_secs()),
        None => "off".to_owned(),
    };
    Arg::new(flag.long)
        .long(flag.long)
        .value_name("DURATION")
        .value_parser(|given: &str| duration(given, flag.zero))
        .help(format!("{} [default: {default}]", flag.help))
}

impl Flags {
    /// From the process's arguments. Prints and exits where there is nothing to run: 0 after `--help`,
    /// `--version` and `--generate` (1 if that cannot be written), 2 after a wrong flag or value.
    pub(crate) fn from_args() -> Flags {
        let mut command = command();
        // No value that is right has anything but ASCII. One that is no text at all is a wrong value like any other, and
        // the parser would not say of which flag.
        let args = std::env::args_os().map(|arg| arg.to_string_lossy().into_owned());
        let given = command.try_get_matches_from_mut(args);
        let given = given.unwrap_or_else(|e| with_tip(e).exit());
        if let Some(form) = given.get_one::<Form>("generate") {
            let Err(e) = form.print(command) else { std::process::exit(0) };
            eprintln!("error: cannot print the {} text: {e}", form.name());
            std::process::exit(1);
        }
        Flags::of(given, &mut command).unwrap_or_else(|e| e.exit())
    }

    fn of(mut given: ArgMatches, command: &mut Command) -> Result<Flags, clap::Error> {
        let mut timeouts = TimeoutPolicy::default();
        let queue_given = given.contains_id(QUEUE);
        for flag in durations() {
            if let Some(Limit(limit)) = given.remove_one(flag.long) {
                *(flag.field)(&mut timeouts) = limit;
            }
        }
        if !queue_given {
            timeouts.queue = timeouts.connect;
        }
        let mut upgrades: Vec<String> = many(&mut given, UPGRADE);
        let given_tokens = upgrades.len();
        upgrades.retain(|token| token != "off");
        if !upgrades.is_empty() && upgrades.len() < given_tokens {
            let message =
                "invalid value 'off' for '--upgrade <TOKEN>': `off` and a protocol exclude each other";
            return Err(command.error(ErrorKind::ArgumentConflict, message));
        }
        let max_client_conns = given.remove_one("max-client-conns").unwrap_or(1000);
        let max_conns = given.remove_one("max-conns-per-upstream").unwrap_or(100);
        let MaxBody(max_body) = given.remove_one("max-body").unwrap_or(MaxBody(None));
        Ok(Flags {
            listen: many(&mut given, "listen"),
            upstreams: many(&mut given, "upstream"),
            runtime: given.remove_one("runtime").unwrap_or(RuntimeName::ALL[0]),
            threads: given.remove_one("threads"),
            timeouts,
            max_client_conns,
            upstream_limits: UpstreamLimits { max_conns, max_queue: max_client_conns },
            max_head: given.remove_one("max-head").unwrap_or(64 << 10),
            max_body,
            upgrades,
            trusted: many(&mut given, "trust"),
            log_level: given.remove_one("log-level").unwrap_or(LevelFilter::INFO),
            access_log: given.remove_one("access-log"),
        })
    }
}

/// Says what may have been meant by an argument that is no flag.
fn with_tip(mut e: clap::Error) -> clap::Error {
    let Some(ContextValue::String(given)) = e.get(ContextKind::InvalidArg) else { return e };
    let tip = match given.as_str() {
        form if Format::ALL.iter().any(|f| f.name() == form) => {
            format!("the form of the access log is given as '--access-log={form}'")
        }
        flag if flag.starts_with("--") => return e,
        // One hyphen: the parser takes the first letter for a flag.
        flag if flag.starts_with('-') => "flags begin with two hyphens; '--help' lists them".to_owned(),
        addr if upstream(addr).is_ok() => format!("an upstream is given as '--upstream {addr}'"),
        _ => return e,
    };
    if e.kind() == ErrorKind::UnknownArgument {
        e.insert(ContextKind::Suggested, ContextValue::StyledStrs(vec![tip.into()]));
    }
    e
}

fn many<T: Clone + Send + Sync + 'static>(given: &mut ArgMatches, id: &str) -> Vec<T> {
    given.remove_many(id).map(Iterator::collect).unwrap_or_default()
}
