//! [`Model`]: the expected registry, a map for each bus.

use std::collections::{BTreeMap, BTreeSet};

use axdevice::{BusId, DeviceId, Refusal, Span};

use crate::on::{BUSES, On, OnBus};

/// The first and the last address of a range.
pub(crate) type Ends = (usize, usize);

/// The ends of a range that is given in its bus's own terms, or the reason why it is not a range.
pub(crate) fn ends<R: OnBus>((start, end): (usize, usize)) -> Result<Ends, Refusal> {
    let empty = if R::HALF_OPEN {
        start == end
    } else {
        start.checked_sub(1) == Some(end)
    };
    if empty {
        Err(Refusal::Empty {
            bus: R::BUS,
            at: start,
        })
    } else if end < start {
        Err(Refusal::Backwards {
            bus: R::BUS,
            start,
            end,
        })
    } else {
        Ok((start, end - usize::from(R::HALF_OPEN)))
    }
}

pub(crate) fn span((first, last): Ends) -> Span {
    Span::new(first as u64, last as u64).expect("the ends of a range")
}

/// A registration.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Owner {
    pub(crate) id: DeviceId,
    /// The device's.
    pub(crate) number: usize,
    pub(crate) last: usize,
}

/// A change of the tables.
#[derive(Debug)]
pub(crate) enum Step {
    Add(On, Ends, DeviceId, usize),
    Remove(DeviceId),
    Move(On, DeviceId, Ends),
}

/// The replacement of a device: the number and the range of another device.
pub(crate) type Replacements = BTreeMap<DeviceId, (usize, Result<Ends, Refusal>)>;

/// The owners of addresses: by first address, on each bus; and the IVC range, which no MMIO device owns.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model([BTreeMap<usize, Owner>; 3], Option<Ends>);

impl Model {
    /// No devices, and an IVC range.
    pub(crate) fn with_ivc(ivc: Option<Ends>) -> Self {
        Self(Default::default(), ivc)
    }

    pub(crate) fn ivc(&self) -> Option<Ends> {
        self.1
    }

    /// Sets an IVC range aside, unless a device owns a part of it.
    pub(crate) fn set_ivc(&mut self, ivc: Ends) -> Result<(), Refusal> {
        self.room(On::Mmio, ivc)?;
        self.1 = Some(ivc);
        Ok(())
    }

    pub(crate) fn on(&self, on: On) -> &BTreeMap<usize, Owner> {
        &self.0[on as usize]
    }

    fn on_mut(&mut self, on: On) -> &mut BTreeMap<usize, Owner> {
        &mut self.0[on as usize]
    }

    /// The owner of an address.
    pub(crate) fn owner(&self, on: On, at: usize) -> Option<Owner> {
        let below = self.on(on).iter().filter(|&(&first, _)| first <= at);
        let owner = below.map(|(_, owner)| owner).find(|owner| at <= owner.last);
        owner.copied()
    }

    /// Refuses a range that would overlap the IVC range or a device; names the lowest owner.
    pub(crate) fn room(&self, on: On, wanted: Ends) -> Result<(), Refusal> {
        if let Some(ivc) = self.1.filter(|_| on == On::Mmio)
            && ivc.0 <= wanted.1
            && wanted.0 <= ivc.1
        {
            return Err(Refusal::Ivc {
                wanted: span(wanted),
                ivc: span(ivc),
            });
        }
        let sharing = |&(&first, owner): &(&usize, &Owner)| {
            let apart = owner.last < wanted.0 || wanted.1 < first;
            !apart
        };
        match self.on(on).iter().find(sharing) {
            Some((&first, owner)) => Err(Refusal::Overlap {
                bus: on.id(),
                wanted: span(wanted),
                owner: owner.id,
                owned: span((first, owner.last)),
            }),
            None => Ok(()),
        }
    }

    /// The registration of a device.
    pub(crate) fn find(&self, id: DeviceId) -> Option<(On, usize, Owner)> {
        BUSES.into_iter().find_map(|on| {
            let mut all = self.on(on).iter();
            let (&first, &owner) = all.find(|(_, owner)| owner.id == id)?;
            Some((on, first, owner))
        })
    }

