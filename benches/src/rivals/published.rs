//! The published 0.4.10, without a lock and behind one.

use std::{marker::PhantomData, sync::RwLock};

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use axdevice_0_4_10::{AxVmDeviceConfig, AxVmDevices};
use busmap::Span;

use crate::{
    bus::{Bus, Nothing},
    registry::{Changeable, Registry, Search},
};

/// The published 0.4.10, which cannot be changed while vCPUs use it.
///
/// # Invariants
///
/// All of its devices are [`Nothing`]s, which are `Send + Sync`.
pub(crate) struct Published<R>(AxVmDevices, PhantomData<R>);

// SAFETY: by its invariant the registry's devices are `Send`. The rest of it is plain data and a
// `spin::Mutex` of plain data.
unsafe impl<R: Bus> Send for Published<R> {}
// SAFETY: by its invariant the registry's devices are `Sync`. By `&self` it only reads its vectors and
// clones `Arc`s, which count atomically.
unsafe impl<R: Bus> Sync for Published<R> {}

impl<R: Bus> Published<R> {
    fn add(&mut self, device: Nothing<R>) {
        // INVARIANT: this is a `Nothing`, and there is no other way to add a device.
        R::add_published(&mut self.0, device);
    }

    #[inline]
    fn read(&self, addr: R::Addr) -> usize {
        R::read_published(&self.0, addr).unwrap_or(R::FLOATING)
    }
}

impl<R: Bus> Registry<R> for Published<R> {
    const NAME: &'static str = "0.4.10";
    const LINEAR: bool = true;
    const MISSES: bool = false;

    type Vcpu<'r> = &'r Self;

    fn with(spans: &[Span]) -> Self {
        // INVARIANT: no devices.
        let empty = AxVmDevices::new(AxVmDeviceConfig::new(vec![]));
        let mut devices = Self(empty, PhantomData);
        Nothing::all(spans).for_each(|device| devices.add(device));
        devices
    }

    fn vcpu(&self) -> &Self {
        self
    }
}

impl<R: Bus> Search for &Published<R> {
    type Bus = R;

    #[inline]
    fn search(&mut self, addr: R::Addr) -> usize {
        Published::read(self, addr)
    }
}

/// The same behind a lock, which allows changes while vCPUs use it.
pub(crate) struct LockedPublished(RwLock<Published<GuestPhysAddrRange>>);

impl Registry<GuestPhysAddrRange> for LockedPublished {
    const NAME: &'static str = "0.4.10 in RwLock";
    const LINEAR: bool = true;
    const MISSES: bool = false;

    type Vcpu<'r> = &'r Self;

    fn with(spans: &[Span]) -> Self {
        Self(RwLock::new(Published::with(spans)))
    }

    fn vcpu(&self) -> &Self {
        self
    }
}

impl Search for &LockedPublished {
    type Bus = GuestPhysAddrRange;

    #[inline]
    fn search(&mut self, addr: GuestPhysAddr) -> usize {
        self.0.read().expect("no holder panics").read(addr)
    }
}

impl Changeable for LockedPublished {
    fn add(&self, device: Nothing<GuestPhysAddrRange>) {
        self.0.write().expect("no holder panics").add(device);
    }
}
