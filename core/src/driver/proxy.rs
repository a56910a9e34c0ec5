//! The proxy as an embedder holds it: upstreams, limits, the idle pool, and the way to stop it all.

use core::fmt;
use core::ops::Deref;
use std::net::SocketAddr;
use std::sync::Arc;

use crate::driver::connection::Connection;
use crate::driver::keeper::{Idle, Keeper};
use crate::driver::lifecycle::Lifecycle;
use crate::driver::serve::Serve;
use crate::driver::stats::{Stats, Tally};
use crate::driver::upstreams::Upstreams;
use crate::http::RequestHead;
use crate::relay::{Config, Outcome};
use crate::runtime::{Listener, Resolver, ResolverPool, Runtime, Spawn, Stream};
use crate::timeout::TimeoutPolicy;

/// What all connections of a proxy share.
pub(crate) struct Shared<R: Runtime> {
    pub(crate) runtime: R,
    pub(crate) upstreams: Upstreams,
    pub(crate) config: Arc<Config>,
    pub(crate) idle: Idle<R::Stream>,
    pub(crate) lifecycle: Arc<Lifecycle>,
    pub(crate) resolver: Arc<dyn Resolver>,
    pub(crate) tally: Tally,
}

/// A reverse proxy on the runtime `R`. Clones are the same proxy.
///
/// Dropping the last handle stops nothing by itself: what ends a connection is its own end,
/// [`Proxy::stop`], or the drop of the [`Serve`] that accepted it.
///
/// The same on every runtime; what an application writes is in the adapters' documentation.
///
/// ```
/// use tidegate_core::runtime::Runtime;
/// use tidegate_core::{Config, Proxy, TimeoutPolicy, Upstreams};
///
/// /// One proxy for two threads, each with a runtime instance of its own.
/// fn on_two<R: Runtime>(first: R, second: R, upstreams: Upstreams) -> (Proxy<R>, Proxy<R>) {
///     let config = Config { max_body: Some(1 << 20), ..Config::default() };
///     let proxy = Proxy::new(first, upstreams, config);
///     let other = proxy.on(second);
///     // The upstreams, the limits, drain and stop are shared.
///     assert_eq!(proxy.upstreams().list(), other.upstreams().list());
///     (proxy, other)
/// }
/// ```
pub struct Proxy<R: Runtime> {
    shared: Arc<Shared<R>>,
}

impl<R: Runtime> Clone for Proxy<R> {
    fn clone(&self) -> Proxy<R> {
        Proxy { shared: Arc::clone(&self.shared) }
    }
}

impl<R: Runtime> fmt::Debug for Proxy<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Proxy").field("upstreams", &self.shared.upstreams).finish_non_exhaustive()
    }
}

impl<R: Runtime> Proxy<R> {
    /// A proxy in front of `upstreams`. Those that are names are looked up by the system, on a [`ResolverPool`].
    pub fn new(runtime: R, upstreams: Upstreams, config: Config) -> Proxy<R> {
        Proxy::with_resolver(runtime, upstreams, config, Arc::new(ResolverPool::default()))
    }

    /// A proxy in front of `upstreams`, the names of which are looked up by `resolver`: one for all its connections,
    /// and for as many proxies as hold it.
    pub fn with_resolver(
        runtime: R,
        upstreams: Upstreams,
        config: Config,
        resolver: Arc<dyn Resolver>,
    ) -> Proxy<R> {
        let shared = Shared {
            runtime,
            upstreams,
            lifecycle: Arc::new(Lifecycle::new(config.max_client_conns)),
            idle: Idle::new(config.pool_size),
            config: Arc::new(config),
            resolver,
            tally: Tally::default(),
        };
        Proxy { shared: Arc::new(shared) }
    }

