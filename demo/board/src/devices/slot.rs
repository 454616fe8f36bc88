//! The hot-added device: an id that identifies it, and a register for each vCPU.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU64, Ordering};

use ax_errno::{AxError, AxResult};
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use guest::contract::{SLOT_BANK, SLOT_ID, SLOT_SCRATCH, SLOT_STRIDE, SLOTS, id};

use super::Register;
use crate::{Host, Sabotage};

/// The device in a slot: every vCPU has a bank of registers, its id and its scratch register.
///
/// The device records the time when each vCPU first reads its id: the vCPU then sees the device for the first time.
pub struct Slot {
    index: u32,
    banks: Box<[Bank]>,
    host: Host,
    sabotage: Option<Sabotage>,
}

#[derive(Default)]
struct Bank {
    /// In the host's nanoseconds; 0: not yet. One vCPU writes it. It is read after that vCPU has ended, or only as a
    /// count (`Relaxed`).
    first_seen: AtomicU64,
    scratch: Register,
}

impl Slot {
    /// A device for slot `index`. A sabotaged one has scratch registers that flip a bit, fail, or do not return.
    pub(crate) fn new(index: u32, vcpus: u32, host: Host, sabotage: Option<Sabotage>) -> Self {
        Self {
            index,
            banks: (0..vcpus).map(|_| Bank::default()).collect(),
            host,
            sabotage,
        }
    }

    /// The time when `vcpu` first saw the device, in the host's nanoseconds.
    pub fn first_seen(&self, vcpu: u32) -> Option<u64> {
        match self.banks[vcpu as usize].first_seen.load(Ordering::Relaxed) {
            0 => None,
            nanos => Some(nanos),
        }
    }

    fn base(&self) -> u32 {
        SLOTS + self.index * SLOT_STRIDE
    }

    /// The bank that contains `addr`, and the offset in it.
    fn bank(&self, addr: GuestPhysAddr) -> (&Bank, u32) {
        let offset = addr.as_usize() as u32 - self.base();
        (
            &self.banks[(offset / SLOT_BANK) as usize],
            offset % SLOT_BANK,
        )
    }

    fn read_id(&self, bank: &Bank, offset: u32) -> usize {
        if bank.first_seen.load(Ordering::Relaxed) == 0 && (self.host.in_guest_access)() {
            let nanos = (self.host.nanos)();
            bank.first_seen.store(nanos.max(1), Ordering::Relaxed);
        }
        (id(self.index) >> (8 * offset)) as usize
    }

    fn read_scratch(&self, bank: &Bank, offset: u32) -> AxResult<usize> {
        match self.sabotage {
            Some(Sabotage::Slot) => Ok(bank.scratch.read(offset) ^ 1),
            Some(Sabotage::Failure) => Err(AxError::Io),
            Some(Sabotage::Hang) => loop {
                core::hint::spin_loop();
            },
            _ => Ok(bank.scratch.read(offset)),
        }
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
        match offset {
            SLOT_SCRATCH.. => self.read_scratch(bank, offset - SLOT_SCRATCH),
            SLOT_ID.. => Ok(self.read_id(bank, offset - SLOT_ID)),
        }
    }

    fn handle_write(&self, addr: GuestPhysAddr, width: AccessWidth, val: usize) -> AxResult {
        if let (bank, offset @ SLOT_SCRATCH..) = self.bank(addr) {
            bank.scratch.write(offset - SLOT_SCRATCH, width, val);
        }
        Ok(())
    }
}
