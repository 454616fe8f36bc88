//! `axdevice` with one fault, which begins when a guest writes the number of the fault to [`SABOTEUR`].

#![no_std]

use core::{
    arch::asm,
    ops::{Deref, DerefMut},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
};

pub use real::*;

/// The address to which guests write; no device is there. `../guest/src/mailbox.rs` has it too.
const SABOTEUR: usize = 0x7f00_0000;

/// The fault. `SABOTAGES` in `../run.py` contains the numbers, and the text that reveals each fault.
static WRONG: AtomicUsize = AtomicUsize::new(0);

const VALUE: usize = 1;
const LOST: usize = 2;
const ERROR: usize = 3;
const PANIC: usize = 4;
const RARE: usize = 5;
const BUSY: usize = 6;
const TORN: usize = 7;
const BARE: usize = 8;
const WIDE: usize = 9;
const CHANNEL: usize = 10;
const THREAD: usize = 11;
const SYSREG: usize = 12;

/// The number of accesses that are in devices.
static INSIDE: AtomicUsize = AtomicUsize::new(0);

/// The number of reads.
static READS: AtomicUsize = AtomicUsize::new(0);

/// The registry, which Axvisor uses in place of the real one.
pub struct AxVmDevices(real::AxVmDevices);

impl Deref for AxVmDevices {
    type Target = real::AxVmDevices;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl DerefMut for AxVmDevices {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl AxVmDevices {
    pub fn new(config: AxVmDeviceConfig) -> Self {
        Self(real::AxVmDevices::new(config))
    }

    pub fn handle_mmio_read(&self, addr: GuestPhysAddr, width: AccessWidth) -> AxResult<usize> {
        let read = || self.0.handle_mmio_read(addr, width);
        match (WRONG.load(SeqCst), self.0.find_mmio_dev(addr)) {
            (VALUE, Some(_)) => read().map(|value| value ^ 1),
            (ERROR, None) => Err(AxError::NotFound),
            (PANIC, None) => panic!("emu_device not found"),
            (RARE, Some(_)) if READS.fetch_add(1, SeqCst) % 1000 == 999 => {
                read().map(|value| value ^ 1)
            }
            (BUSY, Some(_)) => alone(read),
            (BARE, Some(device)) if is_reserved(addr) => device.handle_read(addr, width),
            (WIDE, Some(_)) if is_reserved(addr) => Ok(usize::MAX),
            (THREAD, Some(_)) => {
                write_to_thread();
                read()
            }
            _ => read(),
        }
    }

    pub fn handle_mmio_write(
        &self,
        addr: GuestPhysAddr,
        width: AccessWidth,
        value: usize,
    ) -> AxResult {
        if addr.as_usize() == SABOTEUR {
            WRONG.store(value, SeqCst);
            return Ok(());
        }
        let write = || self.0.handle_mmio_write(addr, width, value);
        match (WRONG.load(SeqCst), self.0.find_mmio_dev(addr)) {
            (LOST, Some(_)) => Ok(()),
            (BUSY, Some(_)) => alone(write),
            (TORN, Some(_)) if matches!(width, AccessWidth::Qword) => {
                let dword = AccessWidth::Dword;
                self.0.handle_mmio_write(addr, dword, value & 0xffff_ffff)?;
                self.0.handle_mmio_write(addr + 4, dword, value >> 32)
            }
            _ => write(),
        }
    }

    pub fn handle_sys_reg_read(&self, addr: SysRegAddr, width: AccessWidth) -> AxResult<usize> {
        let value = self.0.handle_sys_reg_read(addr, width)?;
        Ok(if WRONG.load(SeqCst) == SYSREG {
            !value
        } else {
            value
        })
    }

    pub fn alloc_ivc_channel(&self, size: usize) -> AxResult<GuestPhysAddr> {
        match WRONG.load(SeqCst) {
            CHANNEL => Err(AxError::NoMemory),
            _ => self.0.alloc_ivc_channel(size),
        }
    }
}

/// An offset that only sweeps visit, and at which the bare devices fail for some width.
fn is_reserved(addr: GuestPhysAddr) -> bool {
    addr.as_usize() & 0xfff == 0x30
}

/// An access that fails if another vCPU makes one.
fn alone<T>(access: impl FnOnce() -> AxResult<T>) -> AxResult<T> {
    let others = INSIDE.fetch_add(1, SeqCst);
    let result = match others {
        0 => access(),
        _ => Err(AxError::ResourceBusy),
    };
    INSIDE.fetch_sub(1, SeqCst);
    result
}

/// Writes through the thread pointer, which is the guest's, as a thread-local does.
fn write_to_thread() {
    let pointer: usize;
    // SAFETY: it reads a register.
    unsafe {
        #[cfg(target_arch = "aarch64")]
        asm!("mrs {0}, TPIDR_EL0", out(reg) pointer, options(nomem, nostack, preserves_flags));
        #[cfg(target_arch = "riscv64")]
        asm!("mv {0}, tp", out(reg) pointer, options(nomem, nostack, preserves_flags));
    }
    if pointer != 0 {
        let pointer = core::ptr::with_exposed_provenance_mut::<usize>(pointer);
        // SAFETY: none, and that is the fault: the guest's thread pointer points to a page that it shares with the
        // host, or to nothing.
        unsafe { pointer.write_volatile(1) };
    }
}
