//! What a consumer lends out: messages, read in place.

use std::ops::Deref;

use super::consumer::{Consumer, Item, Part};

/// A message in the ring. Dropping it gives it back.
#[derive(Debug)]
pub struct ReadGrant<'a> {
    pub(super) item: Item,
    pub(super) consumer: &'a Consumer,
}

impl ReadGrant<'_> {
    /// The sender's number for it.
    pub fn tag(&self) -> u32 {
        self.item.tag()
    }

    /// Its number among all messages of its lane, from 0.
    pub fn sequence(&self) -> u64 {
        self.item.sequence()
    }

    /// The [lane](super::Producer::lane) of its producer.
    pub fn producer(&self) -> u32 {
        self.item.lane()
    }

    /// How many messages of its lane are missing between this one and the last one that this consumer got from there: those
    /// that other consumers got, or if there are none, those that were dropped.
    pub fn gap(&self) -> u64 {
        self.item.gap()
    }

    /// How often it was handed before to consumers that died with it, and may have been processed.
    pub fn deliveries(&self) -> u32 {
        self.item.deliveries()
    }

    /// Whether a consumer that died had been handed it already, and may have processed it.
    pub fn is_redelivered(&self) -> bool {
        self.deliveries() > 0
    }
}

impl Deref for ReadGrant<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        // SAFETY: the bytes are contiguous, mapped while the consumer lives and initialised, and by the ring's protocol nobody
        // writes them until they are released: the promise of `assume_trusted_peers`, or of a heap ring.
        unsafe { std::slice::from_raw_parts(self.item.payload(), self.item.len()) }
    }
}

impl Drop for ReadGrant<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.consumer.release(&self.item);
    }
}

/// Messages that are given back together, when the batch is dropped: those that were yielded. The others come next.
#[derive(Debug)]
pub struct ReadBatch<'a> {
    pub(super) consumer: &'a Consumer,
    pub(super) part: Part,
}

impl<'b> IntoIterator for &'b mut ReadBatch<'_> {
    type Item = Received<'b>;
    type IntoIter = Iter<'b>;

    fn into_iter(self) -> Iter<'b> {
        Iter { consumer: self.consumer, part: &mut self.part }
    }
}

impl Drop for ReadBatch<'_> {
    #[inline(always)]
    fn drop(&mut self) {
        self.consumer.close_batch(self.part);
    }
}

/// Yields the messages of a [`ReadBatch`].
#[derive(Debug)]
pub struct Iter<'b> {
    consumer: &'b Consumer,
    part: &'b mut Part,
}

impl<'b> Iterator for Iter<'b> {
    type Item = Received<'b>;

    #[inline(always)]
    fn next(&mut self) -> Option<Received<'b>> {
        // A violation ends the batch; the next call tells it.
        let item = self.consumer.batch_item(self.part)?.ok()?;
        // SAFETY: as for a ReadGrant; the batch, which releases it, is borrowed as long as the slice lives.
        let payload = unsafe { std::slice::from_raw_parts(item.payload(), item.len()) };
        Some(Received { payload, item })
    }
}

/// A message of a [`ReadBatch`].
#[derive(Clone, Copy, Debug)]
pub struct Received<'b> {
    payload: &'b [u8],
    item: Item,
}

impl Received<'_> {
    /// The sender's number for it.
    pub fn tag(&self) -> u32 {
        self.item.tag()
    }

    /// Its number among all messages of its lane: see [`ReadGrant::sequence`].
    pub fn sequence(&self) -> u64 {
        self.item.sequence()
    }

    /// The [lane](super::Producer::lane) of its producer.
    pub fn producer(&self) -> u32 {
        self.item.lane()
    }

    /// How many messages of its lane are missing before it: see [`ReadGrant::gap`].
    pub fn gap(&self) -> u64 {
        self.item.gap()
    }

    /// How often it was handed before to consumers that died with it, and may have been processed.
    pub fn deliveries(&self) -> u32 {
        self.item.deliveries()
    }

    /// Whether a consumer that died had been handed it already, and may have processed it.
    pub fn is_redelivered(&self) -> bool {
        self.deliveries() > 0
    }
}

impl Deref for Received<'_> {
    type Target = [u8];

    #[inline(always)]
    fn deref(&self) -> &[u8] {
        self.payload
    }
}
