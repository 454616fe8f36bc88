//! The floor: a virtual call of a device that is known already.

use busmap::Span;
use std::sync::Arc;

use crate::{
    accesses::Access,
    bus::{Bus, Nothing},
    registry::{Registry, Vcpu},
    table::Device,
};

pub(crate) struct Direct<R>(Vec<Arc<Device<R>>>);

impl<R: Bus> Registry<R> for Direct<R> {
    const NAME: &'static str = "direct call";
    const MISSES: bool = false;

    type Vcpu<'r> = Devices<'r, R>;

    fn with(spans: &[Span]) -> Self {
        let devices = Nothing::all(spans).map(|device| Arc::new(device) as Arc<Device<R>>);
        Self(devices.collect())
    }

    fn vcpu(&self) -> Devices<'_, R> {
        Devices(&self.0)
    }
}

pub(crate) struct Devices<'r, R>(&'r [Arc<Device<R>>]);

/// The target is the device itself, so the floor includes the cost of touching many devices.
impl<'r, R: Bus> Vcpu<R> for Devices<'r, R> {
    type Target = (&'r Device<R>, R::Addr);

    fn aim(&self, access: Access<R>) -> Self::Target {
        let device = access.device.expect("the floor has no misses");
        (&*self.0[device], access.addr)
    }

    #[inline]
    fn read(&mut self, (device, addr): Self::Target) -> usize {
        device.handle_read(addr, R::WIDTH).unwrap_or(R::FLOATING)
    }
}
