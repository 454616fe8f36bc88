//! The guest's memory, if it runs in a virtual machine: the program, which all vCPUs run, and a stack for each.

use super::MAX_VCPUS;

/// Guest physical address of the program, which starts with its first instruction.
pub const GUEST_MEMORY: u32 = 0xb000_0000;
/// The size of the memory, in bytes.
pub const GUEST_MEMORY_SIZE: u32 = 0x40_0000;
/// The room for the program and its variables, in bytes.
pub const GUEST_PROGRAM_SIZE: u32 = 0x20_0000;
/// Guest physical address of the stacks.
const GUEST_STACKS: u32 = GUEST_MEMORY + GUEST_PROGRAM_SIZE;
/// The size of a stack, in bytes.
const GUEST_STACK_SIZE: u32 = 0x4000;
/// Guest physical address of the rest of the memory, for page tables that the host makes.
pub const GUEST_TABLES: u32 = guest_stack(MAX_VCPUS - 1);

const _: () = assert!(GUEST_TABLES < GUEST_MEMORY + GUEST_MEMORY_SIZE);

/// The end of the stack of `vcpu`. The stack grows downwards from here.
pub const fn guest_stack(vcpu: u32) -> u32 {
    GUEST_STACKS + (vcpu + 1) * GUEST_STACK_SIZE
}
