//! Devices that are temporarily removed from the tables, to be replaced, and restored under their ids: for `axdevice`,
//! whose `iter_mut_*` lends its devices mutably. Not part of the public API.

use alloc::vec::Vec;
use core::fmt;

use crate::{
    bus::{Bus, BusId, Handlers, Mmio, Port, SysReg},
    device::{Device, DeviceId},
    mapping::Mapping,
    refusal::Refusal,
    registry::{Registry, View},
    reserve::reserved,
    span::Span,
    sync::{Arc, UNIQUE},
    tables::{Edit, Registration, Tables},
};

/// A device that was withdrawn.
#[doc(hidden)]
pub struct Withdrawn<F: Handlers> {
    /// The number of the withdrawal.
    withdrawal: u64,
    id: DeviceId,
    device: Device<F>,
    spans: Arc<[(BusId, Span)]>,
}

impl<F: Handlers> Withdrawn<F> {
    /// The id, before and after the withdrawal.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// The device.
    pub fn device(&self) -> &Device<F> {
        &self.device
    }

    /// The device's spans, by bus and address.
    pub fn spans(&self) -> &[(BusId, Span)] {
        &self.spans
    }

    /// Another device under the same id, with other spans.
    #[must_use]
    pub fn replaced(&self, device: Device<F>, spans: impl Into<Arc<[(BusId, Span)]>>) -> Self {
        let Self { withdrawal, id, .. } = *self;
        Self {
            withdrawal,
            id,
            device,
            spans: spans.into(),
        }
    }
}

impl<F: Handlers<Tag: Clone>> Clone for Withdrawn<F> {
    fn clone(&self) -> Self {
        self.replaced(self.device.clone(), self.spans.clone())
    }
}

impl<F: Handlers> fmt::Debug for Withdrawn<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Withdrawn")
            .field("id", &self.id)
            .field("spans", &self.spans)
            .finish_non_exhaustive()
    }
}

#[doc(hidden)]
impl<F: Handlers<Tag: Clone>> Registry<F> {
    /// Removes all devices from the published tables, and returns them in the order of their ids.
    ///
    /// Until they are [restored](Self::restore) every access is [`Miss::Withdrawn`](crate::Miss), and every change is
    /// refused. If they are withdrawn already, returns none. Frees nothing: see [`reclaim`](Self::reclaim).
    ///
    /// Does not call a [listener](Self::with_listener), since the devices are to be restored.
    #[must_use = "devices that are not restored are gone"]
    pub fn withdraw(&mut self) -> Vec<Withdrawn<F>> {
        if self.view(|view| view.is_withdrawn()) {
            return Vec::new();
        }
        let withdrawal = UNIQUE.next();
        let withdrawn = self.view(|view| withdrawn(withdrawal, view));
        let stand_in = self.tables.load().withdrawn(withdrawal);
        self.tables.replace(stand_in);
        withdrawn
    }

    /// Publishes tables of `devices`, which the last withdrawal has returned. Does nothing if another thread has done so
    /// already. Devices that are left out are removed.
    ///
    /// A dispatch may call this, so it frees only what it has allocated itself.
    ///
    /// Calls a [listener](Self::with_listener) with the difference to the tables before the withdrawal, unless every
    /// device has its former spans.
    ///
    /// # Errors
    ///
    /// As for a [batch](crate::Batch) that adds and maps them; [`Refusal::Unknown`] for a device of another withdrawal,
    /// or if the devices are not in the order of their ids, each once. The devices stay withdrawn.
    pub fn restore(&self, devices: &[Withdrawn<F>]) -> Result<(), Refusal> {
        let mut edits = None;
        let published = self.publish_tables(|tables| {
            let Some(withdrawal) = tables.withdrawal() else {
                return Err(None);
            };
            let edits = match &mut edits {
                Some(edits) => edits,
                none => none.insert(edits_of(withdrawal, devices)?),
            };
            Ok(Tables::new().edited(edits, &self.aside)?.tables)
        });
        match published {
            Err(Some(refusal)) => Err(refusal),
            Ok(()) | Err(None) => Ok(()),
        }
    }
}

/// All devices of a view, in the order of their ids.
fn withdrawn<F: Handlers<Tag: Clone>>(withdrawal: u64, view: View<'_, F>) -> Vec<Withdrawn<F>> {
    let mut owned = Vec::new();
    list::<Mmio, F>(view, &mut owned);
    list::<Port, F>(view, &mut owned);
    list::<SysReg, F>(view, &mut owned);
    owned.sort_by_key(|(id, ..)| *id);
    let spans_of = |id| {
        let first = owned.partition_point(|(of, ..)| *of < id);
        let own = owned[first..].iter().take_while(|(of, ..)| *of == id);
        own.map(|&(_, bus, span)| (bus, span)).collect()
    };
    let devices = view.devices().map(|of| Withdrawn {
        withdrawal,
        id: of.id,
        device: of.device.clone(),
        spans: spans_of(of.id),
    });
    let mut devices: Vec<_> = devices.collect();
    devices.sort_unstable_by_key(|of| of.id);
    devices
}

