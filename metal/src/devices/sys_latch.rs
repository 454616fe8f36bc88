//! A system register. Every CPU has its own.

use alloc::boxed::Box;
use core::sync::atomic::{AtomicUsize, Ordering};

use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, SysRegAddr, SysRegAddrRange};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::arch;

/// The register at one address: each vCPU reads the value that it wrote itself. It publishes nothing (`Relaxed`).
pub(crate) struct SysLatch {
    address: SysRegAddr,
    values: Box<[AtomicUsize]>,
    sabotaged: bool,
}

impl SysLatch {
    /// The register at `address`. A sabotaged one loses its upper half.
    pub(crate) fn new(address: SysRegAddr, vcpus: u32, sabotaged: bool) -> Self {
        Self {
            address,
            values: (0..vcpus).map(|_| AtomicUsize::new(0)).collect(),
            sabotaged,
        }
    }

    fn own(&self) -> &AtomicUsize {
        &self.values[arch::cpu_index()]
    }
}

impl BaseDeviceOps<SysRegAddrRange> for SysLatch {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> SysRegAddrRange {
        SysRegAddrRange::new(self.address, self.address)
    }

    fn handle_read(&self, _: SysRegAddr, _: AccessWidth) -> AxResult<usize> {
        Ok(self.own().load(Ordering::Relaxed))
    }

    fn handle_write(&self, _: SysRegAddr, _: AccessWidth, val: usize) -> AxResult {
        let kept = if self.sabotaged {
            val as u32 as usize
        } else {
            val
        };
        self.own().store(kept, Ordering::Relaxed);
        Ok(())
    }
}
