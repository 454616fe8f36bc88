//! An entry of a VM's configuration.

use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};

/// An entry for a device, named after its type.
pub fn entry(
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
