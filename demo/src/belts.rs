//! The belts as the host sees them: which card is in which bay, and how cards come, move on and go.

use std::{collections::VecDeque, sync::Arc, thread, time::Duration};

use anyhow::{Context as _, Result};
use axdevice::{DeviceId, Removed, ThreadSafe};

use crate::{
    contract::{BAYS, Belt},
    devices::{Card, Mortal},
    options::Sabotage,
    vm::Vm,
};

/// One in so many cards of the full belt has a vCPU inside when it is removed.
const LINGERS: u32 = 16;
/// How late the new card comes, if that is sabotaged.
const LATE: Duration = Duration::from_millis(2);

/// A registered card.
struct Placed {
    name: DeviceId,
    card: Arc<Mortal<Card>>,
}

/// A card that was removed, though vCPUs may be inside.
pub(crate) struct Gone {
    pub(crate) removed: Removed<ThreadSafe>,
    pub(crate) card: Arc<Mortal<Card>>,
}

/// The cards of a belt, made one after the other.
struct Deck<'vm> {
    vm: &'vm Vm,
    belt: Belt,
    dealt: u32,
}

impl Deck<'_> {
    /// The next card, for bay 0.
    fn deal(&mut self) -> Arc<Mortal<Card>> {
        self.dealt += 1;
        let linger = self.belt == Belt::Full && self.dealt.is_multiple_of(LINGERS);
        let card = Card::new(self.belt, self.dealt, linger, self.vm.noticed.clone());
        Arc::new(Mortal::new(card, self.vm.late.clone()))
    }
}

/// The belt whose cards move at the same instant.
pub(crate) struct FullBelt<'vm> {
    deck: Deck<'vm>,
    /// By bay.
    cards: VecDeque<Placed>,
}

impl<'vm> FullBelt<'vm> {
    /// Fills the belt of `vm`, before any vCPU runs.
    pub(crate) fn new(vm: &'vm Vm) -> Result<Self> {
        let belt = Belt::Full;
        let mut deck = Deck { vm, belt, dealt: 0 };
        let mut cards = VecDeque::new();
        for bay in (0..BAYS).rev() {
            let card = deck.deal();
            card.device().coming_to(bay);
            let name = vm.devices.add_mmio_dev(card.clone())?;
            cards.push_front(Placed { name, card });
        }
        Ok(Self { deck, cards })
    }

    /// Moves all cards on, at one instant: one goes, and one comes.
    pub(crate) fn shift(&mut self) -> Result<Gone> {
        let Deck { vm, belt, .. } = self.deck;
        let last = self.cards.pop_back().context("an empty belt")?;
        let card = self.deck.deal();
        let in_time = vm.sabotage != Some(Sabotage::Shift);
        let (name, mut removed) = vm.devices.update(|batch| {
            batch.remove(last.name)?;
            for (bay, placed) in (1..BAYS).zip(&self.cards).rev() {
                placed.card.device().coming_to(bay);
                batch.move_to(placed.name, Card::range(belt, bay))?;
            }
            let added = in_time.then(|| batch.add_mmio_dev(card.clone()));
            anyhow::Ok(added.transpose()?)
        })?;
        let name = name.map_or_else(
            || {
                thread::sleep(LATE);
                vm.devices.add_mmio_dev(card.clone())
            },
            Ok,
        )?;
        self.cards.push_front(Placed { name, card });
        let removed = removed.pop().context("nothing was removed")?;
        let card = last.card;
        Ok(Gone { removed, card })
    }
}

/// What was done with a card.
pub(crate) enum Step {
    Added,
    Moved,
    Removed(Gone),
}

/// The belt whose cards move one by one.
pub(crate) struct LooseBelt<'vm> {
    deck: Deck<'vm>,
    bays: [Option<Placed>; BAYS as usize],
    /// Where the last step was.
    at: usize,
}

impl<'vm> LooseBelt<'vm> {
    /// The belt of `vm`, empty.
    pub(crate) fn new(vm: &'vm Vm) -> Self {
        let belt = Belt::Loose;
        Self {
            deck: Deck { vm, belt, dealt: 0 },
            bays: Default::default(),
            at: 0,
        }
    }

    /// Takes the next step that can be taken, from the last bay to the first: the last card goes, each
    /// that has an empty bay before it moves on, a card comes.
    pub(crate) fn step(&mut self) -> Result<Step> {
        loop {
            self.at = self.at.checked_sub(1).unwrap_or(self.bays.len());
            if let Some(step) = self.step_to(self.at)? {
                return Ok(step);
            }
        }
    }

    /// Has the card in the bay before move to bay `to`, if there is one and that is empty. Before the
    /// first bay there is a new card; after the last nothing.
    fn step_to(&mut self, to: usize) -> Result<Option<Step>> {
        let Deck { vm, belt, .. } = self.deck;
        if self.bays.get(to).is_some_and(Option::is_some) {
            return Ok(None);
        }
        if to == 0 {
            let card = self.deck.deal();
            let name = vm.devices.add_mmio_dev(card.clone())?;
            self.bays[to] = Some(Placed { name, card });
            return Ok(Some(Step::Added));
        }
        let Some(placed) = self.bays[to - 1].take() else {
            return Ok(None);
        };
        if to == self.bays.len() {
            let (removed, card) = (vm.devices.remove(placed.name)?, placed.card);
            return Ok(Some(Step::Removed(Gone { removed, card })));
        }
        let bay = to as u32;
        placed.card.device().coming_to(bay);
        vm.devices.move_to(placed.name, Card::range(belt, bay))?;
        self.bays[to] = Some(placed);
        Ok(Some(Step::Moved))
    }
}

#[cfg(test)]
mod tests {
    use axaddrspace::{GuestPhysAddr, device::AccessWidth};

    use super::*;
    use crate::contract::{FLOATING, TAG_BITS};

    /// The number of the card in each bay, 0 for none.
    fn numbers(vm: &Vm, belt: Belt) -> Vec<u32> {
        let read = |bay| {
            let addr = GuestPhysAddr::from_usize(belt.bay(bay) as usize);
            let tag = vm
                .devices
                .handle_mmio_read(addr, AccessWidth::Dword)
                .unwrap() as u32;
            if tag == FLOATING { 0 } else { tag >> TAG_BITS }
        };
        (0..BAYS).map(read).collect()
    }

    #[test]
    fn a_shift_moves_all_cards_on() {
        let vm = Vm::new(1, None).unwrap();
        let mut belt = FullBelt::new(&vm).unwrap();
        assert_eq!(numbers(&vm, Belt::Full), [8, 7, 6, 5, 4, 3, 2, 1]);
        let gone = belt.shift().unwrap();
        assert!(gone.removed.is_quiescent());
        assert_eq!(numbers(&vm, Belt::Full), [9, 8, 7, 6, 5, 4, 3, 2]);
    }

    #[test]
    fn steps_fill_the_loose_belt_and_keep_it_moving_in_order() {
        let vm = Vm::new(1, None).unwrap();
        let mut belt = LooseBelt::new(&vm);
        let (mut added, mut moved, mut removed) = (0, 0, 0);
        for _ in 0..400 {
            match belt.step().unwrap() {
                Step::Added => added += 1,
                Step::Moved => moved += 1,
                Step::Removed(_) => removed += 1,
            }
            let numbers = numbers(&vm, Belt::Loose);
            let cards: Vec<_> = numbers.into_iter().filter(|number| *number > 0).collect();
            assert!(cards.is_sorted_by(|nearer, further| nearer > further));
            assert_eq!(cards.len(), added - removed);
        }
        assert!(removed > 30 && moved >= 7 * removed);
    }
}
