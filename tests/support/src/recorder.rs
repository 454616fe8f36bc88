//! [`Recorder`]: a device that records how it is called.

use std::{
    mem,
    sync::{Arc, Mutex},
};

use ax_errno::AxResult;
use axaddrspace::device::AccessWidth;
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::{
    bus::{Bus, carried},
    device::Access,
};

/// One call of a device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Call {
    /// The number of the device.
    pub device: usize,
    /// The address.
    pub at: usize,
    /// The width of the access.
    pub width: AccessWidth,
    /// The value that is written; `None` for a read.
    pub written: Option<usize>,
}

/// The calls of the devices that share it.
#[derive(Clone, Debug, Default)]
pub struct Journal(Arc<Mutex<Vec<Call>>>);

impl Journal {
    /// The calls since the last `take`.
    pub fn take(&self) -> Vec<Call> {
        mem::take(&mut *self.0.lock().unwrap())
    }

    /// Records that a device gets an access.
    pub fn record(&self, device: usize, access: Access) {
        let Access { at, width, written } = access;
        self.0.lock().unwrap().push(Call {
            device,
            at,
            width,
            written,
        });
    }
}

/// The value of a read of a [`Recorder`], in all bits, regardless of the width.
pub const fn answer(device: usize, at: usize) -> usize {
    (device + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at.rotate_left(29) ^ at
}

/// The result of a byte read of a [`Recorder`].
pub fn read_of<R: Bus>(device: usize, at: usize) -> AxResult<usize> {
    Ok(carried::<R>(answer(device, at), AccessWidth::Byte))
}

/// A device that records how it is called, in a [`Journal`].
#[derive(Debug)]
pub struct Recorder<R> {
    number: usize,
    range: Mutex<R>,
    journal: Journal,
}

impl<R: Bus> Recorder<R> {
    /// Device `number`, at a range.
    pub fn new(number: usize, range: R, journal: &Journal) -> Arc<Self> {
        Arc::new(Self {
            number,
            range: range.into(),
            journal: journal.clone(),
        })
    }

    /// Device `number`, at the addresses `first ..= last`, with a journal that no test reads.
    pub fn silent(number: usize, first: usize, last: usize) -> Arc<Self> {
        Self::new(number, R::covering(first, last), &Journal::default())
    }

    /// Changes the range that the device returns.
    pub fn set_range(&self, range: R) {
        *self.range.lock().unwrap() = range;
    }

    fn record(&self, access: Access) -> usize {
        self.journal.record(self.number, access);
        answer(self.number, access.at)
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
        Ok(self.record(Access::read::<R>(addr, width)))
    }

    fn handle_write(&self, addr: R::Addr, width: AccessWidth, val: usize) -> AxResult {
        self.record(Access::write::<R>(addr, width, val));
        Ok(())
    }
}
