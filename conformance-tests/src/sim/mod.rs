//! The whole proxy under one seed: clients, upstreams, network and scheduler, in virtual time.
//!
//! [`Plan::from_seed`] says what everybody does; [`run`] lets the real `serve`, `Connection`, `Keeper` and machine live
//! through it on a simulated runtime, and sweeps the [`Invariant`]s after every step. The same seed gives the same
//! history, byte for byte, on every machine. [`shrink`] makes of a plan that fails one that a person can read.
//!
//! ```
//! use tidegate_conformance::sim::{Plan, run};
//!
//! let plan = Plan::from_seed(7, 100);
//! let summary = run(&plan, None, false);
//! assert_eq!(summary.violation, None);
//! assert_eq!(summary, run(&plan, None, false));
//! ```

mod bug;
mod client;
mod draw;
mod golden;
mod ledger;
mod names;
mod plan;
mod planted;
mod rng;
mod run;
mod shrink;
mod tunnel;
mod upstream;
mod wire;

pub use self::bug::Bug;
pub use self::golden::golden;
pub use self::ledger::{Invariant, Violation};
pub use self::plan::{
    Answer, At, Batch, Body, Break, Client, Doing, Fault, Goodbye, Half, Id, Last, Leave, Names, Nonsense,
    Pace, Plan, Request, Tunnel,
};
pub use self::planted::{SimConnect, SimListener, SimRuntime, SimStream, SimTimer};
pub use self::rng::Rng;
pub use self::run::{Summary, run};
pub use self::shrink::{report, shrink, wanted_seed};
