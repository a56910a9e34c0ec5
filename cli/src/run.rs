//! The proxy on the runtime that was asked for, with one thread for everything (async-std brings its own).
//!
//! What differs between the runtimes is how to enter them; the rest is one generic function. No runtime is
//! entered before its sockets are open, so that a taken port is reported the same way everywhere.

use std::future::{Future, poll_fn};
use std::io;
use std::net::TcpListener;
use std::pin::pin;

use tidegate_core::http::RequestHead;
use tidegate_core::runtime::{Listener, Runtime, Spawn};
use tidegate_core::{Config, Connection, Decision, Proxy, Report, Upstreams};

use crate::Socket;
use crate::flags::{Flags, RuntimeName};
use crate::listeners::Listeners;
use crate::origin;
use crate::signals::Signals;

/// The route: everything goes to the upstreams.
type Route = fn(&RequestHead<'_>) -> Decision;
/// The observer: nothing is logged yet.
type Observe = fn(&Report<'_>);

/// What the proxy needs apart from a runtime.
struct Plan {
    sockets: Vec<TcpListener>,
    origin: Option<TcpListener>,
    upstreams: Upstreams,
    config: Config,
    signals: Signals,
}

/// Runs until a signal comes.
///
/// # Errors
///
/// The runtime cannot be built, or refuses a socket.
pub(crate) fn on(
    flags: &Flags,
    sockets: Vec<Socket>,
    origin: Option<Socket>,
    signals: Signals,
) -> io::Result<()> {
    let built_in = origin.iter().map(|socket| socket.addr);
    let plan = Plan {
        upstreams: Upstreams::new(flags.upstreams.iter().map(|u| u.addr).chain(built_in)),
        sockets: sockets.into_iter().map(|socket| socket.listener).collect(),
        origin: origin.map(|socket| socket.listener),
        config: Config { timeouts: flags.timeouts, max_head: flags.max_head, ..Config::default() },
        signals,
    };
    match flags.runtime {
        #[cfg(feature = "tokio")]
        RuntimeName::Tokio => {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
            runtime.block_on(async {
                drive::<_, tidegate_tokio::Listener>(tidegate_tokio::Tokio::new()?, plan).await
            })
        }
        #[cfg(feature = "smol")]
        RuntimeName::Smol => {
            let executor = std::sync::Arc::new(smol::Executor::new());
            let runtime = tidegate_smol::Smol::on(&executor);
            smol::block_on(executor.run(drive::<_, tidegate_smol::Listener>(runtime, plan)))
        }
        #[cfg(feature = "async-std")]
        RuntimeName::AsyncStd => {
            let runtime = tidegate_async_std::AsyncStd::new();
            async_std::task::block_on(drive::<_, tidegate_async_std::Listener>(runtime, plan))
        }
    }
}

async fn drive<R, L>(runtime: R, plan: Plan) -> io::Result<()>
where
    R: Runtime + Spawn<Connection<R, L::Stream, Route, Observe>> + Spawn<origin::Task>,
    R: Clone + Send + Sync + 'static,
    R::Timer: Send,
    L: Listener + TryFrom<TcpListener, Error = io::Error> + Send + 'static,
    L::Stream: Send,
{
    if let Some(socket) = plan.origin {
        let origin = origin::serve(runtime.clone(), L::try_from(socket)?, plan.config.timeouts);
        let task: origin::Task = Box::pin(origin);
        runtime.spawn(task);
    }
    let listeners = plan.sockets.into_iter().map(L::try_from).collect::<io::Result<Vec<L>>>()?;
    let proxy = Proxy::new(runtime, plan.upstreams, plan.config);
    let route: Route = |_| Decision::forward();
    let observe: Observe = |_| {};
    let mut serve = pin!(proxy.serve(Listeners::new(listeners), route, observe));
    poll_fn(|cx| {
        if plan.signals.poll_came(cx).is_ready() {
            proxy.stop();
        }
        serve.as_mut().poll(cx)
    })
    .await;
    Ok(())
}
