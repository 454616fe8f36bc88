//! [`Tables`]: the tables of all buses, which are published and replaced as one, and how a batch of
//! edits changes a copy of them.

use alloc::vec::Vec;
use core::fmt;

use crate::{
    bus::{Bus, BusId, Family, Handlers, Mmio, On, PerBus, Port, SysReg},
    device::{Device, DeviceId},
    mapping::Mapping,
    refusal::Refusal,
    registrations::Registrations,
    reserve::{reserve, reserved},
    span::Span,
    sync::Arc,
    table::{Row, Table},
};

/// A registered device.
///
/// Only the tables that list the device hold lasting counts of its `Arc<Registration>`: so the count shows whether any
/// tables still list it.
pub struct Registration<F: Handlers> {
    pub(crate) id: DeviceId,
    pub(crate) device: Device<F>,
}

impl<F: Handlers> Registration<F> {
    /// The id.
    pub fn id(&self) -> DeviceId {
        self.id
    }

    /// The handlers and the tag.
    pub fn device(&self) -> &Device<F> {
        &self.device
    }
}

impl<F: Handlers> fmt::Debug for Registration<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Registration")
            .field("id", &self.id)
            .field("device", &self.device)
            .finish()
    }
}

/// One consistent set of tables, which is published as a whole. Pure data.
pub(crate) struct Tables<F: Handlers> {
    buses: PerBus<TableOf<F>>,
    registrations: Registrations<Registration<F>>,
    /// The withdrawn devices, if these tables are empty and stand in for them.
    withdrawal: Option<Withdrawal>,
}

/// [Withdrawn](crate::withdraw) devices.
struct Withdrawal {
    number: u64,
    /// The spans that they owned, in the order of [`Tables::mappings`].
    mappings: Vec<Mapping>,
}

/// The family of tables.
pub(crate) struct TableOf<F>(F);

impl<F: Handlers> Family for TableOf<F> {
    type Of<K: Bus> = Table<On<F, K>>;
}

/// A step of a change.
pub(crate) enum Edit<F: Handlers> {
    /// Registers a device, without a span.
    Add(Arc<Registration<F>>),
    Map(Mapping),
    Unmap(Mapping),
    /// Maps one span, which replaces all spans of the device on the bus.
    Remap(Mapping),
    Remove(DeviceId),
}

/// The result of a change.
pub(crate) struct Edited<F: Handlers> {
    pub(crate) tables: Tables<F>,
    /// The removed devices, in the order of the removals.
    pub(crate) removed: Vec<Arc<Registration<F>>>,
}

impl<F: Handlers> Tables<F> {
    pub(crate) const fn new() -> Self {
        Self {
            buses: PerBus {
                mmio: Table::new(),
                port: Table::new(),
                sys_reg: Table::new(),
            },
            registrations: Registrations::new(),
            withdrawal: None,
        }
    }

    /// Empty tables that stand in for these tables, whose devices are withdrawn.
    pub(crate) fn withdrawn(&self, number: u64) -> Self {
        let mappings = self.mappings().collect();
        Self {
            withdrawal: Some(Withdrawal { number, mappings }),
            ..Self::new()
        }
    }

    /// The number of the withdrawal that these tables stand in for.
    pub(crate) fn withdrawal(&self) -> Option<u64> {
        self.withdrawal.as_ref().map(|of| of.number)
    }

    /// All mappings by bus and address, including those of withdrawn devices.
    pub(crate) fn mappings(&self) -> impl Iterator<Item = Mapping> {
        let withdrawn = self.withdrawal.iter().flat_map(|of| &of.mappings).copied();
        let mmio = self.mappings_on::<Mmio>();
        let others = self
            .mappings_on::<Port>()
            .chain(self.mappings_on::<SysReg>());
        withdrawn.chain(mmio).chain(others)
    }

    fn mappings_on<K: Bus>(&self) -> impl Iterator<Item = Mapping> {
        self.of::<K>().rows().iter().map(|row| Mapping {
            id: self.owner(row).id,
            bus: K::ID,
            span: row.span,
        })
    }

    /// The table of bus `K`.
    #[inline(always)]
    pub(crate) fn of<K: Bus>(&self) -> &Table<On<F, K>> {
        K::of(&self.buses)
    }

    /// The registration of the device that owns a row of these tables.
    pub(crate) fn owner<D: ?Sized>(&self, row: &Row<D>) -> &Registration<F> {
        let owner = self.registrations.get(row.index);
        owner.expect("a row has an owner")
    }

