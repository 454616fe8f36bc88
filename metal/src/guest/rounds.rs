//! What a guest does in a round.

use super::{At, Guest};
use crate::contract::*;

impl Guest<'_> {
    /// Makes rounds until it is told to halt.
    pub(super) fn run(mut self) {
        let latches = [
            (At::Mmio(MMIO_LATCH + 4 * self.vcpu), MMIO_LATCH_SEED),
            (At::Port(PORT_LATCH + 4 * self.vcpu as u16), PORT_LATCH_SEED),
        ];
        for (at, seed) in latches {
            self.write(at, Width::Dword, pattern(seed, self.vcpu));
        }
        self.begin();
        loop {
            for (at, seed) in latches {
                self.poll();
                self.exercise(at, pattern(seed, self.vcpu));
            }
            self.poll();
            self.revisit();
            self.poll();
            self.miss(At::Mmio(MMIO_NOBODY));
            self.miss(At::Port(PORT_NOBODY));
            self.poll();
            self.walk();
            self.listen();
            self.special();
            self.rounds = self.rounds.wrapping_add(1);
            let orders = self.read(self.mailbox(ORDERS), Width::Dword);
            if orders & MOVE != 0 {
                self.relocate();
            }
            if orders & HALT != 0 || self.rounds.is_multiple_of(ROUNDS_PER_REPORT) {
                self.report();
            }
            if orders & HALT != 0 {
                return;
            }
        }
    }

    /// Looks whether the next slot is populated, and the one after it first: slots are populated in order, and so they
    /// must be seen.
    fn poll(&mut self) {
        let slot = self.slot(self.next);
        let ahead = slot.plus(SLOT_STRIDE);
        let id_ahead = self.read(ahead, Width::Dword);
        let id_here = self.read(slot, Width::Dword);
        if id_here == FLOATING {
            self.misses += 2;
            self.check(ahead, id_ahead, FLOATING);
            return;
        }
        self.check(slot, id_here, id(self.next));
        if id_ahead == FLOATING {
            self.misses += 1;
        } else {
            self.check(ahead, id_ahead, id(self.next + 1));
        }
        let left = pattern(id(self.next), self.vcpu);
        self.write(slot.plus(SLOT_SCRATCH), Width::Dword, left);
        self.next += 1;
    }

    /// Visits the slots that were seen populated, in turn.
    fn revisit(&mut self) {
        if self.again >= self.next {
            self.again = 0;
            if self.next == 0 {
                return;
            }
        }
        let (slot, id) = (self.slot(self.again), id(self.again));
        self.again += 1;
        for width in WIDTHS {
            self.read_and_check(slot, width, 0, id);
        }
        self.exercise(slot.plus(SLOT_SCRATCH), pattern(id, self.vcpu));
    }

    /// Changes a register with a pattern in it, and changes it back.
    fn exercise(&mut self, at: At, pattern: u32) {
        let mut shadow = pattern.to_le_bytes();
        for step in EXERCISE {
            let (width, offset, source) = match step {
                Step::Read(width, offset) => {
                    self.read_and_check(at, width, offset, u32::from_le_bytes(shadow));
                    continue;
                }
                Step::Write(width, offset) => (width, offset, pattern),
                Step::WriteInverse(width, offset) => (width, offset, !pattern),
            };
            let bytes = offset as usize..offset as usize + width as usize;
            shadow[bytes.clone()].copy_from_slice(&source.to_le_bytes()[bytes]);
            self.write(at.plus(offset), width, source >> (8 * offset));
        }
    }

    /// Makes accesses that no device answers.
    fn miss(&mut self, at: At) {
        for width in WIDTHS {
            self.write(at, width, 0);
            self.read_and_check(at, width, 0, FLOATING);
            self.misses += 2;
        }
    }

    /// Reads the beat, which only ever advances.
    fn listen(&mut self) {
        let at = At::Mmio(BEATS + 4 * self.vcpu);
        let beat = self.read(at, Width::Dword);
        self.check(at, beat, beat.max(self.beat));
        self.beat = self.beat.max(beat);
    }

    /// Whether this is a round in which the guest uses its interrupt controller.
    pub(super) fn uses_chip(&self) -> bool {
        (self.rounds + self.vcpu * ROUNDS_PER_CHIP / MAX_VCPUS).is_multiple_of(ROUNDS_PER_CHIP)
    }

    /// Reports.
    fn report(&mut self) {
        self.tell(CHECKS, self.checks);
        self.tell(MISSES, self.misses);
        self.tell(WRONG, self.wrong);
        (self.checks, self.misses, self.wrong) = (0, 0, 0);
    }

    /// This vCPU's bank of a slot's device.
    fn slot(&self, slot: u32) -> At {
        At::Mmio(SLOTS + SLOT_STRIDE * slot + SLOT_BANK * self.vcpu)
    }
}