    /// Accepts clients from `listener` until [`Proxy::stop`], each in a task of its own.
    ///
    /// `route` is asked once a request, with its head, and says where it goes and how long it may take;
    /// `observe` is shown how each request ended. Both are called inline and must not block.
    ///
    /// Cancel safety: dropping the future closes the listener, stops every connection that it accepted, and closes
    /// the idle upstream connections if nothing else watches them.
    pub fn serve<L, F, G>(&self, listener: L, route: F, observe: G) -> Serve<R, L, F, G>
    where
        L: Listener,
        F: Fn(&RequestHead<'_>) -> Decision,
        G: Fn(&Report<'_>),
        R: Spawn<Connection<R, L::Stream, F, G>>,
    {
        Serve::new(Arc::clone(&self.shared), listener, route, observe)
    }

    /// Serves one client's connection: its requests one after the other, to the end of the connection.
    ///
    /// For those who accept themselves: run the future, and [`Proxy::keeper`] beside all of them. The limit of clients is
    /// theirs to keep. The documentation of the adapters' `Stream` types has examples.
    ///
    /// Cancel safety: dropping the future closes the client's connection and resets the upstream's.
    pub fn serve_connection<C, F, G>(
        &self,
        client: C,
        peer: Option<SocketAddr>,
        route: F,
        observe: G,
    ) -> Connection<R, C, F, G>
    where
        C: Stream,
        F: Fn(&RequestHead<'_>) -> Decision,
        G: Fn(&Report<'_>),
    {
        let membership = self.shared.lifecycle.join(true);
        Connection::new(Arc::clone(&self.shared), membership, Arc::new((route, observe)), client, peer)
    }

    /// The future that watches the idle upstream connections, for users of [`Proxy::serve_connection`]: one for each
    /// proxy from [`Proxy::new`] or [`Proxy::on`]. Ends when the proxy is stopped or drained; dropping it is safe.
    pub fn keeper(&self) -> Keeper<R> {
        Keeper::new(Arc::clone(&self.shared), Some(self.shared.lifecycle.join(false)))
    }

    /// Stops everything at once: listeners and idle connections are closed, running requests are cut off.
    /// Returns before it is done; a [`Serve`] ends when its connections have ended. May be called from
    /// anywhere, more than once.
    pub fn stop(&self) {
        self.shared.lifecycle.stop();
        self.shared.idle.close();
    }

    /// Lets what runs finish and begins nothing new: listeners are closed once they have accepted what was
    /// queued, idle connections are closed at once, running requests have until the drain timeout and are told
    /// `Connection: close`. A [`Serve`] ends when its connections have ended. Does nothing the second time.
    pub fn drain(&self) {
        self.shared.lifecycle.drain(self.shared.runtime.now());
        self.shared.idle.close();
    }

    /// The same proxy on another runtime instance, such as that of another thread: with the same upstreams, limits,
    /// resolver and lifecycle, and an idle pool of its own, since a connection belongs to one reactor. It may be a runtime
    /// of another kind, if both show the same time; those of the adapters do, unless tokio's clock is paused.
    pub fn on<S: Runtime>(&self, runtime: S) -> Proxy<S> {
        let shared = Shared {
            runtime,
            upstreams: self.shared.upstreams.clone(),
            config: Arc::clone(&self.shared.config),
            idle: Idle::new(self.shared.config.pool_size),
            lifecycle: Arc::clone(&self.shared.lifecycle),
            resolver: Arc::clone(&self.shared.resolver),
            tally: self.shared.tally.another(),
        };
        Proxy { shared: Arc::new(shared) }
    }

    /// The upstreams, which may be changed while the proxy runs.
    pub fn upstreams(&self) -> &Upstreams {
        &self.shared.upstreams
    }

    /// What has been done so far, on all runtime instances. Counting costs a request a few additions; this reads them
    /// all, so call it for a report, not for each request. The examples of the adapters' types show it.
    pub fn stats(&self) -> Stats {
        self.shared.tally.sum()
    }

    #[cfg(test)]
    pub(crate) fn shared(&self) -> Arc<Shared<R>> {
        Arc::clone(&self.shared)
    }

    /// How much is there now.
    pub fn gauges(&self) -> Gauges {
        Gauges {
            tasks: self.shared.lifecycle.members(),
            clients: self.shared.lifecycle.clients(),
            in_flight: self.shared.upstreams.busy(),
            waiting: self.shared.upstreams.waiting(),
            idle_upstreams: self.shared.idle.len(),
        }
    }
}

/// What a proxy holds at one moment.
///
/// ```
/// use tidegate_core::Proxy;
/// use tidegate_core::runtime::Runtime;
///
/// /// A line for a health page, and whether there is nothing left that a restart would cut off.
/// fn health<R: Runtime>(proxy: &Proxy<R>) -> (String, bool) {
///     let now = proxy.gauges();
///     let line = format!("{} clients, {} requests, {} wait", now.clients, now.in_flight, now.waiting);
///     (line, now.in_flight + now.waiting == 0)
/// }
/// ```
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Gauges {
    /// Futures that have not ended: connections, servers and keepers.
    pub tasks: usize,
    /// Client connections, on all runtime instances.
    pub clients: usize,
    /// Exchanges that hold an upstream, on all runtime instances.
    pub in_flight: usize,
    /// Requests that wait for an upstream, on all runtime instances.
    pub waiting: usize,
    /// Idle upstream connections of this runtime instance.
    pub idle_upstreams: usize,
}

/// How a request ended, as `observe` is shown it. It reads like its [`Outcome`].
///
/// ```
/// use tidegate_core::{Error, Report};
///
/// fn observe(report: &Report<'_>) {
///     let target = report.request.map_or("-", |request| request.target());
///     let took = report.finished.saturating_since(report.started);
///     match report.error {
///         None => println!("{target}: {:?} in {took:?}, {} bytes", report.status, report.response_bytes),
///         Some(Error::Timeout(t)) => println!("{target}: the {} deadline, waiting for the {}", t.kind, t.blocked_on),
///         Some(error) => println!("{target}: {error}"),
///     }
/// }
/// ```
#[derive(Copy, Clone, Debug)]
#[non_exhaustive]
pub struct Report<'a> {
    /// What became of it: plain values.
    pub outcome: &'a Outcome,
    /// Its head as it was written for the upstream; `None` if none was complete and sound. It always has a
    /// [`request_id`](RequestHead::request_id) and a [`trace_id`](RequestHead::trace_id).
    pub request: Option<RequestHead<'a>>,
    /// The client's address.
    pub peer: Option<SocketAddr>,
}

impl Deref for Report<'_> {
    type Target = Outcome;

    fn deref(&self) -> &Outcome {
        self.outcome
    }
}

/// What is to become of a request.
///
/// ```
/// use std::sync::Arc;
/// use tidegate_core::{Decision, RequestHead, Response, TimeoutPolicy};
///
/// // Made once; each request shares it.
/// let download = Arc::new(TimeoutPolicy { total: None, ..TimeoutPolicy::default() });
/// let route = move |request: &RequestHead<'_>| match (request.method(), request.path()) {
///     (_, "/health") => Decision::respond(200, "well\n"),
///     ("GET", "/old") => Decision::Respond(Response {
///         status: 308,
///         fields: vec![("location".into(), "/new".into())],
///         body: Vec::new(),
///     }),
///     (_, path) if path.starts_with("/download/") => Decision::forward_with(Arc::clone(&download)),
///     _ => Decision::forward(),
/// };
///
/// let request = RequestHead::new(b"GET /download/film?hd HTTP/1.1\r\nHost: example.org\r\n\r\n");
/// let Decision::Forward(Some(policy)) = route(&request) else { panic!("it has a policy of its own") };
/// assert_eq!(policy.total, None);
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum Decision {
    /// It goes to the upstream whose turn it is, under a policy of its own or the proxy's.
    Forward(Option<Arc<TimeoutPolicy>>),
    /// It is answered here.
    Respond(Response),
}

impl Decision {
    /// It goes to the upstream whose turn it is, under the proxy's own policy.
    pub fn forward() -> Decision {
        Decision::Forward(None)
    }

    /// It goes to the upstream whose turn it is, under `policy`. An `Arc` that is kept costs nothing a
    /// request.
    pub fn forward_with(policy: impl Into<Arc<TimeoutPolicy>>) -> Decision {
        Decision::Forward(Some(policy.into()))
    }

    /// It is answered here with a plain-text body; [`Response`] for anything else.
    pub fn respond(status: u16, body: impl Into<Vec<u8>>) -> Decision {
        Decision::Respond(Response { status, fields: Vec::new(), body: body.into() })
    }
}

/// A response that a route makes itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Response {
    /// The status code, 200 to 599; anything else goes out as 500.
    pub status: u16,
    /// Fields besides the framing, `date` and `connection`, which the proxy writes. Without a
    /// `content-type` the body is plain text.
    pub fields: Vec<(String, String)>,
    /// The body, whole.
    pub body: Vec<u8>,
}
