//! Cases, as data: the proxy's limits, what it meets, and what is done to it.
//!
//! What its peers do is a [`Script`] each (`steps.rs`). This module describes; it runs nothing and expects nothing.

use std::time::Duration;

use tidegate_core::{TimeoutPolicy, UpstreamLimits};

use crate::attempt::Need;
use crate::expect::Expect;
use crate::hostile::Habits;
pub use crate::steps::{Script, Step, script};

/// Milliseconds, the unit of every case.
pub const fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// The default limits, scaled to a fraction of a second. The total and the write-idle limit are off; a case
/// overrides what it is about.
pub const P: TimeoutPolicy = TimeoutPolicy {
    connect: Some(ms(100)),
    write: Some(ms(200)),
    write_idle: None,
    read: Some(ms(150)),
    total: None,
    queue: Some(ms(100)),
    client_head: Some(ms(150)),
    client_body: Some(ms(150)),
    client_write: Some(ms(150)),
    keep_alive: Some(ms(150)),
    pool_idle: Some(ms(150)),
    tunnel: Some(ms(150)),
    tunnel_fin: Some(ms(150)),
    linger: Some(ms(80)),
    drain: Some(ms(300)),
};

/// What the proxy finds at its upstream's address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Upstream {
    /// A listener that runs the n-th script on the n-th connection. A connection more than scripts is
    /// counted and closed.
    Scripts(Vec<Script>),
    /// Nobody listens: connects are refused.
    Closed,
    /// The accept queue is full: connects hang, until `freed_by` happens, if it does.
    FullBacklog {
        /// The event at which the queue is emptied; from then on every connection is accepted and held.
        freed_by: Option<&'static str>,
    },
    /// The kernel completes the handshake, and nobody ever calls `accept`.
    KernelOnly,
}

/// How long the lookup of a name takes.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Takes {
    /// So long, whatever happens meanwhile.
    Time(Duration),
    /// Until an event.
    Until(&'static str),
}

/// What the proxy is told of an upstream. Places are those of [`Case::upstreams`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Aim {
    /// The address of one place.
    Address(usize),
    /// The addresses of several places, as one upstream.
    List(Vec<usize>),
    /// A name with a port. The event of the same name happens when its lookup begins.
    Name {
        /// `HOST:PORT`; by custom the host ends in `.test`.
        name: &'static str,
        /// How long a lookup takes.
        takes: Takes,
        /// What it finds; nothing means that there is no such name.
        found: Vec<usize>,
    },
}

/// Where a client connects to.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// To the proxy.
    Proxy,
    /// Past it, to the upstream: a control that shows that a trap works.
    Upstream,
}

/// A client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// What it does.
    pub script: Script,
    /// To whom.
    pub target: Target,
}

/// The thread that runs the proxy is blocked by a neighbour task.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Stall {
    /// The event with which it begins; when it has, [`BLOCKED`] happens, and [`FREED`] when it is over.
    pub from: &'static str,
    /// How long it lasts.
    pub length: Duration,
}

/// A transport that takes little at a time.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Pace {
    /// Bytes a write, at most.
    pub at_most: usize,
    /// How long a write blocks the thread.
    pub taking: Duration,
}

/// What is done to the proxy by whoever owns it.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Command {
    /// `Proxy::drain`.
    Drain,
    /// `Proxy::stop`.
    Stop,
    /// The future of `Proxy::serve` is dropped; the proxy is kept.
    Drop,
}

/// How long a script waits for what no event tells, such as that the proxy has read what was sent. A machine that holds somebody
/// up for so long is known to have (`attempt.rs`), and the run is repeated: no shorter pause may decide what happens.
pub const BY_THEN: Duration = ms(60);

/// The event at which a server ended that was told to by a [`Command`].
pub const SERVER_ENDED: &str = "the server ended";

/// The event at which a [`Stall`] has begun. Whoever wants to act within it waits for this: the event that it begins with says
/// only that it will.
pub const BLOCKED: &str = "the thread is blocked";

/// The event at which a [`Stall`] is over, before the thread does anything else.
pub const FREED: &str = "the thread is free again";

/// The event that a [`Stall`] from the first outcome begins with: in the turn in which that is reported, before the
/// runtime gets the thread back.
pub const FIRST_OUTCOME: &str = "the first outcome";

/// The events that the proxy's first questions to its resolver mark, whether or not a lookup begins: whoever asked has its
/// upstream by then.
pub const ASKED: [&str; 4] = ["a name is asked for", "a second name", "a third name", "a fourth name"];

