//! The guest's part of the machine: accesses, and the PLIC.

use core::arch::asm;

use guest::At;

use super::{Guest, uses_chip};
use crate::contract::*;

/// The values that a guest has written before.
#[derive(Default)]
pub(super) struct Chip {
    /// The last threshold of its PLIC context.
    level: u32,
}

macro_rules! load {
    ($instruction:literal, $address:expr) => {{
        let value: usize;
        // SAFETY: the address is that of a device's register, which is not memory that Rust uses.
        unsafe {
            asm!(
                concat!($instruction, " {value}, 0({address})"),
                address = in(reg) $address,
                value = out(reg) value,
                options(nostack, preserves_flags)
            );
        }
        value as u32
    }};
}

macro_rules! store {
    ($instruction:literal, $address:expr, $value:expr) => {
        // SAFETY: as in `load`.
        unsafe {
            asm!(
                concat!($instruction, " {value}, 0({address})"),
                address = in(reg) $address,
                value = in(reg) $value,
                options(nostack, preserves_flags)
            );
        }
    };
}

pub(super) fn read(address: usize, width: Width) -> u32 {
    match width {
        Width::Byte => load!("lbu", address),
        Width::Word => load!("lhu", address),
        Width::Dword => load!("lw", address),
    }
}

pub(super) fn write(address: usize, width: Width, value: u32) {
    match width {
        Width::Byte => store!("sb", address, value),
        Width::Word => store!("sh", address, value),
        Width::Dword => store!("sw", address, value),
    }
}

/// Calls the hypervisor, which does not return.
pub(super) fn call(number: u64) -> ! {
    // SAFETY: the hypervisor does not return from these calls.
    unsafe { asm!("ecall", in("a0") number, options(noreturn)) }
}

// Offsets in the PLIC, for a source or a context (RISC-V PLIC specification 1.0.0, "Memory Map").

const fn priority(source: u32) -> u32 {
    PLIC + 4 * source
}

const fn enable(context: u32, source: u32) -> u32 {
    PLIC + 0x2000 + 0x80 * context + source / 32 * 4
}

const fn threshold(context: u32) -> u32 {
    PLIC + 0x20_0000 + 0x1000 * context
}

const fn claim(context: u32) -> u32 {
    threshold(context) + 4
}

/// The highest priority of the machine's PLIC.
const MAX_PRIORITY: u32 = 7;

/// Sets nothing.
pub(super) fn begin(_: &mut Guest) {}

/// The part of a round that only this architecture has.
pub(super) fn special(guest: &mut Guest) {
    if uses_chip(guest) {
        plic(guest);
    }
}

/// Changes the registers of this vCPU's source and context, claims its interrupt if there is one, and completes it.
fn plic(guest: &mut Guest) {
    let (source, context) = (plic_source(guest.vcpu), plic_context(guest.vcpu));
    let level = (guest.machine.chip.level + 1) % MAX_PRIORITY;
    guest.machine.chip.level = level;
    keep(guest, threshold(context), level);
    keep(guest, priority(source), level + 1);
    keep(guest, enable(context, source), 0);
    // An interrupt that is not enabled is not claimed.
    let at = At::Mmio(claim(context));
    guest.read_and_check(at, Width::Dword, 0, 0);
    keep(guest, enable(context, source), 1 << (source % 32));
    let claimed = guest.read(at, Width::Dword);
    if claimed == 0 {
        return;
    }
    guest.check(at, claimed, source);
    // While it is in service it is not claimed again.
    guest.read_and_check(at, Width::Dword, 0, 0);
    guest.write(at, Width::Dword, claimed);
}

/// Writes a register of four bytes, and reads it.
fn keep(guest: &mut Guest, address: u32, value: u32) {
    let at = At::Mmio(address);
    guest.write(at, Width::Dword, value);
    guest.read_and_check(at, Width::Dword, 0, value);
}
