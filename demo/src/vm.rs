//! The VM as all vCPUs share it: one registry, what was in it from the start, and counters.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::Result;
use axdevice::{Serialized, SharedVmDevices, Unmapped};
use crossbeam_utils::CachePadded;

use crate::devices::{Console, Latch, Mailbox, Uart};

/// What all vCPUs share.
pub(crate) struct Vm {
    pub(crate) devices: SharedVmDevices,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) console: Arc<Console>,
    pub(crate) exits: Box<[CachePadded<Exits>]>,
    /// Set when vCPUs are to return at once, whatever their guest does.
    pub(crate) abandoned: AtomicBool,
    /// When the VM was made; all times count from here.
    pub(crate) epoch: Instant,
}

impl Vm {
    /// A VM with its devices, but nothing to run.
    pub(crate) fn new(vcpus: u32) -> Result<Self> {
        let mailbox = Arc::new(Mailbox::new(vcpus));
        let console = Arc::new(Console::default());

        let devices = SharedVmDevices::default().with_unmapped(Unmapped::Float);
        devices.add_mmio_dev(Arc::new(Latch::new(vcpus)))?;
        devices.add_port_dev(Arc::new(Latch::new(vcpus)))?;
        devices.add_port_dev(mailbox.clone())?;
        devices.add_port_dev(Arc::new(Serialized::new(Uart::new(console.clone()))))?;

        Ok(Self {
            devices,
            mailbox,
            console,
            exits: (0..vcpus).map(|_| CachePadded::default()).collect(),
            abandoned: AtomicBool::new(false),
            epoch: Instant::now(),
        })
    }

    pub(crate) fn vcpus(&self) -> u32 {
        self.exits.len() as u32
    }

    /// Nanoseconds since the VM was made.
    pub(crate) fn nanos(&self) -> u64 {
        self.epoch.elapsed().as_nanos() as u64
    }
}

/// How often a vCPU left its guest for the sake of a bus.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    pub(crate) mmio: Count,
    pub(crate) port: Count,
}

impl Exits {
    pub(crate) fn total(&self) -> u64 {
        self.mmio.get() + self.port.get()
    }
}

/// A count that one thread makes and others may look at.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(crate) fn add_one(&self) {
        self.0.store(self.get() + 1, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
