//! The registers of `riscv_vplic::VPlicGlobal`, the PLIC.
//!
//! Offsets: RISC-V PLIC specification 1.0.0, "Memory Map". All registers have four bytes;
//! everything else is reserved.

use ax_errno::AxResult;
use axaddrspace::{
    GuestPhysAddr, GuestPhysAddrRange,
    device::AccessWidth::{self, Dword},
};
use axdevice_base::BaseDeviceOps;

use super::{
    enter::{Enter, Occupancy::Shared},
    guard::{
        Filter, Guard, Registers,
        Verdict::{self, Nothing, Pass},
    },
};
use crate::fair_lock::FairLock;

/// The maximum number of contexts of a PLIC.
const MAX_CONTEXTS: usize = 15872;

/// Sources are 1 to 1023.
const SOURCES: usize = 1024;

const ENABLE: usize = 0x2000;
const ENABLE_STRIDE: usize = 0x80;
const CONTROL: usize = 0x20_0000;
const CONTROL_STRIDE: usize = 0x1000;
const COMPLETE: usize = 4;

/// Forwards the registers of the contexts that the device has.
struct Contexts(usize);

impl Contexts {
    #[inline]
    fn has(&self, offset: usize) -> bool {
        match offset {
            // Priorities.
            0..0x1000 => true,
            // Pending bits.
            0x1000..0x1080 => true,
            ENABLE..CONTROL => (offset - ENABLE) / ENABLE_STRIDE < self.0,
            CONTROL.. => {
                let (context, register) = (
                    (offset - CONTROL) / CONTROL_STRIDE,
                    (offset - CONTROL) % CONTROL_STRIDE,
                );
                context < self.0 && register <= COMPLETE
            }
            _ => false,
        }
    }
}

impl Registers for Contexts {
    #[inline]
    fn read(&self, offset: usize, width: AccessWidth) -> Verdict {
        if width == Dword && self.has(offset) {
            Pass(Shared)
        } else {
            Nothing
        }
    }

    #[inline]
    fn write(&self, offset: usize, width: AccessWidth, _: usize) -> Verdict {
        match offset {
            // Read only: a write to the device injects an interrupt, which only the hypervisor may do.
            0x1000..0x1080 => Nothing,
            _ => self.read(offset, width),
        }
    }
}

/// The part of a PLIC's interface that a guard needs.
pub trait Plic: BaseDeviceOps<GuestPhysAddrRange> {
    /// Whether the source is claimed and not completed.
    fn is_active(&self, source: usize) -> bool;
}

/// The guard of a PLIC.
///
/// If a guest completes a source that is not active, the device acquires its own lock twice and
/// deadlocks. Therefore no other vCPU may complete a source between the check that it is active and
/// the completion.
pub(crate) struct PlicGuard {
    base: GuestPhysAddr,
    filter: Filter<Contexts>,
    completing: FairLock<()>,
}

impl PlicGuard {
    /// Creates the guard of a device that starts at `base` and has `contexts` contexts.
    pub(crate) fn new(base: GuestPhysAddr, contexts: usize) -> Self {
        Self {
            base,
            filter: Filter::new(base, Contexts(contexts.min(MAX_CONTEXTS))),
            completing: FairLock::new(()),
        }
    }

    /// Whether `addr` is a context's claim/complete register.
    #[inline]
    fn completes(&self, addr: GuestPhysAddr) -> bool {
        let offset = addr.as_usize().wrapping_sub(self.base.as_usize());
        offset >= CONTROL && offset % CONTROL_STRIDE == COMPLETE
    }
}

impl<D: Plic> Guard<GuestPhysAddrRange, D> for PlicGuard {
    #[inline]
    fn read(
        &self,
        place: &impl Enter<Device = D>,
        addr: GuestPhysAddr,
        width: AccessWidth,
    ) -> AxResult<usize> {
        self.filter.read(place, addr, width)
    }

    #[inline]
    fn write(
        &self,
        place: &impl Enter<Device = D>,
        addr: GuestPhysAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        if self.completes(addr) {
            self.complete(place, addr, width, val)
        } else {
            self.filter.write(place, addr, width, val)
        }
    }
}

