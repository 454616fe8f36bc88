//! The measured scenarios and their names, for the benches and the report.

use crate::{Bus, Layout, Pattern};

/// The sizes of the sweep, in devices.
pub const SIZES: [usize; 5] = [1, 8, 64, 1024, 4096];
/// The number of devices in scenarios that do not sweep it.
pub const DEVICES: usize = 64;
/// The numbers of devices before a timed hot-add.
pub const HOT_ADD: [usize; 4] = [8, 64, 1024, 4096];

/// The largest number of devices for a registry that searches linearly. The plain layout has no such limit.
pub const LINEAR: usize = 64;

/// One point of the sweep of a bus.
pub fn sweep<R: Bus>(layout: &Layout, pattern: Pattern, n: usize) -> String {
    format!("{} {}, {} of {n}", R::NAME, layout.name, pattern.name())
}

/// Whether the vCPUs access the same device, or each vCPU its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All access the same device.
    One,
    /// Each accesses its own device.
    Own,
}

impl Sharing {
    /// Both.
    pub const ALL: [Self; 2] = [Self::One, Self::Own];

    /// The device that a vCPU accesses.
    pub const fn device(self, vcpu: usize) -> usize {
        match self {
            Self::One => DEVICES / 2,
            Self::Own => vcpu % DEVICES,
        }
    }

    /// The sharing's name.
    pub const fn name(self) -> &'static str {
        match self {
            Self::One => "one device",
            Self::Own => "own devices",
        }
    }
}

/// Several vCPUs at once.
pub fn vcpus(vcpus: usize, sharing: Sharing) -> String {
    format!("vCPUs on {}, {vcpus}", sharing.name())
}

/// The numbers of vCPUs: powers of two below the number of the machine's cores, and that number itself.
pub fn vcpu_counts() -> Vec<usize> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let powers = (0..).map(|k| 1 << k).take_while(|&n| n < cores);
    powers.chain([cores]).collect()
}

/// The sizes with which registries of rust-vmm's devices are compared.
pub const RUST_VMM: [usize; 3] = [8, 64, 1024];
/// The accesses with which they are compared.
pub const RUST_VMM_PATTERNS: [Pattern; 3] = [Pattern::Hot, Pattern::Random, Pattern::NearMiss];

/// Accesses to `n` of rust-vmm's devices.
pub fn rust_vmm(pattern: Pattern, n: usize) -> String {
    format!("rust-vmm {} of {n}", pattern.name())
}

/// Hot-adds to about `n` devices.
pub fn hot_add(n: usize) -> String {
    format!("hot-add to {n}")
}

/// The name of the copy that a hot-add is compared with.
pub const MEMCPY: &str = "memcpy of its table";
