//! Lane: the events of one key in memory, in order. A lane of one event takes no allocation.

use std::{collections::VecDeque, iter::once};

use super::Ticket;

#[derive(Debug)]
pub(super) struct Lane {
    first: Ticket,
    behind: VecDeque<Ticket>,
}

impl Lane {
    pub(super) fn new(first: Ticket) -> Self {
        Self { first, behind: VecDeque::new() }
    }

    pub(super) fn push(&mut self, ticket: Ticket) {
        self.behind.push_back(ticket);
    }

    pub(super) fn first(&self) -> Ticket {
        self.first
    }

    pub(super) fn iter(&self) -> impl DoubleEndedIterator<Item = Ticket> {
        once(self.first).chain(self.behind.iter().copied())
    }

    /// Removes the first event and returns the next; `None` when the lane is empty.
    pub(super) fn advance(&mut self) -> Option<Ticket> {
        self.first = self.behind.pop_front()?;
        Some(self.first)
    }

    /// Removes an event that is not the first.
    pub(super) fn forget(&mut self, ticket: Ticket) {
        self.behind.retain(|member| *member != ticket);
    }
}
