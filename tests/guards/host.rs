//! A host: registers and frames of memory, with canaries before and after each, identically mapped.

use std::{
    alloc::{Layout, alloc},
    ops::Range,
    ptr,
    sync::{LazyLock, Mutex, MutexGuard, PoisonError},
};

use ax_memory_addr::{PAGE_SIZE_4K, PhysAddr, VirtAddr};
use axvisor_api::memory::MemoryIf;

/// What registers are aligned to, and how long a canary is.
const BLOCK: usize = 0x1_0000;

const CANARY: u64 = 0x5afe_5afe_5afe_5afe;

const MEMORY: usize = 0x800_0000;

/// What is left of the host's memory, and where its canaries are.
struct Memory {
    free: Range<usize>,
    canaries: Vec<usize>,
}

static HOST: LazyLock<Mutex<Memory>> = LazyLock::new(|| {
    let layout = Layout::from_size_align(MEMORY, BLOCK).expect("a layout");
    // SAFETY: the size is not zero.
    let start = unsafe { alloc(layout) };
    assert!(!start.is_null(), "no memory");
    let start = start.expose_provenance();
    Mutex::new(Memory {
        free: start..start + MEMORY,
        canaries: Vec::new(),
    })
});

impl Memory {
    fn take(&mut self, size: usize) -> usize {
        let start = self.free.start;
        self.free.start += size.next_multiple_of(BLOCK);
        assert!(self.free.start <= self.free.end, "the host is too small");
        start
    }

    fn canary(&mut self) {
        let canary = self.take(BLOCK);
        fill(canary, BLOCK, |_| CANARY);
        self.canaries.push(canary);
    }
}

/// `size` zero bytes, aligned to 64 KiB, for as long as the test runs.
pub(crate) fn registers(size: usize) -> usize {
    let mut host = HOST.lock().unwrap_or_else(PoisonError::into_inner);
    if host.canaries.is_empty() {
        host.canary();
    }
    let start = host.take(size);
    fill(start, size.next_multiple_of(BLOCK), |_| 0);
    host.canary();
    start
}

/// Whether nothing was written to a canary.
pub(crate) fn is_whole() -> bool {
    let host = HOST.lock().unwrap_or_else(PoisonError::into_inner);
    let mut canaries = host.canaries.iter();
    canaries.all(|&canary| (0..BLOCK).step_by(8).all(|at| peek(canary + at) == CANARY))
}

/// The eight bytes of the host's memory at `addr`, which is a multiple of 8.
pub(crate) fn peek(addr: usize) -> u64 {
    // SAFETY: `addr` is in the host's memory, which is never freed, and aligned.
    unsafe { ptr::with_exposed_provenance::<u64>(addr).read_volatile() }
}

/// Writes eight bytes of the host's memory at `addr`, which is a multiple of 8.
pub(crate) fn poke(addr: usize, value: u64) {
    // SAFETY: `addr` is in the host's memory, which is never freed, and aligned.
    unsafe { ptr::with_exposed_provenance_mut::<u64>(addr).write_volatile(value) };
}

/// Writes a value for each eight bytes.
pub(crate) fn fill(start: usize, size: usize, value: impl Fn(usize) -> u64) {
    for at in (0..size).step_by(8) {
        poke(start + at, value(at));
    }
}

/// A different, but always the same, value for each eight bytes.
pub(crate) fn noise(at: usize) -> u64 {
    (at as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Registers full of [`noise`].
pub(crate) fn noisy_registers(size: usize) -> usize {
    let start = registers(size);
    fill(start, size, noise);
    start
}

/// Tests share the devices' statics, and some fork: one at a time.
pub(crate) fn alone() -> MutexGuard<'static, ()> {
    static ALONE: Mutex<()> = Mutex::new(());
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

struct Frames;

#[axvisor_api::api_impl]
impl MemoryIf for Frames {
    fn alloc_frame() -> Option<PhysAddr> {
        Self::alloc_contiguous_frames(1, PAGE_SIZE_4K)
    }

    fn alloc_contiguous_frames(num_frames: usize, _frame_align: usize) -> Option<PhysAddr> {
        Some(PhysAddr::from_usize(registers(num_frames * PAGE_SIZE_4K)))
    }

    fn dealloc_frame(_addr: PhysAddr) {}

    fn dealloc_contiguous_frames(_first_addr: PhysAddr, _num_frames: usize) {}

    fn phys_to_virt(addr: PhysAddr) -> VirtAddr {
        VirtAddr::from_usize(addr.as_usize())
    }

    fn virt_to_phys(addr: VirtAddr) -> PhysAddr {
        PhysAddr::from_usize(addr.as_usize())
    }
}
