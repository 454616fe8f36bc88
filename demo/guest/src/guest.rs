//! The state of a guest, how it checks a value, and how it reports.

use crate::{
    At, Machine,
    contract::{
        BAYS, BELTS, CHECKS, FIRST_ADDRESS, FIRST_EXPECTED, FIRST_GOT, MAILBOX, MAILBOX_BANK,
        MISSES, RINGS, SLOT_BANK, SLOT_STRIDE, SLOTS, WRONG, Width, first_place,
    },
};

/// The guest of a vCPU.
#[derive(Debug)]
pub struct Guest<M> {
    /// Makes the accesses.
    pub machine: M,
    /// The number of the vCPU.
    pub vcpu: u32,
    /// Rounds done.
    pub rounds: u32,
    /// Misses since the last report.
    pub misses: u32,
    checks: u32,
    wrong: u32,
    pub(crate) rings: u32,
    /// Whether a wrong value has been reported in detail.
    detailed: bool,
    /// The first slot that has not been seen populated.
    pub(crate) next: u32,
    /// The slot to visit again.
    pub(crate) again: u32,
    /// The number of the card seen last in each bay of each belt.
    pub(crate) seen: [[u32; BAYS as usize]; BELTS.len()],
    /// The place of this vCPU's own device.
    pub(crate) place: u32,
}

impl<M: Machine> Guest<M> {
    /// The guest of `vcpu`, before its first round.
    pub fn new(vcpu: u32, machine: M) -> Self {
        Self {
            machine,
            vcpu,
            rounds: 0,
            misses: 0,
            checks: 0,
            wrong: 0,
            rings: 0,
            detailed: false,
            next: 0,
            again: 0,
            seen: Default::default(),
            place: first_place(vcpu),
        }
    }

    /// Reads a register.
    pub fn read(&mut self, at: At, width: Width) -> u32 {
        self.machine.read(at, width)
    }

    /// Writes a register.
    pub fn write(&mut self, at: At, width: Width, value: u32) {
        self.machine.write(at, width, value);
    }

    /// Reads a part of a register that holds `holds`, from `offset` on, and checks it.
    pub fn read_and_check(&mut self, at: At, width: Width, offset: u32, holds: u32) {
        let at = at.plus(offset);
        let expected = (holds >> (8 * offset)) & (u32::MAX >> (32 - 8 * width as u32));
        let got = self.read(at, width);
        self.check(at, got, expected);
    }

    /// Checks a value that was read, and reports the first wrong one in detail.
    pub fn check(&mut self, at: At, got: u32, expected: u32) {
        self.checks += 1;
        if got == expected {
            return;
        }
        self.wrong += 1;
        if self.detailed {
            return;
        }
        self.detailed = true;
        self.post(FIRST_ADDRESS, at.number());
        self.post(FIRST_GOT, got);
        self.post(FIRST_EXPECTED, expected);
    }

    /// Reports the counts since the last report.
    pub(crate) fn report(&mut self) {
        self.post(CHECKS, self.checks);
        self.post(MISSES, self.misses);
        self.post(WRONG, self.wrong);
        self.post(RINGS, self.rings);
        (self.checks, self.misses, self.wrong, self.rings) = (0, 0, 0, 0);
    }

    /// Writes a word of this vCPU's mailbox.
    fn post(&mut self, word: u16, value: u32) {
        self.write(self.mailbox(word), Width::Dword, value);
    }

    /// A word of this vCPU's mailbox.
    pub(crate) fn mailbox(&self, word: u16) -> At {
        At::Port(MAILBOX + MAILBOX_BANK * self.vcpu as u16 + word)
    }

    /// This vCPU's bank of the device in a slot.
    pub(crate) fn slot(&self, slot: u32) -> At {
        At::Mmio(SLOTS + SLOT_STRIDE * slot + SLOT_BANK * self.vcpu)
    }
}