    /// An exclusive upper bound of the devices' indices.
    pub(crate) fn places(&self) -> usize {
        self.registrations.places()
    }

    /// The id of the device at an index, if one is there.
    pub(crate) fn id_at(&self, index: usize) -> Option<DeviceId> {
        self.registrations.get(index).map(|of| of.id)
    }

    /// Calls `see` with the index and the id of every device that is here and may not have been at that index in
    /// the `old` tables.
    pub(crate) fn for_each_new(&self, old: &Self, mut see: impl FnMut(usize, DeviceId)) {
        let new = self.registrations.not_shared_with(&old.registrations);
        new.for_each(|(index, of)| see(index, of.id));
    }

    /// All registrations, in no particular order.
    pub(crate) fn registrations(&self) -> impl Iterator<Item = &Registration<F>> {
        self.registrations.iter().map(|of| &**of)
    }

    /// A device, if it is registered here.
    pub(crate) fn registration(&self, id: DeviceId) -> Option<&Registration<F>> {
        let index = self.index_of(id, None).ok()?;
        self.registrations.get(index).map(|of| &**of)
    }

    /// A copy with all of `edits` made, or none of them. No device can own addresses in `aside`.
    ///
    /// Only the result matters. First the edits are applied in their order: devices are registered and removed, and
    /// existing spans are unmapped. Then the spans that the result has are mapped. So spans may be swapped: overlaps in
    /// between are not checked.
    ///
    /// # Errors
    ///
    /// The reason of the first edit that cannot be made. An overlap is reported only if there is no other reason.
    pub(crate) fn edited(
        &self,
        edits: &[Edit<F>],
        aside: &[(BusId, Span)],
    ) -> Result<Edited<F>, Refusal> {
        if self.withdrawal.is_some() {
            return Err(Refusal::Withdrawn);
        }
        let maps = |bus| {
            let maps = edits
                .iter()
                .filter(|edit| matches!(edit, Edit::Map(new) | Edit::Remap(new) if new.bus == bus));
            maps.count()
        };
        let (mmio, port, sys_reg) = (maps(BusId::Mmio), maps(BusId::Port), maps(BusId::SysReg));
        let mut editor = Editor {
            tables: Self {
                buses: PerBus {
                    mmio: self.buses.mmio.try_clone(mmio)?,
                    port: self.buses.port.try_clone(port)?,
                    sys_reg: self.buses.sys_reg.try_clone(sys_reg)?,
                },
                registrations: self.registrations.try_clone()?,
                withdrawal: None,
            },
            removed: Vec::new(),
            mapped: reserved(mmio + port + sys_reg)?,
        };
        edits.iter().try_for_each(|edit| editor.edit(edit))?;
        editor.finish(aside)
    }

    /// The index of a device. `bus` is the bus of the change, or `None` for all buses.
    fn index_of(&self, id: DeviceId, bus: Option<BusId>) -> Result<usize, Refusal> {
        let index = self.registrations.index_of(id.number());
        // The id may be from another registry.
        let index =
            index.filter(|&index| self.registrations.get(index).is_some_and(|of| of.id == id));
        index.ok_or(Refusal::Unknown { id, bus })
    }

    /// The index of a device that has a handler for the bus.
    fn index_on(&self, Mapping { id, bus, .. }: Mapping) -> Result<usize, Refusal> {
        let index = self.index_of(id, Some(bus))?;
        let of = self.registrations.get(index).expect("it was found there");
        let handlers = &of.device.handlers;
        let has_handler = match bus {
            BusId::Mmio => handlers.mmio.is_some(),
            BusId::Port => handlers.port.is_some(),
            BusId::SysReg => handlers.sys_reg.is_some(),
        };
        let no_handler = Refusal::NoHandler { id, bus };
        has_handler.then_some(index).ok_or(no_handler)
    }

    /// Maps a span to the device at an index that [`index_on`](Self::index_on) has returned.
    fn map(&mut self, index: usize, Mapping { bus, span, .. }: Mapping) -> Result<(), Refusal> {
        match bus {
            BusId::Mmio => self.map_on::<Mmio>(index, span),
            BusId::Port => self.map_on::<Port>(index, span),
            BusId::SysReg => self.map_on::<SysReg>(index, span),
        }
    }

