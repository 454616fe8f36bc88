//! Lookups that outlast the table they were made in: `find_*`, `iter_*` and `iter_mut_*`.

use alloc::vec::Vec;
use core::ops::Deref;

use axaddrspace::{
    GuestPhysAddrRange,
    device::{PortRange, SysRegAddrRange},
};
use axdevice_base::BaseDeviceOps;
use log::error;

use crate::{
    bus::{BusAddr, BusRange, Family, PerBus, sealed::Bus},
    device::{DeviceBound, DeviceId},
    error::Refusal,
    ledger::Ledger,
    registry::VmDevices,
    span::Span,
    sync::Arc,
    table::{Entry, Mount, Table},
    tables::{Edit, Tables},
};

impl<B: DeviceBound> VmDevices<B> {
    /// The current tables, with what `iter_mut_*` lent out back in them.
    pub(crate) fn current(&self) -> impl Deref<Target = Arc<Tables<B>>> {
        let tables = self.tables.load();
        if self.settled(&tables) {
            return self.tables.load();
        }
        tables
    }

    pub(crate) fn find<A: BusAddr>(&self, addr: A) -> Option<Arc<B::Dev<A::Range>>> {
        let tables = self.current();
        let entry = tables.of::<A::Range>().find(A::Range::number(addr))?;
        Some(entry.device().clone())
    }

    pub(crate) fn iter<R: BusRange>(&self) -> impl Iterator<Item = &Arc<B::Dev<R>>> {
        let tables = self.current();
        let ledger = R::of(&self.ledgers);
        let entries = tables.of::<R>().by_registration().into_iter();
        let lent: Vec<_> = entries.map(|e| ledger.lend(&e.registration.loan)).collect();
        lent.into_iter()
    }

    pub(crate) fn iter_mut<R: BusRange>(&mut self) -> impl Iterator<Item = &mut Arc<B::Dev<R>>> {
        if !self.tables.load().stale {
            self.loosen();
        }
        R::of_mut(&mut self.loose.0)
            .iter_mut()
            .map(|place| &mut place.device)
    }

    /// Takes every device out of the published tables into the field `loose`.
    fn loosen(&mut self) {
        self.loose = Loose::of(&self.tables.load());
        self.tables.replace(Tables::stale());
        // What was lent is listed anew, as new registrations, when `settle` puts it back.
        self.ledgers = PerBus::ledgers();
    }

    /// Whether `tables` were stale and no longer are.
    #[inline]
    pub(crate) fn settled(&self, tables: &Tables<B>) -> bool {
        tables.stale && self.settle().is_ok()
    }

    /// Publishes tables of the devices that `iter_mut_*` lent out, if there are any.
    #[cold]
    pub(crate) fn settle(&self) -> Result<(), Refusal> {
        let published = self.tables.rcu(|tables| {
            if !tables.stale {
                return Err(None);
            }
            self.loose.tables().map_err(Some)
        });
        match published {
            Err(Some(refusal)) => Err(refusal),
            Ok(()) | Err(None) => Ok(()),
        }
    }
}

/// A ledger for every bus.
pub(crate) type Ledgers<B> = PerBus<LedgerOf<B>>;

/// The family of ledgers.
pub(crate) struct LedgerOf<B>(B);

impl<B: DeviceBound> Family for LedgerOf<B> {
    type Of<R: BusRange> = Ledger<B::Dev<R>>;
}

impl<B: DeviceBound> Ledgers<B> {
    pub(crate) const fn ledgers() -> Self {
        Self {
            mmio: Ledger::new(),
            sys_reg: Ledger::new(),
            port: Ledger::new(),
        }
    }
}

/// The devices that `iter_mut_*` has lent out, and what is needed to put them back.
///
/// They are edited through `&mut`, and read through `&` when they are put back.
pub(crate) struct Loose<B: DeviceBound>(PerBus<PlacesOf<B>>);

/// The family of places, in the order of registration.
struct PlacesOf<B>(B);

impl<B: DeviceBound> Family for PlacesOf<B> {
    type Of<R: BusRange> = Vec<Place<B::Dev<R>>>;
}

/// Where a device was registered, and which is there now.
struct Place<D: ?Sized> {
    id: DeviceId,
    name: Option<Arc<str>>,
    /// As it was.
    span: Span,
    mount: Mount<D>,
    /// As it is.
    device: Arc<D>,
}

impl<B: DeviceBound> Loose<B> {
    pub(crate) const fn new() -> Self {
        Self(PerBus {
            mmio: Vec::new(),
            sys_reg: Vec::new(),
            port: Vec::new(),
        })
    }

    fn of(tables: &Tables<B>) -> Self {
        Self(PerBus {
            mmio: places(tables.of::<GuestPhysAddrRange>()),
            sys_reg: places(tables.of::<SysRegAddrRange>()),
            port: places(tables.of::<PortRange>()),
        })
    }

    /// Tables of the devices as they are, or else as they were.
    fn tables(&self) -> Result<Tables<B>, Refusal> {
        self.tables_of(Which::Now).or_else(|refusal| {
            error!("changed devices are put back as they were: {refusal}");
            self.tables_of(Which::Before)
        })
    }

    fn tables_of(&self, which: Which) -> Result<Tables<B>, Refusal> {
        let mut edits = Vec::new();
        self.list::<GuestPhysAddrRange>(which, &mut edits)?;
        self.list::<SysRegAddrRange>(which, &mut edits)?;
        self.list::<PortRange>(which, &mut edits)?;
        Tables::new().edited(&edits)
    }

    fn list<R: BusRange>(&self, which: Which, edits: &mut Vec<Edit<B>>) -> Result<(), Refusal> {
        for place in R::of(&self.0) {
            let (span, mount) = match which {
                Which::Before => (place.span, place.mount.clone()),
                Which::Now => (place.device.address_range().span()?, place.mount_now()),
            };
            let entry = Entry::new(span, place.id, place.name.clone(), mount);
            edits.push(Edit::Add(R::on(entry)));
        }
        Ok(())
    }
}

/// Which version of the devices to put back.
#[derive(Clone, Copy)]
enum Which {
    /// As they were when they were lent out.
    Before,
    /// As they are.
    Now,
}

impl<D: ?Sized> Place<D> {
    /// How the device that is there now is called: as before, unless it is another.
    fn mount_now(&self) -> Mount<D> {
        if Arc::ptr_eq(&self.device, &self.mount.device) {
            self.mount.clone()
        } else {
            Mount::bare(self.device.clone())
        }
    }
}

fn places<D: ?Sized>(table: &Table<D>) -> Vec<Place<D>> {
    let entries = table.by_registration().into_iter();
    let places = entries.map(|entry| Place {
        id: entry.id(),
        name: entry.registration.name.clone(),
        span: entry.span,
        mount: Mount {
            device: entry.device().clone(),
            handler: entry.handler.clone(),
        },
        device: entry.device().clone(),
    });
    places.collect()
}
