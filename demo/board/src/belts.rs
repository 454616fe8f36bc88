//! The host's side of the belts: the card in each bay, and the changes that add, move and remove cards.

use alloc::{collections::VecDeque, sync::Arc};

use axdevice::{DeviceId, Refusal, Removed, ThreadSafe};
use guest::contract::{BAYS, Belt};

use crate::{Board, Card, Mortal, Sabotage};

/// Each card of the full belt whose number is a multiple of this has a vCPU inside when it is removed.
const LINGERS: u32 = 16;
/// The delay of the new card, if that is sabotaged, in nanoseconds.
const LATE: u64 = 10_000_000;

/// A registered card.
struct Placed {
    name: DeviceId,
    card: Arc<Mortal<Card>>,
}

impl Placed {
    /// Records in the card the bay to which it is about to move, if that is not sabotaged.
    fn coming_to(&self, board: &Board, bay: u32) {
        if !board.sabotages(Sabotage::Stray) {
            self.card.device().coming_to(bay);
        }
    }
}

/// A removed card, in which vCPUs may still be.
pub struct Gone {
    /// Reports whether a vCPU is inside.
    pub removed: Removed<ThreadSafe>,
    /// The card.
    pub card: Arc<Mortal<Card>>,
}

/// Makes the cards of a belt, one after the other.
struct Deck<'b> {
    board: &'b Board,
    belt: Belt,
    dealt: u32,
}

impl Deck<'_> {
    /// The next card, for bay 0.
    fn deal(&mut self) -> Arc<Mortal<Card>> {
        self.dealt += 1;
        let linger = self.belt == Belt::Full && self.dealt.is_multiple_of(LINGERS);
        self.board.card(self.belt, self.dealt, linger)
    }
}

/// The belt whose cards move at the same instant.
pub(crate) struct FullBelt<'b> {
    deck: Deck<'b>,
    /// By bay.
    cards: VecDeque<Placed>,
}

impl<'b> FullBelt<'b> {
    /// Fills the belt of `board`, before any vCPU runs.
    pub(crate) fn new(board: &'b Board) -> Result<Self, Refusal> {
        let belt = Belt::Full;
        let mut deck = Deck {
            board,
            belt,
            dealt: 0,
        };
        let mut cards = VecDeque::new();
        for bay in (0..BAYS).rev() {
            let card = deck.deal();
            card.device().coming_to(bay);
            let name = board.devices.add_mmio_dev(card.clone())?;
            cards.push_front(Placed { name, card });
        }
        Ok(Self { deck, cards })
    }

    /// Moves all cards on, at one instant: removes the last one, and adds a first one.
    pub(crate) fn shift(&mut self) -> Result<Gone, Refusal> {
        let Deck { board, belt, .. } = self.deck;
        let last = self.cards.pop_back().expect("a full belt");
        let card = self.deck.deal();
        let in_time = !board.sabotages(Sabotage::Shift);
        let (name, mut removed) = board.devices.update(|batch| {
            batch.remove(last.name)?;
            for (bay, placed) in (1..BAYS).zip(&self.cards).rev() {
                placed.coming_to(board, bay);
                batch.move_to(placed.name, Card::range(belt, bay))?;
            }
            let added = in_time.then(|| batch.add_mmio_dev(card.clone()));
            added.transpose()
        })?;
        let name = name.map_or_else(
            || {
                (board.host.pause)(LATE);
                board.devices.add_mmio_dev(card.clone())
            },
            Ok,
        )?;
        self.cards.push_front(Placed { name, card });
        let removed = removed.pop().expect("a removed card");
        let card = last.card;
        Ok(Gone { removed, card })
    }
}

/// The change of a card.
pub(crate) enum Step {
    Added,
    Moved,
    Removed(Gone),
}

/// The belt whose cards move one by one.
pub(crate) struct LooseBelt<'b> {
    deck: Deck<'b>,
    bays: [Option<Placed>; BAYS as usize],
    /// The bay of the last step.
    at: usize,
}

