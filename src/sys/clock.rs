//! Monotonic time and the identity of this boot.
//!
//! Deadlines are `Duration`s since the monotonic clock's origin: it is one and the same for all processes of a boot.

use std::{fs, io, time::Duration};

use super::fork::PerProcess;

fn read(clock: libc::clockid_t) -> Duration {
    let mut time = libc::timespec { tv_sec: 0, tv_nsec: 0 };
    // SAFETY: `time` is a valid place for one timespec, and the call writes nothing else.
    unsafe { libc::clock_gettime(clock, &mut time) };
    Duration::new(time.tv_sec as u64, time.tv_nsec as u32)
}

/// The monotonic clock.
pub(crate) fn now() -> Duration {
    read(libc::CLOCK_MONOTONIC)
}

/// The monotonic clock as of the last tick, in nanoseconds: a few milliseconds late, but cheap enough for hot paths.
pub(crate) fn coarse_ns() -> u64 {
    read(libc::CLOCK_MONOTONIC_COARSE).as_nanos() as u64
}

pub(crate) fn to_timespec(time: Duration) -> libc::timespec {
    // Deadlines beyond what the type holds (thousands of years on 64 bits) are as good as its maximum.
    let seconds = libc::time_t::try_from(time.as_secs()).unwrap_or(libc::time_t::MAX);
    libc::timespec { tv_sec: seconds, tv_nsec: time.subsec_nanos() as _ }
}

/// A random number that the kernel drew when it booted: its 16 bytes in order, as two words. A process reads it once: none outlives a boot,
/// but for those that are restored from a checkpoint, and they go on by the number under which their peers know them.
pub(crate) fn boot_id() -> io::Result<[u64; 2]> {
    static KNOWN: PerProcess<2> = PerProcess::unknown();

    KNOWN.get(|| {
        parse_uuid(&fs::read_to_string("/proc/sys/kernel/random/boot_id")?)
            .ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "the boot id is not a UUID"))
    })
}

fn parse_uuid(text: &str) -> Option<[u64; 2]> {
    let digits: String = text.trim().chars().filter(|&c| c != '-').collect();
    let number = u128::from_str_radix(&digits, 16).ok()?;
    (digits.len() == 32).then(|| [(number >> 64) as u64, number as u64].map(u64::to_be))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_coarse_clock_lags_the_fine_one() {
        let before = coarse_ns();
        let fine = now().as_nanos() as u64;
        assert!(before <= fine);
        assert!(now().as_nanos() as u64 >= fine);
    }

    #[test]
    fn the_boot_id_is_stable_and_random() {
        assert_eq!(boot_id().unwrap(), boot_id().unwrap());
        assert_ne!(boot_id().unwrap(), [0; 2]);
        let parsed = parse_uuid("00010203-0405-0607-0809-0a0b0c0d0e0f\n");
        assert_eq!(parsed.unwrap().map(u64::to_ne_bytes).as_flattened(), std::array::from_fn::<u8, 16, _>(|i| i as u8));
        assert_eq!(parse_uuid("00010203"), None);
        assert_eq!(parse_uuid("not a boot id"), None);
    }
}
