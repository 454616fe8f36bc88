//! The guest: on each vCPU it makes, round by round, the accesses that the demo's guest makes, and checks every value
//! that it reads.

#![no_std]
#![no_main]

#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
mod arch;
mod bars;
#[path = "../../../demo/src/threads/belts.rs"]
mod belts;
#[path = "../contract.rs"]
#[expect(dead_code, reason = "the hypervisor's part of it")]
mod contract;
mod rounds;

use core::panic::PanicInfo;

use crate::contract::*;

/// The numbers of the cards that were seen in the bays of all belts.
type Seen = [u32; BELTS.len() * BAYS as usize];

/// A register on either bus.
#[derive(Clone, Copy)]
enum At {
    Mmio(u32),
    Port(u16),
}

impl At {
    fn plus(self, offset: u32) -> Self {
        match self {
            Self::Mmio(address) => Self::Mmio(address + offset),
            Self::Port(port) => Self::Port(port + offset as u16),
        }
    }

    /// What the mailbox is told of it.
    fn number(self) -> u32 {
        match self {
            Self::Mmio(address) => address,
            Self::Port(port) => port.into(),
        }
    }

    /// Where it is in memory.
    fn address(self) -> usize {
        match self {
            Self::Mmio(address) => address as usize,
            Self::Port(port) => PORTS as usize + usize::from(port),
        }
    }
}

/// A vCPU's guest.
struct Guest<'seen> {
    vcpu: u32,
    /// The first slot that was not seen populated.
    next: u32,
    /// The slot to visit again.
    again: u32,
    /// The number of the card seen last on the belt that is looked at.
    behind: u32,
    seen: &'seen mut Seen,
    /// Where this vCPU's own device is.
    place: u32,
    /// The beat that was read last.
    beat: u32,
    rounds: u32,
    checks: u32,
    misses: u32,
    wrong: u32,
    told: bool,
    chip: arch::Chip,
}

impl<'seen> Guest<'seen> {
    fn new(vcpu: u32, seen: &'seen mut Seen) -> Self {
        Self {
            vcpu,
            next: 0,
            again: 0,
            behind: 0,
            seen,
            place: first_place(vcpu),
            beat: 0,
            rounds: 0,
            checks: 0,
            misses: 0,
            wrong: 0,
            told: false,
            chip: arch::Chip::default(),
        }
    }

    fn read(&mut self, at: At, width: Width) -> u32 {
        arch::read(at.address(), width)
    }

    fn write(&mut self, at: At, width: Width, value: u32) {
        arch::write(at.address(), width, value);
    }

    fn read_and_check(&mut self, at: At, width: Width, offset: u32, holds: u32) {
        let at = at.plus(offset);
        let expected = (holds >> (8 * offset)) & (u32::MAX >> (32 - 8 * width as u32));
        let got = self.read(at, width);
        self.check(at, got, expected);
    }

    fn check(&mut self, at: At, got: u32, expected: u32) {
        self.checks += 1;
        if got == expected {
            return;
        }
        self.wrong += 1;
        if self.told {
            return;
        }
        self.told = true;
        self.tell(FIRST_ADDRESS, at.number());
        self.tell(FIRST_GOT, got);
        self.tell(FIRST_EXPECTED, expected);
    }

    fn tell(&mut self, word: u16, value: u32) {
        self.write(self.mailbox(word), Width::Dword, value);
    }

    fn mailbox(&self, word: u16) -> At {
        At::Port(MAILBOX + MAILBOX_BANK * self.vcpu as u16 + word)
    }
}

/// Where each vCPU starts, with its number and whether it is to panic, on its own stack, without address translation of
/// its own.
// SAFETY: no other symbol of this name is linked.
#[unsafe(no_mangle)]
// SAFETY: the linker script puts the section where code is.
#[unsafe(link_section = ".text.entry")]
extern "C" fn guest_entry(vcpu: u64, panics: u64) -> ! {
    assert_eq!(panics, 0);
    let mut seen = Seen::default();
    Guest::new(vcpu as u32, &mut seen).run();
    arch::call(CALL_HALT)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    arch::call(CALL_PANIC)
}
