//! One client's connection: the machine, its sockets and its timer, as a named future.
//!
//! A poll is one *turn* (`docs/TIMEOUTS.md`, Rules): a bounded number of socket operations, each with the time at
//! which it completed; at most one deadline, decided on the last of these times; what follows from it; one
//! timer. The machine says what to do; nothing here decides about HTTP or about expiry.

use core::future::Future;
use core::mem;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::io::ErrorKind;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::driver::alarm::Alarm;
use crate::driver::lifecycle::{Membership, Phase};
use crate::driver::memory::{Lent, borrow, give_back};
use crate::driver::proxy::{Decision, Report, Shared};
use crate::driver::transfer::{Look, read, write};
use crate::error::{IoFailure, IoKind, Side};
use crate::http::{HttpDate, RequestHead};
use crate::relay::{Action, Config, Env, Op, Relay};
use crate::runtime::{Lookup, Resolution, Runtime, Stream};
use crate::time::Instant;
use crate::upstream::{Addresses, Admitted, Target, Ticket, UpstreamId};

/// How long a formatted date serves.
const DATE_AGE: Duration = Duration::from_millis(500);

pin_project_lite::pin_project! {
    /// One client's connection with all its requests. It ends when the connection does.
    ///
    /// Dropping it cancels: the upstream is reset at once, inline, and the client is closed (reset
    /// where only that shows that its response is not whole).
    #[project = Parts]
    #[must_use = "a connection does nothing unless it is polled"]
    pub struct Connection<R: Runtime, C: Stream, F, G> {
        shared: Arc<Shared<R>>,
        membership: Membership,
        hooks: Arc<(F, G)>,
        relay: Relay,
        client: Option<C>,
        upstream: Option<R::Stream>,
        #[pin]
        connect: Option<R::Connect>,
        peer: Option<SocketAddr>,
        place: Place,
        // The request that runs was counted as started.
        counted: bool,
        // FIN was asked for, for each side, and has not been taken by its stream yet.
        shutting: [bool; 2],
        // The client's stream is to be closed in order, and has not said its end yet.
        closing: bool,
        // What each side's stream was told last.
        bulk: [bool; 2],
        // Bytes that each side's stream has taken and not yet passed on to its socket.
        unflushed: [usize; 2],
        #[pin]
        alarm: Alarm<R::Timer>,
        date: HttpDate,
        dated: Option<Instant>,
    }

    impl<R: Runtime, C: Stream, F, G> PinnedDrop for Connection<R, C, F, G> {
        fn drop(this: Pin<&mut Self>) {
            let mut parts = this.project();
            if parts.client.is_none() {
                return;
            }
            let now = parts.shared.runtime.now();
            let mut lent = borrow(&parts.shared.runtime);
            let Lent { bufs, ids } = &mut *lent;
            let date = *parts.date;
            parts.relay.stop(&mut Env { now, date: &date, bufs, ids });
            while let Some(action) = parts.relay.poll_action() {
                parts.close(action, now);
            }
            parts.leave(now);
            give_back(lent);
        }
    }
}

impl<R: Runtime, C: Stream, F, G> Connection<R, C, F, G> {
    /// A client that was accepted just now: its clock starts here.
    pub(crate) fn new(
        shared: Arc<Shared<R>>,
        membership: Membership,
        hooks: Arc<(F, G)>,
        client: C,
        peer: Option<SocketAddr>,
    ) -> Connection<R, C, F, G> {
        shared.tally.client();
        let relay = Relay::new(Arc::clone(&shared.config), peer.map(|p| p.ip()), shared.runtime.now());
        Connection {
            alarm: Alarm::new(shared.runtime.timer()),
            shared,
            membership,
            hooks,
            relay,
            client: Some(client),
            upstream: None,
            connect: None,
            peer,
            place: Place::None,
            counted: false,
            shutting: [false; 2],
            closing: false,
            bulk: [false; 2],
            unflushed: [0; 2],
            date: HttpDate::default(),
            dated: None,
        }
    }
}

impl<R, C, F, G> Future for Connection<R, C, F, G>
where
    R: Runtime,
    C: Stream,
    F: Fn(&RequestHead<'_>) -> Decision,
    G: Fn(&Report<'_>),
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut parts = self.project();
        if parts.client.is_none() {
            return Poll::Ready(());
        }
        let now = parts.shared.runtime.now();
        let date = parts.date(now);
        let mut lent = borrow(&parts.shared.runtime);
        let Lent { bufs, ids } = &mut *lent;
        let polled = parts.turn(cx, &mut Env { now, date: &date, bufs, ids });
        give_back(lent);
        polled
    }
}

