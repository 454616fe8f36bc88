//! [`Devices`]: the devices of a VM.

use alloc::{sync::Arc, vec::Vec};

use axdevice::{StopAccessPort, TimerAccessPort, WakeAccessPort};
use axdevice_base::{
    Device, DeviceAccess, DeviceId, DeviceResult, GuestMemoryAccess, RegistryError,
    RoutedDeviceGrant,
};
use busmap::{
    Batch, Bus, BusId, Direction, Hit, Miss, Mmio, Port, Refusal, Registry, Removed, SysReg, View,
};
use spin::Mutex;

use crate::{
    Grants, Handled,
    access::{self, Lookup},
    resources::{self, Claims},
};

/// The VM's side of the abilities that devices are granted.
#[derive(Clone, Default)]
pub struct Ports {
    /// Schedules timers.
    pub timer: Option<Arc<dyn TimerAccessPort>>,
    /// Wakes vCPUs.
    pub wake: Option<Arc<dyn WakeAccessPort>>,
    /// Stops the VM.
    pub stop: Option<Arc<dyn StopAccessPort>>,
}

/// A device to be registered, and its grants.
#[derive(Clone)]
pub struct Entry {
    device: Arc<dyn Device>,
    grants: Grants,
}

impl Entry {
    /// A device without grants.
    pub fn new(device: Arc<dyn Device>) -> Self {
        Self::with_grants(device, Grants::default())
    }

    /// A device with grants.
    pub fn with_grants(device: Arc<dyn Device>, grants: Grants) -> Self {
        Self { device, grants }
    }
}

/// A routed grant, and the grants of the device that it leads to.
struct Route {
    grant: RoutedDeviceGrant,
    grants: Arc<Grants>,
}

/// The devices of a VM: any number of vCPUs access them while others are registered and removed, all by `&self`.
///
/// An access takes no lock. Each vCPU should use a [handle](crate::VcpuDevices) of its own.
#[derive(Default)]
pub struct Devices {
    pub(crate) registry: Registry<Handled>,
    ports: Ports,
    routes: Mutex<Vec<Route>>,
}

impl Devices {
    /// An empty set of devices. Their abilities use these ports.
    pub fn new(ports: Ports) -> Self {
        Self {
            ports,
            ..Self::default()
        }
    }

    /// Registers a device on all its resources at one instant. The id is never used again.
    ///
    /// # Errors
    ///
    /// Those of `DeviceRuntime::register`; [`InvalidState`](RegistryError::InvalidState) without memory or after 2^32 registrations.
    /// Nothing is registered then.
    pub fn register(&self, entry: Entry) -> Result<DeviceId, RegistryError> {
        Ok(self.register_all(&[entry])?[0])
    }

    /// Registers all devices of a bundle at one instant, or none of them. Returns their ids, in order.
    ///
    /// # Errors
    ///
    /// As [`register`](Self::register), for the first device that cannot be registered.
    pub fn register_all(&self, bundle: &[Entry]) -> Result<Vec<DeviceId>, RegistryError> {
        let recorded = self.registry.update(|batch| {
            let mut claims = Claims::default();
            bundle
                .iter()
                .map(|entry| self.record(batch, &mut claims, entry))
                .collect::<Result<_, Failure>>()
        });
        match recorded {
            Ok((ids, _)) => Ok(ids),
            Err(Failure(error)) => Err(error),
        }
    }

    fn record(
        &self,
        batch: &mut Batch<'_, Handled>,
        claims: &mut Claims,
        Entry { device, grants }: &Entry,
    ) -> Result<DeviceId, Failure> {
        let registered = busmap::Device::new(Arc::new(grants.clone()))
            .on::<Mmio>(device.clone())
            .on::<Port>(device.clone())
            .on::<SysReg>(device.clone());
        let key = batch.add(registered)?;
        let number = u32::try_from(key.number()).map_err(|_| Failure(ids_exhausted()))?;
        let id = DeviceId::new(number);
        self.registry
            .view(|view| claims.add(&**device, id, view))
            .map_err(Failure)?;
        for resource in device.resources() {
            match resources::addresses(resource) {
                Ok(Some((BusId::Port, span))) => batch.map::<Port>(key, span)?,
                Ok(Some((BusId::SysReg, span))) => batch.map::<SysReg>(key, span)?,
                Ok(Some((_, span))) => batch.map::<Mmio>(key, span)?,
                // An interrupt line; the claims have refused everything else.
                _ => {}
            }
        }
        Ok(id)
    }

