//! Copying out of, and into, memory that another process may be writing at the same time.
//!
//! Such a copy may yield a mixture of old and new bytes, which the caller has to expect; but it must not be undefined
//! behaviour. To the compiler `ptr::copy_nonoverlapping` racing with a write is: it may assume that the source doesn't
//! change and read it twice. Relaxed atomics are defined, but don't vectorise. Assembly is opaque to the compiler, which
//! must take its effect as what the processor does, and a processor's loads and stores are defined whatever others do.

/// Copies `len` bytes from `src` to `dst`, either of which other threads or processes may read and write meanwhile.
///
/// # Safety
/// `src` must be readable and `dst` writable for `len` bytes during the call, and they must not overlap.
#[inline]
pub(crate) unsafe fn copy_racing(dst: *mut u8, src: *const u8, len: usize) {
    #[cfg(target_arch = "x86_64")]
    // SAFETY: the caller's promise.
    unsafe {
        x86_64::copy(dst, src, len);
    }
    #[cfg(not(target_arch = "x86_64"))]
    // SAFETY: the caller's promise.
    unsafe {
        portable::copy(dst, src, len);
    }
}

#[cfg(target_arch = "x86_64")]
mod x86_64 {
    use std::arch::asm;

    /// From here on the processor's own string copy is the fastest; it costs some twenty cycles to start.
    const STRING_COPY: usize = 1024;

    /// Two loads that together cover `len` bytes, overlapping in the middle, and two stores.
    macro_rules! both_ends {
        ($dst:expr, $src:expr, $len:expr, $size:literal, $move:literal, $class:ident, $modifier:literal) => {
            asm!(
                concat!($move, " {first", $modifier, "}, [{src}]"),
                concat!($move, " {last", $modifier, "}, [{src} + {len} - ", $size, "]"),
                concat!($move, " [{dst}], {first", $modifier, "}"),
                concat!($move, " [{dst} + {len} - ", $size, "], {last", $modifier, "}"),
                dst = in(reg) $dst, src = in(reg) $src, len = in(reg) $len,
                first = out($class) _, last = out($class) _,
                options(nostack, preserves_flags),
            )
        };
    }

    #[inline]
    pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
        // SAFETY: every access below lies in `src..src+len` or `dst..dst+len`, as the range of `len` in its arm shows.
        unsafe {
            match len {
                0 => {}
                1 => asm!(
                    "mov {byte}, [{src}]", "mov [{dst}], {byte}",
                    dst = in(reg) dst, src = in(reg) src, byte = out(reg_byte) _,
                    options(nostack, preserves_flags),
                ),
                2..4 => both_ends!(dst, src, len, "2", "mov", reg, ":x"),
                4..8 => both_ends!(dst, src, len, "4", "mov", reg, ":e"),
                8..16 => both_ends!(dst, src, len, "8", "mov", reg, ":r"),
                16..=32 => both_ends!(dst, src, len, "16", "movups", xmm_reg, ""),
                33..=64 => asm!(
                    "movups {a}, [{src}]",
                    "movups {b}, [{src} + 16]",
                    "movups {c}, [{src} + {len} - 32]",
                    "movups {d}, [{src} + {len} - 16]",
                    "movups [{dst}], {a}",
                    "movups [{dst} + 16], {b}",
                    "movups [{dst} + {len} - 32], {c}",
                    "movups [{dst} + {len} - 16], {d}",
                    dst = in(reg) dst, src = in(reg) src, len = in(reg) len,
                    a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                    options(nostack, preserves_flags),
                ),
                65..STRING_COPY => by_lines(dst, src, len),
                _ => asm!(
                    "rep movsb",
                    inout("rdi") dst => _, inout("rsi") src => _, inout("rcx") len => _,
                    options(nostack, preserves_flags),
                ),
            }
        }
    }

    /// 64 bytes at a time; the last 64 overlap with what went before.
    ///
    /// # Safety
    /// As [`super::copy_racing`], and `len >= 64`.
    #[inline]
    unsafe fn by_lines(dst: *mut u8, src: *const u8, len: usize) {
        // SAFETY: the loop runs while `at < len - 64`, and then `at` becomes `len - 64`.
        unsafe {
            asm!(
                "2:",
                "movups {a}, [{src} + {at}]",
                "movups {b}, [{src} + {at} + 16]",
                "movups {c}, [{src} + {at} + 32]",
                "movups {d}, [{src} + {at} + 48]",
                "movups [{dst} + {at}], {a}",
                "movups [{dst} + {at} + 16], {b}",
                "movups [{dst} + {at} + 32], {c}",
                "movups [{dst} + {at} + 48], {d}",
                "add {at}, 64",
                "cmp {at}, {end}",
                "jb 2b",
                "movups {a}, [{src} + {end}]",
                "movups {b}, [{src} + {end} + 16]",
                "movups {c}, [{src} + {end} + 32]",
                "movups {d}, [{src} + {end} + 48]",
                "movups [{dst} + {end}], {a}",
                "movups [{dst} + {end} + 16], {b}",
                "movups [{dst} + {end} + 32], {c}",
                "movups [{dst} + {end} + 48], {d}",
                dst = in(reg) dst, src = in(reg) src, end = in(reg) len - 64, at = inout(reg) 0usize => _,
                a = out(xmm_reg) _, b = out(xmm_reg) _, c = out(xmm_reg) _, d = out(xmm_reg) _,
                options(nostack),
            );
        }
    }
}

