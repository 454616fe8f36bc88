//! The functions of the hypervisor that the devices call, other than those of memory and time.

use std::{
    mem,
    sync::{Mutex, PoisonError},
};

use axvisor_api::{
    host::HostIf,
    vmm::{InterruptVector, VCpuId, VCpuSet, VMId, VmmIf},
};

use super::machine;

/// The virtual interrupts that were injected, in order.
static INJECTED: Mutex<Vec<usize>> = Mutex::new(Vec::new());

/// The virtual interrupts that the devices have injected since the last call, in order.
pub fn take_injected() -> Vec<usize> {
    mem::take(&mut INJECTED.lock().unwrap_or_else(PoisonError::into_inner))
}

fn inject(vector: InterruptVector) {
    let mut injected = INJECTED.lock().unwrap_or_else(PoisonError::into_inner);
    injected.push(vector as usize);
}

struct Host;

#[axvisor_api::api_impl]
impl HostIf for Host {
    fn get_host_cpu_num() -> usize {
        machine::CPUS
    }
}

struct Vmm;

#[axvisor_api::api_impl]
impl VmmIf for Vmm {
    fn current_vm_id() -> VMId {
        0
    }

    fn current_vcpu_id() -> VCpuId {
        0
    }

    fn vcpu_num(_vm_id: VMId) -> Option<usize> {
        Some(machine::CPUS)
    }

    fn active_vcpus(_vm_id: VMId) -> Option<usize> {
        Some(machine::CPUS)
    }

    fn inject_interrupt(_vm_id: VMId, _vcpu_id: VCpuId, vector: InterruptVector) {
        inject(vector);
    }

    fn inject_interrupt_to_cpus(_vm_id: VMId, _vcpu_set: VCpuSet, vector: InterruptVector) {
        inject(vector);
    }

    fn notify_vcpu_timer_expired(_vm_id: VMId, _vcpu_id: VCpuId) {}
}

#[cfg(target_arch = "aarch64")]
mod arm {
    use ax_memory_addr::PhysAddr;
    use axvisor_api::{arch::ArchIf, vmm::InterruptVector};

    use crate::host::machine;

    struct Arch;

    #[axvisor_api::api_impl]
    impl ArchIf for Arch {
        fn hardware_inject_virtual_interrupt(vector: InterruptVector) {
            super::inject(vector);
        }

        fn read_vgicd_typer() -> u32 {
            machine::GICD_TYPER
        }

        fn read_vgicd_iidr() -> u32 {
            machine::GICD_IIDR
        }

        fn get_host_gicd_base() -> PhysAddr {
            PhysAddr::from_usize(machine::gicd())
        }

        fn get_host_gicr_base() -> PhysAddr {
            PhysAddr::from_usize(machine::gicr())
        }

        fn fetch_irq() -> u64 {
            0
        }

        fn handle_irq() {}
    }
}
