//! The time of an access to a device that one vCPU at a time may enter, while no other comes: behind
//! `Serialized`, and behind other locks in its place. What they do when vCPUs meet differs: a spinlock
//! lets a vCPU starve, and its waiters spin; only `Serialized` finds re-entry.

use std::{cell::Cell, env, hint::black_box, sync::Arc};

use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice::{Serialized, SharedVmDevices};
use axdevice_base::BaseDeviceOps;
use axvmconfig::EmulatedDeviceType;
use benches::in_turn;

/// A port that counts its reads; `Send`, not `Sync`.
#[derive(Default)]
struct Counter(Cell<usize>);

impl BaseDeviceOps<PortRange> for Counter {
    fn emu_type(&self) -> EmulatedDeviceType {
        EmulatedDeviceType::Dummy
    }

    fn address_range(&self) -> PortRange {
        PortRange::new(Port(0x70), Port(0x77))
    }

    fn handle_read(&self, _: Port, _: AccessWidth) -> AxResult<usize> {
        Ok(self.0.replace(self.0.get() + 1))
    }

    fn handle_write(&self, _: Port, _: AccessWidth, val: usize) -> AxResult {
        self.0.set(val);
        Ok(())
    }
}

/// A lock around a device.
trait Lock: Send + Sync + 'static {
    /// Calls the device alone.
    fn with<T>(&self, work: impl FnOnce(&Counter) -> T) -> T;
}

impl Lock for spin::Mutex<Counter> {
    #[inline]
    fn with<T>(&self, work: impl FnOnce(&Counter) -> T) -> T {
        work(&self.lock())
    }
}

impl Lock for spin::mutex::TicketMutex<Counter> {
    #[inline]
    fn with<T>(&self, work: impl FnOnce(&Counter) -> T) -> T {
        work(&self.lock())
    }
}

impl Lock for parking_lot::FairMutex<Counter> {
    #[inline]
    fn with<T>(&self, work: impl FnOnce(&Counter) -> T) -> T {
        work(&self.lock())
    }
}

impl Lock for std::sync::Mutex<Counter> {
    #[inline]
    fn with<T>(&self, work: impl FnOnce(&Counter) -> T) -> T {
        work(&self.lock().expect("no holder panics"))
    }
}

/// A device behind any lock.
struct Behind<L>(L);

impl<L: Lock> BaseDeviceOps<PortRange> for Behind<L> {
    fn emu_type(&self) -> EmulatedDeviceType {
        self.0.with(Counter::emu_type)
    }

    fn address_range(&self) -> PortRange {
        self.0.with(Counter::address_range)
    }

    fn handle_read(&self, port: Port, width: AccessWidth) -> AxResult<usize> {
        self.0.with(|device| device.handle_read(port, width))
    }

    fn handle_write(&self, port: Port, width: AccessWidth, val: usize) -> AxResult {
        self.0.with(|device| device.handle_write(port, width, val))
    }
}

fn registry<D>(device: D) -> SharedVmDevices
where
    D: BaseDeviceOps<PortRange> + Send + Sync + 'static,
{
    let devices = SharedVmDevices::default();
    devices
        .add_port_dev(Arc::new(device))
        .expect("there is room");
    devices
}

fn main() {
    let once = env::args().any(|arg| arg == "--test");
    let names = [
        "`Serialized`",
        "`spin::Mutex`",
        "`spin::TicketMutex`",
        "`parking_lot::FairMutex`",
        "`std::sync::Mutex`",
    ];
    let device = Counter::default;
    let registries = [
        registry(Serialized::new(device())),
        registry(Behind(spin::Mutex::new(device()))),
        registry(Behind(spin::mutex::TicketMutex::<_>::new(device()))),
        registry(Behind(parking_lot::FairMutex::new(device()))),
        registry(Behind(std::sync::Mutex::new(device()))),
    ];
    let times: [f64; 5] = in_turn(if once { 1 } else { 20_000 }, |i| {
        let read = black_box(&registries[i]).handle_port_read(Port(0x70), AccessWidth::Byte);
        black_box(read.expect("it answers"));
    });
    println!("| lock | a read | in units of `Serialized` |");
    println!("|---|---|---|");
    for (name, time) in names.iter().zip(times) {
        println!("| {name} | {time:.1} ns | {:.2} × |", time / times[0]);
    }
}
