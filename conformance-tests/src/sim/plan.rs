//! What happens in one simulation, as data: who asks what, how each upstream answers, what breaks, and when.
//!
//! `Plan::from_seed` draws a plan (`draw.rs`); from then on nothing but the world's own dice is left to chance. A plan
//! prints as a person can read it, and shrinks (`shrink.rs`).

use std::fmt;
use std::time::Duration;

use tidegate_core::{TimeoutPolicy, UpstreamLimits};

use crate::virtual_rt::Chaos;

/// The number of a request: its target is `/N`, and its bodies are a pattern of its own.
pub type Id = u32;

/// One simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Of the world's dice.
    pub seed: u64,
    /// Nothing is narrow and nobody misbehaves: whoever asks gets the upstream's answer.
    pub calm: bool,
    /// What the world does to everybody.
    pub chaos: Chaos,
    /// The proxy's limits.
    pub policy: TimeoutPolicy,
    /// Those of requests that are [`Request::routed`].
    pub route: TimeoutPolicy,
    /// Operations and bytes of one turn of a connection.
    pub turn: (usize, usize),
    /// The upstreams are names, and looked up like this.
    pub names: Option<Names>,
    /// Of the upstreams.
    pub limits: UpstreamLimits,
    /// Clients at once.
    pub max_clients: usize,
    /// Idle connections to one upstream that are kept.
    pub pool: usize,
    /// What each direction of a connection holds in the kernels.
    pub hop: usize,
    /// Upstreams at the start.
    pub upstreams: usize,
    /// Further ones, at which nobody is: they refuse, always.
    pub refusing: usize,
    /// Who asks.
    pub clients: Vec<Client>,
    /// What is done meanwhile, in this order.
    pub doings: Vec<(Duration, Doing)>,
}

/// How names are looked up: of a thousand lookups, how many are like this.
#[derive(Copy, Clone, Debug, Default, PartialEq, Eq)]
pub struct Names {
    /// Answered at once, without a wait.
    pub known: u32,
    /// The others take up to so long.
    pub slow: Duration,
    /// Never answered.
    pub hang: u32,
    /// Answered with an error.
    pub fail: u32,
    /// Answered with an address first at which nobody is: it refuses, or hangs.
    pub dead: u32,
}

impl Names {
    /// Whether the right address is found every time.
    pub fn are_found(&self) -> bool {
        self.hang + self.fail + self.dead == 0
    }
}

/// One client: its requests, one after the other, over as many connections as it takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Client {
    /// When it begins.
    pub starts: Duration,
    /// Each is sent in one piece (pipelined, if it is more than one request) and answered before the next.
    pub batches: Vec<Batch>,
    /// Sends nonsense first, on a connection of its own.
    pub nonsense: Option<Nonsense>,
}

/// Requests that are sent without waiting for answers in between.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch {
    /// The wait before it.
    pub after: Duration,
    /// What is asked.
    pub requests: Vec<Request>,
    /// The client reads so slowly.
    pub reads: Pace,
    /// The client leaves before it is served.
    pub leaves: Option<Leave>,
    /// FIN follows the last request.
    pub half_closes: bool,
}

/// One request, and how it will be answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// Its number.
    pub id: Id,
    /// GET, HEAD, PUT or POST.
    pub method: &'static str,
    /// HTTP/1.0 instead of 1.1.
    pub old: bool,
    /// Says `Connection: keep-alive`.
    pub keeps: bool,
    /// The proxy answers it itself.
    pub local: bool,
    /// It has limits of its own.
    pub routed: bool,
    /// Asks for an upgrade.
    pub tunnel: Option<Tunnel>,
    /// The body.
    pub body: Body,
    /// Waits for a 100 before the body, for a while.
    pub expects: bool,
    /// Wants the connection closed.
    pub close: bool,
    /// The body is sent so slowly.
    pub sends: Pace,
    /// The client stops after so many bytes of the body, for ever.
    pub stalls_at: Option<u32>,
    /// Whoever it reaches does this.
    pub answer: Answer,
}

/// A body: how many bytes, and how they are framed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Body {
    /// None at all.
    None,
    /// With a length.
    Length(u32),
    /// In chunks.
    Chunked(u32),
    /// Until the end of the connection; answers only.
    Close(u32),
}

