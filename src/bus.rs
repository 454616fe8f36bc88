//! The three buses (MMIO, system registers, port I/O): their types of addresses, ranges and devices.
//!
//! Inside the crate an address is a number, a range a [`Span`]. All differences between the buses are in this file; all
//! other code is generic.

use core::fmt;

use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::{
        AccessWidth, DeviceAddr, DeviceAddrRange, Port, PortRange, SysRegAddr, SysRegAddrRange,
    },
};
use axdevice_base::BaseDeviceOps;
use busmap::{BusId, Handlers, On, Span};

use crate::{
    refusal::Refusal,
    sync::{Arc, AtomicUsize},
};

/// The range type of a bus: [`GuestPhysAddrRange`], [`SysRegAddrRange`] or [`PortRange`].
///
/// Sealed: the registry has these three buses and no others.
pub trait BusRange: sealed::Bus {}

impl<R: sealed::Bus> BusRange for R {}

/// An address on a bus: [`GuestPhysAddr`], [`SysRegAddr`] or [`Port`].
///
/// Sealed, like [`BusRange`].
pub trait BusAddr: DeviceAddr + sealed::Addr {
    /// The range type of the same bus.
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

/// The requirements of a registry on its devices: [`Unbound`] or [`ThreadSafe`].
///
/// Sealed: soundness depends on the set of device objects.
pub trait DeviceBound: sealed::Bound + Sized + 'static {
    /// The device object on the bus with range type `R`.
    type Dev<R: BusRange>: ?Sized + BaseDeviceOps<R>;

    /// The device objects of all buses, for [`busmap`].
    #[doc(hidden)]
    type Handlers: Handlers<
            Mmio = Self::Dev<GuestPhysAddrRange>,
            SysReg = Self::Dev<SysRegAddrRange>,
            Port = Self::Dev<PortRange>,
            Tag = Arc<Entry<Self>>,
        >;

    /// Makes device objects of this bound: calls one of the two closures.
    #[doc(hidden)]
    fn pick<R: BusRange>(
        unbound: impl FnOnce() -> [Arc<dyn BaseDeviceOps<R>>; 2],
        thread_safe: impl FnOnce() -> [Arc<dyn BaseDeviceOps<R> + Send + Sync>; 2],
    ) -> [Arc<Self::Dev<R>>; 2];
}

/// Devices as in 0.4.10, `dyn BaseDeviceOps<R>`: neither `Send` nor `Sync`. Their registry,
/// [`AxVmDevices`](crate::AxVmDevices), is neither `Send` nor `Sync` either.
///
/// `find_*` and `iter_*` return a built-in device without its [guard](crate::guards) and lock, so that callers can
/// downcast it. The guard, and the lock if the device needs one, belong to the table entry; only a dispatch passes
/// through them.
///
/// An embedder that shares the registry between threads guarantees that its use of the devices does not race. For
/// built-in devices, `handle_*` and a [`Dispatcher`](crate::Dispatcher) prevent races. An access takes the device's
/// lock if its handler reaches state that the device does not synchronise; [guards](crate::guards#vcpus-in-one-device)
/// lists these accesses. Other accesses take no lock. The embedder must not call the bare device while vCPUs run. For
/// example, `assign_irq` of `VGicD` must be complete before the first vCPU runs.
#[derive(Debug)]
pub enum Unbound {}

impl sealed::Bound for Unbound {}

impl DeviceBound for Unbound {
    type Dev<R: BusRange> = dyn BaseDeviceOps<R>;
    type Handlers = HandlersOf<Self>;

    fn pick<R: BusRange>(
        unbound: impl FnOnce() -> [Arc<dyn BaseDeviceOps<R>>; 2],
        thread_safe: impl FnOnce() -> [Arc<dyn BaseDeviceOps<R> + Send + Sync>; 2],
    ) -> [Arc<Self::Dev<R>>; 2] {
        let _ = thread_safe;
        unbound()
    }
}

impl Handlers for HandlersOf<Unbound> {
    type Mmio = dyn BaseDeviceOps<GuestPhysAddrRange>;
    type SysReg = dyn BaseDeviceOps<SysRegAddrRange>;
    type Port = dyn BaseDeviceOps<PortRange>;
    type Tag = Arc<Entry<Unbound>>;
}

/// Devices that any vCPU's thread may call, `dyn BaseDeviceOps<R> + Send + Sync`. Their registry,
/// [`SharedVmDevices`](crate::SharedVmDevices), is `Send + Sync` too.
///
/// A built-in device that is not `Sync` is wrapped in [`Serialized`](crate::Serialized), which takes a lock for every
/// access. Its [guard](crate::guards) belongs to the table entry, as in a registry of [`Unbound`] devices.
#[derive(Debug)]
pub enum ThreadSafe {}

