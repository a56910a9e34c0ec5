//! The application of `docs/EMBEDDING-TOKIO.md`, which shows it word for word: the page's `src/main.rs`.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;

use tidegate_core::{Config, Decision, Error, Proxy, Report, RequestHead, Target, TimeoutPolicy, Upstreams};
use tidegate_tokio::{Listener, Tokio};
use tokio::io::{AsyncBufReadExt, BufReader};

fn main() -> io::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let result = runtime.block_on(application());
    // Not by a drop: that would wait for the thread that reads the standard input.
    runtime.shutdown_background();
    result
}

async fn application() -> io::Result<()> {
    let listen = SocketAddr::from(([127, 0, 0, 1], 8080));
    let upstreams = Upstreams::new([SocketAddr::from(([127, 0, 0, 1], 9000))]);
    let proxy = Proxy::new(Tokio::new()?, upstreams, Config::default());
    let server = tokio::spawn(proxy.serve(Listener::bind(listen)?, routes(), observe));
    println!("on http://{listen}/; an address replaces the upstream, Ctrl-C ends it");

    let mut lines = BufReader::new(tokio::io::stdin()).lines();
    loop {
        tokio::select! {
            _ = tokio::signal::ctrl_c() => break,
            line = lines.next_line() => match line? {
                Some(line) => replace(proxy.upstreams(), &line),
                None => break,
            },
        }
    }
    println!("finishing {} requests", proxy.gauges().in_flight);
    proxy.drain();
    server.await?;
    println!("the proxy has ended");
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
fn observe(report: &Report<'_>) {
    let target = report.request.map_or("-", |request| request.target());
    let took = report.finished.saturating_since(report.started);
    match report.error {
        None => println!("{target}: {:?} in {took:?}", report.status),
        Some(Error::Timeout(t)) => println!("{target}: {:?}, the {} deadline", report.status, t.kind),
        Some(error) => println!("{target}: {:?}, {error}", report.status),
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
