//! A [`Serialized`] device that many vCPUs access at once: all wait, none fails, none starves.

use std::{
    cell::Cell,
    hint::spin_loop,
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicUsize, Ordering::SeqCst},
    },
    thread,
    time::Duration,
};

use ax_errno::AxResult;
use axaddrspace::device::{AccessWidth, Port, PortRange};
use axdevice::{Serialized, SharedVmDevices};
use support::{Access, Device, assert_fair, hammer, size};

use crate::{budget::seconds_or, watchdog::Watchdog};

const WIDTH: AccessWidth = AccessWidth::Dword;

/// A port that reads as the number of accesses to it, this one included, and loses some if two vCPUs are inside. A
/// write stays inside for the written number of milliseconds.
#[derive(Default)]
struct Disk {
    accesses: Cell<usize>,
    is_flushing: Arc<AtomicBool>,
}

impl Disk {
    fn access(&self, access: Access) -> AxResult<usize> {
        match access.written {
            Some(milliseconds) => self.flush(Duration::from_millis(milliseconds as u64)),
            // A vCPU is inside most of the time, as with a real device.
            None => (0..size(200, 1)).for_each(|_| spin_loop()),
        }
        Ok(self.count())
    }

    fn flush(&self, time: Duration) {
        self.is_flushing.store(true, SeqCst);
        thread::sleep(time);
        self.is_flushing.store(false, SeqCst);
    }

    fn count(&self) -> usize {
        self.accesses.set(self.accesses.get() + 1);
        self.accesses.get()
    }
}

fn registry(disk: Disk) -> SharedVmDevices {
    let devices = SharedVmDevices::default();
    let ports = |_: &Disk| PortRange::new(Port(0x1f0), Port(0x1f7));
    let disk = Serialized::new(Device::new(disk, ports, Disk::access));
    devices.add_port_dev(Arc::new(disk)).unwrap();
    devices
}

fn read(devices: &SharedVmDevices) -> AxResult<usize> {
    devices.handle_port_read(Port(0x1f0), WIDTH)
}

/// Takes ten seconds, or the number of seconds in the environment.
#[test]
fn no_vcpu_starves() {
    let _watchdog = Watchdog::new("no_vcpu_starves");
    let devices = registry(Disk::default());
    let made = AtomicUsize::new(0);
    let accesses = hammer(seconds_or(10), || {
        made.fetch_add(1, SeqCst);
        read(&devices)
    });
    assert_fair(&accesses);
    let made = made.into_inner();
    assert_eq!(read(&devices), Ok(made + 1), "no access is lost");
}

/// Takes two seconds: a vCPU that has lost its core, or that flushes, is inside for longer than any spin.
#[test]
fn all_wait_for_one_that_stays_inside() {
    const OTHERS: usize = 4;
    let milliseconds = size(2_000, 1);
    let disk = Disk::default();
    let is_flushing = disk.is_flushing.clone();
    let devices = registry(disk);
    thread::scope(|scope| {
        let flush = || devices.handle_port_write(Port(0x1f0), WIDTH, milliseconds);
        let flush = scope.spawn(flush);
        while !is_flushing.load(SeqCst) && !flush.is_finished() {
            thread::yield_now();
        }
        let others: Vec<_> = (0..OTHERS)
            .map(|_| scope.spawn(|| read(&devices)))
            .collect();
        let mut seen: Vec<_> = others
            .into_iter()
            .map(|other| other.join().unwrap().unwrap())
            .collect();
        assert!(!is_flushing.load(SeqCst), "no vCPU has entered beside it");
        assert_eq!(flush.join().unwrap(), Ok(()));
        seen.sort_unstable();
        assert_eq!(seen, [2, 3, 4, 5], "the flush is the first");
    });
}
