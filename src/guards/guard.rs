//! [`Guarded`]: the device that a dispatch calls in place of one that does not handle every access safely.
//!
//! A guard belongs to the entry of the table, as a lock does. `find_*` and `iter_*` return the
//! device without it.

use core::fmt;

use ax_errno::AxResult;
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use super::enter::{
    Enter,
    Occupancy::{self, Alone, Shared},
};
use crate::bus::BusRange;

/// Determines the effect of an access to a device of type `D`, and whether other accesses may be in the device at
/// the same time.
///
/// If a guard enters a device [`Alone`], a value that it reads there is unchanged when it forwards the access.
pub(crate) trait Guard<R: BusRange, D>: Send + Sync + 'static {
    /// Reads from the device at `place`.
    fn read(
        &self,
        place: &impl Enter<Device = D>,
        addr: R::Addr,
        width: AccessWidth,
    ) -> AxResult<usize>;

    /// Writes to the device at `place`.
    fn write(
        &self,
        place: &impl Enter<Device = D>,
        addr: R::Addr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult;
}

/// Forwards every access; one vCPU at a time if the device has a lock.
impl<R: BusRange, D: BaseDeviceOps<R>> Guard<R, D> for () {
    #[inline]
    fn read(
        &self,
        place: &impl Enter<Device = D>,
        addr: R::Addr,
        width: AccessWidth,
    ) -> AxResult<usize> {
        place.enter(Alone, |device| device.handle_read(addr, width))
    }

    #[inline]
    fn write(
        &self,
        place: &impl Enter<Device = D>,
        addr: R::Addr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        place.enter(Alone, |device| device.handle_write(addr, width, val))
    }
}

/// A device behind a guard.
pub(crate) struct Guarded<P, G> {
    place: P,
    guard: G,
}

impl<P: Enter, G> Guarded<P, G> {
    /// Puts `guard` in front of the device at `place`.
    pub(crate) const fn new(place: P, guard: G) -> Self {
        Self { place, guard }
    }
}

impl<R, P, G> BaseDeviceOps<R> for Guarded<P, G>
where
    R: BusRange,
    P: Enter<Device: BaseDeviceOps<R>> + 'static,
    G: Guard<R, P::Device>,
{
    fn emu_type(&self) -> EmulatedDeviceType {
        let emu_type = self.place.enter(Alone, |device| Ok(device.emu_type()));
        emu_type.unwrap_or(EmulatedDeviceType::Dummy)
    }

    fn address_range(&self) -> R {
        let range = self.place.enter(Alone, |device| Ok(device.address_range()));
        range.unwrap_or(R::EMPTY)
    }

    #[inline]
    fn handle_read(&self, addr: R::Addr, width: AccessWidth) -> AxResult<usize> {
        self.guard.read(&self.place, addr, width)
    }

    #[inline]
    fn handle_write(&self, addr: R::Addr, width: AccessWidth, val: usize) -> AxResult {
        self.guard.write(&self.place, addr, width, val)
    }
}

impl<P, G> fmt::Debug for Guarded<P, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

/// A guard's verdict on an access to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The access is forwarded unchanged.
    Pass(Occupancy),
    /// A read returns zero, a write does nothing. The architectures define this for reserved registers,
    /// and allow it for an access that a register does not support.
    Nothing,
    /// A write is forwarded with this value.
    As(usize),
    /// A write reads the register and writes these bits back unchanged. It is alone: another write
    /// between the two would be lost. Every other write that changes one of these bits must be alone too.
    Keep(usize),
    /// Four bytes of a register that the device accesses only as eight. A write reads the register and
    /// writes the other half back, so it is alone. Every other write of the register must be alone too.
    Half(Occupancy),
    /// A read, of a register of eight bytes or of either half, returns the value from
    /// [`Registers::shown`].
    Shown,
}

impl Verdict {
    /// The accesses that may be in the device during a read.
    #[inline]
    const fn of_read(self) -> Occupancy {
        match self {
            Self::Pass(occupancy) | Self::Half(occupancy) => occupancy,
            Self::Nothing | Self::As(_) | Self::Keep(_) | Self::Shown => Shared,
        }
    }

