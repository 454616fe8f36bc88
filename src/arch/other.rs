//! An architecture for which the crate builds no devices.

use axvmconfig::EmulatedDeviceConfig;
use busmap::Registry;

use crate::{batch::Batch, bus::DeviceBound, config::ConfigFault};

/// See the [module](super).
pub(crate) struct Platform;

impl Platform {
    /// The trust has no effect here: the crate builds no devices.
    pub(crate) fn new(_trusted: bool) -> Self {
        Self
    }

    /// Returns `false`: there is no device for any type of entry.
    pub(crate) fn build<B: DeviceBound>(
        &mut self,
        _config: &EmulatedDeviceConfig,
        _registry: &Registry<B::Handlers>,
        _batch: &mut Batch<'_, B>,
    ) -> Result<bool, ConfigFault> {
        Ok(false)
    }

    pub(crate) fn finish<B: DeviceBound>(self, _registry: &Registry<B::Handlers>) {}
}
