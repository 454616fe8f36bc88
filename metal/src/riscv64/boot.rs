//! The start of the CPUs.

use alloc::boxed::Box;
use core::{
    arch::{asm, naked_asm},
    hint::spin_loop,
    sync::atomic::{AtomicUsize, Ordering},
};

use riscv::register::sstatus::{self, SPP};

use super::nanos;
use crate::contract::{GUEST_MEMORY, MAX_VCPUS, guest_stack};

/// A CPU's stack. The CPU's number is at its top; a trap from the guest begins below.
#[repr(C, align(16))]
struct Stack {
    _below: [u8; 0x1_0000],
    top: [usize; 2],
}

/// The time limit for the start of a CPU that the firmware refuses, in nanoseconds.
const PATIENCE: u64 = 10_000_000_000;

/// The addresses of the tops of the CPUs' stacks. The start of a CPU publishes its own (`Relaxed`).
static TOPS: [AtomicUsize; MAX_VCPUS as usize] =
    [const { AtomicUsize::new(0) }; MAX_VCPUS as usize];

/// The address to which OpenSBI jumps on the CPU that boots, with its id and the address of the device tree.
// SAFETY: no other symbol of this name is linked.
#[unsafe(no_mangle)]
// SAFETY: the linker script puts this section first.
#[unsafe(link_section = ".text.entry")]
#[unsafe(naked)]
extern "C" fn entry() -> ! {
    naked_asm!(
        "la t0, bss_begin",
        "la t1, bss_end",
        "0: bgeu t0, t1, 1f",
        "sd zero, 0(t0)",
        "addi t0, t0, 8",
        "j 0b",
        "1: la sp, boot_stack_end",
        "addi sp, sp, -16",
        "sd zero, 0(sp)",
        "mv tp, zero",
        "csrw sscratch, zero",
        "mv a2, sp",
        "tail {boot}",
        boot = sym boot,
    )
}

extern "C" fn boot(id: usize, tree: usize, top: usize) -> ! {
    TOPS[0].store(top, Ordering::Relaxed);
    crate::start(tree, id)
}

/// The address to which OpenSBI jumps on another CPU, with its id and the top of its stack.
#[unsafe(naked)]
extern "C" fn entry_of_another() -> ! {
    naked_asm!(
        "mv sp, a1",
        "ld a0, 0(sp)",
        "mv tp, a0",
        "csrw sscratch, zero",
        "tail {boot}",
        boot = sym boot_another,
    )
}

extern "C" fn boot_another(index: usize) -> ! {
    crate::run(index)
}

/// Starts the CPU with this id under a number.
///
/// # Panics
///
/// If the firmware refuses.
pub(crate) fn start_cpu(index: usize, id: usize) {
    // SAFETY: a stack of zeros is one.
    let stack = Box::leak(unsafe { Box::<Stack>::new_zeroed().assume_init() });
    stack.top[0] = index;
    let top = (&raw mut stack.top).expose_provenance();
    TOPS[index].store(top, Ordering::Relaxed);
    let entry = entry_of_another as *const () as usize;
    let since = nanos();
    // On a loaded host OpenSBI 1.1 sometimes reports that a CPU is started already: retry.
    while let Err(why) = sbi_rt::hart_start(id, entry, top).into_result() {
        let waited = nanos() - since;
        assert!(waited < PATIENCE, "CPU {index} does not start: {why:?}");
        spin_loop();
    }
}

/// Enters the guest at its start, by a return from a trap. The mode to return to is partly set already.
pub(super) fn enter(index: usize, panics: usize) -> ! {
    // SAFETY: the next return is to supervisor mode, of the guest, as set in `hstatus`.
    unsafe { sstatus::set_spp(SPP::Supervisor) };
    // SAFETY: the guest has memory of its own. Nothing on this stack is needed any more: the next trap from the guest
    // begins below its top.
    unsafe {
        asm!(
            "csrw sepc, {start}",
            "csrw sscratch, {top}",
            "mv sp, {stack}",
            "sret",
            start = in(reg) GUEST_MEMORY as usize,
            top = in(reg) TOPS[index].load(Ordering::Relaxed),
            stack = in(reg) guest_stack(index as u32) as usize,
            in("a0") index,
            in("a1") panics,
            options(noreturn)
        )
    }
}
