//! Removed cards: each is poisoned as soon as it is quiescent, and kept, so that a late access is one to be counted.

use alloc::{collections::VecDeque, sync::Arc, vec::Vec};

use crate::{
    belts::Gone,
    devices::{Card, Mortal},
    options::Sabotage,
    vm::Vm,
};

/// How many poisoned cards are kept.
const KEPT: usize = 4096;

/// The removed cards.
pub(crate) struct Removals {
    vm: &'static Vm,
    pending: Vec<Gone>,
    poisoned: VecDeque<Arc<Mortal<Card>>>,
}

impl Removals {
    /// None yet.
    pub(crate) fn new(vm: &'static Vm) -> Self {
        Self {
            vm,
            pending: Vec::new(),
            poisoned: VecDeque::new(),
        }
    }

    /// Takes a card that has just been removed.
    pub(crate) fn push(&mut self, gone: Gone) {
        if self.vm.sabotages(Sabotage::Poison) {
            gone.card.poison();
        }
        gone.card.device().gone();
        self.pending.push(gone);
    }

    /// Poisons the cards that are quiescent by now.
    pub(crate) fn look(&mut self) {
        for gone in self
            .pending
            .extract_if(.., |gone| gone.removed.is_quiescent())
        {
            gone.card.poison();
            self.poisoned.push_back(gone.card);
        }
        let surplus = self.poisoned.len().saturating_sub(KEPT);
        self.poisoned.drain(..surplus);
    }

    /// How many are not quiescent.
    pub(crate) fn pending(&self) -> usize {
        self.pending.len()
    }
}
