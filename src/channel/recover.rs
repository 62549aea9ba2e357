//! Recovering a ring without taking part in it.

use std::sync::Arc;

use super::attach::open;
use super::mpmc::wake_everybody;
use crate::error::Result;
use crate::layout::{Form, MpmcView};
use crate::liveness::Crew;
use crate::segment::{Name, Segment};
use crate::wait::Belfry;

/// What a recovery did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct Recovery {
    /// How many dead members were found, and their places made free.
    pub deaths: u32,
    /// How many messages they held that others will receive now, marked as redelivered.
    pub redelivered: u64,
    /// How many messages they held that were dropped, as they wished, or because they were delivered too often already.
    pub dropped: u64,
}

/// Takes back what dead members of the ring of that name held.
///
/// All members do so by themselves: when one joins, and when one has waited for a while. A ring with one producer and one
/// consumer needs nothing of the kind: who takes over a role takes up what its last holder left.
///
/// # Errors
/// As [`inspect`](super::inspect), and when the kernel won't tell who is dead.
pub fn recover(name: &Name) -> Result<Recovery> {
    let segment = Arc::new(Segment::open(name)?);
    let geometry = open(&segment)?;
    let Form::Mpmc(layout) = &geometry.form else { return Ok(Recovery::default()) };
    // SAFETY: the layout is the segment's, which outlives the view.
    let view = unsafe { MpmcView::new(segment.as_ptr(), layout) };
    let recovery = Crew::new(&view, layout.max_deliveries).recover(&segment.locks()?, None, true)?;
    if recovery.deaths > 0 {
        // SAFETY: the geometry is the segment's; the belfry lives as long as the sleeper is used.
        unsafe {
            let belfry = Belfry::new(Arc::clone(&segment), &geometry)?;
            wake_everybody(&view, belfry.sleeper(0));
        }
    }
    Ok(Recovery { deaths: recovery.deaths, redelivered: recovery.requeued, dropped: recovery.dropped })
}
