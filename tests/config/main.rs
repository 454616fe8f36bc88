//! From configuration to devices: every row of the table, on its architecture, and every bad input.
//!
//! The conditions on the arguments of the interrupt controllers are tested beside the code that
//! checks them, on every architecture. The tests here check the resulting devices.

mod builder;
mod common;
#[cfg(all(any(target_arch = "aarch64", target_arch = "riscv64"), not(miri)))]
mod crowd;
mod log;
mod vm_files;

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
use support::host;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "aarch64")]
mod gicd;
#[cfg(target_arch = "aarch64")]
mod gicr;
#[cfg(target_arch = "aarch64")]
mod gicv2;
#[cfg(target_arch = "aarch64")]
mod its;
#[cfg(target_arch = "aarch64")]
mod timer;

#[cfg(target_arch = "riscv64")]
mod plic;
#[cfg(target_arch = "riscv64")]
mod riscv64;
