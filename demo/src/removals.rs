//! What becomes of removed cards: each is poisoned as soon as it is quiescent, and kept, so that a
//! late access is one to be counted.

use std::{collections::VecDeque, sync::Arc};

use crate::{
    belts::Gone,
    devices::{Card, Mortal},
    options::Sabotage,
    vm::Vm,
};

/// How many poisoned cards are kept.
const KEPT: usize = 4096;

/// The removed cards.
pub(crate) struct Removals<'vm> {
    vm: &'vm Vm,
    pending: Vec<Pending>,
    poisoned: VecDeque<Arc<Mortal<Card>>>,
    nanos: Vec<u64>,
}

/// A card that is not quiescent yet.
struct Pending {
    gone: Gone,
    since: u64,
}

impl<'vm> Removals<'vm> {
    /// None yet.
    pub(crate) fn new(vm: &'vm Vm) -> Self {
        Self {
            vm,
            pending: Vec::new(),
            poisoned: VecDeque::new(),
            nanos: Vec::new(),
        }
    }

    /// Takes a card that has just been removed.
    pub(crate) fn push(&mut self, gone: Gone) {
        let since = self.vm.nanos();
        if self.vm.sabotage == Some(Sabotage::Poison) {
            gone.card.poison();
        }
        gone.card.device().gone();
        self.pending.push(Pending { gone, since });
    }

    /// Poisons the cards that are quiescent by now.
    pub(crate) fn look(&mut self) {
        let quiescent = |pending: &mut Pending| pending.gone.removed.is_quiescent();
        for Pending { gone, since } in self.pending.extract_if(.., quiescent) {
            self.nanos.push(self.vm.nanos() - since);
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

    /// Nanoseconds from each removal until the card was found quiescent, and the cards that were not.
    pub(crate) fn into_parts(self) -> (Vec<u64>, Vec<Gone>) {
        let pending = self.pending.into_iter().map(|pending| pending.gone);
        (self.nanos, pending.collect())
    }
}