    /// The memory map, with `named` after each id, and the name of the IVC range.
    pub(crate) fn map(&self, named: impl Fn(DeviceId) -> String, ivc: &str) -> String {
        let mut rows = Vec::new();
        for on in BUSES {
            let (place, bus) = (on as usize, on.id());
            rows.extend(self.on(on).iter().map(|(&first, owner)| {
                let (span, id) = (span((first, owner.last)), owner.id);
                let row = format!("{bus:<8} {span} {id}{}\n", named(id));
                (place, first, row)
            }));
        }
        rows.extend(self.1.map(|range| {
            let (bus, span) = ("ivc", span(range));
            let row = format!("{bus:<8} {span} {ivc}\n");
            (On::Mmio as usize, range.0, row)
        }));
        rows.sort();
        rows.into_iter().map(|(_, _, row)| row).collect()
    }

    /// The registrations on a bus, in their order.
    pub(crate) fn by_registration(&self, on: On) -> Vec<Owner> {
        let mut all: Vec<_> = self.on(on).values().copied().collect();
        all.sort_by_key(|owner| owner.id);
        all
    }

    /// The numbers of all devices.
    pub(crate) fn numbers(&self) -> BTreeSet<usize> {
        let owners = self.0.iter().flat_map(BTreeMap::values);
        owners.map(|owner| owner.number).collect()
    }

    /// A copy with other devices and ranges for some of the registrations.
    pub(crate) fn replaced(&self, replacements: &Replacements) -> Result<Self, Refusal> {
        let mut model = Self::with_ivc(self.1);
        for on in BUSES {
            for (&first, owner) in self.on(on) {
                let same = (owner.number, Ok((first, owner.last)));
                let &(number, ends) = replacements.get(&owner.id).unwrap_or(&same);
                model.add(on, ends?, owner.id, number)?;
            }
        }
        Ok(model)
    }

    fn add(&mut self, on: On, ends: Ends, id: DeviceId, number: usize) -> Result<(), Refusal> {
        self.room(on, ends)?;
        let (first, last) = ends;
        self.on_mut(on).insert(first, Owner { id, number, last });
        Ok(())
    }

    /// A copy with all changes made, and the numbers of the removed devices, in the order of the changes; or the
    /// reason why the first impossible change is refused. Removals come first: moved and added devices are placed
    /// afterwards.
    pub(crate) fn with(&self, steps: &[Step]) -> Result<(Self, Vec<usize>), Refusal> {
        let mut model = self.clone();
        let mut coming = Vec::new();
        let mut removed = Vec::new();
        for step in steps {
            match *step {
                Step::Add(on, ends, id, number) => coming.push((on, ends, id, number)),
                Step::Remove(id) => {
                    let left = model.leave(&mut coming, id);
                    removed.push(left.ok_or(unknown(id, None))?.1);
                }
                Step::Move(on, id, ends) => {
                    let unknown = unknown(id, Some(on.id()));
                    let (at, number) = model.leave(&mut coming, id).ok_or(unknown)?;
                    if at != on {
                        return Err(unknown);
                    }
                    coming.push((on, ends, id, number));
                }
            }
        }
        for (on, ends, id, number) in coming {
            model.add(on, ends, id, number)?;
        }
        Ok((model, removed))
    }

    /// Takes out a device that is registered or about to be. Returns its bus and its number.
    fn leave(&mut self, coming: &mut Vec<Coming>, id: DeviceId) -> Option<(On, usize)> {
        if let Some(at) = coming.iter().position(|&(_, _, coming, _)| coming == id) {
            let (on, _, _, number) = coming.remove(at);
            return Some((on, number));
        }
        let (on, first, owner) = self.find(id)?;
        self.on_mut(on).remove(&first);
        Some((on, owner.number))
    }
}

/// A device that is about to be registered.
type Coming = (On, Ends, DeviceId, usize);

fn unknown(id: DeviceId, bus: Option<BusId>) -> Refusal {
    Refusal::Unknown { id, bus }
}
