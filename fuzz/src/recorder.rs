//! [`recorder`]: a device that records its calls and its drop.

use std::sync::{
    Arc, Mutex,
    atomic::{AtomicUsize, Ordering::Relaxed},
};

use ax_errno::{AxError, AxResult};
use axdevice::Serialized;
use support::{Access, Bus, Device, Journal};

use crate::on::Dev;

/// The state of a device that outlives it.
#[derive(Debug)]
pub(crate) struct Known {
    number: usize,
    /// The range that the device reports, in its bus's own terms.
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

/// The value that a device reads as, in all bits, regardless of the width. Some devices return only errors.
pub(crate) fn answer(device: usize, at: usize) -> AxResult<usize> {
    if device % 8 == 5 {
        return Err(AxError::Io);
    }
    Ok(support::answer(device, at))
}

/// The state of a device.
struct Recorder {
    known: Arc<Known>,
    journal: Journal,
}

/// A device that reports this range. Some devices have their own lock.
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
    let device = Device::new(recorder, Recorder::range::<R>, Recorder::called);
    let device: Arc<Dev<R>> = match number % 4 {
        3 => Arc::new(Serialized::new(device)),
        _ => Arc::new(device),
    };
    (known, device)
}

impl Recorder {
    fn range<R: Bus>(&self) -> R {
        let (start, end) = *self.known.range.lock().unwrap();
        R::raw(start, end)
    }

    fn called(&self, access: Access) -> AxResult<usize> {
        let device = self.known.number;
        assert_eq!(self.known.drops(), 0, "a device that is gone was called");
        self.journal.record(device, access);
        answer(device, access.at)
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.known.drops.fetch_add(1, Relaxed);
    }
}
