//! Rings without a name outside this process: for its threads, and for children forked after the ring was made.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError, Weak};

use crate::channel::{Existence, Options, make};
use crate::error::{Error, ErrorKind, Result};
use crate::segment::Segment;

/// The segments that endpoints of this process hold. A forked child inherits the endpoints, inert, and so the segments.
static SEGMENTS: Mutex<Option<HashMap<String, Weak<Segment>>>> = Mutex::new(None);

/// Finds or makes the ring of that name.
pub(super) fn find_or_make(name: &str, options: &Options) -> Result<Arc<Segment>> {
    // Nothing panics while it is locked, and a map is whole after each call.
    let mut segments = SEGMENTS.lock().unwrap_or_else(PoisonError::into_inner);
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