impl PlicGuard {
    /// Not inlined: otherwise, because of the lock, every other write saves registers.
    #[inline(never)]
    fn complete<D: Plic>(
        &self,
        place: &impl Enter<Device = D>,
        addr: GuestPhysAddr,
        width: AccessWidth,
        val: usize,
    ) -> AxResult {
        let _alone = self.completing.enter()?;
        // The specification requires that completions of other sources are ignored.
        let is_active = |device: &D| Ok(device.is_active(val));
        if (1..SOURCES).contains(&val) && place.enter(Shared, is_active)? {
            self.filter.write(place, addr, width, val)
        } else {
            Ok(())
        }
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::{
        Mutex as StdMutex,
        atomic::{AtomicUsize, Ordering::SeqCst},
    };
    use std::thread;

    use axaddrspace::device::AccessWidth::{Byte, Qword, Word};
    use axvmconfig::EmulatedDeviceType;

    use super::*;
    use crate::guards::enter::Occupancy;

    const BASE: usize = 0xc00_0000;

    /// A PLIC with one source, number 7. It counts completions and fails if the source is not active:
    /// the real PLIC would deadlock.
    #[derive(Default)]
    struct One {
        active: StdMutex<bool>,
        completions: AtomicUsize,
        others: AtomicUsize,
    }

    impl BaseDeviceOps<GuestPhysAddrRange> for One {
        fn emu_type(&self) -> EmulatedDeviceType {
            EmulatedDeviceType::PPPTGlobal
        }

        fn address_range(&self) -> GuestPhysAddrRange {
            GuestPhysAddrRange::from_start_size(BASE.into(), 0x40_0000)
        }

        fn handle_read(&self, _: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
            Ok(9)
        }

        fn handle_write(&self, addr: GuestPhysAddr, _: AccessWidth, val: usize) -> AxResult {
            if addr.as_usize() - BASE < CONTROL || addr.as_usize().is_multiple_of(CONTROL_STRIDE) {
                self.others.fetch_add(1, SeqCst);
                return Ok(());
            }
            assert_eq!(val, 7);
            let mut active = self.active.lock().unwrap();
            assert!(*active, "the real device would never return");
            thread::yield_now();
            *active = false;
            self.completions.fetch_add(1, SeqCst);
            Ok(())
        }
    }

    impl Enter for One {
        type Device = Self;

        fn enter_as<V, T>(
            &self,
            decide: impl FnOnce() -> (Occupancy, V),
            work: impl FnOnce(&Self, V) -> AxResult<T>,
        ) -> AxResult<T> {
            work(self, decide().1)
        }
    }

    impl Plic for One {
        fn is_active(&self, source: usize) -> bool {
            let active = source == 7 && *self.active.lock().unwrap();
            // Another vCPU may enter now, if the guard allows it.
            thread::yield_now();
            active
        }
    }

    fn guard(contexts: usize) -> PlicGuard {
        PlicGuard::new(BASE.into(), contexts)
    }

    fn complete(guard: &PlicGuard, device: &One, source: usize) {
        let register = (BASE + CONTROL + COMPLETE).into();
        guard.write(device, register, Dword, source).unwrap();
    }

    #[test]
    fn only_an_active_interrupt_is_completed() {
        let (device, guard) = (One::default(), guard(2));
        for source in [0, 1, 7, 1023, 1024, 0xffff_ffff] {
            complete(&guard, &device, source);
        }
        assert_eq!(device.completions.load(SeqCst), 0);
        *device.active.lock().unwrap() = true;
        complete(&guard, &device, 7);
        complete(&guard, &device, 7);
        assert_eq!(device.completions.load(SeqCst), 1);
    }

    #[test]
    fn two_vcpus_that_complete_the_same_source_complete_it_once() {
        const ROUNDS: usize = support::size(500, 5);
        let (device, guard) = (One::default(), guard(2));
        for round in 1..=ROUNDS {
            *device.active.lock().unwrap() = true;
            thread::scope(|scope| {
                for _ in 0..2 {
                    scope.spawn(|| complete(&guard, &device, 7));
                }
            });
            assert_eq!(device.completions.load(SeqCst), round);
        }
    }

    #[test]
    fn a_context_that_the_device_does_not_have_is_reserved() {
        let contexts = Contexts(2);
        for (offset, verdict) in [
            (0x0, Pass(Shared)),
            (0xffc, Pass(Shared)),
            (0x107c, Pass(Shared)),
            (0x1080, Nothing),
            (0x1ffc, Nothing),
            (0x2000, Pass(Shared)),
            (0x20fc, Pass(Shared)),
            (0x2100, Nothing),
            (0x1f_fffc, Nothing),
            (0x20_0000, Pass(Shared)),
            (0x20_0004, Pass(Shared)),
            (0x20_0008, Nothing),
            (0x20_1004, Pass(Shared)),
            (0x20_2000, Nothing),
            (0x20_2004, Nothing),
            (0x3f_fffc, Nothing),
        ] {
            assert_eq!(contexts.read(offset, Dword), verdict, "{offset:#x}");
            for width in [Byte, Word, Qword] {
                assert_eq!(contexts.read(offset, width), Nothing, "{offset:#x}");
            }
            let pending = (0x1000..0x1080).contains(&offset);
            let verdict = if pending { Nothing } else { verdict };
            assert_eq!(contexts.write(offset, Dword, 1), verdict, "{offset:#x}");
        }
    }

    #[test]
    fn accesses_other_than_completions_take_no_lock() {
        let (device, guard) = (One::default(), guard(1));
        let _busy = guard.completing.enter().unwrap();
        for offset in [0, 0x2000, 0x20_0000] {
            guard
                .write(&device, (BASE + offset).into(), Dword, 1)
                .unwrap();
        }
        assert_eq!(device.others.load(SeqCst), 3);
        let claim = (BASE + CONTROL + COMPLETE).into();
        assert_eq!(guard.read(&device, claim, Dword), Ok(9));
        // An unaligned write takes no lock either, and none of these reaches the device.
        for offset in [CONTROL + 1, CONTROL + 2, CONTROL + 3, 0x1000] {
            guard
                .write(&device, (BASE + offset).into(), Dword, 1)
                .unwrap();
        }
        assert_eq!(device.others.load(SeqCst), 3);
    }
}
