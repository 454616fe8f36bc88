//! The RISC-V interrupt controller of crate `riscv_vplic`.

use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
use riscv_vplic::VPlicGlobal;

use super::plic::{Plic, PlicGuard};
use crate::{
    arguments::plic_contexts, config::ConfigFault, device::DeviceBound, tables::Tables,
    update::Batch,
};

/// See [`Platform::build`](super::Platform::build).
pub(super) fn build<B: DeviceBound>(
    config: &EmulatedDeviceConfig,
    _tables: &Tables<B>,
    batch: &mut Batch<'_, B>,
) -> Result<bool, ConfigFault> {
    if config.emu_type != EmulatedDeviceType::PPPTGlobal {
        return Ok(false);
    }
    let contexts = plic_contexts(config)?;
    let base = config.base_gpa.into();
    let device = VPlicGlobal::new(base, Some(config.length), contexts);
    batch.mount(B::shared(device, PlicGuard::new(base, contexts)))?;
    Ok(true)
}

impl Plic for VPlicGlobal {
    fn is_active(&self, source: usize) -> bool {
        self.active_irqs.lock().get(source)
    }
}
