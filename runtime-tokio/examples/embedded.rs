//! An application that embeds the proxy: it has tasks of its own, decides by path, counts how requests ended, replaces
//! the upstream under a running download, drains the proxy, and lives on.
//!
//! It runs by itself, on a multi-thread runtime and on a single-threaded one: origins and clients are inside, on
//! ports that the system chooses. Nothing here waits by sleeping; each step waits for the one before.

use std::collections::BTreeMap;
use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tidegate_core::{Config, Decision, Error, Proxy, Report, RequestHead, TimeoutPolicy, Upstreams};
use tidegate_tokio::{Listener, Tokio};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Builder;
use tokio::sync::{Notify, watch};
use tokio::task::JoinSet;

const LOCALHOST: &str = "127.0.0.1:0";

pub(crate) fn main() -> io::Result<()> {
    println!("-- on a multi-thread runtime");
    Builder::new_multi_thread().enable_all().build()?.block_on(application())?;
    println!("-- on a single-threaded runtime");
    Builder::new_current_thread().enable_all().build()?.block_on(application())?;
    Ok(())
}

/// The whole life of the application; says what it has counted.
pub(crate) async fn application() -> io::Result<Counts> {
    let (counts, mut changed) = watch::channel(Counts::default());
    let (beats, mut beat) = watch::channel(0);
    let own_work = tokio::spawn(own_work(counts.subscribe(), beats));
    let old = Origin::start("the old one").await?;

    // The proxy is one more task of the application.
    let proxy = Proxy::new(Tokio::new()?, Upstreams::new([old.addr]), Config::default());
    let listener = Listener::bind(LOCALHOST.parse().map_err(io::Error::other)?)?;
    let addr = listener.local_addr()?;
    let observe = move |report: &Report<'_>| counts.send_modify(|counts| counts.add(report));
    let server = tokio::spawn(proxy.serve(listener, routes(), observe));

    println!("{}", get(addr, "/health").await?);
    println!("{}", get(addr, "/api/orders").await?);
    println!("{}", get(addr, "/suggest?q=ti").await?);
    println!("{}", get(addr, "/elsewhere").await?);

    // Another upstream takes over while a download runs on the old one.
    let download = tokio::spawn(get(addr, "/download/film"));
    old.half_sent.notified().await;
    let new = Origin::start("the new one").await?;
    let upstreams = proxy.upstreams();
    let before = upstreams.list();
    upstreams.add(new.addr).ok_or_else(|| io::Error::other("too many upstreams"))?;
    before.iter().for_each(|(id, _)| upstreams.remove(*id));
    println!("{}", get(addr, "/api/orders").await?);

    old.go_on.notify_one();
    // An exchange gives its upstream back before it is reported: each report is a reason to look again.
    while before.iter().any(|(id, _)| upstreams.in_flight(*id) > 0) {
        changed.changed().await.map_err(io::Error::other)?;
    }
    println!("{}", download.await??);
    drop(old);

    // What runs is finished, nothing new begins, and the task ends.
    let download = tokio::spawn(get(addr, "/download/film"));
    new.half_sent.notified().await;
    proxy.drain();
    new.go_on.notify_one();
    server.await?;
    println!("{}", download.await??);
    println!("the proxy has ended: {:?}", proxy.gauges());
    println!("a late client: {}", get(addr, "/health").await.unwrap_err());

    // The application goes on.
    beat.mark_unchanged();
    beat.changed().await.map_err(io::Error::other)?;
    println!("the application works on: beat {}", *beat.borrow());
    own_work.abort();
    let counts = changed.borrow().clone();
    Ok(counts)
}

