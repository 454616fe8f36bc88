//! The time of an uncontended access to a device that one vCPU at a time may enter: behind
//! `Serialized`, and behind other locks in its place. Under contention the locks differ: with a spinlock
//! a vCPU can starve, and waiters spin. Only `Serialized` detects re-entry.

use std::{cell::Cell, env, hint::black_box, sync::Arc};

use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice::{Serialized, SharedVmDevices};
use axdevice_base::BaseDeviceOps;
use benches::in_turn;
use spin::mutex::TicketMutex;
use support::{Access, Device};

/// Eight ports that count their reads. Their state is `Send`, but not `Sync`.
fn count(reads: &Cell<usize>, access: Access) -> AxResult<usize> {
    match access.written {
        None => Ok(reads.replace(reads.get() + 1)),
        Some(value) => Ok(reads.replace(value)),
    }
}

/// The device behind a lock, which `enter` acquires for an access.
fn behind<L: Send + Sync + 'static>(
    lock: impl Fn(Cell<usize>) -> L,
    enter: impl Fn(&L, Access) -> AxResult<usize> + Send + Sync + 'static,
) -> SharedVmDevices {
    registry(Device::new(lock(Cell::new(0)), ports, enter))
}

fn ports<S>(_: &S) -> PortRange {
    PortRange::new(Port(0x70), Port(0x77))
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
    let registries = [
        registry(Serialized::new(Device::new(Cell::new(0), ports, count))),
        behind(spin::Mutex::<_>::new, |lock, access| {
            count(&lock.lock(), access)
        }),
        behind(TicketMutex::<_>::new, |lock, access| {
            count(&lock.lock(), access)
        }),
        behind(parking_lot::FairMutex::new, |lock, access| {
            count(&lock.lock(), access)
        }),
        behind(std::sync::Mutex::new, |lock, access| {
            count(&lock.lock().expect("no holder panics"), access)
        }),
    ];
    let times: [f64; 5] = in_turn(if once { 1 } else { 20_000 }, |i| {
        let read = black_box(&registries[i]).handle_port_read(Port(0x70), AccessWidth::Byte);
        black_box(read.expect("the access succeeds"));
    });
    println!("| lock | a read | in units of `Serialized` |");
    println!("|---|---|---|");
    for (name, time) in names.iter().zip(times) {
        println!("| {name} | {time:.1} ns | {:.2} × |", time / times[0]);
    }
}