/// What the connection holds of the upstreams' limits.
#[derive(Debug, Default)]
enum Place {
    #[default]
    None,
    Waits(Ticket),
    /// This one, since then.
    Granted(UpstreamId, Instant),
    /// Granted, and where it is has to be found out first.
    Resolves(UpstreamId, Instant, Lookup),
}

impl Place {
    /// When to look again although nothing has woken.
    fn until(&self) -> Instant {
        match self {
            Place::Waits(ticket) => ticket.until(),
            _ => Instant::NEVER,
        }
    }
}

/// What came of one socket operation.
enum Step {
    Moved(usize),
    Waits,
}

/// What the passes of one turn have done.
#[derive(Default)]
struct Moved {
    ops: usize,
    bytes: usize,
}

impl Moved {
    fn is_enough(&self, config: &Config) -> bool {
        self.ops >= config.turn_ops.max(1) || self.bytes >= config.turn_bytes.max(1)
    }
}

impl<R: Runtime, C: Stream, F, G> Parts<'_, R, C, F, G> {
    /// Ends a side's connection. Nothing else is done with actions when the future is dropped.
    fn close(&mut self, action: Action, now: Instant) {
        match action {
            Action::Abort(Side::Upstream) => {
                self.connect.set(None);
                self.take_upstream().into_iter().for_each(Stream::abort);
                self.leave(now);
            }
            Action::Close(Side::Upstream) => {
                drop(self.take_upstream());
                self.leave_answered(now);
            }
            Action::Discard => self.take_upstream().into_iter().for_each(Stream::abort),
            Action::Abort(Side::Client) => self.client.take().into_iter().for_each(Stream::abort),
            Action::Close(Side::Client) => *self.client = None,
            Action::Report => self.count(),
            _ => {}
        }
    }

    /// The upstream's connection, of which nothing is known any more.
    fn take_upstream(&mut self) -> Option<R::Stream> {
        self.unflushed[1] = 0;
        self.bulk[1] = false;
        self.shutting[1] = false;
        self.upstream.take()
    }

    /// Counts a request that has ended; one that ended before it was routed starts here as well.
    fn count(&mut self) {
        if let Some(outcome) = self.relay.outcome() {
            if !mem::take(self.counted) {
                self.shared.tally.started();
            }
            self.shared.tally.ended(outcome);
        }
    }

    /// Gives back what was granted, or the place in the queue.
    fn leave(&mut self, now: Instant) {
        match mem::take(self.place) {
            Place::None => {}
            Place::Waits(ticket) => self.shared.upstreams.cancel(ticket, now),
            // A lookup that is dropped is not wanted any more.
            Place::Granted(id, _) | Place::Resolves(id, ..) => {
                // Whoever gets it next is to know that.
                let is_down = self.relay.tried().contains(&id);
                if is_down {
                    self.unreached(id);
                }
                self.shared.upstreams.release(id, is_down, now);
            }
        }
    }

    /// The same after a whole answer.
    fn leave_answered(&mut self, now: Instant) {
        if let Place::Granted(id, since) = *self.place {
            *self.place = Place::None;
            self.shared.upstreams.release_answered(id, since, now);
        }
    }

    /// The resolver that said where `id` is hears that it is not there.
    fn unreached(&self, id: UpstreamId) {
        let Some(found) = self.relay.unreached() else { return };
        if let Some(Target::Name(name)) = self.shared.upstreams.target(id) {
            self.shared.resolver.unreached(&name, found);
        }
    }

    fn date(&mut self, now: Instant) -> HttpDate {
        if self.dated.is_none_or(|at| now.saturating_since(at) >= DATE_AGE) {
            *self.date = HttpDate::from_unix(self.shared.runtime.unix_time());
            *self.dated = Some(now);
        }
        *self.date
    }
}

