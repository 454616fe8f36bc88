//! One access: the lookup of its device, and the context in which the device handles it.

use axdevice_base::{BusKind, Device, DeviceAccess, DeviceError, DeviceResult, GuestMemoryAccess};
use busmap::{Bus, Direction, Hit, Miss, Mmio, On, Port, SysReg};

use crate::{Handled, context::Context, devices::Devices};

/// Finds the device that owns an access: the registry, or a vCPU's handle.
pub(crate) trait Lookup {
    fn look_up<K: Bus, T>(
        &mut self,
        direction: Direction,
        at: u64,
        beyond: u64,
        enter: impl FnOnce(Hit<'_, Handled, K>) -> T,
    ) -> Result<T, Miss>;
}

/// A handler on any bus: a device.
trait AsDevice {
    fn as_device(&self) -> &dyn Device;
}

impl AsDevice for dyn Device {
    #[inline(always)]
    fn as_device(&self) -> &dyn Device {
        self
    }
}

#[inline(always)]
pub(crate) fn read(
    devices: &Devices,
    lookup: &mut impl Lookup,
    access: &DeviceAccess,
) -> DeviceResult<Option<u64>> {
    let call = Call {
        devices,
        access,
        direction: Direction::Read,
        memory: None,
    };
    call.on_bus(lookup, |device, context| device.read(access, context))
}

#[inline(always)]
pub(crate) fn write(
    devices: &Devices,
    lookup: &mut impl Lookup,
    access: &DeviceAccess,
    value: u64,
    memory: Option<&mut dyn GuestMemoryAccess>,
) -> DeviceResult<bool> {
    let call = Call {
        devices,
        access,
        direction: Direction::Write,
        memory,
    };
    let written = call.on_bus(lookup, |device, context| {
        device.write(access, value, context)
    });
    written.map(|found| found.is_some())
}

/// An access before its device is known.
struct Call<'a, 'm> {
    devices: &'a Devices,
    access: &'a DeviceAccess,
    direction: Direction,
    memory: Option<&'m mut dyn GuestMemoryAccess>,
}

impl Call<'_, '_> {
    #[inline(always)]
    fn on_bus<T>(
        self,
        lookup: &mut impl Lookup,
        handle: impl FnOnce(&dyn Device, &mut dyn axdevice_base::DeviceContext) -> DeviceResult<T>,
    ) -> DeviceResult<Option<T>> {
        let addr = self.access.address();
        let beyond = self.access.width().size() as u64 - 1;
        match self.access.bus() {
            BusKind::Mmio => self.on::<Mmio, _>(lookup, beyond, handle),
            BusKind::Port if addr <= u16::MAX.into() => self.on::<Port, _>(lookup, beyond, handle),
            // A register has no width.
            BusKind::SysReg if addr <= u32::MAX.into() => self.on::<SysReg, _>(lookup, 0, handle),
            _ => Err(DeviceError::OutOfRange { addr }),
        }
    }

    #[inline(always)]
    fn on<K: Bus, T>(
        self,
        lookup: &mut impl Lookup,
        beyond: u64,
        handle: impl FnOnce(&dyn Device, &mut dyn axdevice_base::DeviceContext) -> DeviceResult<T>,
    ) -> DeviceResult<Option<T>>
    where
        On<Handled, K>: AsDevice,
    {
        let enter = |hit: Hit<'_, Handled, K>| {
            let vcpu = self.access.source_vcpu();
            let mut context = Context::new(hit, self.devices, vcpu, self.memory);
            handle(hit.handler().as_device(), &mut context)
        };
        match lookup.look_up::<K, _>(self.direction, self.access.address(), beyond, enter) {
            Ok(handled) => handled.map(Some),
            Err(_) => Ok(None),
        }
    }
}
