//! The time of one access to a hot register through its guard, on one vCPU, against the same without:
//! the registry calls the same filters as on the architectures that have the devices, around a device
//! that does nothing.

use std::{
    env,
    hint::black_box,
    process::ExitCode,
    sync::{
        Arc,
        atomic::{
            AtomicBool,
            Ordering::{Acquire, Release},
        },
    },
    time::Instant,
};

use ax_errno::AxResult;
use axaddrspace::{GuestPhysAddr, GuestPhysAddrRange, device::AccessWidth};
use axdevice::{
    SharedVmDevices,
    arch::on_any_device::{self, Plic},
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

/// A PLIC that does nothing but take its lock as often as the real one, which is once to say what is
/// active, and three times to complete it.
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

/// Accesses in a batch: few enough that most batches are not interrupted.
const BATCH: u32 = 500;

/// A register, as it is reached with and without its guard.
struct Register {
    name: &'static str,
    addr: GuestPhysAddr,
    bare: SharedVmDevices,
    guarded: SharedVmDevices,
}

impl Register {
    fn new(name: &'static str, offset: usize, bare: Handler, guarded: Handler) -> Self {
        let registry = |device| {
            let devices = SharedVmDevices::default();
            devices.add_mmio_dev(device).expect("there is room");
            devices
        };
        Self {
            name,
            addr: GuestPhysAddr::from_usize(BASE + offset),
            bare: registry(bare),
            guarded: registry(guarded),
        }
    }

    /// The nanoseconds of an access, bare and guarded. Both take turns, and the best of all batches
    /// counts: it is the one that nothing has disturbed.
    fn measure(&self, batches: u32, access: impl Fn(&SharedVmDevices)) -> (f64, f64) {
        let batch = |devices: &SharedVmDevices| {
            let start = Instant::now();
            (0..BATCH).for_each(|_| access(black_box(devices)));
            start.elapsed().as_secs_f64() * 1e9 / f64::from(BATCH)
        };
        let both = |_| (batch(&self.bare), batch(&self.guarded));
        let best = |best: (f64, f64), now: (f64, f64)| (best.0.min(now.0), best.1.min(now.1));
        (0..batches).map(both).fold((f64::MAX, f64::MAX), best)
    }

    /// Prints a row of the table. Whether the guard costs no more than it may.
    fn report(&self, direction: &str, (bare, guarded): (f64, f64)) -> bool {
        let (more, times) = (guarded - bare, guarded / bare);
        println!(
            "| {} | {direction} | {bare:.1} ns | {guarded:.1} ns | {more:+.1} ns | {times:.2} × |",
            self.name
        );
        more <= 3.0 || times <= 1.5
    }
}

fn registers() -> Vec<Register> {
    let base = BASE.into();
    let serialised = || on_any_device::serialised(Nothing);
    let gicd = || on_any_device::gicd(Nothing, base);
    let gicr = || on_any_device::gicr(Nothing, base, 0..0);
    let gicv2 = || on_any_device::gicv2(Nothing, base);
    let locks = || Arc::new(Locks::default());
    let plic = || on_any_device::plic(Locks::default(), base, 8);
    vec![
        Register::new("GICD_ISENABLER1", 0x104, serialised(), gicd()),
        Register::new("GICD_IPRIORITYR8", 0x420, serialised(), gicd()),
        Register::new("GICD_IROUTER40", 0x6140, serialised(), gicd()),
        Register::new("GICR_ISENABLER0", 0x1_0100, serialised(), gicr()),
        Register::new("GICR_ISPENDR0", 0x1_0200, serialised(), gicr()),
        Register::new("GICv2 GICD_ISENABLER0", 0x100, Arc::new(Nothing), gicv2()),
        Register::new("PLIC enable bits", 0x2080, locks(), plic()),
        Register::new("PLIC claim/complete", PLIC_COMPLETE, locks(), plic()),
    ]
}

fn main() -> ExitCode {
    let once = env::args().any(|arg| arg == "--test");
    let batches = if once { 200 } else { 20_000 };
    println!("| register | access | bare | guarded | more | times |");
    println!("|---|---|---|---|---|---|");
    let mut cheap = true;
    for register in registers() {
        let addr = register.addr;
        let read = register.measure(batches, |devices| {
            let _ = black_box(devices.handle_mmio_read(black_box(addr), AccessWidth::Dword));
        });
        cheap &= register.report("read", read);
        let write = register.measure(batches, |devices| {
            let _ = black_box(devices.handle_mmio_write(black_box(addr), AccessWidth::Dword, 7));
        });
        cheap &= register.report("write", write);
    }
    if cheap {
        ExitCode::SUCCESS
    } else {
        eprintln!("a guard costs more than 3 ns and more than half of the access");
        ExitCode::FAILURE
    }
}
