//! [`IoManager`]: a registry of rust-vmm's devices, with methods to register and remove them.

use core::convert::Infallible;

use vm_device::{
    DeviceMmio, DevicePio,
    bus::{MmioAddress, MmioRange, PioAddress, PioRange},
};

use crate::{
    bus::{Bus, Handlers, Mmio, Port},
    device::{Device, DeviceId},
    refusal::{Refusal, Refused},
    registry::Registry,
    removed::Removed,
    span::Span,
    sync::Arc,
};

/// The handlers of an [`IoManager`]: rust-vmm's devices, on MMIO and ports.
#[derive(Debug)]
pub enum RustVmm {}

impl Handlers for RustVmm {
    type Mmio = dyn DeviceMmio + Send + Sync;
    type Port = dyn DevicePio + Send + Sync;
    type SysReg = Infallible;
    type Tag = ();
}

/// The devices of one guest: see [`rust_vmm`](crate::rust_vmm).
pub type IoManager = Registry<RustVmm>;

/// Registration of rust-vmm's devices.
impl Registry<RustVmm> {
    /// Registers a device that owns a range of guest physical addresses.
    ///
    /// To register a device with several ranges, or on both buses, use a [batch](Self::batch).
    ///
    /// # Errors
    ///
    /// The device, with the [`Refusal`]: an [overlap](Refusal::Overlap).
    pub fn register_mmio(
        &self,
        range: MmioRange,
        device: Arc<dyn DeviceMmio + Send + Sync>,
    ) -> Result<DeviceId, Refused<RustVmm>> {
        let device = Device::new(()).on::<Mmio>(device);
        self.add::<Mmio>(device, span(range.base().0, range.last().0))
    }

    /// Registers a device that owns a range of ports: see [`register_mmio`](Self::register_mmio).
    ///
    /// # Errors
    ///
    /// As [`register_mmio`](Self::register_mmio).
    pub fn register_pio(
        &self,
        range: PioRange,
        device: Arc<dyn DevicePio + Send + Sync>,
    ) -> Result<DeviceId, Refused<RustVmm>> {
        let device = Device::new(()).on::<Port>(device);
        self.add::<Port>(device, span(range.base().0.into(), range.last().0.into()))
    }

    /// Removes the device that owns a guest physical address, from both buses, with all its ranges.
    /// Returns `None` if no device owns it. [`remove`](Self::remove) takes the id instead.
    ///
    /// vCPUs may still be inside the device: the returned [`Removed`] reports when the last vCPU
    /// has left.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`].
    pub fn deregister_mmio(&self, addr: MmioAddress) -> Result<Option<Removed<RustVmm>>, Refusal> {
        self.deregister::<Mmio>(addr.0)
    }

    /// Removes the device that owns a port: see [`deregister_mmio`](Self::deregister_mmio).
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`].
    pub fn deregister_pio(&self, addr: PioAddress) -> Result<Option<Removed<RustVmm>>, Refusal> {
        self.deregister::<Port>(addr.0.into())
    }

    fn deregister<K: Bus>(&self, addr: u64) -> Result<Option<Removed<RustVmm>>, Refusal> {
        loop {
            let owner = self.dispatch::<K, _>(addr, 0, |hit| (hit.id(), hit.span()));
            let Ok((id, span)) = owner else {
                return Ok(None);
            };
            // The device must own the address at the instant of its removal.
            let removed = self.update(|batch| {
                batch.unmap::<K>(id, span)?;
                batch.remove(id)
            });
            match removed {
                Ok((_, mut removed)) => return Ok(removed.pop()),
                // Another thread has removed or moved it.
                Err(Refusal::Unknown { .. } | Refusal::NotMapped { .. }) => {}
                Err(refusal) => return Err(refusal),
            }
        }
    }

    /// The device that owns a guest physical address, and its id.
    pub fn mmio_device(
        &self,
        addr: MmioAddress,
    ) -> Option<(DeviceId, Arc<dyn DeviceMmio + Send + Sync>)> {
        self.find::<Mmio>(addr.0)
    }

    /// The device that owns a port, and its id.
    pub fn pio_device(
        &self,
        addr: PioAddress,
    ) -> Option<(DeviceId, Arc<dyn DevicePio + Send + Sync>)> {
        self.find::<Port>(addr.0.into())
    }
}

/// Converts a range of `vm-device`, which is never empty.
fn span(first: u64, last: u64) -> Span {
    Span::new(first, last).expect("the range is not empty")
}
