//! Draws a plan from a seed.
//!
//! Everything is drawn from one generator, in one order. A change here changes what every seed means, so the golden
//! digests of `tests/simulation.rs` change with it.

use std::time::Duration;

use tidegate_core::{TimeoutPolicy, UpstreamLimits};

use super::Rng;
use super::plan::{
    Answer, At, Batch, Body, Break, Client, Doing, Fault, Goodbye, Half, Id, Last, Leave, Names, Nonsense,
    Pace, Plan, Request, Tunnel,
};
use crate::virtual_rt::{Chaos, HOP};

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

impl Plan {
    /// The plan of a seed, with about so many requests.
    pub fn from_seed(seed: u64, requests: usize) -> Plan {
        let rng = &mut Rng::new(seed);
        let temper = Temper::draw(rng);
        let chaos = draw_chaos(rng, &temper);
        let (policy, route) = draw_policies(rng, &temper);
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
            calm: temper.is_calm(),
            chaos,
            policy,
            route,
            turn: if rng.permille(500) {
                rng.pick(&[(1, 1), (1, 1 << 20), (3, 1000)])
            } else {
                (16, 256 * 1024)
            },
            names: rng.permille(250).then(|| draw_names(rng, &temper)),
            limits,
            max_clients,
            pool: rng.pick(&[0, 1, 3, 256, 256]),
            hop: draw_hop(rng, &temper),
            upstreams,
            refusing: if rng.permille(200) { rng.between(1, 2) as usize } else { 0 },
            clients: Vec::new(),
            doings: Vec::new(),
        };
        let mut next: Id = 0;
        for n in 0..clients_at_once {
            let share = requests / clients_at_once + usize::from(n < requests % clients_at_once);
            plan.clients.push(draw_client(rng, &temper, share, &mut next));
        }
        plan.doings = draw_doings(rng, &temper, upstreams, crowded);
        plan
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
    /// Bodies are longer than all that may lie between two peers.
    huge: bool,
    /// There are tunnels.
    tunnels: bool,
    /// Some requests have a route of their own.
    routes: bool,
    /// The kernels hold little, so that everybody waits for everybody.
    tight: bool,
    /// Some limits are off.
    off: bool,
    /// The total is one of them.
    no_total: bool,
    /// That of tunnels is.
    no_tunnel_limit: bool,
    /// Connections of the proxy are dropped.
    cuts: bool,
}

impl Temper {
    fn draw(rng: &mut Rng) -> Temper {
        let off = rng.permille(300);
        let faults = rng.permille(600);
        Temper {
            faults,
            clients: rng.permille(500),
            limits: rng.permille(300),
            long: rng.permille(150),
            changes: rng.permille(300),
            ends: rng.permille(150),
            rough: rng.permille(700),
            huge: rng.permille(30),
            tunnels: rng.permille(200),
            routes: rng.permille(300),
            tight: rng.permille(300),
            off,
            no_total: off && rng.permille(300),
            // Nothing else ends a tunnel whose sides say nothing.
            no_tunnel_limit: off && !faults && rng.permille(300),
            cuts: rng.permille(150),
        }
    }
}

impl Temper {
    /// Whether nobody misbehaves and nothing is narrow.
    fn is_calm(&self) -> bool {
        !(self.faults || self.clients || self.limits || self.changes)
    }
}

fn draw_chaos(rng: &mut Rng, temper: &Temper) -> Chaos {
    if !temper.rough {
        return Chaos { delay: Duration::from_micros(rng.below(300)), ..Chaos::default() };
    }
    let mut some = |most: u64| if rng.permille(500) { rng.below(most) as u32 } else { 0 };
    let hitches = some(100);
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
        interrupted: hitches,
        not_yet: hitches,
    }
}

fn draw_names(rng: &mut Rng, temper: &Temper) -> Names {
    let mut some = |most: u64| if temper.faults && rng.permille(400) { rng.below(most) as u32 } else { 0 };
    let (hang, fail, dead) = (some(100), some(100), some(400));
    Names { known: rng.below(1000) as u32, slow: ms(rng.below(60)), hang, fail, dead }
}

fn draw_hop(rng: &mut Rng, temper: &Temper) -> usize {
    match (temper.tight, temper.huge || temper.long) {
        (false, _) => HOP,
        (true, false) => rng.pick(&[1024, 4096, 16 * 1024]),
        (true, true) => 32 * 1024,
    }
}

