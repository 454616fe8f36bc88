//! vCPUs of real KVM, x86_64 on Linux: one VM, its memory, one guest program for all vCPUs.

mod doorbells;
mod memory;
mod vcpu;

use std::{sync::Arc, thread::JoinHandle};

use anyhow::{Context as _, Result};
use kvm_ioctls::{Kvm, VmFd};
use libc::{c_int, c_void, siginfo_t};
use vmm_sys_util::signal::{Killable as _, SIGRTMIN, register_signal_handler};

use self::{doorbells::Ioeventfds, memory::Memory, vcpu::Vcpu};
use crate::{vcpus::Vcpus, vm::Vm};

/// Intel processors need three pages there that the guest does not use.
const TSS: usize = 0xfffb_d000;

/// A virtual machine without vCPUs or memory.
///
/// # Errors
///
/// If there is no KVM, or if KVM returns an error.
pub(crate) fn open() -> Result<VmFd> {
    let kvm = Kvm::new().context("/dev/kvm")?;
    kvm.create_vm().context("KVM_CREATE_VM")
}

/// The guests' program: `build.rs` compiles `kvm/guest`.
const PROGRAM: &[u8] = include_bytes!(concat!(env!("OUT_DIR"), "/guest.bin"));

/// Starts the vCPUs of `vm` in `machine`.
pub(crate) fn start(vm: &Arc<Vm>, machine: VmFd) -> Result<Vcpus> {
    start_with(vm, machine, PROGRAM)
}

/// Starts the vCPUs of `vm` with `program` to run.
fn start_with(vm: &Arc<Vm>, machine: VmFd, program: &[u8]) -> Result<Vcpus> {
    register_signal_handler(SIGRTMIN(), on_kick).context("cannot install the signal handler")?;
    machine.set_tss_address(TSS).context("KVM_SET_TSS_ADDR")?;
    let machine = Arc::new(machine);
    vm.connect_doorbells(Ioeventfds::new(machine.clone(), vm.vcpus)?)?;
    let memory = Arc::new(Memory::new(program)?);
    memory.register(&machine)?;

    let mut vcpus = Vcpus::new(vm.clone(), kick);
    for index in 0..vm.vcpus {
        let mut vcpu = Vcpu::new(&machine, index, memory.clone())?;
        let vm = vm.clone();
        vcpus.push(index, move || vcpu.run(&vm))?;
    }
    Ok(vcpus)
}

/// Interrupts the KVM_RUN of a vCPU.
fn kick(thread: &JoinHandle<Result<()>>) {
    // It fails if the thread has just ended: then there is nothing to interrupt.
    let _ = thread.kill(SIGRTMIN());
}

/// The signal interrupts a system call. Without a handler it would end the process.
extern "C" fn on_kick(_: c_int, _: *mut siginfo_t, _: *mut c_void) {}

#[cfg(test)]
mod tests {
    use std::{
        thread,
        time::{Duration, Instant},
    };

    use super::*;
    use crate::contract::{Belt, CHECKS, MAILBOX};

    /// A machine, if there is KVM.
    fn machine() -> Option<VmFd> {
        open()
            .inspect_err(|why| eprintln!("skipped: no KVM ({why:#})"))
            .ok()
    }

    /// Runs `code` on two vCPUs, orders their guests to halt if `stop`, and returns the error.
    fn failure_of(code: &[u8], stop: bool) -> Option<String> {
        let machine = machine()?;
        let vm = Arc::new(Vm::new(2, None).unwrap());
        let vcpus = start_with(&vm, machine, code).unwrap();
        while !stop && !vcpus.any_ended() {
            std::thread::yield_now();
        }
        let ended = vcpus.stop();
        let unhalted = ended.unhalted.iter();
        let unhalted =
            unhalted.map(|(vcpu, stretch)| format!("vCPU {vcpu} does not halt: {stretch:?}"));
        let errors = ended.errors.iter().map(|error| format!("{error:#}"));
        errors.chain(unhalted).next()
    }

    #[test]
    fn an_unhandled_exception_is_an_error() {
        // ud2, with no interrupt descriptor table.
        if let Some(error) = failure_of(&[0x0f, 0x0b], false) {
            assert!(
                error.contains("at rip 0xb0000000") && error.contains("Shutdown"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_halt_out_of_turn_is_an_error() {
        // hlt; the instruction pointer is past it.
        if let Some(error) = failure_of(&[0xf4], false) {
            assert!(
                error.contains("at rip 0xb0000001") && error.contains("Hlt"),
                "{error}"
            );
        }
    }

    #[test]
    fn a_guest_that_never_leaves_is_evicted() {
        // jmp to itself.
        if let Some(error) = failure_of(&[0xeb, 0xfe], true) {
            assert!(error.contains("does not halt"), "{error}");
        }
    }

    #[test]
    fn after_a_kick_a_busy_guest_holds_no_removed_device() {
        let Some(machine) = machine() else { return };
        let vm = Arc::new(Vm::new(1, None).unwrap());
        let card = vm.card(Belt::Loose, 1, false);
        let id = vm.devices.add_mmio_dev(card).unwrap();

        // mov eax, 1; mov edx, a port; out dx, eax; jmp to itself.
        let [low, high] = (MAILBOX + CHECKS).to_le_bytes();
        let code = [0xb8, 1, 0, 0, 0, 0xba, low, high, 0, 0, 0xef, 0xeb, 0xfe];
        let vcpus = start_with(&vm, machine, &code).unwrap();
        while vm.mailbox.checks(0) == 0 && !vcpus.any_ended() {
            thread::yield_now();
        }
        let removed = vm.devices.remove(id).unwrap();
        let quiescent_within = |limit, kick: &dyn Fn()| {
            let deadline = Instant::now() + limit;
            while !removed.is_quiescent() && Instant::now() < deadline {
                kick();
                thread::sleep(Duration::from_millis(1));
            }
            removed.is_quiescent()
        };
        assert!(!quiescent_within(Duration::from_millis(100), &|| {}));
        assert!(quiescent_within(Duration::from_secs(10), &|| vcpus.kick()));
        let ended = vcpus.stop();
        assert_eq!((ended.unhalted.len(), ended.running), (1, 0));
    }
}