    fn map_on<K: Bus>(&mut self, index: usize, span: Span) -> Result<(), Refusal> {
        let of = self.registrations.get(index).expect("it was found there");
        let handler = of.device.handler::<K>().expect("it was looked for");
        // INVARIANT (Owned): the registration at the index has the handler.
        let row = Row::new(span, handler, index);
        let Some(overlapped) = K::of_mut(&mut self.buses).insert(row)? else {
            return Ok(());
        };
        let owner = self.registrations.get(overlapped.index);
        Err(Refusal::Overlap {
            bus: K::ID,
            wanted: span,
            owner: owner.expect("a row has an owner").id,
            owned: overlapped.span,
        })
    }

    /// Unmaps one span of a device. Returns whether the device had it.
    fn unmap(&mut self, index: usize, Mapping { bus, span, .. }: Mapping) -> Result<bool, Refusal> {
        match bus {
            BusId::Mmio => self.buses.mmio.remove(index, span),
            BusId::Port => self.buses.port.remove(index, span),
            BusId::SysReg => self.buses.sys_reg.remove(index, span),
        }
    }

    /// Unmaps all spans of a device on a bus. Returns whether it had any.
    fn unmap_all(&mut self, index: usize, bus: BusId) -> Result<bool, Refusal> {
        match bus {
            BusId::Mmio => self.buses.mmio.remove_all(index),
            BusId::Port => self.buses.port.remove_all(index),
            BusId::SysReg => self.buses.sys_reg.remove_all(index),
        }
    }

    fn remove(&mut self, id: DeviceId) -> Result<Arc<Registration<F>>, Refusal> {
        let index = self.index_of(id, None)?;
        for bus in [BusId::Mmio, BusId::Port, BusId::SysReg] {
            self.unmap_all(index, bus)?;
        }
        // INVARIANT (Owned): the device has no row left.
        let removed = self.registrations.remove(index);
        Ok(removed.expect("it was found there"))
    }
}

/// Tables that are being edited.
struct Editor<F: Handlers> {
    tables: Tables<F>,
    removed: Vec<Arc<Registration<F>>>,
    /// The mappings of the result, with their devices' indices; there is room for all. A device's mappings are removed
    /// with it.
    mapped: Vec<(usize, Mapping)>,
}

impl<F: Handlers> Editor<F> {
    /// Makes one more edit. Only records the spans that it maps.
    fn edit(&mut self, edit: &Edit<F>) -> Result<(), Refusal> {
        match *edit {
            Edit::Add(ref of) => {
                self.tables
                    .registrations
                    .insert(of.id.number(), of.clone())?;
            }
            Edit::Map(new) => self.mapped.push((self.tables.index_on(new)?, new)),
            Edit::Unmap(old) => self.unmap(old)?,
            Edit::Remap(new) => self.remap(new)?,
            Edit::Remove(id) => {
                self.mapped.retain(|(_, new)| new.id != id);
                let removed = self.tables.remove(id)?;
                reserve(&mut self.removed, 1)?;
                self.removed.push(removed);
            }
        }
        Ok(())
    }

    fn unmap(&mut self, old: Mapping) -> Result<(), Refusal> {
        let index = self.tables.index_on(old)?;
        match self.mapped.iter().rposition(|(_, new)| *new == old) {
            Some(at) => drop(self.mapped.remove(at)),
            None if self.tables.unmap(index, old)? => {}
            None => return Err(not_mapped(old, Some(old.span))),
        }
        Ok(())
    }

    fn remap(&mut self, new: Mapping) -> Result<(), Refusal> {
        let index = self.tables.index_on(new)?;
        let before = self.mapped.len();
        self.mapped
            .retain(|(_, old)| (old.id, old.bus) != (new.id, new.bus));
        let was_mapped = self.tables.unmap_all(index, new.bus)? || self.mapped.len() < before;
        if !was_mapped {
            return Err(not_mapped(new, None));
        }
        self.mapped.push((index, new));
        Ok(())
    }

    /// Maps the recorded spans, none of which may overlap `aside`.
    fn finish(mut self, aside: &[(BusId, Span)]) -> Result<Edited<F>, Refusal> {
        for &(index, new) in &self.mapped {
            not_aside(new, aside)?;
            self.tables.map(index, new)?;
        }
        Ok(Edited {
            tables: self.tables,
            removed: self.removed,
        })
    }
}

fn not_mapped(Mapping { id, bus, .. }: Mapping, span: Option<Span>) -> Refusal {
    Refusal::NotMapped { id, bus, span }
}

