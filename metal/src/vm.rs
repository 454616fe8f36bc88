//! The VM, which all CPUs share: the board, the devices of the machine, and the guest's memory.

use alloc::sync::Arc;
use core::{hint::spin_loop, ops::Deref};

use axaddrspace::AddrSpace;
use axdevice::{AxVmDeviceConfig, SharedVmDevices, Unmapped};
use board::{Board, Host};
use spin::Once;

use crate::{
    arch,
    cpu::{Cpu, Doing},
    devices::Beat,
    machine::Machine,
    memory::{self, Frames},
    options::{Options, Sabotage},
};

/// The state that all CPUs share.
pub(crate) struct Vm {
    board: Board,
    pub(crate) memory: AddrSpace<Frames>,
    pub(crate) options: Options,
}

/// Gives access to the board.
impl Deref for Vm {
    type Target = Board;

    fn deref(&self) -> &Board {
        &self.board
    }
}

/// This machine. Its interrupt handler accesses devices too.
const HOST: Host = Host {
    nanos: arch::nanos,
    pause: |nanos| {
        let since = arch::nanos();
        while arch::nanos() - since < nanos {
            spin_loop();
        }
    },
    in_guest_access: || Cpu::current().is_doing(Doing::Dispatch),
};

static VM: Once<Vm> = Once::new();

impl Vm {
    /// The VM.
    ///
    /// # Panics
    ///
    /// Before it is made.
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
        let devices = devices.unwrap_or_else(|error| panic!("{error}"));
        arch::chip::set_up(&devices, vcpus, options.sabotage);
        let sabotage = options.sabotage.and_then(Sabotage::of_board);
        let board = Board::new(devices, vcpus, HOST, Arc::new(()), sabotage).expect("free ranges");
        let beat = Arc::new(Beat::new(vcpus));
        board.devices.add_mmio_dev(beat).expect("a free range");
        Self {
            board,
            memory: memory::guest_memory(),
            options,
        }
    }

    /// Whether this fault is requested.
    pub(crate) fn goes_wrong(&self, what: Sabotage) -> bool {
        self.options.sabotage == Some(what)
    }
}
