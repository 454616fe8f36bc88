//! A host for the devices that call one: its memory is the test's own, identically mapped.

use std::alloc::{Layout, alloc_zeroed, dealloc};

use ax_memory_addr::{PAGE_SIZE_4K, PhysAddr, VirtAddr};
use axvisor_api::memory::MemoryIf;

/// `size` zero bytes, aligned to 64 KiB, for as long as the test runs: registers of a host device.
pub(crate) fn registers(size: usize) -> usize {
    let layout = Layout::from_size_align(size, 0x1_0000).expect("a layout");
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc_zeroed(layout) };
    assert!(!memory.is_null(), "no memory");
    memory.expose_provenance()
}

struct Memory;

#[axvisor_api::api_impl]
impl MemoryIf for Memory {
    fn alloc_frame() -> Option<PhysAddr> {
        Self::alloc_contiguous_frames(1, PAGE_SIZE_4K)
    }

    fn alloc_contiguous_frames(num_frames: usize, _frame_align: usize) -> Option<PhysAddr> {
        Some(PhysAddr::from_usize(registers(num_frames * PAGE_SIZE_4K)))
    }

    fn dealloc_frame(addr: PhysAddr) {
        Self::dealloc_contiguous_frames(addr, 1);
    }

    fn dealloc_contiguous_frames(first_addr: PhysAddr, num_frames: usize) {
        let layout = Layout::from_size_align(num_frames * PAGE_SIZE_4K, 0x1_0000);
        let memory = std::ptr::with_exposed_provenance_mut(first_addr.as_usize());
        // SAFETY: the device gives back what `alloc_contiguous_frames` gave it.
        unsafe { dealloc(memory, layout.expect("a layout")) };
    }

    fn phys_to_virt(addr: PhysAddr) -> VirtAddr {
        VirtAddr::from_usize(addr.as_usize())
    }

    fn virt_to_phys(addr: VirtAddr) -> PhysAddr {
        PhysAddr::from_usize(addr.as_usize())
    }
}
