//! What a registry holds: the two kinds of device object, device ids, a device on a bus.

use core::fmt;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice_base::BaseDeviceOps;

use crate::{
    arch::{
        guard::{Guard, Guarded},
        place::{Gate, Open},
    },
    bus::BusRange,
    serialized::Serialized,
    sync::{Arc, AtomicU64, Ordering},
    table::Mount,
};

/// Names one registration of a device. Never used again within its registry.
///
/// Ids grow in the order of registration. One that was handed out for a change which was then
/// refused is skipped.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct DeviceId(u64);

impl fmt::Display for DeviceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// Where a registry's [`DeviceId`]s come from.
#[derive(Debug)]
pub(crate) struct DeviceIds(AtomicU64);

impl DeviceIds {
    pub(crate) fn new() -> Self {
        Self(AtomicU64::new(1))
    }

    /// An id that was never given before.
    ///
    /// `Relaxed`: an id is only ever compared, and the read-modify-write alone makes it unique. The
    /// counter does not come round: at a billion ids a second that takes 584 years.
    pub(crate) fn next(&self) -> DeviceId {
        DeviceId(self.0.fetch_add(1, Ordering::Relaxed))
    }
}

/// What a registry demands of its devices: [`Unbound`] or [`ThreadSafe`].
///
/// Sealed: soundness rests on which device objects there are.
pub trait DeviceBound: sealed::Sealed + 'static {
    /// The device object on the bus with range type `R`.
    type Dev<R: BusRange>: ?Sized + BaseDeviceOps<R>;

    /// Holds a built-in device that any vCPU may call, and guards it from a dispatch.
    #[doc(hidden)]
    fn shared<R: BusRange, T, G>(device: T, guard: G) -> Mount<Self::Dev<R>>
    where
        T: BaseDeviceOps<R> + Send + Sync,
        G: Guard<R, T>;

    /// Holds a built-in device that is not `Sync`, and guards it from a dispatch, which enters it by
    /// one vCPU at a time; but in a registry of [`Unbound`] devices only where the guard says so.
    #[doc(hidden)]
    fn serialised<R: BusRange, T, G>(device: T, guard: G) -> Mount<Self::Dev<R>>
    where
        T: BaseDeviceOps<R> + Send,
        G: Guard<R, T>;
}

/// Devices as 0.4.10 takes them, `dyn BaseDeviceOps<R>`: neither `Send` nor `Sync`, and so neither
/// is the registry of them, [`AxVmDevices`](crate::AxVmDevices).
///
/// `find_*` and `iter_*` give a built-in device bare, so that it can be downcast; a lock that it
/// needs and its [guard](crate::guards) belong to the table entry, and stand before a dispatch alone.
///
/// An embedder that shares the registry between threads says that what it does with the devices does
/// not race. Of the built-in ones `handle_*` and a [`Dispatcher`](crate::Dispatcher) see to that: an
/// access takes the device's lock where its handler reaches state that the device does not
/// synchronise, and is not locked elsewhere ([guards](crate::guards#vcpus-in-one-device) says which is
/// which). The embedder still must not call the bare device meanwhile; of `VGicD` that means that
/// `assign_irq` is over before the first vCPU runs.
#[derive(Debug)]
pub enum Unbound {}

impl DeviceBound for Unbound {
    type Dev<R: BusRange> = dyn BaseDeviceOps<R>;

    fn shared<R: BusRange, T, G>(device: T, guard: G) -> Mount<Self::Dev<R>>
    where
        T: BaseDeviceOps<R> + Send + Sync,
        G: Guard<R, T>,
    {
        let device = Arc::new(device);
        Mount {
            handler: Arc::new(Guarded::new(Open(device.clone()), guard)),
            device,
        }
    }

    fn serialised<R: BusRange, T, G>(device: T, guard: G) -> Mount<Self::Dev<R>>
    where
        T: BaseDeviceOps<R> + Send,
        G: Guard<R, T>,
    {
        let device = Arc::new(device);
        Mount {
            handler: Arc::new(Guarded::new(Gate::new(device.clone()), guard)),
            device,
        }
    }
}

/// Devices that any vCPU's thread may call, `dyn BaseDeviceOps<R> + Send + Sync`, and so the
/// registry of them, [`SharedVmDevices`](crate::SharedVmDevices), is `Send + Sync`.
///
/// A built-in device that is not `Sync` is held as a [`Serialized`] one, which takes its lock for
/// every access; its [guard](crate::guards) belongs to the table entry, as in a registry of
/// [`Unbound`] devices.
#[derive(Debug)]
pub enum ThreadSafe {}

impl DeviceBound for ThreadSafe {
    type Dev<R: BusRange> = dyn BaseDeviceOps<R> + Send + Sync;

    fn shared<R: BusRange, T, G>(device: T, guard: G) -> Mount<Self::Dev<R>>
    where
        T: BaseDeviceOps<R> + Send + Sync,
        G: Guard<R, T>,
    {
        let device = Arc::new(device);
        Mount {
            handler: Arc::new(Guarded::new(Open(device.clone()), guard)),
            device,
        }
    }

    fn serialised<R: BusRange, T, G>(device: T, guard: G) -> Mount<Self::Dev<R>>
    where
        T: BaseDeviceOps<R> + Send,
        G: Guard<R, T>,
    {
        let device = Arc::new(Serialized::new(device));
        Mount {
            handler: Arc::new(Guarded::new(device.clone(), guard)),
            device,
        }
    }
}

/// A device on the bus that it is for, known at run time.
pub enum Device<B: DeviceBound> {
    /// A device in guest physical memory.
    Mmio(Arc<B::Dev<GuestPhysAddrRange>>),
    /// A system register device.
    SysReg(Arc<B::Dev<SysRegAddrRange>>),
    /// A port I/O device.
    Port(Arc<B::Dev<PortRange>>),
}

impl<B: DeviceBound> Clone for Device<B> {
    fn clone(&self) -> Self {
        match self {
            Self::Mmio(device) => Self::Mmio(device.clone()),
            Self::SysReg(device) => Self::SysReg(device.clone()),
            Self::Port(device) => Self::Port(device.clone()),
        }
    }
}

impl<B: DeviceBound> fmt::Debug for Device<B> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Mmio(_) => "Mmio(..)",
            Self::SysReg(_) => "SysReg(..)",
            Self::Port(_) => "Port(..)",
        })
    }
}

mod sealed {
    pub trait Sealed {}
    impl Sealed for super::Unbound {}
    impl Sealed for super::ThreadSafe {}
}

#[cfg(all(test, not(loom)))]
impl DeviceId {
    pub(crate) fn new(n: u64) -> Self {
        Self(n)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;

    #[test]
    fn ids_are_unique_and_grow() {
        let ids = DeviceIds::new();
        let (a, b) = (ids.next(), ids.next());
        assert!(a < b);
        assert_eq!(a.to_string(), "#1");
    }
}
