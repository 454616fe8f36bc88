//! The traps: the guest's exits, and the timer interrupt in the guest and in the hypervisor.
//!
//! While the guest runs, `sscratch` holds the top of this CPU's stack; while the hypervisor runs, zero.

use core::{arch::global_asm, mem::offset_of};

use riscv::register::{
    scause, sepc, stval,
    stvec::{self, Stvec, TrapMode},
};
use riscv_h::register::htval;

use super::{
    decode::{Access, Kind, extend},
    set_timer, with_interrupts,
};
use crate::{
    exits,
    tick::{period, tick},
    vm::Vm,
};

/// The registers of the interrupted code.
#[repr(C, align(16))]
struct Frame {
    /// By number; the first is not used.
    registers: [usize; 32],
    sepc: usize,
    sstatus: usize,
    hstatus: usize,
}

/// The bit of `hstatus` that is set if a trap came from the guest.
const FROM_GUEST: usize = 1 << 7;

// Saves the registers, calls `trap`, restores them, and returns.
global_asm!(
    ".macro each_register instruction",
    ".irp n, 1, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21, 22, 23, 24, 25, 26, 27, 28, 29, 30, 31",
    "\\instruction x\\n, 8 * \\n(sp)",
    ".endr",
    ".endm",
    ".balign 4",
    ".global trap_entry",
    "trap_entry:",
    "csrrw sp, sscratch, sp",
    "bnez sp, 0f",
    // In the hypervisor: keep its stack.
    "csrr sp, sscratch",
    "0: addi sp, sp, -{size}",
    "each_register sd",
    "csrrw t0, sscratch, zero",
    "sd t0, 8 * 2(sp)",
    "csrr t0, sepc",
    "sd t0, {sepc}(sp)",
    "csrr t0, sstatus",
    "sd t0, {sstatus}(sp)",
    "csrr t0, 0x600",
    "sd t0, {hstatus}(sp)",
    "andi t0, t0, {from_guest}",
    "beqz t0, 1f",
    // The CPU's number, at the top of its stack.
    "ld tp, {size}(sp)",
    "1: mv a0, sp",
    "call {trap}",
    "ld t0, {hstatus}(sp)",
    "csrw 0x600, t0",
    "andi t0, t0, {from_guest}",
    "beqz t0, 2f",
    "addi t0, sp, {size}",
    "csrw sscratch, t0",
    "2: ld t0, {sstatus}(sp)",
    "csrw sstatus, t0",
    "ld t0, {sepc}(sp)",
    "csrw sepc, t0",
    "each_register ld",
    "ld sp, 8 * 2(sp)",
    "sret",
    ".purgem each_register",
    size = const size_of::<Frame>(),
    sepc = const offset_of!(Frame, sepc),
    sstatus = const offset_of!(Frame, sstatus),
    hstatus = const offset_of!(Frame, hstatus),
    from_guest = const FROM_GUEST,
    trap = sym trap,
);

unsafe extern "C" {
    /// The entry of traps.
    fn trap_entry();
}

/// Directs traps to [`trap_entry`].
pub(super) fn init() {
    let address = trap_entry as *const () as usize;
    // SAFETY: the entry saves and restores the registers that it changes, and `sscratch` is zero.
    unsafe { stvec::write(Stvec::new(address, TrapMode::Direct)) };
}

/// Handles a trap. Interrupts are masked.
extern "C" fn trap(frame: &mut Frame) {
    // Read before interrupts are enabled, because their handlers may change these registers.
    let (cause, from_guest) = (scause::read(), frame.hstatus & FROM_GUEST != 0);
    let exit = Exit {
        cause: cause.code(),
        address: htval::read() << 2 | stval::read() & 3,
    };
    if cause.is_interrupt() {
        assert_eq!(exit.cause, TIMER, "an interrupt");
        tick();
        // The period begins now, so that a CPU with little time also does other work.
        set_timer(period());
    } else if from_guest {
        with_interrupts(|| exit.answer(frame));
    } else {
        panic!(
            "trap in the hypervisor: cause {}, sepc {:#x}, stval {:#x}",
            exit.cause,
            sepc::read(),
            stval::read()
        );
    }
    if from_guest {
        with_interrupts(exits::after);
    }
}

/// The cause of an exit.
struct Exit {
    cause: usize,
    /// The guest physical address of a page fault.
    address: usize,
}

// Codes of `scause`.
const TIMER: usize = 5;
const CALL: usize = 10;
const LOAD_FAULT: usize = 21;
const STORE_FAULT: usize = 23;

impl Exit {
    fn answer(&self, frame: &mut Frame) {
        match self.cause {
            LOAD_FAULT | STORE_FAULT => self.access_memory(frame),
            CALL => exits::call(frame.registers[10] as u64),
            _ => panic!(
                "exit of the guest: cause {}, sepc {:#x}, address {:#x}",
                self.cause, frame.sepc, self.address
            ),
        }
    }

    /// A load or store that the guest's page tables do not translate.
    fn access_memory(&self, frame: &mut Frame) {
        let access = Access::at(frame.sepc, Vm::the()).unwrap_or_else(|| {
            panic!(
                "an access of the guest that is not decoded: sepc {:#x}, address {:#x}",
                frame.sepc, self.address
            )
        });
        let width = access.width;
        match access.kind {
            Kind::Store { register } => {
                let value = frame.registers[register] & (usize::MAX * usize::from(register != 0));
                exits::answer(|vcpu| vcpu.write_memory(self.address, width, value));
            }
            Kind::Load { register, signed } => {
                let value = exits::answer(|vcpu| vcpu.read_memory(self.address, width));
                if register != 0 {
                    frame.registers[register] = extend(value, width, signed);
                }
            }
        }
        frame.sepc += access.length;
    }
}
