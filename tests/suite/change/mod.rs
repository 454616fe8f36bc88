//! Changes of a registry that is in use, one by one and several at once.

use std::{
    cell::Cell,
    sync::{Arc, OnceLock, Weak},
};

use ax_errno::AxResult;
use axdevice::{DeviceId, Serialized, SharedVmDevices};
use support::{Access, Bus, Device, shared_registry};

mod ids;
mod maps;
mod moves;
mod reindex;
mod removal;
mod updates;

/// The way in which a BAR is moved.
#[derive(Clone, Copy)]
pub(super) enum By {
    /// By `move_to`, before the device changes its own range.
    MoveTo,
    /// By `reindex`, after the device has changed its own range.
    Reindex,
}

/// The state of a device with a BAR.
struct Bar {
    devices: Weak<SharedVmDevices>,
    id: Arc<OnceLock<DeviceId>>,
    first: Cell<usize>,
}

impl Bar {
    /// Writes the BAR.
    fn set<R: Bus>(&self, first: usize, by: By) -> AxResult {
        let devices = self.devices.upgrade().unwrap();
        let id = *self.id.get().unwrap();
        match by {
            By::MoveTo => {
                devices.move_to(id, sixteen::<R>(first))?;
                self.first.set(first);
            }
            By::Reindex => {
                let old = self.first.replace(first);
                let moved = devices.reindex(id);
                moved.inspect_err(|_| self.first.set(old))?;
            }
        }
        Ok(())
    }
}

/// A registry with a device at `0x10..=0x1f`. A value written to it becomes the first of its sixteen addresses,
/// if possible; it reads as the offset.
pub(super) fn with_bar<R: Bus>(by: By) -> (Arc<SharedVmDevices>, DeviceId) {
    let devices = Arc::new(shared_registry());
    let id = Arc::new(OnceLock::new());
    let bar = Bar {
        devices: Arc::downgrade(&devices),
        id: id.clone(),
        first: 0x10.into(),
    };
    let range = |bar: &Bar| sixteen::<R>(bar.first.get());
    let act = move |bar: &Bar, Access { at, written, .. }| match written {
        Some(first) => bar.set::<R>(first, by).map(|()| 0),
        None => Ok(at.wrapping_sub(bar.first.get())),
    };
    let device = Serialized::new(Device::new(bar, range, act));
    let added = R::add(&*devices, Arc::new(device)).unwrap();
    id.set(added).unwrap();
    (devices, added)
}

/// The sixteen addresses from `first` on.
fn sixteen<R: Bus>(first: usize) -> R {
    R::covering(first, first + 15)
}
