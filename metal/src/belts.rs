//! The belts as the host sees them: which card is in which bay, and how cards come, move on and go.

use alloc::{collections::VecDeque, sync::Arc};

use ax_errno::AxResult;
use axdevice::{DeviceId, Removed, ThreadSafe};

use crate::{
    arch,
    contract::{BAYS, Belt},
    devices::{Card, Mortal},
    options::Sabotage,
    vm::Vm,
};

/// One in so many cards of the full belt has a vCPU inside when it is removed.
const LINGERS: u32 = 16;
/// How late the new card comes, if that is sabotaged, in nanoseconds.
const LATE: u64 = 10_000_000;

/// A registered card.
struct Placed {
    name: DeviceId,
    card: Arc<Mortal<Card>>,
}

impl Placed {
    /// Tells the card that it moves on to `bay`, if that is not sabotaged.
    fn coming_to(&self, vm: &Vm, bay: u32) {
        if !vm.sabotages(Sabotage::Stray) {
            self.card.device().coming_to(bay);
        }
    }
}

/// A card that was removed, though vCPUs may be inside.
pub(crate) struct Gone {
    pub(crate) removed: Removed<ThreadSafe>,
    pub(crate) card: Arc<Mortal<Card>>,
}

/// The cards of a belt, made one after the other.
struct Deck {
    vm: &'static Vm,
    belt: Belt,
    dealt: u32,
}

impl Deck {
    /// The next card, for bay 0.
    fn deal(&mut self) -> Arc<Mortal<Card>> {
        self.dealt += 1;
        let linger = self.belt == Belt::Full && self.dealt.is_multiple_of(LINGERS);
        let card = Card::new(self.belt, self.dealt, linger, self.vm.noticed.clone());
        Arc::new(Mortal::new(card, self.vm.late.clone()))
    }
}

/// The belt whose cards move at the same instant.
pub(crate) struct FullBelt {
    deck: Deck,
    /// By bay.
    cards: VecDeque<Placed>,
}

impl FullBelt {
    /// Fills the belt of `vm`, before any vCPU runs.
    pub(crate) fn new(vm: &'static Vm) -> Self {
        let belt = Belt::Full;
        let mut deck = Deck { vm, belt, dealt: 0 };
        let mut cards = VecDeque::new();
        for bay in (0..BAYS).rev() {
            let card = deck.deal();
            card.device().coming_to(bay);
            let name = vm.devices.add_mmio_dev(card.clone()).expect("a free bay");
            cards.push_front(Placed { name, card });
        }
        Self { deck, cards }
    }

    /// Moves all cards on, at one instant: one goes, and one comes.
    pub(crate) fn shift(&mut self) -> AxResult<Gone> {
        let Deck { vm, belt, .. } = self.deck;
        let last = self.cards.pop_back().expect("a full belt");
        let card = self.deck.deal();
        let in_time = !vm.sabotages(Sabotage::Shift);
        let (name, mut removed) = vm.devices.update(|batch| {
            batch.remove(last.name)?;
            for (bay, placed) in (1..BAYS).zip(&self.cards).rev() {
                placed.coming_to(vm, bay);
                batch.move_to(placed.name, Card::range(belt, bay))?;
            }
            let added = in_time.then(|| batch.add_mmio_dev(card.clone()));
            AxResult::Ok(added.transpose()?)
        })?;
        let name = match name {
            Some(name) => name,
            None => {
                let since = arch::nanos();
                while arch::nanos() - since < LATE {}
                vm.devices.add_mmio_dev(card.clone())?
            }
        };
        self.cards.push_front(Placed { name, card });
        let removed = removed.pop().expect("a removed card");
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
pub(crate) struct LooseBelt {
    deck: Deck,
    bays: [Option<Placed>; BAYS as usize],
    /// Where the last step was.
    at: usize,
}

impl LooseBelt {
    /// The belt of `vm`, empty.
    pub(crate) fn new(vm: &'static Vm) -> Self {
        let belt = Belt::Loose;
        Self {
            deck: Deck { vm, belt, dealt: 0 },
            bays: Default::default(),
            at: 0,
        }
    }

    /// Takes the next step that can be taken, from the last bay to the first: the last card goes, each that has an empty
    /// bay before it moves on, a card comes.
    pub(crate) fn step(&mut self) -> AxResult<Step> {
        loop {
            self.at = self.at.checked_sub(1).unwrap_or(self.bays.len());
            if let Some(step) = self.step_to(self.at)? {
                return Ok(step);
            }
        }
    }

    /// Moves the card in the bay before to bay `to`, if there is one and that is empty. Before the first bay there is a
    /// new card; after the last nothing.
    fn step_to(&mut self, to: usize) -> AxResult<Option<Step>> {
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
        placed.coming_to(vm, bay);
        vm.devices.move_to(placed.name, Card::range(belt, bay))?;
        self.bays[to] = Some(placed);
        Ok(Some(Step::Moved))
    }
}
