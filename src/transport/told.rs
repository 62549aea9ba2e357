//! What a user was told of a peer of which only the present state is known.

use crate::channel::{PeerEvent, PeerState};

/// What was told last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Told {
    #[default]
    Nothing,
    Joined,
    /// It has left, or died.
    Gone,
}

impl Told {
    /// What comes next on the way to what is so now. Of whoever came and went between two calls, all is told or nothing.
    pub(super) fn next(&mut self, now: PeerState) -> Option<PeerEvent> {
        let (told, event) = match (*self, now) {
            (Self::Joined, PeerState::Dead { .. }) => (Self::Gone, PeerEvent::Died),
            (Self::Joined, PeerState::Left | PeerState::Absent) => (Self::Gone, PeerEvent::Left),
            (Self::Nothing | Self::Gone, PeerState::Alive { .. } | PeerState::Quarantined { .. })
            | (Self::Nothing, PeerState::Dead { .. } | PeerState::Left) => (Self::Joined, PeerEvent::Joined),
            _ => return None,
        };
        *self = told;
        Some(event)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_become_events() {
        let mut told = Told::default();
        let mut all = |now| -> Vec<PeerEvent> { std::iter::from_fn(|| told.next(now)).collect() };
        use PeerEvent::{Died, Joined, Left};
        assert_eq!(all(PeerState::Absent), []);
        assert_eq!(all(PeerState::Dead { pid: 1 }), [Joined, Died]);
        assert_eq!(all(PeerState::Dead { pid: 1 }), []);
        assert_eq!(all(PeerState::Alive { pid: 2 }), [Joined]);
        assert_eq!(all(PeerState::Unknown), []);
        assert_eq!(all(PeerState::Left), [Left]);
        assert_eq!(all(PeerState::Left), []);
    }
}
