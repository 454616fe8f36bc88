//! A CPU's own state, which its interrupt handler uses too: atomics only.

use core::sync::atomic::{AtomicBool, AtomicU8, Ordering};

use board::Count;
use crossbeam_utils::CachePadded;

use crate::{arch, contract::MAX_VCPUS, wrong::Wrong};

/// The work that an interrupt of a CPU interrupts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub(crate) enum Doing {
    /// It starts, runs its guest, enters or leaves it, or waits.
    Other,
    /// It dispatches an access of its guest.
    Dispatch,
    /// It changes the tables.
    Change,
    /// It handles an interrupt.
    Tick,
}

/// A CPU. Only it writes its state (`Relaxed`), except `halted`.
#[derive(Debug)]
pub(crate) struct Cpu {
    doing: AtomicU8,
    ticked: AtomicBool,
    halted: AtomicBool,
    /// Accesses of its guest, by bus.
    pub(crate) mmio: Count,
    pub(crate) port: Count,
    pub(crate) sys_reg: Count,
    /// Accesses for which a device returned an error. There should be none.
    pub(crate) failed: Count,
    /// Timer interrupts, by the work that they interrupted.
    pub(crate) ticks: Count,
    pub(crate) ticks_in_dispatch: Count,
    pub(crate) ticks_in_change: Count,
    /// Values that the interrupt handler checked.
    pub(crate) checks: Count,
    /// The wrong ones of these values.
    pub(crate) wrong: Wrong,
}

static CPUS: [CachePadded<Cpu>; MAX_VCPUS as usize] =
    [const { CachePadded::new(Cpu::new()) }; MAX_VCPUS as usize];

impl Cpu {
    const fn new() -> Self {
        Self {
            doing: AtomicU8::new(Doing::Other as u8),
            ticked: AtomicBool::new(false),
            halted: AtomicBool::new(false),
            mmio: Count::new(),
            port: Count::new(),
            sys_reg: Count::new(),
            failed: Count::new(),
            ticks: Count::new(),
            ticks_in_dispatch: Count::new(),
            ticks_in_change: Count::new(),
            checks: Count::new(),
            wrong: Wrong::new(),
        }
    }

    /// The CPU with this index.
    pub(crate) fn at(index: usize) -> &'static Self {
        &CPUS[index]
    }

    /// The CPU that this runs on.
    pub(crate) fn current() -> &'static Self {
        Self::at(arch::cpu_index())
    }

    /// Calls `work`, and records that it is `doing` so, for an interrupt handler.
    pub(crate) fn while_doing<T>(&self, doing: Doing, work: impl FnOnce() -> T) -> T {
        let before = self.doing.swap(doing as u8, Ordering::Relaxed);
        let done = work();
        self.doing.store(before, Ordering::Relaxed);
        done
    }

    /// Whether it is doing that.
    pub(crate) fn is_doing(&self, doing: Doing) -> bool {
        self.doing.load(Ordering::Relaxed) == doing as u8
    }

    /// Records a timer interrupt.
    pub(crate) fn set_ticked(&self) {
        self.ticked.store(true, Ordering::Relaxed);
    }

    /// Whether there was a timer interrupt since the last call.
    pub(crate) fn take_ticked(&self) -> bool {
        self.ticked.load(Ordering::Relaxed) && self.ticked.swap(false, Ordering::Relaxed)
    }

    /// All accesses of its guest.
    pub(crate) fn exits(&self) -> u64 {
        self.mmio.get() + self.port.get() + self.sys_reg.get()
    }

    /// Records that its guest has halted. A CPU that sees this sees everything before it (`Release`, `Acquire`).
    pub(crate) fn set_halted(&self) {
        self.halted.store(true, Ordering::Release);
    }

    /// Whether its guest has halted.
    pub(crate) fn is_halted(&self) -> bool {
        self.halted.load(Ordering::Acquire)
    }
}
