//! Dispatch: who owns an address, and what an access to it does.

use core::fmt;

use ax_errno::{AxError, AxResult};
use axaddrspace::device::AccessWidth;
use axdevice_base::BaseDeviceOps;
use log::{Level, STATIC_MAX_LEVEL, trace};

use crate::{
    bus::{BusAddr, BusRange, sealed::Bus},
    device::DeviceBound,
    publish::Guard,
    registry::VmDevices,
    span::Span,
    table::Row,
    tables::Tables,
    unmapped::Unmapped,
};

/// One access of a guest.
#[derive(Clone, Copy)]
pub(crate) struct Access<R: BusRange> {
    pub(crate) addr: R::Addr,
    pub(crate) width: AccessWidth,
    pub(crate) direction: Direction,
}

#[derive(Clone, Copy)]
pub(crate) enum Direction {
    Read,
    Write,
}

impl<R: BusRange> Access<R> {
    #[inline]
    pub(crate) const fn read(addr: R::Addr, width: AccessWidth) -> Self {
        Self {
            addr,
            width,
            direction: Direction::Read,
        }
    }

    #[inline]
    pub(crate) const fn write(addr: R::Addr, width: AccessWidth) -> Self {
        Self {
            addr,
            width,
            direction: Direction::Write,
        }
    }

    /// The address as a number.
    #[inline]
    pub(crate) fn first(&self) -> usize {
        R::number(self.addr)
    }

    /// What handles the access if `row` owns *all* of it.
    #[inline]
    pub(crate) fn handler_of<'t, D: ?Sized>(&self, row: &'t Row<D>) -> Option<&'t D> {
        if !row.span.holds(self.first(), R::beyond(self.width)) {
            return None;
        }
        // What the level is compared with first is all that an access costs that is not logged.
        if Level::Trace <= STATIC_MAX_LEVEL && Level::Trace <= log::max_level() {
            Self::trace(self.addr, self.width, self.direction, &row.span);
        }
        Some(row.handler())
    }

    /// Logs an access, if it is still so.
    ///
    /// By its parts, which are in registers, so that those that are not logged need no memory.
    #[cold]
    #[inline(never)]
    fn trace(addr: R::Addr, width: AccessWidth, direction: Direction, span: &Span) {
        let access = Self {
            addr,
            width,
            direction,
        };
        trace!("emu_device {access} in range {span}");
    }

    /// What handles the access: the device that owns *all* of it.
    #[inline]
    fn handler<'t, B: DeviceBound>(&self, tables: &'t Tables<B>) -> Option<&'t B::Dev<R>> {
        self.handler_of(tables.of::<R>().find(self.first())?)
    }

    /// The device that owns the first byte of the access.
    fn starts_in<'t, B: DeviceBound>(&self, tables: &'t Tables<B>) -> Option<&'t Row<B::Dev<R>>> {
        tables.of::<R>().find(self.first())
    }
}

impl<R: BusRange> fmt::Display for Access<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Read => "read",
            Direction::Write => "write",
        };
        let (bus, first, width) = (R::NAME, self.first(), self.width);
        write!(f, "{direction} of {bus} {first:#x} with width {width:?}")
    }
}

impl<B: DeviceBound> VmDevices<B> {
    /// Has the owner of `addr` answer a read.
    #[inline]
    pub(crate) fn read<A: BusAddr>(&self, addr: A, width: AccessWidth) -> AxResult<usize> {
        let access = Access::<A::Range>::read(addr, width);
        self.dispatch(access, A::Range::floating(width), move |device| {
            let value = device.handle_read(addr, width)?;
            Ok(A::Range::carried(value, width))
        })
    }

    /// Has the owner of `addr` take a write.
    #[inline]
    pub(crate) fn write<A: BusAddr>(&self, addr: A, width: AccessWidth, val: usize) -> AxResult {
        let access = Access::<A::Range>::write(addr, width);
        let val = A::Range::carried(val, width);
        self.dispatch(access, (), move |device| {
            device.handle_write(addr, width, val)
        })
    }

    /// Has `enter` enter the device that owns the access; if there is none and the policy is so, the
    /// answer is `floating`.
    #[inline(always)]
    fn dispatch<R: BusRange, T>(
        &self,
        access: Access<R>,
        floating: T,
        enter: impl FnOnce(&B::Dev<R>) -> AxResult<T>,
    ) -> AxResult<T> {
        let tables = self.tables.load();
        if let Some(handler) = access.handler(&tables) {
            return enter(handler);
        }
        self.dispatch_unanswered(access, tables, floating, enter)
    }

    /// The same for an access that these tables do not answer.
    #[cold]
    #[inline(never)]
    fn dispatch_unanswered<'s, R: BusRange, T>(
        &'s self,
        access: Access<R>,
        mut tables: Guard<'s, Tables<B>>,
        floating: T,
        enter: impl FnOnce(&B::Dev<R>) -> AxResult<T>,
    ) -> AxResult<T> {
        while self.settled(&tables) {
            tables = self.tables.load();
            if let Some(handler) = access.handler(&tables) {
                return enter(handler);
            }
        }
        self.unanswered(access, &tables).map(|()| floating)
    }

    /// Does with an access that no device answers as the policy says. `Ok` means: it floats.
    ///
    /// Stale tables are here only if there was no memory to put the devices back for which they stand
    /// in: then nobody knows whether one would have answered.
    #[cold]
    pub(crate) fn unanswered<R: BusRange>(
        &self,
        access: Access<R>,
        tables: &Tables<B>,
    ) -> AxResult {
        if tables.stale {
            self.misses
                .error(format_args!("no memory for the tables of {access}"));
            return Err(AxError::NoMemory);
        }
        let crossed = access.starts_in(tables).map(|row| row.span);
        match crossed {
            Some(span) => self.misses.error(format_args!("{access} runs past {span}")),
            None => self.misses.error(access),
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
        fill::<A::Range>(data, |width| self.read(addr, width))
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
        let (width, val) = value_of(data)?;
        self.write(addr, width, val)
    }
}

