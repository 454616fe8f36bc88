//! The device that is hot-added: an id to recognise it by, and a register for each vCPU.

use std::{
    sync::atomic::{AtomicU64, Ordering},
    time::Instant,
};

use ax_errno::AxResult;
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use super::register::Register;
use crate::contract::{SLOT_BANK, SLOT_ID, SLOT_SCRATCH, SLOT_STRIDE, SLOTS, id};

/// The device in a slot: every vCPU has a bank of registers, its id and its scratch register.
///
/// The device notes when each vCPU first reads its id: that is when it first sees the device.
pub(crate) struct Slot {
    index: u32,
    banks: Box<[Bank]>,
    epoch: Instant,
    sabotaged: bool,
}

#[derive(Default)]
struct Bank {
    /// Nanoseconds since the epoch; 0: not yet. Written by one vCPU's thread and read when that
    /// has ended, or as a mere count (`Relaxed`).
    first_seen: AtomicU64,
    scratch: Register,
}

impl Slot {
    /// A device for slot `index`. A sabotaged one flips a bit of what its scratch registers hold.
    pub(crate) fn new(index: u32, vcpus: u32, epoch: Instant, sabotaged: bool) -> Self {
        Self {
            index,
            banks: (0..vcpus).map(|_| Bank::default()).collect(),
            epoch,
            sabotaged,
        }
    }

    /// When `vcpu` first saw the device, in nanoseconds since the epoch.
    pub(crate) fn first_seen(&self, vcpu: u32) -> Option<u64> {
        match self.banks[vcpu as usize].first_seen.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(nanos),
        }
    }

    fn base(&self) -> u32 {
        SLOTS + self.index * SLOT_STRIDE
    }

    /// The bank that `addr` is in, and how far.
    fn bank(&self, addr: GuestPhysAddr) -> (&Bank, u32) {
        let offset = addr.as_usize() as u32 - self.base();
        (
            &self.banks[(offset / SLOT_BANK) as usize],
            offset % SLOT_BANK,
        )
    }

    fn read_id(&self, bank: &Bank, offset: u32) -> usize {
        if bank.first_seen.load(Ordering::Relaxed) == 0 {
            let nanos = self.epoch.elapsed().as_nanos() as u64;
            bank.first_seen.store(nanos.max(1), Ordering::Relaxed);
        }
        (id(self.index) >> (8 * offset)) as usize
    }
}

impl BaseDeviceOps<GuestPhysAddrRange> for Slot {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> GuestPhysAddrRange {
        let start = GuestPhysAddr::from_usize(self.base() as usize);
        GuestPhysAddrRange::from_start_size(start, SLOT_BANK as usize * self.banks.len())
    }

    fn handle_read(&self, addr: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
        let (bank, offset) = self.bank(addr);
        Ok(match offset {
            SLOT_SCRATCH.. => {
                bank.scratch.read(offset - SLOT_SCRATCH) ^ usize::from(self.sabotaged)
            }
            SLOT_ID.. => self.read_id(bank, offset - SLOT_ID),
        })
    }

    fn handle_write(&self, addr: GuestPhysAddr, width: AccessWidth, val: usize) -> AxResult {
        if let (bank, offset @ SLOT_SCRATCH..) = self.bank(addr) {
            bank.scratch.write(offset - SLOT_SCRATCH, width, val);
        }
        Ok(())
    }
}
