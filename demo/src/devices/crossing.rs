//! A register across the border of two pages.

use ax_errno::AxResult;
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use board::Register;

use crate::contract::crossing;

/// A vCPU's register of four bytes at [`crossing`].
pub(crate) struct Crossing {
    first: GuestPhysAddr,
    register: Register,
}

impl Crossing {
    pub(crate) fn new(vcpu: u32) -> Self {
        Self {
            first: GuestPhysAddr::from_usize(crossing(vcpu) as usize),
            register: Register::default(),
        }
    }

    fn offset(&self, addr: GuestPhysAddr) -> u32 {
        (addr.as_usize() - self.first.as_usize()) as u32
    }
}

impl BaseDeviceOps<GuestPhysAddrRange> for Crossing {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> GuestPhysAddrRange {
        GuestPhysAddrRange::from_start_size(self.first, 4)
    }

    fn handle_read(&self, addr: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
        Ok(self.register.read(self.offset(addr)))
    }

    fn handle_write(&self, addr: GuestPhysAddr, width: AccessWidth, val: usize) -> AxResult {
        self.register.write(self.offset(addr), width, val);
        Ok(())
    }
}
