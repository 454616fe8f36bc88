//! The device that is hot-added: an id to recognise it by, and a register for each vCPU.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicBool, Ordering};

use ax_errno::{AxError, AxResult};
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use super::register::Register;
use crate::{
    contract::{SLOT_BANK, SLOT_ID, SLOT_SCRATCH, SLOT_STRIDE, SLOTS, id},
    cpu::{Cpu, Doing},
    options::Sabotage,
};

/// The device in a slot: every vCPU has a bank of registers, its id and its scratch register.
///
/// The device notes which vCPUs have read its id: they have seen it.
pub(crate) struct Slot {
    index: u32,
    banks: Box<[Bank]>,
    sabotage: Option<Sabotage>,
}

#[derive(Default)]
struct Bank {
    /// Written by one vCPU and read as a mere count (`Relaxed`).
    seen: AtomicBool,
    scratch: Register,
}

impl Slot {
    /// A device for slot `index`. A sabotaged one flips a bit of what its scratch registers hold, or fails, or does not
    /// return.
    pub(crate) fn new(index: u32, vcpus: u32, sabotage: Option<Sabotage>) -> Self {
        Self {
            index,
            banks: (0..vcpus).map(|_| Bank::default()).collect(),
            sabotage,
        }
    }

    /// Whether `vcpu` has seen the device.
    pub(crate) fn seen_by(&self, vcpu: u32) -> bool {
        self.banks[vcpu as usize].seen.load(Ordering::Relaxed)
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
        if offset >= SLOT_SCRATCH {
            return self.read_scratch(bank, offset - SLOT_SCRATCH);
        }
        // The interrupt handler reads ids too.
        if Cpu::current().is_doing(Doing::Dispatch) {
            bank.seen.store(true, Ordering::Relaxed);
        }
        Ok((id(self.index) >> (8 * (offset - SLOT_ID))) as usize)
    }

    fn handle_write(&self, addr: GuestPhysAddr, width: AccessWidth, val: usize) -> AxResult {
        if let (bank, offset @ SLOT_SCRATCH..) = self.bank(addr) {
            bank.scratch.write(offset - SLOT_SCRATCH, width, val);
        }
        Ok(())
    }
}
