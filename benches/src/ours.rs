//! `axdevice`, through `&self` and through a vCPU's handle.

use std::marker::PhantomData;

use axaddrspace::GuestPhysAddrRange;
use axdevice::{Dispatcher, SharedVmDevices, Unmapped};
use busmap::Span;

use crate::{
    bus::{Bus, Nothing},
    registry::{Changeable, Registry, Search},
};

/// The cell through which the crate publishes its tables in this run.
pub const CELL: &str = if cfg!(feature = "slot-cell") {
    "slots"
} else {
    "arc-swap"
};

/// The registry. A vCPU dispatches through `&self`.
pub(crate) struct Shared<R>(SharedVmDevices, PhantomData<R>);

impl<R: Bus> Registry<R> for Shared<R> {
    const NAME: &'static str = "by &self";
    const OURS: bool = true;

    type Vcpu<'r> = &'r Self;

    fn with(spans: &[Span]) -> Self {
        let devices = SharedVmDevices::default().with_unmapped(Unmapped::Float);
        Nothing::all(spans).for_each(|device| R::add(&devices, device));
        Self(devices, PhantomData)
    }

    fn vcpu(&self) -> &Self {
        self
    }
}

impl<R: Bus> Search for &Shared<R> {
    type Bus = R;

    #[inline]
    fn search(&mut self, addr: R::Addr) -> usize {
        R::read(&self.0, addr).unwrap_or(R::FLOATING)
    }
}

impl Changeable for Shared<GuestPhysAddrRange> {
    fn add(&self, device: Nothing<GuestPhysAddrRange>) {
        Bus::add(&self.0, device);
    }
}

/// The registry, with a handle for each vCPU.
pub(crate) struct Dispatched<R>(Shared<R>);

impl<R: Bus> Registry<R> for Dispatched<R> {
    const NAME: &'static str = "Dispatcher";
    const OURS: bool = true;

    type Vcpu<'r> = Handle<'r, R>;

    fn with(spans: &[Span]) -> Self {
        Self(Shared::with(spans))
    }

    fn vcpu(&self) -> Handle<'_, R> {
        Handle(self.0.0.dispatcher(), PhantomData)
    }
}

pub(crate) struct Handle<'r, R>(Dispatcher<&'r SharedVmDevices>, PhantomData<R>);

impl<R: Bus> Search for Handle<'_, R> {
    type Bus = R;

    #[inline]
    fn search(&mut self, addr: R::Addr) -> usize {
        R::read_by(&mut self.0, addr).unwrap_or(R::FLOATING)
    }
}

impl Changeable for Dispatched<GuestPhysAddrRange> {
    fn add(&self, device: Nothing<GuestPhysAddrRange>) {
        self.0.add(device);
    }
}
