//! The guest's memory: second-stage page tables, by Axvisor's own crate. They map no device, so every access to one is
//! an exit.

use alloc::alloc::{alloc_zeroed, dealloc};
use core::{alloc::Layout, ptr::with_exposed_provenance_mut};

use ax_memory_addr::{PhysAddr, VirtAddr};
use ax_page_table_multiarch::PagingHandler;
use axaddrspace::{AddrSpace, GuestPhysAddr, MappingFlags};

use crate::{
    arch::MEMORY,
    contract::{GUEST_MEMORY, GUEST_MEMORY_SIZE},
};

/// The offset of the guest's memory from the start of the host's.
const GUEST: usize = 0x2000_0000;
/// The size of the addresses that the page tables translate.
const SPACE: usize = 1 << 39;
/// The size and alignment of frames: the root of a RISC-V guest's tables has four pages.
const FRAME: usize = 0x4000;

/// Allocates frames for the page tables from the heap, where an address is its own physical address.
#[derive(Debug)]
pub(crate) struct Frames;

fn layout(frames: usize) -> Layout {
    Layout::from_size_align(frames * FRAME, FRAME).expect("a size that fits")
}

impl PagingHandler for Frames {
    fn alloc_frames(num: usize, _align: usize) -> Option<PhysAddr> {
        // SAFETY: the size is not zero.
        let frames = unsafe { alloc_zeroed(layout(num)) };
        (!frames.is_null()).then(|| PhysAddr::from_usize(frames.expose_provenance()))
    }

    fn dealloc_frames(paddr: PhysAddr, num: usize) {
        // SAFETY: `alloc_frames` gave these frames, and nothing uses them now.
        unsafe { dealloc(with_exposed_provenance_mut(paddr.as_usize()), layout(num)) }
    }

    fn phys_to_virt(paddr: PhysAddr) -> VirtAddr {
        VirtAddr::from_usize(paddr.as_usize())
    }
}

/// Makes page tables that translate the guest's memory and nothing else.
pub(crate) fn guest_memory() -> AddrSpace<Frames> {
    let mut space =
        AddrSpace::new_empty(3, GuestPhysAddr::from_usize(0), SPACE).expect("page tables");
    let flags =
        MappingFlags::READ | MappingFlags::WRITE | MappingFlags::EXECUTE | MappingFlags::USER;
    let mapped = space.map_linear(
        GuestPhysAddr::from_usize(GUEST_MEMORY as usize),
        PhysAddr::from_usize(MEMORY + GUEST),
        GUEST_MEMORY_SIZE as usize,
        flags,
    );
    mapped.expect("the guest's memory is mapped");
    space
}