/// Those of the proxy and those of a route.
fn draw_policies(rng: &mut Rng, temper: &Temper) -> (TimeoutPolicy, TimeoutPolicy) {
    let mut policy = draw_policy(rng, temper);
    let half = |limit: Option<Duration>| limit.map(|limit| limit / 2);
    let mut route = TimeoutPolicy { read: half(policy.read), total: half(policy.total), ..policy };
    if temper.off {
        turn_off(rng, temper, &mut policy);
        turn_off(rng, temper, &mut route);
        // What is a property of the connection cannot be another one for a route.
        route = TimeoutPolicy {
            client_head: policy.client_head,
            keep_alive: policy.keep_alive,
            linger: policy.linger,
            drain: policy.drain,
            ..route
        };
    }
    (policy, route)
}

/// Turns some limits off, as long as another one ends every wait of those who do not behave.
fn turn_off(rng: &mut Rng, temper: &Temper, policy: &mut TimeoutPolicy) {
    let mut off = |limit: &mut Option<Duration>, permille: u32| {
        if rng.permille(permille) {
            *limit = None;
        }
    };
    if temper.no_total {
        policy.total = None;
        off(&mut policy.write, 500);
        if policy.write.is_some() {
            off(&mut policy.write_idle, 500);
        }
    } else {
        for limit in [
            &mut policy.connect,
            &mut policy.read,
            &mut policy.write,
            &mut policy.write_idle,
            &mut policy.queue,
            &mut policy.client_body,
        ] {
            off(limit, 400);
        }
        off(&mut policy.client_write, 100);
    }
    for limit in [&mut policy.pool_idle, &mut policy.tunnel_fin, &mut policy.drain] {
        off(limit, 200);
    }
    for limit in [&mut policy.keep_alive, &mut policy.linger] {
        off(limit, 100);
    }
    if !temper.clients {
        off(&mut policy.client_head, 100);
    }
    if temper.no_tunnel_limit {
        policy.tunnel = None;
    }
}

fn draw_policy(rng: &mut Rng, temper: &Temper) -> TimeoutPolicy {
    let mut some = |low: u64, high: u64| Some(ms(rng.between(low, high)));
    // Without them nothing that behaves may run into one, whatever the world does to it.
    let scale = if temper.is_calm() { 20 } else { 1 };
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
        if temper.tunnels && size == 1 && rng.permille(150) {
            *next += 1;
            batches.push(draw_tunnel(rng, temper, *next));
            continue;
        }
        let requests: Vec<Request> = (0..size)
            .map(|_| {
                *next += 1;
                draw_request(rng, temper, *next, size > 1)
            })
            .collect();
        let slow = temper.clients && rng.permille(if temper.huge { 400 } else { 100 });
        batches.push(Batch {
            after: if rng.permille(700) { Duration::ZERO } else { ms(rng.below(60)) },
            reads: draw_pace(rng, temper, slow, 5000, 60),
            leaves: (temper.clients && rng.permille(60)).then(|| Leave {
                after: Duration::from_micros(rng.below(200_000)),
                how: rng.pick(&[Goodbye::Rst, Goodbye::Close]),
            }),
            half_closes: rng.permille(30),
            requests,
        });
    }
    let senseless = temper.clients && rng.permille(200);
    let kinds =
        [Nonsense::Nothing, Nonsense::HalfHead, Nonsense::Garbage, Nonsense::Drip, Nonsense::Smuggled];
    Client { starts: ms(rng.below(30)), batches, nonsense: senseless.then(|| rng.pick(&kinds)) }
}

fn draw_tunnel(rng: &mut Rng, temper: &Temper, id: Id) -> Batch {
    let mut request = draw_request(rng, temper, id, true);
    // What lies in the buffers of the kernel passes faster than the limits of a tunnel.
    let mut half = || {
        let mut pace = || {
            if rng.permille(200) {
                Pace::Slow(rng.between(1500, 5000) as u32, ms(rng.between(1, 40)))
            } else {
                Pace::Fast
            }
        };
        let (sends, reads) = (pace(), pace());
        let most = rng.pick(&[1, 100, 20_000]);
        let last = match rng.below(10) {
            0 if temper.clients => Last::Rst,
            1 if temper.faults => Last::Idle,
            2..5 => Last::Second,
            _ => Last::Fin,
        };
        Half { bytes: rng.below(most) as u32, sends, reads, last }
    };
    let (client, mut upstream) = (half(), half());
    if temper.no_tunnel_limit && client.last == Last::Second {
        // Each would wait for the other.
        upstream.last = Last::Fin;
    }
    request.method = "GET";
    request.body = Body::None;
    request.local = false;
    request.tunnel = Some(Tunnel { refused: rng.permille(200), client, upstream });
    Batch {
        after: ms(rng.below(60)),
        requests: vec![request],
        reads: Pace::Fast,
        leaves: None,
        half_closes: false,
    }
}

