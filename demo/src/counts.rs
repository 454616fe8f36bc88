//! What the devices and the vCPUs of a VM counted, over all vCPUs.

use std::sync::atomic::Ordering;

use crate::vm::Vm;

/// How many accesses came to devices that should have been out of use.
pub(crate) fn late(vm: &Vm) -> u64 {
    vm.late.load(Ordering::Relaxed)
}

/// How many accesses came to devices that they were not for.
pub(crate) fn astray(vm: &Vm) -> u64 {
    vm.noticed.astray.load(Ordering::Relaxed)
}

/// How many values were wrong.
pub(crate) fn wrong(vm: &Vm) -> u64 {
    (0..vm.exits.len()).map(|vcpu| vm.mailbox.wrong(vcpu)).sum()
}

/// How many accesses a device answered with an error.
pub(crate) fn failed(vm: &Vm) -> u64 {
    vm.exits.iter().map(|exits| exits.failed.get()).sum()
}

/// How many values were checked.
pub(crate) fn checks(vm: &Vm) -> u64 {
    let vcpus = 0..vm.exits.len();
    vcpus.map(|vcpu| vm.mailbox.checks(vcpu)).sum()
}

/// How many reads missed a device that had been hot-added before.
pub(crate) fn overlooked(vm: &Vm) -> u64 {
    vm.exits.iter().map(|exits| exits.overlooked.get()).sum()
}
