//! The RISC-V interrupt controller of crate `riscv_vplic`.

use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
use log::info;
use riscv_vplic::VPlicGlobal;

use crate::{arguments::plic_contexts, config::ConfigFault, device::DeviceBound, update::Batch};

/// See [`super::build`].
pub(super) fn build<B: DeviceBound>(
    config: &EmulatedDeviceConfig,
    batch: &mut Batch<'_, B>,
) -> Result<bool, ConfigFault> {
    if config.emu_type != EmulatedDeviceType::PPPTGlobal {
        return Ok(false);
    }
    let contexts = plic_contexts(config)?;
    let (base, length) = (config.base_gpa, config.length);
    batch.mount(B::shared(VPlicGlobal::new(
        base.into(),
        Some(length),
        contexts,
    )))?;
    info!("PPPT PLIC with {contexts} contexts at {base:#x}");
    Ok(true)
}
