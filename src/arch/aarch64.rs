//! The Arm interrupt controllers of crate `arm_vgic`.
//!
//! `VGicD`, `VGicR` and `Gits` keep state in `UnsafeCell`s, and so are `Send` but not `Sync`. Their
//! guards say which accesses reach that state, and must be alone in the device.

use core::ops::Range;

use arm_vgic::{
    Vgic,
    v3::{
        gits::Gits,
        vgicd::VGicD,
        vgicr::{LPT, VGicR},
    },
};
use ax_errno::AxResult;
use ax_memory_addr::PhysAddr;
use axaddrspace::{GuestPhysAddrRange, device::AccessWidth};
use axdevice_base::BaseDeviceOps;
use axvmconfig::{EmulatedDeviceConfig, EmulatedDeviceType};

use super::{
    Platform,
    gicd::Gicd,
    gicr::{FIRST_LPI, Gicr, Lpis, lpis_of},
    gicv2::GicV2,
    guard::Filter,
    its::{Engine, Its},
};
use crate::{
    arguments::{check_range, host_gits_base, redistributors},
    bus::sealed::Bus,
    config::ConfigFault,
    device::DeviceBound,
    tables::Tables,
    update::Batch,
};

/// See [`Platform::build`].
pub(super) fn build<B: DeviceBound>(
    platform: &mut Platform,
    config: &EmulatedDeviceConfig,
    tables: &Tables<B>,
    batch: &mut Batch<'_, B>,
) -> Result<bool, ConfigFault> {
    let (base, length) = (config.base_gpa, config.length);
    match config.emu_type {
        EmulatedDeviceType::InterruptController => {
            let device = Vgic::new();
            let guard = Filter::new(device.address_range().start, GicV2);
            batch.mount(B::shared(device, guard))?;
        }
        EmulatedDeviceType::GPPTRedistributor => {
            for redistributor in redistributors(config)? {
                let base = redistributor.base.into();
                let device = VGicR::new(base, Some(length), redistributor.pcpu_id);
                let registers = Gicr {
                    trusted: platform.trusted,
                    lpis: HostLpis(lpis_of(axvisor_api::arch::read_vgicd_typer())),
                    length,
                    last: platform.redistributors.join(redistributor.base + length)?,
                };
                batch.mount(B::serialised(device, Filter::new(base, registers)))?;
            }
        }
        EmulatedDeviceType::GPPTDistributor => {
            check_range(config)?;
            let base = base.into();
            let device = VGicD::new(base, Some(length));
            batch.mount(B::serialised(device, Filter::new(base, Gicd)))?;
        }
        EmulatedDeviceType::GPPTITS => {
            let host = PhysAddr::from_usize(host_gits_base(config)?);
            if !platform.trusted {
                return Err(ConfigFault::UntrustedIts);
            }
            // Making the device programs the host's ITS: not before it is sure to be added.
            let range = GuestPhysAddrRange::from_start_size(base.into(), length);
            tables.of::<GuestPhysAddrRange>().place(range.span()?)?;
            let base = base.into();
            let make = || Gits::new(base, Some(length), host, false);
            batch.mount(B::serialised(make(), Its::new(base, make())))?;
        }
        _ => return Ok(false),
    }
    Ok(true)
}

/// See [`Platform::finish`].
pub(super) fn finish<B: DeviceBound>(platform: Platform, tables: &Tables<B>) {
    // What contains the address after a device's last starts there: devices do not overlap.
    platform.redistributors.close(|start| {
        let next = tables.of::<GuestPhysAddrRange>().owner(start);
        next.is_some_and(|next| next.device().emu_type() == EmulatedDeviceType::GPPTRedistributor)
    });
}

/// The LPIs of the host: how many its configuration table holds once there is one.
struct HostLpis(usize);

impl Lpis for HostLpis {
    fn configured(&self) -> Range<usize> {
        let lpis = if LPT.is_completed() { self.0 } else { 0 };
        FIRST_LPI..FIRST_LPI + lpis
    }
}

impl Engine for Gits {
    fn execute(&mut self, queue: usize, from: usize, to: usize) -> AxResult {
        let regs = self.regs.get_mut();
        regs.cbaser = queue;
        regs.creadr = from;
        // GITS_CWRITER.
        self.handle_write(self.addr + 0x88, AccessWidth::Qword, to)
    }
}
