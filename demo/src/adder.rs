//! Hot-add: populates one slot after the other, evenly over the run.

use std::{sync::Arc, time::Duration};

use anyhow::{Context as _, Result};

use crate::{devices::Slot, options::Sabotage, vm::Vm};

/// Populates slots at a fixed rate.
pub(crate) struct Adder<'vm> {
    vm: &'vm Vm,
    per_second: u32,
    limit: u32,
    added: Vec<Added>,
}

/// A hot-added device. Times are nanoseconds since the VM was made.
pub(crate) struct Added {
    slot: Arc<Slot>,
    /// Just before the registry was called.
    pub(crate) called: u64,
    /// When it had returned.
    pub(crate) returned: u64,
}

impl Added {
    /// When `vcpu` first saw the device.
    pub(crate) fn first_seen(&self, vcpu: u32) -> Option<u64> {
        self.slot.first_seen(vcpu)
    }
}

impl<'vm> Adder<'vm> {
    /// Will populate `limit` slots.
    pub(crate) fn new(vm: &'vm Vm, per_second: u32, limit: u32) -> Self {
        let added = Vec::with_capacity(limit as usize);
        Self {
            vm,
            per_second,
            limit,
            added,
        }
    }

    /// When the next slot is to be populated; `None`: all are.
    pub(crate) fn next_at(&self) -> Option<Duration> {
        let index = self.added.len() as u32;
        if index >= self.limit {
            return None;
        }
        // In the middle of its share of the second, so that the last is not at the very end.
        let at = (f64::from(index) + 0.5) / f64::from(self.per_second);
        Some(Duration::from_secs_f64(at))
    }

    /// Populates all slots whose time has come, while `going_on`.
    pub(crate) fn add_until(&mut self, now: Duration, going_on: impl Fn() -> bool) -> Result<()> {
        while self.next_at().is_some_and(|at| at <= now) && going_on() {
            self.add()?;
        }
        Ok(())
    }

    fn add(&mut self) -> Result<()> {
        let index = self.added.len() as u32;
        let sabotaged = self.vm.sabotage == Some(Sabotage::Slot) && index == 0;
        let slot = Arc::new(Slot::new(index, self.vm.vcpus(), self.vm.epoch, sabotaged));
        let device = slot.clone();
        let called = self.vm.nanos();
        let hidden = self.vm.sabotage == Some(Sabotage::Hidden) && index + 1 == self.limit;
        if !hidden {
            let added = self.vm.devices.add_mmio_dev(device);
            added.with_context(|| format!("slot {index}"))?;
        }
        let returned = self.vm.nanos();
        self.vm.arrivals.announce();
        self.added.push(Added {
            slot,
            called,
            returned,
        });
        Ok(())
    }

    /// Whether every vCPU has seen every device. Each sees them in order.
    pub(crate) fn all_seen(&self) -> bool {
        let Some(last) = self.added.last() else {
            return true;
        };
        (0..self.vm.vcpus()).all(|vcpu| last.first_seen(vcpu).is_some())
    }

    /// How many devices `vcpu` has seen.
    pub(crate) fn seen(&self, vcpu: u32) -> usize {
        let seen = |added: &&Added| added.first_seen(vcpu).is_some();
        self.added.iter().filter(seen).count()
    }

    /// The VM that it adds to.
    pub(crate) fn vm(&self) -> &'vm Vm {
        self.vm
    }

    /// How many were added so far.
    pub(crate) fn count(&self) -> usize {
        self.added.len()
    }

    /// How many were not added, though they should have been by the end.
    pub(crate) fn left_out(&self) -> u32 {
        self.limit - self.added.len() as u32
    }

    /// What was added.
    pub(crate) fn into_added(self) -> Vec<Added> {
        self.added
    }
}
