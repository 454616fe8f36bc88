//! Counts over all vCPUs of a VM.

use crate::vm::Vm;

/// Accesses to devices that should have been out of use.
pub(crate) fn late(vm: &Vm) -> u64 {
    vm.noticed.late()
}

/// Accesses that reached the wrong device.
pub(crate) fn astray(vm: &Vm) -> u64 {
    vm.noticed.astray()
}

/// Wrong values.
pub(crate) fn wrong(vm: &Vm) -> u64 {
    (0..vm.exits.len()).map(|vcpu| vm.mailbox.wrong(vcpu)).sum()
}

/// Accesses for which a device returned an error.
pub(crate) fn failed(vm: &Vm) -> u64 {
    vm.exits.iter().map(|exits| exits.failed.get()).sum()
}

/// Values that were checked.
pub(crate) fn checks(vm: &Vm) -> u64 {
    let vcpus = 0..vm.exits.len();
    vcpus.map(|vcpu| vm.mailbox.checks(vcpu)).sum()
}

/// Reads that missed a device that had been hot-added before.
pub(crate) fn overlooked(vm: &Vm) -> u64 {
    vm.exits.iter().map(|exits| exits.overlooked.get()).sum()
}
