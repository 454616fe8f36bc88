//! The properties of a bus that [`Bus`] does not have: its identity, and whether the ends of its ranges are
//! inclusive.

use arbitrary::Arbitrary;
use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice::{BusId, DeviceBound, ThreadSafe};
use support::Bus;

/// A bus, known at run time.
#[derive(Arbitrary, Clone, Copy, Debug, PartialEq)]
pub(crate) enum On {
    Mmio,
    SysReg,
    Port,
}

pub(crate) const BUSES: [On; 3] = [On::Mmio, On::SysReg, On::Port];

/// Evaluates `$body` with `$R` as the range type of a bus.
macro_rules! on_bus {
    ($on:expr, $R:ident => $body:expr) => {
        match $on {
            $crate::on::On::Mmio => {
                type $R = axaddrspace::GuestPhysAddrRange;
                $body
            }
            $crate::on::On::SysReg => {
                type $R = axaddrspace::device::SysRegAddrRange;
                $body
            }
            $crate::on::On::Port => {
                type $R = axaddrspace::device::PortRange;
                $body
            }
        }
    };
}
pub(crate) use on_bus;

impl On {
    /// The registry's name of the bus.
    pub(crate) fn id(self) -> BusId {
        on_bus!(self, R => R::BUS)
    }
}

/// A device on the bus with range type `R`.
pub(crate) type Dev<R> = <ThreadSafe as DeviceBound>::Dev<R>;

/// A bus, known at compile time.
pub(crate) trait OnBus: Bus {
    const ON: On;

    /// Whether the end of a range is one beyond its last address.
    const HALF_OPEN: bool;
}

/// The range from an address on, in its bus's own terms. A range past the end of the bus wraps.
pub(crate) fn range<R: OnBus>(start: usize, length: usize) -> (usize, usize) {
    let beyond = start.wrapping_add(length);
    let end = beyond.wrapping_sub(usize::from(!R::HALF_OPEN));
    (R::place(R::at(start)), R::place(R::at(end)))
}

macro_rules! on {
    ($range:ty, $on:ident, $half_open:literal) => {
        impl OnBus for $range {
            const ON: On = On::$on;
            const HALF_OPEN: bool = $half_open;
        }
    };
}

on!(GuestPhysAddrRange, Mmio, true);
on!(SysRegAddrRange, SysReg, false);
on!(PortRange, Port, false);
