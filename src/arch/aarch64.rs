//! The Arm interrupt controllers of crate `arm_vgic`.
//!
//! `VGicD`, `VGicR` and `Gits` keep state in `UnsafeCell`s, and so are `Send` but not `Sync`: a
//! dispatch enters each by one vCPU at a time.

use arm_vgic::{
    Vgic,
    v3::{gits::Gits, vgicd::VGicD, vgicr::VGicR},
};
use ax_memory_addr::PhysAddr;
use axaddrspace::GuestPhysAddrRange;
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};

use crate::{
    arguments::{check_range, host_gits_base, redistributors},
    bus::sealed::Bus,
    config::ConfigFault,
    device::DeviceBound,
    tables::Tables,
    update::Batch,
};

/// See [`super::build`].
pub(super) fn build<B: DeviceBound>(
    config: &EmulatedDeviceConfig,
    tables: &Tables<B>,
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
            }
        }
        EmulatedDeviceType::GPPTDistributor => {
            check_range(config)?;
            batch.mount(B::serialised(VGicD::new(base.into(), Some(length))))?;
        }
        EmulatedDeviceType::GPPTITS => {
            let host = PhysAddr::from_usize(host_gits_base(config)?);
            // Making the device programs the host's ITS: not before it is sure to be added.
            let range = GuestPhysAddrRange::from_start_size(base.into(), length);
            tables.of::<GuestPhysAddrRange>().place(range.span()?)?;
            let device = Gits::new(base.into(), Some(length), host, false);
            batch.mount(B::serialised(device))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}
