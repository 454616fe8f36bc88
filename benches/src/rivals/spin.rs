//! A sorted table in a `spin::RwLock`.

use std::sync::Arc;

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use busmap::Span;
use spin::RwLock;

use crate::{
    bus::Nothing,
    registry::{Changeable, Registry, Search},
    table::Table,
};

pub(crate) struct SpinLocked(RwLock<Table>);

impl Registry<GuestPhysAddrRange> for SpinLocked {
    const NAME: &'static str = "spin RwLock";

    type Vcpu<'r> = &'r Self;

    fn with(spans: &[Span]) -> Self {
        Self(RwLock::new(Table::with(spans)))
    }

    fn vcpu(&self) -> &Self {
        self
    }
}

impl Search for &SpinLocked {
    type Bus = GuestPhysAddrRange;

    #[inline]
    fn search(&mut self, addr: GuestPhysAddr) -> usize {
        self.0.read().read(addr)
    }
}

impl Changeable for SpinLocked {
    fn add(&self, device: Nothing<GuestPhysAddrRange>) {
        self.0.write().insert(Arc::new(device));
    }
}
