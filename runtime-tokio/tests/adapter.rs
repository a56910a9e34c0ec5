//! The adapter's promises on tokio, and what is tokio's alone: contexts and missing drivers.
//! The single-threaded runtime is used: it makes no progress behind a test's back.

mod shared;

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use tidegate_core::runtime::{Runtime, Spawn, Timer};
use tidegate_tokio::{Listener, Stream, Tokio};
use tokio::runtime::Builder;

fn run<F: Future>(test: impl FnOnce(Tokio) -> F) -> F::Output {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { test(Tokio::new().unwrap()).await })
}

fn bind(addr: SocketAddr) -> io::Result<(Listener, SocketAddr)> {
    let listener = Listener::bind(addr)?;
    let addr = listener.local_addr()?;
    Ok((listener, addr))
}

adapter_tests!(run, bind);

#[test]
fn outside_a_runtime_everything_is_an_error_and_nothing_panics() {
    assert!(Tokio::new().unwrap_err().to_string().contains("inside a tokio runtime"));
    let any = SocketAddr::from(([127, 0, 0, 1], 0));
    assert!(Listener::bind(any).is_err());
    let listener = std::net::TcpListener::bind(any).unwrap();
    let stream = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    assert!(Stream::try_from(stream).is_err());
    assert!(Listener::try_from(listener).is_err());
}

#[test]
fn a_runtime_without_its_drivers_is_refused() {
    for mut builder in [Builder::new_current_thread(), Builder::new_multi_thread()] {
        let any = SocketAddr::from(([127, 0, 0, 1], 0));
        for runtime in [builder.build().unwrap(), builder.enable_time().build().unwrap()] {
            let both = async { [Tokio::new().unwrap_err(), Listener::bind(any).unwrap_err()] };
            for error in runtime.block_on(both) {
                assert!(error.to_string().contains("enable_all"), "{error}");
            }
        }
    }
}

#[test]
fn used_from_another_executor_it_finds_its_own_runtime() {
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().unwrap();
    let tokio = runtime.block_on(async { Tokio::new().unwrap() });
    let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut cx = Context::from_waker(Waker::noop());

    // Here, no runtime is current.
    let mut timer = pin!(tokio.timer());
    timer.as_mut().arm(tokio.now() + Duration::from_secs(30));
    assert!(timer.as_mut().poll_fired(&mut cx).is_pending());
    let mut connect = pin!(tokio.connect(listener.local_addr().unwrap()));
    while connect.as_mut().poll(&mut cx).map(|connected| connected.unwrap()).is_pending() {
        std::thread::yield_now();
    }
}

#[test]
fn an_armed_timer_outlives_its_runtime_without_a_panic() {
    let runtime = Builder::new_current_thread().enable_all().build().unwrap();
    let tokio = runtime.block_on(async { Tokio::new().unwrap() });
    let mut cx = Context::from_waker(Waker::noop());
    let mut timer = pin!(tokio.timer());
    timer.as_mut().arm(tokio.now() + Duration::from_secs(30));
    assert!(timer.as_mut().poll_fired(&mut cx).is_pending());
    drop(runtime);
    assert_eq!(timer.as_mut().poll_fired(&mut cx), Poll::Ready(()), "a hint to look");

    let to = SocketAddr::from(([127, 0, 0, 1], 1));
    assert!(matches!(pin!(tokio.connect(to)).poll(&mut cx), Poll::Ready(Err(_))));
}

#[test]
fn a_spawned_task_runs_and_a_tokio_stream_is_taken_over() {
    run(|tokio| async move {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let stream = tokio::net::TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
        let (mut theirs, _) = listener.accept().unwrap();
        let mut timer = Box::pin(tokio.timer());
        timer.as_mut().arm(tokio.now());
        tokio.spawn(async move {
            std::future::poll_fn(|cx| timer.as_mut().poll_fired(cx)).await;
            tidegate_core::runtime::Stream::abort(Stream::from(stream));
        });
        // The one thread must be given up for the task to run.
        while theirs.set_nonblocking(true).and_then(|()| io::Read::read(&mut theirs, &mut [0])).is_err_and(
            |e| {
                assert!(
                    matches!(e.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::ConnectionReset),
                    "{e}"
                );
                e.kind() == io::ErrorKind::WouldBlock
            },
        ) {
            tokio::task::yield_now().await;
        }
    });
}
