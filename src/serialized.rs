//! [`Serialized`]: a device that only one vCPU may enter at a time.

use core::fmt;

use ax_errno::{AxError, AxResult};
use axaddrspace::device::AccessWidth;
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use crossbeam_utils::Backoff;

use crate::{
    bus::BusRange,
    sync::{Mutex, MutexGuard},
};

/// How often a caller looks whether the device is free. Between two looks it yields to the
/// scheduler, so that a vCPU which was preempted inside the device gets on; on bare metal, where
/// there is none, it spins 2,048 times. Both come to about a tenth of a second where nobody else
/// wants the CPU.
const TRIES: usize = match () {
    () if cfg!(loom) => 2,
    () if cfg!(any(miri, test)) => 200,
    () if cfg!(target_os = "none") => 1 << 11,
    () => 1 << 17,
};

/// Makes a device that is `Send` but not `Sync` one that any vCPU may call, behind a spinlock of
/// its own.
///
/// The lock is held while the device handles an access, and no longer: neither when it returns an
/// error nor when it unwinds. Another vCPU's access waits for it.
///
/// # Errors
///
/// An access that finds the device busy waits a bounded time, then gives
/// [`AxError::ResourceBusy`]. So ends, in particular, a device that reaches itself again from its
/// own handler, or an interrupt handler that interrupted it on the same CPU. A handler must
/// therefore not block: who waits for it meanwhile gets the error too.
///
/// # Ranges
///
/// `address_range` and `emu_type` need the device too, and wait the same bounded time; if it is
/// still busy they say that it has an *empty* range, which every registry refuses, and is a
/// [`Dummy`](EmulatedDeviceType::Dummy). A registry asks for the range when it is given the device,
/// never in a dispatch.
///
/// # Examples
///
/// ```
/// use axdevice::{Serialized, SharedVmDevices};
/// # use std::{cell::Cell, sync::Arc};
/// # use ax_errno::AxResult;
/// # use axaddrspace::device::{AccessWidth, Port, PortRange};
/// # use axvmconfig::EmulatedDeviceType;
/// struct Counter(Cell<usize>);
///
/// impl axdevice_base::BaseDeviceOps<PortRange> for Counter {
///     fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
///         Ok(self.0.replace(self.0.get() + 1))
///     }
///     // …
/// #     fn emu_type(&self) -> EmulatedDeviceType { EmulatedDeviceType::Dummy }
/// #     fn address_range(&self) -> PortRange { PortRange::new(Port(0x70), Port(0x70)) }
/// #     fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult { Ok(()) }
/// }
///
/// let devices = SharedVmDevices::default();
/// devices.add_port_dev(Arc::new(Serialized::new(Counter(Cell::new(7)))))?;
/// assert_eq!(devices.handle_port_read(Port(0x70), AccessWidth::Byte), Ok(7));
/// # Ok::<(), ax_errno::AxError>(())
/// ```
pub struct Serialized<D> {
    pub(crate) device: Mutex<D>,
}

impl<D> Serialized<D> {
    /// Puts `device` behind a lock.
    pub fn new(device: D) -> Self {
        Self {
            device: Mutex::new(device),
        }
    }

    /// The device, which nobody else can be in.
    pub fn get_mut(&mut self) -> &mut D {
        self.device.get_mut()
    }

    /// The device, out of its lock.
    pub fn into_inner(self) -> D {
        self.device.into_inner()
    }
}

impl<R: BusRange, D: BaseDeviceOps<R>> BaseDeviceOps<R> for Serialized<D> {
    fn emu_type(&self) -> EmulatedDeviceType {
        enter(&self.device).map_or(EmulatedDeviceType::Dummy, |device| device.emu_type())
    }

    fn address_range(&self) -> R {
        enter(&self.device).map_or(R::EMPTY, |device| device.address_range())
    }

    fn handle_read(&self, addr: R::Addr, width: AccessWidth) -> AxResult<usize> {
        enter(&self.device)?.handle_read(addr, width)
    }

    fn handle_write(&self, addr: R::Addr, width: AccessWidth, val: usize) -> AxResult {
        enter(&self.device)?.handle_write(addr, width, val)
    }
}

impl<D> fmt::Debug for Serialized<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serialized").finish_non_exhaustive()
    }
}

/// Takes the lock, or gives up after [`TRIES`].
#[inline]
pub(crate) fn enter<T>(lock: &Mutex<T>) -> AxResult<MutexGuard<'_, T>> {
    lock.try_lock().map_or_else(|| wait(lock), Ok)
}

#[cold]
fn wait<T>(lock: &Mutex<T>) -> AxResult<MutexGuard<'_, T>> {
    let backoff = Backoff::new();
    for _ in 0..TRIES {
        backoff.snooze();
        if let Some(guard) = lock.try_lock() {
            return Ok(guard);
        }
    }
    Err(AxError::ResourceBusy)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::cell::Cell;
    use std::thread;

    use axaddrspace::device::{Port, PortRange};

    use super::*;
    use crate::bus::sealed::Bus;

    const WIDTH: AccessWidth = AccessWidth::Dword;

    /// Counts its accesses in a way that loses some when two threads are in it.
    #[derive(Default)]
    struct Counter(Cell<usize>);

    impl BaseDeviceOps<PortRange> for Counter {
        fn emu_type(&self) -> EmulatedDeviceType {
            EmulatedDeviceType::Console
        }

        fn address_range(&self) -> PortRange {
            PortRange::new(Port(0), Port(3))
        }

        fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
            Ok(self.0.get())
        }

        fn handle_write(&self, _: Port, _: AccessWidth, val: usize) -> AxResult {
            let seen = self.0.get();
            thread::yield_now();
            self.0.set(seen + val);
            Ok(())
        }
    }

    #[test]
    fn no_two_threads_are_in_it_at_once() {
        const EACH: usize = if cfg!(miri) { 8 } else { 500 };
        let device = Serialized::new(Counter::default());
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    let write = || device.handle_write(Port(0), WIDTH, 1);
                    // A thread that waited in vain tries again.
                    (0..EACH).for_each(|_| while write().is_err() {});
                });
            }
        });
        assert_eq!(device.handle_read(Port(0), WIDTH), Ok(2 * EACH));
        assert_eq!(device.into_inner().0.get(), 2 * EACH);
    }

    #[test]
    fn a_busy_device_says_so() {
        let mut device = Serialized::new(Counter::default());
        let inside = device.device.lock();
        assert_eq!(
            device.handle_read(Port(0), WIDTH),
            Err(AxError::ResourceBusy)
        );
        assert_eq!(
            device.handle_write(Port(0), WIDTH, 1),
            Err(AxError::ResourceBusy)
        );
        assert_eq!(device.address_range(), PortRange::EMPTY);
        assert_eq!(
            BaseDeviceOps::<PortRange>::emu_type(&device),
            EmulatedDeviceType::Dummy
        );
        drop(inside);
        assert_eq!(device.address_range(), device.get_mut().address_range());
        assert_eq!(
            BaseDeviceOps::<PortRange>::emu_type(&device),
            EmulatedDeviceType::Console
        );
        assert_eq!(device.handle_read(Port(0), WIDTH), Ok(0));
    }
}
