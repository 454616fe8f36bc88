//! A round of the guest, part by part.

use crate::{At, Guest, Machine, contract::*};

impl<M: Machine> Guest<M> {
    /// Makes rounds until the mailbox orders a halt.
    pub fn run(&mut self) {
        let latches = [
            (At::Mmio(MMIO_LATCH + 4 * self.vcpu), MMIO_LATCH_SEED),
            (At::Port(PORT_LATCH + 4 * self.vcpu as u16), PORT_LATCH_SEED),
            (At::Mmio(crossing(self.vcpu)), CROSSING_SEED),
        ];
        // The last one crosses a page.
        let latches = &latches[..if M::IS_PC { 3 } else { 2 }];
        for (at, seed) in latches {
            self.write(*at, Width::Dword, pattern(*seed, self.vcpu));
        }
        M::begin(self);
        loop {
            for (at, seed) in latches {
                self.poll();
                self.exercise(*at, pattern(*seed, self.vcpu));
            }
            self.poll();
            self.strings();
            self.poll();
            self.revisit();
            self.poll();
            self.miss(At::Mmio(MMIO_UNMAPPED));
            self.miss(At::Port(PORT_UNMAPPED));
            self.poll();
            self.walk();
            self.ring();
            M::special(self);
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
            if M::IS_PC && self.rounds.is_multiple_of(ROUNDS_PER_LINE) {
                self.print();
            }
        }
    }

    /// Looks for a device in the slot after the next one, and then in the next one: slots are populated in order, so
    /// a device in the former implies one in the latter.
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

    /// Visits the next of the slots that were seen populated, one in each round.
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

    /// Sends strings through this vCPU's queue, and checks the returned bytes.
    fn strings(&mut self) {
        let port = QUEUE + QUEUE_BANK * self.vcpu as u16;
        let mut word = pattern(QUEUE_SEED, self.vcpu);
        let mut sent = [0; QUEUE_SIZE];
        for bytes in sent.chunks_mut(4) {
            bytes.copy_from_slice(&word.to_le_bytes());
            word = word.rotate_left(QUEUE_TURN);
        }
        for (width, items) in STRINGS {
            let length = width as usize * items as usize;
            let mut received = [0; QUEUE_SIZE];
            self.machine.write_string(port, width, &sent[..length]);
            self.machine
                .read_string(port, width, &mut received[..length]);
            for (got, sent) in received.into_iter().zip(sent).take(length) {
                self.check(At::Port(port), got.into(), sent.into());
            }
        }
    }

    /// Makes accesses that no device owns.
    fn miss(&mut self, at: At) {
        for width in WIDTHS {
            self.write(at, width, 0);
            self.read_and_check(at, width, 0, FLOATING);
            self.misses += 2;
        }
    }

    /// Reads all bays of both belts, from the last to the first.
    fn walk(&mut self) {
        for (n, belt) in BELTS.into_iter().enumerate() {
            let mut behind = 0;
            for bay in (0..BAYS).rev() {
                let mut seen = self.seen[n][bay as usize];
                self.look(belt, bay, &mut behind, &mut seen);
                self.seen[n][bay as usize] = seen;
            }
        }
    }

    /// Reads a bay. `behind` is the number of the card seen last on the belt, `seen` of the one seen last in this
    /// bay.
    fn look(&mut self, belt: Belt, bay: u32, behind: &mut u32, seen: &mut u32) {
        let at = At::Mmio(belt.bay(bay));
        let got = self.read(at, Width::Dword);
        if got == FLOATING && belt == Belt::Loose {
            self.misses += 1;
            return;
        }
        let number = number_to_show(got, *behind, *seen);
        let expected = tag(belt, number);
        self.check(at, got, expected);
        if got == expected {
            self.write(at.plus(CARD_ECHO), Width::Dword, got);
            (*behind, *seen) = (number, number);
        }
    }

    /// Moves this vCPU's device to its next place: from the next access on the device and its doorbell are at the new
    /// place, and no longer at the old one.
    fn relocate(&mut self) {
        let (here, there) = (self.place, next_place(self.place));
        self.place = there;
        self.write(At::Mmio(here + BAR_ADDRESS), Width::Dword, there);
        self.read_and_check(At::Mmio(here), Width::Dword, BAR_ID, FLOATING);
        self.write_doorbell(here);
        self.misses += 2;
        let id = pattern(BAR_SEED, self.vcpu);
        self.read_and_check(At::Mmio(there), Width::Dword, BAR_ID, id);
        self.read_and_check(At::Mmio(there + BAR_ADDRESS), Width::Dword, 0, there);
        self.ring();
    }

    /// Rings this vCPU's doorbell, at the place of its device.
    fn ring(&mut self) {
        self.write_doorbell(self.place);
        self.rings += 1;
    }

    fn write_doorbell(&mut self, place: u32) {
        let datum = pattern(BELL_SEED, self.vcpu);
        self.write(At::Mmio(place + BAR_DOORBELL), Width::Dword, datum);
    }
}
