//! The heap, in memory that nothing else uses.
//!
//! The allocator has a spinlock. The interrupt handler neither allocates nor frees, so interrupts stay enabled while a
//! CPU holds the lock.

use buddy_system_allocator::LockedHeap;

use crate::arch::MEMORY;

#[global_allocator]
static HEAP: LockedHeap<32> = LockedHeap::empty();

/// The start of the heap, as an offset from the start of the memory.
const START: usize = 0x400_0000;
/// Its size in bytes.
const SIZE: usize = 0x1800_0000;

/// Makes the heap. To be called once, before anything is allocated.
pub(crate) fn init() {
    // SAFETY: the hypervisor's image ends before that memory, the guest's begins after it, and `run.sh` gives the
    // machine enough. This is called once.
    unsafe { HEAP.lock().init(MEMORY + START, SIZE) }
}
