//! What the benches share: devices that do nothing, and the registries that are compared.

use std::sync::{Arc, RwLock};

use ax_errno::AxResult;
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice::SharedVmDevices;
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

/// How far apart two devices are; each has the first half of it.
pub const STRIDE: usize = 0x2000;

/// The address of device `i`.
pub fn address(i: usize) -> GuestPhysAddr {
    GuestPhysAddr::from_usize(0x1000_0000 + i * STRIDE)
}

/// An MMIO device that does nothing: what remains is the cost of getting there.
#[derive(Debug)]
pub struct Nothing(GuestPhysAddrRange);

impl Nothing {
    /// Device `i`.
    pub fn new(i: usize) -> Arc<Self> {
        Arc::new(Self(GuestPhysAddrRange::from_start_size(
            address(i),
            STRIDE / 2,
        )))
    }
}

impl BaseDeviceOps<GuestPhysAddrRange> for Nothing {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> GuestPhysAddrRange {
        self.0
    }

    fn handle_read(&self, addr: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
        Ok(addr.as_usize() & 0xff)
    }

    fn handle_write(&self, _: GuestPhysAddr, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}

/// A registry under measurement.
pub trait Registry {
    /// A registry of `n` devices.
    fn with(n: usize) -> Self;

    /// A 4-byte read.
    fn read(&self, addr: GuestPhysAddr) -> AxResult<usize>;
}

/// The floor: the devices in an array, called without any search.
#[derive(Debug)]
pub struct Direct(Vec<Arc<Nothing>>);

impl Registry for Direct {
    fn with(n: usize) -> Self {
        Self((0..n).map(Nothing::new).collect())
    }

    #[inline]
    fn read(&self, addr: GuestPhysAddr) -> AxResult<usize> {
        let i = (addr.as_usize() - address(0).as_usize()) / STRIDE;
        let device: &dyn BaseDeviceOps<GuestPhysAddrRange> = std::hint::black_box(&*self.0[i]);
        device.handle_read(addr, AccessWidth::Dword)
    }
}

impl Registry for SharedVmDevices {
    fn with(n: usize) -> Self {
        let devices = Self::default();
        for i in 0..n {
            devices
                .add_mmio_dev(Nothing::new(i))
                .expect("the devices do not overlap");
        }
        devices
    }

    #[inline]
    fn read(&self, addr: GuestPhysAddr) -> AxResult<usize> {
        self.handle_mmio_read(addr, AccessWidth::Dword)
    }
}

/// The published 0.4.10, which no other thread may change meanwhile.
impl Registry for axdevice_0_4_10::AxVmDevices {
    fn with(n: usize) -> Self {
        let mut devices = Self::new(axdevice_0_4_10::AxVmDeviceConfig::new(vec![]));
        (0..n).for_each(|i| devices.add_mmio_dev(Nothing::new(i)));
        devices
    }

    #[inline]
    fn read(&self, addr: GuestPhysAddr) -> AxResult<usize> {
        self.handle_mmio_read(addr, AccessWidth::Dword)
    }
}

/// The same behind a lock, so that it can be changed.
impl Registry for RwLock<axdevice_0_4_10::AxVmDevices> {
    fn with(n: usize) -> Self {
        Self::new(Registry::with(n))
    }

    #[inline]
    fn read(&self, addr: GuestPhysAddr) -> AxResult<usize> {
        Registry::read(&*self.read().expect("no reader panics"), addr)
    }
}
