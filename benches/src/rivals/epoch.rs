//! A sorted table behind a pointer of `crossbeam-epoch`. A vCPU pins the epoch while it dispatches.

use std::sync::{Arc, atomic::Ordering};

use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange};
use busmap::Span;
use crossbeam_epoch::{Atomic, Guard, LocalHandle, Owned, Shared, default_collector, pin};

use crate::{
    bus::Nothing,
    registry::{Changeable, Registry, Search},
    table::Table,
};

/// # Invariants
///
/// The pointer is never null. Only the collector frees a table that it pointed to, after the table was
/// replaced.
pub(crate) struct Epoch(Atomic<Table>);

impl Epoch {
    #[inline]
    fn load<'g>(&self, guard: &'g Guard) -> (Shared<'g, Table>, &'g Table) {
        let table = self.0.load(Ordering::Acquire, guard);
        // SAFETY: by the invariant the pointer is not null. A thread that replaces the table leaves the old
        // one to the collector, which does not free it before `guard` is dropped.
        (table, unsafe { table.deref() })
    }
}

impl Drop for Epoch {
    fn drop(&mut self) {
        let table = std::mem::take(&mut self.0);
        // SAFETY: by the invariant the current table is not freed, and by `&mut self` no thread
        // uses it.
        drop(unsafe { table.into_owned() });
    }
}

/// A vCPU with its own registration, which avoids the access to a thread-local.
pub(crate) struct Pinning<'r> {
    tables: &'r Epoch,
    epoch: LocalHandle,
}

impl Registry<GuestPhysAddrRange> for Epoch {
    const NAME: &'static str = "crossbeam-epoch";

    type Vcpu<'r> = Pinning<'r>;

    fn with(spans: &[Span]) -> Self {
        // INVARIANT: not null.
        Self(Atomic::new(Table::with(spans)))
    }

    fn vcpu(&self) -> Pinning<'_> {
        Pinning {
            tables: self,
            epoch: default_collector().register(),
        }
    }
}

impl Search for Pinning<'_> {
    type Bus = GuestPhysAddrRange;

    #[inline]
    fn search(&mut self, addr: GuestPhysAddr) -> usize {
        let guard = self.epoch.pin();
        self.tables.load(&guard).1.read(addr)
    }
}

impl Changeable for Epoch {
    fn add(&self, device: Nothing<GuestPhysAddrRange>) {
        let guard = pin();
        let device = Arc::new(device);
        let replaced = loop {
            let (current, table) = self.load(&guard);
            let next = Owned::new(table.and(device.clone()));
            let (published, failed) = (Ordering::AcqRel, Ordering::Relaxed);
            // INVARIANT: not null; the replaced table goes to the collector below.
            if self
                .0
                .compare_exchange(current, next, published, failed, &guard)
                .is_ok()
            {
                break current;
            }
        };
        // SAFETY: by the invariant the table was not freed, and no later load finds it.
        unsafe { guard.defer_destroy(replaced) };
    }
}
