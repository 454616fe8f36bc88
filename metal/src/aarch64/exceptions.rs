//! The exceptions, by crate aarch64-rt: the guest's exits, and the timer interrupt in the guest and in the hypervisor.

use aarch64_cpu::registers::{ELR_EL2, ESR_EL2, FAR_EL2, HPFAR_EL2, Readable as _};
use aarch64_rt::{ExceptionHandlers, RegisterState, RegisterStateRef, exception_handlers};
use axaddrspace::device::AccessWidth;

use super::{gic, set_timer, with_interrupts};
use crate::{
    exits,
    tick::{period, tick},
};

exception_handlers!(Exceptions);

struct Exceptions;

impl ExceptionHandlers for Exceptions {
    extern "C" fn sync_current(state: RegisterStateRef<'_>) {
        panic!(
            "exception in the hypervisor: ESR {:#x}, ELR {:#x}, FAR {:#x}",
            ESR_EL2.get(),
            state.elr,
            FAR_EL2.get()
        );
    }

    extern "C" fn irq_current(_: RegisterStateRef<'_>) {
        interrupt();
    }

    extern "C" fn sync_lower(mut state: RegisterStateRef<'_>) {
        // Read before interrupts are enabled, because their handlers may change these registers.
        let exit = Exit::current();
        // SAFETY: this changes only the guest's registers, in the same way as the trapped instruction does.
        let state = unsafe { state.get_mut() };
        with_interrupts(|| {
            exit.answer(state);
            exits::after();
        });
    }

    extern "C" fn irq_lower(_: RegisterStateRef<'_>) {
        interrupt();
        with_interrupts(exits::after);
    }
}

/// Handles an interrupt.
fn interrupt() {
    gic::handle(|| {
        tick();
        // The period begins now, so that a CPU with little time also does other work.
        set_timer(period());
    });
}

/// The cause of an exit: the syndrome, the virtual address, and the page of the guest physical address.
struct Exit {
    syndrome: usize,
    address: usize,
}

/// Exception classes (DDI 0487, ESR_EL2).
const HVC: usize = 0x16;
const SYS_REG: usize = 0x18;
const DATA_ABORT: usize = 0x24;

/// The number of the zero register.
const ZERO: usize = 31;

impl Exit {
    /// The exit that this CPU has just made.
    fn current() -> Self {
        let page = (HPFAR_EL2.get() as usize >> 4) << 12;
        Self {
            syndrome: ESR_EL2.get() as usize,
            address: page | FAR_EL2.get() as usize & 0xfff,
        }
    }

    /// Bits of the syndrome, from `low`.
    fn field(&self, low: usize, bits: usize) -> usize {
        self.syndrome >> low & ((1 << bits) - 1)
    }

    fn answer(&self, state: &mut RegisterState) {
        match self.field(26, 6) {
            DATA_ABORT => self.access_memory(state),
            SYS_REG => self.access_sys_reg(state),
            HVC => exits::call(state.registers[0]),
            _ => panic!(
                "exit of the guest: ESR {:#x}, ELR {:#x}, FAR {:#x}",
                self.syndrome,
                ELR_EL2.get(),
                self.address
            ),
        }
        state.elr += 4;
    }

    /// A load or store that the second-stage page tables do not translate. The syndrome describes it.
    fn access_memory(&self, state: &mut RegisterState) {
        let (valid, extends, writes) = (self.field(24, 1), self.field(21, 1), self.field(6, 1));
        assert!(
            valid == 1 && extends == 0,
            "an access of the guest that is not decoded: ESR {:#x}, address {:#x}",
            self.syndrome,
            self.address
        );
        let width = [
            AccessWidth::Byte,
            AccessWidth::Word,
            AccessWidth::Dword,
            AccessWidth::Qword,
        ][self.field(22, 2)];
        let register = self.field(16, 5);
        if writes == 1 {
            let value = get(state, register);
            exits::answer(|vcpu| vcpu.write_memory(self.address, width, value));
        } else {
            let value = exits::answer(|vcpu| vcpu.read_memory(self.address, width));
            set(state, register, value);
        }
    }

    /// MRS or MSR of a trapped register. The syndrome's other bits are the register's number in crate
    /// `aarch64_sysreg`.
    fn access_sys_reg(&self, state: &mut RegisterState) {
        let (register, reads) = (self.field(5, 5), self.field(0, 1));
        let number = self.field(0, 22) & !(0x1f << 5) & !1;
        if reads == 1 {
            let value = exits::answer(|vcpu| vcpu.read_sys_reg(number));
            set(state, register, value);
        } else {
            let value = get(state, register);
            exits::answer(|vcpu| vcpu.write_sys_reg(number, value));
        }
    }
}

/// The saved value of a general register. The guest's accesses use only the registers that aarch64-rt saves and
/// restores.
fn place(state: &mut RegisterState, register: usize) -> &mut u64 {
    let saved = state.registers.get_mut(register);
    saved.unwrap_or_else(|| panic!("an access of the guest by x{register}"))
}

fn get(state: &mut RegisterState, register: usize) -> usize {
    match register {
        ZERO => 0,
        _ => *place(state, register) as usize,
    }
}

fn set(state: &mut RegisterState, register: usize, value: usize) {
    if register != ZERO {
        *place(state, register) = value as u64;
    }
}
