//! [`Guarded`]: what a dispatch calls in place of a device that does not stand every access.
//!
//! A guard belongs to the entry of the table, as a lock does. What `find_*` and `iter_*` give is the
//! device without it.

use core::fmt;

use ax_errno::AxResult;
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use super::place::Place;
use crate::bus::BusRange;

/// Decides what an access does to a device of type `D`.
///
/// Where the device needs a lock it is held meanwhile: what a guard has looked up in the device
/// still holds when it passes the access on.
pub trait Guard<R: BusRange, D>: Send + Sync + 'static {
    /// Answers a read.
    fn read(&self, device: &D, addr: R::Addr, width: AccessWidth) -> AxResult<usize>;

    /// Takes a write.
    fn write(&self, device: &D, addr: R::Addr, width: AccessWidth, val: usize) -> AxResult;
}

/// Lets everything through.
impl<R: BusRange, D: BaseDeviceOps<R>> Guard<R, D> for () {
    #[inline]
    fn read(&self, device: &D, addr: R::Addr, width: AccessWidth) -> AxResult<usize> {
        device.handle_read(addr, width)
    }

    #[inline]
    fn write(&self, device: &D, addr: R::Addr, width: AccessWidth, val: usize) -> AxResult {
        device.handle_write(addr, width, val)
    }
}

/// A device behind a guard.
pub(crate) struct Guarded<P, G> {
    place: P,
    guard: G,
}

impl<P: Place, G> Guarded<P, G> {
    /// Puts `guard` before the device at `place`.
    pub(crate) const fn new(place: P, guard: G) -> Self {
        Self { place, guard }
    }
}

impl<R, P, G> BaseDeviceOps<R> for Guarded<P, G>
where
    R: BusRange,
    P: Place<Device: BaseDeviceOps<R>> + 'static,
    G: Guard<R, P::Device>,
{
    fn emu_type(&self) -> EmulatedDeviceType {
        let emu_type = self.place.enter(|device| Ok(device.emu_type()));
        emu_type.unwrap_or(EmulatedDeviceType::Dummy)
    }

    fn address_range(&self) -> R {
        let range = self.place.enter(|device| Ok(device.address_range()));
        range.unwrap_or(R::EMPTY)
    }

    #[inline]
    fn handle_read(&self, addr: R::Addr, width: AccessWidth) -> AxResult<usize> {
        self.place
            .enter(|device| self.guard.read(device, addr, width))
    }

    #[inline]
    fn handle_write(&self, addr: R::Addr, width: AccessWidth, val: usize) -> AxResult {
        self.place
            .enter(|device| self.guard.write(device, addr, width, val))
    }
}

impl<P, G> fmt::Debug for Guarded<P, G> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guarded").finish_non_exhaustive()
    }
}

/// What becomes of an access to a register.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// The device has it, as it is.
    Pass,
    /// A read gives zero, a write does nothing: so the architectures define what is reserved, and
    /// allow it of an access that a register does not support.
    Nothing,
    /// A write is of this value.
    As(usize),
    /// A write leaves these bits as they read.
    Keep(usize),
    /// Four bytes of a register that the device knows as eight.
    Half,
}

/// The registers of a device, as its guard knows them. Pure: it sees nothing of the device.
pub(crate) trait Registers: Send + Sync + 'static {
    /// What becomes of a read at `offset` from the device's first address.
    fn read(&self, offset: usize, width: AccessWidth) -> Verdict;

    /// What becomes of a write of `value`, which the width can carry.
    fn write(&self, offset: usize, width: AccessWidth, value: usize) -> Verdict;
}

/// Does with each access what its [`Registers`] say.
pub(crate) struct Filter<F> {
    base: GuestPhysAddr,
    registers: F,
}

impl<F: Registers> Filter<F> {
    /// For a device that starts at `base`.
    pub(crate) const fn new(base: GuestPhysAddr, registers: F) -> Self {
        Self { base, registers }
    }

    /// The offset of `addr`, if it is aligned as its width: the device reaches its host's register
    /// with one access of that width, and unaligned ones are faults there.
    #[inline]
    fn offset(&self, addr: GuestPhysAddr, width: AccessWidth) -> Option<usize> {
        let offset = addr.as_usize().wrapping_sub(self.base.as_usize());
        offset.is_multiple_of(width.size()).then_some(offset)
    }
}

impl<F, D> Guard<GuestPhysAddrRange, D> for Filter<F>
where
    F: Registers,
    D: BaseDeviceOps<GuestPhysAddrRange>,
{
    #[inline]
    fn read(&self, device: &D, addr: GuestPhysAddr, width: AccessWidth) -> AxResult<usize> {
        let verdict = self.offset(addr, width);
        match verdict.map_or(Verdict::Nothing, |at| self.registers.read(at, width)) {
            Verdict::Pass | Verdict::As(_) | Verdict::Keep(_) => device.handle_read(addr, width),
            Verdict::Nothing => Ok(0),
            Verdict::Half => read_half(device, addr),
        }
    }

    #[inline]
    fn write(&self, device: &D, addr: GuestPhysAddr, width: AccessWidth, val: usize) -> AxResult {
        let verdict = self.offset(addr, width);
        match verdict.map_or(Verdict::Nothing, |at| self.registers.write(at, width, val)) {
            Verdict::Pass => device.handle_write(addr, width, val),
            Verdict::Nothing => Ok(()),
            Verdict::As(val) => device.handle_write(addr, width, val),
            Verdict::Keep(bits) => {
                let now = device.handle_read(addr, width)?;
                device.handle_write(addr, width, (val & !bits) | (now & bits))
            }
            Verdict::Half => write_half(device, addr, val),
        }
    }
}

