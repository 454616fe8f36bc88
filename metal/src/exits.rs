//! The exits of the vCPUs: each goes to the vCPU of its CPU. Then the CPU does its work between two exits.

use spin::Mutex;

use crate::{
    arch, conductor,
    contract::{CALL_HALT, CALL_PANIC, MAX_VCPUS},
    cpu::Cpu,
    vcpu::Vcpu,
    vm::Vm,
};

/// By CPU. Only its CPU uses each one, outside the interrupt handler.
static VCPUS: [Mutex<Option<Vcpu>>; MAX_VCPUS as usize] =
    [const { Mutex::new(None) }; MAX_VCPUS as usize];

/// Makes the vCPU of this CPU.
pub(crate) fn begin(vm: &'static Vm) {
    *VCPUS[arch::cpu_index()].lock() = Some(Vcpu::new(vm));
}

/// Calls `answer` with this CPU's vCPU.
pub(crate) fn answer<T>(answer: impl FnOnce(&mut Vcpu) -> T) -> T {
    let mut vcpu = VCPUS[arch::cpu_index()].lock();
    answer(vcpu.as_mut().expect("a vCPU"))
}

/// The work of a CPU after an exit, before it enters its guest again: after a timer interrupt its vCPU drops older tables,
/// and CPU 0 makes the changes that are due.
pub(crate) fn after() {
    if Cpu::current().take_ticked() {
        answer(Vcpu::refresh);
    }
    if arch::cpu_index() == 0 {
        conductor::conduct();
    }
}

/// Handles a guest's call of the hypervisor. Interrupts are enabled.
///
/// # Panics
///
/// If the guest has panicked, or if there is no such call.
pub(crate) fn call(number: u64) -> ! {
    match number {
        CALL_HALT => {
            answer(Vcpu::park);
            Cpu::current().set_halted();
            if arch::cpu_index() == 0 {
                conductor::finish();
            }
            loop {
                arch::wait();
            }
        }
        CALL_PANIC => panic!("the guest has panicked"),
        _ => panic!("the guest makes call {number:#x}"),
    }
}
