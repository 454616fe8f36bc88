//! Random sequences of operations on all three buses, compared with a naive model and with crate `axdevice` 0.4.10
//! itself.

mod differences;
mod model;
mod operations;
mod published;

use std::{rc::Rc, sync::Arc};

use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, PortRange, SysRegAddrRange},
};
use axdevice::{AxVmDevices, Batch, DeviceId, Dispatcher, Refusal, Removed, Unbound};
use axdevice_base::BaseDeviceOps;
use proptest::{collection::vec, prelude::*};

use self::{
    differences::{MISSED, is_taken, is_whole, passed},
    model::{Model, Owned, owner},
    operations::{Extent, On, Op, Place, Step, number, op, range},
    published::Published,
};
use support::{Bus, Call, Journal, Recorder, answer, registry};

use crate::common::cases;

/// The three of them, side by side.
struct Trio {
    ours: Rc<AxVmDevices>,
    /// A vCPU's handle of ours; `None` while ours is borrowed mutably.
    vcpu: Option<Dispatcher<Rc<AxVmDevices>>>,
    model: Model,
    oracle: axdevice_0_4_10::AxVmDevices,
    journal: Journal,
    devices: usize,
    /// The ids of removed devices, from which unknown ids are taken.
    gone: Vec<DeviceId>,
    /// The replacements since the last use.
    pending: Vec<Deferred>,
}

impl Trio {
    fn new() -> Self {
        let config = axdevice_0_4_10::AxVmDeviceConfig::new(vec![]);
        Self {
            ours: Rc::new(registry()),
            vcpu: None,
            model: Model::default(),
            oracle: axdevice_0_4_10::AxVmDevices::new(config),
            journal: Journal::default(),
            devices: 0,
            gone: Vec::new(),
            pending: Vec::new(),
        }
    }

    fn device<R: Bus>(&mut self, range: R) -> (usize, Arc<Recorder<R>>) {
        self.devices += 1;
        let device = Recorder::new(self.devices, range, &self.journal);
        (self.devices, device)
    }

    /// Uses ours, which makes the replacements. Called if an operation might not use ours, because the model makes them
    /// before every operation.
    fn make_replacements(&self) {
        drop(self.ours.snapshot());
    }

    fn add<R: Published>(&mut self, extent: Extent) -> Result<(), TestCaseError> {
        let range = range::<R>(extent);
        let (number, device) = self.device(range);
        let mut ranges: Vec<_> = R::owned(&self.model).iter().map(|o| o.range).collect();
        ranges.push(range);
        let taken = is_taken(&ranges);
        if !is_taken(&[range]) {
            // Such a range may be refused without a use of the tables.
            self.make_replacements();
        }
        let added = R::add::<Unbound>(&self.ours, device.clone());
        prop_assert_eq!(added.is_ok(), taken, "{:?}", range);
        if let Ok(id) = added {
            R::old_add(&mut self.oracle, device.clone());
            R::owned_mut(&mut self.model).push(Owned {
                id,
                number,
                range,
                device,
            });
        }
        Ok(())
    }

    fn remove<R: Published>(&mut self, index: usize) -> Result<(), TestCaseError> {
        let Some(index) = place::<R>(&self.model, index) else {
            let Some(&id) = self.gone.last() else {
                self.make_replacements();
                return Ok(());
            };
            let refused = self.ours.remove(id).map(drop);
            prop_assert_eq!(refused, Err(Refusal::Unknown { id, bus: None }));
            return Ok(());
        };
        let Owned { id, device, .. } = R::owned_mut(&mut self.model).remove(index);
        let removed = self.ours.remove(id).unwrap();
        self.gone.push(id);
        // Only the handle may hold it.
        if let Some(vcpu) = &mut self.vcpu {
            prop_assert!(removed.holders() <= 1);
            vcpu.refresh();
        }
        let given = removed.wait(0).ok().and_then(R::unwrapped::<Unbound>);
        prop_assert!(given.is_some_and(|given| Arc::ptr_eq(&given, &(device as _))));
        self.rebuild();
        Ok(())
    }

