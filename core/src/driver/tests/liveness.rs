//! Whoever asks is answered, whatever happens to the others and in whatever order tasks run: without a limit on any wait, what
//! is lost once is waited for to the end.

use super::*;
use crate::driver::{Decision, Keeper, Proxy, Report, UpstreamLimits, Upstreams};
use crate::relay::Config;
use crate::scale::properties;
use crate::timeout::TimeoutPolicy;
use proptest::prelude::*;

const CLOSE5: &[u8] = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 5\r\n\r\nhello";
const UPSTREAMS: u16 = 3;

struct Client {
    peer: Handle,
    task: Task,
    asked: usize,
    answered: usize,
}

struct World {
    fake: Fake,
    proxy: Proxy<Fake>,
    keeper: Task,
    clients: Vec<Client>,
    clock: u64,
}

impl World {
    fn new(limit: usize, turns: bool) -> World {
        let fake = Fake::new();
        let targets = (1..=UPSTREAMS).map(|port| SocketAddr::from(([127, 0, 0, 1], port)));
        let upstreams = Upstreams::with_limits(targets, UpstreamLimits { max_conns: limit, max_queue: 99 });
        let turn_ops = if turns { 1 } else { 16 };
        let timeouts = TimeoutPolicy { pool_idle: Some(Duration::from_secs(7)), ..TimeoutPolicy::OFF };
        let proxy = Proxy::new(fake.clone(), upstreams, Config { timeouts, turn_ops, ..Config::default() });
        let keeper: Keeper<Fake> = proxy.keeper();
        World { fake, keeper: Task::new(keeper), clients: Vec::new(), clock: 0, proxy }
    }

    fn arrive(&mut self) {
        let peer = peer();
        let route = |_: &crate::RequestHead<'_>| Decision::forward();
        let observe = |_: &Report<'_>| {};
        let task = Task::new(self.proxy.serve_connection(self.fake.stream(&peer), None, route, observe));
        self.clients.push(Client { peer, task, asked: 0, answered: 0 });
    }

    fn ask(&mut self, n: usize) {
        let Some(client) = pick(&mut self.clients, n) else { return };
        client.read();
        if client.asked == client.answered {
            client.asked += 1;
            send(&client.peer, GET);
        }
    }

    fn wait(&mut self, ms: u64) {
        self.clock += ms;
        self.fake.set_clock(self.clock);
    }

    /// An upstream answers what it was asked.
    fn answer(&self, n: usize, answer: &[u8]) -> bool {
        let all = self.fake.0.borrow().upstreams.clone();
        let asked: Vec<_> = all.iter().filter(|p| !p.borrow().got.is_empty() && !p.borrow().closed).collect();
        if asked.is_empty() {
            return false;
        }
        let upstream = asked[n % asked.len()];
        got(upstream);
        send(upstream, answer);
        true
    }

    /// An upstream closes a connection.
    fn close(&self, n: usize) {
        let all = self.fake.0.borrow().upstreams.clone();
        let open: Vec<_> = all.iter().filter(|p| !p.borrow().closed && !p.borrow().aborted).collect();
        if !open.is_empty() {
            at(open[n % open.len()], |p| p.fin = true);
        }
    }

    fn run_all(&mut self) {
        while self.clients.iter().any(|c| c.task.is_woken() && !c.task.is_over()) || self.keeper.is_woken() {
            self.clients.iter_mut().for_each(|client| {
                client.task.run();
            });
            self.keeper.run();
        }
    }
}

impl Client {
    fn read(&mut self) {
        let got = got(&self.peer);
        self.answered += got.matches("HTTP/1.1 ").count();
    }
}

fn pick<T>(all: &mut [T], n: usize) -> Option<&mut T> {
    let len = all.len().max(1);
    all.get_mut(n % len)
}

proptest! {
    #![proptest_config(properties(ProptestConfig::default()))]

    #[test]
    fn whoever_asks_is_answered(
        limit in 1usize..3,
        turns in any::<bool>(),
        events in proptest::collection::vec((0u8..16, 0usize..64), 1..120),
    ) {
        let mut world = World::new(limit, turns);
        for (event, n) in events {
            match event {
                0 | 1 if world.clients.len() < 9 => {
                    world.arrive();
                    world.ask(world.clients.len() - 1);
                }
                2 | 3 => world.ask(n),
                4 if n % 3 == 0 && !world.clients.is_empty() => {
                    let gone = n % world.clients.len();
                    world.clients.remove(gone).task.cancel();
                }
                5 => {
                    let mut fake = world.fake.0.borrow_mut();
                    (fake.connects, fake.refuses) = (n % 2 == 0, n % 3 == 0);
                }
                6 => world.fake.look_again(),
                7 => drop(world.answer(n, OK5)),
                8 => drop(world.answer(n, if n % 2 == 0 { CLOSE5 } else { OK5 })),
                9 => world.close(n),
                10 => world.wait([1, 1000, 2000, 4999, 5000, 5001][n % 6]),
                11 => drop(world.keeper.run()),
                12..=14 => {
                    if let Some(client) = pick(&mut world.clients, n) {
                        client.task.run();
                    }
                }
                15 if n % 4 == 0 => world.run_all(),
                _ => {}
            }
        }
        {
            let mut fake = world.fake.0.borrow_mut();
            (fake.connects, fake.refuses) = (true, false);
        }
        world.fake.look_again();
        world.run_all();
        for n in 0..200 {
            while world.answer(n, OK5) {
                world.run_all();
            }
            if n % 8 == 7 {
                world.wait(1000);
                world.run_all();
            }
        }
        for client in &mut world.clients {
            client.read();
            prop_assert!(client.answered >= client.asked, "{} of {}", client.answered, client.asked);
        }
        let gauges = world.proxy.gauges();
        prop_assert_eq!((gauges.in_flight, gauges.waiting), (0, 0));
        world.proxy.stop();
        world.run_all();
        prop_assert_eq!((world.fake.open(), world.proxy.gauges().clients), (0, 0));
    }
}
