//! The RISC-V interrupt controller of crate `riscv_vplic`.

use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
use busmap::Registry;
use riscv_vplic::VPlicGlobal;

use crate::{
    arguments::plic_contexts,
    batch::Batch,
    bus::DeviceBound,
    config::ConfigFault,
    guards::plic::{Plic, PlicGuard},
    mount,
};

/// See the [module](super).
pub(crate) struct Platform;

impl Platform {
    /// The trust has no effect here: no device needs it.
    pub(crate) fn new(_trusted: bool) -> Self {
        Self
    }

    /// Records the devices of a configuration entry, which will be added to `registry`.
    ///
    /// Returns `false`, and records nothing, if this architecture has no device for the entry's type.
    pub(crate) fn build<B: DeviceBound>(
        &mut self,
        config: &EmulatedDeviceConfig,
        _registry: &Registry<B::Handlers>,
        batch: &mut Batch<'_, B>,
    ) -> Result<bool, ConfigFault> {
        if config.emu_type != EmulatedDeviceType::PPPTGlobal {
            return Ok(false);
        }
        let contexts = plic_contexts(config)?;
        let base = config.base_gpa.into();
        let device = VPlicGlobal::new(base, Some(config.length), contexts);
        let guard = PlicGuard::new(base, contexts);
        batch.mount(mount::shared::<B, _, _, _>(device, guard))?;
        Ok(true)
    }

    pub(crate) fn finish<B: DeviceBound>(self, _registry: &Registry<B::Handlers>) {}
}

impl Plic for VPlicGlobal {
    fn is_active(&self, source: usize) -> bool {
        self.active_irqs.lock().get(source)
    }
}
