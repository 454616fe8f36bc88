//! The devices that the crate builds itself, each on its own architecture, and their guards, which
//! compile on all of them. What they guard against: [`guards`](crate::guards).

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceConfig;

use self::{gicd::Gicd, gicr::Gicr, gicv2::GicV2, guard::Filter, plic::PlicGuard, series::Last};
use crate::{config::ConfigFault, device::DeviceBound, sync::Arc, tables::Tables, update::Batch};

mod gicd;
mod gicr;
mod gicv2;
pub(crate) mod guard;
#[cfg(any(all(test, not(loom)), target_arch = "aarch64"))]
mod its;
pub(crate) mod place;
mod plic;
mod series;

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(target_arch = "riscv64")]
mod riscv64;
#[cfg(target_arch = "aarch64")]
mod timer;

#[cfg(target_arch = "aarch64")]
pub(crate) use timer::virtual_timer;

/// Says that there is no virtual timer to record.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn virtual_timer<B: DeviceBound>(
    _batch: &mut Batch<'_, B>,
) -> Result<(), crate::error::Refusal> {
    log::warn!("no virtual timer on this architecture");
    Ok(())
}

/// The devices of one configuration, while they are made.
pub(crate) struct Platform {
    /// Whether the guest may have the host's hardware read and write the memory that it names.
    #[cfg(target_arch = "aarch64")]
    trusted: bool,
    #[cfg(target_arch = "aarch64")]
    redistributors: series::Series,
}

impl Platform {
    /// For a guest that is trusted to have the host's hardware read and write the memory that it
    /// names, or is not.
    pub(crate) fn new(trusted: bool) -> Self {
        #[cfg(not(target_arch = "aarch64"))]
        let _ = trusted;
        Self {
            #[cfg(target_arch = "aarch64")]
            trusted,
            #[cfg(target_arch = "aarch64")]
            redistributors: series::Series::default(),
        }
    }

    /// Records the devices of a configuration entry, which will be added to `tables`.
    ///
    /// Gives `false`, and records nothing, if this architecture has no device for the entry's type.
    pub(crate) fn build<B: DeviceBound>(
        &mut self,
        config: &EmulatedDeviceConfig,
        tables: &Tables<B>,
        batch: &mut Batch<'_, B>,
    ) -> Result<bool, ConfigFault> {
        #[cfg(target_arch = "aarch64")]
        return aarch64::build(self, config, tables, batch);
        #[cfg(target_arch = "riscv64")]
        return riscv64::build(config, tables, batch);
        #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
        {
            let _ = (config, tables, batch);
            Ok(false)
        }
    }

    /// Tells the devices what others there are, when `tables` has all that were made.
    pub(crate) fn finish<B: DeviceBound>(self, tables: &Tables<B>) {
        #[cfg(target_arch = "aarch64")]
        aarch64::finish(self, tables);
        #[cfg(not(target_arch = "aarch64"))]
        let _ = tables;
    }
}

/// Guards as the registry has them, before devices of the caller's: for the benches, which run where
/// the real devices do not.
#[doc(hidden)]
pub mod on_any_device {
    use core::ops::Range;

    pub use super::plic::Plic;
    use super::*;

    /// What a dispatch calls in a registry of `B` devices.
    type Handler<B> = Arc<<B as DeviceBound>::Dev<GuestPhysAddrRange>>;

    /// A device without a guard, serialised.
    pub fn serialised<B: DeviceBound, D>(device: D) -> Handler<B>
    where
        D: BaseDeviceOps<GuestPhysAddrRange> + Send,
    {
        B::serialised(device, ()).handler
    }

    /// A GICv2 distributor.
    pub fn gicv2<B: DeviceBound, D>(device: D, base: GuestPhysAddr) -> Handler<B>
    where
        D: BaseDeviceOps<GuestPhysAddrRange> + Send + Sync,
    {
        B::shared(device, Filter::new(base, GicV2)).handler
    }

    /// A GICv3 distributor.
    pub fn gicd<B: DeviceBound, D>(device: D, base: GuestPhysAddr) -> Handler<B>
    where
        D: BaseDeviceOps<GuestPhysAddrRange> + Send,
    {
        B::serialised(device, Filter::new(base, Gicd)).handler
    }

    /// A GICv3 redistributor on a host with these LPIs.
    pub fn gicr<B: DeviceBound, D>(device: D, base: GuestPhysAddr, lpis: Range<usize>) -> Handler<B>
    where
        D: BaseDeviceOps<GuestPhysAddrRange> + Send,
    {
        let registers = Gicr {
            trusted: false,
            lpis,
            length: 0x2_0000,
            last: Last::alone(),
        };
        B::serialised(device, Filter::new(base, registers)).handler
    }

    /// A PLIC with this many contexts.
    pub fn plic<B: DeviceBound, D>(device: D, base: GuestPhysAddr, contexts: usize) -> Handler<B>
    where
        D: Plic + Send + Sync,
    {
        B::shared(device, PlicGuard::new(base, contexts)).handler
    }
}
