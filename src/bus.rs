//! The three buses (MMIO, system registers, port I/O): how each names its addresses and ranges.
//!
//! Inside the crate an address is a `usize` and a range a [`Span`]. This file holds all that
//! differs between the buses, so that everything else is written once.

use core::fmt;

use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{
        AccessWidth, DeviceAddr, DeviceAddrRange, Port, PortRange, SysRegAddr, SysRegAddrRange,
    },
};

use crate::{error::Refusal, span::Span};

/// The range type of a bus: [`GuestPhysAddrRange`], [`SysRegAddrRange`] or [`PortRange`].
///
/// Sealed: the registry has these three buses and no others.
pub trait BusRange: sealed::Bus {}

impl<R: sealed::Bus> BusRange for R {}

/// An address on a bus: [`GuestPhysAddr`], [`SysRegAddr`] or [`Port`].
///
/// Sealed, like [`BusRange`].
pub trait BusAddr: DeviceAddr + sealed::Addr {
    /// The range type of the bus that this is an address on.
    type Range: BusRange<Addr = Self>;
}

impl BusAddr for GuestPhysAddr {
    type Range = GuestPhysAddrRange;
}

impl BusAddr for SysRegAddr {
    type Range = SysRegAddrRange;
}

impl BusAddr for Port {
    type Range = PortRange;
}

/// Something that each bus has one of, such as a table: `Of<R>` is bus `R`'s.
pub trait Family {
    /// What the bus with range type `R` has.
    type Of<R: BusRange>;
}

/// A member of a [`Family`] for every bus.
pub struct PerBus<F: Family> {
    pub(crate) mmio: F::Of<GuestPhysAddrRange>,
    pub(crate) sys_reg: F::Of<SysRegAddrRange>,
    pub(crate) port: F::Of<PortRange>,
}

/// A member of a [`Family`] for one bus, known at run time.
pub enum OnBus<F: Family> {
    Mmio(F::Of<GuestPhysAddrRange>),
    SysReg(F::Of<SysRegAddrRange>),
    Port(F::Of<PortRange>),
}

impl<F: Family> fmt::Debug for PerBus<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("PerBus").finish_non_exhaustive()
    }
}

impl<F: Family> fmt::Debug for OnBus<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mmio(_) => "Mmio(..)",
            Self::SysReg(_) => "SysReg(..)",
            Self::Port(_) => "Port(..)",
        })
    }
}

pub(crate) mod sealed {
    use super::*;

    /// What the registry needs to know of a bus.
    pub trait Bus: DeviceAddrRange + Copy + fmt::Debug + Send + Sync + 'static {
        /// The bus's name in logs and memory maps.
        const NAME: &'static str;

        /// A range that holds no address.
        const EMPTY: Self;

        /// Accesses to the same run of `1 << GRAIN` addresses are likely to be the same device's.
        const GRAIN: u32;

        /// What a read gives where nobody answers: an undriven bus floats high, a system register
        /// reads as zero.
        fn floating(width: AccessWidth) -> usize;

        /// How many addresses an access covers after its first.
        fn beyond(width: AccessWidth) -> usize;

        /// The part of `value` that an access carries.
        fn carried(value: usize, width: AccessWidth) -> usize;

        /// The address as a number.
        fn number(addr: Self::Addr) -> usize;

        /// The first and last address and whether the range is one, or why it is none.
        fn span(self) -> Result<Span, Refusal>;

        /// The range that covers `span`, which [`Bus::span`] made.
        fn from_span(span: Span) -> Self;

        /// This bus's member of the family.
        fn of<F: Family>(all: &PerBus<F>) -> &F::Of<Self>;

        /// This bus's member of the family.
        fn of_mut<F: Family>(all: &mut PerBus<F>) -> &mut F::Of<Self>;

        /// The member, with its bus told at run time.
        fn on<F: Family>(member: F::Of<Self>) -> OnBus<F>;
    }

    pub trait Addr {}

    impl Addr for GuestPhysAddr {}
    impl Addr for SysRegAddr {}
    impl Addr for Port {}
}

