//! Ends a run that hangs: CPU 0's timer interrupt finds vCPUs that no longer make accesses.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{arch, contract::MAX_VCPUS, cpu::Cpu, vm::Vm};

/// The time for which a vCPU may make no access, in nanoseconds: for each CPU, and in addition. Many CPUs may share a
/// core of the host.
const PATIENCE: (u64, u64) = (1_500_000_000, 10_000_000_000);

/// The number of accesses of each vCPU at its last change, and the time of that change.
static LAST: [(AtomicU64, AtomicU64); MAX_VCPUS as usize] =
    [const { (AtomicU64::new(u64::MAX), AtomicU64::new(0)) }; MAX_VCPUS as usize];

/// Checks all vCPUs.
///
/// # Panics
///
/// If a vCPU makes no progress.
pub(crate) fn look(vm: &Vm) {
    let now = arch::nanos();
    let patience = PATIENCE.0 * u64::from(vm.vcpus) + PATIENCE.1;
    for (index, (exits, since)) in LAST.iter().enumerate().take(vm.vcpus as usize) {
        let cpu = Cpu::at(index);
        if exits.swap(cpu.exits(), Ordering::Relaxed) != cpu.exits() || cpu.is_halted() {
            since.store(now, Ordering::Relaxed);
        }
        let still = now - since.load(Ordering::Relaxed);
        assert!(still < patience, "vCPU {index} makes no progress");
    }
}
