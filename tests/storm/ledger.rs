//! What has become of each message, in memory that outlives all members: the truth that the ring is held against.

use crate::common::board::Board;

/// Producers at a time, each with a stream of numbered messages that its successors continue; and consumers at a time.
pub const PRODUCERS: usize = 4;
pub const CONSUMERS: usize = 4;
/// Messages of a stream, at most.
pub const NUMBERS: usize = 1 << 20;
/// Members that one after the other take part, at most.
const GENERATIONS: usize = 1 << 13;
/// Messages in a consumer's hands, at most.
pub const HANDS: usize = 64;

const STATES: usize = 0;
const PLACES: usize = STATES + PRODUCERS * NUMBERS;
const KILLED: usize = PLACES + PRODUCERS * NUMBERS;
const STREAMS: usize = KILLED + GENERATIONS;
const STREAM_WORDS: usize = 3;
const IN_HAND: usize = STREAMS + PRODUCERS * STREAM_WORDS;
const MEMBERS: usize = IN_HAND + CONSUMERS * HANDS;
const MEMBER_WORDS: usize = 3;
const ORDERS: usize = MEMBERS + (PRODUCERS + CONSUMERS) * MEMBER_WORDS;
const PROGRESS: usize = ORDERS + 2;
const WORDS: usize = PROGRESS + 1;

pub struct Ledger {
    board: Board,
}

/// A message: its number in its stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Id {
    pub stream: usize,
    pub number: usize,
}

impl Id {
    pub fn of_tag(tag: u32) -> Self {
        let id = Self { stream: tag as usize >> 24, number: tag as usize & 0xff_ffff };
        assert!(id.stream < PRODUCERS && id.number < NUMBERS, "a tag that nobody sent: {tag:#x}");
        id
    }

    pub fn tag(self) -> u32 {
        (self.stream << 24 | self.number) as u32
    }

    fn index(self) -> usize {
        self.stream * NUMBERS + self.number
    }
}

/// What consumers have noted of a message.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct State {
    /// How often it was handed out.
    pub handed: u8,
    /// How often it was given back for certain.
    pub done: u8,
    /// It was handed to one that wants what it holds dropped when it dies.
    pub to_drop: bool,
    /// How often it had been delivered before, as told with the last delivery.
    pub deliveries: u8,
    /// The last holder.
    pub holder: u32,
}

impl State {
    fn pack(self) -> u64 {
        u64::from(self.holder) << 32
            | u64::from(self.to_drop) << 24
            | u64::from(self.deliveries) << 16
            | u64::from(self.done) << 8
            | u64::from(self.handed)
    }

    fn unpack(word: u64) -> Self {
        Self {
            handed: word as u8,
            done: (word >> 8) as u8,
            to_drop: word >> 24 & 1 != 0,
            deliveries: (word >> 16) as u8,
            holder: (word >> 32) as u32,
        }
    }
}

/// What a producer notes of its stream.
#[derive(Clone, Copy)]
pub enum Mark {
    /// Messages before this one may have been sent.
    Begun,
    /// And before this one they have been, for certain.
    Sent,
    /// In what way those between are sent.
    Way,
}

/// What a member notes of itself, and what it is told.
#[derive(Clone, Copy)]
pub enum Flag {
    Joined,
    /// It may be leaving.
    Leaving,
    /// It is to leave.
    Leave,
}

/// What all are told.
#[derive(Clone, Copy)]
pub enum Order {
    /// Producers are to leave.
    Finish,
    /// Consumers are to leave when nothing comes any longer.
    Drain,
}

impl Ledger {
    pub fn new() -> Self {
        Self { board: Board::of(WORDS) }
    }

    pub fn state(&self, id: Id) -> State {
        State::unpack(self.board.get(STATES + id.index()))
    }

    /// Changes a state that nobody else should be changing now.
    pub fn change(&self, id: Id, old: State, new: State) {
        let word = self.board.word(STATES + id.index());
        let order = std::sync::atomic::Ordering::SeqCst;
        let same = word.compare_exchange(old.pack(), new.pack(), order, order).is_ok();
        assert!(same, "{id:?} is in two hands at once: {old:?} became {:?}", self.state(id));
    }

    /// The lane and the sequence of a message, if they are known.
    pub fn place(&self, id: Id) -> Option<(u32, u64)> {
        let word = self.board.get(PLACES + id.index());
        (word != 0).then(|| ((word >> 56) as u32, (word & !(0xff << 56)) - 1))
    }

    /// Whoever knows them notes them, and all must agree.
    pub fn note_place(&self, id: Id, lane: u32, sequence: u64) {
        let order = std::sync::atomic::Ordering::SeqCst;
        let place = u64::from(lane) << 56 | (sequence + 1);
        if self.board.word(PLACES + id.index()).compare_exchange(0, place, order, order).is_err() {
            assert_eq!(self.place(id), Some((lane, sequence)), "{id:?} has two places");
        }
    }

    /// The member is about to be killed.
    pub fn note_kill(&self, generation: u32) {
        self.board.set(KILLED + generation as usize, 1);
    }

    pub fn is_killed(&self, generation: u32) -> bool {
        self.board.get(KILLED + generation as usize) != 0
    }

    pub fn mark(&self, stream: usize, mark: Mark) -> usize {
        self.board.get(STREAMS + stream * STREAM_WORDS + mark as usize) as usize
    }

    pub fn set_mark(&self, stream: usize, mark: Mark, value: usize) {
        self.board.set(STREAMS + stream * STREAM_WORDS + mark as usize, value as u64);
    }

    /// What is in a hand of a consumer, and whether it is being given back.
    pub fn hand(&self, consumer: usize, hand: usize) -> Option<(Id, bool)> {
        let word = self.board.get(IN_HAND + consumer * HANDS + hand);
        (word != 0).then(|| (Id::of_tag((word - 1) as u32), word >> 32 != 0))
    }

    pub fn set_hand(&self, consumer: usize, hand: usize, held: Option<(Id, bool)>) {
        let word = held.map_or(0, |(id, released)| (u64::from(id.tag()) + 1) | u64::from(released) << 32);
        self.board.set(IN_HAND + consumer * HANDS + hand, word);
    }

    pub fn flag(&self, member: usize, flag: Flag) -> bool {
        self.board.get(MEMBERS + member * MEMBER_WORDS + flag as usize) != 0
    }

    pub fn set_flag(&self, member: usize, flag: Flag, value: bool) {
        self.board.set(MEMBERS + member * MEMBER_WORDS + flag as usize, value.into());
    }

    /// How many messages were given back for certain.
    pub fn progress(&self) -> u64 {
        self.board.get(PROGRESS)
    }

    pub fn note_progress(&self, messages: usize) {
        self.board.word(PROGRESS).fetch_add(messages as u64, std::sync::atomic::Ordering::Relaxed);
    }

    pub fn is_ordered(&self, order: Order) -> bool {
        self.board.get(ORDERS + order as usize) != 0
    }

    pub fn order(&self, order: Order) {
        self.board.set(ORDERS + order as usize, 1);
    }
}
