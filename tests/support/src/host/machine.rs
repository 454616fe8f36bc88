//! The addresses of the host's interrupt controllers: those of QEMU's `virt` machines, which have room for the usual
//! configurations for these machines.

#[cfg(target_arch = "aarch64")]
use std::sync::atomic::{AtomicUsize, Ordering::SeqCst};
use std::sync::{LazyLock, Mutex, MutexGuard, PoisonError};

use super::memory::registers;

/// The CPUs of the host.
pub const CPUS: usize = 8;

/// The host's GICv3 distributor.
pub const GICD: usize = 0x800_0000;
/// Its GICD_TYPER: 16 bits of interrupt ids (IDbits is one less), so there are LPIs, and the maximum of interrupt
/// lines.
pub const GICD_TYPER: u32 = (15 << 19) | 0x1f;
/// Its GICD_IIDR: made by Arm.
pub const GICD_IIDR: u32 = 0x43b;
/// Its length.
pub const GICD_LENGTH: usize = 0x1_0000;

/// The host's ITS.
///
/// The devices program only the first ITS that they get, until the process ends. A test that submits commands must use
/// this ITS, and so must every test that runs at the same time.
pub const ITS: usize = 0x808_0000;
/// Its length.
pub const ITS_LENGTH: usize = 0x2_0000;

/// The redistributor of the host's CPU 0. The others follow it.
pub const GICR: usize = 0x80a_0000;
/// The length of each.
pub const GICR_LENGTH: usize = 0x2_0000;

/// The addresses of the distributor and of the first redistributor for devices that are built from now on.
#[cfg(target_arch = "aarch64")]
static GIC: [AtomicUsize; 2] = [AtomicUsize::new(GICD), AtomicUsize::new(GICR)];

/// Moves the host's distributor to `addr`, for devices that are built from now on.
#[cfg(target_arch = "aarch64")]
pub fn set_gicd(addr: usize) {
    GIC[0].store(addr, SeqCst);
}

/// Moves the redistributors of the host's CPUs to `addr` and the addresses after it, for devices that are built
/// from now on.
#[cfg(target_arch = "aarch64")]
pub fn set_gicr(addr: usize) {
    GIC[1].store(addr, SeqCst);
}

#[cfg(target_arch = "aarch64")]
pub(crate) fn gicd() -> usize {
    GIC[0].load(SeqCst)
}

#[cfg(target_arch = "aarch64")]
pub(crate) fn gicr() -> usize {
    GIC[1].load(SeqCst)
}

/// The host's PLIC.
pub const PLIC: usize = 0xc00_0000;
/// Its length.
pub const PLIC_LENGTH: usize = 0x60_0000;

/// GITS_CWRITER and GITS_CREADR (IHI 0069, "ITS register map").
const GITS_CWRITER: usize = 0x88;
const GITS_CREADR: usize = 0x90;

/// Physical addresses that are not memory, and the memory that stands for them.
struct Window {
    base: usize,
    length: usize,
    memory: LazyLock<usize>,
}

impl Window {
    /// The address in the process for `addr`, if it is in this window.
    fn translate(&self, addr: usize) -> Option<usize> {
        let offset = addr.checked_sub(self.base)?;
        (offset < self.length).then(|| *self.memory + offset)
    }
}

static WINDOWS: [Window; 4] = [
    Window {
        base: GICD,
        length: GICD_LENGTH,
        memory: LazyLock::new(|| registers(GICD_LENGTH)),
    },
    Window {
        base: ITS,
        length: ITS_LENGTH,
        memory: LazyLock::new(|| registers(ITS_LENGTH)),
    },
    Window {
        base: GICR,
        length: CPUS * GICR_LENGTH,
        memory: LazyLock::new(|| registers(CPUS * GICR_LENGTH)),
    },
    Window {
        base: PLIC,
        length: PLIC_LENGTH,
        memory: LazyLock::new(|| registers(PLIC_LENGTH)),
    },
];

/// The address in the process for a physical address.
///
/// The ITS is infinitely fast: it reports that it has read all written commands, because one register represents both
/// positions.
pub(crate) fn translate(addr: usize) -> usize {
    let addr = match addr.checked_sub(ITS) {
        Some(GITS_CREADR) => ITS + GITS_CWRITER,
        _ => addr,
    };
    let translated = WINDOWS.iter().find_map(|window| window.translate(addr));
    translated.unwrap_or(addr)
}

/// Gives the caller exclusive use of the machine until the guard is dropped.
pub fn exclusive() -> MutexGuard<'static, ()> {
    static MACHINE: Mutex<()> = Mutex::new(());
    // A test that failed leaves registers behind, which the next one sets before it reads them.
    MACHINE.lock().unwrap_or_else(PoisonError::into_inner)
}
