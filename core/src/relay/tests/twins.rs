//! What comes in other pieces, or later on its connection, comes to the same (`http.md` G1).
//!
//! Every [`Rig`] has followers: machines to which happens what happens to it, except that their bytes come and go one at
//! a time (also with reads between them that find nothing), or in random pieces, or that their connection has served another request before. After every step they must have
//! reported the same, owe the same deadline, and have sent the same to both sides. So each test of the machine is replayed
//! without knowing it. Only what the contracts let depend on pieces is left out; each such place says why.

use super::*;
use crate::scale::or_under_miri;

/// How a follower differs from the one that is followed.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
enum How {
    /// One byte at a time, in both directions.
    Bytes,
    /// The same, and after each byte a read finds nothing.
    Waits,
    /// Pieces of random sizes, from this seed.
    Random(u64),
    /// In the same pieces, on a connection that has served a request before.
    Second,
    /// Both.
    SecondInBytes,
}

pub(super) struct Twin {
    how: How,
    rig: Rig,
    dice: u64,
    /// What was sent to it and is not wanted yet; by side.
    pending: [Vec<u8>; 2],
    fin: [bool; 2],
    /// From here on it has no counterpart.
    left: bool,
    reported: usize,
    /// So many bytes to each side are the same, byte for byte.
    same: [usize; 2],
}

const SIDES: [Side; 2] = [Side::Client, Side::Upstream];

/// After so many bytes of one piece the rest may come in larger ones: nothing but body is that long, but for what tests limits.
const LONG: usize = or_under_miri(20_000, 500);

const ALL: [How; 6] =
    [How::Random(1), How::Bytes, How::Waits, How::Random(2), How::Second, How::SecondInBytes];

/// Those who follow.
const FOLLOWERS: &[How] = ALL.split_at(or_under_miri(6, 1)).0;

impl Twin {
    pub(super) fn all(config: &Config) -> Vec<Twin> {
        FOLLOWERS.iter().filter_map(|&how| Twin::new(how, config)).collect()
    }

    /// `None` if no request can be served before, under such limits.
    fn new(how: How, config: &Config) -> Option<Twin> {
        let mut rig = Rig::alone(config.clone());
        let dice = if let How::Random(seed) = how { seed } else { 1 };
        if matches!(how, How::Second | How::SecondInBytes) {
            rig.policy = TimeoutPolicy::OFF;
            rig.client(GET);
            if rig.actions.contains(&Action::Report) {
                return None;
            }
            rig.connected();
            rig.upstream_gets();
            rig.upstream(OK5);
            if !rig.client_gets().ends_with("hello") || rig.relay.client.state != ClientState::Idle {
                return None;
            }
            rig.ids = IdSource::new(7);
            rig.got = [Vec::new(), Vec::new()];
            rig.outcomes.clear();
            rig.actions.clear();
        }
        let pending = [Vec::new(), Vec::new()];
        Some(Twin { how, rig, dice, pending, fin: [false; 2], left: false, reported: 0, same: [0; 2] })
    }

    /// Nothing waits for it to take it.
    fn is_level(&self) -> bool {
        self.pending.iter().all(Vec::is_empty) && self.fin == [false; 2]
    }

