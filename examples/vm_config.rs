//! Builds the devices of a VM's configuration in Axvisor's format, and prints its memory map.
//!
//! ```sh
//! cargo run --example vm_config examples/configs/mixed.toml
//! ```
//!
//! A guest with an ITS can corrupt its host, so there is an option to trust it:
//! `--trust-guest-its`. Factories build the devices that the crate does not build, here consoles. An entry without a
//! factory, such as a disk or an interrupt controller of another architecture, is left out with a warning. On aarch64
//! and riscv64 the crate builds interrupt controllers, which call their hypervisor; the tests' stand-in replaces it.

use std::{env, error::Error, fs, process::ExitCode, sync::Arc};

use ax_errno::{AxError, AxResult};
use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange},
};
use axdevice::{AxVmDeviceConfig, Batch, BusRange, SharedVmDevices, ThreadSafe, Unmapped};
use axdevice_base::BaseDeviceOps;
use axvmconfig::{AxVMCrateConfig, EmulatedDeviceConfig, EmulatedDeviceType, VMInterruptMode};
#[cfg(any(target_arch = "aarch64", target_arch = "riscv64"))]
use support as _;

fn main() -> ExitCode {
    env_logger::Builder::new()
        .filter_level(log::LevelFilter::Warn)
        .parse_default_env()
        .init();
    let mut arguments: Vec<_> = env::args().skip(1).collect();
    let trusted = arguments
        .iter()
        .position(|word| word == "--trust-guest-its");
    if let Some(at) = trusted {
        arguments.remove(at);
    }
    let [path] = &arguments[..] else {
        eprintln!("usage: vm_config [--trust-guest-its] FILE");
        return ExitCode::from(2);
    };
    match memory_map(path, trusted.is_some()) {
        Ok(map) => {
            print!("{map}");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("error: {path}: {error}");
            ExitCode::FAILURE
        }
    }
}

/// Returns the devices of the configuration in the file at `path` and its IVC range, one per line.
fn memory_map(path: &str, trust_guest_its: bool) -> Result<String, Box<dyn Error>> {
    let config: AxVMCrateConfig = toml::from_str(&fs::read_to_string(path)?)?;
    Ok(build(config, trust_guest_its)?.snapshot().to_string())
}

fn build(
    config: AxVMCrateConfig,
    trust_guest_its: bool,
) -> Result<SharedVmDevices, axdevice::ConfigError> {
    let mut builder = SharedVmDevices::builder()
        .config(AxVmDeviceConfig::new(config.devices.emu_devices))
        .unmapped(Unmapped::Float)
        .trust_guest_its(trust_guest_its)
        .skip_unbuilt()
        .factory(EmulatedDeviceType::Console, console);
    // The same condition as in axvm.
    if cfg!(target_arch = "aarch64")
        && config.devices.interrupt_mode != VMInterruptMode::Passthrough
    {
        builder = builder.with_virtual_timer();
    }
    builder.build()
}

/// Makes a console, at ports if the entry's addresses are ports, in memory if not.
fn console(config: &EmulatedDeviceConfig, batch: &mut Batch<'_, ThreadSafe>) -> AxResult {
    let (base, length) = (config.base_gpa, config.length);
    let end = base.checked_add(length).ok_or(AxError::InvalidInput)?;
    if base > u16::MAX.into() {
        let range = GuestPhysAddrRange::new(base.into(), end.into());
        batch.add_mmio_dev(Arc::new(Console(range)))?;
    } else {
        let last = end.checked_sub(1).ok_or(AxError::InvalidInput)?;
        let port = |at: usize| u16::try_from(at).map(Port);
        let ports = port(base).and_then(|first| Ok(PortRange::new(first, port(last)?)));
        let ports = ports.map_err(|_| AxError::InvalidInput)?;
        batch.add_port_dev(Arc::new(Console(ports)))?;
    }
    Ok(())
}

/// Stands for a console: no guest runs here.
struct Console<R>(R);

impl<R: BusRange> BaseDeviceOps<R> for Console<R> {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Console
    }

    fn address_range(&self) -> R {
        self.0
    }

    fn handle_read(&self, _: R::Addr, _: AccessWidth) -> AxResult<usize> {
        Ok(0)
    }

    fn handle_write(&self, _: R::Addr, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}