    /// Removes a device from all its resources at one instant, and withdraws the routed grants that lead to it.
    ///
    /// `None` if no such device is registered. [`Removed`] reports when no vCPU uses the device any more.
    ///
    /// # Errors
    ///
    /// [`Refusal::NoMemory`]: the device stays.
    pub fn unregister(&self, id: DeviceId) -> Result<Option<Removed<Handled>>, Refusal> {
        let Some(key) = self.view(|view| find(view, id).map(|found| found.id())) else {
            return Ok(None);
        };
        match self.registry.remove(key) {
            Ok(removed) => {
                let mut routes = self.routes.lock();
                routes.retain(|route| route.grant.device_id() != id);
                Ok(Some(removed))
            }
            Err(Refusal::Unknown { .. }) => Ok(None),
            Err(refusal) => Err(refusal),
        }
    }

    /// Allows every device that presents this grant to enter a context of the device that it leads to. Returns whether
    /// that device is registered.
    pub fn grant_route(&self, grant: RoutedDeviceGrant) -> bool {
        // The lock is held over the look-up, so that a removal takes place before both or after both.
        let mut routes = self.routes.lock();
        let target = self.view(|view| {
            let found = find(view, grant.device_id())?;
            Some(found.device().tag().clone())
        });
        let is_registered = target.is_some();
        routes.extend(target.map(|grants| Route { grant, grants }));
        is_registered
    }

    /// Withdraws a routed grant. Returns whether it was there.
    pub fn revoke_route(&self, grant: &RoutedDeviceGrant) -> bool {
        let mut routes = self.routes.lock();
        let before = routes.len();
        routes.retain(|route| !route.grant.same_token(grant));
        routes.len() < before
    }

    /// The grants of the device that a routed grant leads to, if the grant is valid.
    pub(crate) fn route(&self, grant: &RoutedDeviceGrant) -> Option<Arc<Grants>> {
        let routes = self.routes.lock();
        let route = routes.iter().find(|Route { grant: own, .. }| {
            own.binding_generation() == grant.binding_generation()
                && own.device_id() == grant.device_id()
                && own.same_token(grant)
                && grant.admission_is_open()
        });
        route.map(|route| route.grants.clone())
    }

    /// The number of registered devices.
    pub fn device_count(&self) -> usize {
        self.view(|view| view.devices().count())
    }

    /// Reads from the device that owns all of the access. `None` if there is none.
    ///
    /// # Errors
    ///
    /// [`OutOfRange`](axdevice_base::DeviceError::OutOfRange) for a port above 0xffff or a register above 0xffff_ffff;
    /// and the errors of the device.
    #[inline]
    pub fn try_read(&self, access: &DeviceAccess) -> DeviceResult<Option<u64>> {
        access::read(self, &mut BySelf(self), access)
    }

    /// Writes to the device that owns all of the access. `false` if there is none.
    ///
    /// A device with a [DMA grant](Grants::dma) has access to `memory` until it returns.
    ///
    /// # Errors
    ///
    /// As [`try_read`](Self::try_read).
    #[inline]
    pub fn try_write(
        &self,
        access: &DeviceAccess,
        value: u64,
        memory: Option<&mut dyn GuestMemoryAccess>,
    ) -> DeviceResult<bool> {
        access::write(self, &mut BySelf(self), access, value, memory)
    }

    pub(crate) fn ports(&self) -> &Ports {
        &self.ports
    }

    fn view<T>(&self, see: impl FnOnce(View<'_, Handled>) -> T) -> T {
        self.registry.view(see)
    }
}

/// The reason why a registration or its batch failed.
struct Failure(RegistryError);

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self(resources::refused(refusal))
    }
}

fn ids_exhausted() -> RegistryError {
    RegistryError::InvalidState {
        operation: "register device",
        detail: "all device ids were used".into(),
    }
}

fn find(view: View<'_, Handled>, id: DeviceId) -> Option<&busmap::Registration<Handled>> {
    view.devices().find(|found| crate::id_of(found.id()) == id)
}

/// Accesses by `&self`.
struct BySelf<'a>(&'a Devices);

impl Lookup for BySelf<'_> {
    #[inline(always)]
    fn look_up<K: Bus, T>(
        &mut self,
        _: Direction,
        at: u64,
        beyond: u64,
        enter: impl FnOnce(Hit<'_, Handled, K>) -> T,
    ) -> Result<T, Miss> {
        self.0.registry.dispatch(at, beyond, enter)
    }
}

/// Checks at compile time that vCPUs can share the devices.
const _: fn() = || {
    fn shared<T: Send + Sync>() {}
    shared::<Devices>();
};