/// Where a request goes and how long it may take. Asked once a request, inline: it must not block.
fn routes() -> impl Fn(&RequestHead<'_>) -> Decision {
    let total = |total| Arc::new(TimeoutPolicy { total, ..TimeoutPolicy::default() });
    let api = total(Some(Duration::from_secs(30)));
    // A suggestion that comes later than this is of no use.
    let suggest = total(Some(Duration::from_millis(200)));
    // As long as it takes: a stall still ends it, by `read` or by `client_write`.
    let download = total(None);
    move |request| match request.path() {
        "/health" => Decision::respond(200, "well\n"),
        "/suggest" => Decision::forward_with(Arc::clone(&suggest)),
        path if path.starts_with("/api/") => Decision::forward_with(Arc::clone(&api)),
        path if path.starts_with("/download/") => Decision::forward_with(Arc::clone(&download)),
        _ => Decision::respond(404, "there is no such page\n"),
    }
}

/// How requests ended.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Counts {
    /// By the status that the client was sent.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// By the deadline that ran out.
    pub(crate) timeouts: BTreeMap<&'static str, u64>,
    /// All other errors.
    pub(crate) errors: u64,
}

impl Counts {
    fn add(&mut self, report: &Report<'_>) {
        if let Some(status) = report.status {
            *self.statuses.entry(status).or_default() += 1;
        }
        match report.error {
            Some(Error::Timeout(t)) => *self.timeouts.entry(t.kind.name()).or_default() += 1,
            Some(_) => self.errors += 1,
            None => {}
        }
    }
}

/// What the application does besides: it works in a rhythm of its own, and prints the counts when they have changed.
async fn own_work(mut counts: watch::Receiver<Counts>, beats: watch::Sender<u64>) {
    let mut rhythm = tokio::time::interval(Duration::from_millis(100));
    loop {
        rhythm.tick().await;
        beats.send_modify(|beat| *beat += 1);
        if counts.has_changed().is_ok_and(|changed| changed) {
            println!("   so far {:?}", *counts.borrow_and_update());
        }
    }
}

/// One request on a connection of its own: the status line and the body, on one line.
async fn get(proxy: SocketAddr, path: &str) -> io::Result<String> {
    let mut stream = TcpStream::connect(proxy).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: example.org\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut response = String::new();
    stream.read_to_string(&mut response).await?;
    let (head, body) = response.split_once("\r\n\r\n").unwrap_or_default();
    Ok(format!("{path}: {} -> {}", head.lines().next().unwrap_or_default(), body.trim_end()))
}

/// An upstream to play with. Dropping it ends it with all its connections.
struct Origin {
    addr: SocketAddr,
    /// The first half of a download is sent.
    half_sent: Arc<Notify>,
    /// The second half may be sent.
    go_on: Arc<Notify>,
    _tasks: JoinSet<()>,
}

impl Origin {
    async fn start(name: &'static str) -> io::Result<Origin> {
        let listener = TcpListener::bind(LOCALHOST).await?;
        let (addr, half_sent, go_on) = (listener.local_addr()?, Arc::default(), Arc::default());
        let (half, go) = (Arc::clone(&half_sent), Arc::clone(&go_on));
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                let (half, go) = (Arc::clone(&half), Arc::clone(&go));
                connections.spawn(async move { Origin::connection(stream, name, &half, &go).await });
            }
        });
        Ok(Origin { addr, half_sent, go_on, _tasks: tasks })
    }

    async fn connection(stream: TcpStream, name: &str, half: &Notify, go: &Notify) -> io::Result<()> {
        let mut stream = BufReader::new(stream);
        let mut line = String::new();
        while stream.read_line(&mut line).await? > 0 {
            let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
            while line != "\r\n" {
                line.clear();
                stream.read_line(&mut line).await?;
            }
            line.clear();
            if path.starts_with("/suggest") {
                // Too slow: the proxy resets the connection when its deadline comes.
                stream.read_line(&mut line).await?;
            } else if path.starts_with("/download/") {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\nhalf ", 10 + name.len());
                stream.write_all(head.as_bytes()).await?;
                half.notify_one();
                go.notified().await;
                stream.write_all(format!("full {name}").as_bytes()).await?;
            } else {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                stream.write_all(head.as_bytes()).await?;
            }
        }
        Ok(())
    }
}
