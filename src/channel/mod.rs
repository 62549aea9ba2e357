//! Endpoints of a ring: attached to a segment, with a role, able to wait.

mod attach;
mod endpoint;
pub mod mpmc;
mod options;
mod outcome;
mod recover;
mod report;
pub mod spsc;

pub(crate) use attach::{Attachment, Place, attach, make};
pub(crate) use endpoint::{deadline_at, deadline_in};
pub(crate) use options::Existence;
pub use options::{Options, Profile, Takeover};
pub use outcome::{RecvError, SendError};
pub use recover::{Recovery, recover};
pub use report::{Lanes, Peer, PeerState, Positions, Report, inspect};
