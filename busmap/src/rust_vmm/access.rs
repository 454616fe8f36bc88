//! Accesses to the devices of an [`IoManager`], by `&self` and by a vCPU's own handle.

use core::{fmt, ops::Deref};

use vm_device::bus::{MmioAddress, PioAddress};

use super::io_manager::{IoManager, RustVmm};
use crate::{
    bus::{Mmio, Port},
    direction::Direction,
    miss::Miss,
    registry::{Hit, Registry},
    vcpu::Vcpu,
};

/// The reason why an access was not made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum AccessError {
    /// The access has no bytes.
    Empty,
    /// No device owns all bytes of the access. This includes an access that runs past the last
    /// address of the bus.
    Miss(Miss),
}

impl fmt::Display for AccessError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Empty => f.write_str("the access has no bytes"),
            Self::Miss(miss) => miss.fmt(f),
        }
    }
}

impl core::error::Error for AccessError {}

impl From<Miss> for AccessError {
    fn from(miss: Miss) -> Self {
        Self::Miss(miss)
    }
}

/// Accesses to rust-vmm's devices.
impl Registry<RustVmm> {
    /// Reads `data.len()` bytes from the device that owns all of them.
    ///
    /// # Errors
    ///
    /// [`AccessError`]; no device is called then.
    #[inline]
    pub fn mmio_read(&self, addr: MmioAddress, data: &mut [u8]) -> Result<(), AccessError> {
        let beyond = beyond(data)?;
        Ok(self.dispatch(addr.0, beyond, |hit| mmio_read(hit, addr, data))?)
    }

    /// Writes `data.len()` bytes to the device that owns all of them.
    ///
    /// # Errors
    ///
    /// As [`mmio_read`](Self::mmio_read).
    #[inline]
    pub fn mmio_write(&self, addr: MmioAddress, data: &[u8]) -> Result<(), AccessError> {
        let beyond = beyond(data)?;
        Ok(self.dispatch(addr.0, beyond, |hit| mmio_write(hit, addr, data))?)
    }

    /// Reads `data.len()` bytes from the ports that start at `addr`: see
    /// [`mmio_read`](Self::mmio_read).
    ///
    /// # Errors
    ///
    /// As [`mmio_read`](Self::mmio_read).
    #[inline]
    pub fn pio_read(&self, addr: PioAddress, data: &mut [u8]) -> Result<(), AccessError> {
        let beyond = beyond(data)?;
        Ok(self.dispatch(addr.0.into(), beyond, |hit| pio_read(hit, addr, data))?)
    }

    /// Writes `data.len()` bytes to the ports that start at `addr`: see
    /// [`mmio_write`](Self::mmio_write).
    ///
    /// # Errors
    ///
    /// As [`mmio_read`](Self::mmio_read).
    #[inline]
    pub fn pio_write(&self, addr: PioAddress, data: &[u8]) -> Result<(), AccessError> {
        let beyond = beyond(data)?;
        Ok(self.dispatch(addr.0.into(), beyond, |hit| pio_write(hit, addr, data))?)
    }
}

/// Accesses to rust-vmm's devices, through a vCPU's own handle.
impl<V: Deref<Target = IoManager>> Vcpu<V> {
    /// As [`IoManager::mmio_read`].
    ///
    /// # Errors
    ///
    /// [`AccessError`]; no device is called then.
    #[inline]
    pub fn mmio_read(&mut self, addr: MmioAddress, data: &mut [u8]) -> Result<(), AccessError> {
        let beyond = beyond(data)?;
        Ok(self.dispatch(Direction::Read, addr.0, beyond, |hit| {
            mmio_read(hit, addr, data)
        })?)
    }

    /// As [`IoManager::mmio_write`].
    ///
    /// # Errors
    ///
    /// As [`mmio_read`](Self::mmio_read).
    #[inline]
    pub fn mmio_write(&mut self, addr: MmioAddress, data: &[u8]) -> Result<(), AccessError> {
        let beyond = beyond(data)?;
        Ok(self.dispatch(Direction::Write, addr.0, beyond, |hit| {
            mmio_write(hit, addr, data)
        })?)
    }

    /// As [`IoManager::pio_read`].
    ///
    /// # Errors
    ///
    /// As [`mmio_read`](Self::mmio_read).
    #[inline]
    pub fn pio_read(&mut self, addr: PioAddress, data: &mut [u8]) -> Result<(), AccessError> {
        let beyond = beyond(data)?;
        Ok(
            self.dispatch(Direction::Read, addr.0.into(), beyond, |hit| {
                pio_read(hit, addr, data)
            })?,
        )
    }

    /// As [`IoManager::pio_write`].
    ///
    /// # Errors
    ///
    /// As [`mmio_read`](Self::mmio_read).
    #[inline]
    pub fn pio_write(&mut self, addr: PioAddress, data: &[u8]) -> Result<(), AccessError> {
        let beyond = beyond(data)?;
        Ok(
            self.dispatch(Direction::Write, addr.0.into(), beyond, |hit| {
                pio_write(hit, addr, data)
            })?,
        )
    }
}

/// The distance from the first byte of an access to its last.
#[inline]
fn beyond(data: &[u8]) -> Result<u64, AccessError> {
    let beyond = data.len().checked_sub(1).ok_or(AccessError::Empty)?;
    Ok(beyond as u64)
}

#[inline]
fn mmio_read(hit: Hit<'_, RustVmm, Mmio>, addr: MmioAddress, data: &mut [u8]) {
    let base = MmioAddress(hit.span().first());
    hit.handler().mmio_read(base, addr - base, data);
}

#[inline]
fn mmio_write(hit: Hit<'_, RustVmm, Mmio>, addr: MmioAddress, data: &[u8]) {
    let base = MmioAddress(hit.span().first());
    hit.handler().mmio_write(base, addr - base, data);
}

/// The first port of a span that contains a 16-bit address: so it has 16 bits too.
#[inline]
fn base(hit: Hit<'_, RustVmm, Port>) -> PioAddress {
    PioAddress(hit.span().first() as u16)
}

#[inline]
fn pio_read(hit: Hit<'_, RustVmm, Port>, addr: PioAddress, data: &mut [u8]) {
    let base = base(hit);
    hit.handler().pio_read(base, addr - base, data);
}

#[inline]
fn pio_write(hit: Hit<'_, RustVmm, Port>, addr: PioAddress, data: &[u8]) {
    let base = base(hit);
    hit.handler().pio_write(base, addr - base, data);
}
