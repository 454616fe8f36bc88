//! Changes of the tables, in the registry and in the model.

use std::{rc::Rc, sync::Arc};

use axdevice::{Batch, Refusal, ThreadSafe};

use super::{
    input::{Change, Ending, Extent, FirstUse, Which},
    session::{Session, Vcpu},
};
use crate::{
    model::{Model, Replacements, Step, ends},
    on::{On, OnBus, on_bus},
};

/// The reason why an update was not made.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Failure {
    Refused(Refusal),
    /// By the closure itself.
    Abandoned,
}

impl From<Refusal> for Failure {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl Session {
    pub(crate) fn add<R: OnBus>(&mut self, extent: Extent) {
        let range = extent.range::<R>();
        let (number, device) = self.make::<R>(range);
        let room = ends::<R>(range).and_then(|ends| self.model.room(R::ON, ends).map(|()| ends));
        match (R::add(&self.devices, device), room) {
            (Ok(id), Ok(ends)) => {
                self.given(id);
                let made = self.model.with(&[Step::Add(R::ON, ends, id, number)]);
                self.model = Rc::new(made.expect("there was room").0);
            }
            (Err(error), Err(refusal)) => {
                assert_eq!(error.refusal(), refusal);
                assert!(self.is::<R>(&error.into_device(), number));
            }
            (added, room) => panic!("{added:?}, and not {room:?}"),
        }
    }

    pub(crate) fn remove(&mut self, which: Which) {
        let Some(id) = self.id(which) else { return };
        let expected = self.model.with(&[Step::Remove(id)]);
        match (self.devices.remove(id), expected) {
            (Ok(removed), Ok((model, numbers))) => {
                assert_eq!(removed.id(), id);
                self.removed.push((numbers[0], removed));
                self.model = Rc::new(model);
            }
            (Err(refusal), Err(expected)) => assert_eq!(refusal, expected),
            (removed, expected) => panic!("{removed:?}, and not {expected:?}"),
        }
    }

    pub(crate) fn move_to<R: OnBus>(&mut self, which: Which, extent: Extent) {
        let Some(id) = self.id(which) else { return };
        let (start, end) = extent.range::<R>();
        let moved = self.devices.move_to(id, R::raw(start, end));
        let expected = ends::<R>((start, end)).map(|ends| Step::Move(R::ON, id, ends));
        self.check_move(moved, expected);
    }

    pub(crate) fn reindex(&mut self, which: Which, extent: Extent) {
        let Some(id) = self.id(which) else { return };
        let expected = match self.model.find(id) {
            Some((on, _, owner)) => on_bus!(on, R => {
                let (start, end) = extent.range::<R>();
                self.made[owner.number].known.set_range(start, end);
                ends::<R>((start, end)).map(|ends| Step::Move(on, id, ends))
            }),
            None => Err(Refusal::Unknown { id, bus: None }),
        };
        let moved = self.devices.reindex(id);
        self.check_move(moved, expected);
    }

    fn check_move(&mut self, moved: Result<(), Refusal>, expected: Result<Step, Refusal>) {
        let expected = expected.and_then(|step| self.model.with(&[step]));
        match expected {
            Ok((model, _)) => {
                assert_eq!(moved, Ok(()));
                self.model = Rc::new(model);
            }
            Err(refusal) => assert_eq!(moved, Err(refusal)),
        }
    }

    pub(crate) fn update(&mut self, changes: &[Change], ending: Ending) {
        let devices = self.devices.clone();
        let mut steps = Vec::new();
        let mut recorded = Ok(());
        let updated = devices.update(|batch| {
            recorded = self.record_all(batch, changes, ending, &mut steps);
            recorded.map(|()| changes.len())
        });
        let expected = recorded.and_then(|()| Ok(self.model.with(&steps)?));
        match (updated, expected) {
            (Ok((value, removed)), Ok((model, numbers))) => {
                assert_eq!(value, changes.len());
                assert_eq!(removed.len(), numbers.len());
                self.removed.extend(numbers.into_iter().zip(removed));
                self.model = Rc::new(model);
            }
            (Err(failure), Err(expected)) => assert_eq!(failure, expected),
            (updated, expected) => panic!("{updated:?}, and not {expected:?}"),
        }
    }

