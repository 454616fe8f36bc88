//! The device that is added, moves along its belt, and is removed.

use alloc::sync::Arc;
use core::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use ax_errno::AxResult;
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use guest::contract::{BAY_STRIDE, BAYS, Belt, CARD_ECHO, CARD_SIZE, CARD_TAG, TAG_BITS, tag};

use crate::{Host, Noticed};

/// The longest time that a vCPU stays inside a card to wait for its removal, in nanoseconds.
const LINGER: u64 = 50_000_000;
/// The time between two checks for the removal, and the time that the vCPU stays after it, in nanoseconds.
const DAWDLE: u64 = 100_000;

/// A card on a belt.
pub struct Card {
    belt: Belt,
    number: u32,
    /// The furthest bay in which it may be found.
    furthest: AtomicU32,
    /// Whether the first vCPU that reads it in the last bay must stay until it is removed.
    linger: AtomicBool,
    removed: AtomicBool,
    noticed: Arc<Noticed>,
    host: Host,
}

impl Card {
    /// A card for bay 0. With `linger`, it keeps a vCPU inside until it is removed.
    pub(crate) fn new(
        belt: Belt,
        number: u32,
        linger: bool,
        noticed: Arc<Noticed>,
        host: Host,
    ) -> Self {
        Self {
            belt,
            number,
            furthest: AtomicU32::new(0),
            linger: AtomicBool::new(linger),
            removed: AtomicBool::new(false),
            noticed,
            host,
        }
    }

    /// The range of a card in this bay of `belt`.
    pub(crate) fn range(belt: Belt, bay: u32) -> GuestPhysAddrRange {
        let start = GuestPhysAddr::from_usize(belt.bay(bay) as usize);
        GuestPhysAddrRange::from_start_size(start, CARD_SIZE as usize)
    }

    /// Records the bay to which the card is about to move. `Relaxed`: the publication of the move publishes this too.
    pub(crate) fn coming_to(&self, bay: u32) {
        self.furthest.store(bay, Ordering::Relaxed);
    }

    /// Records that the card is removed.
    pub(crate) fn gone(&self) {
        self.removed.store(true, Ordering::Relaxed);
    }

    /// The bay and the offset of an access. A vCPU with the tables from before a move may access the bay that the
    /// card has left, but never a bay where it has not been.
    fn place(&self, addr: GuestPhysAddr) -> (u32, u32) {
        let address = addr.as_usize() as u32;
        let bay = self.belt.bay_at(address);
        if bay > self.furthest.load(Ordering::Relaxed) {
            self.noticed.add_astray();
        }
        (bay, address % BAY_STRIDE)
    }

    /// If the card is removed soon, keeps a vCPU inside until then, and a little longer.
    #[cold]
    fn stay(&self) {
        let Host { nanos, pause, .. } = self.host;
        let since = nanos();
        while !self.removed.load(Ordering::Relaxed) {
            if nanos() - since > LINGER {
                return;
            }
            pause(DAWDLE);
        }
        self.noticed.add_caught();
        pause(DAWDLE);
    }
}

impl BaseDeviceOps<GuestPhysAddrRange> for Card {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> GuestPhysAddrRange {
        Self::range(self.belt, self.furthest.load(Ordering::Relaxed))
    }

    fn handle_read(&self, addr: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
        let (bay, offset) = self.place(addr);
        if bay == BAYS - 1
            && self.linger.load(Ordering::Relaxed)
            && (self.host.in_guest_access)()
            && self.linger.swap(false, Ordering::Relaxed)
        {
            self.stay();
        }
        Ok(match offset {
            CARD_ECHO.. => 0,
            CARD_TAG.. => (tag(self.belt, self.number) >> (8 * offset)) as usize,
        })
    }

    fn handle_write(&self, addr: GuestPhysAddr, _: AccessWidth, val: usize) -> AxResult {
        if let (_, CARD_ECHO) = self.place(addr) {
            let number = val as u32 >> TAG_BITS;
            if number > self.number || val as u32 != tag(self.belt, number) {
                self.noticed.add_astray();
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_access_that_cannot_be_is_noticed() {
        let noticed = Arc::new(Noticed::default());
        let card = Card::new(Belt::Loose, 7, false, noticed.clone(), Host::test());
        let astray = || noticed.astray();
        let gpa = |bay, offset| GuestPhysAddr::from_usize((Belt::Loose.bay(bay) + offset) as usize);
        let read = |bay| card.handle_read(gpa(bay, CARD_TAG), AccessWidth::Dword);
        let echo = |value: u32| {
            card.handle_write(gpa(0, CARD_ECHO), AccessWidth::Dword, value as usize)
                .unwrap();
            astray()
        };

        let own = tag(Belt::Loose, 7);
        assert_eq!((read(0), astray()), (Ok(own as usize), 0));
        assert_eq!((read(1), astray()), (Ok(own as usize), 1));
        card.coming_to(1);
        assert_eq!((read(1), astray()), (Ok(own as usize), 1));
        assert_eq!((read(0), astray()), (Ok(own as usize), 1));

        assert_eq!(echo(own), 1);
        assert_eq!(echo(tag(Belt::Loose, 6)), 1);
        assert_eq!(echo(tag(Belt::Loose, 8)), 2);
        assert_eq!(echo(tag(Belt::Full, 6)), 3);
        assert_eq!(echo(own ^ 1), 4);
    }
}
