//! Mistakes, each of which the model must find.

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Mutant {
    None,
    /// No C2 before C3.
    ClaimUnrecorded,
    /// C2 spares only a lease of its own lap.
    RecordOverLaterLap,
    /// A run goes on over a skip.
    RunOverSkip,
    /// Empty is said without a look at whether the head is still the one that was walked from.
    EmptyAtOnce,
    /// R2 before R1.
    RequeueBeforeRecord,
    /// No R3.
    NoAnnouncement,
    /// R3 before R2.
    AnnouncementFirst,
    /// R3 only for what this recoverer has requeued itself.
    AnnouncementOfOwn,
    /// R4 before R1, and the recoverer dies.
    VacantFirst,
    /// R2 leaves deliveries as they are.
    Unflagged,
    /// `seen` is read after the scan.
    SeenAfterScan,
    JoinWithoutScan,
    /// The bits in `done` count whatever their lap.
    DoneOfAnyLap,
    DoneIgnored,
    /// One message given back releases the whole run.
    RunReleasedEarly,
    /// A slot is written before the head has passed it.
    NoHeadCheck,
    /// A lease of an earlier lap is taken for a free slot without a look at the head.
    OldLeaseIsFree,
    /// A run is taken for one slot.
    MembersIgnored,
    /// A lease pins its slots in the next lap only.
    PinForOneLap,
    /// Slots are passed over before there is a message behind them.
    SkipAlone,
    FirstSealFirst,
    /// A skip does not keep the sequence of the message that it passes over.
    SkipForgetsSequence,
    /// Resume leaves seals of a batch that was never published.
    StaleSeals,
    /// A batch may take the slot of the last message that was published, and its sequence is lost.
    NotAnnounced,
    /// Resume clears seals, and the last message's with them.
    NotRestored,
    /// Resume takes the sequence from an unpublished batch although the lane's first message is missing.
    UnusedLaneSeemsFilled,
    /// Resume doesn't look at the slots behind the tail one by one.
    FromRunToRun,
    /// A consumer that puts messages back does not tell.
    PutBackUntold,
}