    /// The accesses that may be in the device during a write.
    #[inline]
    const fn of_write(self) -> Occupancy {
        match self {
            Self::Pass(occupancy) => occupancy,
            Self::Keep(_) | Self::Half(_) => Alone,
            Self::Nothing | Self::As(_) | Self::Shown => Shared,
        }
    }
}

/// The registers of a device, as its guard knows them. Its methods do not access the device, so a guard calls
/// them before it enters the device.
pub(crate) trait Registers: Send + Sync + 'static {
    /// The verdict on a read at `offset` from the device's first address.
    fn read(&self, offset: usize, width: AccessWidth) -> Verdict;

    /// The verdict on a write of `value`, which fits the width.
    fn write(&self, offset: usize, width: AccessWidth, value: usize) -> Verdict;

    /// The value that the guest reads if the device returns `whole`, for a register with the read verdict
    /// [`Shown`](Verdict::Shown).
    fn shown(&self, whole: usize) -> usize {
        whole
    }
}

/// Applies the verdicts of its [`Registers`] to each access.
pub(crate) struct Filter<F> {
    base: GuestPhysAddr,
    registers: F,
}

impl<F: Registers> Filter<F> {
    /// Creates the guard of a device that starts at `base`.
    pub(crate) const fn new(base: GuestPhysAddr, registers: F) -> Self {
        Self { base, registers }
    }

    /// The offset of `addr`, if it is aligned to the width: the device accesses the host's register
    /// with one access of that width, and an unaligned access faults there.
    #[inline]
    fn offset(&self, addr: GuestPhysAddr, width: AccessWidth) -> Option<usize> {
        let offset = addr.as_usize().wrapping_sub(self.base.as_usize());
        offset.is_multiple_of(width.size()).then_some(offset)
    }

    /// The part of a register of eight bytes that an access reads or writes.
    fn part(&self, addr: GuestPhysAddr, width: AccessWidth) -> Part {
        let upper = addr.as_usize().wrapping_sub(self.base.as_usize()) & 4;
        Part {
            register: addr - upper,
            shift: upper as u32 * 8,
            mask: match width {
                AccessWidth::Qword => usize::MAX,
                _ => 0xffff_ffff,
            },
        }
    }
}

impl<F, D> Guard<GuestPhysAddrRange, D> for Filter<F>
where
    F: Registers,
    D: BaseDeviceOps<GuestPhysAddrRange>,
{
    #[inline]
    fn read(
        &self,
        place: &impl Enter<Device = D>,
        addr: GuestPhysAddr,
        width: AccessWidth,
    ) -> AxResult<usize> {
        let decide = || {
            let offset = self.offset(addr, width);
            let verdict = offset.map_or(Verdict::Nothing, |at| self.registers.read(at, width));
            (verdict.of_read(), verdict)
        };
        place.enter_as(decide, |device, verdict| match verdict {
            Verdict::Pass(_) | Verdict::As(_) | Verdict::Keep(_) => device.handle_read(addr, width),
            Verdict::Nothing => Ok(0),
            Verdict::Half(_) => self.part(addr, width).read(device, |whole| whole),
            Verdict::Shown => {
                let shown = |whole| self.registers.shown(whole);
                self.part(addr, width).read(device, shown)
            }
        })
    }

    #[inline]
    fn write(
        &self,
        place: &impl Enter<Device = D>,
        addr: GuestPhysAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        let decide = || {
            let offset = self.offset(addr, width);
            let verdict =
                offset.map_or(Verdict::Nothing, |at| self.registers.write(at, width, val));
            (verdict.of_write(), verdict)
        };
        place.enter_as(decide, |device, verdict| match verdict {
            Verdict::Pass(_) => device.handle_write(addr, width, val),
            Verdict::Nothing | Verdict::Shown => Ok(()),
            Verdict::As(val) => device.handle_write(addr, width, val),
            Verdict::Keep(bits) => {
                let now = device.handle_read(addr, width)?;
                device.handle_write(addr, width, (val & !bits) | (now & bits))
            }
            Verdict::Half(_) => self.part(addr, width).write(device, val),
        })
    }
}

/// A register of eight bytes, and the part of it that an access reads or writes: all of it, or a half.
struct Part {
    register: GuestPhysAddr,
    shift: u32,
    mask: usize,
}

