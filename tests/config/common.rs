//! Configurations, and a console for the factories to make.

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
use std::{sync::Barrier, thread};

use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice::{AxVmDeviceConfig, AxVmDevices, ConfigError, ConfigFault};
use axdevice_base::BaseDeviceOps;
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};

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

/// Reads a register through the registry.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
pub(crate) fn read(devices: &AxVmDevices, register: usize, width: AccessWidth) -> usize {
    let value = devices.handle_mmio_read(register.into(), width);
    value.unwrap_or_else(|error| panic!("{register:#x}: {error}"))
}

/// Writes a register through the registry.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
pub(crate) fn write(devices: &AxVmDevices, register: usize, width: AccessWidth, value: usize) {
    let written = devices.handle_mmio_write(register.into(), width, value);
    written.unwrap_or_else(|error| panic!("{register:#x}: {error}"));
}

/// Has two vCPUs, each a thread, do `work` at the same time. Each is told which it is, 0 or 1.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
pub(crate) fn on_two_vcpus(devices: &AxVmDevices, work: impl Fn(&AxVmDevices, usize) + Sync) {
    /// Shares the registry as axvm does.
    struct Shared<'r>(&'r AxVmDevices);
    // SAFETY: the tests reach the devices through `handle_*` alone while there are two vCPUs, which
    // enters those that are not `Sync` one vCPU at a time; and nobody takes the registry apart.
    unsafe impl Sync for Shared<'_> {}
    impl Shared<'_> {
        fn get(&self) -> &AxVmDevices {
            self.0
        }
    }
    let (shared, work, start) = (&Shared(devices), &work, &Barrier::new(2));
    thread::scope(|vcpus| {
        for vcpu in 0..2 {
            vcpus.spawn(move || {
                start.wait();
                work(shared.get(), vcpu);
            });
        }
    });
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
