//! [`VcpuDevices`]: a vCPU's own handle of the devices.

use core::ops::Deref;

use axdevice_base::{DeviceAccess, DeviceResult, GuestMemoryAccess};
use busmap::{Bus, Direction, Hit, Miss, Registry, Vcpu};

use crate::{
    Devices, Handled,
    access::{self, Lookup},
};

/// A vCPU's own handle of the devices. It replaces the lock and the clone of an `Arc` that axvm 0.8.5 takes in every
/// exit.
///
/// `V` always dereferences to the same devices: a reference, or an `Arc`.
///
/// The handle holds the tables of its last access, and so keeps removed devices alive. A vCPU that leaves its run loop,
/// or waits for a long time, should [park](Self::park) its handle.
pub struct VcpuDevices<V: Deref<Target = Devices> + Clone> {
    vcpu: Vcpu<Core<V>>,
    devices: V,
}

/// Dereferences to the registry.
struct Core<V>(V);

impl<V: Deref<Target = Devices>> Deref for Core<V> {
    type Target = Registry<Handled>;

    #[inline(always)]
    fn deref(&self) -> &Self::Target {
        &self.0.registry
    }
}

impl<V: Deref<Target = Devices> + Clone> VcpuDevices<V> {
    /// A parked handle.
    pub fn new(devices: V) -> Self {
        Self {
            vcpu: Vcpu::new(Core(devices.clone())),
            devices,
        }
    }

    /// As [`Devices::try_read`].
    ///
    /// # Errors
    ///
    /// As [`Devices::try_read`].
    #[inline]
    pub fn try_read(&mut self, access: &DeviceAccess) -> DeviceResult<Option<u64>> {
        access::read(&self.devices, &mut ByHandle(&mut self.vcpu), access)
    }

    /// As [`Devices::try_write`].
    ///
    /// # Errors
    ///
    /// As [`Devices::try_write`].
    #[inline]
    pub fn try_write(
        &mut self,
        access: &DeviceAccess,
        value: u64,
        memory: Option<&mut dyn GuestMemoryAccess>,
    ) -> DeviceResult<bool> {
        access::write(
            &self.devices,
            &mut ByHandle(&mut self.vcpu),
            access,
            value,
            memory,
        )
    }

    /// Drops the tables. The next access takes the current ones.
    pub fn park(&mut self) {
        self.vcpu.park();
    }

    /// Drops replaced tables and takes the current ones.
    pub fn refresh(&mut self) {
        self.vcpu.refresh();
    }
}

/// Accesses by a handle.
struct ByHandle<'a, V: Deref<Target = Devices>>(&'a mut Vcpu<Core<V>>);

impl<V: Deref<Target = Devices>> Lookup for ByHandle<'_, V> {
    #[inline(always)]
    fn look_up<K: Bus, T>(
        &mut self,
        direction: Direction,
        at: u64,
        beyond: u64,
        enter: impl FnOnce(Hit<'_, Handled, K>) -> T,
    ) -> Result<T, Miss> {
        self.0.dispatch(direction, at, beyond, enter)
    }
}
