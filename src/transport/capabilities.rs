//! What each transport can do.

use super::address::{Address, Priority, Target};
use super::frame::LONGEST;
use crate::channel::Framing;
use crate::layout::{Ring, Wait};
use crate::ring::mpmc::MAX_PRODUCERS;

/// What an address can do, before it is opened: see [`Address::capabilities`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Capabilities {
    /// Whether every message arrives, as long as sender and receiver live. Where it isn't so, what is missing is counted:
    /// [`Delivery::gap`](super::Delivery::gap).
    pub reliable: bool,
    /// Whether the messages of one sender arrive in the order in which they were sent.
    pub ordered: bool,
    /// Whether messages can be built and read in place, by [`spsc`](crate::spsc) and [`mpmc`](crate::mpmc).
    pub zero_copy: bool,
    /// The longest message that can be asked for, in bytes.
    pub max_message: u64,
    /// How many senders there can be at a time; none if any number.
    pub producers: Option<u32>,
    /// How many receivers there can be at a time; none if any number.
    pub consumers: Option<u32>,
    /// Whether messages outlive all processes that use it: when `persist` says so, or anyway.
    pub survives_restart: bool,
    /// Whether sender and receiver can be on different machines.
    pub crosses_hosts: bool,
    /// Whether a receiver can be waited for along with others: [`Receiver::pollable`](super::Receiver::pollable). So can a sender, but
    /// at signals and logs, where the kernel tells nobody that there is room.
    pub pollable: bool,
    /// Whether a receiver can choose by tag what it receives: [`Receiver::select`](super::Receiver::select).
    pub select_by_tag: bool,
    /// Whether a receiver can tell a sender that died from one that left.
    pub tells_death: bool,
}

impl Capabilities {
    /// What most have in common.
    const USUAL: Self = Self {
        reliable: true,
        ordered: true,
        zero_copy: false,
        max_message: LONGEST as u64,
        producers: None,
        consumers: Some(1),
        survives_restart: false,
        crosses_hosts: false,
        pollable: true,
        select_by_tag: false,
        tells_death: true,
    };

    /// The longest message of a ring with one producer: half of 2 GiB, less the record's header and end.
    const RING: Self = Self { zero_copy: true, max_message: (1 << 30) - 16, producers: Some(1), ..Self::USUAL };
}

impl Address {
    /// What can be done at this address; of an existing ring, as far as the address tells.
    ///
    /// ```
    /// use ringway::Address;
    ///
    /// let udp = "udp://127.0.0.1:7000".parse::<Address>()?.capabilities();
    /// assert!(!udp.reliable && udp.crosses_hosts);
    /// assert!("shm:///orders".parse::<Address>()?.capabilities().zero_copy);
    /// # Ok::<(), ringway::transport::ParseAddressError>(())
    /// ```
    pub fn capabilities(&self) -> Capabilities {
        let usual = Capabilities::USUAL;
        let ring = match self.ring() {
            Some(Ring::Mpmc) => Capabilities {
                max_message: (1 << 30) - 1,
                producers: Some(self.producers().unwrap_or(MAX_PRODUCERS)),
                consumers: Some(MAX_PRODUCERS),
                ..Capabilities::RING
            },
            _ => Capabilities::RING,
        };
        let all = match self.target() {
            Target::Segment(_) => Capabilities { survives_restart: true, ..ring },
            Target::Anonymous(_) => ring,
            // References into it would need an address that names it.
            Target::Memfd(_) => Capabilities { zero_copy: false, ..ring },
            Target::Auto(_) => Capabilities { producers: Some(1), ..usual },
            Target::Pipe | Target::Fifo(_) | Target::Descriptor(_) | Target::Unix { .. } => usual,
            Target::Terminal(_) => Capabilities { producers: Some(1), ..usual },
            // The kernel hands out the highest priority first.
            Target::PosixQueue { priority, .. } => {
                Capabilities { ordered: *priority != Priority::Tag, survives_restart: true, ..usual }
            }
            Target::SysVQueue { .. } => {
                Capabilities { survives_restart: true, pollable: false, select_by_tag: true, ..usual }
            }
            Target::Tcp(_) => Capabilities { crosses_hosts: true, ..usual },
            Target::Udp(_) => Capabilities { reliable: false, crosses_hosts: true, ..usual },
            Target::Signal { .. } => Capabilities { max_message: (1 << 28) - 1, ..usual },
            Target::Log { .. } => Capabilities { consumers: None, survives_restart: true, ..usual },
        };
        // Who spins sleeps on nothing.
        let all = Capabilities { pollable: all.pollable && self.wait() != Some(Wait::Spin), ..all };
        match (self.framing().unwrap_or_default(), self.target()) {
            (Framing::Frames, _) => all,
            (Framing::Lines, _) => Capabilities { tells_death: false, ..all },
            (_, target) => {
                let unit = match target {
                    Target::PosixQueue { .. } | Target::SysVQueue { .. } => 8 << 10,
                    Target::Udp(_) => 65_507,
                    _ => 64 << 10,
                };
                let consumers = match target {
                    Target::PosixQueue { .. } | Target::SysVQueue { .. } => None,
                    _ => all.consumers,
                };
                Capabilities { tells_death: false, max_message: unit, consumers, ..all }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_spins_can_not_be_polled() {
        for (address, is_pollable) in
            [("shm:///r", true), ("shm:///r?wait=spin", false), ("auto:///r?wait=spin", false)]
        {
            assert_eq!(address.parse::<Address>().unwrap().capabilities().pollable, is_pollable, "{address}");
        }
    }

    #[test]
    fn priorities_overtake_only_where_each_message_has_its_own() {
        for (address, is_ordered) in
            [("mq:///orders", true), ("mq:///orders?priority=9", true), ("mq:///orders?priority=tag", false)]
        {
            assert_eq!(address.parse::<Address>().unwrap().capabilities().ordered, is_ordered, "{address}");
        }
    }
}
