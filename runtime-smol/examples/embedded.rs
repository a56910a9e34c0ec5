//! An application on one thread that embeds the proxy: it has tasks of its own, decides by path, counts how requests
//! ended in a plain `Rc`, replaces the upstream under a running download, drains the proxy, and lives on.
//!
//! It runs by itself: origins and clients are inside, on ports that the system chooses. Nothing here waits by
//! sleeping; each step waits for the one before.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use smol::LocalExecutor;
use smol::channel::{Receiver, Sender, bounded};
use smol::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use smol::net::{TcpListener, TcpStream};
use tidegate_core::{Config, Decision, Error, Proxy, Report, RequestHead, TimeoutPolicy, Upstreams};
use tidegate_smol::{Listener, Smol};

const LOCALHOST: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::LOCALHOST), 0);

pub(crate) fn main() -> io::Result<()> {
    let executor = Rc::new(LocalExecutor::new());
    smol::block_on(executor.run(application(&executor))).map(drop)
}

/// The whole life of the application; says what it has counted.
pub(crate) async fn application(executor: &Rc<LocalExecutor<'static>>) -> io::Result<Counts> {
    let counts = Rc::new(RefCell::new(Counts::default()));
    let (beats, beat) = bounded(1);
    let own_work = executor.spawn(own_work(Rc::clone(&counts), beats));
    let old = Origin::start(executor, "the old one").await?;

    // The proxy is one more task of the application. Its hooks hold an `Rc`: they never leave this thread.
    let proxy = Proxy::new(Smol::local(executor), Upstreams::new([old.addr]), Config::default());
    let listener = Listener::bind(LOCALHOST)?;
    let addr = listener.local_addr()?;
    let (ended, reported) = bounded(1);
    let observe = {
        let counts = Rc::clone(&counts);
        move |report: &Report<'_>| {
            counts.borrow_mut().add(report);
            // Full means that whoever waits is about to look anyway.
            let _ = ended.try_send(());
        }
    };
    let server = executor.spawn(proxy.serve(listener, routes(), observe));

    println!("{}", get(addr, "/health").await?);
    println!("{}", get(addr, "/api/orders").await?);
    println!("{}", get(addr, "/suggest?q=ti").await?);
    println!("{}", get(addr, "/elsewhere").await?);

    // Another upstream takes over while a download runs on the old one.
    let download = executor.spawn(get(addr, "/download/film"));
    old.wait_half_sent().await?;
    let new = Origin::start(executor, "the new one").await?;
    let upstreams = proxy.upstreams();
    let before = upstreams.list();
    upstreams.add(new.addr).ok_or_else(|| io::Error::other("too many upstreams"))?;
    before.iter().for_each(|(id, _)| upstreams.remove(*id));
    println!("{}", get(addr, "/api/orders").await?);

    old.go_on().await?;
    // An exchange gives its upstream back before it is reported: each report is a reason to look again.
    while before.iter().any(|(id, _)| upstreams.in_flight(*id) > 0) {
        reported.recv().await.map_err(io::Error::other)?;
    }
    println!("{}", download.await?);
    drop(old);

    // What runs is finished, nothing new begins, and the task ends.
    let download = executor.spawn(get(addr, "/download/film"));
    new.wait_half_sent().await?;
    proxy.drain();
    new.go_on().await?;
    server.await;
    println!("{}", download.await?);
    println!("the proxy has ended: {:?}", proxy.gauges());
    if let Err(e) = get(addr, "/health").await {
        println!("a late client: {e}");
    }

    // The application goes on: the second beat from here has begun after here.
    beat.recv().await.map_err(io::Error::other)?;
    println!("the application works on: beat {}", beat.recv().await.map_err(io::Error::other)?);
    own_work.cancel().await;
    Ok(counts.take())
}

/// Where a request goes and how long it may take. Asked once a request, inline: it must not block.
fn routes() -> impl Fn(&RequestHead<'_>) -> Decision {
    let total = |total| Arc::new(TimeoutPolicy { total, ..TimeoutPolicy::default() });
    let api = total(Some(Duration::from_secs(30)));
    // A suggestion that comes later than this is of no use.
    let suggest = total(Some(Duration::from_millis(200)));
    // As long as it takes: a stall still ends it, by `read` or by `client_write`.
    let download = total(None);
    let checks = Rc::new(Cell::new(0));
    move |request| match request.path() {
        "/health" => {
            checks.set(checks.get() + 1);
            Decision::respond(200, format!("well, asked {} times\n", checks.get()))
        }
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
async fn own_work(counts: Rc<RefCell<Counts>>, beats: Sender<u64>) {
    let mut shown = Counts::default();
    for beat in 1.. {
        smol::Timer::after(Duration::from_millis(100)).await;
        // Nobody may be listening; the work goes on.
        let _ = beats.try_send(beat);
        if *counts.borrow() != shown {
            shown = counts.borrow().clone();
            println!("   so far {shown:?}");
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

/// An upstream to play with. Dropping it closes its listener.
struct Origin {
    addr: SocketAddr,
    /// The first half of a download is sent.
    half_sent: Receiver<()>,
    /// The second half may be sent.
    go_on: Sender<()>,
    _accepts: smol::Task<()>,
}

impl Origin {
    async fn start(executor: &Rc<LocalExecutor<'static>>, name: &'static str) -> io::Result<Origin> {
        let listener = TcpListener::bind(LOCALHOST).await?;
        let addr = listener.local_addr()?;
        let ((half, half_sent), (go_on, go)) = (bounded(1), bounded(1));
        // Weakly: an executor that one of its own tasks holds would never be dropped.
        let weak = Rc::downgrade(executor);
        let accepts = executor.spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let Some(executor) = weak.upgrade() else { return };
                let (half, go) = (half.clone(), go.clone());
                executor.spawn(async move { Origin::connection(stream, name, half, go).await }).detach();
            }
        });
        Ok(Origin { addr, half_sent, go_on, _accepts: accepts })
    }

    async fn wait_half_sent(&self) -> io::Result<()> {
        self.half_sent.recv().await.map_err(io::Error::other)
    }

    async fn go_on(&self) -> io::Result<()> {
        self.go_on.send(()).await.map_err(io::Error::other)
    }

    async fn connection(stream: TcpStream, name: &str, half: Sender<()>, go: Receiver<()>) -> io::Result<()> {
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
                stream.get_mut().write_all(head.as_bytes()).await?;
                half.send(()).await.map_err(io::Error::other)?;
                go.recv().await.map_err(io::Error::other)?;
                stream.get_mut().write_all(format!("full {name}").as_bytes()).await?;
            } else {
                let head = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len());
                stream.get_mut().write_all(head.as_bytes()).await?;
            }
        }
        Ok(())
    }
}