impl Part {
    /// Reads the part from the register's value as `shown` returns it.
    #[cold]
    fn read<D>(&self, device: &D, shown: impl FnOnce(usize) -> usize) -> AxResult<usize>
    where
        D: BaseDeviceOps<GuestPhysAddrRange>,
    {
        let whole = shown(device.handle_read(self.register, AccessWidth::Qword)?);
        Ok(whole >> self.shift & self.mask)
    }

    /// Writes the part, and writes the rest of the register back unchanged.
    #[cold]
    fn write<D>(&self, device: &D, val: usize) -> AxResult
    where
        D: BaseDeviceOps<GuestPhysAddrRange>,
    {
        let whole = device.handle_read(self.register, AccessWidth::Qword)?;
        let rest = whole & !(self.mask << self.shift);
        device.handle_write(self.register, AccessWidth::Qword, rest | val << self.shift)
    }
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use core::cell::RefCell;
    use std::{vec, vec::Vec};

    use axaddrspace::device::AccessWidth::{Byte, Dword, Qword, Word};

    use super::{Verdict::*, *};
    use crate::{serialized::Serialized, sync::Arc};

    pub(crate) const BASE: usize = 0x800_0000;

    /// One register of eight bytes at each address, and the accesses made to them.
    #[derive(Default)]
    pub(crate) struct Recorder {
        pub(crate) value: RefCell<usize>,
        pub(crate) accesses: RefCell<Vec<(usize, AccessWidth, Option<usize>)>>,
        /// The occupancy of each entry.
        pub(crate) entered: RefCell<Vec<Occupancy>>,
    }

    impl Enter for Recorder {
        type Device = Self;

        fn enter_as<V, T>(
            &self,
            decide: impl FnOnce() -> (Occupancy, V),
            work: impl FnOnce(&Self, V) -> AxResult<T>,
        ) -> AxResult<T> {
            let (occupancy, decided) = decide();
            self.entered.borrow_mut().push(occupancy);
            work(self, decided)
        }
    }

    impl Recorder {
        pub(crate) fn take(&self) -> Vec<(usize, AccessWidth, Option<usize>)> {
            self.accesses.take()
        }
    }

    impl BaseDeviceOps<GuestPhysAddrRange> for Recorder {
        fn emu_type(&self) -> EmulatedDeviceType {
            EmulatedDeviceType::Console
        }

        fn address_range(&self) -> GuestPhysAddrRange {
            GuestPhysAddrRange::from_start_size(BASE.into(), 0x1000)
        }

        fn handle_read(&self, addr: GuestPhysAddr, width: AccessWidth) -> AxResult<usize> {
            let access = (addr.as_usize() - BASE, width, None);
            self.accesses.borrow_mut().push(access);
            Ok(*self.value.borrow())
        }

        fn handle_write(&self, addr: GuestPhysAddr, width: AccessWidth, val: usize) -> AxResult {
            let access = (addr.as_usize() - BASE, width, Some(val));
            self.accesses.borrow_mut().push(access);
            self.value.replace(val);
            Ok(())
        }
    }

    /// Returns the same verdict on every access.
    struct Always(Verdict);

    impl Registers for Always {
        fn read(&self, _: usize, _: AccessWidth) -> Verdict {
            self.0
        }

        fn write(&self, _: usize, _: AccessWidth, _: usize) -> Verdict {
            self.0
        }

        fn shown(&self, whole: usize) -> usize {
            whole ^ 0xf0_0000_000f
        }
    }

    fn always(verdict: Verdict) -> Filter<Always> {
        Filter::new(BASE.into(), Always(verdict))
    }

    fn addr(offset: usize) -> GuestPhysAddr {
        (BASE + offset).into()
    }

    /// Reads through a guard with this verdict. Returns the value and the occupancy.
    fn read(
        device: &Recorder,
        verdict: Verdict,
        at: usize,
        width: AccessWidth,
    ) -> (usize, Occupancy) {
        let value = always(verdict).read(device, addr(at), width).unwrap();
        (value, device.entered.take()[0])
    }