/// Checks that a device may own all addresses of a new mapping.
fn not_aside(Mapping { bus, span, .. }: Mapping, aside: &[(BusId, Span)]) -> Result<(), Refusal> {
    let shared = |&&(of, aside): &&(BusId, Span)| of == bus && aside.overlaps(span);
    match aside.iter().find(shared) {
        Some(&(_, aside)) => Err(Refusal::SetAside {
            bus,
            wanted: span,
            aside,
        }),
        None => Ok(()),
    }
}

impl<F: Handlers> fmt::Debug for Tables<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tables")
            .field("mmio", &self.buses.mmio)
            .field("port", &self.buses.port)
            .field("sys_reg", &self.buses.sys_reg)
            .field("withdrawn", &self.withdrawal.is_some())
            .finish_non_exhaustive()
    }
}

#[cfg(all(test, not(loom)))]
mod tests {
    use super::*;
    use crate::{
        device::DeviceIds,
        testing::{Named, named},
    };

    type Edits = Vec<Edit<Named>>;

    fn span(first: u64, last: u64) -> Span {
        Span::new(first, last).unwrap()
    }

    fn on<K: Bus>(id: DeviceId, first: u64, last: u64) -> Mapping {
        let (bus, span) = (K::ID, span(first, last));
        Mapping { id, bus, span }
    }

    fn add(id: DeviceId) -> Edit<Named> {
        let device = named("device");
        Edit::Add(Arc::new(Registration { id, device }))
    }

    /// A span of ports.
    fn map(id: DeviceId, first: u64, last: u64) -> Edit<Named> {
        Edit::Map(on::<Port>(id, first, last))
    }

    fn unmap(id: DeviceId, first: u64, last: u64) -> Edit<Named> {
        Edit::Unmap(on::<Port>(id, first, last))
    }

    /// Three devices, that own the ports 0x10 to 0x1f, 0x20 to 0x2f and 0x30 to 0x3f.
    struct Three {
        ids: DeviceIds,
        one: DeviceId,
        two: DeviceId,
        three: DeviceId,
        tables: Tables<Named>,
    }

    impl Three {
        fn new() -> Self {
            let ids = DeviceIds::new();
            let [one, two, three] = [(); 3].map(|()| ids.next());
            let added = [one, two, three].into_iter().zip([0x10, 0x20, 0x30]);
            let edits: Edits = added
                .flat_map(|(id, first)| [add(id), map(id, first, first + 0xf)])
                .collect();
            let tables = Tables::new().edited(&edits, &[]).unwrap().tables;
            Self {
                ids,
                one,
                two,
                three,
                tables,
            }
        }

        fn edited<const N: usize>(&self, edits: [Edit<Named>; N]) -> Tables<Named> {
            self.tables.edited(&edits, &[]).unwrap().tables
        }

        fn refused<const N: usize>(&self, edits: [Edit<Named>; N]) -> Refusal {
            let refusal = self.tables.edited(&edits, &[]).err().expect("it was made");
            assert_eq!(spans(&self.tables), spans(&Self::new().tables));
            refusal
        }
    }

    fn owner<K: Bus>(tables: &Tables<Named>, addr: u64) -> Option<DeviceId> {
        let row = tables.of::<K>().find(addr)?;
        Some(tables.owner(row).id)
    }

    /// All spans of ports, with the number of the owner.
    fn spans(tables: &Tables<Named>) -> Vec<(u64, u64, u64)> {
        let rows = tables.of::<Port>().rows().iter();
        rows.map(|row| {
            let owner = tables.owner(row).id.number();
            (row.span.first(), row.span.last(), owner)
        })
        .collect()
    }

    #[test]
    fn buses_do_not_mix() {
        let of = Three::new();
        let tables = of.edited([
            Edit::Map(on::<Mmio>(of.two, 0x10, 0x1f)),
            Edit::Map(on::<SysReg>(of.three, 0x10, 0x10)),
        ]);
        assert_eq!(owner::<Port>(&tables, 0x10), Some(of.one));
        assert_eq!(owner::<Mmio>(&tables, 0x10), Some(of.two));
        assert_eq!(owner::<SysReg>(&tables, 0x10), Some(of.three));
        assert_eq!(owner::<Mmio>(&tables, 0x20), None);
        let edits = [Edit::Unmap(on::<Mmio>(of.two, 0x10, 0x1f))];
        let tables = tables.edited(&edits, &[]).unwrap().tables;
        assert_eq!(owner::<Mmio>(&tables, 0x10), None);
        assert_eq!(owner::<Port>(&tables, 0x20), Some(of.two));
        let edits = [Edit::Remap(on::<SysReg>(of.three, 5, 5))];
        let tables = tables.edited(&edits, &[]).unwrap().tables;
        assert_eq!(owner::<SysReg>(&tables, 5), Some(of.three));
        assert_eq!(owner::<Port>(&tables, 0x30), Some(of.three));
    }

