//! Registries, and devices to put in them: one that notes how it is called, two made of
//! closures, one whose death is noted.

use std::{
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering::Release},
    },
    thread::{self, ThreadId},
};

use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, DeviceAddrRange, Port, PortRange};
use axdevice::{AxVmDevices, DeviceBound, DeviceId, Removed, SharedVmDevices, Snapshot, Unmapped};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::common::bus::{Bus, carried};

/// A registry that answers a miss with an error, whatever the features.
pub(crate) fn registry() -> AxVmDevices {
    AxVmDevices::default().with_unmapped(Unmapped::Error)
}

/// The same, for threads.
pub(crate) fn shared_registry() -> SharedVmDevices {
    SharedVmDevices::default().with_unmapped(Unmapped::Error)
}

/// Which device owns what, by address.
pub(crate) fn owners<R: Bus, B: DeviceBound>(snapshot: &Snapshot<B>) -> Vec<(DeviceId, R)> {
    let listed = R::listed(snapshot).into_iter();
    listed.map(|(id, range, _)| (id, range)).collect()
}

/// The device that a removal gives once it is quiescent, which it is by now.
pub(crate) fn device_of<R: Bus, B: DeviceBound>(removed: Removed<B>) -> Arc<B::Dev<R>> {
    let device = removed.wait(0).expect("no vCPU is left in the device");
    R::unwrapped(device).expect("it is on its own bus")
}

/// Sets a flag when it goes, so that whoever waits for the flag ends even where a test fails.
pub(crate) struct Sets<'a>(pub(crate) &'a AtomicBool);

impl Drop for Sets<'_> {
    fn drop(&mut self) {
        self.0.store(true, Release);
    }
}

/// How a device was called.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Call {
    pub(crate) device: usize,
    pub(crate) at: usize,
    pub(crate) width: AccessWidth,
    pub(crate) written: Option<usize>,
}

/// The calls of the devices that share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Journal(Arc<Mutex<Vec<Call>>>);

impl Journal {
    /// The calls since it was last asked.
    pub(crate) fn take(&self) -> Vec<Call> {
        std::mem::take(&mut *self.0.lock().unwrap())
    }

    fn note(&self, call: Call) {
        self.0.lock().unwrap().push(call);
    }
}

/// What a [`Recorder`] reads as, in all bits, whatever the width.
pub(crate) const fn answer(device: usize, at: usize) -> usize {
    (device + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at.rotate_left(29) ^ at
}

/// What a byte read of a [`Recorder`] gives.
pub(crate) fn read_of<R: Bus>(device: usize, at: usize) -> AxResult<usize> {
    Ok(carried::<R>(answer(device, at), AccessWidth::Byte))
}

/// A device that notes how it is called, in a [`Journal`].
pub(crate) struct Recorder<R> {
    number: usize,
    range: Mutex<R>,
    journal: Journal,
}

impl<R: Bus> Recorder<R> {
    pub(crate) fn new(number: usize, range: R, journal: &Journal) -> Arc<Self> {
        Arc::new(Self {
            number,
            range: range.into(),
            journal: journal.clone(),
        })
    }

    /// Gives the device another idea of its range.
    pub(crate) fn set_range(&self, range: R) {
        *self.range.lock().unwrap() = range;
    }

    /// One whose calls nobody reads.
    pub(crate) fn silent(number: usize, first: usize, last: usize) -> Arc<Self> {
        Self::new(number, R::covering(first, last), &Journal::default())
    }

    fn note(&self, addr: R::Addr, width: AccessWidth, written: Option<usize>) -> usize {
        let at = R::place(addr);
        self.journal.note(Call {
            device: self.number,
            at,
            width,
            written,
        });
        answer(self.number, at)
    }
}

impl<R: Bus> BaseDeviceOps<R> for Recorder<R> {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        *self.range.lock().unwrap()
    }

    fn handle_read(&self, addr: R::Addr, width: AccessWidth) -> AxResult<usize> {
        Ok(self.note(addr, width, None))
    }

    fn handle_write(&self, addr: R::Addr, width: AccessWidth, val: usize) -> AxResult {
        self.note(addr, width, Some(val));
        Ok(())
    }
}

/// A device that does what a closure says, which gets the address and what is written, if this is a
/// write.
pub(crate) struct Script<R, F> {
    range: R,
    act: F,
}

impl<R: Bus, F> Script<R, F>
where
    F: Fn(usize, Option<usize>) -> AxResult<usize> + 'static,
{
    pub(crate) fn new(first: usize, last: usize, act: F) -> Arc<Self> {
        Arc::new(Self::bare(first, last, act))
    }

    pub(crate) fn bare(first: usize, last: usize, act: F) -> Self {
        let range = R::covering(first, last);
        Self { range, act }
    }
}

impl<R: Bus, F> BaseDeviceOps<R> for Script<R, F>
where
    F: Fn(usize, Option<usize>) -> AxResult<usize> + 'static,
{
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        self.range
    }

    fn handle_read(&self, addr: <R as DeviceAddrRange>::Addr, _: AccessWidth) -> AxResult<usize> {
        (self.act)(R::place(addr), None)
    }

    fn handle_write(
        &self,
        addr: <R as DeviceAddrRange>::Addr,
        _: AccessWidth,
        val: usize,
    ) -> AxResult {
        (self.act)(R::place(addr), Some(val)).map(drop)
    }
}

/// A device that does what a closure says when it is asked for its range, which the closure gives.
pub(crate) struct Ranged<F>(pub(crate) F);

impl<R: Bus, F: Fn() -> R + 'static> BaseDeviceOps<R> for Ranged<F> {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        (self.0)()
    }

    fn handle_read(&self, _: <R as DeviceAddrRange>::Addr, _: AccessWidth) -> AxResult<usize> {
        Ok(1)
    }

    fn handle_write(&self, _: <R as DeviceAddrRange>::Addr, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}

/// The threads on which the devices that share it were dropped.
pub(crate) type Graves = Arc<Mutex<Vec<ThreadId>>>;

/// A device with eight ports that notes which thread drops it.
pub(crate) struct Mortal {
    first: u16,
    graves: Graves,
}

impl Mortal {
    pub(crate) fn new(first: u16, graves: &Graves) -> Arc<Self> {
        let graves = graves.clone();
        Arc::new(Self { first, graves })
    }
}

impl Drop for Mortal {
    fn drop(&mut self) {
        // In a test that has failed, a second panic would take the others down too.
        if let Ok(mut graves) = self.graves.lock() {
            graves.push(thread::current().id());
        }
    }
}

impl BaseDeviceOps<PortRange> for Mortal {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> PortRange {
        PortRange::new(Port(self.first), Port(self.first + 7))
    }

    fn handle_read(&self, port: Port, _: AccessWidth) -> AxResult<usize> {
        Ok(port.0.into())
    }

    fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
        Ok(())
    }
}
