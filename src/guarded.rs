//! [Guards](crate::guards) for interrupt controllers that an embedder builds itself, or uses in another version than
//! the pinned one: each function returns a device to add to a registry of `B` devices.
//!
//! [`find_mmio_dev`](crate::VmDevices::find_mmio_dev) and the similar methods return these devices *with* the guard,
//! because the registry does not see the device inside.
//!
//! # Examples
//!
//! ```
//! use axdevice::{
//!     AccessWidth, AxResult, BaseDeviceOps, EmulatedDeviceType, GuestPhysAddr, GuestPhysAddrRange, SharedVmDevices,
//!     ThreadSafe, guarded,
//! };
//!
//! const BASE: usize = 0x800_0000;
//!
//! /// A distributor that panics at registers which it does not know.
//! struct Distributor;
//!
//! impl BaseDeviceOps<GuestPhysAddrRange> for Distributor {
//!     fn emu_type(&self) -> EmulatedDeviceType {
//!         EmulatedDeviceType::GPPTDistributor
//!     }
//!     fn address_range(&self) -> GuestPhysAddrRange {
//!         GuestPhysAddrRange::from_start_size(BASE.into(), 0x1_0000)
//!     }
//!     fn handle_read(&self, addr: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
//!         match addr.as_usize() - BASE {
//!             0 => Ok(1),
//!             offset => panic!("no register at {offset:#x}"),
//!         }
//!     }
//!     fn handle_write(&self, _: GuestPhysAddr, _: AccessWidth, _: usize) -> AxResult {
//!         Ok(())
//!     }
//! }
//!
//! let devices = SharedVmDevices::default();
//! devices.add_mmio_dev(guarded::gicd::<ThreadSafe, _>(Distributor, BASE.into()))?;
//! let read = |offset: usize| devices.handle_mmio_read((BASE + offset).into(), AccessWidth::Dword);
//! assert_eq!(read(0), Ok(1));
//! assert_eq!(read(0x30), Ok(0)); // reserved
//! # Ok::<(), axdevice::AxError>(())
//! ```

use core::ops::Range;

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use axdevice_base::BaseDeviceOps;

pub use crate::guards::plic::Plic;
use crate::{
    bus::DeviceBound,
    guards::{gicd::Gicd, gicr::Gicr, gicv2::GicV2, guard::Filter, plic::PlicGuard, series::Last},
    mount,
    sync::Arc,
};

/// An MMIO device of a registry of `B` devices.
type Device<B> = Arc<<B as DeviceBound>::Dev<GuestPhysAddrRange>>;

/// A GICv2 distributor at `base`.
pub fn gicv2<B: DeviceBound, D>(device: D, base: GuestPhysAddr) -> Device<B>
where
    D: BaseDeviceOps<GuestPhysAddrRange> + Send + Sync,
{
    mount::shared::<B, _, _, _>(device, Filter::new(base, GicV2)).handler
}

/// A GICv3 distributor at `base`.
pub fn gicd<B: DeviceBound, D>(device: D, base: GuestPhysAddr) -> Device<B>
where
    D: BaseDeviceOps<GuestPhysAddrRange> + Send,
{
    mount::serialized::<B, _, _, _>(device, Filter::new(base, Gicd)).handler
}

/// A GICv3 redistributor at `base`, of two frames of 64 KiB, the last of its series, for a guest that is not trusted
/// with LPIs. `lpis` are the interrupts of the host's LPI configuration table; empty if the host has no table.
pub fn gicr<B: DeviceBound, D>(device: D, base: GuestPhysAddr, lpis: Range<usize>) -> Device<B>
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

/// A PLIC at `base` with a number of contexts.
pub fn plic<B: DeviceBound, D>(device: D, base: GuestPhysAddr, contexts: usize) -> Device<B>
where
    D: Plic + Send + Sync,
{
    mount::shared::<B, _, _, _>(device, PlicGuard::new(base, contexts)).handler
}
