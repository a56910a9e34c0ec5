//! The proxy on the runtime that was asked for: one runtime instance a thread, and all of them one proxy.
//!
//! What differs between the runtimes is how to enter them; the rest is one generic function. No runtime is
//! entered before its sockets are open, so that a taken port is reported the same way everywhere. async-std has
//! one executor for the whole process, with threads of its own: there it is one instance.

use std::future::poll_fn;
use std::io;
use std::net::TcpListener;
use std::sync::Arc;
use std::thread;

use tidegate_core::http::RequestHead;
use tidegate_core::runtime::{Listener, Runtime, Spawn};
use tidegate_core::{Config, Connection, Decision, Proxy, Report, Target, TimeoutPolicy, Upstreams};

use crate::Socket;
use crate::access_log;
use crate::flags::{Flags, RuntimeName};
use crate::listeners::Listeners;
use crate::names;
use crate::origin;
use crate::signals::Signals;
use crate::threads::{self, Others};

/// The route: everything goes to the upstreams.
type Route = fn(&RequestHead<'_>) -> Decision;
/// The observer: the access log, if there is one.
type Observe = Box<dyn Fn(&Report<'_>) + Send + Sync>;

/// What the proxy needs apart from a runtime.
struct Plan {
    sockets: Vec<TcpListener>,
    origin: Option<TcpListener>,
    upstreams: Upstreams,
    config: Config,
    access_log: Option<access_log::Format>,
    signals: Signals,
}

/// What one thread needs apart from a runtime.
struct Share {
    sockets: Vec<TcpListener>,
    /// Only one thread has it.
    origin: Option<TcpListener>,
    timeouts: TimeoutPolicy,
    observe: Observe,
}

/// Runs until signals end it.
///
/// # Errors
///
/// A runtime cannot be built, or refuses a socket; or a thread has panicked.
pub(crate) fn on(
    flags: &Flags,
    sockets: Vec<Socket>,
    origin: Option<Socket>,
    signals: Signals,
) -> io::Result<()> {
    let own = origin.iter().map(|socket| Target::from(socket.addr));
    let targets = flags.upstreams.iter().cloned().chain(own);
    let plan = Plan {
        upstreams: Upstreams::with_limits(targets, flags.upstream_limits),
        sockets: sockets.into_iter().map(|socket| socket.listener).collect(),
        origin: origin.map(|socket| socket.listener),
        config: Config {
            timeouts: flags.timeouts,
            max_head: flags.max_head,
            max_body: flags.max_body,
            upgrades: flags.upgrades.clone(),
            trusted: flags.trusted.clone(),
            max_client_conns: flags.max_client_conns,
            ..Config::default()
        },
        access_log: flags.access_log,
        signals,
    };
    match flags.runtime {
        #[cfg(feature = "tokio")]
        RuntimeName::Tokio => {
            use tidegate_tokio::{Listener, Tokio};
            let build = |_| {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
                // Here and not on its thread: it takes a descriptor for a moment, and clients may have the rest by then.
                let here = runtime.block_on(async { Tokio::new() })?;
                Ok((runtime, here))
            };
            let runtimes = (0..cores(flags)).map(build).collect::<io::Result<Vec<_>>>()?;
            let first = match runtimes.first() {
                Some((_, here)) => here.clone(),
                None => return Ok(()),
            };
            plan.run(first, runtimes, |(runtime, here), proxy, share, others| {
                runtime.block_on(drive::<_, Listener>(proxy.on(here.clone()), here, share, others))
            })
        }
        #[cfg(feature = "smol")]
        RuntimeName::Smol => {
            use tidegate_smol::{Listener, Smol};
            let executors: Vec<_> = (0..cores(flags)).map(|_| Arc::default()).collect();
            let first = match executors.first() {
                Some(executor) => Smol::on(executor),
                None => return Ok(()),
            };
            plan.run(first, executors, |executor: Arc<smol::Executor<'static>>, proxy, share, others| {
                let here = Smol::on(&executor);
                let driven = drive::<_, Listener>(proxy.on(here.clone()), here, share, others);
                smol::block_on(executor.run(driven))
            })
        }
        #[cfg(feature = "async-std")]
        RuntimeName::AsyncStd => {
            use tidegate_async_std::{AsyncStd, Listener};
            if flags.threads.is_some() {
                tracing::warn!("`--threads` does nothing on async-std; ASYNC_STD_THREAD_COUNT does it there");
            }
            plan.run(AsyncStd::new(), vec![AsyncStd::new()], |here, proxy, share, others| {
                async_std::task::block_on(drive::<_, Listener>(proxy.clone(), here, share, others))
            })
        }
    }
}

/// How many threads there are to be.
#[cfg(any(feature = "tokio", feature = "smol"))]
fn cores(flags: &Flags) -> usize {
    flags.threads.unwrap_or_else(|| thread::available_parallelism().map_or(1, usize::from))
}

impl Plan {
    /// One proxy on all `instances` of a runtime, each entered by `enter` on a thread of its own.
    fn run<R: Runtime, I: Send>(
        self,
        first: R,
        instances: Vec<I>,
        enter: impl Fn(I, &Proxy<R>, Share, &Others) -> io::Result<()> + Sync,
    ) -> io::Result<()>
    where
        Proxy<R>: Sync,
    {
        let drain_limit = self.config.timeouts.drain;
        let mut jobs = Vec::new();
        let mut origin = self.origin;
        for instance in instances {
            let share = Share {
                // The same sockets, each registered with the reactor of its thread: with SO_REUSEPORT a second
                // process could bind as well and nobody would notice.
                sockets: self.sockets.iter().map(TcpListener::try_clone).collect::<io::Result<_>>()?,
                origin: origin.take(),
                timeouts: self.config.timeouts,
                observe: observer(self.access_log, &self.upstreams),
            };
            jobs.push((instance, share));
        }
        // What is left must not keep the port open once the threads have closed theirs.
        drop(self.sockets);
        let resolver = Arc::new(names::resolver());
        let _looked_up = names::look_up(&resolver, &self.upstreams);
        let proxy = Proxy::with_resolver(first, self.upstreams, self.config, resolver);
        let handle = self.signals.handle();
        let drain = |name: &str| {
            // Before the drain, at which those who are idle leave at once.
            let clients = proxy.gauges().clients;
            proxy.drain();
            let timeout =
                drain_limit.map_or("off".to_owned(), |limit| humantime::format_duration(limit).to_string());
            tracing::info!(signal = %name, %timeout, clients, "draining; a second signal stops at once");
        };
        let stop = |name: &str| {
            proxy.stop();
            tracing::info!(signal = %name, "stopping");
        };
        thread::scope(|scope| {
            let watch = || self.signals.watch(drain, stop);
            thread::Builder::new().name("signals".to_owned()).spawn_scoped(scope, watch)?;
            let work = |(instance, share), others: &Others| enter(instance, &proxy, share, others);
            let ended = threads::run(jobs, work, || proxy.stop());
            handle.close();
            ended
        })
    }
}

fn observer(access_log: Option<access_log::Format>, upstreams: &Upstreams) -> Observe {
    match access_log {
        Some(format) => {
            let upstreams = upstreams.clone();
            Box::new(move |report| access_log::write(format, report, &upstreams))
        }
        None => Box::new(|_| {}),
    }
}

/// One thread's part of the proxy, to its end.
async fn drive<R, L>(proxy: Proxy<R>, runtime: R, share: Share, others: &Others) -> io::Result<()>
where
    R: Runtime + Spawn<Connection<R, L::Stream, Route, Observe>> + Spawn<origin::Task>,
    R: Clone + Send + Sync + 'static,
    R::Timer: Send,
    L: Listener + TryFrom<TcpListener, Error = io::Error> + Send + 'static,
    L::Stream: Send,
{
    let is_origin = share.origin.is_some();
    if let Some(socket) = share.origin {
        let origin = origin::serve(runtime.clone(), L::try_from(socket)?, share.timeouts);
        let task: origin::Task = Box::pin(origin);
        runtime.spawn(task);
    }
    let listeners = share.sockets.into_iter().map(L::try_from).collect::<io::Result<Vec<L>>>()?;
    let route: Route = |_| Decision::forward();
    proxy.serve(Listeners::new(listeners), route, share.observe).await;
    if is_origin {
        // The other threads may still have requests at the origin, which ends with this one.
        poll_fn(|cx| others.poll_gone(cx)).await;
    }
    Ok(())
}
