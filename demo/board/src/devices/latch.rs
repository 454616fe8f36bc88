//! A device that exists from the start: one register for each vCPU, on either bus.

use alloc::boxed::Box;

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{AccessWidth, Port, PortRange},
};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use guest::contract::{MMIO_LATCH, PORT_LATCH};

use super::Register;

/// A register of four bytes for each vCPU. It reads as the value written.
pub struct Latch(Box<[Register]>);

impl Latch {
    /// A register for each vCPU.
    pub(crate) fn new(vcpus: u32) -> Self {
        Self((0..vcpus).map(|_| Register::default()).collect())
    }

    fn read(&self, offset: u32) -> usize {
        self.0[offset as usize / 4].read(offset % 4)
    }

    fn write(&self, offset: u32, width: AccessWidth, val: usize) {
        self.0[offset as usize / 4].write(offset % 4, width, val);
    }
}

impl BaseDeviceOps<GuestPhysAddrRange> for Latch {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> GuestPhysAddrRange {
        let start = GuestPhysAddr::from_usize(MMIO_LATCH as usize);
        GuestPhysAddrRange::from_start_size(start, 4 * self.0.len())
    }

    fn handle_read(&self, addr: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
        Ok(self.read(addr.as_usize() as u32 - MMIO_LATCH))
    }

    fn handle_write(&self, addr: GuestPhysAddr, width: AccessWidth, val: usize) -> AxResult {
        self.write(addr.as_usize() as u32 - MMIO_LATCH, width, val);
        Ok(())
    }
}

impl BaseDeviceOps<PortRange> for Latch {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> PortRange {
        let ports = 4 * self.0.len() as u16;
        PortRange::new(Port(PORT_LATCH), Port(PORT_LATCH + ports - 1))
    }

    fn handle_read(&self, port: Port, _: AccessWidth) -> AxResult<usize> {
        Ok(self.read((port.0 - PORT_LATCH).into()))
    }

    fn handle_write(&self, port: Port, width: AccessWidth, val: usize) -> AxResult {
        self.write((port.0 - PORT_LATCH).into(), width, val);
        Ok(())
    }
}
