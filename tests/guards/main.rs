//! No guest access through a guarded device panics, hangs or changes memory of the host: every
//! offset, width and direction, with every boundary value, on the real devices. The tests also check the
//! behaviour of the devices on such accesses without their guards.
//!
//! Offsets of registers, and of 64 bytes around them, are always tested. Of the other reserved offsets,
//! each 61st is tested (of the PLIC's, each 509th; with two vCPUs, each 61st). With `GUARDS_IN_FULL=1` in
//! the environment all are tested, which takes minutes: `.ci/guards.sh` does this.
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