impl sealed::Bound for ThreadSafe {}

impl DeviceBound for ThreadSafe {
    type Dev<R: BusRange> = dyn BaseDeviceOps<R> + Send + Sync;
    type Handlers = HandlersOf<Self>;

    fn pick<R: BusRange>(
        unbound: impl FnOnce() -> [Arc<dyn BaseDeviceOps<R>>; 2],
        thread_safe: impl FnOnce() -> [Arc<dyn BaseDeviceOps<R> + Send + Sync>; 2],
    ) -> [Arc<Self::Dev<R>>; 2] {
        let _ = unbound;
        thread_safe()
    }
}

impl Handlers for HandlersOf<ThreadSafe> {
    type Mmio = dyn BaseDeviceOps<GuestPhysAddrRange> + Send + Sync;
    type SysReg = dyn BaseDeviceOps<SysRegAddrRange> + Send + Sync;
    type Port = dyn BaseDeviceOps<PortRange> + Send + Sync;
    type Tag = Arc<Entry<ThreadSafe>>;
}

/// The device objects of bound `B`, for [`busmap`].
#[derive(Debug)]
pub struct HandlersOf<B>(B);

/// A device, with its bus known at run time.
pub enum Device<B: DeviceBound> {
    /// A device in guest physical memory.
    Mmio(Arc<B::Dev<GuestPhysAddrRange>>),
    /// A system register device.
    SysReg(Arc<B::Dev<SysRegAddrRange>>),
    /// A port I/O device.
    Port(Arc<B::Dev<PortRange>>),
}

impl<B: DeviceBound> Device<B> {
    /// Whether the two are the same object, on the same bus.
    pub(crate) fn is(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Mmio(one), Self::Mmio(other)) => Arc::ptr_eq(one, other),
            (Self::SysReg(one), Self::SysReg(other)) => Arc::ptr_eq(one, other),
            (Self::Port(one), Self::Port(other)) => Arc::ptr_eq(one, other),
            _ => false,
        }
    }
}

impl<B: DeviceBound> Clone for Device<B> {
    fn clone(&self) -> Self {
        match self {
            Self::Mmio(device) => Self::Mmio(device.clone()),
            Self::SysReg(device) => Self::SysReg(device.clone()),
            Self::Port(device) => Self::Port(device.clone()),
        }
    }
}

impl<B: DeviceBound> fmt::Debug for Device<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mmio(_) => "Mmio(..)",
            Self::SysReg(_) => "SysReg(..)",
            Self::Port(_) => "Port(..)",
        })
    }
}

/// The value of [`Entry::lent_at`] for a device that was not lent.
const NOWHERE: usize = usize::MAX;

/// The data beside a device's handler while the device is registered.
pub struct Entry<B: DeviceBound> {
    /// The name that the configuration gave.
    pub(crate) name: Option<Arc<str>>,
    /// The device as it was added: `find_*` returns it, and `iter_*` lends it. A dispatch calls the handler, which is
    /// this device or its guard.
    pub(crate) device: Device<B>,
    /// The position of the device on the list of [lent](crate::lent) devices, or [`NOWHERE`].
    pub(crate) lent_at: AtomicUsize,
}

impl<B: DeviceBound> Entry<B> {
    pub(crate) fn new(name: Option<Arc<str>>, device: Device<B>) -> Arc<Self> {
        let lent_at = AtomicUsize::new(NOWHERE);
        Arc::new(Self {
            name,
            device,
            lent_at,
        })
    }
}

impl<B: DeviceBound> fmt::Debug for Entry<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Entry")
            .field("name", &self.name)
            .field("device", &self.device)
            .finish_non_exhaustive()
    }
}

pub(crate) mod sealed {
    use super::*;

    /// The properties of a bus.
    pub trait Bus: DeviceAddrRange + Copy + fmt::Debug + Send + Sync + 'static {
        /// The bus, as a type of [`busmap`].
        type Bus: busmap::Bus;

        /// Its name in logs and memory maps.
        const ID: BusId;

        /// A range that holds no address.
        const EMPTY: Self;

        /// The value of a read that no device answers: an undriven bus floats high, a system register reads as zero.
        fn floating(width: AccessWidth) -> usize;

        /// The number of addresses that an access covers after its first.
        fn beyond(width: AccessWidth) -> u64;