    fn relocate<R: Published>(
        &mut self,
        index: usize,
        extent: Extent,
    ) -> Result<(), TestCaseError> {
        let range = range::<R>(extent);
        if !is_taken(&[range]) {
            // As in `add`.
            self.make_replacements();
        }
        let Some(index) = place::<R>(&self.model, index) else {
            let Some(&id) = self.gone.last() else {
                self.make_replacements();
                return Ok(());
            };
            prop_assert!(self.ours.move_to(id, range).is_err());
            return Ok(());
        };
        let mut changed = self.model.clone();
        let owned = &mut R::owned_mut(&mut changed)[index];
        owned.range = range;
        let moved = self.ours.move_to(owned.id, range);
        prop_assert_eq!(moved.is_ok(), changed.fits(), "{:?}", range);
        if moved.is_ok() {
            self.model = changed;
            self.rebuild();
        }
        Ok(())
    }

    /// Makes a step of an update, in the batch of ours and in the model.
    fn step<R: Published>(
        &self,
        batch: &mut Batch<'_, Unbound>,
        planned: &mut Planned,
        change: Change<R>,
    ) -> Result<(), TestCaseError> {
        let index = |index| place::<R>(&planned.model, index);
        let made = match change {
            Change::Add(number, device) => {
                let range = device.address_range();
                let id = R::record(batch, device.clone());
                prop_assert_eq!(id.is_ok(), is_taken(&[range]), "{:?}", range);
                // The batch continues without a change that cannot be recorded.
                let Ok(id) = id else { return Ok(()) };
                let owned = Owned {
                    id,
                    number,
                    range,
                    device,
                };
                R::owned_mut(&mut planned.model).push(owned);
                true
            }
            Change::Remove(at) => match index(at) {
                Some(index) => {
                    let Owned { id, .. } = R::owned_mut(&mut planned.model).remove(index);
                    planned.removed.push(id);
                    batch.remove(id).is_ok()
                }
                None => match self.gone.last() {
                    // It is recorded, and refused when the update is made.
                    Some(&id) => batch.remove(id).is_err(),
                    None => true,
                },
            },
            Change::Move(at, range) => match index(at) {
                Some(index) => {
                    let owned = &mut R::owned_mut(&mut planned.model)[index];
                    let recorded = batch.move_to(owned.id, range).is_ok();
                    prop_assert_eq!(recorded, is_taken(&[range]), "{:?}", range);
                    if recorded {
                        owned.range = range;
                    }
                    true
                }
                None => true,
            },
        };
        planned.made &= made;
        Ok(())
    }

    fn update(&mut self, steps: Vec<Step>) -> Result<(), TestCaseError> {
        let mut planned = Planned {
            model: self.model.clone(),
            removed: Vec::new(),
            made: true,
        };
        let ours = self.ours.clone();
        let updated = ours.update(|batch| {
            for step in steps {
                match step.on() {
                    On::Mmio => {
                        let change = self.change::<GuestPhysAddrRange>(step);
                        self.step(batch, &mut planned, change)?;
                    }
                    On::SysReg => {
                        let change = self.change::<SysRegAddrRange>(step);
                        self.step(batch, &mut planned, change)?;
                    }
                    On::Port => {
                        let change = self.change::<PortRange>(step);
                        self.step(batch, &mut planned, change)?;
                    }
                }
            }
            Ok::<_, Failed>(())
        });
        // Only the result counts, regardless of overlaps before it.
        let fits = planned.made && planned.model.fits();
        match updated {
            Ok(((), removed)) => {
                prop_assert!(fits, "made, although it does not fit");
                let ids: Vec<_> = removed.iter().map(Removed::id).collect();
                prop_assert_eq!(&ids, &planned.removed);
                self.gone.extend(ids);
                self.model = planned.model;
                self.rebuild();
            }
            Err(Failed::Refused(refusal)) => prop_assert!(!fits, "{}", refusal),
            Err(Failed::Test(error)) => return Err(error),
        }
        Ok(())
    }

    /// The meaning of a step on its bus.
    fn change<R: Published>(&mut self, step: Step) -> Change<R> {
        match step {
            Step::Add(_, extent) => {
                let (number, device) = self.device(range::<R>(extent));
                Change::Add(number, device)
            }
            Step::Remove(_, index) => Change::Remove(index),
            Step::Move(_, index, extent) => Change::Move(index, range::<R>(extent)),
        }
    }

