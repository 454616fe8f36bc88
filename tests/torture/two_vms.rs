//! Two VMs in one process, whose registries change all the time: a vCPU reads the devices of its own
//! VM only.
//!
//! Both tests fail with arc-swap 1.9.3 and 1.9.4 (arc-swap#210). There a load reads which tables are current, and then
//! notes their address. If it is interrupted in between, its own VM may free these tables, and the other VM allocate
//! its next ones at the same address. When the other VM replaces these tables, it treats the note as that of a load of
//! its own, and leaves its tables to the reader.
//!
//! So one thread changes both registries alternately: the memory that one frees, the other allocates next. On another
//! core the vCPU shares its time with threads that sleep and wake as fast as they can, which interrupt it anywhere.
//!
//! With 1.9.4, an optimised build and two cores, the tests fail within 2 seconds if the cores have
//! little else to do, and within 20 if they are busy. In the one second of `cargo test` one of the two
//! fails in about two runs of three: `.ci/torture.sh` is the proof.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Acquire},
    },
    thread,
    time::{Duration, Instant},
};

use axdevice::{DeviceId, SharedVmDevices};
use support::{Sets, shared_registry, size};

use crate::{
    budget::Budget,
    census::{Census, Vcpu, Victim, range},
    cores::Core,
};

const LENGTH: usize = 0x10;
const FIXED: usize = 0x1000;
/// The possible places of the device that moves.
const PLACES: [usize; 2] = [0x2000, 0x3000];

/// The numbers of the VMs, which their devices read as.
const OURS: usize = 1;
const OTHER: usize = 2;

/// The number of threads that interrupt the vCPU.
const INTERRUPTERS: usize = size(4, 0);

/// A VM with a device that stays and one that moves.
struct Vm {
    devices: SharedVmDevices,
    moving: DeviceId,
}

impl Vm {
    fn new(number: usize, census: &Arc<Census>) -> Self {
        let devices = shared_registry();
        let [_, moving] = [FIXED, PLACES[1]].map(|first| {
            let device = Victim::idle(first, LENGTH, number, census);
            devices.add_mmio_dev(device).unwrap()
        });
        Self { devices, moving }
    }

    /// Reads the device that stays until `done` is set.
    fn read(&self, nth: usize, done: &AtomicBool) {
        let mut vcpu = Vcpu::new(&self.devices, nth);
        let (start, mut reads) = (Instant::now(), 0_usize);
        while reads == 0 || !done.load(Acquire) {
            // A handle that is parked loads the tables, whether or not they were replaced.
            if reads.is_multiple_of(2) {
                vcpu.park();
            }
            let read = vcpu.read(FIXED);
            assert_eq!(read, Ok(OURS), "read {reads}, after {:?}", start.elapsed());
            reads += 1;
        }
    }
}

/// Changes both VMs alternately.
fn change(vms: &[Vm]) {
    for first in PLACES {
        for Vm { devices, moving } in vms {
            assert_eq!(devices.move_to(*moving, range(first, LENGTH)), Ok(()));
        }
    }
}

fn interrupt(done: &AtomicBool) {
    while !done.load(Acquire) {
        thread::sleep(Duration::from_micros(1));
    }
}

/// The `nth` vCPU of the one VM, while both change.
fn run(nth: usize) {
    let census = Arc::new(Census::default());
    let [here, elsewhere] = Core::pair(nth);
    elsewhere.pin();
    let vms = [OURS, OTHER].map(|number| Vm::new(number, &census));
    let done = AtomicBool::new(false);
    thread::scope(|scope| {
        let _stops = Sets(&done);
        scope.spawn(|| {
            let _stops = Sets(&done);
            here.pin();
            vms[0].read(nth, &done);
        });
        for _ in 0..INTERRUPTERS {
            scope.spawn(|| {
                here.pin();
                interrupt(&done);
            });
        }
        for _ in Budget::new(1_000, 8)
            .rounds()
            .take_while(|_| !done.load(Acquire))
        {
            change(&vms);
        }
    });
    drop(vms);
    census.close();
}

/// Runs it on its own thread, because a thread stays on its core.
fn apart(nth: usize) {
    thread::spawn(move || run(nth))
        .join()
        .expect("all went well");
}

#[test]
fn a_vcpu_reads_its_own_vm_by_the_registry() {
    apart(0);
}

#[test]
fn a_vcpu_reads_its_own_vm_by_a_handle() {
    apart(1);
}