/// Fills `data` with what `read` gives for its width or, where there is an error, as a floating bus
/// would.
pub(crate) fn fill<R: BusRange>(
    data: &mut [u8],
    read: impl FnOnce(AccessWidth) -> AxResult<usize>,
) -> AxResult {
    let value = width_of(data).and_then(read);
    match value {
        Ok(value) => data.copy_from_slice(&value.to_le_bytes()[..data.len()]),
        Err(_) => data.fill(R::floating(AccessWidth::Byte) as u8),
    }
    value.map(drop)
}

/// The width and the value of what is written.
pub(crate) fn value_of(data: &[u8]) -> AxResult<(AccessWidth, usize)> {
    let width = width_of(data)?;
    let mut bytes = [0; size_of::<usize>()];
    bytes[..data.len()].copy_from_slice(data);
    Ok((width, usize::from_le_bytes(bytes)))
}

fn width_of(data: &[u8]) -> AxResult<AccessWidth> {
    AccessWidth::try_from(data.len()).map_err(|()| AxError::InvalidInput)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use axaddrspace::{
        GuestPhysAddr,
        device::{Port, SysRegAddr},
    };

    use super::*;
    use crate::{registry::AxVmDevices, testing::Probe};

    /// On each bus a device at 0x10 ..= 0x1f that reads as the address; misses are errors.
    fn devices() -> AxVmDevices {
        let devices = AxVmDevices::default().with_unmapped(Unmapped::Error);
        let span = Span::new(0x10, 0x1f).unwrap();
        devices.add_mmio_dev(Probe::shared(span)).unwrap();
        devices.add_sys_reg_dev(Probe::shared(span)).unwrap();
        devices.add_port_dev(Probe::shared(span)).unwrap();
        devices
    }

    #[test]
    fn an_access_reaches_the_owner_of_all_of_it() {
        let devices = devices();
        let mmio = |addr: usize, width| devices.read(GuestPhysAddr::from(addr), width);
        assert_eq!(mmio(0x18, AccessWidth::Qword), Ok(0x18));
        assert_eq!(mmio(0x19, AccessWidth::Qword), Err(AxError::NotFound));
        assert_eq!(mmio(0x1f, AccessWidth::Byte), Ok(0x1f));
        assert_eq!(mmio(0x20, AccessWidth::Byte), Err(AxError::NotFound));
        assert_eq!(mmio(0xf, AccessWidth::Word), Err(AxError::NotFound));
        assert_eq!(devices.read(Port(0x1e), AccessWidth::Word), Ok(0x1e));
        assert_eq!(
            devices.read(Port(0x1e), AccessWidth::Dword),
            Err(AxError::NotFound)
        );
        assert_eq!(devices.read(SysRegAddr(0x1f), AccessWidth::Qword), Ok(0x1f));
    }

    #[test]
    fn crossing_is_told_from_missing() {
        let devices = devices().with_unmapped(Unmapped::Panic);
        let crossing = devices.write(Port(0x1f), AccessWidth::Word, 0);
        assert_eq!(crossing, Err(AxError::InvalidInput));
        let devices = devices.with_unmapped(Unmapped::Float);
        assert_eq!(devices.read(Port(0x1f), AccessWidth::Word), Ok(0xffff));
        assert_eq!(devices.read(SysRegAddr(0x20), AccessWidth::Qword), Ok(0));
        assert_eq!(
            devices.write(SysRegAddr(0x20), AccessWidth::Qword, 1),
            Ok(())
        );
    }

    #[test]
    #[should_panic(expected = "emu_device not found")]
    fn a_miss_panics_where_that_is_the_policy() {
        let _ = devices()
            .with_unmapped(Unmapped::Panic)
            .read(Port(0x20), AccessWidth::Byte);
    }

    #[test]
    fn bytes_are_little_endian_and_never_left_as_they_were() {
        let devices = devices();
        let mut data = [0xaa; 4];
        devices
            .read_bytes(GuestPhysAddr::from(0x11), &mut data)
            .unwrap();
        assert_eq!(data, [0x11, 0, 0, 0]);
        let mut data = [0xaa; 3];
        let error = devices.read_bytes(Port(0x10), &mut data);
        assert_eq!((error, data), (Err(AxError::InvalidInput), [0xff; 3]));
        let mut data = [0xaa; 2];
        let error = devices.read_bytes(SysRegAddr(0), &mut data);
        assert_eq!((error, data), (Err(AxError::NotFound), [0; 2]));
        assert_eq!(
            devices.write_bytes(Port(0x10), &[]),
            Err(AxError::InvalidInput)
        );
        assert_eq!(devices.write_bytes(Port(0x10), &[0; 8]), Ok(()));
        assert_eq!(
            devices.write_bytes(Port(0x10), &[0; 16]),
            Err(AxError::InvalidInput)
        );
    }

    #[test]
    fn an_access_says_what_it_is() {
        let access = Access::<axaddrspace::device::PortRange>::write(Port(0x60), AccessWidth::Byte);
        assert_eq!(access.to_string(), "write of port 0x60 with width Byte");
    }
}
