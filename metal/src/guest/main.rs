//! The guest: the demo's, on each vCPU, with the accesses and the parts of a round that only these machines have.

#![no_std]
#![no_main]

#[cfg_attr(target_arch = "aarch64", path = "aarch64.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64.rs")]
mod arch;
#[path = "../contract.rs"]
#[expect(dead_code, reason = "the hypervisor's part of it")]
mod contract;

use core::panic::PanicInfo;

use guest::{At, Machine};

use crate::contract::*;

type Guest = guest::Guest<Metal>;

/// The machine as seen by its guest.
#[derive(Default)]
struct Metal {
    /// The last value of the beat.
    beat: u32,
    chip: arch::Chip,
}

impl Machine for Metal {
    const IS_PC: bool = false;

    fn read(&mut self, at: At, width: Width) -> u32 {
        arch::read(address(at), width)
    }

    fn write(&mut self, at: At, width: Width, value: u32) {
        arch::write(address(at), width, value);
    }

    fn begin(guest: &mut Guest) {
        arch::begin(guest);
    }

    fn special(guest: &mut Guest) {
        listen(guest);
        arch::special(guest);
    }
}

/// The address of a register in memory.
fn address(at: At) -> usize {
    match at {
        At::Mmio(address) => address as usize,
        At::Port(port) => PORTS as usize + usize::from(port),
    }
}

/// Reads the beat, which never decreases.
fn listen(guest: &mut Guest) {
    let at = At::Mmio(BEATS + 4 * guest.vcpu);
    let beat = guest.read(at, Width::Dword);
    guest.check(at, beat, beat.max(guest.machine.beat));
    guest.machine.beat = guest.machine.beat.max(beat);
}

/// Whether this is a round in which the guest uses its interrupt controller.
fn uses_chip(guest: &Guest) -> bool {
    (guest.rounds + guest.vcpu * ROUNDS_PER_CHIP / MAX_VCPUS).is_multiple_of(ROUNDS_PER_CHIP)
}

/// The entry of each vCPU, with its number and a flag that makes it panic, on its own stack, without address
/// translation.
// SAFETY: no other symbol of this name is linked.
#[unsafe(no_mangle)]
// SAFETY: the linker script puts the section into the code.
#[unsafe(link_section = ".text.entry")]
extern "C" fn guest_entry(vcpu: u64, panics: u64) -> ! {
    assert_eq!(panics, 0);
    Guest::new(vcpu as u32, Metal::default()).run();
    arch::call(CALL_HALT)
}

#[panic_handler]
fn panic(_: &PanicInfo<'_>) -> ! {
    arch::call(CALL_PANIC)
}
