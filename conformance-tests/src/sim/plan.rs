//! What happens in one simulation, as data: who asks what, how each upstream answers, what breaks, and when.
//!
//! [`Plan::from_seed`] draws a plan; from then on nothing but the world's own dice is left to chance. A plan prints
//! as a person can read it, and shrinks: [`Plan::smaller`] lists plans with less in them.

use std::fmt;
use std::time::Duration;

use tidegate_core::{TimeoutPolicy, UpstreamLimits};

use super::Rng;
use crate::virtual_rt::Chaos;

/// The number of a request: its target is `/N`, and its bodies are a pattern of its own.
pub type Id = u32;

/// One simulation.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Of the world's dice.
    pub seed: u64,
    /// What the world does to everybody.
    pub chaos: Chaos,
    /// The proxy's limits.
    pub policy: TimeoutPolicy,
    /// Of the upstreams.
    pub limits: UpstreamLimits,
    /// Clients at once.
    pub max_clients: usize,
    /// Upstreams at the start.
    pub upstreams: usize,
    /// Who asks.
    pub clients: Vec<Client>,
    /// What is done meanwhile, in this order.
    pub doings: Vec<(Duration, Doing)>,
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
    /// A drain.
    Drain,
    /// A stop.
    Stop,
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Plan {
    /// The plan of a seed, with about so many requests.
    pub fn from_seed(seed: u64, requests: usize) -> Plan {
        let rng = &mut Rng::new(seed);
        let temper = Temper::draw(rng);
        let chaos = draw_chaos(rng, &temper);
        let policy = draw_policy(rng, &temper);
        let upstreams = rng.between(1, 4) as usize;
        let clients_at_once: usize = rng.pick(&[1, 3, 10, 30]);
        let crowded = temper.limits && rng.permille(500);
        let limits = UpstreamLimits {
            max_conns: if crowded { rng.between(1, 4) as usize } else { 100 },
            max_queue: if crowded { rng.between(0, 8) as usize } else { 1000 },
        };
        let max_clients = if temper.limits && rng.permille(300) { clients_at_once.div_ceil(2) } else { 1000 };
        let mut plan = Plan {
            seed,
            chaos,
            policy,
            limits,
            max_clients,
            upstreams,
            clients: Vec::new(),
            doings: Vec::new(),
        };
        let mut next: Id = 0;
        for n in 0..clients_at_once {
            let share = requests / clients_at_once + usize::from(n < requests % clients_at_once);
            plan.clients.push(draw_client(rng, &temper, share, &mut next));
        }
        plan.doings = draw_doings(rng, &temper, upstreams);
        plan
    }

    /// Every request, with the batch it is in.
    pub fn requests(&self) -> impl Iterator<Item = (&Batch, &Request)> {
        let batches = self.clients.iter().flat_map(|client| &client.batches);
        batches.flat_map(|batch| batch.requests.iter().map(move |request| (batch, request)))
    }

    /// Whether nothing is done to the proxy or to its upstreams that a client could notice.
    pub fn is_steady(&self) -> bool {
        self.doings.iter().all(|(_, doing)| matches!(doing, Doing::Block(_)))
    }
}

/// What a seed is in the mood for: mixing everything everywhere would leave nothing that must succeed.
struct Temper {
    /// Upstreams misbehave.
    faults: bool,
    /// Clients misbehave.
    clients: bool,
    /// Limits are narrow.
    limits: bool,
    /// Bodies are long.
    long: bool,
    /// Upstreams come and go.
    changes: bool,
    /// The end comes from outside.
    ends: bool,
    /// The world is rough.
    rough: bool,
}

impl Temper {
    fn draw(rng: &mut Rng) -> Temper {
        Temper {
            faults: rng.permille(600),
            clients: rng.permille(500),
            limits: rng.permille(300),
            long: rng.permille(150),
            changes: rng.permille(300),
            ends: rng.permille(150),
            rough: rng.permille(700),
        }
    }
}

fn draw_chaos(rng: &mut Rng, temper: &Temper) -> Chaos {
    if !temper.rough {
        return Chaos { delay: Duration::from_micros(rng.below(300)), ..Chaos::default() };
    }
    let mut some = |most: u64| if rng.permille(500) { rng.below(most) as u32 } else { 0 };
    Chaos {
        short: some(500),
        late: some(100),
        spurious: some(100),
        timers: some(300),
        slow: some(50),
        delay: Duration::from_micros(rng.below(2000)),
        slow_delay: ms(rng.below(50)),
        late_by: ms(rng.between(1, 40)),
        shuffle: rng.permille(700),
    }
}

