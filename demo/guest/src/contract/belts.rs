//! Belts: rows of bays, for devices that are added, move along and are removed while guests read them.
//!
//! A device on a belt is a *card*. Cards have numbers, from 1 on, in the order in which they are added. A card
//! is added in bay 0, moves from bay to bay, is removed from the last one, and overtakes no other. So a vCPU that
//! reads the bays at any time must find:
//!
//! - in one bay, never a lower number after a higher one;
//! - from the last bay to the first, in each bay a number above all numbers that it has just read;
//! - on the belt that is always full, a card in each bay at any time.

use super::{FLOATING, ID_FACTOR};

/// The number of bays of a belt.
pub const BAYS: u32 = 8;
/// The distance from one bay to the next, in bytes.
pub const BAY_STRIDE: u32 = 0x1000;
/// The size of a card's registers.
pub const CARD_SIZE: u32 = 8;
/// Offset of a card's [`tag`], read-only.
pub const CARD_TAG: u32 = 0;
/// Offset of a register for a tag that a guest has read in this bay: that of this card, or of an earlier one in this
/// bay.
pub const CARD_ECHO: u32 = 4;
/// The bits of a tag that are not the number.
pub const TAG_BITS: u32 = 10;
/// An upper bound of the cards' numbers, exclusive.
pub const MAX_CARDS: u32 = FLOATING >> TAG_BITS;

/// A row of bays. Its value is the guest physical address of the first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Belt {
    /// At one instant all of its cards move, one is removed and one is added: it is always full.
    Full = 0xc100_0000,
    /// Its cards move one by one. Bays are empty at times.
    Loose = 0xc200_0000,
}

/// All belts.
pub const BELTS: [Belt; 2] = [Belt::Full, Belt::Loose];

impl Belt {
    /// Guest physical address of a bay.
    pub const fn bay(self, bay: u32) -> u32 {
        self as u32 + bay * BAY_STRIDE
    }

    /// The bay that contains `address`.
    pub const fn bay_at(self, address: u32) -> u32 {
        (address - self as u32) / BAY_STRIDE
    }
}

/// The value of card `number` of `belt`: its number, and bits that reveal a value that mixes several cards, or
/// belongs to no card.
pub const fn tag(belt: Belt, number: u32) -> u32 {
    let proof = (number ^ belt as u32).wrapping_mul(ID_FACTOR) >> (u32::BITS - TAG_BITS);
    number << TAG_BITS | proof
}

/// The number expected in a bay that reads as `got`. It is the number in `got`, or, if that is too low, the lowest
/// possible one: above `behind`, read in a bay further on, and not below `seen`, read in this bay before.
pub fn number_to_show(got: u32, behind: u32, seen: u32) -> u32 {
    let number = if got == FLOATING { 0 } else { got >> TAG_BITS };
    number.max(behind + 1).max(seen)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_tag_contains_the_number_and_the_belt() {
        for number in (1..100_000).chain(MAX_CARDS - 10..MAX_CARDS) {
            let tags = BELTS.map(|belt| tag(belt, number));
            assert!(tags.iter().all(|tag| tag >> TAG_BITS == number));
            assert_ne!(tags[0], tags[1]);
        }
    }

    #[test]
    fn no_tag_floats() {
        for belt in BELTS {
            assert_ne!(tag(belt, MAX_CARDS), FLOATING);
        }
    }

    #[test]
    fn an_address_leads_back_to_its_bay() {
        for belt in BELTS {
            for bay in 0..BAYS {
                assert_eq!(belt.bay_at(belt.bay(bay) + CARD_ECHO), bay);
            }
        }
    }
}
