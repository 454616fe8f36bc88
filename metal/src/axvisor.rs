//! The functions of the hypervisor that the crate's interrupt controllers call. Virtual addresses are physical ones.

use alloc::{alloc::alloc_zeroed, boxed::Box};
use core::alloc::Layout;

use ax_memory_addr::{PAGE_SIZE_4K, PhysAddr, VirtAddr};
use axvisor_api::{
    host::HostIf,
    memory::MemoryIf,
    time::{CancelToken, Nanos, Ticks, TimeIf, TimeValue},
    vmm::{InterruptVector, VCpuId, VCpuSet, VMId, VmmIf},
};

use crate::{arch, vm::Vm};

struct Host;

#[axvisor_api::api_impl]
impl HostIf for Host {
    fn get_host_cpu_num() -> usize {
        Vm::the().vcpus as usize
    }
}

struct Vmm;

#[axvisor_api::api_impl]
impl VmmIf for Vmm {
    fn current_vm_id() -> VMId {
        0
    }

    fn current_vcpu_id() -> VCpuId {
        arch::cpu_index()
    }

    fn vcpu_num(_vm_id: VMId) -> Option<usize> {
        Some(Vm::the().vcpus as usize)
    }

    fn active_vcpus(_vm_id: VMId) -> Option<usize> {
        Self::vcpu_num(_vm_id)
    }

    fn inject_interrupt(_vm_id: VMId, _vcpu_id: VCpuId, vector: InterruptVector) {
        panic!("interrupt {vector} for a guest that has none")
    }

    fn inject_interrupt_to_cpus(_vm_id: VMId, _vcpu_set: VCpuSet, vector: InterruptVector) {
        panic!("interrupt {vector} for a guest that has none")
    }

    fn notify_vcpu_timer_expired(_vm_id: VMId, _vcpu_id: VCpuId) {}
}

struct Memory;

#[axvisor_api::api_impl]
impl MemoryIf for Memory {
    fn alloc_frame() -> Option<PhysAddr> {
        Self::alloc_contiguous_frames(1, PAGE_SIZE_4K)
    }

    fn alloc_contiguous_frames(num_frames: usize, frame_align: usize) -> Option<PhysAddr> {
        let layout = Layout::from_size_align(num_frames * PAGE_SIZE_4K, frame_align).ok()?;
        assert_ne!(num_frames, 0, "no frames");
        // SAFETY: the size is not zero.
        let frames = unsafe { alloc_zeroed(layout) };
        (!frames.is_null()).then(|| PhysAddr::from_usize(frames.expose_provenance()))
    }

    fn dealloc_frame(addr: PhysAddr) {
        Self::dealloc_contiguous_frames(addr, 1);
    }

    fn dealloc_contiguous_frames(first_addr: PhysAddr, num_frames: usize) {
        panic!("{num_frames} frames at {first_addr:?} are freed by a device that lives forever")
    }

    fn phys_to_virt(addr: PhysAddr) -> VirtAddr {
        VirtAddr::from_usize(addr.as_usize())
    }

    fn virt_to_phys(addr: VirtAddr) -> PhysAddr {
        PhysAddr::from_usize(addr.as_usize())
    }
}

struct Time;

#[axvisor_api::api_impl]
impl TimeIf for Time {
    fn current_ticks() -> Ticks {
        arch::nanos()
    }

    fn ticks_to_nanos(ticks: Ticks) -> Nanos {
        ticks
    }

    fn nanos_to_ticks(nanos: Nanos) -> Ticks {
        nanos
    }

    fn register_timer(
        _deadline: TimeValue,
        _callback: Box<dyn FnOnce(TimeValue) + Send + 'static>,
    ) -> CancelToken {
        panic!("a timer for a guest that sets none")
    }

    fn cancel_timer(_token: CancelToken) {}
}