    /// Makes 0.4.10's registry again from the devices of the model, because it has neither removal nor moves: it reads
    /// the devices' ranges.
    fn rebuild(&mut self) {
        let config = axdevice_0_4_10::AxVmDeviceConfig::new(vec![]);
        self.oracle = axdevice_0_4_10::AxVmDevices::new(config);
        self.rebuild_bus::<GuestPhysAddrRange>();
        self.rebuild_bus::<SysRegAddrRange>();
        self.rebuild_bus::<PortRange>();
    }

    fn rebuild_bus<R: Published>(&mut self) {
        for owned in R::owned(&self.model) {
            owned.device.set_range(owned.range);
            R::old_add(&mut self.oracle, owned.device.clone());
        }
    }

    fn find<R: Published>(&self, place: Place) -> Result<(), TestCaseError> {
        let at = number::<R>(place);
        let ours = R::find(&self.ours, at);
        let oracle = R::old_find(&self.oracle, at);
        let expected = owner::<R>(&self.model, at);
        prop_assert_eq!(
            ours.as_ref().map(|d| d.address_range()),
            expected.map(|o| o.range)
        );
        let same = match (ours, oracle) {
            (Some(ours), Some(oracle)) => Arc::ptr_eq(&ours, &oracle),
            (ours, oracle) => ours.is_none() && oracle.is_none(),
        };
        prop_assert!(same);
        Ok(())
    }

    /// Makes an access, a write if there is a value for it.
    fn access<R: Published>(
        &mut self,
        place: Place,
        width: AccessWidth,
        value: Option<usize>,
    ) -> Result<(), TestCaseError> {
        let at = number::<R>(place);
        let ours = match value {
            Some(value) => R::write(&self.ours, at, width, value).map(|()| 0),
            None => R::read(&self.ours, at, width),
        };
        let calls = self.journal.take();
        let vcpu = (self.vcpu).get_or_insert_with(|| Dispatcher::new(self.ours.clone()));
        let by_vcpu = match value {
            Some(value) => R::vcpu_write(vcpu, at, width, value).map(|()| 0),
            None => R::vcpu_read(vcpu, at, width),
        };
        prop_assert_eq!(by_vcpu, ours, "by a vCPU's handle");
        prop_assert_eq!(&self.journal.take(), &calls, "by a vCPU's handle");
        let whole = owner::<R>(&self.model, at).filter(|o| is_whole(o.range, at, width));
        let Some(owner) = whole else {
            prop_assert_eq!(ours, Err(MISSED));
            prop_assert_eq!(calls, []);
            return Ok(());
        };
        let call = Call {
            device: owner.number,
            at,
            width,
            written: value.map(|value| passed::<R>(value, width)),
        };
        let answers = match value {
            Some(_) => 0,
            None => answer(owner.number, at),
        };
        prop_assert_eq!(ours, Ok(passed::<R>(answers, width)));
        prop_assert_eq!(calls, std::slice::from_ref(&call));

        let oracle = match value {
            Some(value) => R::old_write(&self.oracle, at, width, value).map(|()| 0),
            None => R::old_read(&self.oracle, at, width),
        };
        prop_assert_eq!(oracle, Ok(answers));
        let unmasked = Call {
            written: value,
            ..call
        };
        prop_assert_eq!(self.journal.take(), [unmasked]);
        Ok(())
    }

    fn iter<R: Published>(&self) -> Result<(), TestCaseError> {
        let (ours, oracle) = (R::all(&self.ours), R::old_all(&self.oracle));
        let ranges: Vec<_> = ours.iter().map(|d| d.address_range()).collect();
        let expected: Vec<_> = R::owned(&self.model).iter().map(|o| o.range).collect();
        prop_assert_eq!(ranges, expected);
        prop_assert_eq!(ours.len(), oracle.len());
        prop_assert!(
            ours.iter()
                .zip(oracle)
                .all(|(ours, oracle)| Arc::ptr_eq(ours, oracle))
        );
        Ok(())
    }