    #[test]
    fn a_refused_edit_refuses_the_whole_batch() {
        let of = Three::new();
        let new = of.ids.next();
        let overlap = of.refused([
            add(new),
            map(new, 0, 7),
            Edit::Remove(of.three),
            map(new, 8, 0x10),
        ]);
        let owned = span(0x10, 0x1f);
        let wanted = span(8, 0x10);
        let owner = of.one;
        assert_eq!(
            overlap,
            Refusal::Overlap {
                bus: BusId::Port,
                wanted,
                owner,
                owned
            }
        );
        let not_mapped = of.refused([unmap(of.one, 0x10, 0x1f), unmap(of.two, 0x20, 0x2e)]);
        let (id, bus, span) = (of.two, BusId::Port, Some(span(0x20, 0x2e)));
        assert_eq!(not_mapped, Refusal::NotMapped { id, bus, span });
    }

    #[test]
    fn a_batch_may_map_over_spans_that_it_frees_before_or_after() {
        let of = Three::new();
        // In either order of recording.
        let first = [map(of.two, 0, 0x1f), unmap(of.one, 0x10, 0x1f)];
        let second = [unmap(of.one, 0x10, 0x1f), map(of.two, 0, 0x1f)];
        let spans_after = [(0, 0x1f, 2), (0x20, 0x2f, 2), (0x30, 0x3f, 3)];
        assert_eq!(spans(&of.edited(first)), spans_after);
        assert_eq!(spans(&of.edited(second)), spans_after);
        let first = of.edited([map(of.two, 0, 0x1f), Edit::Remove(of.one)]);
        let second = of.edited([Edit::Remove(of.one), map(of.two, 0, 0x1f)]);
        assert_eq!(spans(&first), spans_after);
        assert_eq!(spans(&second), spans_after);
    }

    #[test]
    fn changes_of_one_device_are_made_in_their_order() {
        let of = Three::new();
        let remap = |first, last| Edit::Remap(on::<Port>(of.one, first, last));
        let numbers = |tables: Tables<Named>| {
            let of_one = spans(&tables).into_iter().filter(|(.., owner)| *owner == 1);
            of_one.map(|(first, ..)| first).collect::<Vec<_>>()
        };
        let mapped_first = of.edited([map(of.one, 0, 1), remap(4, 5)]);
        let remapped_first = of.edited([remap(4, 5), map(of.one, 0, 1)]);
        assert_eq!(numbers(mapped_first), [4]);
        assert_eq!(numbers(remapped_first), [0, 4]);
        assert_eq!(numbers(of.edited([remap(4, 5), remap(6, 7)])), [6]);
        // A device exists until it is removed.
        let unknown = |bus| Refusal::Unknown { id: of.one, bus };
        let twice = [map(of.one, 0, 1), Edit::Remove(of.one)];
        assert_eq!(numbers(of.edited(twice)), []);
        assert_eq!(
            of.refused([Edit::Remove(of.one), map(of.one, 0, 1)]),
            unknown(Some(BusId::Port))
        );
        assert_eq!(
            of.refused([Edit::Remove(of.one), unmap(of.one, 0x10, 0x1f)]),
            unknown(Some(BusId::Port))
        );
        assert_eq!(
            of.refused([Edit::Remove(of.one), Edit::Remove(of.one)]),
            unknown(None)
        );
    }

    #[test]
    fn two_devices_swap_and_three_change_places_in_a_circle() {
        let of = Three::new();
        let swapped = of.edited([
            unmap(of.one, 0x10, 0x1f),
            map(of.one, 0x20, 0x2f),
            unmap(of.two, 0x20, 0x2f),
            map(of.two, 0x10, 0x1f),
        ]);
        let all = [(0x10, 0x1f, 2), (0x20, 0x2f, 1), (0x30, 0x3f, 3)];
        assert_eq!(spans(&swapped), all);
        let remap = |id, first, last| Edit::Remap(on::<Port>(id, first, last));
        let turned = of.edited([
            remap(of.one, 0x20, 0x2f),
            remap(of.two, 0x30, 0x3f),
            remap(of.three, 0x10, 0x1f),
        ]);
        let all = [(0x10, 0x1f, 3), (0x20, 0x2f, 1), (0x30, 0x3f, 2)];
        assert_eq!(spans(&turned), all);
    }

