//! The VM, which all vCPUs share: the board, the devices of a PC, and counters.

use std::{
    ops::Deref,
    sync::{Arc, atomic::AtomicBool},
};

use anyhow::Result;
use ax_errno::AxResult;
use axdevice::{Serialized, SharedVmDevices, Unmapped};
use board::{Board, Count};
use crossbeam_utils::CachePadded;

use crate::{
    devices::{Console, Crossing, Uart},
    doorbells::{Bells, Doorbells},
    host::HOST,
    options::Sabotage,
    profiles::Profiles,
};

/// The state that all vCPUs share.
pub(crate) struct Vm {
    board: Board,
    pub(crate) console: Arc<Console>,
    /// The accesses of the vCPUs, by device.
    pub(crate) profiles: Profiles,
    /// The number of changes, besides hot-adds.
    pub(crate) changes: Count,
    /// The doorbells of the devices that guests move.
    pub(crate) doorbells: Arc<Doorbells>,
    pub(crate) exits: Box<[CachePadded<Exits>]>,
    /// Set if vCPUs must return at once, regardless of their guests.
    pub(crate) abandoned: AtomicBool,
}

/// Gives access to the board.
impl Deref for Vm {
    type Target = Board;

    fn deref(&self) -> &Board {
        &self.board
    }
}

impl Vm {
    /// A VM with its devices, and without vCPUs.
    pub(crate) fn new(vcpus: u32, sabotage: Option<Sabotage>) -> Result<Self> {
        let doorbells = Doorbells::new(vcpus, sabotage == Some(Sabotage::Doorbell));
        let doorbells = Arc::new(doorbells);
        let devices = SharedVmDevices::default()
            .with_unmapped(Unmapped::Float)
            .with_listener(doorbells.clone());
        let sabotage = sabotage.and_then(Sabotage::of_board);
        let board = Board::new(devices, vcpus, HOST, doorbells.clone(), sabotage)?;

        let console = Arc::new(Console::default());
        let uart = Serialized::new(Uart::new(console.clone()));
        board.devices.add_port_dev(Arc::new(uart))?;
        for vcpu in 0..vcpus {
            board.devices.add_mmio_dev(Arc::new(Crossing::new(vcpu)))?;
        }
        Ok(Self {
            board,
            console,
            profiles: Profiles::new(vcpus),
            changes: Count::default(),
            doorbells,
            exits: (0..vcpus).map(|_| CachePadded::default()).collect(),
            abandoned: AtomicBool::new(false),
        })
    }

    /// Registers the doorbells of the devices that guests move. From now on they follow the devices.
    pub(crate) fn connect_doorbells(&self, bells: impl Bells + 'static) -> Result<()> {
        let devices = self.bars.iter().filter_map(|bar| bar.name()).collect();
        self.doorbells.connect(devices, bells)
    }
}

/// The exits of a vCPU.
#[derive(Debug, Default)]
pub(crate) struct Exits {
    pub(crate) mmio: Count,
    pub(crate) port: Count,
    /// Exits for which a device returned an error. There should be none.
    pub(crate) failed: Count,
    /// Reads that missed a device that had been hot-added before. There should be none.
    pub(crate) overlooked: Count,
}

impl Exits {
    pub(crate) fn total(&self) -> u64 {
        self.mmio.get() + self.port.get()
    }

    /// Records the result of an exit. A device that fails does not end the vCPU: the registry has filled the buffer.
    pub(crate) fn answered(&self, answered: AxResult) {
        if answered.is_err() {
            self.failed.add_one();
        }
    }

    /// Records the result of a read that `must_find` a device's id.
    #[inline]
    pub(crate) fn found(&self, must_find: bool, data: &[u8]) {
        if must_find && data.iter().all(|byte| *byte == u8::MAX) {
            self.overlooked.add_one();
        }
    }
}
