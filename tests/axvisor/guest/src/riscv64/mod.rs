//! The part of a guest on RISC-V: a VM of two vCPUs with a PLIC.

use core::arch::{asm, global_asm};

use crate::{
    Width::{self, Dword},
    hammer::{self, Register, hammer},
    hole, say, second,
    sweep::sweep,
};

pub(crate) const MAILBOX: usize = 0xb000_0000;
pub(crate) const HOLE: usize = 0x5000_0000;
const PLIC: usize = 0x0c00_0000;
const LENGTH: usize = 0x21_0000;

/// The priority of source 10, which nothing raises.
const PRIORITY: usize = PLIC + 4 * 10;
const PENDING: usize = PLIC + 0x1000;
/// The enable bits of context 1, the supervisor's on the first hart.
const ENABLE: usize = PLIC + 0x2080;
const CLAIM: usize = PLIC + 0x20_1004;

global_asm!(
    ".section .text.entry, \"ax\"",
    ".global _start, second_entry",
    "_start: li sp, 0x80800000",
    "j {main}",
    "second_entry: li sp, 0x80900000",
    "j {second}",
    main = sym crate::main,
    second = sym second::run,
);

unsafe extern "C" {
    fn second_entry();
}

pub(crate) fn run() {
    registers();
    second::start();
    hole::read_and_write();
    hole::two();
    hammer::time("PLIC", PRIORITY);
    hammer::two("PLIC", |_| {
        hammer(&[
            Register {
                at: PRIORITY,
                width: Dword,
                writes: [3, 5],
                reads: [3, 5],
            },
            // The completion of an inactive source waits for other completions.
            Register {
                at: CLAIM,
                width: Dword,
                writes: [10; 2],
                reads: [0; 2],
            },
        ])
    });
    sweeps();
    thread_pointer();
    second::stop();
}

fn registers() {
    write(PRIORITY, Dword, 7);
    say!("PLIC priority 10, after 7 = {:#x}", read(PRIORITY, Dword));
    write(ENABLE, Dword, 1 << 10);
    say!("PLIC enable, after bit 10 = {:#x}", read(ENABLE, Dword));
    say!("PLIC pending = {:#x}", read(PENDING, Dword));
    write(PENDING, Dword, 1 << 10);
    say!("PLIC pending, after bit 10 = {:#x}", read(PENDING, Dword));
    say!("PLIC claim = {:#x}", read(CLAIM, Dword));
    write(CLAIM, Dword, 10);
    say!(
        "PLIC claim, after completing 10 = {:#x}",
        read(CLAIM, Dword)
    );
}

/// To the completion register, the sweep writes an inactive source.
fn sweeps() {
    let registers = [0..0x3000, 0x20_0000..0x20_9000];
    let count = sweep(PLIC, LENGTH, &registers, |_| 10);
    say!("PLIC: sweep, {count} accesses");
}

/// Axvisor runs with the guest's thread pointer: this crate must not use it.
fn thread_pointer() {
    let pointer: u64;
    // SAFETY: the guest does not use the thread pointer, and the read is of a register of the PLIC.
    unsafe {
        asm!("li tp, 0xdeadbeefcafef00d", "lwu {pointer}, 0({at})", "mv {pointer}, tp", at = in(reg) PRIORITY, pointer = out(reg) pointer);
    }
    say!("thread pointer: {pointer:#x} after a read");
}

macro_rules! load {
    ($instruction:literal, $at:expr) => {{
        let value: u64;
        // SAFETY: the address is that of a register or of the mailbox, which are not memory that Rust uses.
        unsafe {
            asm!(concat!($instruction, " {0}, 0({1})"), out(reg) value, in(reg) $at, options(nostack, preserves_flags));
        }
        value
    }};
}

macro_rules! store {
    ($instruction:literal, $at:expr, $value:expr) => {
        // SAFETY: as in `load`.
        unsafe {
            asm!(concat!($instruction, " {0}, 0({1})"), in(reg) $value, in(reg) $at, options(nostack, preserves_flags));
        }
    };
}

pub(crate) fn read(at: usize, width: Width) -> u64 {
    match width {
        Width::Byte => load!("lbu", at),
        Width::Word => load!("lhu", at),
        Width::Dword => load!("lwu", at),
        Width::Qword => load!("ld", at),
    }
}

pub(crate) fn write(at: usize, width: Width, value: u64) {
    match width {
        Width::Byte => store!("sb", at, value),
        Width::Word => store!("sh", at, value),
        Width::Dword => store!("sw", at, value),
        Width::Qword => store!("sd", at, value),
    }
}

pub(crate) fn nanoseconds() -> u64 {
    let ticks: u64;
    // SAFETY: it reads a counter.
    unsafe { asm!("rdtime {0}", out(reg) ticks, options(nomem, nostack, preserves_flags)) };
    // QEMU's counter runs at 10 MHz.
    ticks * 100
}

/// Calls the SBI.
fn call(extension: usize, function: usize, arguments: [usize; 3]) {
    let [first, second, third] = arguments;
    // SAFETY: the calls made here change no memory.
    unsafe {
        asm!("ecall", inout("a0") first => _, inout("a1") second => _, in("a2") third, in("a6") function, in("a7") extension);
    }
}

pub(crate) fn put(byte: u8) {
    // The legacy console.
    call(1, 0, [byte.into(), 0, 0]);
}

pub(crate) fn start_second() {
    // The hart state management's start.
    call(0x48_534d, 0, [1, second_entry as *const () as usize, 0]);
}

pub(crate) fn call_for_nothing() {
    // The version of the SBI.
    call(0x10, 0, [0; 3]);
}

pub(crate) fn off() -> ! {
    // The legacy shutdown.
    call(8, 0, [0; 3]);
    loop {
        core::hint::spin_loop();
    }
}