    #[test]
    fn an_unmapped_span_can_be_mapped_again_in_the_same_batch() {
        let of = Three::new();
        let again = of.edited([unmap(of.one, 0x10, 0x1f), map(of.one, 0x10, 0x1f)]);
        assert_eq!(spans(&again), spans(&of.tables));
        let less = of.edited([unmap(of.one, 0x10, 0x1f), map(of.one, 0x11, 0x1e)]);
        assert_eq!(spans(&less)[0], (0x11, 0x1e, 1));
    }

    #[test]
    fn a_span_mapped_in_a_batch_can_be_unmapped_in_it() {
        let of = Three::new();
        let nothing = of.edited([map(of.one, 0, 1), unmap(of.one, 0, 1)]);
        assert_eq!(spans(&nothing), spans(&of.tables));
        // Also a span that would overlap. Of two equal spans, only one is unmapped.
        let nothing = of.edited([map(of.one, 0x20, 0x20), unmap(of.one, 0x20, 0x20)]);
        assert_eq!(spans(&nothing), spans(&of.tables));
        let one = of.edited([map(of.one, 0, 1), map(of.one, 0, 1), unmap(of.one, 0, 1)]);
        assert_eq!(spans(&one)[0], (0, 1, 1));
        let not_mapped = of.refused([map(of.one, 0, 1), unmap(of.two, 0, 1)]);
        assert!(matches!(not_mapped, Refusal::NotMapped { id, .. } if id == of.two));
    }

    #[test]
    fn a_device_takes_the_span_and_the_index_of_one_that_is_removed() {
        let of = Three::new();
        let new = of.ids.next();
        let edits = [Edit::Remove(of.two), add(new), map(new, 0x20, 0x2f)];
        let Edited { tables, removed } = of.tables.edited(&edits, &[]).unwrap();
        assert!(removed.iter().map(|of| of.id).eq([of.two]));
        let all = [(0x10, 0x1f, 1), (0x20, 0x2f, new.number()), (0x30, 0x3f, 3)];
        assert_eq!(spans(&tables), all);
        let index = |tables: &Tables<Named>| tables.of::<Port>().find(0x20).map(|row| row.index);
        assert_eq!(index(&tables), index(&of.tables));
        assert!(tables.registration(of.two).is_none());
        // Spans that were recorded for the removed one are not mapped to the new one.
        let edits = [
            map(of.two, 0, 1),
            Edit::Remove(of.two),
            add(new),
            map(new, 2, 3),
        ];
        let tables = of.edited(edits);
        assert_eq!(owner::<Port>(&tables, 0), None);
        assert_eq!(owner::<Port>(&tables, 2), Some(new));
    }

    #[test]
    fn a_device_is_added_and_removed_by_one_batch() {
        let of = Three::new();
        let new = of.ids.next();
        let edits = [
            add(new),
            map(new, 0x10, 0x1f),
            Edit::Remove(new),
            Edit::Remove(of.three),
        ];
        let Edited { tables, removed } = of.tables.edited(&edits, &[]).unwrap();
        assert!(removed.iter().map(|of| of.id).eq([new, of.three]));
        assert_eq!(spans(&tables), spans(&of.tables)[..2]);
        assert_eq!(tables.registrations().count(), 2);
    }

    #[test]
    fn a_removed_device_loses_all_buses() {
        let of = Three::new();
        let more = [
            Edit::Map(on::<Mmio>(of.one, 0, 9)),
            Edit::Map(on::<SysReg>(of.one, 7, 7)),
            map(of.one, 0, 1),
        ];
        let tables = of.edited(more);
        let tables = tables.edited(&[Edit::Remove(of.one)], &[]).unwrap().tables;
        assert_eq!(owner::<Mmio>(&tables, 0), None);
        assert_eq!(owner::<SysReg>(&tables, 7), None);
        assert_eq!(spans(&tables), spans(&of.tables)[1..]);
    }