        /// The part of `value` that an access carries.
        fn carried(value: usize, width: AccessWidth) -> usize;

        /// The address as a number.
        fn number(addr: Self::Addr) -> u64;

        /// The address `bytes` further, or `None` past the end of the bus. System registers are not made of bytes:
        /// always `None`.
        fn after(addr: Self::Addr, bytes: usize) -> Option<Self::Addr>;

        /// The first and last address, or the refusal of a range that is empty or backwards.
        fn span(self) -> Result<Span, Refusal>;

        /// The range that covers `span`, which [`Bus::span`] made.
        fn from_span(span: Span) -> Self;

        /// The handler of an access on this bus, as a device object.
        fn object<B: DeviceBound>(handler: &On<B::Handlers, Self::Bus>) -> &B::Dev<Self>;

        /// The device object, as the handler of an access on this bus.
        fn handler<B: DeviceBound>(object: Arc<B::Dev<Self>>) -> Arc<On<B::Handlers, Self::Bus>>;

        /// The device, with its bus known at run time.
        fn device<B: DeviceBound>(object: Arc<B::Dev<Self>>) -> Device<B>;

        /// The device, if it is on this bus.
        fn of<B: DeviceBound>(device: &Device<B>) -> Option<&Arc<B::Dev<Self>>>;

        /// The device to be replaced, if it is on this bus.
        fn of_mut<B: DeviceBound>(device: &mut Device<B>) -> Option<&mut Arc<B::Dev<Self>>>;
    }

    pub trait Addr {}
    pub trait Bound {}

    impl Addr for GuestPhysAddr {}
    impl Addr for SysRegAddr {}
    impl Addr for Port {}
}

/// The bits that an access of `width` carries.
fn mask(width: AccessWidth) -> usize {
    usize::MAX >> (usize::BITS - 8 * width.size() as u32)
}

/// Implements the conversions of [`sealed::Bus`] between a bus and its devices.
macro_rules! is_bus {
    ($bus:ident) => {
        type Bus = busmap::$bus;
        const ID: BusId = BusId::$bus;

        #[inline(always)]
        fn object<B: DeviceBound>(handler: &On<B::Handlers, Self::Bus>) -> &B::Dev<Self> {
            handler
        }

        fn handler<B: DeviceBound>(object: Arc<B::Dev<Self>>) -> Arc<On<B::Handlers, Self::Bus>> {
            object
        }

        fn device<B: DeviceBound>(object: Arc<B::Dev<Self>>) -> Device<B> {
            Device::$bus(object)
        }

        fn of<B: DeviceBound>(device: &Device<B>) -> Option<&Arc<B::Dev<Self>>> {
            match device {
                Device::$bus(object) => Some(object),
                _ => None,
            }
        }

        fn of_mut<B: DeviceBound>(device: &mut Device<B>) -> Option<&mut Arc<B::Dev<Self>>> {
            match device {
                Device::$bus(object) => Some(object),
                _ => None,
            }
        }
    };
}

/// Implements the widths of [`sealed::Bus`] for a bus on which accesses have a width.
macro_rules! has_widths {
    () => {
        fn floating(width: AccessWidth) -> usize {
            mask(width)
        }

        #[inline]
        fn beyond(width: AccessWidth) -> u64 {
            width.size() as u64 - 1
        }

        #[inline]
        fn carried(value: usize, width: AccessWidth) -> usize {
            value & mask(width)
        }
    };
}

/// Half-open, unlike the other two: no MMIO device can own the address `usize::MAX`.
impl sealed::Bus for GuestPhysAddrRange {
    const EMPTY: Self = Self {
        start: GuestPhysAddr::from_usize(0),
        end: GuestPhysAddr::from_usize(0),
    };

    has_widths!();
    is_bus!(Mmio);

    #[inline]
    fn number(addr: GuestPhysAddr) -> u64 {
        addr.as_usize() as u64
    }

    fn after(addr: GuestPhysAddr, bytes: usize) -> Option<GuestPhysAddr> {
        addr.as_usize().checked_add(bytes).map(GuestPhysAddr::from)
    }

    fn span(self) -> Result<Span, Refusal> {
        let (start, end) = (self.start.as_usize(), self.end.as_usize());
        if start == end {
            let bus = Self::ID;
            return Err(Refusal::Empty { bus, at: start });
        }
        let last = end.checked_sub(1).and_then(|last| span(start, last));
        last.ok_or(Refusal::Backwards {
            bus: Self::ID,
            start,
            end,
        })
    }

