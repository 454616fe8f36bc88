//! rust-vmm's `IoManager`, in a lock that allows changes while vCPUs use it.

use std::sync::{Arc, RwLock};

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use axdevice_base::BaseDeviceOps;
use busmap::Span;
use vm_device::{
    DeviceMmio,
    bus::{MmioAddress, MmioAddressOffset, MmioRange},
    device_manager::{IoManager, MmioManager},
};

use crate::{
    bus::{Bus, Nothing},
    registry::{Changeable, Registry, Search},
};

impl DeviceMmio for Nothing<GuestPhysAddrRange> {
    fn mmio_read(&self, base: MmioAddress, offset: MmioAddressOffset, data: &mut [u8]) {
        let addr = GuestPhysAddr::from_usize((base.0 + offset) as usize);
        let value = self
            .handle_read(addr, GuestPhysAddrRange::WIDTH)
            .unwrap_or(GuestPhysAddrRange::FLOATING);
        data.copy_from_slice(&value.to_le_bytes()[..data.len()]);
    }

    fn mmio_write(&self, _: MmioAddress, _: MmioAddressOffset, _: &[u8]) {}
}

/// The range of a device, in `vm-device`'s type.
pub(crate) fn range_of(device: &Nothing<GuestPhysAddrRange>) -> MmioRange {
    let range = device.address_range();
    let base = MmioAddress(range.start.as_usize() as u64);
    MmioRange::new(base, range.size() as u64).expect("the range is not empty")
}

pub(crate) struct LockedIoManager(RwLock<IoManager>);

impl Registry<GuestPhysAddrRange> for LockedIoManager {
    const NAME: &'static str = "IoManager in RwLock";

    type Vcpu<'r> = &'r Self;

    fn with(spans: &[Span]) -> Self {
        let devices = Self(RwLock::default());
        Nothing::all(spans).for_each(|device| devices.add(device));
        devices
    }

    fn vcpu(&self) -> &Self {
        self
    }
}

impl Search for &LockedIoManager {
    type Bus = GuestPhysAddrRange;

    #[inline]
    fn search(&mut self, addr: GuestPhysAddr) -> usize {
        let mut data = [0xff; 4];
        let manager = self.0.read().expect("no holder panics");
        // A miss leaves the bytes as they are.
        let _ = manager.mmio_read(MmioAddress(addr.as_usize() as u64), &mut data);
        u32::from_le_bytes(data) as usize
    }
}

impl Changeable for LockedIoManager {
    fn add(&self, device: Nothing<GuestPhysAddrRange>) {
        let mut manager = self.0.write().expect("no holder panics");
        manager
            .register_mmio(range_of(&device), Arc::new(device))
            .expect("the devices do not overlap");
    }
}
