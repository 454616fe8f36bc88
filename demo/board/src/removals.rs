//! Removed cards: each is poisoned as soon as it is quiescent, and kept, so that a late access is counted.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};

use crate::{Board, Card, Gone, Mortal, Sabotage};

/// The number of poisoned cards that are kept.
const KEPT: usize = 4096;

/// The removed cards.
pub(crate) struct Removals<'b> {
    board: &'b Board,
    pending: Vec<Pending>,
    poisoned: VecDeque<Arc<Mortal<Card>>>,
}

/// A card that is not quiescent yet.
struct Pending {
    gone: Gone,
    since: u64,
}

impl<'b> Removals<'b> {
    /// None yet.
    pub(crate) fn new(board: &'b Board) -> Self {
        Self {
            board,
            pending: Vec::new(),
            poisoned: VecDeque::new(),
        }
    }

    /// Takes over a card that was just removed.
    pub(crate) fn push(&mut self, gone: Gone) {
        let since = self.board.nanos();
        if self.board.sabotages(Sabotage::Poison) {
            gone.card.poison();
        }
        gone.card.device().gone();
        self.pending.push(Pending { gone, since });
    }

    /// Poisons the cards that are now quiescent, and calls `quiescent` with the nanoseconds since each removal.
    pub(crate) fn look(&mut self, mut quiescent: impl FnMut(u64)) {
        let is_quiescent = |pending: &mut Pending| pending.gone.removed.is_quiescent();
        for Pending { gone, since } in self.pending.extract_if(.., is_quiescent) {
            quiescent(self.board.nanos() - since);
            gone.card.poison();
            self.poisoned.push_back(gone.card);
        }
        let surplus = self.poisoned.len().saturating_sub(KEPT);
        self.poisoned.drain(..surplus);
    }

    /// The number of cards that are not quiescent.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }

    /// The cards that are not quiescent.
    pub(crate) fn into_pending(self) -> Vec<Gone> {
        self.pending
            .into_iter()
            .map(|pending| pending.gone)
            .collect()
    }
}
