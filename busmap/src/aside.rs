//! Addresses that are set aside: a guest reaches them without a device.

use crate::{
    bus::{Bus, BusId, Handlers},
    refusal::Refusal,
    registry::Registry,
    reserve::reserve,
    span::Span,
};

/// Setting addresses aside, before the registry is shared.
impl<F: Handlers> Registry<F> {
    /// Sets addresses of bus `K` aside, such as those of the guest's memory: from now on no device can
    /// own any of them. An access to them is a [`Miss`](crate::Miss), as before.
    ///
    /// # Errors
    ///
    /// [`Refusal::Overlap`] with a device; [`Refusal::SetAside`] if some of the span was set aside before;
    /// [`Refusal::Withdrawn`]; [`Refusal::NoMemory`].
    ///
    /// # Examples
    ///
    /// ```
    /// use std::sync::Arc;
    ///
    /// use busmap::{Device, Handlers, Mmio, Refusal, Registry, Span};
    ///
    /// /// Every handler is a function of the offset.
    /// enum Reads {}
    /// type Read = dyn Fn(u64) -> u64 + Send + Sync;
    ///
    /// impl Handlers for Reads {
    ///     type Mmio = Read;
    ///     type Port = Read;
    ///     type SysReg = Read;
    ///     type Tag = ();
    /// }
    ///
    /// let mut registry = Registry::<Reads>::new();
    /// let memory = Span::new(0x8000_0000, 0x8fff_ffff).unwrap();
    /// registry.set_aside::<Mmio>(memory)?;
    ///
    /// let device = Device::<Reads>::new(()).on::<Mmio>(Arc::new(|offset| offset));
    /// let refused = registry.add::<Mmio>(device, Span::new(0x8fff_f000, 0x9000_0fff).unwrap());
    /// assert!(matches!(refused.unwrap_err().refusal, Refusal::SetAside { aside, .. } if aside == memory));
    /// # Ok::<(), Refusal>(())
    /// ```
    pub fn set_aside<K: Bus>(&mut self, span: Span) -> Result<(), Refusal> {
        if let Some(aside) = self.aside::<K>().find(|aside| aside.overlaps(span)) {
            return Err(Refusal::SetAside {
                bus: K::ID,
                wanted: span,
                aside,
            });
        }
        self.view(|view| {
            if view.is_withdrawn() {
                return Err(Refusal::Withdrawn);
            }
            let owner = view.spans::<K>().find(|hit| hit.span().overlaps(span));
            owner.map_or(Ok(()), |hit| {
                Err(Refusal::Overlap {
                    bus: K::ID,
                    wanted: span,
                    owner: hit.id(),
                    owned: hit.span(),
                })
            })
        })?;
        reserve(&mut self.aside, 1)?;
        self.aside.push((K::ID, span));
        Ok(())
    }

    /// The spans that were [set aside](Self::set_aside) on bus `K`, in the order of the calls.
    pub fn aside<K: Bus>(&self) -> impl Iterator<Item = Span> {
        let on_bus = |&(bus, span): &(BusId, Span)| (bus == K::ID).then_some(span);
        self.aside.iter().filter_map(on_bus)
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        bus::{Mmio, Port},
        miss::Miss,
        testing::{Named, named},
    };

    fn span(first: u64, last: u64) -> Span {
        Span::new(first, last).unwrap()
    }

    #[test]
    fn spans_set_aside_are_listed_by_bus_and_accesses_there_miss() {
        let mut devices = Registry::<Named>::new();
        devices.set_aside::<Mmio>(span(0x10, 0x1f)).unwrap();
        devices.set_aside::<Port>(span(0x10, 0x10)).unwrap();
        devices.set_aside::<Mmio>(span(0, 0xf)).unwrap();
        assert!(devices.aside::<Mmio>().eq([span(0x10, 0x1f), span(0, 0xf)]));
        assert!(devices.aside::<Port>().eq([span(0x10, 0x10)]));
        let missed = devices.dispatch::<Mmio, _>(0x10, 0, |_| ());
        assert_eq!(missed, Err(Miss::Unmapped));
        assert!(devices.find::<Mmio>(0x10).is_none());
        devices.for_each::<Mmio>(|_| panic!("nothing is there"));
    }

    #[test]
    fn a_span_owned_or_already_aside_cannot_be_set_aside() {
        let mut devices = Registry::<Named>::new();
        let owner = devices.add::<Mmio>(named("one"), span(0x10, 0x1f)).unwrap();
        let wanted = span(0x1f, 0x2f);
        let overlap = Refusal::Overlap {
            bus: BusId::Mmio,
            wanted,
            owner,
            owned: span(0x10, 0x1f),
        };
        assert_eq!(devices.set_aside::<Mmio>(wanted), Err(overlap));
        assert_eq!(devices.aside::<Mmio>().count(), 0);
        assert_eq!(devices.set_aside::<Port>(wanted), Ok(()));
        let twice = Refusal::SetAside {
            bus: BusId::Port,
            wanted: span(0, 0x1f),
            aside: wanted,
        };
        assert_eq!(devices.set_aside::<Port>(span(0, 0x1f)), Err(twice));
        assert_eq!(devices.set_aside::<Port>(span(0, 0x1e)), Ok(()));
    }

    #[test]
    fn no_change_maps_addresses_that_are_set_aside() {
        let mut devices = Registry::<Named>::new();
        let aside = span(0x40, 0x4f);
        devices.set_aside::<Port>(aside).unwrap();
        let set_aside = |wanted| Refusal::SetAside {
            bus: BusId::Port,
            wanted,
            aside,
        };
        let (inside, into) = (span(0x48, 0x48), span(0x3f, 0x40));
        let refused = devices.add::<Port>(named("one"), inside).unwrap_err();
        assert_eq!(refused.refusal, set_aside(inside));
        let from = span(0, 1);
        let id = devices.add::<Port>(named("one"), from).unwrap();
        assert_eq!(devices.map::<Port>(id, into), Err(set_aside(into)));
        assert_eq!(
            devices.move_to::<Port>(id, from, into),
            Err(set_aside(into))
        );
        assert_eq!(devices.remap::<Port>(id, into), Err(set_aside(into)));
        let updated = devices.update(|batch| {
            batch.unmap::<Port>(id, from)?;
            batch.map::<Port>(id, inside)
        });
        assert_eq!(updated.err(), Some(set_aside(inside)));
        assert_eq!(devices.find::<Port>(1).map(|(id, _)| id), Some(id));
        assert_eq!(devices.map::<Mmio>(id, inside), Ok(()));
    }

    #[test]
    fn withdrawn_devices_are_not_restored_at_addresses_that_are_set_aside() {
        let mut devices = Registry::<Named>::new();
        devices.add::<Port>(named("one"), span(0, 1)).unwrap();
        devices.set_aside::<Port>(span(0x40, 0x4f)).unwrap();
        let withdrawn = devices.withdraw();
        let late = devices.set_aside::<Port>(span(0x50, 0x50));
        assert_eq!(late, Err(Refusal::Withdrawn));
        let moved = withdrawn[0].replaced(named("one"), vec![(BusId::Port, span(0x4f, 0x4f))]);
        let refused = devices.restore(&[moved]);
        assert!(matches!(refused, Err(Refusal::SetAside { .. })));
        assert_eq!(devices.restore(&withdrawn), Ok(()));
    }
}
