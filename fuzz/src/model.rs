//! [`Model`]: what the registry should be, a map for each bus.

use std::collections::{BTreeMap, BTreeSet};

use axdevice::{DeviceId, Refusal, Span};

use crate::on::{BUSES, On, OnBus};

/// The first and the last address of a range.
pub(crate) type Ends = (usize, usize);

/// The ends of a range that is given in its bus's own terms, or why it is none.
pub(crate) fn ends<R: OnBus>((start, end): (usize, usize)) -> Result<Ends, Refusal> {
    let empty = if R::HALF_OPEN {
        start == end
    } else {
        start.checked_sub(1) == Some(end)
    };
    if empty {
        Err(Refusal::Empty { at: start })
    } else if end < start {
        Err(Refusal::Wrapping { start, end })
    } else {
        Ok((start, end - usize::from(R::HALF_OPEN)))
    }
}

fn span((first, last): Ends) -> Span {
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

/// What is in the place of a device: another one's number, and its range.
pub(crate) type Replacements = BTreeMap<DeviceId, (usize, Result<Ends, Refusal>)>;

/// Who owns what: by first address, on each bus.
#[derive(Clone, Debug, Default)]
pub(crate) struct Model([BTreeMap<usize, Owner>; 3]);

impl Model {
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

    /// Refuses what the lowest owner of some of it would share.
    pub(crate) fn room(&self, on: On, wanted: Ends) -> Result<(), Refusal> {
        let sharing = |&(&first, owner): &(&usize, &Owner)| {
            let apart = owner.last < wanted.0 || wanted.1 < first;
            !apart
        };
        match self.on(on).iter().find(sharing) {
            Some((&first, owner)) => Err(Refusal::Overlap {
                wanted: span(wanted),
                owner: owner.id,
                owned: span((first, owner.last)),
            }),
            None => Ok(()),
        }
    }

    /// Where a device is registered.
    pub(crate) fn find(&self, id: DeviceId) -> Option<(On, usize, Owner)> {
        BUSES.into_iter().find_map(|on| {
            let mut all = self.on(on).iter();
            let (&first, &owner) = all.find(|(_, owner)| owner.id == id)?;
            Some((on, first, owner))
        })
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
        let mut model = Self::default();
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

    /// A copy with all the changes made, and the numbers of the devices that they remove, in their
    /// order; or why the first that cannot be made is refused. What they move and add finds its place
    /// when all is gone that goes.
    pub(crate) fn with(&self, steps: &[Step]) -> Result<(Self, Vec<usize>), Refusal> {
        let mut model = self.clone();
        let mut coming = Vec::new();
        let mut removed = Vec::new();
        for step in steps {
            match *step {
                Step::Add(on, ends, id, number) => coming.push((on, ends, id, number)),
                Step::Remove(id) => removed.push(model.leave(&mut coming, id)?.1),
                Step::Move(on, id, ends) => {
                    let (at, number) = model.leave(&mut coming, id)?;
                    if at != on {
                        return Err(unknown(id));
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

    /// Takes a device out that is here or to come. Gives its bus and its number.
    fn leave(&mut self, coming: &mut Vec<Coming>, id: DeviceId) -> Result<(On, usize), Refusal> {
        if let Some(at) = coming.iter().position(|&(_, _, coming, _)| coming == id) {
            let (on, _, _, number) = coming.remove(at);
            return Ok((on, number));
        }
        let (on, first, owner) = self.find(id).ok_or(unknown(id))?;
        self.on_mut(on).remove(&first);
        Ok((on, owner.number))
    }
}

/// A device on its way into the model.
type Coming = (On, Ends, DeviceId, usize);

fn unknown(id: DeviceId) -> Refusal {
    Refusal::Unknown { id }
}
