//! The contract between the hypervisor and its guest: the demo's, and the parts that only these machines have.

pub(crate) use guest::contract::*;

/// Guest physical address of port 0: as on a PCI host bridge, an access to port `p` is an access to `PORTS + p`.
pub(crate) const PORTS: u32 = 0xce00_0000;
/// The number of ports.
pub(crate) const PORT_COUNT: u32 = 0x1_0000;

/// Guest physical address of the beat's registers, one for each vCPU, 4 bytes apart. A register contains the number of
/// timer interrupts of its CPU. The handler of that interrupt writes it, through the registry.
pub(crate) const BEATS: u32 = 0xcd00_0000;

/// Call of the hypervisor: the guest has halted, as ordered.
pub(crate) const CALL_HALT: u64 = 0x48_41_4c_54;
/// Call of the hypervisor: the guest has panicked.
pub(crate) const CALL_PANIC: u64 = 0x50_41_4e_49;

/// The pattern of the system register CONTEXTIDR_EL1 of each vCPU is made from this.
pub(crate) const SYS_LATCH_SEED: u32 = 0x5a5a_1234;

/// A guest uses its interrupt controller once in this number of rounds.
pub(crate) const ROUNDS_PER_CHIP: u32 = 128;
/// The number of vCPUs that use the GICv3 distributor. It has a fair lock. On a host with fewer cores than vCPUs the
/// next vCPU in its queue is often not running, and all others wait for it.
pub(crate) const GICD_VCPUS: u32 = 4;

/// Guest physical address of the GICv3 distributor, and of the host's.
pub(crate) const GICD: u32 = 0x0800_0000;
/// Its length.
pub(crate) const GICD_LENGTH: u32 = 0x1_0000;
/// The first of the shared interrupts that the vCPUs have, one each.
pub(crate) const FIRST_SPI: u32 = 96;

/// Guest physical address of the PLIC, and of the host's.
pub(crate) const PLIC: u32 = 0x0c00_0000;
/// Its length.
pub(crate) const PLIC_LENGTH: u32 = 0x60_0000;

/// The PLIC context of `vcpu`'s S mode, on a machine whose harts have a context for M mode too, before it.
pub(crate) const fn plic_context(vcpu: u32) -> u32 {
    2 * vcpu + 1
}

/// The interrupt source of `vcpu` in the PLIC. Source 0 does not exist.
pub(crate) const fn plic_source(vcpu: u32) -> u32 {
    vcpu + 1
}