/// The bits that an access of `width` carries.
const fn mask(width: AccessWidth) -> usize {
    match width {
        AccessWidth::Byte => 0xff,
        AccessWidth::Word => 0xffff,
        AccessWidth::Dword => 0xffff_ffff,
        AccessWidth::Qword => usize::MAX,
    }
}

/// Implements the selectors of [`sealed::Bus`] with the named field and variant.
macro_rules! selects {
    ($field:ident, $variant:ident) => {
        fn of<F: Family>(all: &PerBus<F>) -> &F::Of<Self> {
            &all.$field
        }

        fn of_mut<F: Family>(all: &mut PerBus<F>) -> &mut F::Of<Self> {
            &mut all.$field
        }

        fn on<F: Family>(member: F::Of<Self>) -> OnBus<F> {
            OnBus::$variant(member)
        }
    };
}

/// Implements the widths of [`sealed::Bus`] for a bus whose accesses have one.
macro_rules! has_widths {
    () => {
        fn floating(width: AccessWidth) -> usize {
            mask(width)
        }

        #[inline]
        fn beyond(width: AccessWidth) -> usize {
            width.size() - 1
        }

        #[inline]
        fn carried(value: usize, width: AccessWidth) -> usize {
            value & mask(width)
        }
    };
}

/// Half-open, unlike the other two: no MMIO device can own the address `usize::MAX`.
impl sealed::Bus for GuestPhysAddrRange {
    const NAME: &'static str = "mmio";
    /// 512 bytes: as near as virtio-mmio devices lie to each other.
    const GRAIN: u32 = 9;
    const EMPTY: Self = Self {
        start: GuestPhysAddr::from_usize(0),
        end: GuestPhysAddr::from_usize(0),
    };

    has_widths!();
    selects!(mmio, Mmio);

    #[inline]
    fn number(addr: GuestPhysAddr) -> usize {
        addr.as_usize()
    }

    fn span(self) -> Result<Span, Refusal> {
        let (start, end) = (self.start.as_usize(), self.end.as_usize());
        if start == end {
            return Err(Refusal::Empty { at: start });
        }
        let last = end.checked_sub(1).and_then(|last| Span::new(start, last));
        last.ok_or(Refusal::Wrapping { start, end })
    }

    fn from_span(span: Span) -> Self {
        Self {
            start: GuestPhysAddr::from_usize(span.first()),
            // Cannot wrap: the span came from a half-open range.
            end: GuestPhysAddr::from_usize(span.last().wrapping_add(1)),
        }
    }
}

/// Inclusive. The width of an access is a placeholder here: registers are as wide as they are, so
/// an access covers one address and its value is passed on whole.
impl sealed::Bus for SysRegAddrRange {
    const NAME: &'static str = "sys_reg";
    const GRAIN: u32 = 0;
    const EMPTY: Self = Self {
        start: SysRegAddr(1),
        end: SysRegAddr(0),
    };

    selects!(sys_reg, SysReg);

    fn floating(_: AccessWidth) -> usize {
        0
    }

    #[inline]
    fn beyond(_: AccessWidth) -> usize {
        0
    }

    #[inline]
    fn carried(value: usize, _: AccessWidth) -> usize {
        value
    }

    #[inline]
    fn number(addr: SysRegAddr) -> usize {
        addr.0
    }

    fn span(self) -> Result<Span, Refusal> {
        inclusive(self.start.0, self.end.0)
    }

    fn from_span(span: Span) -> Self {
        Self::new(SysRegAddr(span.first()), SysRegAddr(span.last()))
    }
}

/// Inclusive: ports `start ..= end`.
impl sealed::Bus for PortRange {
    const NAME: &'static str = "port";
    const GRAIN: u32 = 0;
    const EMPTY: Self = Self {
        start: Port(1),
        end: Port(0),
    };

    has_widths!();
    selects!(port, Port);

    #[inline]
    fn number(addr: Port) -> usize {
        addr.0.into()
    }

    fn span(self) -> Result<Span, Refusal> {
        inclusive(self.start.0.into(), self.end.0.into())
    }

    fn from_span(span: Span) -> Self {
        // Cannot truncate: the span came from two `u16`.
        Self::new(Port(span.first() as u16), Port(span.last() as u16))
    }
}

