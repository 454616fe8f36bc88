//! The RISC-V interrupt controller of crate `riscv_vplic`.

use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
use riscv_vplic::VPlicGlobal;

use crate::{
    arguments::plic_contexts, config::ConfigFault, device::DeviceBound, tables::Tables,
    update::Batch,
};

/// See [`super::build`].
pub(super) fn build<B: DeviceBound>(
    config: &EmulatedDeviceConfig,
    _tables: &Tables<B>,
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
    Ok(true)
}
