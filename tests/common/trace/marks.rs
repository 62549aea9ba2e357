//! Where others can tell that something has happened: after each store to memory that they share, and before and after each
//! system call.

use super::traced::Step;
use super::{Traced, kill_sleepers};
use std::time::Instant;

/// A moment in the life of a child: how many times it has come to the beginning or the end of a system call, how many
/// instructions it has taken since, and where that has led it.
#[derive(Clone, Copy, Debug, Default)]
struct Mark {
    stops: usize,
    instructions: u64,
    address: u64,
}

/// Kills a child of `start` at each mark of its operation, and has `check` look at what is left each time, beginning with one
/// that came to the end, and says whether that was so. `start` makes the same situation each time.
pub fn kill_at_each_mark<S>(what: &str, start: impl Fn() -> (S, Traced), mut check: impl FnMut(S, bool)) {
    let begun = Instant::now();
    let mut end = |situation, child: Traced, ended| {
        child.kill();
        check(situation, ended);
    };
    let (marks, instructions, calls) = find(&start, &mut end);
    let mut displaced = 0;
    for mark in &marks {
        let (situation, mut child) = start();
        let mut ended = !(0..mark.stops).all(|_| child.step_to_call() == Step::Taken);
        ended = ended || !(0..mark.instructions).all(|_| child.step() == Step::Taken);
        displaced += u32::from(ended || mark.instructions > 0 && child.address() != mark.address);
        end(situation, child, ended);
    }
    println!(
        "{what}: {instructions} instructions, killed before and after {calls} calls and after {} stores: {} points; \
         {displaced} elsewhere, {:.1?}",
        marks.iter().filter(|mark| mark.instructions > 0).count(),
        marks.len() + 2,
        begun.elapsed()
    );
}

/// Kills one who wakes a sleeper after each instruction. If it first opens the sleeper's bell, which takes thousands, where others
/// can tell the difference.
pub fn kill_wakers<S>(wait: &str, what: &str, start: impl Fn() -> (S, Traced), mut check: impl FnMut(S, bool)) {
    match wait {
        "futex" | "sem" => kill_sleepers(what, start, |_| {}, |situation, place| check(situation, place.ended)),
        _ => kill_at_each_mark(what, start, check),
    }
}

/// Runs to the end, to learn where the calls are, and again, to learn where the stores are.
fn find<S>(start: &impl Fn() -> (S, Traced), end: &mut impl FnMut(S, Traced, bool)) -> (Vec<Mark>, u64, usize) {
    let (situation, mut child) = start();
    let mut returns = Vec::new();
    while child.step_to_call() == Step::Taken {
        let info = child.info();
        if info.op == libc::PTRACE_SYSCALL_INFO_ENTRY {
            returns.push(info.instruction_pointer);
        }
    }
    end(situation, child, true);

    let mut longest = (Vec::new(), 0);
    for _ in 0..5 {
        let (situation, mut child) = start();
        let (marks, instructions) = step_to_the_end(&mut child, &returns);
        let stops = marks.last().map_or(0, |mark| mark.stops);
        end(situation, child, true);
        // The heap may need a call more or less.
        if stops == 2 * returns.len() {
            return (marks, instructions, returns.len());
        }
        if marks.len() > longest.0.len() {
            longest = (marks, instructions);
        }
    }
    // Stepping takes longer than a slice, so that a sleeper may have woken up by itself, and needs no wake-up at the end: of these last calls
    // only where they begin and end is known.
    let (mut marks, instructions) = longest;
    let stops = marks.last().map_or(0, |mark| mark.stops);
    assert!(stops >= returns.len(), "it never took the same way twice");
    marks.extend((stops + 1..=2 * returns.len()).map(|stops| Mark { stops, ..Mark::default() }));
    (marks, instructions, returns.len())
}

/// The marks of a child whose calls return to these addresses, and how many instructions it took.
fn step_to_the_end(child: &mut Traced, returns: &[u64]) -> (Vec<Mark>, u64) {
    let mut marks = vec![Mark::default()];
    let (mut mark, mut instructions) = (Mark::default(), 0);
    let mut shared = Shared::of(child);
    while child.step() == Step::Taken {
        instructions += 1;
        mark.address = child.address();
        if returns.get(mark.stops / 2) == Some(&mark.address) {
            for _ in 0..2 {
                mark = Mark { stops: mark.stops + 1, ..Mark::default() };
                marks.push(mark);
            }
            shared = Shared::of(child);
        } else {
            mark.instructions += 1;
            if shared.has_changed(child) {
                marks.push(mark);
            }
        }
    }
    (marks, instructions)
}

/// The memory that a child shares with others.
struct Shared {
    /// Address, and content when last looked at.
    ranges: Vec<(usize, Vec<u8>)>,
    /// For the next look.
    spare: Vec<u8>,
}

impl Shared {
    fn of(child: &Traced) -> Self {
        let maps = std::fs::read_to_string(format!("/proc/{}/maps", child.pid())).unwrap();
        let mut files = std::collections::HashSet::new();
        let ranges = maps.lines().filter_map(|line| {
            let mut fields = line.split_whitespace();
            let (start, end) = fields.next()?.split_once('-')?;
            let writable = fields.next()?.starts_with("rw-s");
            let file: Vec<_> = fields.take(3).collect();
            // What it inherited is often mapped twice.
            if !writable || !files.insert(file) {
                return None;
            }
            let address = |text| usize::from_str_radix(text, 16).unwrap();
            Some((address(start), vec![0; address(end) - address(start)]))
        });
        let mut shared = Self { ranges: ranges.collect(), spare: Vec::new() };
        shared.has_changed(child);
        shared
    }

    fn has_changed(&mut self, child: &Traced) -> bool {
        let mut changed = false;
        for (address, content) in &mut self.ranges {
            self.spare.resize(content.len(), 0);
            if read(child, *address, &mut self.spare) && self.spare != *content {
                content.copy_from_slice(&self.spare);
                changed = true;
            }
        }
        changed
    }
}

/// Copies memory of a child; false if it has none there.
fn read(child: &Traced, address: usize, bytes: &mut [u8]) -> bool {
    let local = libc::iovec { iov_base: bytes.as_mut_ptr().cast(), iov_len: bytes.len() };
    let remote = libc::iovec { iov_base: std::ptr::without_provenance_mut(address), iov_len: bytes.len() };
    // SAFETY: `local` is a buffer and its length; the kernel checks the other's.
    let copied = unsafe { libc::process_vm_readv(child.pid() as libc::pid_t, &local, 1, &remote, 1, 0) };
    copied == bytes.len() as isize
}
