//! Dispatch: who owns an address, and what an access to it does.

use core::fmt;

use ax_errno::{AxError, AxResult};
use axaddrspace::device::AccessWidth;
use axdevice_base::BaseDeviceOps;
use log::trace;

use crate::{
    bus::{BusAddr, BusRange, sealed::Bus},
    device::DeviceBound,
    registry::VmDevices,
    table::Entry,
    tables::Tables,
    unmapped::Unmapped,
};

/// One access of a guest.
#[derive(Clone, Copy)]
pub(crate) struct Access<R: BusRange> {
    addr: R::Addr,
    width: AccessWidth,
    direction: &'static str,
}

impl<R: BusRange> Access<R> {
    #[inline]
    const fn read(addr: R::Addr, width: AccessWidth) -> Self {
        Self {
            addr,
            width,
            direction: "read",
        }
    }

    #[inline]
    const fn write(addr: R::Addr, width: AccessWidth) -> Self {
        Self {
            addr,
            width,
            direction: "write",
        }
    }

    /// What handles the access: the device that owns *all* of it.
    #[inline]
    fn handler<'t, B: DeviceBound>(&self, tables: &'t Tables<B>) -> Option<&'t B::Dev<R>> {
        let first = R::number(self.addr);
        let entry = tables.of::<R>().find(first)?;
        if !entry.span.holds(first, R::beyond(self.width)) {
            return None;
        }
        trace!("emu_device {self} in range {}", entry.span);
        Some(&entry.handler)
    }

    /// The device that owns the first byte of the access.
    fn starts_in<'t, B: DeviceBound>(&self, tables: &'t Tables<B>) -> Option<&'t Entry<B::Dev<R>>> {
        tables.of::<R>().find(R::number(self.addr))
    }
}

impl<R: BusRange> fmt::Display for Access<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let (direction, bus, first) = (self.direction, R::NAME, R::number(self.addr));
        write!(
            f,
            "{direction} of {bus} {first:#x} with width {:?}",
            self.width
        )
    }
}

impl<B: DeviceBound> VmDevices<B> {
    /// Has the owner of `addr` answer a read.
    #[inline]
    pub(crate) fn read<A: BusAddr>(&self, addr: A, width: AccessWidth) -> AxResult<usize> {
        let access = Access::<A::Range>::read(addr, width);
        let tables = self.tables.load();
        match access.handler(&tables) {
            Some(handler) => Ok(A::Range::carried(handler.handle_read(addr, width)?, width)),
            None if self.settled(&tables) => self.read(addr, width),
            None => self
                .unanswered(access, &tables)
                .map(|()| A::Range::floating(width)),
        }
    }

    /// Has the owner of `addr` take a write.
    #[inline]
    pub(crate) fn write<A: BusAddr>(&self, addr: A, width: AccessWidth, val: usize) -> AxResult {
        let access = Access::<A::Range>::write(addr, width);
        let tables = self.tables.load();
        match access.handler(&tables) {
            Some(handler) => handler.handle_write(addr, width, A::Range::carried(val, width)),
            None if self.settled(&tables) => self.write(addr, width, val),
            None => self.unanswered(access, &tables),
        }
    }

    /// Does with an access that no device answers as the policy says. `Ok` means: it floats.
    #[cold]
    fn unanswered<R: BusRange>(&self, access: Access<R>, tables: &Tables<B>) -> AxResult {
        let crossed = access.starts_in(tables).map(|owner| owner.span);
        match crossed {
            Some(span) => self.misses.note(format_args!("{access} runs past {span}")),
            None => self.misses.note(access),
        }
        match (self.unmapped, crossed) {
            (Unmapped::Float, _) => Ok(()),
            (Unmapped::Error, _) => Err(AxError::NotFound),
            (Unmapped::Panic, Some(_)) => Err(AxError::InvalidInput),
            (Unmapped::Panic, None) => panic!("emu_device not found"),
        }
    }
}

impl<B: DeviceBound> VmDevices<B> {
    /// Answers a read as KVM hands it over: `data.len()` bytes at `addr`, little-endian.
    ///
    /// `addr` is a [`GuestPhysAddr`](axaddrspace::GuestPhysAddr), a
    /// [`Port`](axaddrspace::device::Port) or a [`SysRegAddr`](axaddrspace::device::SysRegAddr).
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](AxError::InvalidInput) unless there are 1, 2, 4 or 8 bytes, and what
    /// [`handle_mmio_read`](Self::handle_mmio_read) gives. On any error `data` is filled as
    /// [`Unmapped::Float`] would: with ones (system registers: zeros), never left as it was.
    ///
    /// # Panics
    ///
    /// As [`handle_mmio_read`](Self::handle_mmio_read).
    pub fn read_bytes<A: BusAddr>(&self, addr: A, data: &mut [u8]) -> AxResult {
        let value = width_of(data).and_then(|width| self.read(addr, width));
        match value {
            Ok(value) => data.copy_from_slice(&value.to_le_bytes()[..data.len()]),
            Err(_) => data.fill(A::Range::floating(AccessWidth::Byte) as u8),
        }
        value.map(drop)
    }

    /// Takes a write as KVM hands it over: `data.len()` bytes at `addr`, little-endian.
    ///
    /// # Errors
    ///
    /// [`InvalidInput`](AxError::InvalidInput) unless there are 1, 2, 4 or 8 bytes, and what
    /// [`handle_mmio_write`](Self::handle_mmio_write) gives.
    ///
    /// # Panics
    ///
    /// As [`handle_mmio_write`](Self::handle_mmio_write).
    pub fn write_bytes<A: BusAddr>(&self, addr: A, data: &[u8]) -> AxResult {
        let width = width_of(data)?;
        let mut bytes = [0; size_of::<usize>()];
        bytes[..data.len()].copy_from_slice(data);
        self.write(addr, width, usize::from_le_bytes(bytes))
    }
}

fn width_of(data: &[u8]) -> AxResult<AccessWidth> {
    AccessWidth::try_from(data.len()).map_err(|()| AxError::InvalidInput)
}