    #[test]
    fn a_device_needs_a_handler_for_the_bus() {
        let of = Three::new();
        let id = of.ids.next();
        let add = || {
            let device = Device::new("ports").on::<Port>("ports".into());
            Edit::Add(Arc::new(Registration { id, device }))
        };
        let no_handler = |bus| Refusal::NoHandler { id, bus };
        let refused = of.refused([add(), Edit::Map(on::<Mmio>(id, 0, 1))]);
        assert_eq!(refused, no_handler(BusId::Mmio));
        let refused = of.refused([add(), Edit::Map(on::<SysReg>(id, 0, 1))]);
        assert_eq!(refused, no_handler(BusId::SysReg));
        // Also to unmap its spans there.
        let refused = of.refused([add(), Edit::Unmap(on::<Mmio>(id, 0, 1))]);
        assert_eq!(refused, no_handler(BusId::Mmio));
        let refused = of.refused([add(), Edit::Remap(on::<Mmio>(id, 0, 1))]);
        assert_eq!(refused, no_handler(BusId::Mmio));
        let tables = of.edited([add(), map(id, 0, 1)]);
        assert_eq!(owner::<Port>(&tables, 0), Some(id));
    }

    #[test]
    fn a_device_must_own_exactly_the_span_to_be_unmapped() {
        let of = Three::new();
        let id = of.one;
        let not_mapped = |bus, span| Refusal::NotMapped { id, bus, span };
        for (first, last) in [(0x10, 0x1e), (0x11, 0x1f), (0x20, 0x2f), (0, 5)] {
            let port = not_mapped(BusId::Port, Some(span(first, last)));
            assert_eq!(of.refused([unmap(id, first, last)]), port);
        }
        let whole = Some(span(0x10, 0x1f));
        let twice = [unmap(id, 0x10, 0x1f), unmap(id, 0x10, 0x1f)];
        assert_eq!(of.refused(twice), not_mapped(BusId::Port, whole));
        let mmio = of.refused([Edit::Unmap(on::<Mmio>(id, 0x10, 0x1f))]);
        assert_eq!(mmio, not_mapped(BusId::Mmio, whole));
        // To be remapped, it must own some span there.
        let mmio = of.refused([Edit::Remap(on::<Mmio>(id, 0, 1))]);
        assert_eq!(mmio, not_mapped(BusId::Mmio, None));
        let remap = Edit::Remap(on::<Port>(id, 0, 1));
        let port = of.refused([unmap(id, 0x10, 0x1f), remap]);
        assert_eq!(port, not_mapped(BusId::Port, None));
    }

    #[test]
    fn a_remap_replaces_all_spans_on_the_bus() {
        let of = Three::new();
        let edits = [
            map(of.one, 0, 1),
            map(of.one, 0x40, 0x41),
            Edit::Map(on::<Mmio>(of.one, 0, 9)),
        ];
        let tables = of.edited(edits);
        let edits = [Edit::Remap(on::<Port>(of.one, 0x18, 0x1f))];
        let tables = tables.edited(&edits, &[]).unwrap().tables;
        let all = [(0x18, 0x1f, 1), (0x20, 0x2f, 2), (0x30, 0x3f, 3)];
        assert_eq!(spans(&tables), all);
        assert_eq!(owner::<Mmio>(&tables, 9), Some(of.one));
    }

    #[test]
    fn ids_that_were_removed_or_are_another_registrys_are_unknown() {
        let of = Three::new();
        let foreign = Three::new().one;
        assert_eq!(foreign.number(), of.one.number());
        let never = of.ids.next();
        for id in [foreign, never] {
            let bus = Some(BusId::Port);
            let unknown = Refusal::Unknown { id, bus };
            assert_eq!(of.refused([map(id, 0, 1)]), unknown);
            assert_eq!(of.refused([unmap(id, 0x10, 0x1f)]), unknown);
            assert_eq!(of.refused([Edit::Remap(on::<Port>(id, 0, 1))]), unknown);
            let unknown = Refusal::Unknown { id, bus: None };
            assert_eq!(of.refused([Edit::Remove(id)]), unknown);
            assert!(of.tables.registration(id).is_none());
        }
        // Before the device is added.
        let early = [map(never, 0, 1), add(never)];
        let bus = Some(BusId::Port);
        assert_eq!(of.refused(early), Refusal::Unknown { id: never, bus });
        let tables = of.edited([Edit::Remove(of.one)]);
        let refused = tables.edited(&[map(of.one, 0, 1)], &[]).err();
        assert_eq!(refused, Some(Refusal::Unknown { id: of.one, bus }));
    }

    #[test]
    fn an_overlap_within_a_batch_names_the_owner_recorded_earlier() {
        let of = Three::new();
        let overlap = |wanted, owner, owned| Refusal::Overlap {
            bus: BusId::Port,
            wanted,
            owner,
            owned,
        };
        let refused = of.refused([map(of.two, 0, 7), map(of.one, 4, 4)]);
        assert_eq!(refused, overlap(span(4, 4), of.two, span(0, 7)));
        let refused = of.refused([map(of.one, 4, 4), map(of.two, 0, 7)]);
        assert_eq!(refused, overlap(span(0, 7), of.one, span(4, 4)));
        // Also if the same device owns both.
        let refused = of.refused([map(of.one, 4, 4), map(of.one, 4, 4)]);
        assert_eq!(refused, overlap(span(4, 4), of.one, span(4, 4)));
    }

