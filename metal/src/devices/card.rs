//! The device that comes, moves along its belt, and goes.

use alloc::sync::Arc;
use core::{
    hint::spin_loop,
    sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering},
};

use ax_errno::AxResult;
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::{
    arch,
    contract::{BAY_STRIDE, BAYS, Belt, CARD_ECHO, CARD_SIZE, CARD_TAG, TAG_BITS, tag},
    cpu::{Cpu, Doing},
};

/// The longest that a vCPU stays inside a card to be there when it is removed, in nanoseconds.
const LINGER: u64 = 50_000_000;
/// How long it stays after that, in nanoseconds.
const DAWDLE: u64 = 100_000;

/// A card on a belt.
pub(crate) struct Card {
    belt: Belt,
    number: u32,
    /// The furthest bay that it may be found in.
    furthest: AtomicU32,
    /// Whether the first vCPU that reads it in the last bay is to stay until it is removed.
    linger: AtomicBool,
    removed: AtomicBool,
    noticed: Arc<Noticed>,
}

/// What the cards of a VM noticed that guests cannot.
#[derive(Debug, Default)]
pub(crate) struct Noticed {
    /// Accesses where the card never was, and tags that come to a card before it has been read.
    pub(crate) astray: AtomicU64,
    /// How often a vCPU was inside when the card was removed.
    pub(crate) caught: AtomicU64,
}

impl Card {
    /// A card for bay 0. If it is to `linger`, a vCPU will be inside when it is removed.
    pub(crate) fn new(belt: Belt, number: u32, linger: bool, noticed: Arc<Noticed>) -> Self {
        Self {
            belt,
            number,
            furthest: AtomicU32::new(0),
            linger: AtomicBool::new(linger),
            removed: AtomicBool::new(false),
            noticed,
        }
    }

    /// Where a card in this bay of `belt` is.
    pub(crate) fn range(belt: Belt, bay: u32) -> GuestPhysAddrRange {
        let start = GuestPhysAddr::from_usize(belt.bay(bay) as usize);
        GuestPhysAddrRange::from_start_size(start, CARD_SIZE as usize)
    }

    /// To be told before the card is moved on to `bay`. `Relaxed`: what publishes the move publishes this.
    pub(crate) fn coming_to(&self, bay: u32) {
        self.furthest.store(bay, Ordering::Relaxed);
    }

    /// To be told when the card was removed.
    pub(crate) fn gone(&self) {
        self.removed.store(true, Ordering::Relaxed);
    }

    /// The bay and the offset of an access. A vCPU that has the tables from before a move may come to a bay that the
    /// card has left, but never to one where it has not been.
    fn place(&self, addr: GuestPhysAddr) -> (u32, u32) {
        let address = addr.as_usize() as u32;
        let bay = self.belt.bay_at(address);
        if bay > self.furthest.load(Ordering::Relaxed) {
            self.noticed.astray.fetch_add(1, Ordering::Relaxed);
        }
        (bay, address % BAY_STRIDE)
    }

    /// Whether this is an access of a vCPU, not of the interrupt handler, which is not to wait; nor of the CPU that
    /// makes the changes, which would wait for itself.
    fn may_stay() -> bool {
        arch::cpu_index() != 0 && Cpu::current().is_doing(Doing::Dispatch)
    }

    /// Keeps a vCPU inside until the card is removed, and a little longer, if it is removed soon.
    #[cold]
    fn stay(&self) {
        let since = arch::nanos();
        while !self.removed.load(Ordering::Relaxed) {
            if arch::nanos() - since > LINGER {
                return;
            }
            spin_loop();
        }
        self.noticed.caught.fetch_add(1, Ordering::Relaxed);
        let since = arch::nanos();
        while arch::nanos() - since < DAWDLE {
            spin_loop();
        }
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
            && Self::may_stay()
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
                self.noticed.astray.fetch_add(1, Ordering::Relaxed);
            }
        }
        Ok(())
    }
}
