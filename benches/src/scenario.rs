//! What is measured, and under which name: for the benches and the report.

use crate::{Bus, Layout, Pattern};

/// The sizes of the sweep, in devices.
pub const SIZES: [usize; 5] = [1, 8, 64, 1024, 4096];
/// How many devices there are where that is not swept.
pub const DEVICES: usize = 64;
/// How many there are before a hot-add that is timed.
pub const HOT_ADD: [usize; 4] = [8, 64, 1024, 4096];

/// Up to how many devices a registry that searches linearly is swept, but for the plain layout.
pub const LINEAR: usize = 64;

/// One point of the sweep of a bus.
pub fn sweep<R: Bus>(layout: &Layout, pattern: Pattern, n: usize) -> String {
    format!("{} {}, {} of {n}", R::NAME, layout.name, pattern.name())
}

/// Whether the vCPUs access one device or each its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Sharing {
    /// All the same.
    One,
    /// Each its own.
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

/// How many vCPUs are tried: powers of two below the machine's cores, and the cores.
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
