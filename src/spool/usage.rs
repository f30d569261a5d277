//! How much the spool's file holds, and what had to go for want of room.

/// Bytes of what the file holds. All of them together stay below `spool.max_bytes`, in this order
/// of priority.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Usage {
    /// The records of the writes that wait.
    pub(super) waiting: u64,
    /// The dead letters.
    pub(super) dead: u64,
    /// The number of dead letters.
    pub(super) letters: u64,
    /// The acknowledged writes that an outage may have made the store forget.
    pub(super) held: u64,
    /// The number of dead letters that were dropped since the file was opened.
    pub(super) dropped_letters: u64,
    /// Number of times that the held writes were dropped since the file was opened.
    pub(super) dropped_held: u64,
}

impl Usage {
    pub(super) fn total(&self) -> u64 {
        self.waiting + self.dead + self.held
    }
}
