//! [`Access`]: one access of a guest: how it calls its device, and how the registry handles it if there is no device.

use core::{fmt, hint};

use ax_errno::{AxError, AxResult};
use axaddrspace::device::AccessWidth;
use axdevice_base::BaseDeviceOps;
use busmap::{Direction, Hit, Miss};
use log::{Level, STATIC_MAX_LEVEL, trace};

use crate::{
    bus::{BusRange, DeviceBound},
    limited_log::LimitedLog,
    refusal::Refusal,
    unmapped::Unmapped,
};

/// One access of a guest.
#[derive(Clone, Copy)]
pub(crate) struct Access<R: BusRange> {
    addr: R::Addr,
    width: AccessWidth,
    direction: Direction,
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

    /// The first address.
    #[inline(always)]
    pub(crate) fn at(self) -> u64 {
        R::number(self.addr)
    }

    /// Whether it reads or writes.
    #[inline(always)]
    pub(crate) const fn direction(self) -> Direction {
        self.direction
    }

    /// The number of addresses that it covers after the first.
    #[inline(always)]
    pub(crate) fn beyond(self) -> u64 {
        R::beyond(self.width)
    }

    /// Forwards the read to the device that was found. The value may be wider than the access.
    #[inline(always)]
    pub(crate) fn read_from<B: DeviceBound>(
        self,
        hit: Hit<'_, B::Handlers, R::Bus>,
    ) -> AxResult<usize> {
        self.trace::<B>(hit);
        let device = R::object::<B>(hit.handler());
        device.handle_read(self.addr, self.width)
    }

    /// Forwards the write, of a value that the width can carry, to the device that was found.
    #[inline(always)]
    pub(crate) fn write_to<B: DeviceBound>(
        self,
        hit: Hit<'_, B::Handlers, R::Bus>,
        val: usize,
    ) -> AxResult {
        self.trace::<B>(hit);
        let device = R::object::<B>(hit.handler());
        device.handle_write(self.addr, self.width, val)
    }

    /// Logs the access, if accesses are logged.
    #[inline(always)]
    fn trace<B: DeviceBound>(self, hit: Hit<'_, B::Handlers, R::Bus>) {
        // The first comparison is the only cost of an access that is not logged.
        if Level::Trace <= STATIC_MAX_LEVEL && Level::Trace <= log::max_level() {
            hint::cold_path();
            Self::log::<B>(self.addr, self.width, self.direction, hit);
        }
    }

    /// Logs an access, if accesses are still logged.
    ///
    /// The access is passed in parts, which are in registers: an access that is not logged needs no memory.
    #[cold]
    #[inline(never)]
    fn log<B: DeviceBound>(
        addr: R::Addr,
        width: AccessWidth,
        direction: Direction,
        hit: Hit<'_, B::Handlers, R::Bus>,
    ) {
        let access = Self {
            addr,
            width,
            direction,
        };
        trace!("emu_device {access} in range {}", hit.span());
    }

    /// Applies the policy to the access, which no device answers. `Ok`: the access floats.
    #[inline]
    pub(crate) fn unanswered(
        self,
        miss: Miss,
        unmapped: Unmapped,
        misses: &LimitedLog,
    ) -> AxResult {
        match (misses.count(), unmapped) {
            (None, Unmapped::Float) => Ok(()),
            (number, _) => self.unanswered_logged(miss, unmapped, misses, number),
        }
    }

    /// The same for an access that is an error, or that has a number and is logged.
    #[cold]
    #[inline(never)]
    fn unanswered_logged(
        self,
        miss: Miss,
        unmapped: Unmapped,
        misses: &LimitedLog,
        number: Option<u64>,
    ) -> AxResult {
        match (number, miss) {
            (Some(n), Miss::Crosses(span)) => {
                misses.error_nth(n, format_args!("{self} runs past the end of {span}"));
            }
            (Some(n), _) => misses.error_nth(n, self),
            (None, _) => {}
        }
        match (unmapped, miss) {
            (Unmapped::Float, _) => Ok(()),
            (Unmapped::Error, _) => Err(AxError::NotFound),
            (Unmapped::Panic, Miss::Crosses(_)) => Err(AxError::InvalidInput),
            (Unmapped::Panic, _) => panic!("emu_device not found: {self}"),
        }
    }

    /// The error of an access while devices are withdrawn and cannot be put back, because of `refusal`: it is unknown
    /// whether one of them owns the address.
    #[cold]
    pub(crate) fn undecided(self, refusal: Refusal, misses: &LimitedLog) -> AxError {
        misses.error(format_args!(
            "{self}, while devices are withdrawn: {refusal}"
        ));
        refusal.into()
    }
}

impl<R: BusRange> fmt::Display for Access<R> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let direction = match self.direction {
            Direction::Read => "read",
            Direction::Write => "write",
        };
        let (bus, first, width) = (R::ID, self.at(), self.width);
        write!(f, "{direction} of {bus} {first:#x} with width {width:?}")
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use axaddrspace::device::{Port, PortRange};

    use super::*;

    #[test]
    fn an_access_displays_its_direction_bus_address_and_width() {
        let access = Access::<PortRange>::write(Port(0x60), AccessWidth::Byte);
        assert_eq!(access.to_string(), "write of port 0x60 with width Byte");
    }
}
