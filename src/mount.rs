//! [`Mount`]: a device and the handler that a dispatch calls, such as a built-in device and its guard.

use core::fmt;

use axdevice_base::BaseDeviceOps;

use crate::{
    bus::{BusRange, DeviceBound, Entry},
    guards::{
        enter::{Locked, Unlocked},
        guard::{Guard, Guarded},
    },
    serialized::Serialized,
    sync::Arc,
};

/// A device, and the handlers that a dispatch calls.
pub(crate) struct Mount<D: ?Sized> {
    pub(crate) device: Arc<D>,
    pub(crate) handler: Arc<D>,
}

impl<D: ?Sized> Mount<D> {
    /// A device that is called directly.
    pub(crate) fn bare(device: Arc<D>) -> Self {
        Self {
            handler: device.clone(),
            device,
        }
    }

    fn of([device, handler]: [Arc<D>; 2]) -> Self {
        Self { device, handler }
    }

    /// Returns the registration of the device.
    pub(crate) fn registered<R, B>(self, name: Option<Arc<str>>) -> busmap::Device<B::Handlers>
    where
        R: BusRange,
        B: DeviceBound<Dev<R> = D>,
    {
        let entry = Entry::new(name, R::device(self.device));
        busmap::Device::new(entry).on::<R::Bus>(R::handler::<B>(self.handler))
    }
}

impl<D: ?Sized> fmt::Debug for Mount<D> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Mount").finish_non_exhaustive()
    }
}

/// A built-in device that any vCPU may call, and its guard.
pub(crate) fn shared<B: DeviceBound, R: BusRange, T, G>(device: T, guard: G) -> Mount<B::Dev<R>>
where
    T: BaseDeviceOps<R> + Send + Sync,
    G: Guard<R, T>,
{
    let device = Arc::new(device);
    let handler = Arc::new(Guarded::new(Unlocked(device.clone()), guard));
    let (bare, guarded) = (device.clone(), handler.clone());
    Mount::of(B::pick(|| [bare, guarded], || [device, handler]))
}

/// A built-in device that is not `Sync`, and its guard. One vCPU at a time may be in the device; in a
/// registry of [`Unbound`](crate::Unbound) devices, only for the accesses for which the guard requires it.
pub(crate) fn serialized<B: DeviceBound, R: BusRange, T, G>(device: T, guard: G) -> Mount<B::Dev<R>>
where
    T: BaseDeviceOps<R> + Send,
    G: Guard<R, T>,
{
    // Only one of the two closures is called.
    let parts = core::cell::Cell::new(Some((device, guard)));
    let parts = || parts.take().expect("one is called, once");
    Mount::of(B::pick(
        || {
            let (device, guard) = parts();
            let device = Arc::new(device);
            let locked = Locked::new(device.clone());
            [device, Arc::new(Guarded::new(locked, guard))]
        },
        || {
            let (device, guard) = parts();
            let device = Arc::new(Serialized::new(device));
            let handler = Arc::new(Guarded::new(device.clone(), guard));
            [device, handler]
        },
    ))
}

#[cfg(all(test, not(loom)))]
mod tests {
    use core::{any::Any, cell::Cell};

    use ax_errno::AxResult;
    use axaddrspace::device::{AccessWidth, Port, PortRange};
    use axvmconfig::EmulatedDeviceType;

    use super::*;
    use crate::bus::{ThreadSafe, Unbound};

    /// `Send`, and not `Sync`.
    struct Idle(Cell<usize>);

    impl BaseDeviceOps<PortRange> for Idle {
        fn emu_type(&self) -> EmulatedDeviceType {
            EmulatedDeviceType::Dummy
        }

        fn address_range(&self) -> PortRange {
            PortRange::new(Port(7), Port(7))
        }

        fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
            Ok(self.0.get())
        }

        fn handle_write(&self, _: Port, _: AccessWidth, _: usize) -> AxResult {
            Ok(())
        }
    }

    #[test]
    fn an_unbound_registry_holds_the_device_bare_and_the_handler_locked() {
        let mount = serialized::<Unbound, PortRange, _, _>(Idle(Cell::new(7)), ());
        let any: Arc<dyn Any> = mount.device;
        assert!(any.is::<Idle>());
        let any: Arc<dyn Any> = mount.handler;
        assert!(any.is::<Guarded<Locked<Idle>, ()>>());
    }

    #[test]
    fn a_shared_registry_holds_the_device_serialized() {
        let mount = serialized::<ThreadSafe, PortRange, _, _>(Idle(Cell::new(7)), ());
        let any: Arc<dyn Any> = mount.device;
        assert!(any.is::<Serialized<Idle>>());
    }
}
