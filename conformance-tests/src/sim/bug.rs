//! The bugs that are planted to show that the simulation finds them, and the promises that each breaks. What each of them
//! does is in `planted.rs`.

use super::ledger::Invariant;

/// What is wrong with the runtime, or with what stands around the proxy.
#[derive(Copy, Clone, Debug, PartialEq, Eq)]
pub enum Bug {
    /// Now and then a timer is not armed.
    LostTimer,
    /// Now and then a read does not register its waker.
    LostWaker,
    /// The clock runs two per cent fast.
    FastClock,
    /// Now and then a write drops a byte and says that it did not.
    LostByte,
    /// Now and then a write sends a byte twice.
    RepeatedByte,
    /// Now and then a write ends with bytes of another connection's, and that with its.
    CrossedBytes,
    /// A reset connection is kept open and handed out by the next connect.
    ReusedConnection,
    /// Reset is done as an ordinary close.
    FinForRst,
    /// A reset is late by half a second.
    LateClose,
    /// Now and then a reset does not close its descriptor.
    LeakedSocket,
    /// Sockets take without limit what they are given.
    EndlessBuffer,
    /// Every twentieth outcome is reported twice.
    TwoOutcomes,
    /// A finished connection's task is kept.
    LeakedTask,
    /// Now and then a timer that is dropped stays armed.
    LeakedTimer,
    /// Now and then a timer is ten seconds late.
    LateTimer,
    /// A timer that has fired cannot be armed again.
    SpentTimer,
    /// The clock stands still after a while.
    FrozenClock,
    /// A connect that is dropped goes on.
    GhostConnect,
    /// A reset is read as the end of the stream.
    SwallowedError,
    /// Closing is done as reset.
    RstForFin,
    /// FIN is not sent.
    LostFin,
    /// Now and then a read wakes its task for ever.
    BusyTask,
    /// One exchange more than allowed is let to each upstream.
    WideLimit,
    /// One idle connection more than allowed is kept to each upstream.
    WidePool,
    /// A timer fires as soon as it is armed.
    HastyTimer,
    /// A timer fires half way to its time. That breaks no promise of the proxy's, and is not in [`Bug::ALL`].
    EarlyTimer,
    /// Now and then readiness is noticed late, and until then a read believes that there is nothing, the direct one too.
    StaleReadiness,
    /// Now and then a read's wake-up is ten seconds late.
    LateWaker,
    /// Now and then the listener does not register its waker.
    DeafListener,
    /// Now and then a connect does not register its waker.
    DeafConnect,
    /// An outcome is told half a second after it came.
    LateOutcome,
    /// A stream to an upstream takes without limit what it is given.
    EndlessUpload,
    /// Now and then, when a request is over, a place at an upstream is granted to somebody who is gone and never gives
    /// it back.
    LostPermit,
}

impl Bug {
    /// Every bug that does harm.
    pub const ALL: [Bug; 32] = [
        Bug::LostTimer,
        Bug::LostWaker,
        Bug::FastClock,
        Bug::LostByte,
        Bug::RepeatedByte,
        Bug::ReusedConnection,
        Bug::FinForRst,
        Bug::LateClose,
        Bug::LeakedSocket,
        Bug::EndlessBuffer,
        Bug::TwoOutcomes,
        Bug::LeakedTask,
        Bug::LateTimer,
        Bug::SpentTimer,
        Bug::FrozenClock,
        Bug::GhostConnect,
        Bug::SwallowedError,
        Bug::RstForFin,
        Bug::LostFin,
        Bug::BusyTask,
        Bug::WideLimit,
        Bug::WidePool,
        Bug::HastyTimer,
        Bug::StaleReadiness,
        Bug::LateWaker,
        Bug::DeafListener,
        Bug::DeafConnect,
        Bug::LateOutcome,
        Bug::EndlessUpload,
        Bug::LostPermit,
        Bug::CrossedBytes,
        Bug::LeakedTimer,
    ];
}

impl Bug {
    /// The promises that it breaks: which of them is noticed first depends on the seed.
    pub fn breaks(self) -> &'static [Invariant] {
        match self {
            Bug::LostTimer | Bug::LateTimer | Bug::SpentTimer => {
                &[Invariant::EveryWaitHasADeadline, Invariant::Answered]
            }
            Bug::EarlyTimer => &[],
            Bug::FrozenClock | Bug::BusyTask | Bug::HastyTimer => &[Invariant::Progress],
            Bug::FastClock => &[Invariant::NotEarly],
            Bug::StaleReadiness => &[Invariant::NotEarly],
            Bug::LostByte | Bug::RepeatedByte | Bug::CrossedBytes | Bug::SwallowedError => {
                &[Invariant::Bytes]
            }
            Bug::ReusedConnection => &[Invariant::Bytes, Invariant::NothingAfter, Invariant::NothingLeft],
            // What ends with FIN looks whole where only RST shows that it is not.
            Bug::FinForRst => &[Invariant::NothingAfter, Invariant::Bytes],
            Bug::LateClose => &[Invariant::NothingAfter],
            // Whoever is at the other end waits for ever.
            Bug::LeakedSocket => &[Invariant::NothingLeft, Invariant::Answered],
            Bug::GhostConnect | Bug::LeakedTimer => &[Invariant::NothingLeft],
            Bug::LostWaker | Bug::LeakedTask | Bug::RstForFin | Bug::LostFin => &[Invariant::Answered],
            Bug::LateWaker | Bug::DeafListener | Bug::DeafConnect => &[Invariant::Answered],
            Bug::EndlessBuffer => &[Invariant::Memory],
            // Nobody is told what becomes of the bytes that it holds.
            Bug::EndlessUpload => &[Invariant::Memory, Invariant::Bytes],
            Bug::TwoOutcomes | Bug::LateOutcome => &[Invariant::OneOutcome],
            Bug::WideLimit | Bug::WidePool | Bug::LostPermit => &[Invariant::Permits],
        }
    }
}
