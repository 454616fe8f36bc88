//! No guest access through a guarded device panics, hangs or changes memory of the host: every
//! offset, width and direction, with every boundary value, on the real devices. And what the devices
//! do on such accesses without their guards.
//!
//! On an architecture without built-in devices there is nothing to guard.
#![cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]

mod bare;
mod host;
mod sweep;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "riscv64")]
mod riscv64;
