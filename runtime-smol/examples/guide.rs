//! The application of `docs/EMBEDDING-SMOL.md`, which shows it word for word: the page's `src/main.rs`.

use std::cell::Cell;
use std::io;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use smol::LocalExecutor;
use smol::io::{AsyncBufReadExt, BufReader};
use smol::stream::StreamExt;
use tidegate_core::{Config, Decision, Error, Proxy, Report, RequestHead, Target, TimeoutPolicy, Upstreams};
use tidegate_smol::{Listener, Smol};

fn main() -> io::Result<()> {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(application(&executor)))
}

async fn application(executor: &Rc<LocalExecutor<'static>>) -> io::Result<()> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 8080));
    let upstreams = Upstreams::new([SocketAddr::from(([127, 0, 0, 1], 9000))]);
    let proxy = Proxy::new(Smol::local(executor), upstreams, Config::default());
    // One thread: the hooks need no lock, and need not be `Send`.
    let failed = Rc::new(Cell::new(0));
    let server = executor.spawn(proxy.serve(Listener::bind(listen)?, routes(), observe(Rc::clone(&failed))));
    println!("on http://{listen}/; an address replaces the upstream, the end of the input ends it");

    let mut lines = BufReader::new(smol::Unblock::new(io::stdin())).lines();
    while let Some(line) = lines.next().await {
        replace(proxy.upstreams(), &line?);
    }
    println!("finishing {} requests", proxy.gauges().in_flight);
    proxy.drain();
    server.await;
    println!("the proxy has ended; {} requests failed", failed.get());
    Ok(())
}

/// Where a request goes, and how long it may take.
fn routes() -> impl Fn(&RequestHead<'_>) -> Decision {
    let download = Arc::new(TimeoutPolicy { total: None, ..TimeoutPolicy::default() });
    move |request| match request.path() {
        "/health" => Decision::respond(200, "well\n"),
        path if path.starts_with("/download/") => Decision::forward_with(Arc::clone(&download)),
        _ => Decision::forward(),
    }
}

/// What became of it.
fn observe(failed: Rc<Cell<u64>>) -> impl Fn(&Report<'_>) {
    move |report| {
        let target = report.request.map_or("-", |request| request.target());
        let took = report.finished.saturating_since(report.started);
        failed.set(failed.get() + u64::from(report.error.is_some()));
        match report.error {
            None => println!("{target}: {:?} in {took:?}", report.status),
            Some(Error::Timeout(t)) => println!("{target}: {:?}, the {} deadline", report.status, t.kind),
            Some(error) => println!("{target}: {:?}, {error}", report.status),
        }
    }
}

/// The new one takes its turn before the old ones are taken out.
fn replace(upstreams: &Upstreams, line: &str) {
    let Ok(target) = line.trim().parse::<Target>() else { return println!("not HOST:PORT: {line}") };
    let before = upstreams.list();
    if upstreams.add(target).is_some() {
        before.iter().for_each(|(id, _)| upstreams.remove(*id));
    }
    println!("now {:?}; still running on the old ones: {}", upstreams.list(), {
        before.iter().map(|(id, _)| upstreams.in_flight(*id)).sum::<usize>()
    });
}
