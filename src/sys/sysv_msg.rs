//! System V message queues. They have no descriptor to wait on: every call here answers at once.

use std::{fs, io};

use super::{check, uninterrupted};

/// The length of a message's kind, a native `i64` above 0, which leads every message in memory.
pub(crate) const KIND_LEN: usize = size_of::<libc::c_long>();

/// A queue of this machine, or rather of its IPC namespace.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Queue {
    id: libc::c_int,
}

/// What the kernel knows of a queue.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Status {
    pub(crate) mode: u32,
    /// The user who owns it.
    pub(crate) uid: u32,
    pub(crate) messages: u64,
    /// How many bytes the bodies in it have together.
    pub(crate) bytes: u64,
    /// How many they may have together.
    pub(crate) most_bytes: u64,
    /// The process that last sent, or 0.
    pub(crate) last_sender: i32,
    /// The process that last received, or 0.
    pub(crate) last_receiver: i32,
}

/// Whether a call failed because the queue was removed: unless the call was wrong itself, which is `EINVAL` too.
pub(crate) fn was_removed(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EIDRM | libc::EINVAL))
}

/// What the kernel allows, where known: bytes in a message, bytes in a new queue, and queues in all.
pub(crate) fn limits() -> (Option<u64>, Option<u64>, Option<u64>) {
    let read = |file| fs::read_to_string(format!("/proc/sys/kernel/{file}")).ok()?.trim().parse().ok();
    (read("msgmax"), read("msgmnb"), read("msgmni"))
}

impl Queue {
    /// Makes a queue, failing with `EEXIST` if the key is in use. The mode is exact, whatever the umask.
    pub(crate) fn create_new(key: i32, perm: u32) -> io::Result<Self> {
        let flags = libc::IPC_CREAT | libc::IPC_EXCL | perm as libc::c_int;
        // SAFETY: a plain system call.
        Ok(Self { id: check(unsafe { libc::msgget(key, flags) })? })
    }

    /// Finds the queue of this key, without checking access to it.
    pub(crate) fn open(key: i32) -> io::Result<Self> {
        // SAFETY: a plain system call.
        Ok(Self { id: check(unsafe { libc::msgget(key, 0) })? })
    }

    /// Sends a message, which is its kind followed by its body; `EAGAIN` when the queue is full.
    pub(crate) fn send(&self, message: &[u8]) -> io::Result<()> {
        let len = body_len(message)?;
        uninterrupted(|| {
            // SAFETY: a buffer and the length of what follows the kind in it. The bytes may lie at any address, though
            // the C type is aligned: the kernel copies them, with instructions that don't mind, and glibc only hands
            // the pointer on.
            check(unsafe { libc::msgsnd(self.id, message.as_ptr().cast(), len, libc::IPC_NOWAIT) })
        })
        .map(drop)
    }

    /// Takes the first message of a kind into `buffer`, behind its kind; returns the length of the body.
    ///
    /// Kind 0 is any, and a negative one is the least kind that is at most its absolute value. `EAGAIN` when there is
    /// none, and `E2BIG`, with the message still queued, when it is too long for the buffer.
    pub(crate) fn receive(&self, kind: i64, buffer: &mut [u8]) -> io::Result<usize> {
        let room = body_len(buffer)?;
        uninterrupted(|| {
            // SAFETY: a buffer, and its room behind the kind; for its alignment see `send`.
            let len = unsafe { libc::msgrcv(self.id, buffer.as_mut_ptr().cast(), room, kind, libc::IPC_NOWAIT) };
            usize::try_from(len).map_err(|_| match io::Error::last_os_error() {
                e if e.raw_os_error() == Some(libc::ENOMSG) => io::Error::from_raw_os_error(libc::EAGAIN),
                e => e,
            })
        })
    }

    /// Removes the queue at once, with what is in it.
    pub(crate) fn remove(&self) -> io::Result<()> {
        // SAFETY: this command takes no argument.
        check(unsafe { libc::msgctl(self.id, libc::IPC_RMID, std::ptr::null_mut()) }).map(drop)
    }

    pub(crate) fn status(&self) -> io::Result<Status> {
        let status = self.raw_status()?;
        Ok(Status {
            mode: u32::from(status.msg_perm.mode) & 0o777,
            uid: status.msg_perm.uid,
            messages: status.msg_qnum,
            bytes: status.__msg_cbytes,
            most_bytes: status.msg_qbytes,
            last_sender: status.msg_lspid,
            last_receiver: status.msg_lrpid,
        })
    }

