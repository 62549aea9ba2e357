//! Random numbers of the kernel's, which no fork repeats.

use std::io;

use super::uninterrupted;

/// A number that nobody draws twice, or guesses.
pub(crate) fn number() -> io::Result<u64> {
    let mut bytes = [0; 8];
    let drawn = uninterrupted(|| {
        // SAFETY: the bytes are a valid place for as many.
        let drawn = unsafe { libc::getrandom(bytes.as_mut_ptr().cast(), bytes.len(), 0) };
        usize::try_from(drawn).map_err(|_| io::Error::last_os_error())
    })?;
    // The kernel never gives fewer of so few.
    if drawn == bytes.len() { Ok(u64::from_ne_bytes(bytes)) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_number_comes_twice() {
        let numbers: std::collections::HashSet<u64> = (0..100).map(|_| number().unwrap()).collect();
        assert_eq!(numbers.len(), 100);
    }
}
