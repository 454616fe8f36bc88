//! The machine, from its device tree: its CPUs and its command line.

use alloc::vec::Vec;

use fdt::Fdt;

use crate::{contract::MAX_VCPUS, options::Options};

/// The machine.
#[derive(Debug)]
pub(crate) struct Machine {
    /// The firmware's ids of the CPUs, that of the boot CPU first.
    pub(crate) cpus: Vec<usize>,
    pub(crate) options: Options,
}

impl Machine {
    /// Reads the device tree at `tree`, on the CPU with id `boot_cpu`.
    ///
    /// # Panics
    ///
    /// If there is no device tree, or if it has too many CPUs.
    pub(crate) fn read(tree: usize, boot_cpu: usize) -> Self {
        // SAFETY: the firmware has put a device tree there, and nothing writes to it.
        let tree = unsafe { Fdt::from_ptr(core::ptr::with_exposed_provenance(tree)) };
        let tree = tree.expect("a device tree");
        let ids = tree.cpus().map(|cpu| cpu.ids().first());
        let mut cpus: Vec<_> = ids.filter(|id| *id != boot_cpu).collect();
        cpus.insert(0, boot_cpu);
        assert!(cpus.len() <= MAX_VCPUS as usize, "{} CPUs", cpus.len());
        Self {
            cpus,
            options: Options::parse(tree.chosen().bootargs().unwrap_or_default()),
        }
    }
}
