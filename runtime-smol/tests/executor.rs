//! Where tasks run: smol's global executor, and executors of the embedder's, which end their tasks.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::{Arc, mpsc};

use tidegate_core::runtime::Spawn;
use tidegate_smol::Smol;

#[test]
fn the_global_executor_runs_a_task() {
    let (done, ran) = mpsc::channel();
    Smol::new().spawn(async move { done.send(()).unwrap() });
    ran.recv().unwrap();
}

#[test]
fn an_executor_of_ones_own_runs_its_tasks_and_ends_them() {
    let executor = Arc::new(smol::Executor::new());
    let smol = Smol::on(&executor);
    let (done, ran) = mpsc::channel();
    smol.spawn({
        let (smol, done) = (smol.clone(), done.clone());
        async move {
            done.send("ran").unwrap();
            let _held = (smol, done);
            std::future::pending().await
        }
    });
    assert!(executor.try_tick());
    assert_eq!(ran.try_recv(), Ok("ran"));
    drop(done);
    assert_eq!(ran.try_recv(), Err(mpsc::TryRecvError::Empty), "the task holds on");
    drop(executor);
    assert_eq!(ran.try_recv(), Err(mpsc::TryRecvError::Disconnected), "the task went with its executor");
    smol.spawn(async { unreachable!("there is nobody to run it") });
}

#[test]
fn a_local_executor_runs_tasks_that_are_not_send() {
    let executor = Rc::new(smol::LocalExecutor::new());
    let ran = Rc::new(Cell::new(false));
    let smol = Smol::local(&executor);
    smol.spawn({
        let (smol, ran) = (smol.clone(), ran.clone());
        async move {
            ran.set(true);
            let _held = (smol, ran);
            std::future::pending().await
        }
    });
    assert!(executor.try_tick());
    assert!(ran.get());
    drop(executor);
    assert_eq!(Rc::strong_count(&ran), 1, "the task went with its executor");
}
