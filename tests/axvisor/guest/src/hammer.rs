//! Many accesses of one device, and checks of the values.

use crate::{Width, arch, say, second};

/// The number of accesses that each vCPU makes.
const ACCESSES: usize = 20_000;

/// A register: the two values that are written alternately, and the values that it then reads as.
pub(crate) struct Register {
    pub(crate) at: usize,
    pub(crate) width: Width,
    pub(crate) writes: [u64; 2],
    pub(crate) reads: [u64; 2],
}

/// Writes and reads the registers one after the other. Returns the number of reads that gave neither value.
pub(crate) fn hammer(registers: &[Register]) -> usize {
    let wrong = |&n: &usize| {
        let register = &registers[n % registers.len()];
        let value = register.writes[n / registers.len() % 2];
        arch::write(register.at, register.width, value);
        let read = arch::read(register.at, register.width);
        !register.reads.contains(&read)
    };
    (0..ACCESSES / 2).filter(wrong).count()
}

/// Two vCPUs on one device.
pub(crate) fn two(name: &str, task: second::Task) {
    let wrong = second::together(task);
    say!("{name}: two vCPUs, {ACCESSES} accesses each, {wrong} wrong");
}

/// Prints the duration of a trapped read.
pub(crate) fn time(name: &str, at: usize) {
    let (start, first) = (arch::nanoseconds(), arch::read(at, Width::Dword));
    let wrong = |_: &usize| arch::read(at, Width::Dword) != first;
    let wrong = (0..ACCESSES).filter(wrong).count();
    let each = (arch::nanoseconds() - start) / ACCESSES as u64;
    say!("{name}: {ACCESSES} reads, {wrong} wrong, {each} ns each");
}
