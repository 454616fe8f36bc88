//! The rate of accesses of two vCPUs to one distributor, as a multiple of one vCPU's rate: for accesses that may be
//! in the device together, and for accesses that must be alone.

use std::{
    env,
    hint::{black_box, spin_loop},
    sync::atomic::{AtomicUsize, Ordering::SeqCst},
    thread,
    time::{Duration, Instant},
};

use axaddrspace::{
    GuestPhysAddr,
    device::AccessWidth::{self, Byte, Dword, Qword},
};
use axdevice::{SharedVmDevices, ThreadSafe};
use benches::guarded::{Embedded, at, distributor};

/// Accesses of a vCPU in a round: few enough that most rounds are not interrupted.
const ACCESSES: u32 = 20_000;

/// The number of vCPUs of a round that have started. Each waits for the others.
struct Start(AtomicUsize);

impl Start {
    fn wait(&self, vcpus: usize) {
        self.0.fetch_add(1, SeqCst);
        while self.0.load(SeqCst) < vcpus {
            spin_loop();
        }
    }
}

/// The time in which `vcpus` vCPUs make their accesses, from the start of the first to the end of the last.
fn round(vcpus: usize, access: &(impl Fn() + Sync)) -> Duration {
    let start = Start(AtomicUsize::new(0));
    let vcpu = || {
        start.wait(vcpus);
        let started = Instant::now();
        (0..ACCESSES).for_each(|_| access());
        (started, Instant::now())
    };
    thread::scope(|scope| {
        let others: Vec<_> = (1..vcpus).map(|_| scope.spawn(vcpu)).collect();
        let own = vcpu();
        let times = others
            .into_iter()
            .map(|other| other.join().expect("no panic"));
        let (first, last) = times.fold(own, |all, one| (all.0.min(one.0), all.1.max(one.1)));
        last - first
    })
}

/// The nanoseconds of an access of one vCPU, and the rate of two vCPUs as a multiple of one's. Rounds of one and of
/// two alternate. The shortest round of each counts, because nothing has disturbed it.
fn measure(rounds: u32, access: impl Fn() + Sync) -> (f64, f64) {
    let best = |best: [Duration; 2], _| {
        [
            best[0].min(round(1, &access)),
            best[1].min(round(2, &access)),
        ]
    };
    let [one, two] = (0..rounds).fold([Duration::MAX; 2], best);
    let (one, two) = (one.as_secs_f64(), two.as_secs_f64());
    (one * 1e9 / f64::from(ACCESSES), 2.0 * one / two)
}

/// Prints a row of the table.
fn report(name: &str, how: &str, (nanoseconds, ratio): (f64, f64)) {
    println!("| {name} | {how} | {nanoseconds:.1} ns | {ratio:.2} × |");
}

fn read(devices: &Embedded, addr: GuestPhysAddr, width: AccessWidth) {
    let read = devices.read(black_box(addr), width);
    black_box(read.expect("the access succeeds"));
}

fn write(devices: &Embedded, addr: GuestPhysAddr, width: AccessWidth) {
    let written = devices.write(black_box(addr), width, 7);
    written.expect("the access succeeds");
}

/// An access that often traps, to a register: its name, the register's offset, the width, and whether it writes.
type Access = (&'static str, usize, AccessWidth, bool);

const ACCESSED: [Access; 4] = [
    ("GICD_ISENABLER1, write", 0x104, Dword, true),
    ("GICD_IPRIORITYR8, write", 0x420, Byte, true),
    ("GICD_IROUTER40, read", 0x6140, Qword, false),
    ("GICD_IGROUPR1, read", 0x84, Dword, false),
];

fn main() {
    let once = env::args().any(|arg| arg == "--test");
    let rounds = if once { 1 } else { 500 };
    let (embedded, shared): (_, SharedVmDevices) = (Embedded::new(), distributor::<ThreadSafe>());
    println!("| access | in | one vCPU | two |");
    println!("|---|---|---|---|");
    for (name, offset, width, writes) in ACCESSED {
        let addr = at(offset);
        let together = match writes {
            true => measure(rounds, || write(&embedded, addr, width)),
            false => measure(rounds, || read(&embedded, addr, width)),
        };
        report(name, "`AxVmDevices`", together);
        let in_turn = match writes {
            true => measure(rounds, || {
                let written = shared.handle_mmio_write(black_box(addr), width, 7);
                written.expect("the access succeeds");
            }),
            false => measure(rounds, || {
                let read = shared.handle_mmio_read(black_box(addr), width);
                black_box(read.expect("the access succeeds"));
            }),
        };
        report(name, "`SharedVmDevices`, in turn", in_turn);
    }
    let alone = measure(rounds, || write(&embedded, at(0x84), Dword));
    report("GICD_IGROUPR1, write", "`AxVmDevices`, in turn", alone);
}
