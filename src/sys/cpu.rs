//! How many CPUs there are to run on.

use std::sync::atomic::{AtomicUsize, Ordering};

/// The number of CPUs that are online, looked up once.
///
/// Not the size of this process's affinity mask: a process pinned to one CPU, as low-latency services are, has a peer
/// pinned to another one, and spinning for it is right.
pub(crate) fn online() -> usize {
    static CPUS: AtomicUsize = AtomicUsize::new(0);
    // Relaxed: pairs with nothing, every thread would store the same value.
    match CPUS.load(Ordering::Relaxed) {
        0 => {
            // SAFETY: sysconf has no preconditions.
            let cpus = unsafe { libc::sysconf(libc::_SC_NPROCESSORS_ONLN) };
            let cpus = usize::try_from(cpus).unwrap_or(1).max(1);
            CPUS.store(cpus, Ordering::Relaxed);
            cpus
        }
        cpus => cpus,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn at_least_the_cpus_this_thread_may_use() {
        assert!(online() >= 1);
        let allowed = nix::sched::sched_getaffinity(nix::unistd::Pid::from_raw(0)).unwrap();
        let allowed = (0..nix::sched::CpuSet::count()).filter(|&i| allowed.is_set(i).unwrap()).count();
        assert!(online() >= allowed, "{} online, {allowed} allowed", online());
    }
}
