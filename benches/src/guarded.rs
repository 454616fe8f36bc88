//! Registers of interrupt controllers, with and without their guards. The registry calls the same
//! filters as on the controllers' architectures, in front of a device that does nothing.

use std::{
    hint::black_box,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
};

use ax_errno::AxResult;
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice::{
    AxVmDevices, DeviceBound, Serialized, SharedVmDevices, ThreadSafe, Unbound, VmDevices,
    guarded::{self, Plic},
};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;

const BASE: usize = 0x800_0000;
const LENGTH: usize = 0x40_0000;

/// The claim/complete register of context 1.
const PLIC_COMPLETE: usize = 0x20_1004;

/// A device that does nothing.
struct Nothing;

impl BaseDeviceOps<GuestPhysAddrRange> for Nothing {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> GuestPhysAddrRange {
        GuestPhysAddrRange::from_start_size(BASE.into(), LENGTH)
    }

    fn handle_read(&self, addr: GuestPhysAddr, _: AccessWidth) -> AxResult<usize> {
        Ok(addr.as_usize() & 0xff)
    }

    fn handle_write(&self, _: GuestPhysAddr, _: AccessWidth, val: usize) -> AxResult {
        black_box(val);
        Ok(())
    }
}

/// A PLIC that only acquires its lock, as often as the real one does: once in `is_active`, and three
/// times for a completion.
#[derive(Default)]
struct Locks(AtomicBool);

impl Locks {
    fn lock_and_unlock(&self) {
        while self.0.swap(true, Acquire) {}
        self.0.store(false, Release);
    }
}

impl BaseDeviceOps<GuestPhysAddrRange> for Locks {
    fn emu_type(&self) -> EmulatedDeviceType {
        Nothing.emu_type()
    }

    fn address_range(&self) -> GuestPhysAddrRange {
        Nothing.address_range()
    }

    fn handle_read(&self, addr: GuestPhysAddr, width: AccessWidth) -> AxResult<usize> {
        Nothing.handle_read(addr, width)
    }

    fn handle_write(&self, addr: GuestPhysAddr, width: AccessWidth, val: usize) -> AxResult {
        if addr.as_usize() - BASE == PLIC_COMPLETE {
            (0..3).for_each(|_| self.lock_and_unlock());
        }
        Nothing.handle_write(addr, width, val)
    }
}

impl Plic for Locks {
    fn is_active(&self, source: usize) -> bool {
        self.lock_and_unlock();
        source != 0
    }
}

type Handler = Arc<dyn BaseDeviceOps<GuestPhysAddrRange> + Send + Sync>;

/// A register, in a registry with its guard and in one without.
#[derive(Debug)]
pub struct Register {
    /// Its name.
    pub name: &'static str,
    /// Its address, in either registry.
    pub addr: GuestPhysAddr,
    /// The registry without the guard.
    pub bare: SharedVmDevices,
    /// The registry with the guard.
    pub guarded: SharedVmDevices,
}

impl Register {
    fn new(name: &'static str, offset: usize, bare: Handler, guarded: Handler) -> Self {
        Self {
            name,
            addr: at(offset),
            bare: lone(bare),
            guarded: lone(guarded),
        }
    }
}

/// The registers that a guest accesses most, of each controller.
pub fn registers() -> Vec<Register> {
    let base = BASE.into();
    let serialized = || Arc::new(Serialized::new(Nothing));
    let gicd = || guarded::gicd::<ThreadSafe, _>(Nothing, base);
    let gicr = || guarded::gicr::<ThreadSafe, _>(Nothing, base, 0..0);
    let gicv2 = || guarded::gicv2::<ThreadSafe, _>(Nothing, base);
    let locks = || Arc::new(Locks::default());
    let plic = || guarded::plic::<ThreadSafe, _>(Locks::default(), base, 8);
    vec![
        Register::new("GICD_ISENABLER1", 0x104, serialized(), gicd()),
        Register::new("GICD_IPRIORITYR8", 0x420, serialized(), gicd()),
        Register::new("GICD_IROUTER40", 0x6140, serialized(), gicd()),
        Register::new("GICR_ISENABLER0", 0x1_0100, serialized(), gicr()),
        Register::new("GICR_ISPENDR0", 0x1_0200, serialized(), gicr()),
        Register::new("GICv2 GICD_ISENABLER0", 0x100, Arc::new(Nothing), gicv2()),
        Register::new("PLIC enable bits", 0x2080, locks(), plic()),
        Register::new("PLIC claim/complete", PLIC_COMPLETE, locks(), plic()),
    ]
}

/// A GICv3 distributor that does nothing, behind its guard.
pub fn distributor<B: DeviceBound>() -> VmDevices<B> {
    lone(guarded::gicd::<B, _>(Nothing, BASE.into()))
}

/// A GICv3 redistributor that does nothing, behind its guard.
pub fn redistributor<B: DeviceBound>() -> VmDevices<B> {
    lone(guarded::gicr::<B, _>(Nothing, BASE.into(), 0..0))
}

fn lone<B: DeviceBound>(device: Arc<B::Dev<GuestPhysAddrRange>>) -> VmDevices<B> {
    let devices = VmDevices::default();
    devices.add_mmio_dev(device).expect("there is room");
    devices
}

/// The address of the register at an offset of these devices.
pub fn at(offset: usize) -> GuestPhysAddr {
    GuestPhysAddr::from_usize(BASE + offset)
}

/// A distributor in a registry that is not `Sync` by itself.
#[derive(Debug)]
pub struct Embedded(AxVmDevices);

// SAFETY: the registry's only device is a `Nothing` behind its guard, and both are `Sync`. This type calls
// only `handle_*` of the registry, and gives out neither the registry nor the device.
unsafe impl Sync for Embedded {}

impl Embedded {
    /// A new distributor in a new registry.
    pub fn new() -> Self {
        Self(distributor::<Unbound>())
    }

    /// Reads a register.
    pub fn read(&self, addr: GuestPhysAddr, width: AccessWidth) -> AxResult<usize> {
        self.0.handle_mmio_read(addr, width)
    }

    /// Writes a register.
    pub fn write(&self, addr: GuestPhysAddr, width: AccessWidth, val: usize) -> AxResult {
        self.0.handle_mmio_write(addr, width, val)
    }
}

impl Default for Embedded {
    fn default() -> Self {
        Self::new()
    }
}