    #[test]
    fn each_verdict_determines_the_value_read_and_the_occupancy() {
        let device = Recorder::default();
        device.value.replace(0x1122_3344_5566_7788);
        for occupancy in [Alone, Shared] {
            for (verdict, at, width, value) in [
                (Pass(occupancy), 8, Qword, 0x1122_3344_5566_7788),
                (Half(occupancy), 8, Dword, 0x5566_7788),
                (Half(occupancy), 12, Dword, 0x1122_3344),
            ] {
                assert_eq!(read(&device, verdict, at, width), (value, occupancy));
            }
        }
        assert_eq!(device.take(), [(8, Qword, None); 6]);
        for (at, width, value) in [
            (8, Qword, 0x1122_33b4_5566_7787),
            (8, Dword, 0x5566_7787),
            (12, Dword, 0x1122_33b4),
        ] {
            assert_eq!(read(&device, Shown, at, width), (value, Shared));
        }
        assert_eq!(device.take(), [(8, Qword, None); 3]);
        assert_eq!(read(&device, Nothing, 8, Qword), (0, Shared));
        assert_eq!(device.take(), []);
    }

    #[test]
    fn each_verdict_determines_the_value_written_and_the_occupancy() {
        let device = Recorder::default();
        let write = |verdict, at, val| {
            let width = if let Half(_) = verdict { Dword } else { Qword };
            always(verdict)
                .write(&device, addr(at), width, val)
                .unwrap();
            (device.take(), device.entered.take()[0])
        };
        for verdict in [Nothing, Shown] {
            assert_eq!(write(verdict, 8, 1), (vec![], Shared));
        }
        assert_eq!(write(As(2), 8, 1), (vec![(8, Qword, Some(2))], Shared));
        for occupancy in [Alone, Shared] {
            let written = vec![(8, Qword, Some(0xff00))];
            assert_eq!(write(Pass(occupancy), 8, 0xff00), (written, occupancy));
        }
    }

    #[test]
    fn a_partial_write_reads_and_writes_the_device_alone() {
        let device = Recorder::default();
        for (was, verdict, at, val, now) in [
            (0xf0f0, Keep(0xff00), 8, 0x000f, 0xf00f),
            (0x1_0000_0002, Half(Shared), 12, 7, 0x7_0000_0002),
            (0x7_0000_0002, Half(Alone), 8, 9, 0x7_0000_0009),
        ] {
            device.value.replace(was);
            let width = if let Half(_) = verdict { Dword } else { Qword };
            always(verdict)
                .write(&device, addr(at), width, val)
                .unwrap();
            assert_eq!(device.take(), [(8, Qword, None), (8, Qword, Some(now))]);
            assert_eq!(device.entered.take(), [Alone]);
        }
    }

    #[test]
    fn halves_are_the_register_s_wherever_the_device_is() {
        let (device, guard) = (
            Recorder::default(),
            Filter::new(addr(4), Always(Half(Shared))),
        );
        device.value.replace(0x1_0000_0002);
        assert_eq!(guard.read(&device, addr(12), Dword), Ok(2));
        assert_eq!(guard.read(&device, addr(16), Dword), Ok(1));
        guard.write(&device, addr(16), Dword, 3).unwrap();
        assert_eq!(*device.value.borrow(), 0x3_0000_0002);
        assert!(device.take().iter().all(|(at, ..)| *at == 12));
    }

    #[test]
    fn an_unaligned_access_does_not_reach_the_device() {
        let device = Recorder::default();
        for (offset, width) in [(1, Word), (2, Dword), (4, Qword), (7, Qword)] {
            assert_eq!(
                always(Pass(Shared)).read(&device, addr(offset), width),
                Ok(0)
            );
            assert_eq!(
                always(Pass(Shared)).write(&device, addr(offset), width, 1),
                Ok(())
            );
        }
        assert_eq!(device.take(), []);
        assert_eq!(
            always(Pass(Shared)).write(&device, addr(7), Byte, 1),
            Ok(())
        );
        assert_eq!(device.take().len(), 1);
    }

    #[test]
    fn a_guarded_device_has_the_range_and_type_of_the_device() {
        let device = Arc::new(Serialized::new(Recorder::default()));
        let guarded = Guarded::new(device.clone(), always(Nothing));
        assert_eq!(guarded.address_range(), device.address_range());
        assert_eq!(guarded.emu_type(), EmulatedDeviceType::Console);
        assert_eq!(guarded.handle_read(addr(0), Byte), Ok(0));
        assert_eq!(guarded.handle_write(addr(0), Byte, 1), Ok(()));
        drop(guarded);
        let device = Arc::into_inner(device).unwrap().into_inner();
        assert_eq!(device.take(), []);
    }
}
