//! The VM as all CPUs share it: one registry, and the devices that were in it from the start.

use alloc::{sync::Arc, vec::Vec};
use core::sync::atomic::{AtomicU32, AtomicU64};

use axaddrspace::AddrSpace;
use axdevice::{AxVmDeviceConfig, Serialized, SharedVmDevices, Unmapped};
use spin::Once;

use crate::{
    arch,
    devices::{Bar, Beat, Latch, Mailbox, Noticed, Queue},
    machine::Machine,
    memory::{self, Frames},
    options::{Options, Sabotage},
};

/// What all CPUs share.
pub(crate) struct Vm {
    pub(crate) devices: Arc<SharedVmDevices>,
    pub(crate) memory: AddrSpace<Frames>,
    pub(crate) mailbox: Arc<Mailbox>,
    /// A vCPU each.
    pub(crate) bars: Vec<Arc<Bar>>,
    /// What cards noticed.
    pub(crate) noticed: Arc<Noticed>,
    /// Accesses to devices that should have been out of use.
    pub(crate) late: Arc<AtomicU64>,
    /// How many devices were hot-added. Whoever reads that finds them (`Release`, `Acquire`).
    pub(crate) added: AtomicU32,
    pub(crate) options: Options,
    pub(crate) vcpus: u32,
}

static VM: Once<Vm> = Once::new();

impl Vm {
    /// The VM.
    ///
    /// # Panics
    ///
    /// Before it was made.
    pub(crate) fn the() -> &'static Self {
        VM.get().expect("a VM")
    }

    /// Makes the VM, with a vCPU for each CPU of `machine`.
    pub(crate) fn make(machine: &Machine) -> &'static Self {
        VM.call_once(|| Self::new(machine.cpus.len() as u32, machine.options))
    }

    fn new(vcpus: u32, options: Options) -> Self {
        let config = AxVmDeviceConfig::new(arch::chip::config(vcpus, options.sabotage));
        let builder = SharedVmDevices::builder().config(config);
        let devices = arch::chip::builder(builder)
            .unmapped(Unmapped::Float)
            .build();
        let devices = Arc::new(devices.unwrap_or_else(|error| panic!("{error}")));
        arch::chip::set_up(&devices, vcpus, options.sabotage);

        let mailbox = Arc::new(Mailbox::new(vcpus));
        let added = "a free range";
        devices
            .add_mmio_dev(Arc::new(Latch::new(vcpus)))
            .expect(added);
        devices
            .add_port_dev(Arc::new(Latch::new(vcpus)))
            .expect(added);
        devices.add_port_dev(mailbox.clone()).expect(added);
        devices
            .add_mmio_dev(Arc::new(Beat::new(vcpus)))
            .expect(added);

        let mut bars = Vec::new();
        for vcpu in 0..vcpus {
            let queue = Serialized::new(Queue::new(vcpu));
            devices.add_port_dev(Arc::new(queue)).expect(added);
            let stays = options.sabotage == Some(Sabotage::Bar);
            let bar = Arc::new(Bar::new(vcpu, Arc::downgrade(&devices), stays));
            let id = devices.add_mmio_dev(bar.clone()).expect(added);
            bar.named(id);
            bars.push(bar);
        }

        Self {
            devices,
            memory: memory::guest_memory(),
            mailbox,
            bars,
            noticed: Arc::default(),
            late: Arc::default(),
            added: AtomicU32::new(0),
            options,
            vcpus,
        }
    }

    /// Whether this is to go wrong.
    pub(crate) fn sabotages(&self, what: Sabotage) -> bool {
        self.options.sabotage == Some(what)
    }
}