    /// Replaces an item of ours. Returns the replacement that the other two must make if all items fit.
    fn replace<R: Published>(&mut self, index: usize, extent: Extent) -> Option<Deferred> {
        let count = R::owned(&self.model).len();
        let index = index % count.max(1);
        let (number, device) = self.device(range::<R>(extent));
        let owned = Owned {
            id: R::owned(&self.model).get(index)?.id,
            number,
            range: range::<R>(extent),
            device: device.clone(),
        };
        self.vcpu = None;
        let ours = Rc::get_mut(&mut self.ours).expect("the vCPU's handle is gone");
        let mut items = R::all_mut(ours);
        assert_eq!(items.len(), count);
        **items.get_mut(index)? = device.clone();
        Some(Deferred {
            model: Box::new(move |model| R::owned_mut(model)[index] = owned.clone()),
            oracle: Box::new(move |oracle| *R::old_all_mut(oracle)[index] = device),
        })
    }

    fn replace_all(&mut self, items: Vec<(On, usize, Extent)>) {
        for (on, index, extent) in items {
            let deferred = match on {
                On::Mmio => self.replace::<GuestPhysAddrRange>(index, extent),
                On::SysReg => self.replace::<SysRegAddrRange>(index, extent),
                On::Port => self.replace::<PortRange>(index, extent),
            };
            self.pending.extend(deferred);
        }
    }

    /// Makes the replacements that the next use of ours makes: all since the last use, or none (see
    /// [`is_taken`]).
    fn settle(&mut self) {
        let mut changed = self.model.clone();
        self.pending
            .iter()
            .for_each(|both| (both.model)(&mut changed));
        let pending = std::mem::take(&mut self.pending);
        if changed.fits() {
            self.model = changed;
            pending
                .into_iter()
                .for_each(|both| (both.oracle)(&mut self.oracle));
        }
    }

    fn run(&mut self, op: Op) -> Result<(), TestCaseError> {
        macro_rules! on {
            ($on:expr, $method:ident $(, $arg:expr)*) => {
                match $on {
                    On::Mmio => self.$method::<GuestPhysAddrRange>($($arg),*),
                    On::SysReg => self.$method::<SysRegAddrRange>($($arg),*),
                    On::Port => self.$method::<PortRange>($($arg),*),
                }
            };
        }
        if !matches!(op, Op::Replace(_)) {
            self.settle();
        }
        match op {
            Op::Add(bus, extent) => on!(bus, add, extent),
            Op::Find(bus, at) => on!(bus, find, at),
            Op::Read(bus, at, width) => on!(bus, access, at, width, None),
            Op::Write(bus, at, width, value) => on!(bus, access, at, width, Some(value)),
            Op::Iter(bus) => on!(bus, iter),
            Op::Replace(items) => {
                self.replace_all(items);
                Ok(())
            }
            Op::Remove(bus, index) => on!(bus, remove, index),
            Op::Move(bus, index, extent) => on!(bus, relocate, index, extent),
            Op::Update(steps) => self.update(steps),
        }
    }
}

/// A replacement that the model and the oracle have yet to make.
struct Deferred {
    model: Box<dyn Fn(&mut Model)>,
    oracle: Box<dyn FnOnce(&mut axdevice_0_4_10::AxVmDevices)>,
}

/// The expected result of an update.
struct Planned {
    model: Model,
    removed: Vec<DeviceId>,
    /// Whether each step so far can be made alone.
    made: bool,
}

/// A step of an update, on one bus.
enum Change<R> {
    Add(usize, Arc<Recorder<R>>),
    Remove(usize),
    Move(usize, R),
}

/// The reason why an update was not made.
enum Failed {
    Refused(Refusal),
    Test(TestCaseError),
}

impl From<Refusal> for Failed {
    fn from(refusal: Refusal) -> Self {
        Self::Refused(refusal)
    }
}

impl From<TestCaseError> for Failed {
    fn from(error: TestCaseError) -> Self {
        Self::Test(error)
    }
}

/// The device of the model for `index`: one of them, or none, each with the same frequency.
fn place<R: Published>(model: &Model, index: usize) -> Option<usize> {
    let count = R::owned(model).len();
    Some(index % (count + 1)).filter(|&index| index < count)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(400),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn ours_is_the_model_and_the_published_crate(ops in vec(op(), 1..120)) {
        let mut trio = Trio::new();
        for op in ops {
            trio.run(op)?;
        }
        trio.settle();
        trio.iter::<GuestPhysAddrRange>()?;
        trio.iter::<SysRegAddrRange>()?;
        trio.iter::<PortRange>()?;
    }
}
