//! The Arm interrupt controllers of crate `arm_vgic`.
//!
//! `VGicD`, `VGicR` and `Gits` keep state in `UnsafeCell`s, and so are `Send` but not `Sync`: a
//! dispatch enters each by one vCPU at a time.

use arm_vgic::{
    Vgic,
    v3::{gits::Gits, vgicd::VGicD, vgicr::VGicR},
};
use ax_memory_addr::PhysAddr;
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};
use log::info;

use crate::{
    arguments::{check_range, host_gits_base, redistributors},
    config::ConfigFault,
    device::DeviceBound,
    update::Batch,
};

/// See [`super::build`].
pub(super) fn build<B: DeviceBound>(
    config: &EmulatedDeviceConfig,
    batch: &mut Batch<'_, B>,
) -> Result<bool, ConfigFault> {
    let (base, length) = (config.base_gpa, config.length);
    match config.emu_type {
        EmulatedDeviceType::InterruptController => {
            batch.mount(B::shared(Vgic::new()))?;
        }
        EmulatedDeviceType::GPPTRedistributor => {
            for redistributor in redistributors(config)? {
                let base = redistributor.base;
                let device = VGicR::new(base.into(), Some(length), redistributor.pcpu_id);
                batch.mount(B::serialised(device))?;
                let pcpu_id = redistributor.pcpu_id;
                info!("GPPT redistributor of physical CPU {pcpu_id} at {base:#x}");
            }
        }
        EmulatedDeviceType::GPPTDistributor => {
            check_range(config)?;
            batch.mount(B::serialised(VGicD::new(base.into(), Some(length))))?;
            info!("GPPT distributor at {base:#x}");
        }
        EmulatedDeviceType::GPPTITS => {
            let host = PhysAddr::from_usize(host_gits_base(config)?);
            let device = Gits::new(base.into(), Some(length), host, false);
            batch.mount(B::serialised(device))?;
            info!("GPPT ITS at {base:#x}, host ITS at {host:#x}");
        }
        _ => return Ok(false),
    }
    Ok(true)
}