/// Relaxed atomics, for other processors.
#[cfg(any(test, not(target_arch = "x86_64")))]
mod portable {
    use std::sync::atomic::{AtomicU8, AtomicU64, Ordering::Relaxed};

    pub(super) unsafe fn copy(dst: *mut u8, src: *const u8, len: usize) {
        let head = if dst.addr() % 8 == src.addr() % 8 { dst.addr().wrapping_neg() % 8 } else { len };
        let head = head.min(len);
        let words = (len - head) / 8;
        let tail = head + words * 8;
        // SAFETY: `0..head`, `head..tail` and `tail..len` are within the caller's `len` bytes, and both sides are aligned
        // at `head` if there are any words. The atomics are only loaded from `src`.
        unsafe {
            bytes(dst, src, head);
            for offset in (head..tail).step_by(8) {
                let word = AtomicU64::from_ptr(src.add(offset).cast_mut().cast()).load(Relaxed);
                AtomicU64::from_ptr(dst.add(offset).cast()).store(word, Relaxed);
            }
            bytes(dst.add(tail), src.add(tail), len - tail);
        }
    }

    /// # Safety
    /// As [`super::copy_racing`].
    unsafe fn bytes(dst: *mut u8, src: *const u8, len: usize) {
        for offset in 0..len {
            // SAFETY: the caller's promise; `src` is only loaded from.
            unsafe {
                let byte = AtomicU8::from_ptr(src.add(offset).cast_mut()).load(Relaxed);
                AtomicU8::from_ptr(dst.add(offset)).store(byte, Relaxed);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    type Copy = unsafe fn(*mut u8, *const u8, usize);

    /// Every length at every pair of alignments, with the bytes around the destination watched.
    fn copies_exactly(copy: Copy, lengths: impl Iterator<Item = usize> + Clone, alignments: std::ops::Range<usize>) {
        const MARGIN: usize = 64;
        let longest = lengths.clone().max().unwrap();
        let source: Vec<u8> = (0..longest + MARGIN).map(|i| (i * 7 + i / 251) as u8 | 1).collect();
        for len in lengths {
            for from in alignments.clone() {
                for to in alignments.clone() {
                    let mut target = vec![0u8; MARGIN + len + 2 * MARGIN];
                    let start = MARGIN + to;
                    // SAFETY: both ranges lie inside of their vectors, which differ.
                    unsafe { copy(target.as_mut_ptr().add(start), source.as_ptr().add(from), len) };
                    assert_eq!(target[start..start + len], source[from..from + len], "{len} bytes, {from} to {to}");
                    assert!(target[..start].iter().all(|&b| b == 0), "before: {len} bytes, {from} to {to}");
                    assert!(target[start + len..].iter().all(|&b| b == 0), "behind: {len} bytes, {from} to {to}");
                }
            }
        }
    }

    #[test]
    fn copies_every_small_size_exactly() {
        copies_exactly(super::copy_racing, 0..600, 0..9);
    }

    #[test]
    fn copies_large_sizes_exactly() {
        let lengths = [1022, 1023, 1024, 1025, 1087, 1088, 4095, 4096, 4097, 65536 + 13];
        copies_exactly(super::copy_racing, lengths.into_iter(), 0..17);
    }

    #[test]
    fn copies_exactly_on_other_processors() {
        copies_exactly(super::portable::copy, 0..200, 0..9);
    }

    #[test]
    fn copies_while_another_thread_writes() {
        use std::sync::atomic::{AtomicU8, Ordering::Relaxed};
        let shared: Vec<AtomicU8> = (0..4096).map(|_| AtomicU8::new(b'a')).collect();
        let stop = AtomicU8::new(0);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                let mut letter = b'a';
                while stop.load(Relaxed) == 0 {
                    letter = if letter == b'z' { b'a' } else { letter + 1 };
                    shared.iter().for_each(|byte| byte.store(letter, Relaxed));
                }
            });
            let mut copy = vec![0u8; 4096];
            for round in 0..2000 {
                let len = 1 + round * 37 % 4096;
                // SAFETY: `shared` is readable and `copy` writable for `len` bytes.
                unsafe { super::copy_racing(copy.as_mut_ptr(), shared.as_ptr().cast(), len) };
                assert!(copy[..len].iter().all(u8::is_ascii_lowercase));
            }
            stop.store(1, Relaxed);
        });
    }
}