/// Appends all spans on a bus, with their owners.
fn list<K: Bus, F: Handlers>(view: View<'_, F>, owned: &mut Vec<(DeviceId, BusId, Span)>) {
    let spans = view.spans::<K>();
    owned.extend(spans.map(|hit| (hit.id(), K::ID, hit.span())));
}

/// The edits that add and map the devices of a withdrawal.
fn edits_of<F: Handlers<Tag: Clone>>(
    withdrawal: u64,
    devices: &[Withdrawn<F>],
) -> Result<Vec<Edit<F>>, Refusal> {
    let spans = devices.iter().map(|of| of.spans.len());
    let mut edits = reserved(devices.len() + spans.sum::<usize>())?;
    let mut last = None;
    for of in devices {
        let id = of.id;
        if of.withdrawal != withdrawal || last >= Some(id) {
            return Err(Refusal::Unknown { id, bus: None });
        }
        last = Some(id);
        // A new registration, so that a copy of the withdrawn device does not delay the end of a removal.
        let device = of.device.clone();
        edits.push(Edit::Add(Arc::new(Registration { id, device })));
        let spans = of.spans.iter();
        edits.extend(spans.map(|&(bus, span)| Edit::Map(Mapping { id, bus, span })));
    }
    Ok(edits)
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        direction::Direction,
        miss::Miss,
        testing::{Named, named},
    };

    fn span(first: u64, last: u64) -> Span {
        Span::new(first, last).unwrap()
    }

    /// A registry with `one` at ports and in memory, `two` at ports, and `three` nowhere.
    fn registry() -> (Registry<Named>, [DeviceId; 3]) {
        let devices = Registry::new();
        let one = devices.add::<Port>(named("one"), span(4, 7)).unwrap();
        let two = devices.add::<Port>(named("two"), span(0, 3)).unwrap();
        devices.map::<Mmio>(one, span(0x20, 0x2f)).unwrap();
        devices.map::<Mmio>(one, span(0x10, 0x1f)).unwrap();
        let three = devices.add::<SysReg>(named("three"), span(9, 9)).unwrap();
        devices.unmap::<SysReg>(three, span(9, 9)).unwrap();
        (devices, [one, two, three])
    }

    fn read(devices: &Registry<Named>, port: u64) -> Result<&'static str, Miss> {
        devices.dispatch::<Port, _>(port, 0, |hit| *hit.tag())
    }

    #[test]
    fn all_devices_are_given_with_their_spans() {
        let (mut devices, ids) = registry();
        let withdrawn = devices.withdraw();
        assert!(withdrawn.iter().map(Withdrawn::id).eq(ids));
        let tags = withdrawn.iter().map(|of| *of.device().tag());
        assert!(tags.eq(["one", "two", "three"]));
        assert_eq!(
            withdrawn[0].spans(),
            [
                (BusId::Mmio, span(0x10, 0x1f)),
                (BusId::Mmio, span(0x20, 0x2f)),
                (BusId::Port, span(4, 7)),
            ]
        );
        assert_eq!(withdrawn[1].spans(), [(BusId::Port, span(0, 3))]);
        assert_eq!(withdrawn[2].spans(), []);
    }

    #[test]
    fn without_its_devices_a_registry_refuses_accesses_and_changes() {
        let (mut devices, [one, ..]) = registry();
        let withdrawn = devices.withdraw();
        assert_eq!(read(&devices, 4), Err(Miss::Withdrawn));
        let mut vcpu = devices.vcpu();
        let missed = vcpu.dispatch::<Mmio, _>(Direction::Read, 0, 0, |_| ());
        assert_eq!(missed, Err(Miss::Withdrawn));
        assert!(devices.find::<Port>(4).is_none());
        devices.view(|view| assert!(view.is_withdrawn() && view.devices().count() == 0));
        let refused = devices.add::<Port>(named("new"), span(8, 8)).unwrap_err();
        assert_eq!(refused.refusal, Refusal::Withdrawn);
        assert_eq!(refused.device.into_tag(), "new");
        assert_eq!(devices.remove(one).err(), Some(Refusal::Withdrawn));
        assert_eq!(
            devices.map::<Port>(one, span(8, 8)),
            Err(Refusal::Withdrawn)
        );
        assert_eq!(devices.withdraw().len(), 0);
        devices.restore(&withdrawn).unwrap();
        assert_eq!(read(&devices, 4), Ok("one"));
    }

    #[test]
    fn restored_devices_have_their_ids_and_spans() {
        let (mut devices, ids) = registry();
        let withdrawn = devices.withdraw();
        devices.restore(&withdrawn).unwrap();
        assert!(devices.view(|view| ids.iter().all(|id| view.device(*id).is_some())));
        assert_eq!(
            (read(&devices, 0), read(&devices, 7)),
            (Ok("two"), Ok("one"))
        );
        assert_eq!(devices.find::<Mmio>(0x1f).map(|(id, _)| id), Some(ids[0]));
        let again = devices.withdraw();
        let all = |of: &[Withdrawn<Named>]| format!("{of:?}");
        assert_eq!(all(&again), all(&withdrawn));
        devices.restore(&again).unwrap();
        // New devices have other ids, and the restored ones can be removed.
        let new = devices.add::<Port>(named("new"), span(8, 8)).unwrap();
        assert!(!ids.contains(&new));
        let removed = devices.remove(ids[0]).unwrap();
        assert!(removed.is_quiescent(), "the withdrawn copy is not a holder");
        assert_eq!(removed.wait(0).map(Device::into_tag).ok(), Some("one"));
    }

    #[test]
    fn a_replaced_device_keeps_its_id() {
        let (mut devices, [one, two, three]) = registry();
        let mut withdrawn = devices.withdraw();
        let spans = vec![(BusId::Port, span(0x30, 0x3f))];
        withdrawn[0] = withdrawn[0].replaced(named("other"), spans);
        devices.restore(&withdrawn).unwrap();
        assert_eq!(read(&devices, 4), Err(Miss::Unmapped));
        assert_eq!(read(&devices, 0x30), Ok("other"));
        assert_eq!(devices.find::<Port>(0x30).map(|(id, _)| id), Some(one));
        assert!(devices.find::<Mmio>(0x10).is_none());
        let left = devices.view(|view| view.devices().map(|of| of.id()).collect::<Vec<_>>());
        assert_eq!(left, [one, two, three]);
    }

    #[test]
    fn withdrawn_devices_are_restored_once() {
        let (mut devices, [one, ..]) = registry();
        let withdrawn = devices.withdraw();
        devices.restore(&withdrawn).unwrap();
        drop(devices.remove(one).unwrap());
        devices.restore(&withdrawn).unwrap();
        assert_eq!(read(&devices, 4), Err(Miss::Unmapped), "it came back");
        // And no other devices are added beside the registered ones.
        let (mut other, _) = registry();
        let of_other = other.withdraw();
        other.restore(&of_other).unwrap();
        let before = other.view(|view| view.devices().count());
        other.restore(&of_other[..1]).unwrap();
        assert_eq!(other.view(|view| view.devices().count()), before);
    }

    #[test]
    fn devices_stay_withdrawn_if_their_restoration_is_refused() {
        let (mut devices, [one, two, _]) = registry();
        let withdrawn = devices.withdraw();
        let mut wrong = withdrawn.clone();
        wrong[1] = wrong[1].replaced(named("wide"), vec![(BusId::Port, span(0, 4))]);
        let overlap = Refusal::Overlap {
            bus: BusId::Port,
            wanted: span(0, 4),
            owner: one,
            owned: span(4, 7),
        };
        assert_eq!(devices.restore(&wrong), Err(overlap));
        assert_eq!(read(&devices, 4), Err(Miss::Withdrawn));
        let spans = vec![(BusId::Port, span(0, 3))];
        wrong[1] = wrong[1].replaced(Device::new("no handler"), spans);
        let no_handler = Refusal::NoHandler {
            id: two,
            bus: BusId::Port,
        };
        assert_eq!(devices.restore(&wrong), Err(no_handler));
        assert_eq!(devices.restore(&withdrawn), Ok(()));
        assert_eq!(read(&devices, 4), Ok("one"));
    }

    #[test]
    fn a_device_is_restored_once_and_only_to_its_own_registry() {
        let (mut registry, mut other) = (Registry::<Named>::new(), Registry::<Named>::new());
        let span = Span::new(0, 7).unwrap();
        let id = registry.add::<Port>(named("one"), span).unwrap();
        other.add::<Port>(named("other"), span).unwrap();
        let withdrawn = registry.withdraw();
        let twice: Vec<_> = withdrawn.iter().chain(&withdrawn).cloned().collect();
        let unknown = |id| Refusal::Unknown { id, bus: None };
        assert_eq!(registry.restore(&twice), Err(unknown(id)));
        let others = other.withdraw();
        assert_eq!(registry.restore(&others), Err(unknown(others[0].id())));
        assert_eq!(registry.restore(&withdrawn), Ok(()));
        assert_eq!(registry.find::<Port>(0).map(|found| found.0), Some(id));
    }

    #[test]
    fn an_older_withdrawal_does_not_restore_a_removed_device() {
        let (mut devices, [one, ..]) = registry();
        let older = devices.withdraw();
        devices.restore(&older).unwrap();
        let removed = devices.remove(one).unwrap();
        assert!(removed.is_quiescent());
        let withdrawn = devices.withdraw();
        let unknown = Refusal::Unknown { id: one, bus: None };
        assert_eq!(devices.restore(&older), Err(unknown));
        assert_eq!(devices.restore(&withdrawn), Ok(()));
        assert!(devices.view(|view| view.device(one).is_none()));
    }
}
