//! The devices that the crate builds itself, each on its own architecture.

use axvmconfig::EmulatedDeviceConfig;

use crate::{config::ConfigFault, device::DeviceBound, tables::Tables, update::Batch};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "riscv64")]
mod riscv64;
#[cfg(target_arch = "aarch64")]
mod timer;

#[cfg(target_arch = "aarch64")]
pub(crate) use timer::virtual_timer;

/// Says that there is no virtual timer to record.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn virtual_timer<B: DeviceBound>(
    _batch: &mut Batch<'_, B>,
) -> Result<(), crate::error::Refusal> {
    log::warn!("no virtual timer on this architecture");
    Ok(())
}

/// Records the devices of a configuration entry, which will be added to `tables`.
///
/// Gives `false`, and records nothing, if this architecture has no device for the entry's type.
pub(crate) fn build<B: DeviceBound>(
    config: &EmulatedDeviceConfig,
    tables: &Tables<B>,
    batch: &mut Batch<'_, B>,
) -> Result<bool, ConfigFault> {
    #[cfg(target_arch = "aarch64")]
    return aarch64::build(config, tables, batch);
    #[cfg(target_arch = "riscv64")]
    return riscv64::build(config, tables, batch);
    #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
    {
        let _ = (config, tables, batch);
        Ok(false)
    }
}