    pub(super) fn with<T>(&mut self, f: impl Fn(&mut Relay, &mut Env<'_>) -> T) {
        // What fails before all bytes have come fails earlier than for the other one.
        self.left |= !self.is_level();
        if !self.left {
            self.rig.step(f);
        }
    }

    /// Time passes while nothing is asked: for the first request, the limit of its head runs from the beginning; for
    /// another one, that of idleness.
    pub(super) fn idles(&mut self) {
        self.left |= self.is_second();
    }

    fn is_second(&self) -> bool {
        matches!(self.how, How::Second | How::SecondInBytes)
    }

    pub(super) fn connected(&mut self) {
        if self.rig.relay.exchange.stage != Stage::Connecting {
            self.left |= !self.is_level();
            assert!(self.left, "{:?} does not connect: {:?}", self.how, self.rig.relay);
            return;
        }
        self.rig.got[Side::Upstream as usize].clear();
        self.same[Side::Upstream as usize] = 0;
        self.rig.step(|relay, env| relay.connected(false, env));
        self.pump();
    }

    pub(super) fn sends(&mut self, side: Side, bytes: &[u8]) {
        self.pending[side as usize].extend_from_slice(bytes);
        self.pump();
    }

    pub(super) fn fin(&mut self, side: Side) {
        self.fin[side as usize] = true;
        self.pump();
    }

    pub(super) fn takes(&mut self, side: Side, max: usize) {
        let how = self.how;
        loop {
            let mut dice = self.dice;
            let taken = self.rig.pull(side, max, || piece(how, &mut dice));
            self.dice = dice;
            let waits = !self.is_level();
            self.pump();
            // Room for what waits may make more to take.
            if max != usize::MAX || taken.is_empty() || !waits {
                return;
            }
        }
    }

    /// Gives it what it wants of that which waits.
    fn pump(&mut self) {
        for side in SIDES {
            let at = side as usize;
            let waiting = core::mem::take(&mut self.pending[at]);
            let (how, mut dice, mut fed) = (self.how, self.dice, 0);
            while fed < waiting.len() {
                let long = fed > LONG;
                let next =
                    |dice: &mut u64| if long { 3000 + piece(How::Random(0), dice) } else { piece(how, dice) };
                let end = if how == How::Second {
                    waiting.len()
                } else {
                    (fed + next(&mut dice)).min(waiting.len())
                };
                let n = self.rig.feed(side, &waiting[fed..end], || usize::MAX);
                fed += n;
                if n == 0 {
                    break;
                }
                if how == How::Waits {
                    self.waits();
                }
            }
            self.dice = dice;
            self.pending[at] = waiting[fed..].to_vec();
            let relay = &self.rig.relay;
            // Nobody reads on from a connection that is pooled or closed: in one piece with what is read, this would show
            // (and end the connection); else it meets who watches the pool.
            if side == Side::Upstream && !matches!(relay.exchange.stage, Stage::Relaying | Stage::Tunnel)
                || relay.is_closed()
            {
                self.pending[at].clear();
                self.fin[at] = false;
            }
            if self.fin[at] && self.pending[at].is_empty() && relay.interest().wants(Op::Read(side)) {
                self.fin[at] = false;
                self.rig.step(|relay, env| relay.received(side, 0, env));
            }
        }
    }

    fn waits(&mut self) {
        for side in SIDES {
            if self.rig.relay.interest().wants(Op::Read(side)) {
                self.rig.step(|relay, env| relay.not_ready(side, env));
            }
        }
    }

    fn check(&mut self, other: &Rig) {
        // What waits for room would be in a buffer that was filled at once.
        if self.left || !self.is_level() {
            return;
        }
        let (how, mine, its) = (self.how, &self.rig.relay, &other.relay);
        for side in SIDES {
            if !mine.interest().wants(Op::Write(side)) && !its.interest().wants(Op::Write(side)) {
                let (mine, its) = (&self.rig.got[side as usize], &other.got[side as usize]);
                let same = &mut self.same[side as usize];
                if mine.get(*same..) == its.get(*same..) {
                    *same = mine.len();
                } else {
                    assert_eq!(text(&decoded(mine)), text(&decoded(its)), "what {side} gets, {how:?}");
                }
            }
        }
        assert_eq!(self.rig.outcomes.len(), other.outcomes.len(), "{how:?}: {:?}", self.rig.outcomes);
        for (mine, its) in self.rig.outcomes.iter().zip(&other.outcomes).skip(self.reported) {
            assert_eq!(comparable(*mine), comparable(*its), "{how:?}");
        }
        self.reported = other.outcomes.len();
        assert_eq!(mine.is_closed(), its.is_closed(), "{how:?}");
        assert_eq!(mine.is_active(), its.is_active(), "{how:?}");
        assert_eq!(mine.interest(), its.interest(), "{how:?}");
        if mine.is_active() || !self.is_second() {
            assert_eq!(self.rig.next(), other.next(), "{how:?}");
        }
    }
}

/// How far a faulty request has come before its fault arrives is a matter of pieces.
fn comparable(outcome: Outcome) -> Outcome {
    match outcome.error {
        Some(Error::BadRequest(_)) => Outcome { upstream: None, attempts: 0, request_bytes: 0, ..outcome },
        _ => outcome,
    }
}

fn piece(how: How, dice: &mut u64) -> usize {
    match how {
        How::Bytes | How::Waits | How::SecondInBytes => 1,
        How::Second => usize::MAX,
        How::Random(_) => {
            *dice = dice.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
            // Under Miri some are large: a body in small pieces alone takes too long.
            let times = or_under_miri(1, if *dice >> 61 == 0 { 1000 } else { 1 });
            1 + (*dice >> 33) as usize % 40 * times
        }
    }
}

impl Rig {
    /// Tells those that follow what the test has set.
    pub(super) fn lead(&mut self) {
        let mut twins = core::mem::take(&mut self.twins);
        for twin in &mut twins {
            let rig = &mut twin.rig;
            (rig.now, rig.policy, rig.upstreams, rig.full) =
                (self.now, self.policy, self.upstreams, self.full);
            (rig.answers, rig.keeps, rig.pooled) = (self.answers, self.keeps, self.pooled);
            (rig.addresses, rig.named, rig.slow_end) = (self.addresses, self.named, self.slow_end);
        }
        self.twins = twins;
    }

