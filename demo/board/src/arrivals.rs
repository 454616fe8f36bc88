//! The hot-added devices that an access must find: those whose registration had returned before the access began.

use core::sync::atomic::{AtomicU32, Ordering};

use crossbeam_utils::CachePadded;
use guest::contract::slot_of_id;

/// The number of devices that have been hot-added, from slot 0 on.
#[derive(Debug, Default)]
pub struct Arrivals(CachePadded<AtomicU32>);

impl Arrivals {
    /// Announces the next device, when the call that hot-adds it has returned. Release: pairs with the load in
    /// [`count`](Self::count), so its caller finds the device.
    pub fn announce(&self) {
        self.0.fetch_add(1, Ordering::Release);
    }

    /// The number of announced devices. The caller finds each of them.
    pub fn count(&self) -> u32 {
        self.0.load(Ordering::Acquire)
    }

    /// Whether an access of `length` bytes at `address` that begins now must read a device's id, which is never all
    /// ones.
    #[inline]
    pub fn must_find(&self, address: u32, length: usize) -> bool {
        length == size_of::<u32>() && slot_of_id(address).is_some_and(|slot| slot < self.count())
    }
}

#[cfg(test)]
mod tests {
    use guest::contract::{MMIO_UNMAPPED, SLOT_BANK, SLOT_SCRATCH, SLOT_STRIDE, SLOTS};

    use super::*;

    #[test]
    fn only_the_id_of_an_announced_device_must_be_found() {
        let arrivals = Arrivals::default();
        let ids = [SLOTS, SLOTS + 3 * SLOT_BANK];
        assert!(ids.iter().all(|id| !arrivals.must_find(*id, 4)));
        arrivals.announce();
        assert!(ids.iter().all(|id| arrivals.must_find(*id, 4)));
        for (address, length) in [
            (SLOTS, 2),
            (SLOTS + SLOT_SCRATCH, 4),
            (SLOTS + SLOT_STRIDE, 4),
            (SLOTS - SLOT_STRIDE, 4),
            (MMIO_UNMAPPED, 4),
        ] {
            assert!(!arrivals.must_find(address, length), "{address:#x}");
        }
    }
}
