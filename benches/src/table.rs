//! A sorted table. Several rivals use it, and differ in the way in which vCPUs share it.

use std::sync::Arc;

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use axdevice_base::BaseDeviceOps;
use busmap::Span;

use crate::bus::{Bus, Nothing};

/// A device object as the rivals hold it.
pub(crate) type Device<R> = dyn BaseDeviceOps<R> + Send + Sync;

#[derive(Clone)]
struct Entry {
    first: usize,
    last: usize,
    device: Arc<Device<GuestPhysAddrRange>>,
}

/// MMIO devices, sorted by address.
#[derive(Clone, Default)]
pub(crate) struct Table(Vec<Entry>);

impl Table {
    /// A table of devices that own these spans.
    pub(crate) fn with(spans: &[Span]) -> Self {
        let mut table = Self::default();
        Nothing::all(spans).for_each(|device| table.insert(Arc::new(device)));
        table
    }

    pub(crate) fn insert(&mut self, device: Arc<Device<GuestPhysAddrRange>>) {
        let range = device.address_range();
        let (first, end) = (range.start.as_usize(), range.end.as_usize());
        let at = self.rank(first);
        let last = end - 1;
        self.0.insert(
            at,
            Entry {
                first,
                last,
                device,
            },
        );
    }

    /// A copy with one more device.
    pub(crate) fn and(&self, device: Arc<Device<GuestPhysAddrRange>>) -> Self {
        let mut table = Self(Vec::with_capacity(self.0.len() + 1));
        table.0.extend_from_slice(&self.0);
        table.insert(device);
        table
    }

    /// The number of devices that start at or below `addr`.
    #[inline]
    fn rank(&self, addr: usize) -> usize {
        self.0.partition_point(|entry| entry.first <= addr)
    }

    #[inline]
    pub(crate) fn read(&self, addr: GuestPhysAddr) -> usize {
        let below = self.rank(addr.as_usize()).checked_sub(1);
        match below.map(|at| &self.0[at]) {
            Some(entry) if addr.as_usize() <= entry.last => entry
                .device
                .handle_read(addr, GuestPhysAddrRange::WIDTH)
                .unwrap_or(GuestPhysAddrRange::FLOATING),
            _ => GuestPhysAddrRange::FLOATING,
        }
    }
}
