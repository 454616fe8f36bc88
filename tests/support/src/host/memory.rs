//! The host's memory, and access to its registers.

use std::{
    alloc::{Layout, alloc_zeroed, dealloc},
    ptr::{with_exposed_provenance, with_exposed_provenance_mut},
    slice,
    sync::{Mutex, PoisonError},
};

use ax_memory_addr::{PAGE_SIZE_4K, PhysAddr, VirtAddr};
use axaddrspace::device::AccessWidth;
use axvisor_api::memory::MemoryIf;

use super::{machine::translate, meeting::attend};

/// The alignment of the host's memory: at least that of the largest table of an ITS.
const ALIGNMENT: usize = 0x1_0000;

/// The length of a canary: there is one before each block of memory, and one after it.
const CANARY_LENGTH: usize = ALIGNMENT;

static CANARY: [u8; CANARY_LENGTH] = [0x5a; CANARY_LENGTH];

/// First address and length of each block of memory that was allocated and not freed.
static BLOCKS: Mutex<Vec<(usize, usize)>> = Mutex::new(Vec::new());

/// The layout of a block and its canaries.
fn layout(size: usize) -> Layout {
    let size = canary_after(size) + CANARY_LENGTH;
    Layout::from_size_align(size, ALIGNMENT).expect("a size that fits")
}

/// The distance from the canary before a block of this size to the canary after it.
fn canary_after(size: usize) -> usize {
    CANARY_LENGTH + size.next_multiple_of(ALIGNMENT)
}

/// `size` zero bytes, aligned to 64 KiB, until the process ends: the registers of a device of the host, or memory of a
/// guest at the same address.
///
/// # Panics
///
/// On a size of zero, or if there is no memory.
pub fn registers(size: usize) -> usize {
    assert_ne!(size, 0, "no size");
    // SAFETY: the size is not zero.
    let memory = unsafe { alloc_zeroed(layout(size)) };
    assert!(!memory.is_null(), "no memory");
    let before = memory.expose_provenance();
    for canary in [before, before + canary_after(size)] {
        let canary = with_exposed_provenance_mut::<u8>(canary);
        // SAFETY: both canaries are inside the layout, and no other code knows the memory yet.
        unsafe { canary.copy_from_nonoverlapping(CANARY.as_ptr(), CANARY_LENGTH) };
    }
    let first = before + CANARY_LENGTH;
    let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    blocks.push((first, size));
    first
}

/// Whether the 64 KiB before and after each block of memory are unchanged.
pub fn is_whole() -> bool {
    let blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    blocks.iter().all(|&(first, size)| {
        let before = first - CANARY_LENGTH;
        [before, before + canary_after(size)].iter().all(|&canary| {
            let canary = with_exposed_provenance::<u8>(canary);
            // SAFETY: `registers` allocated and wrote the canary, and the block is not freed.
            unsafe { slice::from_raw_parts(canary, CANARY_LENGTH) == CANARY }
        })
    })
}

/// The value in the host's memory at the physical address `addr`.
///
/// # Panics
///
/// If that is not an aligned address of [`registers`] or of [`machine`](super::machine).
pub fn get(addr: usize, width: AccessWidth) -> usize {
    match width {
        AccessWidth::Byte => read::<u8>(addr).into(),
        AccessWidth::Word => read::<u16>(addr).into(),
        AccessWidth::Dword => read::<u32>(addr) as usize,
        AccessWidth::Qword => read::<u64>(addr) as usize,
    }
}

/// Writes `value` to the host's memory at the physical address `addr`.
///
/// # Panics
///
/// As [`get`].
pub fn set(addr: usize, width: AccessWidth, value: usize) {
    match width {
        AccessWidth::Byte => write(addr, value as u8),
        AccessWidth::Word => write(addr, value as u16),
        AccessWidth::Dword => write(addr, value as u32),
        AccessWidth::Qword => write(addr, value as u64),
    }
}

fn read<T: Integer>(addr: usize) -> T {
    let register = with_exposed_provenance::<T>(locate::<T>(addr));
    // SAFETY: the memory exists (`locate`), and any bytes are a valid integer. It may also be a register of an
    // interrupt controller, and is read like one: with one volatile access.
    unsafe { register.read_volatile() }
}

fn write<T: Integer>(addr: usize, value: T) {
    let register = with_exposed_provenance_mut::<T>(locate::<T>(addr));
    // SAFETY: as in `read`.
    unsafe { register.write_volatile(value) };
}

trait Integer {}
impl Integer for u8 {}
impl Integer for u16 {}
impl Integer for u32 {}
impl Integer for u64 {}

/// The address in the process of a `T` at the physical address `addr`.
fn locate<T>(addr: usize) -> usize {
    let addr = translate(addr);
    let size = size_of::<T>();
    let blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
    let known = blocks.iter().any(|&(first, length)| {
        let offset = addr.checked_sub(first);
        offset.is_some_and(|offset| offset < length && size <= length - offset)
    });
    assert!(
        known && addr.is_multiple_of(size),
        "no {size} bytes at {addr:#x}"
    );
    addr
}

struct Memory;

#[axvisor_api::api_impl]
impl MemoryIf for Memory {
    fn alloc_frame() -> Option<PhysAddr> {
        Self::alloc_contiguous_frames(1, PAGE_SIZE_4K)
    }

    fn alloc_contiguous_frames(num_frames: usize, frame_align: usize) -> Option<PhysAddr> {
        assert!(frame_align <= ALIGNMENT, "{frame_align:#x} is too much");
        Some(PhysAddr::from_usize(registers(num_frames * PAGE_SIZE_4K)))
    }

    fn dealloc_frame(addr: PhysAddr) {
        Self::dealloc_contiguous_frames(addr, 1);
    }

    fn dealloc_contiguous_frames(first_addr: PhysAddr, num_frames: usize) {
        let block = (first_addr.as_usize(), num_frames * PAGE_SIZE_4K);
        let mut blocks = BLOCKS.lock().unwrap_or_else(PoisonError::into_inner);
        let at = blocks.iter().position(|known| *known == block);
        blocks.swap_remove(at.expect("frames that were allocated"));
        let memory = with_exposed_provenance_mut(block.0 - CANARY_LENGTH);
        // SAFETY: `registers` allocated this block (it was in the list), and its owner frees it.
        unsafe { dealloc(memory, layout(block.1)) };
    }

    fn phys_to_virt(addr: PhysAddr) -> VirtAddr {
        // A device calls this for each access that it makes.
        attend(addr.as_usize());
        VirtAddr::from_usize(translate(addr.as_usize()))
    }

    fn virt_to_phys(addr: VirtAddr) -> PhysAddr {
        PhysAddr::from_usize(addr.as_usize())
    }
}
