//! A `BTreeMap` in a `RwLock`, and a `Mutex` around each device, as in the buses of cloud-hypervisor
//! and crosvm. A device is called after the tree's lock is released.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, RwLock},
};

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use axdevice_base::BaseDeviceOps;
use busmap::Span;

use crate::{
    bus::{Bus, Nothing},
    registry::{Changeable, Registry, Search},
    table::Device,
};

type Exclusive = Mutex<Device<GuestPhysAddrRange>>;

struct Entry {
    last: usize,
    device: Arc<Exclusive>,
}

/// The devices by their first address.
pub(crate) struct LockedTree(RwLock<BTreeMap<usize, Entry>>);

impl LockedTree {
    #[inline]
    fn find(&self, addr: usize) -> Option<Arc<Exclusive>> {
        let tree = self.0.read().expect("no holder panics");
        let (_, entry) = tree.range(..=addr).next_back()?;
        (addr <= entry.last).then(|| entry.device.clone())
    }
}

impl Registry<GuestPhysAddrRange> for LockedTree {
    const NAME: &'static str = "BTreeMap in RwLock";

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

impl Search for &LockedTree {
    type Bus = GuestPhysAddrRange;

    #[inline]
    fn search(&mut self, addr: GuestPhysAddr) -> usize {
        let Some(device) = self.find(addr.as_usize()) else {
            return GuestPhysAddrRange::FLOATING;
        };
        let device = device.lock().expect("no holder panics");
        device
            .handle_read(addr, GuestPhysAddrRange::WIDTH)
            .unwrap_or(GuestPhysAddrRange::FLOATING)
    }
}

impl Changeable for LockedTree {
    fn add(&self, device: Nothing<GuestPhysAddrRange>) {
        let range = device.address_range();
        let entry = Entry {
            last: range.end.as_usize() - 1,
            device: Arc::new(Mutex::new(device)),
        };
        let mut tree = self.0.write().expect("no holder panics");
        tree.insert(range.start.as_usize(), entry);
    }
}
