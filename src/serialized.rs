//! [`Serialized`]: a device that only one vCPU may enter at a time.

use core::fmt;

use ax_errno::AxResult;
use axaddrspace::device::AccessWidth;
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::{bus::BusRange, fair_lock::FairLock};

/// Wraps a device that is `Send` but not `Sync` in its own lock. Any vCPU may then call it.
///
/// The lock is held only while the device handles an access; it is also released when the device
/// returns an error or unwinds.
///
/// # Waiting
///
/// While one vCPU is inside the device, the accesses of other vCPUs wait, without a time limit, and enter in order of
/// arrival. On hosted targets waiting vCPUs sleep; on bare metal they spin.
///
/// Two serialized devices whose handlers access each other can deadlock when a vCPU is inside each of them, as with any
/// two locks. Access such devices in a fixed order.
///
/// # Errors
///
/// [`ResourceBusy`](ax_errno::AxError::ResourceBusy), immediately, if the same thread is already inside the device: its
/// handler reached it again, directly or through other devices. On bare metal this is detected only if
/// [`set_context_id`](crate::set_context_id) was called; otherwise such an access waits for itself forever, as with any
/// spinlock. No access fails because another vCPU is inside.
///
/// # Interrupt handlers
///
/// On bare metal an interrupt handler must not dispatch to a serialized device: the interrupted context may be inside
/// the device, or first in its queue.
///
/// # Ranges
///
/// `address_range` and `emu_type` enter the device too, and wait like an access. From inside the device's own handler,
/// where an access is an error, they return an *empty* range, which every registry refuses, and
/// [`Dummy`](EmulatedDeviceType::Dummy). A registry reads the range when the device is added, never in a dispatch.
///
/// # Examples
///
/// ```
/// use std::{cell::Cell, sync::Arc};
///
/// use axdevice::{
///     AccessWidth, AxResult, BaseDeviceOps, EmulatedDeviceType, Port, PortRange, Serialized,
///     SharedVmDevices,
/// };
///
/// struct Counter(Cell<usize>);
///
/// impl BaseDeviceOps<PortRange> for Counter {
///     fn emu_type(&self) -> EmulatedDeviceType {
///         EmulatedDeviceType::Dummy
///     }
///
///     fn address_range(&self) -> PortRange {
///         PortRange::new(Port(0x70), Port(0x70))
///     }
///
///     fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
///         Ok(self.0.replace(self.0.get() + 1))
///     }
///
///     fn handle_write(&self, _: Port, _: AccessWidth, val: usize) -> AxResult {
///         self.0.set(val);
///         Ok(())
///     }
/// }
///
/// let devices = SharedVmDevices::default();
/// devices.add_port_dev(Arc::new(Serialized::new(Counter(Cell::new(7)))))?;
/// assert_eq!(devices.handle_port_read(Port(0x70), AccessWidth::Byte), Ok(7));
/// # Ok::<(), axdevice::AxError>(())
/// ```
pub struct Serialized<D> {
    pub(crate) device: FairLock<D>,
}

impl<D> Serialized<D> {
    /// Puts `device` behind a lock.
    pub fn new(device: D) -> Self {
        Self {
            device: FairLock::new(device),
        }
    }

    /// Calls `work` with the device while no other vCPU is in it, for example to set up a device that
    /// [`find_mmio_dev`](crate::VmDevices::find_mmio_dev) has returned.
    ///
    /// # Errors
    ///
    /// [`ResourceBusy`](ax_errno::AxError::ResourceBusy) if the calling context is inside the device already.
    ///
    /// # Examples
    ///
    /// ```
    /// use std::cell::Cell;
    ///
    /// use axdevice::Serialized;
    ///
    /// let counter = Serialized::new(Cell::new(7));
    /// counter.enter(|counter| counter.set(8))?;
    /// assert_eq!(counter.into_inner().get(), 8);
    /// # Ok::<(), ax_errno::AxError>(())
    /// ```
    pub fn enter<T>(&self, work: impl FnOnce(&D) -> T) -> AxResult<T> {
        self.device.enter().map(|device| work(&device))
    }

    /// Returns the device. The exclusive borrow excludes all other accesses.
    pub fn get_mut(&mut self) -> &mut D {
        self.device.get_mut()
    }

    /// Returns the device without its lock.
    pub fn into_inner(self) -> D {
        self.device.into_inner()
    }
}

impl<R: BusRange, D: BaseDeviceOps<R>> BaseDeviceOps<R> for Serialized<D> {
    fn emu_type(&self) -> EmulatedDeviceType {
        self.device
            .enter()
            .map_or(EmulatedDeviceType::Dummy, |device| device.emu_type())
    }

    fn address_range(&self) -> R {
        self.device
            .enter()
            .map_or(R::EMPTY, |device| device.address_range())
    }

    fn handle_read(&self, addr: R::Addr, width: AccessWidth) -> AxResult<usize> {
        self.device.enter()?.handle_read(addr, width)
    }

    fn handle_write(&self, addr: R::Addr, width: AccessWidth, val: usize) -> AxResult {
        self.device.enter()?.handle_write(addr, width, val)
    }
}

impl<D> fmt::Debug for Serialized<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Serialized").finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::cell::Cell;
    use std::thread;

    use ax_errno::AxError;
    use axaddrspace::device::{Port, PortRange};

    use super::*;
    use crate::bus::sealed::Bus;

    const WIDTH: AccessWidth = AccessWidth::Dword;

    /// Counts its accesses, and loses some if two threads are inside it.
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
        const EACH: usize = support::size(500, 8);
        let device = Serialized::new(Counter::default());
        thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    for _ in 0..EACH {
                        assert_eq!(device.handle_write(Port(0), WIDTH, 1), Ok(()));
                    }
                });
            }
        });
        assert_eq!(device.handle_read(Port(0), WIDTH), Ok(2 * EACH));
        assert_eq!(device.into_inner().0.get(), 2 * EACH);
    }

    #[test]
    fn from_inside_it_an_access_is_an_error_and_the_range_is_empty() {
        let mut device = Serialized::new(Counter::default());
        let busy = Err(AxError::ResourceBusy);
        let inside = device.device.enter().unwrap();
        assert_eq!(device.handle_read(Port(0), WIDTH), busy);
        assert_eq!(device.handle_write(Port(0), WIDTH, 1), busy.map(drop));
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

    #[test]
    fn from_another_thread_an_access_waits() {
        let device = Serialized::new(Counter::default());
        let inside = device.device.enter().unwrap();
        thread::scope(|scope| {
            let write = scope.spawn(|| device.handle_write(Port(0), WIDTH, 1));
            let range = scope.spawn(|| device.address_range());
            while device.device.waiting() < 2 {
                thread::yield_now();
            }
            assert_eq!(inside.0.get(), 0);
            drop(inside);
            assert_eq!(write.join().unwrap(), Ok(()));
            assert_eq!(range.join().unwrap(), PortRange::new(Port(0), Port(3)));
        });
        assert_eq!(device.into_inner().0.get(), 1);
    }
}
