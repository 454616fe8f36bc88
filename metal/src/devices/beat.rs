//! The device that the timer interrupt writes to.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicU32, Ordering};

use ax_errno::AxResult;
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::contract::BEATS;

/// A register of four bytes for each vCPU, which the timer interrupt of its CPU writes. It publishes nothing
/// (`Relaxed`).
pub(crate) struct Beat(Box<[AtomicU32]>);

impl Beat {
    pub(crate) fn new(vcpus: u32) -> Self {
        Self((0..vcpus).map(|_| AtomicU32::new(0)).collect())
    }

    fn register(&self, addr: GuestPhysAddr) -> &AtomicU32 {
        &self.0[(addr.as_usize() - BEATS as usize) / 4]
    }
}

impl BaseDeviceOps<GuestPhysAddrRange> for Beat {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> GuestPhysAddrRange {
        let start = GuestPhysAddr::from_usize(BEATS as usize);
        GuestPhysAddrRange::from_start_size(start, 4 * self.0.len())
    }

    fn handle_read(&self, addr: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
        Ok(self.register(addr).load(Ordering::Relaxed) as usize)
    }

    fn handle_write(&self, addr: GuestPhysAddr, _: AccessWidth, val: usize) -> AxResult {
        self.register(addr).store(val as u32, Ordering::Relaxed);
        Ok(())
    }
}
