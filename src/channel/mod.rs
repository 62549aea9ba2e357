//! Endpoints of a ring: attached to a segment, with a role, able to wait.

mod attach;
mod endpoint;
mod framing;
pub mod mpmc;
mod options;
mod outcome;
mod recover;
mod report;
pub mod spsc;

pub(crate) use attach::{Attachment, Place, attach, make};
pub(crate) use endpoint::{Owner, deadline_at, deadline_in};
pub use framing::{Framing, ParseFramingError};
pub(crate) use options::Existence;
pub use options::{Options, Profile, Takeover};
pub use outcome::{PeerEvent, RecvError, SendError};
pub use recover::{Recovery, recover};
pub use report::{Lanes, Peer, PeerState, Positions, Report, inspect};
