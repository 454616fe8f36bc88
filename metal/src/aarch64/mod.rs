//! QEMU's `virt` machine for aarch64, at EL2.

mod boot;
pub(crate) mod chip;
mod exceptions;
mod gic;
mod uart;

use core::arch::asm;

use aarch64_cpu::{
    asm::{barrier, wfi},
    registers::{
        CNTFRQ_EL0, CNTHCTL_EL2, CNTHP_CTL_EL2, CNTPCT_EL0, DAIF, ELR_EL2, HCR_EL2, MPIDR_EL1,
        ReadWriteable, Readable, SCTLR_EL1, SP_EL1, SPSR_EL2, TPIDR_EL2, VMPIDR_EL2, VTCR_EL2,
        VTTBR_EL2, Writeable,
    },
};
use qemu_exit::QEMUExit as _;

pub(crate) use self::{boot::start_cpu, uart::Uart};
use crate::{
    contract::{GUEST_MEMORY, guest_stack},
    vm::Vm,
};

/// The first address of memory.
pub(crate) const MEMORY: usize = 0x4000_0000;

/// The number of the CPU that this runs on.
pub(crate) fn cpu_index() -> usize {
    TPIDR_EL2.get() as usize
}

/// Nanoseconds since the machine was started.
pub(crate) fn nanos() -> u64 {
    let ticks = u128::from(CNTPCT_EL0.get()) * 1_000_000_000;
    (ticks / u128::from(CNTFRQ_EL0.get())) as u64
}

/// Prepares this CPU, with its number, for its guest.
pub(crate) fn init_cpu(index: usize, vm: &Vm) {
    TPIDR_EL2.set(index as u64);
    // The guest has second-stage page tables. Physical interrupts go to the hypervisor. SMC and the registers of
    // virtual memory are trapped. Memory is cacheable although the guest has no page tables.
    HCR_EL2.write(
        HCR_EL2::RW::EL1IsAarch64
            + HCR_EL2::VM::Enable
            + HCR_EL2::DC.val(1)
            + HCR_EL2::IMO::EnableVirtualIRQ
            + HCR_EL2::FMO::EnableVirtualFIQ
            + HCR_EL2::AMO::SET
            + HCR_EL2::TSC.val(1)
            + HCR_EL2::TVM.val(1)
            + HCR_EL2::TRVM.val(1),
    );
    // The guest's physical counter and timer are trapped.
    CNTHCTL_EL2.set(0);
    VMPIDR_EL2.set(MPIDR_EL1.get());
    // Three levels for 39 bits of address.
    VTCR_EL2.write(
        VTCR_EL2::T0SZ.val(64 - 39)
            + VTCR_EL2::SL0::Granule4KBLevel1
            + VTCR_EL2::IRGN0::NormalWBRAWA
            + VTCR_EL2::ORGN0::NormalWBRAWA
            + VTCR_EL2::SH0::Inner
            + VTCR_EL2::TG0::Granule4KB
            + VTCR_EL2::PS::PA_40B_1TB,
    );
    VTTBR_EL2.set_baddr(vm.memory.page_table_root().as_usize() as u64);
    barrier::isb(barrier::SY);
    gic::init_cpu(index, vm.vcpus as usize);
}

/// Starts this CPU's timer: an interrupt every `period` nanoseconds, once interrupts are enabled.
pub(crate) fn start_timer(period: u64) {
    set_timer(period);
    CNTHP_CTL_EL2.write(CNTHP_CTL_EL2::ENABLE::SET + CNTHP_CTL_EL2::IMASK::CLEAR);
    gic::enable_timer(cpu_index());
}

fn set_timer(period: u64) {
    let ticks = CNTFRQ_EL0.get() * period / 1_000_000_000;
    // SAFETY: this register of the timer, which aarch64-cpu lacks, affects no memory.
    unsafe {
        asm!("msr CNTHP_TVAL_EL2, {}", in(reg) ticks, options(nomem, nostack, preserves_flags))
    }
}

/// Calls a function with interrupts enabled. They are masked before and afterwards.
fn with_interrupts<T>(work: impl FnOnce() -> T) -> T {
    DAIF.modify(DAIF::I::Unmasked);
    let done = work();
    DAIF.modify(DAIF::I::Masked);
    done
}

/// Waits for an interrupt.
pub(crate) fn wait() {
    wfi();
}

/// Enters the guest at its start, with its number and a flag that makes it panic.
pub(crate) fn enter_guest(index: usize, panics: bool) -> ! {
    ELR_EL2.set(GUEST_MEMORY.into());
    SP_EL1.set(guest_stack(index as u32).into());
    // As after a reset: no translation, little-endian.
    SCTLR_EL1.set(0x30d0_0800);
    SPSR_EL2.write(
        SPSR_EL2::M::EL1h
            + SPSR_EL2::D::Masked
            + SPSR_EL2::A::Masked
            + SPSR_EL2::I::Masked
            + SPSR_EL2::F::Masked,
    );
    boot::enter(index as u64, panics.into())
}

/// Ends the machine.
pub(crate) fn exit(success: bool) -> ! {
    let machine = qemu_exit::AArch64::new();
    if success {
        machine.exit_success()
    } else {
        machine.exit_failure()
    }
}

/// Stops this CPU.
pub(crate) fn stop_for_good() -> ! {
    DAIF.modify(DAIF::I::Masked);
    loop {
        wfi();
    }
}