/// The span of an inclusive range. One that runs backwards by one address is how an inclusive
/// range says "empty"; further backwards, it would have to wrap.
fn inclusive(start: usize, end: usize) -> Result<Span, Refusal> {
    Span::new(start, end).ok_or(if end.wrapping_add(1) == start {
        Refusal::Empty { at: start }
    } else {
        Refusal::Wrapping { start, end }
    })
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::{sealed::Bus, *};

    fn mmio(start: usize, end: usize) -> GuestPhysAddrRange {
        // The fields are public, so a range need not have come through `AddrRange::new`.
        GuestPhysAddrRange {
            start: start.into(),
            end: end.into(),
        }
    }

    fn sys_reg(start: usize, end: usize) -> SysRegAddrRange {
        SysRegAddrRange::new(SysRegAddr(start), SysRegAddr(end))
    }

    fn ports(start: u16, end: u16) -> PortRange {
        PortRange::new(Port(start), Port(end))
    }

    fn ends<R: Bus>(range: R) -> (usize, usize) {
        let span = range.span().unwrap();
        (span.first(), span.last())
    }

    #[test]
    fn mmio_ranges_are_half_open() {
        assert_eq!(ends(mmio(0x1000, 0x2000)), (0x1000, 0x1fff));
        assert_eq!(ends(mmio(0, usize::MAX)), (0, usize::MAX - 1));
        assert_eq!(mmio(8, 8).span(), Err(Refusal::Empty { at: 8 }));
        let (start, end) = (usize::MAX - 0xfff, 0);
        assert_eq!(
            mmio(start, end).span(),
            Err(Refusal::Wrapping { start, end })
        );
    }

    #[test]
    fn the_other_ranges_are_inclusive() {
        assert_eq!(ends(sys_reg(5, 5)), (5, 5));
        assert_eq!(ends(sys_reg(0, usize::MAX)), (0, usize::MAX));
        assert_eq!(ends(ports(0, u16::MAX)), (0, 0xffff));
        assert_eq!(ports(8, 7).span(), Err(Refusal::Empty { at: 8 }));
        assert_eq!(
            sys_reg(9, 7).span(),
            Err(Refusal::Wrapping { start: 9, end: 7 })
        );
    }

    #[test]
    fn the_empty_range_of_every_bus_is_empty() {
        assert_eq!(
            GuestPhysAddrRange::EMPTY.span(),
            Err(Refusal::Empty { at: 0 })
        );
        assert_eq!(SysRegAddrRange::EMPTY.span(), Err(Refusal::Empty { at: 1 }));
        assert_eq!(PortRange::EMPTY.span(), Err(Refusal::Empty { at: 1 }));
    }

    #[test]
    fn spans_turn_back_into_their_ranges() {
        let range = mmio(0x1000, 0x2000);
        assert_eq!(GuestPhysAddrRange::from_span(range.span().unwrap()), range);
        let range = sys_reg(3, usize::MAX);
        assert_eq!(SysRegAddrRange::from_span(range.span().unwrap()), range);
        let range = ports(0x3f8, 0xffff);
        assert_eq!(PortRange::from_span(range.span().unwrap()), range);
    }

    #[test]
    fn only_system_registers_ignore_the_width() {
        let value = 0x1122_3344_5566_7788;
        assert_eq!(GuestPhysAddrRange::carried(value, AccessWidth::Byte), 0x88);
        assert_eq!(PortRange::carried(value, AccessWidth::Word), 0x7788);
        assert_eq!(
            GuestPhysAddrRange::carried(value, AccessWidth::Dword),
            0x5566_7788
        );
        assert_eq!(
            GuestPhysAddrRange::carried(value, AccessWidth::Qword),
            value
        );
        assert_eq!(SysRegAddrRange::carried(value, AccessWidth::Byte), value);
        assert_eq!(SysRegAddrRange::beyond(AccessWidth::Qword), 0);
        assert_eq!(PortRange::beyond(AccessWidth::Qword), 7);
        assert_eq!(PortRange::floating(AccessWidth::Byte), 0xff);
        assert_eq!(SysRegAddrRange::floating(AccessWidth::Dword), 0);
    }
}
