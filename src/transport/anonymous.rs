//! Rings without a name outside this process: for its threads, and for children forked after the ring was made.
//!
//! Which there are is kept under a lock, and a child inherits it as it was. So whoever forks takes it first, and parent and
//! child give it back: a child finds it free, and what it guards whole, whatever other threads of its parent were doing.

use std::cell::Cell;
use std::collections::HashMap;
use std::mem::ManuallyDrop;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use crate::channel::{Existence, Options, make};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::Segment;
use crate::sys::fork;

type Segments = Option<HashMap<String, Weak<Segment>>>;

/// The segments that endpoints of this process hold. A forked child inherits the endpoints, inert, and so the segments.
static SEGMENTS: Mutex<Segments> = Mutex::new(None);

thread_local! {
    /// The lock on them, while this thread forks.
    static HELD: Cell<Option<ManuallyDrop<MutexGuard<'static, Segments>>>> = const { Cell::new(None) };
}

fn lock() -> MutexGuard<'static, Segments> {
    // Nothing panics while it is locked, and a map is whole after each call.
    SEGMENTS.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Sees to it that whoever forks has the lock.
fn arm() {
    static ARMED: AtomicBool = AtomicBool::new(false);

    // Not by something that makes others wait, which a child might inherit half done. Two who come at once both do it.
    if !ARMED.load(Ordering::Acquire) && fork::surround(hold, let_go) {
        // Release: whoever sees it, and then locks, is waited for by those who fork.
        ARMED.store(true, Ordering::Release);
    }
}

/// Called once more for each that armed.
extern "C" fn hold() {
    let held = HELD.take().unwrap_or_else(|| ManuallyDrop::new(lock()));
    HELD.set(Some(held));
}

extern "C" fn let_go() {
    drop(HELD.take().map(ManuallyDrop::into_inner));
}

/// Finds or makes the ring of that name.
pub(super) fn find_or_make(name: &str, options: &Options) -> Result<Arc<Segment>> {
    arm();
    let mut segments = lock();
    let segments = segments.get_or_insert_default();
    segments.retain(|_, segment| segment.strong_count() > 0);
    let what = format!("anon:{name}");
    match (segments.get(name).and_then(Weak::upgrade), options.existence) {
        (Some(_), Existence::CreateNew) => Err(Error::new(ErrorKind::AlreadyExists, "create", what)),
        (Some(segment), _) => Ok(segment),
        (None, Existence::Open) => Err(Error::new(ErrorKind::NotFound, "open", what)
            .advise("an anonymous ring is seen only by the process that made it, and by children forked after that")),
        (None, _) => {
            let perm = options.perm.unwrap_or(0o600);
            let segment = Arc::new(make(options, &what, |bytes, init| Segment::memfd(name, bytes, perm, init))?);
            segments.insert(name.to_owned(), Arc::downgrade(&segment));
            Ok(segment)
        }
    }
}
