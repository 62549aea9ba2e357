//! iceoryx2's event service as a bell: it carries no messages, so the message lies in shared memory beside it.

use std::{
    fs, io,
    path::PathBuf,
    process,
    sync::{
        Arc,
        atomic::{AtomicU32, Ordering::Relaxed},
    },
    thread,
};

use iceoryx2::{
    port::{listener::Listener, notifier::Notifier},
    prelude::{Config, FileName, LogLevel, Node, NodeBuilder, Path, SemanticString, SignalHandlingMode, ipc},
    service::port_factory::{PortFactory as _, event::PortFactory},
};
use ringway_harness::yardstick::Bell;

type Service = ipc::Service;

/// Where its services are, apart from all others.
pub struct Domain {
    config: Config,
    directory: PathBuf,
    prefix: String,
    next: AtomicU32,
}

impl Domain {
    /// A directory of its own.
    pub fn new() -> io::Result<Self> {
        iceoryx2::prelude::set_log_level(LogLevel::Error);
        let prefix = format!("ringway-bench-{}-", process::id());
        let directory = std::env::temp_dir().join(format!("{prefix}iceoryx2"));
        fs::create_dir_all(&directory)?;
        let mut config = Config::default();
        config.global.set_root_path(&Path::new(directory.as_os_str().as_encoded_bytes()).map_err(failed)?);
        config.global.prefix = FileName::new(prefix.as_bytes()).map_err(failed)?;
        Ok(Self { config, directory, prefix, next: AtomicU32::new(0) })
    }

    /// Another service.
    pub fn bell(self: &Arc<Self>) -> Event {
        // Relaxed: a counter of one thread.
        Event { name: format!("event-{}", self.next.fetch_add(1, Relaxed)), domain: self.clone() }
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // What a block left that failed.
        let _ = fs::remove_dir_all(&self.directory);
        for entry in fs::read_dir("/dev/shm").into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(&self.prefix) {
                let _ = fs::remove_file(entry.path());
            }
        }
    }
}

/// A service of one listener and one notifier.
pub struct Event {
    name: String,
    domain: Arc<Domain>,
}

impl Event {
    fn open(&self) -> io::Result<(PortFactory<Service>, Node<Service>)> {
        let builder = NodeBuilder::new().config(&self.domain.config).signal_handling_mode(SignalHandlingMode::Disabled);
        let node = builder.create::<Service>().map_err(failed)?;
        let name = self.name.as_str().try_into().map_err(failed)?;
        let factory = node.service_builder(&name).event().open_or_create().map_err(failed)?;
        Ok((factory, node))
    }
}

fn failed(error: impl std::fmt::Debug) -> io::Error {
    io::Error::other(format!("iceoryx2: {error:?}"))
}

/// A port, with what it needs to live: dropped in this order.
pub struct Port<P>(P, #[expect(dead_code, reason = "kept")] (PortFactory<Service>, Node<Service>));

impl Bell for Event {
    type Ringer = Port<Notifier<Service>>;
    type Sleeper = Port<Listener<Service>>;

    fn ringer(&self) -> io::Result<Self::Ringer> {
        let opened = self.open()?;
        // Who isn't there yet is not notified.
        while opened.0.dynamic_config().number_of_listeners() == 0 {
            thread::yield_now();
        }
        Ok(Port(opened.0.notifier_builder().create().map_err(failed)?, opened))
    }

    fn sleeper(&self) -> io::Result<Self::Sleeper> {
        let opened = self.open()?;
        Ok(Port(opened.0.listener_builder().create().map_err(failed)?, opened))
    }

    fn ring(ringer: &mut Self::Ringer) {
        let notified = ringer.0.notify().unwrap_or_else(|error| panic!("iceoryx2: {error:?}"));
        assert_eq!(notified, 1, "the listener is there");
    }

    fn sleep(sleeper: &mut Self::Sleeper) {
        sleeper.0.blocking_wait(|_| {}).unwrap_or_else(|error| panic!("iceoryx2: {error:?}"));
    }
}