impl<R, C, F, G> Parts<'_, R, C, F, G>
where
    R: Runtime,
    C: Stream,
    F: Fn(&RequestHead<'_>) -> Decision,
    G: Fn(&Report<'_>),
{
    fn turn(&mut self, cx: &mut Context<'_>, env: &mut Env<'_>) -> Poll<()> {
        let phase = self.membership.poll_phase(cx);
        if phase == Phase::Stopped {
            self.relay.stop(env);
        }
        let mut moved = Moved::default();
        let mut capped = self.work(Look::Poll, &mut moved, cx, env);
        // After a look at what has come: a request that is there has begun.
        if let Phase::Draining(since) = phase {
            self.relay.drain(since, env);
            capped |= self.work(Look::Poll, &mut moved, cx, env);
        }
        let idle = self.relay.is_idle();
        if !idle {
            // Before it says that it stays, or it would be asked again.
            self.membership.set_idle(false, env.now);
        }
        if self.membership.is_to_leave(idle) {
            self.relay.close_idle(env);
            capped |= self.work(Look::Poll, &mut moved, cx, env);
        }
        if self.is_due(env.now) {
            // A readiness that the runtime has not seen yet must not become a timeout.
            if self.pass(cx, env, Look::Direct, &mut [false; Op::PASS.len()]).is_some() {
                // Nor must it decide whom the timeout is blamed on: what moved has made room for more.
                capped |= self.work(Look::Direct, &mut moved, cx, env);
            }
            capped |= self.work(Look::Poll, &mut moved, cx, env);
        }
        if self.is_due(env.now) {
            self.relay.handle_timeout(env);
            capped |= self.work(Look::Poll, &mut moved, cx, env);
        }
        if self.client.is_none() {
            return Poll::Ready(());
        }
        self.membership.set_idle(self.relay.is_idle(), env.now);
        if capped || self.is_due(env.now) {
            cx.waker().wake_by_ref();
        } else {
            let next = self.relay.poll_timeout().map_or(Instant::NEVER, |d| d.at);
            self.alarm.as_mut().set(next.min(self.place.until()), cx);
        }
        Poll::Pending
    }

    fn is_due(&self, now: Instant) -> bool {
        self.relay.poll_timeout().is_some_and(|d| d.at <= now)
    }

    /// Passes over the sockets until nothing moves. True if the turn's bound ended it first; beyond it actions are
    /// still taken, and the sockets are left to the next turn.
    fn work(&mut self, look: Look, moved: &mut Moved, cx: &mut Context<'_>, env: &mut Env<'_>) -> bool {
        let mut waits = [false; Op::PASS.len()];
        while !moved.is_enough(&self.shared.config) {
            let Some((ops, bytes)) = self.pass(cx, env, look, &mut waits) else { return false };
            moved.ops += ops;
            moved.bytes += bytes;
        }
        self.act(cx, env);
        true
    }

    /// Serves every socket operation that is wanted, once, in order: operations done and bytes moved,
    /// or nothing if all of them wait. What waits is not asked again in this turn (`waits`), unless an
    /// action has changed what there is to ask.
    fn pass(
        &mut self,
        cx: &mut Context<'_>,
        env: &mut Env<'_>,
        look: Look,
        waits: &mut [bool; Op::PASS.len()],
    ) -> Option<(usize, usize)> {
        let mut bytes = 0;
        let mut ops = self.act(cx, env);
        let mut interest = self.relay.interest();
        for (i, op) in Op::PASS.into_iter().enumerate() {
            if waits[i] || !interest.wants(op) {
                continue;
            }
            match self.step(op, look, cx, env) {
                Step::Moved(n) => {
                    ops += 1;
                    bytes += n;
                }
                Step::Waits => waits[i] = true,
            }
            let acted = self.act(cx, env);
            if acted > 0 {
                ops += acted;
                *waits = [false; Op::PASS.len()];
            }
            interest = self.relay.interest();
        }
        (ops > 0).then_some((ops, bytes))
    }

    /// Takes every action, and looks at what is waited for: an upstream, its addresses, or the connection that is being
    /// made. Says how much was done.
    fn act(&mut self, cx: &mut Context<'_>, env: &mut Env<'_>) -> usize {
        // Before the look: what comes of an attempt that was given up is not what the machine waits for now.
        let decided = self.take_all(cx, env);
        let came = usize::from(self.look_at_place(cx, env)) + usize::from(self.look_at_connect(cx, env));
        let done = decided + came + self.take_all(cx, env);
        self.finish_shutdown(cx);
        self.finish_close(cx, env);
        done
    }

    /// Takes every action. Says how many there were.
    fn take_all(&mut self, cx: &mut Context<'_>, env: &mut Env<'_>) -> usize {
        let mut done = 0;
        while let Some(action) = self.relay.poll_action() {
            done += 1;
            self.take(action, cx, env);
        }
        done
    }

    /// Whether the attempt to connect has ended. One that is begun because of that is not looked at at once, so that many
    /// that fail at once do not hold the thread.
    fn look_at_connect(&mut self, cx: &mut Context<'_>, env: &mut Env<'_>) -> bool {
        let Some(connect) = self.connect.as_mut().as_pin_mut() else { return false };
        let Poll::Ready(result) = connect.poll(cx) else { return false };
        self.connect.set(None);
        env.now = self.shared.runtime.now();
        match result {
            Ok(stream) => {
                if let Place::Granted(id, _) = *self.place {
                    self.shared.upstreams.reached(id, env.now);
                }
                *self.upstream = Some(stream);
                self.relay.connected(false, env);
            }
            Err(e) => self.relay.failed(Op::Connect, IoFailure::from(&e), env),
        }
        true
    }

    /// Whether an upstream was granted, or its addresses were found.
    fn look_at_place(&mut self, cx: &mut Context<'_>, env: &mut Env<'_>) -> bool {
        match mem::take(self.place) {
            Place::Waits(ticket) => match self.shared.upstreams.fetch(ticket, env.now, cx.waker()) {
                Admitted::Waits(ticket) => *self.place = Place::Waits(ticket),
                Admitted::Granted(id) => {
                    *self.place = Place::Granted(id, env.now);
                    self.relay.granted(id, env);
                    return true;
                }
                Admitted::Refused | Admitted::Exhausted => {
                    self.relay.exhausted(env);
                    return true;
                }
            },
            Place::Resolves(id, since, mut lookup) => match Pin::new(&mut lookup).poll(cx) {
                Poll::Ready(found) => {
                    *self.place = Place::Granted(id, since);
                    env.now = self.shared.runtime.now();
                    self.relay.resolved(found, env);
                    return true;
                }
                Poll::Pending => *self.place = Place::Resolves(id, since, lookup),
            },
            place => *self.place = place,
        }
        false
    }

    fn resolve(&mut self, id: UpstreamId, cx: &mut Context<'_>, env: &mut Env<'_>) {
        match self.shared.upstreams.target(id) {
            Some(Target::Addresses(addresses)) => self.relay.resolved(Ok(addresses), env),
            Some(Target::Name(name)) => match self.shared.resolver.resolve(&name) {
                Resolution::Known(found) => self.relay.resolved(found, env),
                Resolution::Waits(lookup) => {
                    *self.place = Place::Resolves(id, env.now, lookup);
                    self.relay.resolving(env);
                    // For the waker's sake, and it may be there by now.
                    self.look_at_place(cx, env);
                }
            },
            None => self.relay.resolved(Ok(Addresses::from_iter([])), env),
        }
    }

    fn take(&mut self, action: Action, cx: &mut Context<'_>, env: &mut Env<'_>) {
        match action {
            Action::Release { upstream, settle, idle } => {
                self.tell_bulk(Side::Upstream, false);
                if let Some(stream) = self.upstream.take() {
                    let until = idle.map_or(Instant::NEVER, |idle| env.now + idle);
                    let usable = env.now + settle..until;
                    self.shared.idle.put(upstream, stream, usable, &self.shared.upstreams);
                }
                self.leave_answered(env.now);
            }
            Action::Report => {
                self.count();
                // Even if the whole request fell into this turn, it is idle since now and not since before it.
                self.membership.set_idle(false, env.now);
                if let Some(outcome) = self.relay.outcome() {
                    (self.hooks.1)(&Report { outcome, request: self.relay.reported(), peer: *self.peer });
                }
            }
            Action::Route => {
                let Some(request) = self.relay.request() else { return };
                *self.counted = true;
                self.shared.tally.started();
                let decision = (self.hooks.0)(&request);
                // As after a socket operation: what starts now must not count from before the hooks.
                env.now = self.shared.runtime.now();
                match decision {
                    Decision::Forward(policy) => self.relay.forward(policy, env),
                    Decision::Respond(r) => {
                        let fields: Vec<_> = r.fields.iter().map(|(n, v)| (&**n, &**v)).collect();
                        self.relay.respond(r.status, &fields, &r.body, env);
                    }
                }
            }
            Action::Admit => match self.shared.upstreams.admit(self.relay.tried(), env.now, cx.waker()) {
                Admitted::Granted(id) => {
                    *self.place = Place::Granted(id, env.now);
                    self.relay.granted(id, env);
                }
                Admitted::Waits(ticket) => {
                    *self.place = Place::Waits(ticket);
                    self.relay.queued(env);
                }
                Admitted::Refused => self.relay.refused(env),
                Admitted::Exhausted => self.relay.exhausted(env),
            },
            Action::Checkout(id) => {
                *self.upstream = self.shared.idle.take(id, env.now, cx);
                if self.upstream.is_some() {
                    self.relay.connected(true, env);
                } else {
                    self.relay.pool_miss(env);
                }
            }
            Action::Resolve(id) => self.resolve(id, cx, env),
            Action::Connect { addr, .. } => {
                // The one before, at another address, is closed before this one is begun.
                self.connect.set(None);
                self.connect.set(Some(self.shared.runtime.connect(addr)));
            }
            Action::ShutdownWrite(Side::Client) => self.shutting[0] = true,
            Action::ShutdownWrite(Side::Upstream) => self.shutting[1] = true,
            Action::Close(Side::Client) => *self.closing = true,
            Action::Close(Side::Upstream) => {
                // One try to say so: nobody waits for an upstream that is done with.
                let _ = self.upstream.as_mut().map(|upstream| upstream.poll_close(cx));
                self.close(action, env.now);
            }
            Action::Abort(_) | Action::Discard => self.close(action, env.now),
        }
    }

    /// Sends FIN to whom that was asked for.
    fn finish_shutdown(&mut self, cx: &mut Context<'_>) {
        // A failure here shows at the next read.
        if let (true, Some(client)) = (self.shutting[0], self.client.as_mut()) {
            self.shutting[0] = client.poll_shutdown_write(cx).is_pending();
        }
        if let (true, Some(upstream)) = (self.shutting[1], self.upstream.as_mut()) {
            self.shutting[1] = upstream.poll_shutdown_write(cx).is_pending();
        }
    }

    /// Closes the client's stream in order. Once the machine is closed nothing is waited for any more.
    fn finish_close(&mut self, cx: &mut Context<'_>, env: &mut Env<'_>) {
        if let (true, Some(client)) = (*self.closing, self.client.as_mut()) {
            // A failure says that there is nobody left to tell.
            if client.poll_close(cx).is_ready() || self.relay.is_closed() {
                *self.client = None;
                self.relay.closed(env);
            }
        }
    }

    /// Its stream hears what it was not told yet.
    fn tell_bulk(&mut self, side: Side, bulk: bool) {
        if mem::replace(&mut self.bulk[side as usize], bulk) != bulk {
            match side {
                Side::Client => self.client.as_mut().map(|client| client.set_bulk(bulk)),
                Side::Upstream => self.upstream.as_mut().map(|upstream| upstream.set_bulk(bulk)),
            };
        }
    }

    fn step(&mut self, op: Op, look: Look, cx: &mut Context<'_>, env: &mut Env<'_>) -> Step {
        if let Op::Write(side) = op {
            self.tell_bulk(side, self.relay.is_bulk(side));
        }
        let result = match op {
            Op::Read(Side::Client) => {
                read(self.client.as_mut(), self.relay.recv_buf(Side::Client, env), look, cx)
            }
            Op::Read(Side::Upstream) => {
                read(self.upstream.as_mut(), self.relay.recv_buf(Side::Upstream, env), look, cx)
            }
            Op::Write(Side::Client) => {
                let bufs = self.relay.send_bufs(Side::Client);
                write(self.client.as_mut(), bufs, &mut self.unflushed[0], look, cx)
            }
            Op::Write(Side::Upstream) => {
                let bufs = self.relay.send_bufs(Side::Upstream);
                write(self.upstream.as_mut(), bufs, &mut self.unflushed[1], look, cx)
            }
            Op::Connect => Poll::Pending,
        };
        if result.is_ready() {
            // What starts now must not count from before it: a deadline would come early by the turn's length.
            env.now = self.shared.runtime.now();
        }
        match (op, result) {
            (Op::Read(side), Poll::Ready(Ok(n))) => {
                self.relay.received(side, n, env);
                Step::Moved(n)
            }
            (Op::Write(side), Poll::Ready(Ok(n))) if n > 0 => {
                self.relay.sent(side, n, env);
                Step::Moved(n)
            }
            (op, Poll::Ready(Ok(_))) => {
                // A stream that takes nothing and does not wait is broken: progress would never come.
                self.relay.failed(op, IoFailure { kind: IoKind::BrokenPipe, os_code: None }, env);
                Step::Moved(0)
            }
            // A signal came in between: the next pass asks again.
            (_, Poll::Ready(Err(e))) if e.kind() == ErrorKind::Interrupted => Step::Moved(0),
            (op, Poll::Ready(Err(e))) => {
                self.relay.failed(op, IoFailure::from(&e), env);
                Step::Moved(0)
            }
            (Op::Read(side), Poll::Pending) => {
                self.relay.not_ready(side, env);
                Step::Waits
            }
            (_, Poll::Pending) => Step::Waits,
        }
    }
}
