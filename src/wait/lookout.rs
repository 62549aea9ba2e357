//! The thread that looks, for those who only have descriptors, for what nobody rings for: killed peers, and rings that a killed peer
//! owed.
//!
//! There is one in a process, while there are such descriptors. It [probes](super::rounds) a few of them now and then, so that a thousand cost
//! hardly more than one.

use std::io;
use std::sync::atomic::{AtomicPtr, Ordering};
use std::sync::{Arc, Mutex, PoisonError, Weak};

use super::rounds::Rounds;
use super::watch::Watch;
use crate::sys::{fork, thread};

/// The watches of one process.
struct Lookout {
    process: u32,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    watches: Vec<Weak<Watch>>,
    has_thread: bool,
}

/// Has the endpoint looked after, as long as it or a descriptor of it lives.
pub(super) fn add(watch: &Arc<Watch>) -> io::Result<()> {
    let lookout = of_this_process();
    let mut state = lookout.state.lock().unwrap_or_else(PoisonError::into_inner);
    let added = Arc::downgrade(watch);
    if state.watches.iter().any(|known| known.ptr_eq(&added)) {
        return Ok(());
    }
    if !state.has_thread {
        thread::spawn("ringway-lookout", move || keep(lookout))?;
        state.has_thread = true;
    }
    state.watches.push(added);
    Ok(())
}

/// A forked child has not its parent's thread, and perhaps a lock that nobody will unlock: it begins anew.
fn of_this_process() -> &'static Lookout {
    static CURRENT: AtomicPtr<Lookout> = AtomicPtr::new(std::ptr::null_mut());

    let process = fork::enter();
    // Acquire: pairs with the exchange.
    let current = CURRENT.load(Ordering::Acquire);
    // SAFETY: what it leads to is never freed.
    if let Some(lookout) = unsafe { current.as_ref() }
        && lookout.process == process
    {
        return lookout;
    }
    let made = Box::leak(Box::new(Lookout { process, state: Mutex::default() }));
    match CURRENT.compare_exchange(current, made, Ordering::AcqRel, Ordering::Acquire) {
        Ok(_) => made,
        // SAFETY: as above; another thread of this process was quicker.
        Err(current) => unsafe { &*current },
    }
}

fn keep(lookout: &Lookout) {
    let mut rounds = Rounds::default();
    let mut count = 1;
    loop {
        std::thread::sleep(Rounds::interval(count));
        let mut state = lookout.state.lock().unwrap_or_else(PoisonError::into_inner);
        state.watches.retain(|watch| watch.upgrade().is_some_and(|watch| !watch.is_closed()));
        if state.watches.is_empty() {
            state.has_thread = false;
            return;
        }
        let watches: Vec<Arc<Watch>> = state.watches.iter().filter_map(Weak::upgrade).collect();
        // Probing takes system calls.
        drop(state);
        for watch in &watches {
            watch.ring_if_missed();
        }
        rounds.probe(watches.iter().map(AsRef::as_ref));
        count = watches.len();
    }
}
