//! The board: one registry, its initial devices, and the state that the other devices share.

use alloc::{boxed::Box, sync::Arc};

use axdevice::{Refusal, Serialized, SharedVmDevices};
use guest::contract::Belt;

use crate::{
    Arrivals, Bar, Card, Doorbells, Host, Latch, Mailbox, Mortal, Noticed, Queue, Sabotage,
};

/// The devices of a VM.
pub struct Board {
    /// All devices.
    pub devices: Arc<SharedVmDevices>,
    /// The device through which the guests report.
    pub mailbox: Arc<Mailbox>,
    /// The devices that guests move, by vCPU.
    pub bars: Box<[Arc<Bar>]>,
    /// The counts of the cards.
    pub noticed: Arc<Noticed>,
    /// The devices that have been hot-added.
    pub arrivals: Arrivals,
    /// The number of vCPUs.
    pub vcpus: u32,
    pub(crate) host: Host,
    pub(crate) sabotage: Option<Sabotage>,
}

impl Board {
    /// Adds the initial devices to `devices`.
    ///
    /// # Errors
    ///
    /// If one of them is refused.
    pub fn new(
        devices: SharedVmDevices,
        vcpus: u32,
        host: Host,
        doorbells: Arc<dyn Doorbells>,
        sabotage: Option<Sabotage>,
    ) -> Result<Self, Refusal> {
        let devices = Arc::new(devices);
        let sticks = (sabotage == Some(Sabotage::Stuck)).then_some(host);
        let mailbox = Arc::new(Mailbox::new(vcpus, sticks, doorbells.clone()));
        devices.add_mmio_dev(Arc::new(Latch::new(vcpus)))?;
        devices.add_port_dev(Arc::new(Latch::new(vcpus)))?;
        devices.add_port_dev(mailbox.clone())?;
        let bar = |vcpu| {
            let (registry, stays) = (Arc::downgrade(&devices), sabotage == Some(Sabotage::Bar));
            devices.add_port_dev(Arc::new(Serialized::new(Queue::new(vcpu))))?;
            let bar = Arc::new(Bar::new(vcpu, registry, doorbells.clone(), stays));
            bar.named(devices.add_mmio_dev(bar.clone())?);
            Ok(bar)
        };
        let bars = (0..vcpus).map(bar).collect::<Result<_, Refusal>>()?;
        Ok(Self {
            devices,
            mailbox,
            bars,
            noticed: Arc::default(),
            arrivals: Arrivals::default(),
            vcpus,
            host,
            sabotage,
        })
    }

    /// A card for bay 0 of a belt, not registered. With `linger`, it keeps a vCPU inside until it is removed.
    pub fn card(&self, belt: Belt, number: u32, linger: bool) -> Arc<Mortal<Card>> {
        let card = Card::new(belt, number, linger, self.noticed.clone(), self.host);
        Arc::new(Mortal::new(card, self.noticed.clone()))
    }

    /// Whether this fault is requested.
    pub fn sabotages(&self, what: Sabotage) -> bool {
        self.sabotage == Some(what)
    }

    /// The host's clock, in nanoseconds.
    pub fn nanos(&self) -> u64 {
        (self.host.nanos)()
    }

    /// Counts for the report, by name.
    pub fn figures(&self) -> [(&'static str, u64); 4] {
        let moves = self.bars.iter().map(|bar| bar.moves()).sum();
        [
            ("moves by a device's own handler", moves),
            ("removals with a vCPU inside", self.noticed.caught()),
            ("late accesses", self.noticed.late()),
            ("accesses astray", self.noticed.astray()),
        ]
    }
}

#[cfg(test)]
impl Host {
    /// A host for tests. Its clock stands still.
    pub(crate) fn test() -> Self {
        Self {
            nanos: || 0,
            pause: |_| {},
            in_guest_access: || true,
        }
    }
}

#[cfg(test)]
impl Board {
    /// A board for tests, with one vCPU.
    pub(crate) fn test() -> Self {
        let devices = SharedVmDevices::default().with_unmapped(axdevice::Unmapped::Float);
        Self::new(devices, 1, Host::test(), Arc::new(()), None).unwrap()
    }
}
