//! The guests' memory: the program, a stack for each vCPU, and the page tables.

use anyhow::{Context as _, Result, ensure};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{Address as _, Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};

use crate::contract::{GUEST_MEMORY, GUEST_MEMORY_SIZE, GUEST_PROGRAM_SIZE, GUEST_TABLES};

/// The size of a page table, and the number of its entries.
const TABLE: u64 = 0x1000;
const ENTRIES: u64 = 512;
/// In an entry: present and writable.
const PRESENT: u64 = 0b11;
/// In an entry of the third level: a page of 2 MiB.
const LARGE: u64 = 1 << 7;
/// The size of such a page.
const LARGE_SIZE: u64 = 0x20_0000;
/// The number of tables of the third level, each for 1 GiB.
const GIBS: u64 = 4;

/// The memory of the guests.
pub(crate) struct Memory(GuestMemoryMmap);

impl Memory {
    /// Memory with `program` and page tables in it.
    pub(crate) fn new(program: &[u8]) -> Result<Self> {
        let start = GuestAddress(GUEST_MEMORY.into());
        let memory = GuestMemoryMmap::from_ranges(&[(start, GUEST_MEMORY_SIZE as usize)])
            .context("cannot map the guests' memory")?;
        ensure!(
            program.len() <= GUEST_PROGRAM_SIZE as usize,
            "the guests' program is too long"
        );
        memory.write_slice(program, start)?;
        map_identically(&memory)?;
        Ok(Self(memory))
    }

    /// Registers it with `machine`. Each of its vCPUs holds `self`.
    pub(crate) fn register(&self, machine: &VmFd) -> Result<()> {
        let start = GuestAddress(GUEST_MEMORY.into());
        let region = kvm_userspace_memory_region {
            slot: 0,
            guest_phys_addr: start.raw_value(),
            memory_size: GUEST_MEMORY_SIZE.into(),
            userspace_addr: self.0.get_host_address(start)? as u64,
            flags: 0,
        };
        // SAFETY: the region is one mapping of that size, which lives until `self` is dropped. Every vCPU holds an
        // `Arc` of `self`, so it outlives them all, and only a vCPU enters the guest. There are no references into
        // the mapping.
        unsafe { machine.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")
    }
}

/// Writes page tables at [`GUEST_TABLES`] that map each address below 4 GiB to itself.
fn map_identically(memory: &GuestMemoryMmap) -> Result<()> {
    let root = u64::from(GUEST_TABLES);
    let [second, third] = [root + TABLE, root + 2 * TABLE];
    let put = |at, entry: u64| memory.write_obj(entry, GuestAddress(at));
    put(root, second | PRESENT)?;
    for gib in 0..GIBS {
        put(second + 8 * gib, (third + TABLE * gib) | PRESENT)?;
    }
    for page in 0..GIBS * ENTRIES {
        put(third + 8 * page, (page * LARGE_SIZE) | LARGE | PRESENT)?;
    }
    Ok(())
}
