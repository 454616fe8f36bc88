//! `busmap`, through its front end for devices of rust-vmm.

use std::sync::Arc;

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use busmap::{
    Span, Vcpu,
    rust_vmm::{IoManager, vm_device::bus::MmioAddress},
};

use crate::{
    bus::Nothing,
    registry::{Registry, Search},
    rivals::io_manager::range_of,
};

/// The registry. A vCPU dispatches through `&self`.
pub(crate) struct Shared(IoManager);

impl Registry<GuestPhysAddrRange> for Shared {
    const NAME: &'static str = "rust_vmm by &self";
    const OURS: bool = true;

    type Vcpu<'r> = &'r Self;

    fn with(spans: &[Span]) -> Self {
        let devices = IoManager::new();
        for device in Nothing::all(spans) {
            let added = devices.register_mmio(range_of(&device), Arc::new(device));
            added.expect("the devices do not overlap");
        }
        Self(devices)
    }

    fn vcpu(&self) -> &Self {
        self
    }
}

impl Search for &Shared {
    type Bus = GuestPhysAddrRange;

    #[inline]
    fn search(&mut self, addr: GuestPhysAddr) -> usize {
        let mut data = [0xff; 4];
        // A miss leaves the bytes as they are.
        let _ = self.0.mmio_read(address(addr), &mut data);
        u32::from_le_bytes(data) as usize
    }
}

/// The registry, with a handle for each vCPU.
pub(crate) struct Handled(Shared);

impl Registry<GuestPhysAddrRange> for Handled {
    const NAME: &'static str = "rust_vmm Vcpu";
    const OURS: bool = true;

    type Vcpu<'r> = Handle<'r>;

    fn with(spans: &[Span]) -> Self {
        Self(Shared::with(spans))
    }

    fn vcpu(&self) -> Handle<'_> {
        Handle(self.0.0.vcpu())
    }
}

pub(crate) struct Handle<'r>(Vcpu<&'r IoManager>);

impl Search for Handle<'_> {
    type Bus = GuestPhysAddrRange;

    #[inline]
    fn search(&mut self, addr: GuestPhysAddr) -> usize {
        let mut data = [0xff; 4];
        let _ = self.0.mmio_read(address(addr), &mut data);
        u32::from_le_bytes(data) as usize
    }
}

fn address(addr: GuestPhysAddr) -> MmioAddress {
    MmioAddress(addr.as_usize() as u64)
}
