//! A tiny SMP hypervisor for QEMU's `virt` machines: one VM with a vCPU on each CPU. One `SharedVmDevices` handles
//! their exits while CPU 0 changes its devices, and a timer interrupt on every CPU dispatches through the same
//! registry.

#![no_std]
#![no_main]

extern crate alloc;

#[cfg_attr(target_arch = "aarch64", path = "aarch64/mod.rs")]
#[cfg_attr(target_arch = "riscv64", path = "riscv64/mod.rs")]
mod arch;
mod axvisor;
mod changer;
mod conductor;
mod console;
#[expect(dead_code, reason = "the guest's part of it")]
mod contract;
mod cpu;
mod devices;
mod exits;
mod heap;
mod machine;
mod memory;
mod options;
mod report;
mod tick;
mod vcpu;
mod vm;
mod watchdog;
mod wrong;

use core::panic::PanicInfo;

use crate::{console::line, machine::Machine, options::Sabotage, vm::Vm};

/// The entry of CPU 0, with the address of the device tree and the firmware's id of this CPU.
fn start(tree: usize, boot_cpu: usize) -> ! {
    heap::init();
    let machine = Machine::read(tree, boot_cpu);
    line!("{} CPUs, {:?}", machine.cpus.len(), machine.options);
    let vm = Vm::make(&machine);
    conductor::prepare(vm);
    for (index, id) in machine.cpus.iter().enumerate().skip(1) {
        arch::start_cpu(index, *id);
    }
    run(0)
}

/// The entry of each CPU: it starts its timer and runs its guest.
fn run(index: usize) -> ! {
    let vm = Vm::the();
    arch::init_cpu(index, vm);
    let deaf = vm.goes_wrong(Sabotage::Deaf) && index as u32 == vm.vcpus - 1;
    if !deaf {
        arch::start_timer(tick::period());
    }
    exits::begin(vm);
    arch::enter_guest(index, vm.goes_wrong(Sabotage::Guest))
}

#[panic_handler]
fn panic(info: &PanicInfo<'_>) -> ! {
    console::print_at_last(format_args!("FAILED: CPU {}: {info}", arch::cpu_index()));
    arch::exit(false)
}
