//! The devices that the crate builds itself, each on its own architecture, and their guards, which
//! compile on all of them. What they guard against: [`guards`](crate::guards).

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceConfig;

use self::{gicd::Gicd, gicr::Gicr, gicv2::GicV2, guard::Filter, plic::PlicGuard};
use crate::{
    config::ConfigFault,
    device::{DeviceBound, ThreadSafe},
    sync::Arc,
    tables::Tables,
    update::Batch,
};

mod gicd;
mod gicr;
mod gicv2;
pub(crate) mod guard;
#[cfg(any(all(test, not(loom)), target_arch = "aarch64"))]
mod its;
pub(crate) mod place;
mod plic;

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

/// Records the devices of a configuration entry, which will be added to `tables`.
///
/// Gives `false`, and records nothing, if this architecture has no device for the entry's type.
/// `trusted` says whether the guest may have the host's hardware read and write the memory that it
/// names.
pub(crate) fn build<B: DeviceBound>(
    config: &EmulatedDeviceConfig,
    trusted: bool,
    tables: &Tables<B>,
    batch: &mut Batch<'_, B>,
) -> Result<bool, ConfigFault> {
    #[cfg(target_arch = "aarch64")]
    return aarch64::build(config, trusted, tables, batch);
    #[cfg(target_arch = "riscv64")]
    return riscv64::build(config, trusted, tables, batch);
    #[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
    {
        let _ = (config, trusted, tables, batch);
        Ok(false)
    }
}

/// Guards as the registry has them, before devices of the caller's: for the benches, which run where
/// the real devices do not.
#[doc(hidden)]
pub mod on_any_device {
    use core::ops::Range;

    pub use super::plic::Plic;
    use super::*;

    type Handler = Arc<dyn BaseDeviceOps<GuestPhysAddrRange> + Send + Sync>;

    /// A device without a guard, serialised.
    pub fn serialised<D>(device: D) -> Handler
    where
        D: BaseDeviceOps<GuestPhysAddrRange> + Send,
    {
        ThreadSafe::serialised(device, ()).handler
    }

    /// A GICv2 distributor.
    pub fn gicv2<D>(device: D, base: GuestPhysAddr) -> Handler
    where
        D: BaseDeviceOps<GuestPhysAddrRange> + Send + Sync,
    {
        ThreadSafe::shared(device, Filter::new(base, GicV2)).handler
    }

    /// A GICv3 distributor.
    pub fn gicd<D>(device: D, base: GuestPhysAddr) -> Handler
    where
        D: BaseDeviceOps<GuestPhysAddrRange> + Send,
    {
        ThreadSafe::serialised(device, Filter::new(base, Gicd)).handler
    }

    /// A GICv3 redistributor on a host with these LPIs.
    pub fn gicr<D>(device: D, base: GuestPhysAddr, lpis: Range<usize>) -> Handler
    where
        D: BaseDeviceOps<GuestPhysAddrRange> + Send,
    {
        let trusted = false;
        ThreadSafe::serialised(device, Filter::new(base, Gicr { trusted, lpis })).handler
    }

    /// A PLIC with this many contexts.
    pub fn plic<D>(device: D, base: GuestPhysAddr, contexts: usize) -> Handler
    where
        D: Plic + Send + Sync,
    {
        ThreadSafe::shared(device, PlicGuard::new(base, contexts)).handler
    }
}
