//! The queues of others, between two threads of one process, as links of the harness.

mod gil;
mod rtrb;

use std::{io, sync::Mutex};

pub use self::{
    gil::{GilInPlace, GilMpmc, GilValue},
    rtrb::{RtrbInPlace, RtrbValue},
};

/// Both ends of a queue, until the sides take them.
pub struct Ends<S, R>(Mutex<(Option<S>, Option<R>)>);

impl<S, R> Ends<S, R> {
    fn new((sender, receiver): (S, R)) -> Self {
        Self(Mutex::new((Some(sender), Some(receiver))))
    }

    fn sender(&self) -> io::Result<S> {
        self.0.lock().ok().and_then(|mut ends| ends.0.take()).ok_or_else(|| io::Error::other("the sender is taken"))
    }

    fn receiver(&self) -> io::Result<R> {
        self.0.lock().ok().and_then(|mut ends| ends.1.take()).ok_or_else(|| io::Error::other("the receiver is taken"))
    }
}
