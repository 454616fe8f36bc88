//! vCPUs of real KVM, x86_64 on Linux: one VM, its memory, one guest program for all vCPUs.

mod guest;
mod memory;
mod vcpu;

use std::{sync::Arc, thread::JoinHandle};

use anyhow::{Context as _, Result};
use kvm_ioctls::{Kvm, VmFd};
use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use self::{memory::Memory, vcpu::Vcpu};
use crate::{vcpus::Vcpus, vm::Vm};

/// Intel processors want three pages there that the guest does not use.
const TSS: usize = 0xfffb_d000;

/// A virtual machine without vCPUs or memory, or why there is none.
pub(crate) fn open() -> Result<VmFd> {
    let kvm = Kvm::new().context("/dev/kvm")?;
    kvm.create_vm().context("KVM_CREATE_VM")
}

/// Starts the vCPUs of `vm` in `machine`.
pub(crate) fn start(vm: &Arc<Vm>, machine: VmFd) -> Result<Vcpus> {
    start_with(vm, machine, &guest::assemble()?)
}

/// Starts the vCPUs of `vm` with `code` to run.
fn start_with(vm: &Arc<Vm>, machine: VmFd, code: &[u8]) -> Result<Vcpus> {
    register_signal_handler(SIGRTMIN(), on_kick).context("no signal handler")?;
    machine.set_tss_address(TSS).context("KVM_SET_TSS_ADDR")?;
    let memory = Arc::new(Memory::new(vm.vcpus())?);
    memory.load(code)?;
    memory.register(&machine)?;

    let mut vcpus = Vcpus::new(vm.clone(), kick);
    for index in 0..vm.vcpus() {
        memory.set_up(index)?;
        let mut vcpu = Vcpu::new(&machine, index, memory.clone())?;
        let vm = vm.clone();
        vcpus.push(index, move || vcpu.run(&vm))?;
    }
    Ok(vcpus)
}

/// Interrupts a vCPU's KVM_RUN.
fn kick(thread: &JoinHandle<Result<()>>) {
    // It fails if the thread has just ended, and then there is nothing to interrupt.
    let _ = thread.kill(SIGRTMIN());
}

/// A signal without a handler would end the process. This one is to interrupt a system call.
extern "C" fn on_kick(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs `code` on two vCPUs, whose guests are told to halt if `stop`, and returns the error; or
    /// says that it cannot.
    fn failure_of(code: &[u8], stop: bool) -> Option<String> {
        let machine = match open() {
            Ok(machine) => machine,
            Err(why) => {
                eprintln!("skipped: no KVM ({why:#})");
                return None;
            }
        };
        let vm = Arc::new(Vm::new(2).unwrap());
        let vcpus = start_with(&vm, machine, code).unwrap();
        while !stop && !vcpus.any_ended() {
            std::thread::yield_now();
        }
        Some(format!("{:#}", vcpus.stop().unwrap_err()))
    }

    #[test]
    fn an_unhandled_exception_is_an_error() {
        // ud2, with no interrupt descriptor table.
        if let Some(error) = failure_of(&[0x0f, 0x0b], false) {
            assert!(
                error.contains("at rip 0x1000") && error.contains("Shutdown"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_halt_out_of_turn_is_an_error() {
        // hlt; the instruction pointer is past it.
        if let Some(error) = failure_of(&[0xf4], false) {
            assert!(
                error.contains("at rip 0x1001") && error.contains("Hlt"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_guest_that_never_leaves_is_evicted() {
        // jmp to itself.
        if let Some(error) = failure_of(&[0xeb, 0xfe], true) {
            assert!(
                error.contains("at rip 0x1000") && error.contains("does not halt"),
                "{error}"
            );
        }
    }
}
