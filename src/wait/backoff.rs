//! How long a spinning endpoint keeps its hands off the line that its peer writes.
//!
//! A consumer that has caught up and polls without pause takes the line away from the producer in the middle of each
//! message. If it pauses until a few messages have gathered it takes them in one go. So: a burst of two or more since it
//! last caught up doubles the pause, a lone message halves it, and a ping-pong runs at the shortest pause.

/// The shortest pause, in spin hints. One is better than none: the poll gets out of the way of the store it waits for.
const SHORTEST: u32 = 1;

/// An adaptive pause.
#[derive(Debug)]
pub(crate) struct Backoff {
    pause: u32,
    longest: u32,
    /// Where it last caught up.
    position: u64,
}

impl Backoff {
    /// Pauses of up to `longest` spin hints.
    pub(crate) fn new(longest: u32) -> Self {
        Self { pause: SHORTEST, longest: longest.max(SHORTEST), position: 0 }
    }

    /// There is nothing more at `position`; one message is `stride` long.
    pub(crate) fn caught_up(&mut self, position: u64, stride: u64) {
        match position.wrapping_sub(std::mem::replace(&mut self.position, position)) {
            0 => {}
            burst if burst >= 2 * stride => self.pause = (self.pause * 2).min(self.longest),
            _ => self.pause = (self.pause / 2).max(SHORTEST),
        }
    }

    /// Pauses, and says for how many spin hints.
    #[inline(always)]
    pub(crate) fn pause(&self) -> u32 {
        for _ in 0..self.pause {
            std::hint::spin_loop();
        }
        self.pause
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bursts_lengthen_the_pause_and_lone_messages_shorten_it() {
        let mut backoff = Backoff::new(8);
        let mut position = 0;
        let mut after = |messages: u64| {
            position += messages * 72;
            backoff.caught_up(position, 72);
            backoff.pause()
        };
        assert_eq!([2, 5, 2, 9].map(&mut after), [2, 4, 8, 8]);
        assert_eq!(after(0), 8, "nothing learned while nothing happens");
        assert_eq!([1, 1, 1, 1].map(&mut after), [4, 2, 1, 1]);
    }
}
