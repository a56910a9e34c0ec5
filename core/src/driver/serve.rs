//! Accepting: the one place that spawns, and the handle whose drop ends what it spawned.

use core::future::Future;
use core::pin::Pin;
use core::task::{Context, Poll};
use core::time::Duration;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::driver::connection::Connection;
use crate::driver::keeper::Keeper;
use crate::driver::lifecycle::{Lifecycle, Membership, Phase};
use crate::driver::proxy::{Decision, Report, Shared};
use crate::driver::room::Waiting;
use crate::http::RequestHead;
use crate::runtime::{Listener, Runtime, Spawn, Timer};

/// Clients accepted in one turn before others get theirs.
const ACCEPTS: usize = 64;

/// Clients accepted from the backlog once a drain has begun: as many as a backlog may hold.
const QUEUED: usize = 4096;

/// How long to wait when there is no descriptor or memory for another client.
const EXHAUSTED: Duration = Duration::from_millis(100);

pin_project_lite::pin_project! {
    /// The server that [`Proxy::serve`](crate::Proxy::serve) returns. It ends when the proxy has been
    /// stopped or drained and its connections have ended; dropping it stops them.
    #[must_use = "a server does nothing unless it is polled"]
    pub struct Serve<R: Runtime, L: Listener, F, G> {
        shared: Arc<Shared<R>>,
        group: Arc<Lifecycle>,
        membership: Membership,
        listener: Option<L>,
        hooks: Arc<(F, G)>,
        #[pin]
        keeper: Keeper<R>,
        #[pin]
        pause: R::Timer,
        paused: bool,
        // Clients that may still be accepted once a drain has begun.
        queued: usize,
        // Accepted at the limit: somebody must be there before anybody makes room.
        next: Option<(L::Stream, Option<SocketAddr>)>,
        // Its place among those that wait on all threads.
        waiting: Option<Waiting>,
    }

    impl<R: Runtime, L: Listener, F, G> PinnedDrop for Serve<R, L, F, G> {
        fn drop(this: Pin<&mut Self>) {
            let this = this.project();
            this.group.stop();
            this.keeper.as_ref().abandon();
        }
    }
}

impl<R: Runtime, L: Listener, F, G> Serve<R, L, F, G> {
    pub(crate) fn new(shared: Arc<Shared<R>>, listener: L, route: F, observe: G) -> Serve<R, L, F, G> {
        let group = shared.lifecycle.group();
        Serve {
            membership: group.join(false),
            listener: Some(listener),
            hooks: Arc::new((route, observe)),
            keeper: Keeper::new(Arc::clone(&shared), None),
            pause: shared.runtime.timer(),
            paused: false,
            queued: QUEUED,
            next: None,
            waiting: None,
            group,
            shared,
        }
    }
}

impl<R, L, F, G> Future for Serve<R, L, F, G>
where
    R: Runtime + Spawn<Connection<R, L::Stream, F, G>>,
    L: Listener,
    F: Fn(&RequestHead<'_>) -> Decision,
    G: Fn(&Report<'_>),
{
    type Output = ();

    fn poll(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<()> {
        let mut this = self.project();
        let phase = this.membership.poll_phase(cx);
        if phase == Phase::Stopped || (phase != Phase::Running && this.listener.is_none()) {
            *this.listener = None;
            *this.next = None;
            *this.waiting = None;
            this.shared.idle.close();
            let alone = this.group.members() == 1;
            return if alone { Poll::Ready(()) } else { Poll::Pending };
        }
        let _ = this.keeper.poll(cx);
        if *this.paused {
            if this.pause.as_mut().poll_fired(cx).is_pending() {
                return Poll::Pending;
            }
            *this.paused = false;
        }
        let Some(listener) = this.listener else { return Poll::Pending };
        for _ in 0..ACCEPTS {
            if phase != Phase::Running {
                // Whoever was in the backlog when the drain began is answered; then the listener is closed.
                *this.queued = this.queued.saturating_sub(1);
            }
            let accepted = match this.next.take() {
                Some(next) => Poll::Ready(Ok(next)),
                None => listener.poll_accept(cx),
            };
            match accepted {
                Poll::Pending if phase == Phase::Running => return Poll::Pending,
                Poll::Pending => {
                    *this.queued = 0;
                    break;
                }
                Poll::Ready(Ok((client, peer))) => {
                    let member = if phase == Phase::Running {
                        let Poll::Ready(member) = this.group.poll_join(this.waiting, cx) else {
                            *this.next = Some((client, peer));
                            return Poll::Pending;
                        };
                        member
                    } else {
                        *this.waiting = None;
                        this.group.join(true)
                    };
                    let (shared, hooks) = (Arc::clone(this.shared), Arc::clone(this.hooks));
                    this.shared.runtime.spawn(Connection::new(shared, member, hooks, client, peer));
                }
                Poll::Ready(Err(e)) if concerns_one_client(&e) => {}
                // Nobody is left whose end would make room: a drain does not wait for others.
                Poll::Ready(Err(_)) if phase != Phase::Running && this.group.members() == 1 => {
                    *this.queued = 0;
                    break;
                }
                Poll::Ready(Err(_)) => {
                    *this.paused = true;
                    this.pause.as_mut().arm(this.shared.runtime.now() + EXHAUSTED);
                    break;
                }
            }
        }
        if phase != Phase::Running && *this.queued == 0 {
            *this.listener = None;
        }
        cx.waker().wake_by_ref();
        Poll::Pending
    }
}

/// The client was gone before it was accepted; the listener is fine.
fn concerns_one_client(e: &std::io::Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionRefused, ConnectionReset, Interrupted};
    matches!(e.kind(), ConnectionAborted | ConnectionRefused | ConnectionReset | Interrupted)
}