impl Body {
    /// Its length.
    pub fn len(self) -> u32 {
        match self {
            Body::None => 0,
            Body::Length(n) | Body::Chunked(n) | Body::Close(n) => n,
        }
    }

    /// Whether there are no bytes in it.
    pub fn is_empty(self) -> bool {
        self.len() == 0
    }
}

/// How fast bytes are sent or read.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Pace {
    /// As fast as possible.
    Fast,
    /// So many bytes, then a pause, and again.
    Slow(u32, Duration),
}

/// An upgrade, and what passes through the tunnel.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// The upstream answers as if it knew no upgrade.
    pub refused: bool,
    /// What the client does.
    pub client: Half,
    /// What the upstream does.
    pub upstream: Half,
}

/// One side of a tunnel.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Half {
    /// It sends so many bytes.
    pub bytes: u32,
    /// So fast.
    pub sends: Pace,
    /// It reads so fast.
    pub reads: Pace,
    /// And then.
    pub last: Last,
}

/// What a side of a tunnel does when it has sent everything.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Last {
    /// FIN.
    Fin,
    /// FIN, once that of the other side has come.
    Second,
    /// RST.
    Rst,
    /// Nothing, for ever.
    Idle,
}

impl Tunnel {
    /// Whether it ends by what the two sides do, with everything delivered.
    pub fn is_orderly(&self) -> bool {
        use Last::{Fin, Second};
        matches!((self.client.last, self.upstream.last), (Fin, Fin | Second) | (Second, Fin))
    }
}

/// What an upstream does with a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The final status.
    pub status: u16,
    /// The response's body.
    pub body: Body,
    /// The wait before it.
    pub after: Duration,
    /// So fast.
    pub pace: Pace,
    /// Interim responses before it.
    pub interim: u8,
    /// It is sent before the request's body is read, which then never is.
    pub early: bool,
    /// The request's body is read so slowly.
    pub takes: Pace,
    /// After so many bytes of the request's body nothing is read or sent any more, for ever.
    pub takes_only: Option<u32>,
    /// Says `Connection: close`, and does.
    pub close: bool,
    /// Something that nobody asked for follows.
    pub surplus: bool,
    /// It never gets that far.
    pub fault: Option<Fault>,
    /// Closes the connection so long after the answer, without a word.
    pub goes_stale: Option<Duration>,
}

/// How an answer breaks off.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Fault {
    /// Where.
    pub at: At,
    /// How.
    pub kind: Break,
}

/// Where an answer breaks off.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum At {
    /// Before its first byte.
    Start,
    /// Inside its head.
    Head,
    /// After so many bytes of the body as it is framed.
    Body(u32),
}

/// How an answer breaks off.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Break {
    /// Silence for ever.
    Stall,
    /// FIN.
    Fin,
    /// RST.
    Rst,
    /// Bytes that are no HTTP.
    Garbage,
}

/// A client that leaves.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub struct Leave {
    /// So long after it began to send the batch.
    pub after: Duration,
    /// How.
    pub how: Goodbye,
}

/// How somebody leaves.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Goodbye {
    /// By RST.
    Rst,
    /// As a process does that ends.
    Close,
}

/// What a client without sense sends.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Nonsense {
    /// Nothing, for ever.
    Nothing,
    /// Half a head, then nothing.
    HalfHead,
    /// Bytes that are no HTTP.
    Garbage,
    /// A head a byte at a time, for ever.
    Drip,
    /// A head whose framing is ambiguous, and behind it what could pass for a request.
    Smuggled,
}

/// What is done to the proxy and its upstreams.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Doing {
    /// The proxy's thread is blocked for so long.
    Block(Duration),
    /// An upstream dies: its connections are reset, its port refuses.
    Down(usize),
    /// It comes back.
    Up(usize),
    /// It accepts nobody any more; its backlog is full.
    Full(usize),
    /// A further upstream is put in, and one is taken out.
    Swap(usize),
    /// One of the proxy's connections is dropped, in the middle of whatever it does.
    Cut(usize),
    /// The same in place of its next poll: what has just woken it, it never sees.
    CutWoken(usize),
    /// A drain.
    Drain,
    /// A stop.
    Stop,
}

