//! The devices that the crate builds itself, each on its own architecture, with their
//! [guards](crate::guards). Each architecture has a `Platform`: the devices of one configuration, while
//! they are made.

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use axdevice_base::BaseDeviceOps;

use crate::{
    bus::DeviceBound,
    guards::{gicd::Gicd, gicr::Gicr, gicv2::GicV2, guard::Filter, plic::PlicGuard, series::Last},
    mount,
    sync::Arc,
};

#[cfg(target_arch = "aarch64")]
mod aarch64;
#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
mod other;
#[cfg(target_arch = "riscv64")]
mod riscv64;
#[cfg(target_arch = "aarch64")]
mod timer;

#[cfg(not(any(target_arch = "aarch64", target_arch = "riscv64")))]
pub(crate) use self::other::Platform;
#[cfg(target_arch = "riscv64")]
pub(crate) use self::riscv64::Platform;
#[cfg(target_arch = "aarch64")]
pub(crate) use self::{aarch64::Platform, timer::virtual_timer};

/// Says that there is no virtual timer to record.
#[cfg(not(target_arch = "aarch64"))]
pub(crate) fn virtual_timer<B: crate::bus::DeviceBound>(
    _batch: &mut crate::batch::Batch<'_, B>,
) -> Result<(), crate::refusal::Refusal> {
    log::warn!("no virtual timer on this architecture");
    Ok(())
}

/// Guards as the registry has them, before devices of the caller's: for the benches, which run where
/// the real devices do not.
#[doc(hidden)]
pub mod on_any_device {
    use core::ops::Range;

    use super::*;
    pub use crate::guards::plic::Plic;

    /// What a dispatch calls in a registry of `B` devices.
    type Handler<B> = Arc<<B as DeviceBound>::Dev<GuestPhysAddrRange>>;

    /// A device without a guard, serialized.
    pub fn serialized<B: DeviceBound, D>(device: D) -> Handler<B>
    where
        D: BaseDeviceOps<GuestPhysAddrRange> + Send,
    {
        mount::serialized::<B, _, _, _>(device, ()).handler
    }

    /// A GICv2 distributor.
    pub fn gicv2<B: DeviceBound, D>(device: D, base: GuestPhysAddr) -> Handler<B>
    where
        D: BaseDeviceOps<GuestPhysAddrRange> + Send + Sync,
    {
        mount::shared::<B, _, _, _>(device, Filter::new(base, GicV2)).handler
    }

    /// A GICv3 distributor.
    pub fn gicd<B: DeviceBound, D>(device: D, base: GuestPhysAddr) -> Handler<B>
    where
        D: BaseDeviceOps<GuestPhysAddrRange> + Send,
    {
        mount::serialized::<B, _, _, _>(device, Filter::new(base, Gicd)).handler
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
        mount::serialized::<B, _, _, _>(device, Filter::new(base, registers)).handler
    }

    /// A PLIC with this many contexts.
    pub fn plic<B: DeviceBound, D>(device: D, base: GuestPhysAddr, contexts: usize) -> Handler<B>
    where
        D: Plic + Send + Sync,
    {
        mount::shared::<B, _, _, _>(device, PlicGuard::new(base, contexts)).handler
    }
}