    fn record_all(
        &mut self,
        batch: &mut Batch<'_, ThreadSafe>,
        changes: &[Change],
        ending: Ending,
        steps: &mut Vec<Step>,
    ) -> Result<(), Failure> {
        for change in changes {
            let recorded = match *change {
                Change::Add(on, extent) => {
                    on_bus!(on, R => self.record_add::<R>(batch, extent)).map(Some)
                }
                Change::Remove(which) => self.record_remove(batch, which),
                Change::Move(which, on, extent) => {
                    on_bus!(on, R => self.record_move::<R>(batch, which, extent))
                }
            };
            match recorded {
                Ok(step) => steps.extend(step),
                Err(refusal) if ending == Ending::Strict => return Err(refusal.into()),
                Err(_) => (),
            }
        }
        match ending {
            Ending::Abandoned => Err(Failure::Abandoned),
            Ending::Strict | Ending::Lenient => Ok(()),
        }
    }

    fn record_add<R: OnBus>(
        &mut self,
        batch: &mut Batch<'_, ThreadSafe>,
        extent: Extent,
    ) -> Result<Step, Refusal> {
        let range = extent.range::<R>();
        let (number, device) = self.make::<R>(range);
        let added = R::record(batch, device);
        let ends = ends::<R>(range);
        assert_eq!(added.err(), ends.err());
        let (id, ends) = (added?, ends?);
        self.given(id);
        Ok(Step::Add(R::ON, ends, id, number))
    }

    fn record_remove(
        &self,
        batch: &mut Batch<'_, ThreadSafe>,
        which: Which,
    ) -> Result<Option<Step>, Refusal> {
        let Some(id) = self.id(which) else {
            return Ok(None);
        };
        assert_eq!(batch.remove(id), Ok(()));
        Ok(Some(Step::Remove(id)))
    }

    fn record_move<R: OnBus>(
        &self,
        batch: &mut Batch<'_, ThreadSafe>,
        which: Which,
        extent: Extent,
    ) -> Result<Option<Step>, Refusal> {
        let Some(id) = self.id(which) else {
            return Ok(None);
        };
        let (start, end) = extent.range::<R>();
        let ends = ends::<R>((start, end));
        assert_eq!(batch.move_to(id, R::raw(start, end)), ends.map(drop));
        Ok(Some(Step::Move(R::ON, id, ends?)))
    }

    /// Replaces devices by `iter_mut_*`. The first use puts the new devices back, or, if they do not fit, the
    /// previous ones.
    pub(crate) fn replace(&mut self, items: &[(On, u8, Extent)], first_use: FirstUse) {
        self.vcpus.iter_mut().for_each(Vcpu::end);
        let before = self.model.numbers();
        let mut replacements = Replacements::new();
        for &(on, place, extent) in items {
            on_bus!(on, R => self.replace_one::<R>(place, extent, &mut replacements));
        }
        if !items.is_empty() {
            let replaced = self.model.replaced(&replacements);
            self.model = Rc::new(replaced.unwrap_or_else(|_| Model::clone(&self.model)));
            self.kept = before;
            self.kept
                .extend(replacements.values().map(|&(number, _)| number));
        }
        match first_use {
            FirstUse::Access(by, on, place, access) => {
                on_bus!(on, R => self.access::<R>(by, place, access));
            }
            FirstUse::Find(on, place) => on_bus!(on, R => self.find::<R>(place)),
            FirstUse::Snapshot => (),
        }
        self.check();
    }

    fn replace_one<R: OnBus>(
        &mut self,
        place: u8,
        extent: Extent,
        replacements: &mut Replacements,
    ) {
        let range = extent.range::<R>();
        let (number, device) = self.make::<R>(range);
        let all = self.model.by_registration(R::ON);
        let devices = Arc::get_mut(&mut self.devices).expect("no handle is left");
        let mut lent = R::all_mut(devices);
        assert_eq!(lent.len(), all.len());
        if let Some(place) = usize::from(place).checked_rem(all.len()) {
            *lent[place] = device;
            replacements.insert(all[place].id, (number, ends::<R>(range)));
        }
    }
}