    fn from_span(span: Span) -> Self {
        Self {
            start: GuestPhysAddr::from_usize(span.first() as usize),
            // Cannot wrap: the span came from a half-open range.
            end: GuestPhysAddr::from_usize(span.last().wrapping_add(1) as usize),
        }
    }
}

/// Inclusive. Registers have a fixed width, so the width of an access is a placeholder: an access covers one address,
/// and its value is passed on whole.
impl sealed::Bus for SysRegAddrRange {
    const EMPTY: Self = Self {
        start: SysRegAddr(1),
        end: SysRegAddr(0),
    };

    is_bus!(SysReg);

    fn floating(_: AccessWidth) -> usize {
        0
    }

    #[inline]
    fn beyond(_: AccessWidth) -> u64 {
        0
    }

    #[inline]
    fn carried(value: usize, _: AccessWidth) -> usize {
        value
    }

    #[inline]
    fn number(addr: SysRegAddr) -> u64 {
        addr.0 as u64
    }

    fn after(_: SysRegAddr, _: usize) -> Option<SysRegAddr> {
        None
    }

    fn span(self) -> Result<Span, Refusal> {
        inclusive(Self::ID, self.start.0, self.end.0)
    }

    fn from_span(span: Span) -> Self {
        Self::new(
            SysRegAddr(span.first() as usize),
            SysRegAddr(span.last() as usize),
        )
    }
}

/// Inclusive: ports `start ..= end`.
impl sealed::Bus for PortRange {
    const EMPTY: Self = Self {
        start: Port(1),
        end: Port(0),
    };

    has_widths!();
    is_bus!(Port);

    #[inline]
    fn number(addr: Port) -> u64 {
        addr.0.into()
    }

    fn after(addr: Port, bytes: usize) -> Option<Port> {
        let bytes = u16::try_from(bytes).ok()?;
        addr.0.checked_add(bytes).map(Port)
    }

    fn span(self) -> Result<Span, Refusal> {
        inclusive(Self::ID, self.start.0.into(), self.end.0.into())
    }

    fn from_span(span: Span) -> Self {
        // Cannot truncate: the span came from two `u16`.
        Self::new(Port(span.first() as u16), Port(span.last() as u16))
    }
}

/// The span `first ..= last`, if it is valid.
fn span(first: usize, last: usize) -> Option<Span> {
    Span::new(first as u64, last as u64)
}

/// The span of an inclusive range. An inclusive range that ends one address before its start is empty.
fn inclusive(bus: BusId, start: usize, end: usize) -> Result<Span, Refusal> {
    span(start, end).ok_or(if end.wrapping_add(1) == start {
        Refusal::Empty { bus, at: start }
    } else {
        Refusal::Backwards { bus, start, end }
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
        (span.first() as usize, span.last() as usize)
    }

    #[test]
    fn mmio_ranges_are_half_open() {
        assert_eq!(ends(mmio(0x1000, 0x2000)), (0x1000, 0x1fff));
        assert_eq!(ends(mmio(0, usize::MAX)), (0, usize::MAX - 1));
        let bus = BusId::Mmio;
        assert_eq!(mmio(8, 8).span(), Err(Refusal::Empty { bus, at: 8 }));
        for (start, end) in [(usize::MAX - 0xfff, 0), (2, 1)] {
            assert_eq!(
                mmio(start, end).span(),
                Err(Refusal::Backwards { bus, start, end })
            );
        }
    }

    #[test]
    fn the_other_ranges_are_inclusive() {
        assert_eq!(ends(sys_reg(5, 5)), (5, 5));
        assert_eq!(ends(sys_reg(0, usize::MAX)), (0, usize::MAX));
        assert_eq!(ends(ports(0, u16::MAX)), (0, 0xffff));
        let bus = BusId::Port;
        assert_eq!(ports(8, 7).span(), Err(Refusal::Empty { bus, at: 8 }));
        let backwards = Refusal::Backwards {
            bus: BusId::SysReg,
            start: 9,
            end: 7,
        };
        assert_eq!(sys_reg(9, 7).span(), Err(backwards));
    }

    #[test]
    fn the_empty_range_of_every_bus_is_empty() {
        let empty = |bus, at| Err(Refusal::Empty { bus, at });
        assert_eq!(GuestPhysAddrRange::EMPTY.span(), empty(BusId::Mmio, 0));
        assert_eq!(SysRegAddrRange::EMPTY.span(), empty(BusId::SysReg, 1));
        assert_eq!(PortRange::EMPTY.span(), empty(BusId::Port, 1));
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
