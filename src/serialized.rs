//! [`Serialized`]: a device that only one vCPU may enter at a time.

use core::fmt;

use ax_errno::{AxError, AxResult};
use axaddrspace::device::AccessWidth;
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use crossbeam_utils::Backoff;

use crate::{
    bus::BusRange,
    sync::{Arc, Mutex, MutexGuard},
};

/// How often a caller looks whether the device is free, pausing longer each time up to 1,024 spins
/// or, on hosted targets, a yield to the scheduler: some tenths of a second in all, so that a vCPU
/// which the host has preempted inside the device gets out in time.
const TRIES: usize = if cfg!(any(miri, test)) { 200 } else { 1 << 17 };

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
/// own handler, or an interrupt handler that interrupted it on the same CPU.
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
    device: Mutex<D>,
}

impl<D> Serialized<D> {
    /// Puts `device` behind a lock.
    pub const fn new(device: D) -> Self {
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

/// Serialises the accesses that a dispatch makes to a device which others hold bare.
pub(crate) struct Gate<D> {
    lock: Mutex<()>,
    device: Arc<D>,
}

impl<D> Gate<D> {
    pub(crate) fn new(device: Arc<D>) -> Self {
        Self {
            lock: Mutex::new(()),
            device,
        }
    }
}

impl<R: BusRange, D: BaseDeviceOps<R>> BaseDeviceOps<R> for Gate<D> {
    fn emu_type(&self) -> EmulatedDeviceType {
        self.device.emu_type()
    }

    fn address_range(&self) -> R {
        self.device.address_range()
    }

    fn handle_read(&self, addr: R::Addr, width: AccessWidth) -> AxResult<usize> {
        let _entered = enter(&self.lock)?;
        self.device.handle_read(addr, width)
    }

    fn handle_write(&self, addr: R::Addr, width: AccessWidth, val: usize) -> AxResult {
        let _entered = enter(&self.lock)?;
        self.device.handle_write(addr, width, val)
    }
}

/// Takes the lock, or gives up after [`TRIES`].
#[inline]
fn enter<T>(lock: &Mutex<T>) -> AxResult<MutexGuard<'_, T>> {
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
