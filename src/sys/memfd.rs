//! Anonymous files in memory, of a size that nobody can change.

use std::{fs::File, io};

use nix::fcntl::{FcntlArg, SealFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use super::file;

/// A memfd of `len` allocated bytes, sealed against shrinking and growing; `label` shows in `/proc/PID/maps`.
pub(crate) fn create(label: &str, len: u64, perm: u32) -> io::Result<File> {
    let file = File::from(memfd_create(label, MFdFlags::MFD_CLOEXEC | MFdFlags::MFD_ALLOW_SEALING)?);
    // A memfd is born with mode 0777, by which anyone who sees this process in /proc could open it.
    file::set_mode(&file, perm)?;
    file::allocate(&file, len)?;
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(&file, FcntlArg::F_ADD_SEALS(seals))?;
    Ok(file)
}

/// Whether it is a memfd whose size nobody can change.
pub(crate) fn is_sealed(file: &File) -> bool {
    // Other files have no seals, or only the one that forbids any.
    let seals = SealFlag::F_SEAL_SHRINK | SealFlag::F_SEAL_GROW | SealFlag::F_SEAL_SEAL;
    fcntl(file, FcntlArg::F_GET_SEALS).is_ok_and(|has| SealFlag::from_bits_retain(has).contains(seals))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::MetadataExt;

    #[test]
    fn its_size_and_mode_are_fixed() {
        let file = create("test", 8192, 0o640).unwrap();
        let metadata = file.metadata().unwrap();
        assert_eq!((metadata.len(), metadata.blocks() * 512, metadata.mode() & 0o777), (8192, 8192, 0o640));
        for len in [4096, 16384] {
            assert_eq!(file.set_len(len).unwrap_err().raw_os_error(), Some(libc::EPERM));
        }
    }
}