fn draw_policy(rng: &mut Rng, temper: &Temper) -> TimeoutPolicy {
    let mut some = |low: u64, high: u64| Some(ms(rng.between(low, high)));
    // Without them nothing that behaves may run into one, whatever the world does to it.
    let scale = if temper.faults || temper.clients || temper.limits || temper.changes { 1 } else { 20 };
    TimeoutPolicy {
        connect: some(100 * scale, 400 * scale),
        write: some(300 * scale, 900 * scale),
        write_idle: some(200 * scale, 400 * scale),
        read: some(200 * scale, 500 * scale),
        total: some(800 * scale, 3000 * scale),
        queue: some(100 * scale, 500 * scale),
        client_head: some(200 * scale, 500 * scale),
        client_body: some(200 * scale, 500 * scale),
        client_write: some(200 * scale, 500 * scale),
        keep_alive: some(200, 2000),
        pool_idle: some(20, 2000),
        tunnel: some(1000, 2000),
        tunnel_fin: some(1000, 2000),
        linger: some(50, 200),
        drain: some(100, 1000),
    }
}

fn draw_client(rng: &mut Rng, temper: &Temper, share: usize, next: &mut Id) -> Client {
    let mut batches = Vec::new();
    let mut left = share;
    while left > 0 {
        let size = if rng.permille(150) { rng.between(2, 4) as usize } else { 1 }.min(left);
        left -= size;
        let requests: Vec<Request> = (0..size)
            .map(|_| {
                *next += 1;
                draw_request(rng, temper, *next, size > 1)
            })
            .collect();
        let slow = temper.clients && rng.permille(100);
        batches.push(Batch {
            after: if rng.permille(700) { Duration::ZERO } else { ms(rng.below(60)) },
            reads: if slow {
                Pace::Slow(rng.between(1, 5000) as u32, ms(rng.between(1, 60)))
            } else {
                Pace::Fast
            },
            leaves: (temper.clients && rng.permille(60)).then(|| Leave {
                after: Duration::from_micros(rng.below(200_000)),
                how: rng.pick(&[Goodbye::Rst, Goodbye::Close]),
            }),
            requests,
        });
    }
    let senseless = temper.clients && rng.permille(200);
    let kinds = [Nonsense::Nothing, Nonsense::HalfHead, Nonsense::Garbage, Nonsense::Drip];
    Client { starts: ms(rng.below(30)), batches, nonsense: senseless.then(|| rng.pick(&kinds)) }
}

fn draw_length(rng: &mut Rng, temper: &Temper) -> u32 {
    let most = if temper.long && rng.permille(50) { 400_000 } else { rng.pick(&[10, 300, 3000, 40_000]) };
    rng.below(most) as u32
}

fn draw_request(rng: &mut Rng, temper: &Temper, id: Id, pipelined: bool) -> Request {
    let method = rng.pick(&["GET", "GET", "GET", "HEAD", "PUT", "POST", "POST"]);
    let old = !pipelined && rng.permille(60);
    let mut body = Body::None;
    if matches!(method, "PUT" | "POST") {
        let length = draw_length(rng, temper);
        body = if !old && rng.permille(400) { Body::Chunked(length) } else { Body::Length(length) };
    }
    let slow = temper.clients && rng.permille(80);
    let stalls = temper.clients && !pipelined && !body.is_empty() && rng.permille(40);
    Request {
        id,
        method,
        old,
        body,
        expects: !old && !pipelined && !body.is_empty() && rng.permille(100),
        close: !pipelined && rng.permille(30),
        sends: if slow {
            Pace::Slow(rng.between(1, 3000) as u32, ms(rng.between(1, 40)))
        } else {
            Pace::Fast
        },
        stalls_at: stalls.then(|| rng.below(u64::from(body.len())) as u32),
        answer: draw_answer(rng, temper),
    }
}

