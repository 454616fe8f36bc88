//! The guest's part of the machine: accesses, system registers, and the GICv3 distributor.
//!
//! Each access is one load or store of a register below x19: aarch64-rt saves these for the hypervisor.

use core::arch::asm;

use guest::At;

use super::{Guest, uses_chip};
use crate::contract::*;

/// The values that a guest has read before.
#[derive(Default)]
pub(super) struct Chip {
    /// The last value of the physical counter.
    counter: u64,
}

macro_rules! load {
    ($instruction:literal, $address:expr) => {{
        let value: u64;
        // SAFETY: the address is that of a device's register, which is not memory that Rust uses.
        unsafe {
            asm!($instruction, in("x9") $address, out("x10") value, options(nostack, preserves_flags));
        }
        value
    }};
}

macro_rules! store {
    ($instruction:literal, $address:expr, $value:expr) => {
        // SAFETY: as in `load`.
        unsafe {
            asm!($instruction, in("x9") $address, in("x10") u64::from($value), options(nostack, preserves_flags));
        }
    };
}

pub(super) fn read(address: usize, width: Width) -> u32 {
    let value = match width {
        Width::Byte => load!("ldrb w10, [x9]", address),
        Width::Word => load!("ldrh w10, [x9]", address),
        Width::Dword => load!("ldr w10, [x9]", address),
    };
    value as u32
}

pub(super) fn write(address: usize, width: Width, value: u32) {
    match width {
        Width::Byte => store!("strb w10, [x9]", address, value),
        Width::Word => store!("strh w10, [x9]", address, value),
        Width::Dword => store!("str w10, [x9]", address, value),
    }
}

/// Calls the hypervisor, which does not return.
pub(super) fn call(number: u64) -> ! {
    // SAFETY: the hypervisor does not return from these calls.
    unsafe { asm!("hvc #0", in("x0") number, options(noreturn)) }
}

macro_rules! sys_read {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: the register is trapped, and has no effect on the guest.
        unsafe {
            asm!(concat!("mrs x10, ", $register), out("x10") value, options(nostack, preserves_flags));
        }
        value
    }};
}

macro_rules! sys_write {
    ($register:literal, $value:expr) => {
        // SAFETY: as in `sys_read`.
        unsafe {
            asm!(concat!("msr ", $register, ", x10"), in("x10") $value, options(nostack, preserves_flags));
        }
    };
}

/// The address that a guest reports with a wrong value of a system register. No device's address is that low.
const CONTEXTIDR: At = At::Mmio(0x000d_0001);
const AMAIR: At = At::Mmio(0x000a_0003);
const CNTPCT: At = At::Mmio(0x000e_0001);

const GICD_ISENABLER: u32 = 0x100;
const GICD_ICENABLER: u32 = 0x180;
const GICD_IROUTER: u32 = 0x6000;

/// Sets the vCPU's own system register.
pub(super) fn begin(guest: &mut Guest) {
    sys_write!("CONTEXTIDR_EL1", sys_pattern(guest));
}

/// The part of a round that only this architecture has.
pub(super) fn special(guest: &mut Guest) {
    system_registers(guest);
    if guest.vcpu < GICD_VCPUS && uses_chip(guest) {
        distributor(guest);
    }
}

fn sys_pattern(guest: &Guest) -> u64 {
    let low = pattern(SYS_LATCH_SEED, guest.vcpu);
    u64::from(!low) << 32 | u64::from(low)
}

/// Changes the vCPU's own register and changes it back. Reads a register that has no device, and the counter.
fn system_registers(guest: &mut Guest) {
    let left = sys_pattern(guest);
    for value in [left, !left, left] {
        sys_write!("CONTEXTIDR_EL1", value);
        let got = sys_read!("CONTEXTIDR_EL1");
        guest.check(CONTEXTIDR, got as u32, value as u32);
        guest.check(CONTEXTIDR, (got >> 32) as u32, (value >> 32) as u32);
    }
    sys_write!("AMAIR_EL1", left);
    guest.check(AMAIR, sys_read!("AMAIR_EL1") as u32, 0);
    guest.misses += 2;
    let counter = sys_read!("CNTPCT_EL0");
    let before = &mut guest.machine.chip.counter;
    let goes_back = counter < *before;
    *before = counter;
    guest.check(CNTPCT, goes_back.into(), 0);
}

/// Enables and disables the vCPU's interrupt, of which the bit shares a word with others, and routes it.
fn distributor(guest: &mut Guest) {
    let spi = FIRST_SPI + guest.vcpu;
    let (word, bit) = (spi / 32 * 4, 1 << (spi % 32));
    let enabled = At::Mmio(GICD + GICD_ISENABLER + word);
    for (register, expected) in [(GICD_ISENABLER, bit), (GICD_ICENABLER, 0)] {
        guest.write(At::Mmio(GICD + register + word), Width::Dword, bit);
        let got = guest.read(enabled, Width::Dword) & bit;
        guest.check(enabled, got, expected);
    }
    let router = GICD + GICD_IROUTER + 8 * spi;
    for affinity in [guest.rounds % 4, guest.vcpu % 4] {
        store!("str x10, [x9]", router as usize, affinity);
        let got = load!("ldr x10, [x9]", router as usize);
        guest.check(At::Mmio(router), got as u32, affinity);
        guest.check(At::Mmio(router + 4), (got >> 32) as u32, 0);
    }
}