/// A case of the catalogue.
#[derive(Debug)]
pub struct Case {
    /// Its id there, such as `R-05`.
    pub id: &'static str,
    /// What it shows, in a few words.
    pub title: &'static str,
    /// The limits.
    pub policy: TimeoutPolicy,
    /// Who answers.
    pub upstream: Upstream,
    /// Who answers when it is their turn: the second upstream and those after it.
    pub others: Vec<Upstream>,
    /// What the proxy is told of them. Without any, each is an upstream of its own, by its address.
    pub aims: Vec<Aim>,
    /// Lookups of names at once.
    pub lookups_at_once: usize,
    /// Paths with limits of their own.
    pub routes: Vec<(&'static str, TimeoutPolicy)>,
    /// How much may be asked of each upstream, and how much may wait for them.
    pub limits: UpstreamLimits,
    /// Clients at once.
    pub max_client_conns: usize,
    /// What is done to the proxy, at which events.
    pub commands: Vec<(&'static str, Command)>,
    /// The proxy is stopped by whoever observes the first outcome, inside the connection's own task.
    pub stopped_by_observer: bool,
    /// Chance decides between two good endings, so that two worlds need not agree.
    pub by_chance: bool,
    /// Who asks.
    pub clients: Vec<Client>,
    /// Whether the executor is blocked meanwhile.
    pub stall: Option<Stall>,
    /// What the runtime does that it need not do.
    pub habits: Habits,
    /// Whether the order of the proxy's own closes and writes is logged (`Transcript::order`).
    pub logged: bool,
    /// Upstream sockets take no more than this at a time.
    pub pace: Option<Pace>,
    /// The kernels between the proxy and its peers hold some kilobytes, not megabytes.
    pub small_buffers: bool,
    /// So many descriptors may be open more than there are when the case begins (on a real runtime).
    pub few_descriptors: Option<u64>,
    /// How often the whole case runs, one run after the other, on one port.
    pub rounds: u32,
    /// How long it may take in virtual time.
    pub lasts: Duration,
    /// Whether it runs while no other case does, on the whole machine.
    pub alone: bool,
    /// What it needs of a runtime.
    pub needs: Vec<Need>,
    /// What must hold in both worlds.
    pub expect: Vec<Expect>,
}

impl Case {
    /// A case with the profile [`P`], and nobody in it yet.
    pub fn new(id: &'static str, title: &'static str) -> Case {
        Case {
            id,
            title,
            policy: P,
            upstream: Upstream::Scripts(Vec::new()),
            others: Vec::new(),
            aims: Vec::new(),
            lookups_at_once: 2,
            routes: Vec::new(),
            limits: UpstreamLimits::default(),
            max_client_conns: 1000,
            commands: Vec::new(),
            stopped_by_observer: false,
            by_chance: false,
            clients: Vec::new(),
            stall: None,
            habits: Habits::default(),
            logged: false,
            pace: None,
            small_buffers: false,
            few_descriptors: None,
            rounds: 1,
            lasts: Duration::from_secs(60),
            alone: false,
            needs: Vec::new(),
            expect: Vec::new(),
        }
    }

    /// Changes limits.
    pub fn policy(mut self, change: impl FnOnce(&mut TimeoutPolicy)) -> Case {
        change(&mut self.policy);
        self
    }

    /// Turns off every limit but those of the end, drain and linger: for a case that is about none, so that a busy
    /// machine meets none either.
    pub fn patient(self) -> Case {
        self.policy(|p| *p = TimeoutPolicy { drain: P.drain, linger: P.linger, ..TimeoutPolicy::OFF })
    }

    /// Adds a connection to the scripted upstream.
    pub fn upstream(mut self, script: Script) -> Case {
        match &mut self.upstream {
            Upstream::Scripts(scripts) => scripts.push(script),
            other => *other = Upstream::Scripts(vec![script]),
        }
        self
    }

    /// Sets another kind of upstream.
    pub fn upstream_is(mut self, upstream: Upstream) -> Case {
        self.upstream = upstream;
        self
    }

    /// Adds a further upstream.
    pub fn other(mut self, upstream: Upstream) -> Case {
        self.others.push(upstream);
        self
    }

    /// Says what the proxy is told of the next upstream.
    pub fn aim(mut self, aim: Aim) -> Case {
        self.aims.push(aim);
        self
    }

    /// Gives requests for `path` limits of their own, which are the case's but for a change.
    pub fn route(mut self, path: &'static str, change: impl FnOnce(&mut TimeoutPolicy)) -> Case {
        let mut policy = self.policy;
        change(&mut policy);
        self.routes.push((path, policy));
        self
    }

    /// Every upstream, the first one first.
    pub fn upstreams(&self) -> impl Iterator<Item = &Upstream> {
        std::iter::once(&self.upstream).chain(&self.others)
    }

    /// Limits the exchanges at once on each upstream.
    pub fn max_conns(mut self, n: usize) -> Case {
        self.limits.max_conns = n;
        self
    }

    /// Limits the requests that wait.
    pub fn max_queue(mut self, n: usize) -> Case {
        self.limits.max_queue = n;
        self
    }

    /// Limits the clients at once.
    pub fn max_client_conns(mut self, n: usize) -> Case {
        self.max_client_conns = n;
        self
    }

    /// Does something to the proxy at an event. What is to be done at the same event is done in the order of
    /// these calls.
    pub fn command(mut self, event: &'static str, command: Command) -> Case {
        self.commands.push((event, command));
        self
    }

    /// Stops the proxy from inside `observe`.
    pub fn stopped_by_observer(mut self) -> Case {
        self.stopped_by_observer = true;
        self
    }

    /// Does not compare the worlds: chance decides.
    pub fn by_chance(mut self) -> Case {
        self.by_chance = true;
        self
    }

    /// Whether the server may end before its case does.
    pub fn ends_the_server(&self) -> bool {
        self.stopped_by_observer || !self.commands.is_empty()
    }

    /// Adds a client.
    pub fn client(mut self, script: Script) -> Case {
        self.clients.push(Client { script, target: Target::Proxy });
        self
    }

    /// Adds a client that connects past the proxy.
    pub fn control(mut self, script: Script) -> Case {
        self.clients.push(Client { script, target: Target::Upstream });
        self
    }

    /// Blocks the executor. Such a case runs [alone](Case::alone).
    pub fn stall(mut self, from: &'static str, length: Duration) -> Case {
        self.stall = Some(Stall { from, length });
        self.alone()
    }

    /// Gives the runtime bad habits.
    pub fn habits(mut self, habits: Habits) -> Case {
        self.habits = habits;
        self
    }

    /// Logs the order of the proxy's closes and writes.
    pub fn logged(mut self) -> Case {
        self.logged = true;
        self
    }

    /// Lets each write to an upstream take `at_most` bytes and `taking` of the thread's time.
    pub fn pace(mut self, at_most: usize, taking: Duration) -> Case {
        self.pace = Some(Pace { at_most, taking });
        self
    }

    /// Makes the kernels' buffers small.
    pub fn small_buffers(mut self) -> Case {
        self.small_buffers = true;
        self
    }

    /// Allows so many descriptors more than are open.
    pub fn few_descriptors(mut self, n: u64) -> Case {
        self.few_descriptors = Some(n);
        self
    }

    /// Runs the whole case so often.
    pub fn rounds(mut self, n: u32) -> Case {
        self.rounds = n;
        self
    }

    /// Gives it more virtual time.
    pub fn lasts(mut self, long: Duration) -> Case {
        self.lasts = long;
        self
    }

    /// Whether the proxy runs on wrapped sockets, and inside one future.
    pub(crate) fn is_wrapped(&self) -> bool {
        self.stall.is_some() || !self.habits.is_none() || self.logged || self.pace.is_some()
    }

    /// Runs it while no other case runs, in any process of this machine: for a case that blocks a thread, floods, or
    /// weighs memory, and would make others late, or be made late by them.
    pub fn alone(mut self) -> Case {
        self.alone = true;
        self
    }

    /// Says that it means something only on a runtime that has this. A [`Harness`](crate::Harness) that lacks it skips
    /// the case.
    pub fn needs(mut self, need: Need) -> Case {
        self.needs.push(need);
        self
    }

    /// Adds an expectation.
    pub fn expect(mut self, expect: Expect) -> Case {
        self.expect.push(expect);
        self
    }

    /// Whether how many bytes are sent depends on the buffers on the way, so that two worlds differ.
    pub fn fills_buffers(&self) -> bool {
        fn fills(steps: &[Step]) -> bool {
            steps.iter().any(|step| match step {
                Step::BodyUntilBlocked(_) => true,
                Step::Background(steps) => fills(steps),
                _ => false,
            })
        }
        let scripts = self.upstreams().flat_map(|upstream| match upstream {
            Upstream::Scripts(scripts) => scripts.as_slice(),
            _ => &[],
        });
        scripts.chain(self.clients.iter().map(|c| &c.script)).any(|script| fills(script.steps()))
    }

    /// The name of its `#[test]`: id and title in snake case.
    pub fn test_name(&self) -> String {
        test_name(self.id, self.title)
    }
}

/// The name of the `#[test]` of a case.
pub fn test_name(id: &str, title: &str) -> String {
    let mut name = String::new();
    for c in format!("{id} {title}").chars() {
        match c {
            c if c.is_ascii_alphanumeric() => name.push(c.to_ascii_lowercase()),
            _ if name.ends_with('_') => {}
            _ => name.push('_'),
        }
    }
    name.trim_end_matches('_').to_owned()
}
