//! Configurations, and vCPUs that use their devices.

#[cfg(target_arch = "aarch64")]
use std::time::Duration;
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
use std::{sync::Barrier, thread};

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
use axaddrspace::device::AccessWidth;
use axdevice::{AxVmDeviceConfig, AxVmDevices, ConfigError, ConfigFault};
use axvmconfig::EmulatedDeviceConfig;

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

/// The entry under another name.
pub(crate) fn named(name: &str, entry: EmulatedDeviceConfig) -> EmulatedDeviceConfig {
    EmulatedDeviceConfig {
        name: name.into(),
        ..entry
    }
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

/// Shares the registry as axvm does.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
pub(crate) struct Shared<'r>(pub(crate) &'r AxVmDevices);

// SAFETY: while there are several vCPUs, the tests reach the devices that are not `Sync` only
// through `handle_*`. It separates accesses that reach the same state of such a device. Only
// `assign_irq` writes the state of `VGicD`, and no vCPU calls it. No thread takes devices out of
// the registry.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
unsafe impl Sync for Shared<'_> {}

#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
impl Shared<'_> {
    pub(crate) fn get(&self) -> &AxVmDevices {
        self.0
    }
}

/// Runs `work` on two vCPUs, each a thread, at the same time, with the vCPU's number, 0 or 1.
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
pub(crate) fn on_two_vcpus(devices: &AxVmDevices, work: impl Fn(&AxVmDevices, usize) + Sync) {
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

/// Whether two vCPUs are in a device together while each does `work`. The first access to the
/// host's register at `register` waits for that of the other vCPU, for a limited time: see [`meet`]
/// and [`miss`].
#[cfg(target_arch = "aarch64")]
fn together(
    devices: &AxVmDevices,
    register: usize,
    patience: Duration,
    work: impl Fn(&AxVmDevices, usize) + Sync,
) -> bool {
    let meeting = crate::host::meet_at(register, patience);
    on_two_vcpus(devices, work);
    meeting.took_place()
}

/// Whether they are together where they should be. The wait is long: on a loaded machine a vCPU may
/// be late.
#[cfg(target_arch = "aarch64")]
pub(crate) fn meet(
    devices: &AxVmDevices,
    register: usize,
    work: impl Fn(&AxVmDevices, usize) + Sync,
) -> bool {
    together(devices, register, Duration::from_secs(10), work)
}

/// Whether they are not together where they must not be. One vCPU then always waits until the time
/// is over.
#[cfg(target_arch = "aarch64")]
pub(crate) fn miss(
    devices: &AxVmDevices,
    register: usize,
    work: impl Fn(&AxVmDevices, usize) + Sync,
) -> bool {
    !together(devices, register, Duration::from_millis(50), work)
}
