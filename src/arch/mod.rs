//! The devices that the crate builds itself, each on its own architecture, with their [guards](crate::guards). Each
//! architecture has a `Platform`, which represents the devices of one configuration while they are made.

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
mod other;
#[cfg(target_arch = "riscv64")]
mod riscv64;
#[cfg(target_arch = "aarch64")]
mod timer;

#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
pub(crate) use self::other::Platform;
#[cfg(target_arch = "riscv64")]
pub(crate) use self::riscv64::Platform;
#[cfg(target_arch = "aarch64")]
pub(crate) use self::{aarch64::Platform, timer::virtual_timer};

/// Reports that there is no virtual timer to record.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn virtual_timer<B: crate::bus::DeviceBound>(
    _batch: &mut crate::batch::Batch<'_, B>,
) -> Result<(), crate::refusal::Refusal> {
    log::warn!("no virtual timer on this architecture");
    Ok(())
}
