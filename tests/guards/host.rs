//! The host's memory, without checks of the address: the sweeps access it all the time.

use std::ptr;

/// The tests share the statics of the devices, and some fork: each holds the machine.
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

/// A different, but always the same, value for each eight bytes.
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
