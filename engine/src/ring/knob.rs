//! Limits and orders that are the shard's own choice, and which a simulation chooses at random.
//!
//! Data flow: production code asks [`Ring::knob`](super::Ring::knob) where any answer is right
//! and only one is usual → a production ring gives the usual one, at compile time → a simulated
//! ring sometimes gives a hostile one. What a kernel never makes happen (a pool that is empty at
//! the worst moment, a refill that comes late) then happens in every sweep.
//!
//! Not here: what a kernel may do (`sim`), deliberate bugs ([`Plant`](super::Plant)).

/// A place where the engine could as well choose otherwise.
///
/// Of a limit, the usual answer is the highest, and any from 1 on will do. Of a decision, the
/// usual answer is 0, "do as always", and 1 is "not this time".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Knob {
    /// How many times its usual time an op that was refused waits to be tried again: usually 1,
    /// any number will do.
    BackOff,
    /// Decision: an op whose time to be tried again has come stays where it is.
    HoldRetry,
    /// Decision: the arena is taken to have no bounce buffer at the moment.
    EmptyPool,
    /// Limit: neighbours of a batch that become one op.
    CoalescedParts,
    /// Decision: no flush is linked behind a durable write, it comes later by itself.
    Unlinked,
    /// Limit: steps of a chain that are launched as one chain of the kernel's.
    LinkedSteps,
    /// Decision: of foreground and background work, the one whose turn it is not goes first.
    OtherClass,
    /// Decision: no more jobs are started before the next `enter`.
    StopIssuing,
    /// Limit: requests that share one flush.
    SharedFlush,
    /// Decision: a flush that is due waits for the next turn.
    HoldFlush,
    /// Decision: the ring is not asked yet to cancel what is to be cancelled.
    HoldCancel,
    /// Decision: the room that completions have made is filled in the next turn only.
    LateRefill,
}

impl Knob {
    /// Every knob.
    pub const ALL: [Self; 12] = [
        Self::BackOff,
        Self::HoldRetry,
        Self::EmptyPool,
        Self::CoalescedParts,
        Self::Unlinked,
        Self::LinkedSteps,
        Self::OtherClass,
        Self::StopIssuing,
        Self::SharedFlush,
        Self::HoldFlush,
        Self::HoldCancel,
        Self::LateRefill,
    ];

    /// What a report calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::BackOff => "odd back-off",
            Self::HoldRetry => "retry held",
            Self::EmptyPool => "pool emptied",
            Self::CoalescedParts => "run cut short",
            Self::Unlinked => "flush not linked",
            Self::LinkedSteps => "chain in pieces",
            Self::OtherClass => "other class first",
            Self::StopIssuing => "issuing stopped",
            Self::SharedFlush => "flush not shared",
            Self::HoldFlush => "flush held",
            Self::HoldCancel => "cancel held",
            Self::LateRefill => "refill late",
        }
    }
}
