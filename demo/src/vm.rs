//! The VM as all vCPUs share it: one registry, what was in it from the start, and counters.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Instant,
};

use anyhow::{Result, anyhow};
use ax_errno::AxResult;
use axdevice::{Serialized, SharedVmDevices, Unmapped};
use crossbeam_utils::CachePadded;

use crate::{
    arrivals::Arrivals,
    devices::{Bar, Console, Crossing, Latch, Mailbox, Noticed, Queue, Uart},
    doorbells::{Bells, Doorbells},
    options::Sabotage,
    profiles::Profiles,
};

/// What all vCPUs share.
pub(crate) struct Vm {
    pub(crate) devices: Arc<SharedVmDevices>,
    pub(crate) mailbox: Arc<Mailbox>,
    pub(crate) console: Arc<Console>,
    /// What vCPUs told of their accesses.
    pub(crate) profiles: Profiles,
    /// How many changes were made, besides hot-adds.
    pub(crate) changes: Count,
    /// Which devices were hot-added.
    pub(crate) arrivals: Arrivals,
    /// A vCPU each.
    pub(crate) bars: Vec<Arc<Bar>>,
    /// Of the bars.
    pub(crate) doorbells: Arc<Doorbells>,
    /// What cards noticed.
    pub(crate) noticed: Arc<Noticed>,
    /// Accesses to devices that should have been out of use.
    pub(crate) late: Arc<AtomicU64>,
    /// What is to go wrong, if anything.
    pub(crate) sabotage: Option<Sabotage>,
    pub(crate) exits: Box<[CachePadded<Exits>]>,
    /// Set when vCPUs are to return at once, whatever their guest does.
    pub(crate) abandoned: AtomicBool,
    /// When the VM was made; all times count from here.
    pub(crate) epoch: Instant,
}

impl Vm {
    /// A VM with its devices, but nothing to run.
    pub(crate) fn new(vcpus: u32, sabotage: Option<Sabotage>) -> Result<Self> {
        let doorbells = Doorbells::new(vcpus, sabotage == Some(Sabotage::Doorbell));
        let doorbells = Arc::new(doorbells);
        let sticks = sabotage == Some(Sabotage::Stuck);
        let mailbox = Arc::new(Mailbox::new(vcpus, sticks, doorbells.clone()));
        let console = Arc::new(Console::default());

        let devices = SharedVmDevices::default()
            .with_unmapped(Unmapped::Float)
            .with_listener(doorbells.clone());
        let devices = Arc::new(devices);
        devices.add_mmio_dev(Arc::new(Latch::new(vcpus)))?;
        devices.add_port_dev(Arc::new(Latch::new(vcpus)))?;
        devices.add_port_dev(mailbox.clone())?;
        devices.add_port_dev(Arc::new(Serialized::new(Uart::new(console.clone()))))?;

        let mut bars = Vec::new();
        for vcpu in 0..vcpus {
            devices.add_mmio_dev(Arc::new(Crossing::new(vcpu)))?;
            devices.add_port_dev(Arc::new(Serialized::new(Queue::new(vcpu))))?;
            let stays = sabotage == Some(Sabotage::Bar);
            let registry = Arc::downgrade(&devices);
            let bar = Arc::new(Bar::new(vcpu, registry, doorbells.clone(), stays));
            let name = devices.add_mmio_dev(bar.clone())?;
            bar.named(name)
                .map_err(|name| anyhow!("device {name} has a name already"))?;
            bars.push(bar);
        }

        Ok(Self {
            devices,
            mailbox,
            console,
            profiles: Profiles::new(vcpus),
            changes: Count::default(),
            arrivals: Arrivals::default(),
            bars,
            doorbells,
            noticed: Arc::default(),
            late: Arc::default(),
            sabotage,
            exits: (0..vcpus).map(|_| CachePadded::default()).collect(),
            abandoned: AtomicBool::new(false),
            epoch: Instant::now(),
        })
    }

    pub(crate) fn vcpus(&self) -> u32 {
        self.exits.len() as u32
    }

    /// Hangs up the doorbells of the devices that guests move about, which they follow from now on.
    pub(crate) fn connect_doorbells(&self, bells: impl Bells + 'static) -> Result<()> {
        let devices = self.bars.iter().filter_map(|bar| bar.name()).collect();
        self.doorbells.connect(devices, bells)
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
    /// Those that a device answered with an error. None should.
    pub(crate) failed: Count,
    /// Reads that missed a device which had been hot-added before. None should.
    pub(crate) overlooked: Count,
}

impl Exits {
    pub(crate) fn total(&self) -> u64 {
        self.mmio.get() + self.port.get()
    }

    /// Notes how an exit was answered. A device that fails does not end the vCPU: what it was to give is
    /// filled already.
    pub(crate) fn answered(&self, answered: AxResult) {
        if answered.is_err() {
            self.failed.add_one();
        }
    }
}

impl Exits {
    /// Notes what a read found that `must_find` a device's id.
    #[inline]
    pub(crate) fn found(&self, must_find: bool, data: &[u8]) {
        if must_find && data.iter().all(|byte| *byte == u8::MAX) {
            self.overlooked.add_one();
        }
    }
}

/// A count that one thread makes and others may look at.
#[derive(Debug, Default)]
pub(crate) struct Count(AtomicU64);

impl Count {
    #[inline]
    pub(crate) fn add_one(&self) {
        self.add(1);
    }

    #[inline]
    pub(crate) fn add(&self, n: u64) {
        self.0.store(self.get() + n, Ordering::Relaxed);
    }

    #[inline]
    pub(crate) fn get(&self) -> u64 {
        self.0.load(Ordering::Relaxed)
    }
}