    #[test]
    fn an_overlap_comes_after_all_other_reasons() {
        let of = Three::new();
        let foreign = Three::new().one;
        let overlap = || map(of.one, 0x20, 0x20);
        let bus = BusId::Port;
        let unknown = Refusal::Unknown {
            id: foreign,
            bus: Some(bus),
        };
        assert_eq!(of.refused([overlap(), map(foreign, 0, 1)]), unknown);
        let id = of.ids.next();
        let device = Device::new("none");
        let added = Edit::Add(Arc::new(Registration { id, device }));
        let no_handler = Refusal::NoHandler { id, bus };
        assert_eq!(of.refused([added, overlap(), map(id, 0, 1)]), no_handler);
        // Of the other reasons, the first is returned.
        let refused = of.refused([map(foreign, 0, 1), unmap(of.one, 0, 1)]);
        assert_eq!(refused, unknown);
    }

    #[test]
    fn a_span_set_aside_cannot_be_mapped_to_a_device() {
        let of = Three::new();
        let aside = [
            (BusId::Mmio, span(0, 0xff)),
            (BusId::Port, span(0x40, 0x4f)),
        ];
        let edited =
            |edits: &[Edit<Named>]| of.tables.edited(edits, &aside).map(|edited| edited.tables);
        let refused = edited(&[map(of.one, 0, 1), map(of.two, 0x4f, 0x50)]).err();
        let port = Refusal::SetAside {
            bus: BusId::Port,
            wanted: span(0x4f, 0x50),
            aside: span(0x40, 0x4f),
        };
        assert_eq!(refused, Some(port));
        let mmio = |first, last| Edit::Map(on::<Mmio>(of.one, first, last));
        let refused = edited(&[mmio(0x80, 0x80)]).err();
        assert!(matches!(
            refused,
            Some(Refusal::SetAside {
                bus: BusId::Mmio,
                ..
            })
        ));
        let remap = Edit::Remap(on::<Port>(of.one, 0, 0x40));
        assert!(matches!(
            edited(&[remap]).err(),
            Some(Refusal::SetAside { .. })
        ));
        // Allowed: beside it, on another bus, and a span that is unmapped again.
        let unmap_again = [map(of.one, 0x40, 0x40), unmap(of.one, 0x40, 0x40)];
        for edits in [
            vec![map(of.one, 0x50, 0x50)],
            vec![mmio(0x100, 0x100)],
            vec![Edit::Map(on::<SysReg>(of.one, 0x40, 0x40))],
            unmap_again.into(),
        ] {
            assert!(edited(&edits).is_ok());
        }
        // Other reasons have priority.
        let unknown = edited(&[map(of.one, 0x40, 0x40), Edit::Remove(of.ids.next())]).err();
        assert!(matches!(unknown, Some(Refusal::Unknown { .. })));
    }

    #[test]
    fn withdrawn_tables_are_not_edited() {
        let of = Three::new();
        let tables = of.tables.withdrawn(7);
        let edits = [add(of.ids.next())];
        assert_eq!(tables.edited(&edits, &[]).err(), Some(Refusal::Withdrawn));
        assert_eq!(tables.edited(&[], &[]).err(), Some(Refusal::Withdrawn));
        assert!(tables.mappings().eq(of.tables.mappings()), "same mappings");
    }

    #[test]
    fn mappings_come_by_bus_and_address() {
        let of = Three::new();
        let more = [
            Edit::Map(on::<SysReg>(of.one, 0, 0)),
            Edit::Map(on::<Mmio>(of.two, 7, 8)),
            Edit::Map(on::<Mmio>(of.three, 0, 1)),
        ];
        let mappings: Vec<_> = of.edited(more).mappings().collect();
        let expected = [
            on::<Mmio>(of.three, 0, 1),
            on::<Mmio>(of.two, 7, 8),
            on::<Port>(of.one, 0x10, 0x1f),
            on::<Port>(of.two, 0x20, 0x2f),
            on::<Port>(of.three, 0x30, 0x3f),
            on::<SysReg>(of.one, 0, 0),
        ];
        assert_eq!(mappings, expected);
    }
}
