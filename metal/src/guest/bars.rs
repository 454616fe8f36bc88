//! The guest's part that has its device move.

use super::{At, Guest};
use crate::contract::*;

impl Guest<'_> {
    /// Has this vCPU's device move to its next place: from the next access on it is there, and no
    /// longer here.
    pub(super) fn relocate(&mut self) {
        let (here, there) = (self.place, next_place(self.place));
        self.place = there;
        self.write(At::Mmio(here + BAR_ADDRESS), Width::Dword, there);
        self.read_and_check(At::Mmio(here), Width::Dword, BAR_ID, FLOATING);
        self.misses += 1;
        let id = pattern(BAR_SEED, self.vcpu);
        self.read_and_check(At::Mmio(there), Width::Dword, BAR_ID, id);
        self.read_and_check(At::Mmio(there + BAR_ADDRESS), Width::Dword, 0, there)
    }
}
