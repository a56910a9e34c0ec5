//! A whole reverse proxy on async-std: listens on port 8080, forwards to port 9000, logs what became of each
//! request. Every timeout has its default, see `TimeoutPolicy`. The binary `tidegate` does more; this must
//! stay the shortest real use.

use std::io;
use std::net::{Ipv4Addr, SocketAddr};

use tidegate_async_std::{AsyncStd, Listener};
use tidegate_core::{Config, Decision, Proxy, Upstreams};

fn main() -> io::Result<()> {
    async_std::task::block_on(proxy())
}

async fn proxy() -> io::Result<()> {
    let listen = SocketAddr::from((Ipv4Addr::LOCALHOST, 8080));
    let upstream = SocketAddr::from((Ipv4Addr::LOCALHOST, 9000));

    let proxy = Proxy::new(AsyncStd::new(), Upstreams::new([upstream]), Config::default());
    proxy
        .serve(Listener::bind(listen)?, |_request| Decision::forward(), |outcome| println!("{outcome:?}"))
        .await;
    Ok(())
}
