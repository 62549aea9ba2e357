//! Which CPUs the sides run on.

use std::{fs, io};

use rustix::thread::{CpuSet, sched_getaffinity, sched_setaffinity};

/// The CPUs of the two sides.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cpus {
    /// One CPU for each side.
    pub sides: [usize; 2],
    /// How many CPUs this process may use.
    pub allowed: usize,
}

impl Cpus {
    /// Picks from the CPUs this process may use: two cores of one package if there are, then two of different packages,
    /// then two hardware threads of one core, and where there is only one CPU, that one twice.
    pub fn choose() -> io::Result<Self> {
        in_order().map(|order| Self::of(&order))
    }

    /// The first two.
    pub(crate) fn of(order: &[usize]) -> Self {
        Self { sides: [order[0], *order.get(1).unwrap_or(&order[0])], allowed: order.len() }
    }

    /// Whether the sides can run at the same time.
    pub fn are_two(&self) -> bool {
        self.sides[0] != self.sides[1]
    }
}

/// All CPUs this process may use, at least one: those that come first are to be used first.
pub(crate) fn in_order() -> io::Result<Vec<usize>> {
    let set = sched_getaffinity(None)?;
    let mut order: Vec<usize> = (0..CpuSet::MAX_CPU).filter(|&cpu| set.is_set(cpu)).collect();
    let home = Place::of(*order.first().ok_or_else(|| io::Error::other("no CPU is allowed"))?);
    order[1..].sort_by_cached_key(|&cpu| Place::of(cpu).distance(&home));
    Ok(order)
}

/// Binds the calling thread to one CPU.
pub(crate) fn pin(cpu: usize) -> io::Result<()> {
    let mut set = CpuSet::new();
    set.set(cpu);
    Ok(sched_setaffinity(None, &set)?)
}

/// Package and core of a CPU, as the kernel tells them; virtual machines may tell nothing or lie.
#[derive(PartialEq)]
struct Place {
    package: Option<String>,
    core: Option<String>,
}

impl Place {
    fn of(cpu: usize) -> Self {
        let read = |name| fs::read_to_string(format!("/sys/devices/system/cpu/cpu{cpu}/topology/{name}")).ok();
        Self { package: read("physical_package_id"), core: read("core_id") }
    }

    fn distance(&self, other: &Self) -> u8 {
        match (self.package == other.package, self.core == other.core) {
            (true, false) => 0,
            (false, _) => 1,
            (true, true) => 2,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pinning_leaves_one_cpu_to_choose_from() {
        let cpus = Cpus::choose().unwrap();
        assert_eq!(cpus.are_two(), cpus.allowed > 1);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                pin(cpus.sides[1]).unwrap();
                let alone = Cpus::choose().unwrap();
                assert_eq!(alone, Cpus { sides: [cpus.sides[1]; 2], allowed: 1 });
            });
        });
    }
}
