//! The first members of a list, selected from members in any order.

use std::collections::BinaryHeap;

use super::ranking::Position;

/// The first members of a list after a position in it. Memory is needed only for these, however
/// many members are offered.
#[derive(Debug)]
pub struct Top<T> {
    limit: usize,
    after: Option<Position>,
    /// The last of the members is at the top.
    members: BinaryHeap<Member<T>>,
    has_more: bool,
}

#[derive(Debug)]
struct Member<T> {
    position: Position,
    value: T,
}

impl<T> Top<T> {
    /// Creates a page of at most `limit` members after a position; without one, from the beginning.
    pub fn new(limit: usize, after: Option<Position>) -> Self {
        Self { limit, after, members: BinaryHeap::with_capacity(limit + 1), has_more: false }
    }

    /// Offers a member. `value` is called only if the member is among the first ones so far.
    pub fn offer(&mut self, position: Position, value: impl FnOnce() -> T) {
        if self.after.is_some_and(|after| position <= after) {
            return;
        }
        let is_full = self.members.len() >= self.limit;
        if is_full {
            self.has_more = true;
            if self.members.peek().is_none_or(|last| last.position <= position) {
                return;
            }
            self.members.pop();
        }
        self.members.push(Member { position, value: value() });
    }

    /// Returns the members in their order, and whether there are more after them.
    pub fn into_sorted(self) -> (Vec<(Position, T)>, bool) {
        let members = self.members.into_sorted_vec();
        (members.into_iter().map(|one| (one.position, one.value)).collect(), self.has_more)
    }
}

impl<T> PartialEq for Member<T> {
    fn eq(&self, other: &Self) -> bool {
        self.position == other.position
    }
}

impl<T> Eq for Member<T> {}

impl<T> PartialOrd for Member<T> {
    fn partial_cmp(&self, other: &Self) -> Option<std::cmp::Ordering> {
        Some(self.cmp(other))
    }
}

impl<T> Ord for Member<T> {
    fn cmp(&self, other: &Self) -> std::cmp::Ordering {
        self.position.cmp(&other.position)
    }
}
