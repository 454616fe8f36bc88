//! [`Enter`]: where a built-in device is, and how a dispatch enters it.

use ax_errno::AxResult;

use crate::{fair_lock::FairLock, serialized::Serialized, sync::Arc};

/// The accesses that may be in a device at the same time.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Occupancy {
    /// One vCPU: the access reaches state that the device does not synchronise, or reads a register
    /// in order to write it back.
    Alone,
    /// Any number of vCPUs, each with an access that is safe beside the others.
    Shared,
}

/// A way to enter a device, with or without a lock.
pub(crate) trait Enter {
    /// The device.
    type Device;

    /// Calls `work` with the device. `decide` returns the occupancy and the argument of `work`, and does not access
    /// the device. At any time, at most one access that entered [`Alone`](Occupancy::Alone) is in the device.
    ///
    /// # Errors
    ///
    /// [`ResourceBusy`](ax_errno::AxError::ResourceBusy) if this context is in the device already and
    /// would deadlock; the errors of `work`.
    fn enter_as<V, T>(
        &self,
        decide: impl FnOnce() -> (Occupancy, V),
        work: impl FnOnce(&Self::Device, V) -> AxResult<T>,
    ) -> AxResult<T>;

    /// [`enter_as`](Self::enter_as) for an access that needs no decision.
    ///
    /// # Errors
    ///
    /// As [`enter_as`](Self::enter_as).
    #[inline]
    fn enter<T>(
        &self,
        occupancy: Occupancy,
        work: impl FnOnce(&Self::Device) -> AxResult<T>,
    ) -> AxResult<T> {
        self.enter_as(|| (occupancy, ()), |device, ()| work(device))
    }
}

/// A device that others can reach without this lock, and a lock for the accesses of a dispatch that must be
/// alone.
///
/// It is `Sync` only if the device is. A registry of devices that are not `Sync` is not `Sync` either. If
/// its embedder shares it nevertheless, only this lock separates vCPUs, and nothing does for an access that
/// a guard makes [`Shared`](Occupancy::Shared).
pub(crate) struct Locked<D> {
    lock: FairLock<()>,
    device: Arc<D>,
}

impl<D> Locked<D> {
    pub(crate) fn new(device: Arc<D>) -> Self {
        Self {
            lock: FairLock::new(()),
            device,
        }
    }
}

impl<D> Enter for Locked<D> {
    type Device = D;

    #[inline]
    fn enter_as<V, T>(
        &self,
        decide: impl FnOnce() -> (Occupancy, V),
        work: impl FnOnce(&D, V) -> AxResult<T>,
    ) -> AxResult<T> {
        match decide() {
            (Occupancy::Alone, decided) => {
                let _entered = self.lock.enter()?;
                work(&self.device, decided)
            }
            (Occupancy::Shared, decided) => work(&self.device, decided),
        }
    }
}

/// One vCPU at a time for every access: safe code can share a device that is not `Sync`.
impl<D> Enter for Arc<Serialized<D>> {
    type Device = D;

    #[inline]
    fn enter_as<V, T>(
        &self,
        decide: impl FnOnce() -> (Occupancy, V),
        work: impl FnOnce(&D, V) -> AxResult<T>,
    ) -> AxResult<T> {
        let device = self.device.enter()?;
        // Called with the lock held: the decision need not be kept during the wait.
        let (_, decided) = decide();
        work(&device, decided)
    }
}

/// A device that any vCPU may call.
pub(crate) struct Unlocked<D>(pub(crate) Arc<D>);

impl<D> Enter for Unlocked<D> {
    type Device = D;

    #[inline]
    fn enter_as<V, T>(
        &self,
        decide: impl FnOnce() -> (Occupancy, V),
        work: impl FnOnce(&D, V) -> AxResult<T>,
    ) -> AxResult<T> {
        let (_, decided) = decide();
        work(&self.0, decided)
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
    use crate::guards::guard::Guarded;

    const WIDTH: AccessWidth = AccessWidth::Dword;

    /// A device with a handler that dispatches to the same device again.
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
        let handler: Arc<Handler> = Arc::new(Guarded::new(Locked::new(bare.clone()), ()));
        bare.0.set(Arc::downgrade(&handler)).unwrap();
        assert_eq!(
            handler.handle_read(Port(7), WIDTH),
            Err(AxError::ResourceBusy)
        );
        assert_eq!(handler.handle_write(Port(7), WIDTH, 0), Ok(()));
        assert_eq!(handler.address_range(), bare.address_range());
    }

    #[test]
    fn a_gate_shuts_out_only_a_second_access_that_must_be_alone() {
        let gate = Locked::new(Arc::new(7));
        let enter = |occupancy| gate.enter(occupancy, |device| Ok(*device));
        let inside = |occupancy| {
            let entered = gate.enter(occupancy, |_| {
                Ok((enter(Occupancy::Alone), enter(Occupancy::Shared)))
            });
            entered.unwrap()
        };
        assert_eq!(inside(Occupancy::Shared), (Ok(7), Ok(7)));
        assert_eq!(
            inside(Occupancy::Alone),
            (Err(AxError::ResourceBusy), Ok(7))
        );
    }

    #[test]
    fn a_serialized_device_is_always_entered_alone() {
        let device = Arc::new(Serialized::new(7));
        for occupancy in [Occupancy::Alone, Occupancy::Shared] {
            let again = device.enter(occupancy, |_| Ok(device.enter(occupancy, |_| Ok(()))));
            assert_eq!(again, Ok(Err(AxError::ResourceBusy)));
        }
    }
}
