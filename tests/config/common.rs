//! Entries, and a console for the factories to make.

use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice::{AxVmDeviceConfig, AxVmDevices, ConfigError, ConfigFault};
use axdevice_base::BaseDeviceOps;
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};

pub(crate) fn entry(
    emu_type: EmulatedDeviceType,
    base_gpa: usize,
    length: usize,
    cfg_list: &[usize],
) -> EmulatedDeviceConfig {
    EmulatedDeviceConfig {
        name: format!("{emu_type:?}"),
        base_gpa,
        length,
        emu_type,
        cfg_list: cfg_list.to_vec(),
        ..Default::default()
    }
}

pub(crate) fn config(entries: &[EmulatedDeviceConfig]) -> AxVmDeviceConfig {
    AxVmDeviceConfig::new(entries.to_vec())
}

/// The error of a configuration that must have one.
pub(crate) fn error(entries: &[EmulatedDeviceConfig]) -> ConfigError {
    AxVmDevices::try_new(config(entries)).expect_err("the configuration is bad")
}

/// The fault of a lone entry.
pub(crate) fn fault(entry: EmulatedDeviceConfig) -> ConfigFault {
    error(&[entry]).fault
}

/// Ports that read as the distance from the first.
pub(crate) struct Console(pub(crate) PortRange);

impl BaseDeviceOps<PortRange> for Console {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Console
    }

    fn address_range(&self) -> PortRange {
        self.0
    }

    fn handle_read(&self, port: Port, _: AccessWidth) -> AxResult<usize> {
        Ok((port.0 - self.0.start.0).into())
    }

    fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}
