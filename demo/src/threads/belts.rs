//! The guest's parts that look at devices which come, move along and go.

use super::{At, Guest};
use crate::contract::*;

impl Guest<'_> {
    /// Looks at all bays of both belts, from the last to the first.
    pub(super) fn walk(&mut self) {
        for (n, belt) in BELTS.into_iter().enumerate() {
            self.behind = 0;
            for bay in (0..BAYS).rev() {
                self.look(belt, bay, n * BAYS as usize + bay as usize);
            }
        }
    }

    /// Looks at a bay, whose entry in the table of numbers seen is `index`.
    fn look(&mut self, belt: Belt, bay: u32, index: usize) {
        let at = At::Mmio(belt.bay(bay));
        let got = self.read(at, Width::Dword);
        let number = match got {
            FLOATING if belt == Belt::Loose => {
                self.misses += 1;
                return;
            }
            FLOATING => 0,
            tag => tag >> TAG_BITS,
        };
        // If that is too low, the lowest that would not have been.
        let number = number.max(self.behind + 1).max(self.seen[index]);
        let expected = tag(belt, number);
        self.check(at, got, expected);
        if got == expected {
            self.write(at.plus(CARD_ECHO), Width::Dword, got);
            self.behind = number;
            self.seen[index] = number;
        }
    }
}
