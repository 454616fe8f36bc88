//! The host's memory. Addresses are not checked, because the sweeps access it very often.

use std::ptr;

/// The tests share the statics of the devices, and some fork. Each test holds this lock.
pub(crate) use support::host::machine::exclusive;
pub(crate) use support::host::{is_whole, registers};

/// The eight bytes of the host's memory at `addr`, which is a multiple of 8.
pub(crate) fn peek(addr: usize) -> u64 {
    // SAFETY: `addr` is in a block of `registers`, which is never freed, and aligned.
    unsafe { ptr::with_exposed_provenance::<u64>(addr).read_volatile() }
}

/// Writes eight bytes of the host's memory at `addr`, which is a multiple of 8.
pub(crate) fn poke(addr: usize, value: u64) {
    // SAFETY: `addr` is in a block of `registers`, which is never freed, and aligned.
    unsafe { ptr::with_exposed_provenance_mut::<u64>(addr).write_volatile(value) };
}

/// A value that is different for each eight bytes, and the same in every run.
pub(crate) fn noise(at: usize) -> u64 {
    (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Registers full of [`noise`].
pub(crate) fn noisy_registers(size: usize) -> usize {
    let start = registers(size);
    for at in (0..size).step_by(8) {
        poke(start + at, noise(at));
    }
    start
}
