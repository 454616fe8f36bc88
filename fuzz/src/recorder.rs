//! [`Recorder`]: a device that notes how it is called and when it goes.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use ax_errno::{AxError, AxResult};
use axaddrspace::device::AccessWidth;
use axdevice::Serialized;
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::{bus::Bus, on::Dev};

/// How a device was called.
#[derive(Clone, Debug, PartialEq)]
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
}

/// What is known of a device from outside.
#[derive(Debug)]
pub(crate) struct Known {
    number: usize,
    /// The range that the device gives, in its bus's own terms.
    range: Mutex<(usize, usize)>,
    drops: AtomicUsize,
}

impl Known {
    pub(crate) fn set_range(&self, start: usize, end: usize) {
        *self.range.lock().unwrap() = (start, end);
    }

    pub(crate) fn drops(&self) -> usize {
        self.drops.load(Relaxed)
    }
}

/// What a device gives, in all bits, whatever the width. Some give nothing but errors.
pub(crate) fn answer(device: usize, at: usize) -> AxResult<usize> {
    if device % 8 == 5 {
        return Err(AxError::Io);
    }
    Ok((device + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ at.rotate_left(29) ^ at)
}

struct Recorder {
    known: Arc<Known>,
    journal: Journal,
}

/// A device that gives this range, some behind a lock of their own.
pub(crate) fn recorder<R: Bus>(
    number: usize,
    (start, end): (usize, usize),
    journal: &Journal,
) -> (Arc<Known>, Arc<Dev<R>>) {
    let known = Arc::new(Known {
        number,
        range: Mutex::new((start, end)),
        drops: AtomicUsize::new(0),
    });
    let recorder = Recorder {
        known: known.clone(),
        journal: journal.clone(),
    };
    let device: Arc<Dev<R>> = match number % 4 {
        3 => Arc::new(Serialized::new(recorder)),
        _ => Arc::new(recorder),
    };
    (known, device)
}

impl Recorder {
    fn called(&self, at: usize, width: AccessWidth, written: Option<usize>) -> AxResult<usize> {
        let device = self.known.number;
        assert_eq!(self.known.drops(), 0, "a device that is gone was called");
        self.journal.0.lock().unwrap().push(Call {
            device,
            at,
            width,
            written,
        });
        answer(device, at)
    }
}

impl<R: Bus> BaseDeviceOps<R> for Recorder {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        let (start, end) = *self.known.range.lock().unwrap();
        R::raw(start, end)
    }

    fn handle_read(&self, addr: R::Addr, width: AccessWidth) -> AxResult<usize> {
        self.called(R::place(addr), width, None)
    }

    fn handle_write(&self, addr: R::Addr, width: AccessWidth, val: usize) -> AxResult {
        self.called(R::place(addr), width, Some(val)).map(drop)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.known.drops.fetch_add(1, Relaxed);
    }
}
