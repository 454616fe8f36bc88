//! QEMU's `virt` machine for riscv64, in HS mode, on OpenSBI.

mod boot;
pub(crate) mod chip;
mod decode;
mod trap;
mod uart;

use core::arch::asm;

use qemu_exit::QEMUExit as _;
use riscv::register::{sie, sstatus, time};
use riscv_h::register::{
    hgatp::{Hgatp, HgatpValues},
    hstatus::{self, VsxlValues},
};

pub(crate) use self::{boot::start_cpu, uart::Uart};
use crate::vm::Vm;

/// The first address of memory.
pub(crate) const MEMORY: usize = 0x8000_0000;

/// The frequency of the counter, in Hz.
const FREQUENCY: u64 = 10_000_000;
/// The address of the device that ends the machine.
const TEST: u64 = 0x10_0000;

/// The number of the CPU that this runs on. It is in a register that nothing else uses.
pub(crate) fn cpu_index() -> usize {
    let index;
    // SAFETY: reads a register.
    unsafe { asm!("mv {}, tp", out(reg) index, options(nomem, nostack, preserves_flags)) }
    index
}

/// Nanoseconds since the machine was started.
pub(crate) fn nanos() -> u64 {
    time::read64() * (1_000_000_000 / FREQUENCY)
}

/// Prepares this CPU for its guest.
pub(crate) fn init_cpu(_index: usize, vm: &Vm) {
    trap::init();
    let mut tables = Hgatp::from_bits(0);
    tables.set_mode(HgatpValues::Sv39x4);
    tables.set_ppn(vm.memory.page_table_root().as_usize() >> 12);
    // SAFETY: the tables live as long as the VM, which is forever, and translate the guest's memory only.
    unsafe { tables.write() };
    // SAFETY: this discards all cached translations.
    unsafe {
        asm!(
            ".insn r 0x73, 0, 0x31, x0, x0, x0",
            options(nostack, preserves_flags)
        )
    }
    let mut status = hstatus::read();
    status.set_vsxl(VsxlValues::Vsxl64);
    // The next return is to the guest, in VS mode.
    status.set_spv(true);
    status.set_spvp(true);
    // SAFETY: the hypervisor's own mode is not affected.
    unsafe { status.write() };
}

/// Starts this CPU's timer: an interrupt every `period` nanoseconds, once interrupts are enabled.
pub(crate) fn start_timer(period: u64) {
    set_timer(period);
    // SAFETY: its handler is set.
    unsafe { sie::set_stimer() };
}

fn set_timer(period: u64) {
    let after = time::read64() + period * FREQUENCY / 1_000_000_000;
    sbi_rt::set_timer(after);
}

/// Calls a function with interrupts enabled. They are masked before and afterwards.
fn with_interrupts<T>(work: impl FnOnce() -> T) -> T {
    // SAFETY: the registers that an interrupt changes are saved, and its handler waits for nothing that `work` holds.
    unsafe { sstatus::set_sie() };
    let done = work();
    // SAFETY: masks interrupts.
    unsafe { sstatus::clear_sie() };
    done
}

/// Waits for an interrupt.
pub(crate) fn wait() {
    riscv::asm::wfi();
}

/// Enters the guest at its start, with its number and a flag that makes it panic.
pub(crate) fn enter_guest(index: usize, panics: bool) -> ! {
    boot::enter(index, panics.into())
}

/// Ends the machine.
pub(crate) fn exit(success: bool) -> ! {
    // SAFETY: the device is there.
    let machine = unsafe { qemu_exit::RISCV64::new(TEST) };
    if success {
        machine.exit_success()
    } else {
        machine.exit_failure()
    }
}

/// Stops this CPU.
pub(crate) fn stop_for_good() -> ! {
    // SAFETY: masks interrupts.
    unsafe { sstatus::clear_sie() };
    loop {
        riscv::asm::wfi();
    }
}