fn draw_length(rng: &mut Rng, temper: &Temper) -> u32 {
    if temper.huge && rng.permille(50) {
        return rng.between(1_000_000, 2_500_000) as u32;
    }
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
    let local = temper.routes && rng.permille(200);
    let mut answer = draw_answer(rng, temper, body);
    if stalls && temper.faults && rng.permille(500) {
        // The response is under way, and stays so, when the limit of the body is over.
        let at = At::Body(rng.below(u64::from(answer.body.len()) + 1) as u32);
        answer = Answer { early: true, fault: Some(Fault { at, kind: Break::Stall }), ..answer };
    }
    if local {
        let plain = Answer { status: 200, body: Body::Length(rng.below(3000) as u32), ..answer };
        answer = Answer { after: Duration::ZERO, pace: Pace::Fast, fault: None, interim: 0, ..plain };
        answer = Answer { early: false, close: false, surplus: false, goes_stale: None, ..answer };
        answer = Answer { takes: Pace::Fast, takes_only: None, ..answer };
    }
    Request {
        id,
        method,
        old,
        keeps: old && rng.permille(600),
        local,
        routed: temper.routes && rng.permille(300),
        tunnel: None,
        body,
        expects: !old && !pipelined && !body.is_empty() && rng.permille(100),
        close: !pipelined && rng.permille(30),
        sends: draw_pace(rng, temper, slow, 3000, 40),
        stalls_at: stalls.then(|| rng.below(u64::from(body.len())) as u32),
        answer,
    }
}

/// So many bytes at most, then a pause of so many milliseconds at most.
fn draw_pace(rng: &mut Rng, temper: &Temper, slow: bool, most: u64, pause: u64) -> Pace {
    // Without a total nothing ends what goes on slowly: it must come to its own end.
    let least = if temper.no_total { most / 4 } else { 1 };
    if slow { Pace::Slow(rng.between(least, most) as u32, ms(rng.between(1, pause))) } else { Pace::Fast }
}

fn draw_answer(rng: &mut Rng, temper: &Temper, request: Body) -> Answer {
    let length = draw_length(rng, temper);
    let status = if rng.permille(40) { rng.pick(&[204, 304]) } else { rng.pick(&[200, 200, 201, 404, 500]) };
    let early = temper.faults && rng.permille(if request.is_empty() { 30 } else { 100 });
    let body = match rng.below(10) {
        _ if matches!(status, 204 | 304) => Body::None,
        // Its end and the reset that the rest of the request leads to look much alike.
        _ if early && rng.permille(300) => Body::Close(length),
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
    let takes_slowly = temper.faults && rng.permille(if temper.huge { 700 } else { 60 });
    let refuses = temper.faults && !request.is_empty() && rng.permille(if temper.huge { 200 } else { 40 });
    Answer {
        status,
        body,
        after: if rng.permille(800) { Duration::ZERO } else { ms(rng.below(50)) },
        pace: draw_pace(rng, temper, slow, 4000, 80),
        takes: draw_pace(rng, temper, takes_slowly, 4000, 60),
        takes_only: refuses.then(|| rng.below(u64::from(request.len())) as u32),
        interim: if rng.permille(50) { rng.between(1, 3) as u8 } else { 0 },
        early,
        close: rng.permille(30),
        surplus: temper.faults && matches!(body, Body::Length(n) if n < 10_000) && rng.permille(20),
        goes_stale: (temper.faults && rng.permille(80)).then(|| ms(rng.below(30))),
        fault,
    }
}

fn draw_doings(rng: &mut Rng, temper: &Temper, upstreams: usize, crowded: bool) -> Vec<(Duration, Doing)> {
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
    if temper.cuts {
        // Where many wait for a place, more leave, and while they still do.
        let (most, until) = if crowded { (8, 200) } else { (4, 1000) };
        for _ in 0..rng.between(1, most) {
            let (at, nth) = (ms(rng.below(until)), rng.below(30) as usize);
            doings.push((at, if rng.permille(500) { Doing::CutWoken(nth) } else { Doing::Cut(nth) }));
        }
    }
    if temper.ends {
        doings.push((ms(rng.below(1200)), rng.pick(&[Doing::Drain, Doing::Drain, Doing::Stop])));
    }
    doings.sort_by_key(|(at, _)| *at);
    doings
}