impl Plan {
    /// Every request, with the batch it is in.
    pub fn requests(&self) -> impl Iterator<Item = (&Batch, &Request)> {
        let batches = self.clients.iter().flat_map(|client| &client.batches);
        batches.flat_map(|batch| batch.requests.iter().map(move |request| (batch, request)))
    }

    /// Whether clients may have to wait until they are served.
    pub fn is_crowded(&self) -> bool {
        self.max_clients < self.clients.len() + 1
    }

    /// The limits of a request.
    pub fn policy_of(&self, request: &Request) -> &TimeoutPolicy {
        if request.routed { &self.route } else { &self.policy }
    }

    /// Whether each connection has a deadline at any time, whatever it does: some limits may be off, since another
    /// holds wherever they would; without these there are waits without any.
    pub fn is_timed(&self) -> bool {
        let always = |p: &TimeoutPolicy| {
            [p.client_head, p.client_write, p.keep_alive, p.linger, p.tunnel].iter().all(Option::is_some)
        };
        always(&self.policy) && always(&self.route)
    }

    /// Whether each idle connection to an upstream has a deadline.
    pub fn is_pool_timed(&self) -> bool {
        self.policy.pool_idle.is_some() && self.route.pool_idle.is_some()
    }

    /// Whether nothing is done to the proxy or to its upstreams that a client could notice.
    pub fn is_steady(&self) -> bool {
        self.doings.iter().all(|(_, doing)| matches!(doing, Doing::Block(_)))
    }
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}, {} upstreams and {} that refuse, at most {} clients, {:?}, {} idle",
            self.seed, self.upstreams, self.refusing, self.max_clients, self.limits, self.pool
        )?;
        writeln!(f, "the world: {:?}{}", self.chaos, if self.calm { ", calm" } else { "" })?;
        writeln!(f, "the limits: {:?}", self.policy)?;
        writeln!(f, "of requests that are routed: {:?}", self.route)?;
        writeln!(f, "turns of {:?} operations and bytes, {} bytes between two peers", self.turn, self.hop)?;
        self.names.map_or(Ok(()), |names| writeln!(f, "{names:?}"))?;
        for (at, doing) in &self.doings {
            writeln!(f, "at {at:?}: {doing:?}")?;
        }
        for (n, client) in self.clients.iter().enumerate() {
            let nonsense = client.nonsense.map_or(String::new(), |n| format!(", first {n:?}"));
            writeln!(f, "client {n} from {:?}{nonsense}", client.starts)?;
            for batch in &client.batches {
                let leaves = batch.leaves.map_or(String::new(), |l| format!(", {l:?}"));
                let fin = if batch.half_closes { ", then FIN" } else { "" };
                writeln!(f, "  after {:?}, reads {:?}{leaves}{fin}", batch.after, batch.reads)?;
                for r in &batch.requests {
                    let a = &r.answer;
                    let marks = [
                        (r.old, "HTTP/1.0"),
                        (r.keeps, "keep-alive"),
                        (r.local, "answered by the proxy"),
                        (r.routed, "routed"),
                        (r.expects, "expects 100"),
                        (r.close, "close"),
                        (a.early, "answered early"),
                        (a.close, "answer says close"),
                        (a.surplus, "surplus"),
                    ];
                    let marks: Vec<&str> = marks.iter().filter(|m| m.0).map(|m| m.1).collect();
                    write!(f, "    {} /{} {:?} sent {:?}", r.method, r.id, r.body, r.sends)?;
                    r.stalls_at.map_or(Ok(()), |at| write!(f, ", stalls at {at}"))?;
                    if a.takes != Pace::Fast {
                        write!(f, ", taken {:?}", a.takes)?;
                    }
                    a.takes_only.map_or(Ok(()), |n| write!(f, ", {n} bytes taken and no more"))?;
                    write!(f, " -> {} {:?} after {:?} {:?}", a.status, a.body, a.after, a.pace)?;
                    a.fault.map_or(Ok(()), |fault| write!(f, ", {fault:?}"))?;
                    a.goes_stale.map_or(Ok(()), |after| write!(f, ", stale after {after:?}"))?;
                    r.tunnel.map_or(Ok(()), |tunnel| write!(f, ", {tunnel:?}"))?;
                    if a.interim > 0 {
                        write!(f, ", {} interim", a.interim)?;
                    }
                    writeln!(f, " {}", marks.join(", "))?;
                }
            }
        }
        Ok(())
    }
}
