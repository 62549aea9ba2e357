//! Endpoints that can be waited for along with others.

use std::sync::Arc;

use super::watch::Watch;
use crate::error::Result;

/// An endpoint that can be waited for along with others, in a [`WaitSet`](super::WaitSet) or by its [descriptor](super::Pollable).
///
/// Implemented by the endpoints of this crate, and by nothing else.
pub trait Waitable: Watched {}

impl<T: Watched + ?Sized> Waitable for T {}

/// What they have in common.
pub trait Watched {
    /// What this endpoint shares with whoever waits for it; from now on it arms itself.
    fn watch(&mut self) -> Result<Arc<Watch>>;
}
