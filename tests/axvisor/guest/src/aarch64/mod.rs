//! The part of a guest on Arm: two VMs. The first has a GICv2 distributor and the timer. The second begins when the
//! first has ended. It has a GICv3 of two CPUs, of which the frames show the host's, and a range for IVC.

use core::arch::{asm, global_asm};

use crate::{Width, mailbox, second};

macro_rules! mrs {
    ($register:literal) => {{
        let value: u64;
        // SAFETY: reading it changes no state that Rust uses.
        unsafe {
            asm!("isb", concat!("mrs {0}, ", $register), out(reg) value, options(nostack, preserves_flags));
        }
        value
    }};
}

macro_rules! msr {
    ($register:literal, $value:expr) => {
        // SAFETY: no state that Rust uses depends on it.
        unsafe {
            asm!(concat!("msr ", $register, ", {0}"), in(reg) $value, options(nostack, preserves_flags));
        }
    };
}

/// One load into a general register: only for these, and for [`store`], does a trap's syndrome describe the access.
macro_rules! load {
    ($instruction:literal, $at:expr) => {{
        let value: u64;
        // SAFETY: the address is that of a register or of the mailbox, which are not memory that Rust uses.
        unsafe {
            asm!($instruction, at = in(reg) $at, value = out(reg) value, options(nostack, preserves_flags));
        }
        value
    }};
}

macro_rules! store {
    ($instruction:literal, $at:expr, $value:expr) => {
        // SAFETY: as in `load`.
        unsafe {
            asm!($instruction, at = in(reg) $at, value = in(reg) $value, options(nostack, preserves_flags));
        }
    };
}

mod emulated;
mod passthrough;

pub(crate) const MAILBOX: usize = 0x4010_0000;
pub(crate) const HOLE: usize = 0x0b00_0000;
const UART: usize = 0x0900_0000;
const DISTRIBUTOR: usize = 0x0800_0000;

// A header of an arm64 image, 64 bytes, and the entries of the vCPUs. No vCPU has its MMU on.
global_asm!(
    ".section .text.entry, \"ax\"",
    ".global _start, second_entry",
    "_start: b 1f",
    ".long 0",
    ".quad 0x200000, 0x100000, 0xa, 0, 0, 0",
    ".long 0x644d5241, 0",
    "1: ldr x1, =0x80400000",
    "mov sp, x1",
    "b {main}",
    "second_entry: ldr x1, =0x80500000",
    "mov sp, x1",
    "b {second}",
    main = sym crate::main,
    second = sym second::run,
);

unsafe extern "C" {
    fn second_entry();
}

pub(crate) fn run() {
    // The first VM is on physical CPU 0: on others it gets interrupts as FIQs, on which Axvisor panics.
    match mrs!("MPIDR_EL1") & 0xff {
        0 => emulated::run(),
        _ => passthrough::run(),
    }
}

pub(crate) fn read(at: usize, width: Width) -> u64 {
    match width {
        Width::Byte => load!("ldrb {value:w}, [{at}]", at),
        Width::Word => load!("ldrh {value:w}, [{at}]", at),
        Width::Dword => load!("ldr {value:w}, [{at}]", at),
        Width::Qword => load!("ldr {value}, [{at}]", at),
    }
}

pub(crate) fn write(at: usize, width: Width, value: u64) {
    match width {
        Width::Byte => store!("strb {value:w}, [{at}]", at, value),
        Width::Word => store!("strh {value:w}, [{at}]", at, value),
        Width::Dword => store!("str {value:w}, [{at}]", at, value),
        Width::Qword => store!("str {value}, [{at}]", at, value),
    }
}

pub(crate) fn put(byte: u8) {
    write(UART, Width::Dword, byte.into());
}

pub(crate) fn nanoseconds() -> u64 {
    mrs!("CNTVCT_EL0") * 1_000 / (mrs!("CNTFRQ_EL0") / 1_000_000)
}

fn call(number: u64, arguments: [u64; 3]) -> i64 {
    let [first, second, third] = arguments;
    let result;
    // SAFETY: it changes only memory to which an argument points, and Rust knows of those changes.
    unsafe {
        asm!("hvc #0", inout("x0") number => result, inout("x1") first => _, inout("x2") second => _, inout("x3") third => _);
    }
    result
}

pub(crate) fn start_second() {
    // PSCI CPU_ON.
    call(0xc400_0003, [2, second_entry as *const () as u64, 0]);
}

pub(crate) fn call_for_nothing() {
    // There is no such hypercall.
    call(0xffff, [0; 3]);
}

pub(crate) fn off() -> ! {
    mailbox::end();
    // PSCI SYSTEM_OFF.
    call(0x8400_0008, [0; 3]);
    loop {
        core::hint::spin_loop();
    }
}
