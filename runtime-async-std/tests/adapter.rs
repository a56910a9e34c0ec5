//! The adapter's promises on async-std's own executor.

#[path = "../../runtime-tokio/tests/shared/mod.rs"]
mod shared;

use std::future::Future;
use std::io::{self, Read};
use std::net::SocketAddr;
use std::sync::mpsc;

use async_std::task;
use tidegate_async_std::{AsyncStd, Listener};
use tidegate_core::runtime::{Spawn, Stream};

fn run<F: Future>(test: impl FnOnce(AsyncStd) -> F) -> F::Output {
    task::block_on(test(AsyncStd::new()))
}

fn bind(addr: SocketAddr) -> io::Result<(Listener, SocketAddr)> {
    let listener = Listener::bind(addr)?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

adapter_tests!(run, bind);

#[test]
fn a_spawned_task_runs() {
    let (done, ran) = mpsc::channel();
    AsyncStd::new().spawn(async move { done.send(()).unwrap() });
    ran.recv().unwrap();
}

#[test]
fn a_stream_of_async_stds_is_taken_over_unless_it_has_clones() {
    task::block_on(async {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = async_std::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        let mut ours = tidegate_async_std::stream(stream).unwrap();
        let empty = ours.try_read(&mut [0]).unwrap_err();
        assert_eq!(empty.kind(), io::ErrorKind::WouldBlock, "nonblocking again");
        ours.abort();
        assert_eq!(theirs.read(&mut [0]).unwrap_err().kind(), io::ErrorKind::ConnectionReset);

        let stream = async_std::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let _clone = stream.clone();
        assert!(tidegate_async_std::stream(stream).is_err());
    });
}
