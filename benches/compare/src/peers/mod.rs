//! The queues of others, between threads of one process, as links of the harness.

mod crossbeam;
mod gil;
mod kanal;
mod many;
mod rtrb;
mod thingbuf;

use std::{io, sync::Mutex};

pub use self::{
    crossbeam::{array_queue, channel},
    gil::{GilInPlace, GilValue, gil_mpmc},
    kanal::kanal,
    rtrb::{RtrbInPlace, RtrbValue},
    thingbuf::Thing,
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
