//! Rings of many for tests.

use super::{Kind, Scratch};
use ringway::mpmc::{Consumer, Producer};
use ringway::{Lanes, Options, Report, inspect};

impl Scratch {
    /// A ring of many; its other options as in addresses.
    pub fn many(kind: Kind, options: &str) -> Self {
        Self::with(kind, &format!("ring=mpmc&{options}"))
    }

    pub fn producer(&self) -> Producer {
        trusted(Options::new()).mpmc_producer(&self.address).unwrap()
    }

    pub fn consumer(&self) -> Consumer {
        trusted(Options::new()).mpmc_consumer(&self.address).unwrap()
    }

    /// None of an anonymous ring.
    pub fn report(&self) -> Option<Report> {
        self.name().map(|name| inspect(name).unwrap())
    }

    pub fn lanes(&self) -> Option<Lanes> {
        self.report().map(|report| report.lanes.unwrap())
    }
}

pub fn trusted(options: Options) -> ringway::transport::Trusted {
    // SAFETY: only the test's processes have the ring, and they use nothing but ringway's endpoints.
    unsafe { options.assume_trusted_peers() }
}

/// Sends `text` as a message.
pub fn put(producer: &mut Producer, text: &[u8]) -> u64 {
    let mut grant = producer.reserve(text.len()).unwrap();
    grant.copy_from_slice(text);
    grant.commit(text.len())
}
