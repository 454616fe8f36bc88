//! A sorted table in an `ArcSwap`, and an `arc_swap::Cache` for each vCPU. As long as the pointer
//! stays the same, the cache reads only the pointer.

use std::sync::Arc;

use arc_swap::{ArcSwap, Cache};
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use busmap::Span;

use crate::{
    bus::Nothing,
    registry::{Changeable, Registry, Search},
    table::Table,
};

pub(crate) struct Cached(ArcSwap<Table>);

type Vcpu<'r> = Cache<&'r ArcSwap<Table>, Arc<Table>>;

impl Registry<GuestPhysAddrRange> for Cached {
    const NAME: &'static str = "arc-swap Cache";

    type Vcpu<'r> = Vcpu<'r>;

    fn with(spans: &[Span]) -> Self {
        Self(ArcSwap::from_pointee(Table::with(spans)))
    }

    fn vcpu(&self) -> Vcpu<'_> {
        Cache::new(&self.0)
    }
}

impl Search for Vcpu<'_> {
    type Bus = GuestPhysAddrRange;

    #[inline]
    fn search(&mut self, addr: GuestPhysAddr) -> usize {
        self.load().read(addr)
    }
}

impl Changeable for Cached {
    fn add(&self, device: Nothing<GuestPhysAddrRange>) {
        let device = Arc::new(device);
        self.0.rcu(|table| table.and(device.clone()));
    }
}
