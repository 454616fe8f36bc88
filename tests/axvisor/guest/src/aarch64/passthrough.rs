//! The second VM: its interrupts are the host's.

use core::arch::asm;

use super::{DISTRIBUTOR, MAILBOX, call, read, write};
use crate::{
    Width::{Byte, Dword, Qword, Word},
    hammer::{self, Register, hammer},
    hole, mailbox, say, second,
    sweep::sweep,
};

/// The redistributors of the two vCPUs, and the length of each.
const REDISTRIBUTORS: [usize; 2] = [0x080a_0000, 0x080c_0000];
const REDISTRIBUTOR_LENGTH: usize = 0x2_0000;
const DISTRIBUTOR_LENGTH: usize = 0x1_0000;

const GICD_TYPER: usize = DISTRIBUTOR + 0x4;
const GICD_IGROUPR1: usize = DISTRIBUTOR + 0x84;
const GICD_ISENABLER1: usize = DISTRIBUTOR + 0x104;

const GICR_TYPER: usize = 0x8;
const GICR_WAKER: usize = 0x14;
const GICR_PROPBASER: usize = 0x70;
const GICR_ISENABLER0: usize = 0x1_0100;

/// The target of the guest's thread pointer: memory that the host has at the same address.
const POINTED: usize = MAILBOX + 0x100;

pub(super) fn run() {
    mailbox::wait_for_end();
    registers();
    second::start();
    hole::read_and_write();
    hole::two();
    hammer::time("GICD", GICD_TYPER);
    hammer::two("GICD", |_| {
        let typer = read(GICD_TYPER, Dword);
        hammer(&[
            Register {
                at: GICD_TYPER,
                width: Dword,
                writes: [0; 2],
                reads: [typer; 2],
            },
            // Only one write at a time is in the device.
            Register {
                at: GICD_IGROUPR1,
                width: Dword,
                writes: [0, !0],
                reads: [0; 2],
            },
        ])
    });
    hammer::two("GICR 0", |_| hammer(&[properties(0)]));
    hammer::two("GICR 1", |_| hammer(&[properties(1)]));
    sweeps();
    channel();
    thread_pointer();
    second::stop();
}

fn registers() {
    for (name, offset) in [("CTLR", 0), ("TYPER", 4), ("IIDR", 8), ("PIDR2", 0xffe8)] {
        say!("GICD_{name} = {:#x}", read(DISTRIBUTOR + offset, Dword));
    }
    let [byte, word] = [Byte, Word].map(|width| read(GICD_TYPER, width));
    say!("GICD_TYPER, a byte = {byte:#x}, two = {word:#x}");
    say!(
        "GICD_IROUTER33 = {:#x}",
        read(DISTRIBUTOR + 0x6000 + 33 * 8, Qword)
    );
    write(GICD_ISENABLER1, Dword, 0xffff_ffff);
    say!(
        "GICD_ISENABLER1, after ones = {:#x}",
        read(GICD_ISENABLER1, Dword)
    );
    write(DISTRIBUTOR, Dword, 0x37);
    say!("GICD_CTLR, after 0x37 = {:#x}", read(DISTRIBUTOR, Dword));
    for base in REDISTRIBUTORS {
        say!("GICR_TYPER = {:#x}", read(base + GICR_TYPER, Qword));
        say!("GICR_WAKER = {:#x}", read(base + GICR_WAKER, Dword));
    }
    let enabled = REDISTRIBUTORS[0] + GICR_ISENABLER0;
    write(enabled, Dword, 1 << 30);
    say!(
        "GICR_ISENABLER0, after bit 30 = {:#x}",
        read(enabled, Dword)
    );
}

/// The only register that is the device's own: it is in a cell without a lock.
fn properties(redistributor: usize) -> Register {
    let values = [0x0123_4567_89ab_cdef, 0xfedc_ba98_7654_3210];
    let at = REDISTRIBUTORS[redistributor] + GICR_PROPBASER;
    Register {
        at,
        width: Qword,
        writes: values,
        reads: values,
    }
}

/// Sweeps the frame of the distributor, then those of the two redistributors at once, each by its vCPU.
fn sweeps() {
    let registers = [0..0x1000, 0x6000..0x8000, 0xf000..0x1_0000];
    let count = sweep(DISTRIBUTOR, DISTRIBUTOR_LENGTH, &registers, |_| u64::MAX);
    say!("GICD: sweep, {count} accesses");
    let count = second::together(|vcpu| {
        let registers = [0..0x1000, 0xf000..0x1_1000, 0x1_f000..0x2_0000];
        // The CPU's private interrupts, which are also the host's, do not change.
        let value = |offset| if offset < 0x1_0000 { u64::MAX } else { 0 };
        sweep(
            REDISTRIBUTORS[vcpu],
            REDISTRIBUTOR_LENGTH,
            &registers,
            value,
        )
    });
    say!("GICR 0 and 1: sweep, {count} accesses");
}

/// A channel for inter-VM communication: the hypervisor allocates it, and maps memory there.
fn channel() {
    let mut answer = [0, 0x2000_u64];
    let at = answer.as_mut_ptr();
    let published = call(3, [0x42, at as u64, at as u64 + 8]);
    // SAFETY: the array is alive; the hypervisor has written to it.
    let base = unsafe { at.read_volatile() };
    say!("IVC: published {published}, at {base:#x}");
    if published == 0 {
        say!("IVC: the first word is {:#x}", read(base as usize, Dword));
        say!("IVC: unpublished {}", call(5, [0x42, 0, 0]));
    }
}

/// Axvisor runs with the guest's thread pointer: this crate must not use it.
fn thread_pointer() {
    let words = || (POINTED - 0x80..POINTED + 0x200).step_by(8);
    words().for_each(|at| write(at, Qword, 0));
    msr!("TPIDR_EL0", POINTED);
    read(GICD_TYPER, Dword);
    let written = words().filter(|&at| read(at, Qword) != 0).count();
    say!("thread pointer: {written} words written");
    msr!("TPIDR_EL0", 0xdead_beef_cafe_f00d_u64);
    let typer = read(GICD_TYPER, Dword);
    say!(
        "thread pointer: {:#x} after a read of {typer:#x}",
        mrs!("TPIDR_EL0")
    );
}