    /// Changes how many bytes it may hold. More than the system's limit takes privilege: `EPERM`.
    pub(crate) fn set_most_bytes(&self, most: u64) -> io::Result<()> {
        // The command sets the owner and the mode as well, to what they are.
        let mut status = self.raw_status()?;
        status.msg_qbytes = most;
        // SAFETY: `status` is a whole one, as the kernel gave it.
        check(unsafe { libc::msgctl(self.id, libc::IPC_SET, &mut status) }).map(drop)
    }

    fn raw_status(&self) -> io::Result<libc::msqid_ds> {
        // SAFETY: msqid_ds is plain integers, for which zero is a value.
        let mut status: libc::msqid_ds = unsafe { std::mem::zeroed() };
        // SAFETY: `status` is a valid place for the answer.
        check(unsafe { libc::msgctl(self.id, libc::IPC_STAT, &mut status) })?;
        Ok(status)
    }
}

fn body_len(message: &[u8]) -> io::Result<usize> {
    message.len().checked_sub(KIND_LEN).ok_or_else(|| io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Temporary(Queue);

    impl Drop for Temporary {
        fn drop(&mut self) {
            let _ = self.0.remove();
        }
    }

    fn temporary() -> Temporary {
        Temporary(Queue::create_new(libc::IPC_PRIVATE, 0o622).unwrap())
    }

    fn message(kind: i64, body: &[u8]) -> Vec<u8> {
        [&kind.to_ne_bytes(), body].concat()
    }

    #[test]
    fn messages_pass_by_kind_until_it_is_full() {
        let guard = temporary();
        let queue = guard.0;
        queue.set_most_bytes(16).unwrap();
        let pid = std::process::id() as i32;
        queue.send(&message(5, b"five")).unwrap();
        queue.send(&message(3, b"and three")).unwrap();
        assert_eq!(queue.send(&message(1, b"more")).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        let uid = nix::unistd::geteuid().as_raw();
        let status =
            Status { mode: 0o622, uid, messages: 2, bytes: 13, most_bytes: 16, last_sender: pid, last_receiver: 0 };
        assert_eq!(queue.status().unwrap(), status);

        let mut buffer = [0; 8 + 9];
        assert_eq!(queue.receive(4, &mut buffer).unwrap_err().kind(), io::ErrorKind::WouldBlock);
        assert_eq!(queue.receive(3, &mut buffer[..16]).unwrap_err().raw_os_error(), Some(libc::E2BIG));
        assert_eq!(queue.receive(3, &mut buffer).unwrap(), 9);
        assert_eq!(buffer[..], message(3, b"and three"));
        assert_eq!(queue.receive(0, &mut buffer).unwrap(), 4);
        assert_eq!(buffer[..12], message(5, b"five"));
        assert_eq!(queue.status().unwrap().last_receiver, pid);
    }

    #[test]
    fn a_message_may_lie_at_any_address() {
        let guard = temporary();
        let (mut sent, mut received) = (vec![0; 32], vec![0; 32]);
        for offset in 0..8 {
            sent[offset..offset + 11].copy_from_slice(&message(1 << 40, b"odd"));
            guard.0.send(&sent[offset..offset + 11]).unwrap();
            assert_eq!(guard.0.receive(0, &mut received[offset..]).unwrap(), 3);
            assert_eq!(received[offset..offset + 11], message(1 << 40, b"odd"));
        }
        assert_eq!(guard.0.send(&[0; 7]).unwrap_err().kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_key_finds_its_queue_until_it_is_removed() {
        // The pid is at most 22 bits long; the key is never IPC_PRIVATE, 0.
        let key = 0x5200_0000 | std::process::id() as i32;
        let guard = Temporary(Queue::create_new(key, 0o600).unwrap());
        assert_eq!(Queue::open(key).unwrap(), guard.0);
        assert_eq!(Queue::create_new(key, 0o600).unwrap_err().kind(), io::ErrorKind::AlreadyExists);
        guard.0.remove().unwrap();
        assert_eq!(Queue::open(key).unwrap_err().kind(), io::ErrorKind::NotFound);
        assert!(was_removed(&guard.0.send(&message(1, b"")).unwrap_err()));
        assert!(was_removed(&guard.0.receive(0, &mut [0; 8]).unwrap_err()));
        assert!(was_removed(&guard.0.status().unwrap_err()));
    }

    #[test]
    fn the_limits_of_the_system_are_known() {
        let (message, queue, queues) = limits();
        assert!(message.unwrap() > 0 && queue.unwrap() > 0 && queues.unwrap() > 0);
    }
}
