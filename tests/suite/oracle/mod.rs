//! Random sequences of operations on all three buses, held against a naive model and against crate
//! `axdevice` 0.4.10 itself.

mod differences;
mod model;
mod operations;
mod published;

use std::{rc::Rc, sync::Arc};

use axaddrspace::{
    GuestPhysAddrRange,
    device::{AccessWidth, PortRange, SysRegAddrRange},
};
use axdevice::{AxVmDevices, Dispatcher, Unbound};
use proptest::{collection::vec, prelude::*};

use self::{
    differences::{MISSED, is_taken, is_whole, passed},
    model::{Model, Owned, owner},
    operations::{Extent, On, Op, Place, number, op, range},
    published::Published,
};
use crate::{
    bus::Bus,
    cases,
    device::{Call, Journal, Probe, answer, registry},
};

/// The three of them, side by side.
struct Trio {
    ours: Rc<AxVmDevices>,
    /// A vCPU's handle of ours, but while ours is borrowed mutably.
    vcpu: Option<Dispatcher<Rc<AxVmDevices>>>,
    model: Model,
    oracle: axdevice_0_4_10::AxVmDevices,
    journal: Journal,
    devices: usize,
    /// What was replaced since the last use.
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
            pending: Vec::new(),
        }
    }

    fn device<R: Bus>(&mut self, range: R) -> (usize, Arc<Probe<R>>) {
        self.devices += 1;
        let device = Probe::new(self.devices, range, &self.journal);
        (self.devices, device)
    }

    fn add<R: Published>(&mut self, extent: Extent) -> Result<(), TestCaseError> {
        let range = range::<R>(extent);
        let (number, device) = self.device(range);
        let mut ranges: Vec<_> = R::owned(&self.model).iter().map(|o| o.range).collect();
        ranges.push(range);
        let taken = is_taken(&ranges);
        if !is_taken(&[range]) {
            // Such a range may be refused before the tables are looked at, so that adding it need
            // not be the use that makes replacements. This is one.
            drop(self.ours.snapshot());
        }
        let added = R::add::<Unbound>(&self.ours, device.clone());
        prop_assert_eq!(added.is_ok(), taken, "{:?}", range);
        if taken {
            R::owned_mut(&mut self.model).push(Owned { number, range });
            R::old_add(&mut self.oracle, device);
        }
        Ok(())
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

    /// Replaces an item of ours; gives what is to be done to the other two if all items fit.
    fn replace<R: Published>(&mut self, index: usize, extent: Extent) -> Option<Deferred> {
        let count = R::owned(&self.model).len();
        let index = index % count.max(1);
        let (number, device) = self.device(range::<R>(extent));
        let owned = Owned {
            number,
            range: range::<R>(extent),
        };
        self.vcpu = None;
        let ours = Rc::get_mut(&mut self.ours).expect("the vCPU's handle is gone");
        let mut items = R::all_mut(ours);
        assert_eq!(items.len(), count);
        **items.get_mut(index)? = device.clone();
        Some(Deferred {
            model: Box::new(move |model| R::owned_mut(model)[index] = owned),
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
        }
    }
}

/// A replacement that the model and the oracle have yet to make.
struct Deferred {
    model: Box<dyn Fn(&mut Model)>,
    oracle: Box<dyn FnOnce(&mut axdevice_0_4_10::AxVmDevices)>,
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
