//! Tasks on smol's executors.
//!
//! A task owns a clone of its runtime. An executor that lived in the runtime would be kept alive by
//! its own tasks for ever, so an executor of the embedder's is held weakly: when it is dropped, its tasks
//! and their sockets go with it.

use std::future::Future;
use std::rc::{Rc, Weak as LocalWeak};
use std::sync::{Arc, Weak};

use smol::{Executor, LocalExecutor};
use tidegate_core::runtime::Spawn;

use crate::{Global, Smol};

impl Smol<Weak<Executor<'static>>> {
    /// Spawns on `executor`. A task spawned after `executor` is gone is dropped, which cancels it.
    pub fn on(executor: &Arc<Executor<'static>>) -> Self {
        Smol { executor: Arc::downgrade(executor) }
    }
}

impl Smol<LocalWeak<LocalExecutor<'static>>> {
    /// Spawns on `executor`, whose tasks need not be `Send`. A task spawned after `executor` is gone is
    /// dropped, which cancels it.
    ///
    /// The hooks of a proxy may hold an `Rc`:
    ///
    /// ```
    /// # use std::{cell::Cell, rc::Rc};
    /// # use tidegate_core::{Config, Decision, Proxy, Report, Upstreams};
    /// # use tidegate_smol::{Listener, Smol};
    /// # let executor = Rc::new(smol::LocalExecutor::new());
    /// let smol = Smol::local(&executor);
    /// let proxy = Proxy::new(smol, Upstreams::default(), Config::default());
    /// let seen = Rc::new(Cell::new(0));
    /// let observe = move |_: &Report<'_>| seen.set(seen.get() + 1);
    /// let server = proxy.serve(Listener::bind(([127, 0, 0, 1], 0).into())?, |_| Decision::forward(), observe);
    /// # drop(server);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    ///
    /// On an executor that has threads the same hooks do not compile:
    ///
    /// ```compile_fail,E0277
    /// # use std::{cell::Cell, rc::Rc};
    /// # use tidegate_core::{Config, Decision, Proxy, Report, Upstreams};
    /// # use tidegate_smol::{Listener, Smol};
    /// # let executor = Rc::new(smol::LocalExecutor::new());
    /// let smol = Smol::new();
    /// let proxy = Proxy::new(smol, Upstreams::default(), Config::default());
    /// let seen = Rc::new(Cell::new(0));
    /// let observe = move |_: &Report<'_>| seen.set(seen.get() + 1);
    /// let server = proxy.serve(Listener::bind(([127, 0, 0, 1], 0).into())?, |_| Decision::forward(), observe);
    /// # drop(server);
    /// # Ok::<(), std::io::Error>(())
    /// ```
    pub fn local(executor: &Rc<LocalExecutor<'static>>) -> Self {
        Smol { executor: Rc::downgrade(executor) }
    }
}

impl<F: Future<Output = ()> + Send + 'static> Spawn<F> for Smol<Global> {
    fn spawn(&self, task: F) {
        smol::spawn(task).detach();
    }
}

impl<F: Future<Output = ()> + Send + 'static> Spawn<F> for Smol<Weak<Executor<'static>>> {
    fn spawn(&self, task: F) {
        if let Some(executor) = self.executor.upgrade() {
            executor.spawn(task).detach();
        }
    }
}

impl<F: Future<Output = ()> + 'static> Spawn<F> for Smol<LocalWeak<LocalExecutor<'static>>> {
    fn spawn(&self, task: F) {
        if let Some(executor) = self.executor.upgrade() {
            executor.spawn(task).detach();
        }
    }
}
