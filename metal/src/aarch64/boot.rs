//! The start of the CPUs, by crate aarch64-rt.

use alloc::boxed::Box;
use core::arch::asm;

use aarch64_cpu::registers::{MPIDR_EL1, Readable as _};
use aarch64_paging::descriptor::El23Attributes;
use aarch64_rt::{InitialPagetable, Stack, entry, initial_pagetable, start_core};
use smccc::Smc;

use super::MEMORY;

/// The pages of a CPU's stack.
const STACK_PAGES: usize = 16;

/// Device memory in the hypervisor's page tables.
const DEVICE: El23Attributes = El23Attributes::VALID
    .union(El23Attributes::ATTRIBUTE_INDEX_0)
    .union(El23Attributes::ACCESSED)
    .union(El23Attributes::XN);
/// Normal memory.
const NORMAL: El23Attributes = El23Attributes::VALID
    .union(El23Attributes::ATTRIBUTE_INDEX_1)
    .union(El23Attributes::INNER_SHAREABLE)
    .union(El23Attributes::ACCESSED);

initial_pagetable!({
    // Each address is its own physical address: 1 GiB of devices, and 1 GiB of memory.
    let mut pages = [0; 512];
    pages[0] = DEVICE.bits();
    pages[1] = NORMAL.bits() | MEMORY;
    InitialPagetable(pages)
});

entry!(boot, 16);

/// The entry of the CPU that boots. QEMU puts the device tree at the start of the memory.
fn boot(_: u64, _: u64, _: u64, _: u64) -> ! {
    crate::start(MEMORY, affinity())
}

/// The affinity of this CPU, which identifies it to PSCI.
fn affinity() -> usize {
    (MPIDR_EL1.get() & 0xff_00ff_ffff) as usize
}

/// Starts the CPU with the affinity `id` under a number.
///
/// # Panics
///
/// If the firmware refuses.
pub(crate) fn start_cpu(index: usize, id: usize) {
    // SAFETY: a stack of zeros is one.
    let stack = Box::leak(unsafe { Box::<Stack<STACK_PAGES>>::new_zeroed().assume_init() });
    // SAFETY: the stack is this CPU's, forever. All memory is in the initial page tables.
    let started =
        unsafe { start_core::<Smc, _, STACK_PAGES>(id as u64, stack, move || crate::run(index)) };
    started.expect("a CPU that starts");
}

/// Enters the guest with its arguments, by a return from an exception. The registers for the return are set already.
pub(super) fn enter(index: u64, panics: u64) -> ! {
    // SAFETY: ELR_EL2 and SPSR_EL2 are those of the guest, which has memory of its own. Nothing on this stack is needed
    // any more: the next exception begins below.
    unsafe { asm!("isb", "eret", in("x0") index, in("x1") panics, options(noreturn)) }
}
