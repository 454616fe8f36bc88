//! [`Place`]: where a built-in device is, and how a dispatch enters it.

use ax_errno::AxResult;

use crate::{
    serialized::{Serialized, enter},
    sync::{Arc, Mutex},
};

/// Where a device is, and how it is entered.
pub(crate) trait Place {
    /// What is there.
    type Device;

    /// Does `work` in the device, under its lock if it has one.
    ///
    /// # Errors
    ///
    /// [`ResourceBusy`](ax_errno::AxError::ResourceBusy) if the device stays busy, or what `work` gives.
    fn enter<T>(&self, work: impl FnOnce(&Self::Device) -> AxResult<T>) -> AxResult<T>;
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

impl<D> Place for Gate<D> {
    type Device = D;

    #[inline]
    fn enter<T>(&self, work: impl FnOnce(&D) -> AxResult<T>) -> AxResult<T> {
        let _entered = enter(&self.lock)?;
        work(&self.device)
    }
}

impl<D> Place for Arc<Serialized<D>> {
    type Device = D;

    #[inline]
    fn enter<T>(&self, work: impl FnOnce(&D) -> AxResult<T>) -> AxResult<T> {
        work(&*enter(&self.device)?)
    }
}

/// A device that any vCPU may call.
pub(crate) struct Open<D>(pub(crate) Arc<D>);

impl<D> Place for Open<D> {
    type Device = D;

    #[inline]
    fn enter<T>(&self, work: impl FnOnce(&D) -> AxResult<T>) -> AxResult<T> {
        work(&self.0)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use std::sync::{OnceLock, Weak};

    use ax_errno::AxError;
    use axaddrspace::device::{AccessWidth, Port, PortRange};
    use axdevice_base::BaseDeviceOps;
    use axvmconfig::EmulatedDeviceType;

    use super::*;
    use crate::{
        arch::guard::Guarded,
        device::{DeviceBound, Unbound},
    };

    const WIDTH: AccessWidth = AccessWidth::Dword;

    /// Enters what dispatches to it again.
    #[derive(Default)]
    struct Reenters(OnceLock<Weak<Handler>>);

    type Handler = dyn BaseDeviceOps<PortRange> + Send + Sync;

    impl BaseDeviceOps<PortRange> for Reenters {
        fn emu_type(&self) -> EmulatedDeviceType {
            EmulatedDeviceType::Dummy
        }

        fn address_range(&self) -> PortRange {
            PortRange::new(Port(7), Port(7))
        }

        fn handle_read(&self, port: Port, width: AccessWidth) -> AxResult<usize> {
            self.0
                .get()
                .unwrap()
                .upgrade()
                .unwrap()
                .handle_read(port, width)
        }

        fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
            Ok(())
        }
    }

    #[test]
    fn a_gate_guards_the_dispatch_and_not_the_device() {
        let bare = Arc::new(Reenters::default());
        let handler: Arc<Handler> = Arc::new(Guarded::new(Gate::new(bare.clone()), ()));
        bare.0.set(Arc::downgrade(&handler)).unwrap();
        assert_eq!(
            handler.handle_read(Port(7), WIDTH),
            Err(AxError::ResourceBusy)
        );
        assert_eq!(handler.handle_write(Port(7), WIDTH, 0), Ok(()));
        assert_eq!(handler.address_range(), bare.address_range());
    }

    #[test]
    fn an_unbound_registry_holds_the_device_bare_and_the_handler_gated() {
        let mount = Unbound::serialised::<PortRange, _, _>(Reenters::default(), ());
        let any: Arc<dyn core::any::Any> = mount.device;
        assert!(any.is::<Reenters>());
        let any: Arc<dyn core::any::Any> = mount.handler;
        assert!(any.is::<Guarded<Gate<Reenters>, ()>>());
    }
}