    pub(super) fn follow(&mut self, f: impl FnMut(&mut Twin)) {
        self.twins.iter_mut().filter(|twin| !twin.left).for_each(f);
    }

    /// They have come to the same.
    pub(super) fn check(&mut self) {
        let mut twins = core::mem::take(&mut self.twins);
        for twin in &mut twins {
            twin.check(self);
        }
        self.twins = twins;
    }
}

/// Messages one after the other, chunked bodies without their framing: where our chunks end depends on when their bytes
/// came; what they carry, and whether the last one is there, does not.
pub(super) fn decoded(mut bytes: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    while let Some(at) = bytes.windows(4).position(|w| w == b"\r\n\r\n") {
        let head;
        (head, bytes) = bytes.split_at(at + 4);
        out.extend_from_slice(head);
        if !head.to_ascii_lowercase().windows(26).any(|w| w == b"transfer-encoding: chunked") {
            continue;
        }
        let mut decoder = crate::http::BodyDecoder::new(crate::http::Framing::Chunked);
        while let Ok(step) = decoder.decode(bytes) {
            out.extend_from_slice(&bytes[step.skip..step.skip + step.data]);
            bytes = &bytes[step.skip + step.data..];
            if step.skip + step.data == 0 || decoder.is_complete() {
                break;
            }
        }
        out.push(u8::from(decoder.is_complete()));
    }
    out.extend_from_slice(bytes);
    out
}

fn text(bytes: &[u8]) -> String {
    bytes.iter().map(|&b| char::from(b)).collect()
}

#[test]
fn followers_come_along_to_the_end_and_notice_what_differs() {
    let mut rig = Rig::relaying(profile(), b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc");
    rig.upstream_gets();
    rig.upstream(OK5);
    rig.client_gets();
    assert_eq!(rig.twins.len(), FOLLOWERS.len());
    assert!(rig.twins.iter().all(|twin| !twin.left && twin.is_level() && twin.reported == 1));

    // One byte that only one of them gets.
    rig.twins[0].rig.client(b"G");
    let noticed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| rig.check()));
    assert!(noticed.is_err());
}
