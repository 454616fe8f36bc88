//! Sees to it that a run ends: CPU 0's timer interrupt finds vCPUs that make no accesses any more.

use core::sync::atomic::{AtomicU64, Ordering};

use crate::{arch, contract::MAX_VCPUS, cpu::Cpu, vm::Vm};

/// How long a vCPU may make no access, in nanoseconds for each CPU and besides: there may be many CPUs on each core of the
/// host.
const PATIENCE: (u64, u64) = (1_500_000_000, 10_000_000_000);

/// The accesses of each vCPU when that was last another number, and when that was.
static LAST: [(AtomicU64, AtomicU64); MAX_VCPUS as usize] =
    [const { (AtomicU64::new(u64::MAX), AtomicU64::new(0)) }; MAX_VCPUS as usize];

/// Looks at all vCPUs.
///
/// # Panics
///
/// If one makes no progress.
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
