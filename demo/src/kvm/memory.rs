//! The guests' memory: one program for all vCPUs, and a piece for each with its variables and
//! stack.

use anyhow::{Context as _, Result, ensure};
use kvm_bindings::kvm_userspace_memory_region;
use kvm_ioctls::VmFd;
use vm_memory::{Address as _, Bytes as _, GuestAddress, GuestMemoryBackend as _, GuestMemoryMmap};

use super::guest::Var;
use crate::contract::{
    MAILBOX, MAILBOX_BANK, MMIO_LATCH, PORT_LATCH, QUEUE, QUEUE_BANK, SALT, SLOT_BANK, SLOTS,
    crossing, first_place,
};

/// Where the word is that the guest which prints takes.
pub(crate) const CONSOLE_LOCK: u32 = 0x800;
/// Where the program starts.
pub(crate) const CODE: u32 = 0x1000;
/// The size of a vCPU's piece, and where the first starts.
const PIECE: u32 = 0x1_0000;

/// Where a vCPU's variables start; nothing else is in its piece but the stack.
pub(crate) const fn variables(vcpu: u32) -> u32 {
    PIECE * (vcpu + 1)
}

/// Where a vCPU's stack starts, downwards.
pub(crate) const fn stack(vcpu: u32) -> u32 {
    variables(vcpu) + PIECE
}

/// The memory that guests run in.
pub(crate) struct Memory(GuestMemoryMmap);

impl Memory {
    /// Memory for so many vCPUs.
    pub(crate) fn new(vcpus: u32) -> Result<Self> {
        let size = variables(vcpus) as usize;
        let memory = GuestMemoryMmap::from_ranges(&[(GuestAddress(0), size)]);
        memory.map(Self).context("no memory for the guests")
    }

    /// Puts the program into place.
    pub(crate) fn load(&self, code: &[u8]) -> Result<()> {
        ensure!(
            code.len() < (PIECE - CODE) as usize,
            "the guests' program is too long"
        );
        self.0.write_slice(code, GuestAddress(CODE.into()))?;
        Ok(())
    }

    /// Gives a vCPU's variables the values that tell it who it is.
    pub(crate) fn set_up(&self, vcpu: u32) -> Result<()> {
        let values = [
            (Var::Vcpu, vcpu),
            (Var::Salt, vcpu * SALT),
            (Var::MmioLatch, MMIO_LATCH + 4 * vcpu),
            (Var::PortLatch, u32::from(PORT_LATCH) + 4 * vcpu),
            (
                Var::Mailbox,
                u32::from(MAILBOX) + u32::from(MAILBOX_BANK) * vcpu,
            ),
            (Var::Slots, SLOTS + SLOT_BANK * vcpu),
            (Var::Place, first_place(vcpu)),
            (Var::Crossing, crossing(vcpu)),
            (Var::Queue, u32::from(QUEUE) + u32::from(QUEUE_BANK) * vcpu),
        ];
        for (var, value) in values {
            let at = variables(vcpu) + var.offset();
            self.0.write_obj(value, GuestAddress(at.into()))?;
        }
        Ok(())
    }

    /// Makes it the memory of `machine`, whose vCPUs each hold `self`.
    pub(crate) fn register(&self, machine: &VmFd) -> Result<()> {
        let region = kvm_userspace_memory_region {
            slot: 0,
            guest_phys_addr: 0,
            memory_size: self.0.last_addr().unchecked_add(1).raw_value(),
            userspace_addr: self.0.get_host_address(GuestAddress(0))? as u64,
            flags: 0,
        };
        // SAFETY: the region is one mapping of that size, which lives until `self` is dropped. Every
        // vCPU holds an `Arc` of `self`, so that it outlives them all, and nothing enters the guest
        // but a vCPU. Nobody holds references into the mapping.
        unsafe { machine.set_user_memory_region(region) }.context("KVM_SET_USER_MEMORY_REGION")
    }
}
