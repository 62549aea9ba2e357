//! A place of its own for each test, and a look at what is left there.

use crate::transports::Transport;
use std::ffi::CString;
use std::fs;
use std::net::{TcpListener, UdpSocket};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

/// What no other test has; taken away at the end, whatever happened.
pub struct Place {
    address: &'static str,
    persists: bool,
    pub name: String,
    pub directory: PathBuf,
    pub key: i32,
    pub port: u16,
}

impl Place {
    pub fn new(transport: &Transport) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let (number, pid) = (NEXT.fetch_add(1, Ordering::Relaxed), std::process::id());
        let name = format!("ringway-conformance-{pid}-{number}");
        let directory = std::env::temp_dir().join(&name);
        fs::create_dir(&directory).unwrap();
        Self {
            address: transport.address,
            persists: transport.persists,
            name,
            directory,
            key: 0x5000_0000 | ((number % 64) << 22 | pid).cast_signed(),
            port: free_port(number),
        }
    }

    /// With all but the process that receives.
    pub fn address(&self) -> String {
        self.address
            .replace("{name}", &self.name)
            .replace("{directory}", self.directory.to_str().unwrap())
            .replace("{key}", &format!("{:#x}", self.key))
            .replace("{port}", &self.port.to_string())
    }

    /// Files, queues, segments, semaphores and sockets.
    pub fn leftovers(&self) -> Vec<String> {
        let key = format!("{:x}", self.key);
        let mut found = Vec::new();
        let mut search = |directory: &PathBuf, is_ours: &dyn Fn(&str) -> bool| {
            let names = fs::read_dir(directory).into_iter().flatten().map(|entry| entry.unwrap().file_name());
            let names = names.filter_map(|name| name.into_string().ok()).filter(|name| is_ours(name));
            found.extend(names.map(|name| directory.join(name).display().to_string()));
        };
        search(&self.directory, &|_| !self.persists);
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        for directory in ["/dev/shm", "/dev/mqueue", "/run"].map(PathBuf::from).into_iter().chain(runtime) {
            search(&directory, &|name| name.contains(&self.name) || name.contains(&key));
        }
        search(&std::env::temp_dir(), &|name| name != self.name && (name.contains(&self.name) || name.contains(&key)));
        for table in ["shm", "sem", "msg"] {
            let rows = fs::read_to_string(format!("/proc/sysvipc/{table}")).unwrap();
            let keys = rows.lines().skip(1).map(|row| row.split_whitespace().next().unwrap());
            found.extend(keys.filter(|key| key.parse() == Ok(self.key)).map(|_| format!("the key in {table}")));
        }
        let sockets = fs::read_to_string("/proc/net/unix").unwrap();
        found.extend(sockets.lines().filter(|line| line.contains(&self.name)).map(str::to_owned));
        if self.unlink_queue() {
            found.push("the queue".to_owned());
        }
        found
    }

    /// Whether there was one.
    fn unlink_queue(&self) -> bool {
        let name = CString::new(format!("/{}", self.name)).unwrap();
        // SAFETY: the string is valid for the call.
        unsafe { libc::mq_unlink(name.as_ptr()) == 0 }
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let address = self.address();
        if let Ok(address) = address.replace("{pid}", "self").parse() {
            let _ = ringway::transport::remove(&address, true);
        }
        let _ = fs::remove_dir_all(&self.directory);
        self.unlink_queue();
        // SAFETY: plain system calls; the key is this test's own.
        unsafe {
            let queue = libc::msgget(self.key, 0);
            if queue >= 0 {
                libc::msgctl(queue, libc::IPC_RMID, std::ptr::null_mut());
            }
        }
    }
}

/// A port that carries the pid, below those that the kernel gives away by itself.
fn free_port(number: u32) -> u16 {
    let first = std::process::id() * 64 + number;
    let ports = (first..).map(|port| 10_000 + (port % 20_000) as u16);
    let is_free = |&port: &u16| {
        TcpListener::bind(("127.0.0.1", port)).is_ok()
            && TcpListener::bind(("::1", port)).is_ok()
            && UdpSocket::bind(("127.0.0.1", port)).is_ok()
            && UdpSocket::bind(("::1", port)).is_ok()
    };
    ports.take(20_000).find(is_free).expect("all ports are taken")
}
