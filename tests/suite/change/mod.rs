//! Changes of a registry that is in use, one by one and several at once.

use std::{
    cell::Cell,
    marker::PhantomData,
    sync::{Arc, OnceLock, Weak},
};

use ax_errno::AxResult;
use axaddrspace::device::AccessWidth;
use axdevice::{DeviceId, Serialized, SharedVmDevices};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

use crate::common::{bus::Bus, device::shared_registry};

mod ids;
mod maps;
mod moves;
mod reindex;
mod removal;
mod updates;

/// How a BAR is moved.
#[derive(Clone, Copy)]
pub(super) enum By {
    /// By saying where to, before it changes its own idea of its range.
    MoveTo,
    /// By having the registry ask, after that.
    Reindex,
}

/// A device with a BAR: what is written to it becomes the first of its sixteen addresses, if it can.
struct Bar<R> {
    devices: Weak<SharedVmDevices>,
    id: Arc<OnceLock<DeviceId>>,
    first: Cell<usize>,
    by: By,
    bus: PhantomData<R>,
}

/// A registry with a [`Bar`] at `0x10..=0x1f`.
pub(super) fn with_bar<R: Bus + Send>(by: By) -> (Arc<SharedVmDevices>, DeviceId) {
    let devices = Arc::new(shared_registry());
    let id = Arc::new(OnceLock::new());
    let bar = Bar::<R> {
        devices: Arc::downgrade(&devices),
        id: id.clone(),
        first: 0x10.into(),
        by,
        bus: PhantomData,
    };
    let added = R::add(&*devices, Arc::new(Serialized::new(bar))).unwrap();
    id.set(added).unwrap();
    (devices, added)
}

/// The sixteen addresses from `first` on.
fn sixteen<R: Bus>(first: usize) -> R {
    R::covering(first, first + 15)
}

impl<R: Bus> BaseDeviceOps<R> for Bar<R> {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> R {
        sixteen(self.first.get())
    }

    fn handle_read(&self, addr: R::Addr, _: AccessWidth) -> AxResult<usize> {
        Ok(R::place(addr).wrapping_sub(self.first.get()))
    }

    fn handle_write(&self, _: R::Addr, _: AccessWidth, first: usize) -> AxResult {
        let devices = self.devices.upgrade().unwrap();
        let id = *self.id.get().unwrap();
        match self.by {
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