impl<'b> LooseBelt<'b> {
    /// The belt of `board`, empty.
    pub(crate) fn new(board: &'b Board) -> Self {
        let belt = Belt::Loose;
        Self {
            deck: Deck {
                board,
                belt,
                dealt: 0,
            },
            bays: Default::default(),
            at: 0,
        }
    }

    /// Takes the next step that is possible, from the last bay to the first: removes the last card, moves one on to an
    /// empty bay, or adds one.
    pub(crate) fn step(&mut self) -> Result<Step, Refusal> {
        loop {
            self.at = self.at.checked_sub(1).unwrap_or(self.bays.len());
            if let Some(step) = self.step_to(self.at)? {
                return Ok(step);
            }
        }
    }

    /// Moves the card of the previous bay to bay `to`, if there is a card and bay `to` is empty. A step to the first
    /// bay adds a new card; a step past the last bay removes a card.
    fn step_to(&mut self, to: usize) -> Result<Option<Step>, Refusal> {
        let Deck { board, belt, .. } = self.deck;
        if self.bays.get(to).is_some_and(Option::is_some) {
            return Ok(None);
        }
        if to == 0 {
            let card = self.deck.deal();
            let name = board.devices.add_mmio_dev(card.clone())?;
            self.bays[to] = Some(Placed { name, card });
            return Ok(Some(Step::Added));
        }
        let Some(placed) = self.bays[to - 1].take() else {
            return Ok(None);
        };
        if to == self.bays.len() {
            let (removed, card) = (board.devices.remove(placed.name)?, placed.card);
            return Ok(Some(Step::Removed(Gone { removed, card })));
        }
        let bay = to as u32;
        placed.coming_to(board, bay);
        board.devices.move_to(placed.name, Card::range(belt, bay))?;
        self.bays[to] = Some(placed);
        Ok(Some(Step::Moved))
    }
}

#[cfg(test)]
mod tests {
    use axaddrspace::{GuestPhysAddr, device::AccessWidth};

    use guest::contract::{FLOATING, TAG_BITS};
    use std::vec::Vec;

    use super::*;

    /// The number of the card in each bay, 0 for none.
    fn numbers(board: &Board, belt: Belt) -> Vec<u32> {
        let read = |bay| {
            let addr = GuestPhysAddr::from_usize(belt.bay(bay) as usize);
            let tag = board
                .devices
                .handle_mmio_read(addr, AccessWidth::Dword)
                .unwrap() as u32;
            if tag == FLOATING { 0 } else { tag >> TAG_BITS }
        };
        (0..BAYS).map(read).collect()
    }

    #[test]
    fn a_shift_moves_all_cards_on() {
        let board = Board::test();
        let mut belt = FullBelt::new(&board).unwrap();
        assert_eq!(numbers(&board, Belt::Full), [8, 7, 6, 5, 4, 3, 2, 1]);
        let gone = belt.shift().unwrap();
        assert!(gone.removed.is_quiescent());
        assert_eq!(numbers(&board, Belt::Full), [9, 8, 7, 6, 5, 4, 3, 2]);
    }

    #[test]
    fn steps_fill_the_loose_belt_and_keep_it_moving_in_order() {
        let board = Board::test();
        let mut belt = LooseBelt::new(&board);
        let (mut added, mut moved, mut removed) = (0, 0, 0);
        for _ in 0..400 {
            match belt.step().unwrap() {
                Step::Added => added += 1,
                Step::Moved => moved += 1,
                Step::Removed(_) => removed += 1,
            }
            let numbers = numbers(&board, Belt::Loose);
            let cards: Vec<_> = numbers.into_iter().filter(|number| *number > 0).collect();
            assert!(cards.is_sorted_by(|nearer, further| nearer > further));
            assert_eq!(cards.len(), added - removed);
        }
        assert!(removed > 30 && moved >= 7 * removed);
    }
}