fn draw_answer(rng: &mut Rng, temper: &Temper) -> Answer {
    let length = draw_length(rng, temper);
    let status = if rng.permille(40) { rng.pick(&[204, 304]) } else { rng.pick(&[200, 200, 201, 404, 500]) };
    let body = match rng.below(10) {
        _ if matches!(status, 204 | 304) => Body::None,
        0..6 => Body::Length(length),
        6..9 => Body::Chunked(length),
        _ => Body::Close(length),
    };
    let fault = (temper.faults && rng.permille(100)).then(|| {
        let places = [At::Start, At::Head, At::Body(rng.below(u64::from(length) + 1) as u32)];
        let kind = rng.pick(&[Break::Stall, Break::Fin, Break::Rst, Break::Garbage]);
        Fault { at: rng.pick(&places), kind }
    });
    let slow = temper.faults && rng.permille(60);
    Answer {
        status,
        body,
        after: if rng.permille(800) { Duration::ZERO } else { ms(rng.below(50)) },
        pace: if slow { Pace::Slow(rng.between(1, 4000) as u32, ms(rng.between(1, 80))) } else { Pace::Fast },
        interim: if rng.permille(50) { rng.between(1, 3) as u8 } else { 0 },
        early: temper.faults && rng.permille(30),
        close: rng.permille(30),
        surplus: temper.faults && matches!(body, Body::Length(n) if n < 10_000) && rng.permille(20),
        goes_stale: (temper.faults && rng.permille(80)).then(|| ms(rng.below(30))),
        fault,
    }
}

fn draw_doings(rng: &mut Rng, temper: &Temper, upstreams: usize) -> Vec<(Duration, Doing)> {
    let mut doings = Vec::new();
    if temper.rough {
        for _ in 0..rng.below(4) {
            doings.push((ms(rng.below(1500)), Doing::Block(ms(rng.between(1, 150)))));
        }
    }
    if temper.changes {
        for _ in 0..rng.between(1, 3) {
            let (which, at) = (rng.below(upstreams as u64) as usize, rng.below(1000));
            match rng.below(3) {
                0 => doings.push((ms(at), Doing::Swap(which))),
                n => {
                    let down = if n == 1 { Doing::Down(which) } else { Doing::Full(which) };
                    doings.push((ms(at), down));
                    doings.push((ms(at + rng.between(10, 800)), Doing::Up(which)));
                }
            }
        }
    }
    if temper.ends {
        doings.push((ms(rng.below(1200)), rng.pick(&[Doing::Drain, Doing::Drain, Doing::Stop])));
    }
    doings.sort_by_key(|(at, _)| *at);
    doings
}

impl fmt::Display for Plan {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "seed {}, {} upstreams, at most {} clients, {:?}",
            self.seed, self.upstreams, self.max_clients, self.limits
        )?;
        writeln!(f, "the world: {:?}", self.chaos)?;
        writeln!(f, "the limits: {:?}", self.policy)?;
        for (at, doing) in &self.doings {
            writeln!(f, "at {at:?}: {doing:?}")?;
        }
        for (n, client) in self.clients.iter().enumerate() {
            let nonsense = client.nonsense.map_or(String::new(), |n| format!(", first {n:?}"));
            writeln!(f, "client {n} from {:?}{nonsense}", client.starts)?;
            for batch in &client.batches {
                let leaves = batch.leaves.map_or(String::new(), |l| format!(", {l:?}"));
                writeln!(f, "  after {:?}, reads {:?}{leaves}", batch.after, batch.reads)?;
                for r in &batch.requests {
                    let a = &r.answer;
                    let marks = [
                        (r.old, "HTTP/1.0"),
                        (r.expects, "expects 100"),
                        (r.close, "close"),
                        (a.early, "answered early"),
                        (a.close, "answer says close"),
                        (a.surplus, "surplus"),
                    ];
                    let marks: Vec<&str> = marks.iter().filter(|m| m.0).map(|m| m.1).collect();
                    write!(f, "    {} /{} {:?} sent {:?}", r.method, r.id, r.body, r.sends)?;
                    r.stalls_at.map_or(Ok(()), |at| write!(f, ", stalls at {at}"))?;
                    write!(f, " -> {} {:?} after {:?} {:?}", a.status, a.body, a.after, a.pace)?;
                    a.fault.map_or(Ok(()), |fault| write!(f, ", {fault:?}"))?;
                    a.goes_stale.map_or(Ok(()), |after| write!(f, ", stale after {after:?}"))?;
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
