//! [`Past`]: accesses to devices whose index another device has now.

use alloc::vec::Vec;
use core::mem;

use crate::{accesses::Accesses, device::DeviceId, reserve::reserved};

/// The number of devices that are remembered.
const REMEMBERED: usize = 16;

/// The accesses to devices whose index another device has now: one count for each of the most accessed devices, and one
/// count for all others.
///
/// Remembering allocates nothing.
pub(crate) struct Past {
    /// Never longer than its first capacity.
    devices: Vec<(DeviceId, Accesses)>,
    rest: Accesses,
}

impl Past {
    /// Without room: all accesses are in the rest.
    pub(crate) const fn new() -> Self {
        Self {
            devices: Vec::new(),
            rest: Accesses::NONE,
        }
    }

    /// Makes room, if there is none yet and there is memory.
    pub(crate) fn grow(&mut self) {
        if self.devices.capacity() == 0
            && let Ok(devices) = reserved(REMEMBERED)
        {
            self.devices = devices;
        }
    }

    /// Remembers accesses to a device that is not remembered.
    pub(crate) fn remember(&mut self, id: DeviceId, accesses: Accesses) {
        if self.devices.len() < self.devices.capacity() {
            self.devices.push((id, accesses));
            return;
        }
        let mut forgotten = accesses;
        let least = self.devices.iter_mut().min_by_key(|(_, of)| of.total());
        if let Some(least) = least
            && least.1.total() < accesses.total()
        {
            forgotten = mem::replace(least, (id, accesses)).1;
        }
        self.rest.add(forgotten);
    }

    /// Removes and returns the accesses to a device.
    pub(crate) fn recall(&mut self, id: DeviceId) -> Accesses {
        let at = self.devices.iter().position(|(of, _)| *of == id);
        at.map_or(Accesses::NONE, |at| self.devices.swap_remove(at).1)
    }

    /// The devices that are remembered.
    pub(crate) fn devices(&self) -> impl Iterator<Item = (DeviceId, Accesses)> {
        self.devices.iter().copied()
    }

    /// The accesses to all others.
    pub(crate) const fn rest(&self) -> Accesses {
        self.rest
    }

    /// Forgets all, but keeps the room.
    pub(crate) fn clear(&mut self) {
        self.devices.clear();
        self.rest = Accesses::NONE;
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::device::DeviceIds;

    fn reads(reads: u64) -> Accesses {
        Accesses { reads, writes: 0 }
    }

    #[test]
    fn the_most_often_accessed_are_remembered() {
        let ids = DeviceIds::new();
        let mut past = Past::new();
        past.remember(ids.next(), reads(5));
        assert_eq!((past.devices().count(), past.rest()), (0, reads(5)));
        past.clear();
        past.grow();
        let room = past.devices.capacity();
        // Each device has more accesses than the one before, except the very last.
        let all: Vec<_> = (1..=2 * REMEMBERED as u64)
            .map(|n| (ids.next(), reads(n)))
            .collect();
        all.iter().for_each(|&(id, of)| past.remember(id, of));
        past.remember(ids.next(), reads(1));
        assert_eq!(past.devices.capacity(), room);
        let mut remembered: Vec<_> = past.devices().collect();
        remembered.sort_unstable_by_key(|(id, _)| *id);
        assert_eq!(remembered, all[REMEMBERED..]);
        let rest = (1..=REMEMBERED as u64).sum::<u64>() + 1;
        assert_eq!(past.rest(), reads(rest));
    }

    #[test]
    fn a_recalled_device_is_forgotten() {
        let ids = DeviceIds::new();
        let (id, other) = (ids.next(), ids.next());
        let mut past = Past::new();
        past.grow();
        past.remember(id, reads(1));
        assert_eq!(past.recall(other), Accesses::NONE);
        assert_eq!(past.recall(id), reads(1));
        assert_eq!(past.recall(id), Accesses::NONE);
        assert_eq!(past.devices().count(), 0);
    }
}