/// The whole register that `addr` is a half of, and how far up in it that half is.
fn whole(addr: GuestPhysAddr) -> (GuestPhysAddr, u32) {
    let upper = addr.as_usize() & 4;
    (addr - upper, upper as u32 * 8)
}

#[cold]
fn read_half<D>(device: &D, addr: GuestPhysAddr) -> AxResult<usize>
where
    D: BaseDeviceOps<GuestPhysAddrRange>,
{
    let (addr, shift) = whole(addr);
    let whole = device.handle_read(addr, AccessWidth::Qword)?;
    Ok(whole >> shift & 0xffff_ffff)
}

#[cold]
fn write_half<D>(device: &D, addr: GuestPhysAddr, val: usize) -> AxResult
where
    D: BaseDeviceOps<GuestPhysAddrRange>,
{
    let (addr, shift) = whole(addr);
    let others = device.handle_read(addr, AccessWidth::Qword)? & !(0xffff_ffff << shift);
    device.handle_write(addr, AccessWidth::Qword, others | val << shift)
}

#[cfg(all(test, not(loom)))]
pub(crate) mod tests {
    use core::cell::RefCell;
    use std::vec::Vec;

    use axaddrspace::device::AccessWidth::{Byte, Dword, Qword, Word};

    use super::{Verdict::*, *};
    use crate::{serialized::Serialized, sync::Arc};

    pub(crate) const BASE: usize = 0x800_0000;

    /// One register of eight bytes at each address, and what is done to them.
    #[derive(Default)]
    pub(crate) struct Recorder {
        pub(crate) value: RefCell<usize>,
        pub(crate) accesses: RefCell<Vec<(usize, AccessWidth, Option<usize>)>>,
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

    /// Gives one verdict on every access.
    struct Always(Verdict);

    impl Registers for Always {
        fn read(&self, _: usize, _: AccessWidth) -> Verdict {
            self.0
        }

        fn write(&self, _: usize, _: AccessWidth, _: usize) -> Verdict {
            self.0
        }
    }

    fn always(verdict: Verdict) -> Filter<Always> {
        Filter::new(BASE.into(), Always(verdict))
    }

    fn addr(offset: usize) -> GuestPhysAddr {
        (BASE + offset).into()
    }

    #[test]
    fn each_verdict_does_what_it_says() {
        let device = Recorder::default();
        device.value.replace(0x1122_3344_5566_7788);
        let read = |verdict, offset, width| always(verdict).read(&device, addr(offset), width);
        assert_eq!(read(Pass, 8, Qword), Ok(0x1122_3344_5566_7788));
        assert_eq!(read(Nothing, 8, Qword), Ok(0));
        assert_eq!(read(Half, 8, Dword), Ok(0x5566_7788));
        assert_eq!(read(Half, 12, Dword), Ok(0x1122_3344));
        assert_eq!(device.take(), [(8, Qword, None); 3]);

        let write = |verdict, offset, val| {
            let width = if verdict == Half { Dword } else { Qword };
            always(verdict)
                .write(&device, addr(offset), width, val)
                .unwrap();
            device.take()
        };
        assert_eq!(write(Nothing, 8, 1), []);
        assert_eq!(write(As(2), 8, 1), [(8, Qword, Some(2))]);
        assert_eq!(write(Pass, 8, 0xff00), [(8, Qword, Some(0xff00))]);
        let kept = [(8, Qword, None), (8, Qword, Some(0xf00f))];
        assert_eq!(write(Keep(0xff00), 8, 0x0f0f).len(), 2);
        device.value.replace(0xf0f0);
        assert_eq!(write(Keep(0xff00), 8, 0x000f), kept);
        device.value.replace(0x1_0000_0002);
        let halves = [(8, Qword, None), (8, Qword, Some(0x7_0000_0002))];
        assert_eq!(write(Half, 12, 7), halves);
        let halves = [(8, Qword, None), (8, Qword, Some(0x7_0000_0009))];
        assert_eq!(write(Half, 8, 9), halves);
    }

    #[test]
    fn an_unaligned_access_does_not_reach_the_device() {
        let device = Recorder::default();
        for (offset, width) in [(1, Word), (2, Dword), (4, Qword), (7, Qword)] {
            assert_eq!(always(Pass).read(&device, addr(offset), width), Ok(0));
            assert_eq!(always(Pass).write(&device, addr(offset), width, 1), Ok(()));
        }
        assert_eq!(device.take(), []);
        assert_eq!(always(Pass).write(&device, addr(7), Byte, 1), Ok(()));
        assert_eq!(device.take().len(), 1);
    }

    #[test]
    fn a_guarded_device_is_where_it_is_and_what_it_is() {
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
